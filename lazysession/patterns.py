"""Which patterns of rules can never match, and which match all that another one matches; no request is needed."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from flask import Flask

from .settings import BETWEEN_PATTERNS

#: The registered methods of HTTP. A route may accept others as well.
METHODS = frozenset({
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD", "LABEL",
    "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE",
    "OPTIONS", "ORDERPATCH", "PATCH", "POST", "PRI", "PROPFIND", "PROPPATCH", "PUT", "QUERY", "REBIND", "REPORT",
    "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
})  # fmt: skip
_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_VARIABLE = re.compile(r"<[^<>/]+>")
#: A regular expression that is tied to the beginning, has a letter there, and no alternative.
_NO_SLASH = re.compile(r"(?:\^|\\A)\w(?![?*{])[^|]*")
_MATCHES_ALL = frozenset({"", "^", "/", "^/", ".*", "^.*", "^/.*", ".*$", "^.*$", "^/.*$"})
# Stand for the wildcards of a glob where another glob is matched against it; no path has them.
_ANY_TEXT, _ANY_SEGMENT, _ANY_CHARACTER = "\ue000", "\ue001", "\ue002"


class Pattern(NamedTuple):
    """A pattern by its parts.

    :param kind: ``"path"``, ``"endpoint"``, ``"blueprint"``, ``"method"``, ``"regex"`` or ``"function"``.
    :param text: the glob, the name or the regular expression; nothing for a function.
    :param identity: what makes two patterns with the same text one: the flags, or the function.
    """

    kind: str
    text: str = ""
    identity: object = None


def fault_of_text(pattern: Pattern) -> str | None:
    """Return why a glob or a method can never match; None where it may."""
    if pattern.kind == "method" and not _METHOD.fullmatch(pattern.text):
        return f"'method:{pattern.text}' is not one method: write a rule for each, without wildcards."
    variable = _VARIABLE.search(pattern.text) if pattern.kind == "path" else None
    if variable is not None:
        return f"{variable[0]!r} is matched letter for letter. Write * for the variable part of a path."
    return None


def fault_of_function(function: Callable[..., Any]) -> str | None:
    """Return why a function cannot be a rule; None where it takes the request and may return False."""
    always = "what it returns is always true."
    if isinstance(function, type):
        return f"is a class: {always}"
    plain: Any = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    candidates = (plain, getattr(type(plain), "__call__", None))  # noqa: B004 - of the class, as an object has it
    if any(inspect.iscoroutinefunction(each) for each in candidates):
        return f"is asynchronous: {always}"
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in candidates):
        return f"is a generator: {always}"
    try:
        inspect.signature(function, follow_wrapped=False).bind(object())  # the decorated function is called
    except TypeError:
        return "cannot be called with one argument, the request."
    except ValueError:  # some functions in C do not tell
        return None
    return None


def doubt_of(pattern: Pattern) -> str | None:
    """Return why a pattern will probably never match; None where no reason is known."""
    if pattern.kind == "method" and pattern.text.upper() not in METHODS:
        return f"names no method of HTTP.{_did_you_mean('method', pattern.text.upper(), METHODS)}"
    if pattern.kind == "path" and re.search(BETWEEN_PATTERNS, pattern.text):
        return "has a comma or a blank in front of a pattern: write two rules."
    if pattern.kind == "regex" and _NO_SLASH.fullmatch(pattern.text):
        return "starts with a letter, but each path starts with '/'."
    return None


def reason_for_no_match(pattern: Pattern, app: Flask) -> str | None:
    """Return why no request to an app matches a name; None for what some request may match."""
    if pattern.kind == "endpoint":
        return _reason_for_no_name(
            pattern, {*app.view_functions, *(rule.endpoint for rule in app.url_map.iter_rules())}
        )
    if pattern.kind == "blueprint":
        return _reason_for_no_name(pattern, app.blueprints)
    if pattern.kind == "method":
        accepted = {method for route in app.url_map.iter_rules() for method in route.methods or ()}
        if pattern.text.upper() not in METHODS | accepted:
            return f"no route accepts it.{_did_you_mean('method', pattern.text.upper(), METHODS | accepted)}"
    return None


def _reason_for_no_name(pattern: Pattern, known: Collection[str]) -> str | None:
    if any(fnmatchcase(name, pattern.text) for name in known):
        return None
    return f"the app has no such {pattern.kind}.{_did_you_mean(pattern.kind, pattern.text, known)}"


def _did_you_mean(kind: str, name: str, known: Collection[str]) -> str:
    nested = sorted(each for each in known if each.endswith(f".{name}"))
    close = (*nested, *get_close_matches(name, sorted(known), n=1))
    return f" Did you mean '{kind}:{close[0]}'?" if close else ""


def covers(first: Pattern, second: Pattern) -> bool:
    """Return whether each request that ``second`` matches is matched by ``first`` as well, as far as can be proved."""
    if first == second or _matches_all(first):
        return True
    if first.kind == second.kind == "path":
        return _glob_covers(first.text, second.text)
    if first.kind == "endpoint":
        if second.kind == "blueprint" and not set("*?[").isdisjoint(second.text):
            return first.text in ("*", "**")
        below = {"endpoint": second.text, "blueprint": f"{second.text}.{_ANY_TEXT}"}.get(second.kind)
        return below is not None and _name_covers(first.text, below)
    if first.kind == "blueprint" and second.kind == "endpoint":  # of it, or of one that is nested in it
        return set("*?[").isdisjoint(first.text) and second.text.startswith(f"{first.text}.")
    return first.kind == second.kind == "blueprint" and _name_covers(first.text, second.text)


def _matches_all(pattern: Pattern) -> bool:
    if pattern.kind == "path":
        return re.fullmatch(r"/\*\*+", pattern.text) is not None
    return pattern.kind == "regex" and pattern.text in _MATCHES_ALL


def _name_covers(first: str, second: str) -> bool:
    """Compare names with the wildcards of ``fnmatch``; ``*`` matches the other's wildcards as if they were letters."""
    if first == second:
        return True
    plain = set("*?[").isdisjoint(second.replace(_ANY_TEXT, "*"))
    return (plain or set("?[").isdisjoint(first)) and fnmatchcase(second, first)


def _glob_covers(first: str, second: str) -> bool:
    """Match one glob against the other, whose wildcards are treated as letters that no path has."""
    text = re.sub(r"\*\*+", _ANY_TEXT, second).replace("*", _ANY_SEGMENT).replace("?", _ANY_CHARACTER)
    parts = {
        "*": f"[^/{_ANY_TEXT}]*",
        "?": f"[^/{_ANY_TEXT}{_ANY_SEGMENT}]",
    }
    tokens = re.split(r"(\*\*+|\*|\?)", first)
    regex = "".join(parts.get(each, ".*" if each.startswith("**") else re.escape(each)) for each in tokens)
    return re.fullmatch(regex, text, re.DOTALL) is not None
