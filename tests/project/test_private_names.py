"""Nothing relies on private names of Flask, Werkzeug or Flask-Session: Flask's main branch renames its own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from flask.sessions import SecureCookieSessionInterface

from lazysession.ids import SessionIds

ROOT = Path(__file__).parents[2]
#: The context proxies, which Flask's main branch deprecates or renames.
CONTEXTS = {"request_ctx", "app_ctx", "_request_ctx_stack", "_app_ctx_stack"}
#: Documented by Werkzeug, and what Flask-Session's interfaces are asked for (DESIGN 7).
ALLOWED = {"_get_current_object", "_retrieve_session_data", "_upsert_session", "_delete_session"}
_ASKING = {"getattr", "hasattr", "setattr", "delattr"}


def is_private(name: str) -> bool:
    return name.strip("_") != "" and name.startswith("_") and not name.startswith("__")


def names_in(path: Path) -> set[str]:
    """Return the private names that a file defines: functions, classes, attributes and variables."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return {name for name in names if is_private(name)}


def defined_by(*packages: str) -> set[str]:
    """Return the private names that installed packages define."""
    names = set()
    for package in packages:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for path in Path(spec.origin).parent.rglob("*.py"):
            names |= names_in(path)
    return names - ALLOWED


def files_of(tree: str) -> list[Path]:
    """Return the files of a tree; ``lazysession/backends`` is a link to another one."""
    link = ROOT / "lazysession" / "backends"
    return [path for path in sorted((ROOT / tree).rglob("*.py")) if not path.is_relative_to(link)]


def used_in(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the private names that a file asks other objects for: line, name, and ``name`` or ``text``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.lineno, node.attr, "name"
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            yield node.lineno, str(node.slice.value), "text"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in _ASKING and len(node.args) > 1:
            if isinstance(node.args[1], ast.Constant):
                yield node.lineno, str(node.args[1].value), "text"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, alias.name, "name"


@pytest.mark.parametrize("tree", ["lazysession", "backends", "tests"])
def test_no_private_name_is_used(tree: str) -> None:
    """No private name of Flask's and Werkzeug's is asked for; of Flask-Session's others only by ``getattr``."""
    ours = {name for path in [*files_of("lazysession"), *files_of("backends")] for name in names_in(path)}
    flask, flask_session = defined_by("flask", "werkzeug"), defined_by("flask_session")
    found = []
    for path in files_of(tree):
        own = ours | names_in(path)
        for line, name, kind in used_in(path):
            by_name = kind == "name" and name in flask_session
            if is_private(name) and name not in own and (name in flask or by_name):
                found.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert found == []


@pytest.mark.parametrize("tree", ["lazysession", "backends", "tests"])
def test_no_context_proxy_is_imported(tree: str) -> None:
    """``request_ctx`` and ``app_ctx`` of ``flask.globals`` are used nowhere."""
    found = []
    for path in files_of(tree):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
            asked = {node.attr} if isinstance(node, ast.Attribute) else set()
            if (imported | asked) & CONTEXTS:
                found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert found == []


APP = """
import flask, flask.globals
for name in ("request_ctx", "app_ctx"):
    delattr(flask.globals, name)
import fakeredis, flask_session.redis
from lazysession import LazySession
app = flask.Flask("shop")
app.config.update(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis())
LazySession(app)
app.add_url_rule("/set", "set", lambda: str(flask.session.update(user="ada")))
app.add_url_rule("/get", "get", lambda: flask.session["user"])
client = app.test_client()
client.get("/set")
print(client.get("/get").text)
"""


def test_a_flask_without_context_proxies() -> None:
    """An app works where ``flask.globals`` no longer has them."""
    answer = subprocess.run([sys.executable, "-c", APP], capture_output=True, text=True, check=False)
    assert answer.stdout == "ada\n", answer.stderr


def test_an_interface_without_its_private_names() -> None:
    """Ids and keys are those of Flask-Session 0.8 where a later version has other names for what makes them."""

    class Later(SecureCookieSessionInterface):
        sid_length, key_prefix = 32, "session:"

    ids = SessionIds(Later())
    assert re.fullmatch(r"[\w-]{43}", ids.new())
    assert ids.key("abc") == "session:abc"
