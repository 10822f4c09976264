"""Rules that can never match, or never decide: refused, warned of, logged once, named by ``rules`` and ``check``."""

from __future__ import annotations

import functools
import re
import warnings
from typing import Any

import fakeredis
import pytest
from flask import Blueprint, Flask, session

from lazysession import ConfigurationError, LazySession


def shop(*rules: Any, **settings: Any) -> Flask:
    """Make a lazy app with these rules, a blueprint ``admin`` and a nested one."""
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="0f1e2d3c4b5a69788796a5b4c3d2e1f0", SESSION_TYPE="redis")
    app.config.update(SESSION_COOKIE_SAMESITE="Lax", SESSION_COOKIE_SECURE=True, SESSION_COOKIE_NAME="__Host-session")
    app.config.update(SESSION_REDIS=fakeredis.FakeRedis(), LAZYSESSION_RULES=rules, **settings)
    LazySession(app)
    admin, users = Blueprint("admin", "admin", url_prefix="/admin"), Blueprint("users", "users", url_prefix="/users")
    users.add_url_rule("/all", "all", lambda: str(session.get("name")), methods=["GET", "PURGE"])
    admin.register_blueprint(users)
    app.register_blueprint(admin)
    app.add_url_rule("/", "index", lambda: str(session.get("name")))
    return app


async def asynchronous(_request: Any) -> bool:
    return True


def generating(_request: Any) -> Any:
    yield True


class Rule:
    async def __call__(self, _request: Any) -> bool:
        return True


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (lambda: True, "cannot be called with one argument, the request"),
        (lambda _request, _response: True, "cannot be called with one argument, the request"),
        (lambda *, request: request, "cannot be called with one argument, the request"),
        (asynchronous, "is asynchronous: what it returns is always true"),
        (functools.partial(asynchronous), "is asynchronous: what it returns is always true"),
        (Rule(), "is asynchronous: what it returns is always true"),
        (generating, "is a generator: what it returns is always true"),
        (Rule, "is a class: what it returns is always true"),
        ("method:GET,POST", "'method:GET,POST' is not one method: write a rule for each"),
        ("method:*", "'method:*' is not one method: write a rule for each"),
        ("/item/<int:number>", "'<int:number>' is matched letter for letter. Write * for the variable part of a path"),
        ("skip", "the pattern comes first, and then the mode"),
    ],
)
def test_a_rule_that_can_never_be_right(pattern: Any, words: str) -> None:
    """A rule that cannot match, or cannot be called, is refused at start-up."""
    mode = "skip" if pattern != "skip" else "/a/**"
    with pytest.raises(ConfigurationError, match=f"^LAZYSESSION_RULES.*{re.escape(words)}"):
        shop((pattern, mode))


@pytest.mark.parametrize("pattern", ["static/**", "http://shop.test/a", "endpoint:", "/a,b"])
def test_paths_start_with_a_slash(pattern: str) -> None:
    """A path without its slash is refused, and a comma within a path is part of it."""
    if pattern == "/a,b":
        shop((pattern, "skip"))
        return
    with pytest.raises(ConfigurationError, match="A path starts with '/'"):
        shop((pattern, "skip"))


@pytest.mark.parametrize(
    "pattern",
    [
        lambda request: request.path == "/x",
        lambda request, strict=True: strict,
        lambda *requests: not requests,
        functools.partial(lambda word, request: request.path == word, "/x"),
        "_".__eq__,
        re.compile("^/x"),
        re.compile("x|^/y"),
        "method:propfind",
    ],
)
def test_rules_that_may_match(pattern: Any) -> None:
    """Any callable that takes the request is accepted without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shop((pattern, "readonly"))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("method:FETCH", "'method:FETCH' names no method of HTTP. Did you mean 'method:PATCH'?"),
        ("method:GTE", "Did you mean 'method:GET'?"),
        ("/a,/b", "'/a,/b' has a comma or a blank in front of a pattern: write two rules"),
        (re.compile("^static/"), "'regex ^static/' starts with a letter, but each path starts with '/'"),
    ],
)
def test_a_rule_that_is_hardly_right(pattern: Any, words: str) -> None:
    """A rule that could match, and hardly will, is warned of at start-up."""
    with pytest.warns(UserWarning, match=re.escape(words)):
        shop((pattern, "skip"))


def printed(app: Flask, *arguments: str) -> str:
    return app.test_cli_runner().invoke(args=["lazysession", *arguments]).output


UNMATCHED: list[tuple[str, str]] = [
    ("blueprint:nope", "the app has no such blueprint"),
    ("blueprint:users", "Did you mean 'blueprint:admin.users'?"),
    ("endpoint:nope", "the app has no such endpoint"),
    ("endpoint:indx", "Did you mean 'endpoint:index'?"),
    ("endpoint:all", "Did you mean 'endpoint:admin.users.all'?"),
    ("endpoint:adm.*", "the app has no such endpoint"),
]


@pytest.mark.parametrize(("pattern", "words"), UNMATCHED)
def test_names_that_match_nothing(pattern: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """They are named by ``rules`` and ``check``, and logged when a rule is first asked, once."""
    app = shop((pattern, "readonly"))
    client = app.test_client()
    client.get("/nowhere")
    assert caplog.messages == []  # the session was not used
    client.get("/")
    client.get("/admin/users/all")
    (message,) = caplog.messages
    assert message.startswith(f"The session rule {pattern!r} matches nothing")
    assert words in message
    assert len(message) < 200
    assert f"{pattern!r} matches nothing" in printed(app, "rules")
    assert words in printed(app, "rules")
    checked = printed(app, "check", "--offline")
    assert f"warning: The session rule {pattern!r} matches nothing" in checked
    assert "[rule-unmatched]" in checked


@pytest.mark.parametrize(
    "pattern", ["blueprint:admin", "blueprint:*.users", "endpoint:admin.*", "endpoint:index", "method:TRACE"]
)
def test_names_that_match(pattern: str, caplog: pytest.LogCaptureFixture) -> None:
    """There is no warning about a rule that some request can match."""
    app = shop((pattern, "readonly"))
    app.test_client().get("/")
    assert caplog.messages == []
    assert "matches nothing" not in printed(app, "rules")
    assert printed(app, "check", "--offline") == "No findings.\n"


@pytest.mark.filterwarnings("ignore:.*names no method of HTTP")
def test_a_method_of_the_apps_own() -> None:
    """A method that a route accepts is one, whatever it is called."""
    assert "matches nothing" not in printed(shop(("method:PURGE", "readonly")), "rules")


@pytest.mark.filterwarnings("ignore:.*names no method of HTTP")
def test_a_method_of_no_route() -> None:
    """One that no route accepts, and HTTP does not know, matches nothing."""
    assert "'method:FETCH' matches nothing: no route accepts it" in printed(shop(("method:FETCH", "skip")), "rules")


def decision(_request: Any) -> bool:
    return False


SHADOWED: list[tuple[Any, Any]] = [
    ("/a/**", "/a/b"),
    ("/a/**", "/a/*/c"),
    ("/a/*", "/a/b?"),
    ("/**", "endpoint:index"),
    ("/**", decision),
    ("endpoint:*", "blueprint:admin"),
    ("endpoint:admin.*", "endpoint:admin.users.all"),
    ("endpoint:admin.*", "blueprint:admin.users"),
    ("blueprint:admin", "blueprint:admin"),
    ("blueprint:admin", "endpoint:admin.users.*"),
    ("method:GET", "method:get"),
    (re.compile("^/x"), re.compile("^/x")),
    (decision, decision),
]


@pytest.mark.parametrize(("first", "second"), SHADOWED, ids=lambda each: getattr(each, "__name__", str(each)))
def test_a_rule_that_never_decides(first: Any, second: Any) -> None:
    """An earlier rule that matches all that a later one matches is named with it."""
    app = shop((first, "readonly"), (second, "normal"))
    shown = [rule.source for rule in app.session_interface.rules.rules]  # type: ignore[attr-defined]
    words = f"The session rule {shown[1]!r} never decides: {shown[0]!r} in front of it matches all that it matches."
    assert words in printed(app, "rules")
    assert f"warning: {words}" in printed(app, "check", "--offline")


def test_a_rule_that_changes_nothing() -> None:
    """With the same mode it is only an info; SKIP_PATHS come after RULES."""
    app = shop(("/a/**", "skip"), LAZYSESSION_SKIP_PATHS=["/a/b"])
    assert "info: The session rule '/a/b' never decides" in printed(app, "check", "--offline")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a/*", "/a/**"),
        ("/a/*", "/a/*/c"),
        ("/a/?", "/a/*"),
        ("/a/b", "/a/c"),
        ("endpoint:index", "/"),
        ("endpoint:adm?n.*", "endpoint:adm*n.*"),
        ("endpoint:admin.*", "blueprint:admins"),
        ("blueprint:admin.users", "blueprint:admin"),
        ("method:GET", "/x"),
        (lambda _: True, "/x"),
        (re.compile("^/x"), re.compile("^/X", re.IGNORECASE)),
        (re.compile("^/x"), re.compile("^/x", re.IGNORECASE)),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_a_rule_that_may_decide(first: Any, second: Any) -> None:
    """There is no warning where some request matches the later rule alone."""
    assert "never decides" not in printed(shop((first, "readonly"), (second, "normal")), "rules")


def test_an_untouched_request_asks_no_rule() -> None:
    """Rules that match nothing are looked for when a session is used, and not before."""
    app = shop(("blueprint:nope", "readonly"))
    app.add_url_rule("/plain", "plain", lambda: "")
    app.test_client().get("/plain")
    assert not app.session_interface.rules._known  # type: ignore[attr-defined]
