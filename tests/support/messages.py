"""The messages of the code, read from its syntax trees: what is logged, and the errors of the core."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: A value in a message.
VALUE = "…"
_LEVELS = {"info": "Info", "warning": "Warning", "error": "Error", "exception": "Error, with traceback"}
_ERRORS = (
    *("ConfigurationError", "SessionReadOnly", "SessionConflict", "SessionUnavailable", "RuntimeError", "TypeError"),
    *("NotStorable", "TableRefuses"),
)
#: Functions that yield sentences, which are logged elsewhere.
_OF_SENTENCES = ("unmatched", "unread")
#: Constants of other files that messages have.
_KNOWN = {"PREFIX": "LAZYSESSION_"}

Functions = (ast.FunctionDef, ast.AsyncFunctionDef)


class Message(NamedTuple):
    """One text: how it is given out, with ``VALUE`` for each value in it, and without the page that it names."""

    kind: str
    text: str
    place: str


def messages_of(path: Path) -> Iterator[Message]:
    """Return the messages of a file, in their order."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, Functions))]:
        for node in _own_nodes(scope):
            kind = _kind(node)
            if kind is None or (isinstance(node, ast.Yield) and getattr(scope, "name", "") not in _OF_SENTENCES):
                continue
            arguments = [node.value] if isinstance(node, ast.Yield) else node.args  # type: ignore[attr-defined]
            texts = next(filter(None, ([*_texts(each, scope, tree)] for each in arguments if each is not None)), [])
            for text in texts:
                plain = _plain(text, arguments)
                if re.search(r"\w\w", plain):
                    yield Message(kind, plain, f"{path.name}:{node.lineno}")  # type: ignore[attr-defined]


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function, or of a module, without those of the functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, Functions):
            yield child
            yield from _own_nodes(child)


def _kind(node: ast.AST) -> str | None:
    """Return how a call gives a text out; None for any other node."""
    if isinstance(node, ast.Yield):
        return "Warning"
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return node.func.id if node.func.id in _ERRORS else None
    if not isinstance(node.func, ast.Attribute):
        return None
    owner, name = ast.unparse(node.func.value), node.func.attr
    if (owner, name) == ("warnings", "warn"):
        return "Python warning"
    if owner == "self._once" or (owner, name) == ("self", "_log"):
        return "Warning, once per endpoint"
    return _LEVELS.get(name) if owner == "logger" else None


def _texts(node: ast.expr, scope: ast.AST, tree: ast.Module) -> Iterator[str]:
    """Yield the texts that an expression can be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(map(_part, node.values))
    elif isinstance(node, ast.Name):
        for assigned in [*_assigned(node.id, scope), *_assigned(node.id, tree)]:
            yield from _texts(assigned, scope, tree)
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func).removeprefix("self.")
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and function.name == name:
                for each in ast.walk(function):
                    if isinstance(each, ast.Return) and each.value is not None:
                        yield from _texts(each.value, function, tree)


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    value = node.value if isinstance(node, ast.FormattedValue) else None
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "see":
        return ""
    return _KNOWN.get(ast.unparse(value), VALUE) if value is not None else VALUE


def _assigned(name: str, scope: ast.AST) -> Iterator[ast.expr]:
    """Yield what is assigned to a name in a function or module, also as one of several."""
    for node in _own_nodes(scope):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        yield from (each for place, each in pairs if isinstance(place, ast.Name) and place.id == name)


def _plain(text: str, arguments: list[ast.expr]) -> str:
    """Return a text with VALUE for each value, and without the page at its end."""
    last = arguments[-1]
    if isinstance(last, ast.Call) and ast.unparse(last.func) == "see":
        text = text.removesuffix("%s")
    return re.sub(f"{VALUE}+", VALUE, re.sub(r"%[srdg]", VALUE, text)).strip()
