"""What ``flask lazysession check`` finds in an app's settings, and that it finds nothing where nothing is wrong."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import fakeredis
import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask_login import LoginManager
from flask_wtf import CSRFProtect

from lazysession import LazySession
from lazysession.backend import Problem
from lazysession.checks.app import find_problems
from lazysession.checks.findings import FINDINGS

pytestmark = pytest.mark.filterwarnings("ignore:.*use_signer.*:DeprecationWarning")

ROOT = Path(__file__).parents[2]
GOOD_KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
#: An app with everything right; each case below makes one thing wrong.
GOOD: Mapping[str, Any] = {
    "SECRET_KEY": GOOD_KEY,
    "SESSION_COOKIE_NAME": "__Host-session",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_SAMESITE": "Lax",
}
#: GOOD with a cookie name that requires nothing, so that one attribute can be wrong at a time.
PLAIN: Mapping[str, Any] = {**GOOD, "SESSION_COOKIE_NAME": "session"}


def make_app(*, server_side: bool = True, **settings: Any) -> Flask:
    """Make a lazy app: on fakeredis, or over Flask's signed cookie."""
    app = Flask("shop", static_folder=None)
    app.config.update(settings)
    if server_side:
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis())
    LazySession(app)
    return app


def problems_of(app: Flask) -> list[Problem]:
    return list(find_problems(app, app.session_interface))  # type: ignore[arg-type]


def found(*, server_side: bool = True, **settings: Any) -> list[str]:
    """Return the findings of an app that is set up so, each as ``severity name``."""
    problems = problems_of(make_app(server_side=server_side, **settings))
    assert all(problem.what.endswith(".") and problem.remedy.endswith(".") for problem in problems)
    return [f"{problem.severity} {problem.name}" for problem in problems]


@pytest.mark.parametrize("server_side", [True, False])
def test_all_is_well(server_side: bool) -> None:
    """An app with everything right has no findings, on any store."""
    assert found(server_side=server_side, **GOOD) == []
    assert found(server_side=server_side, **GOOD, PREFERRED_URL_SCHEME="https") == []


COOKIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"SESSION_COOKIE_SECURE": False}, ["warning cookie-secure"]),
    ({"SESSION_COOKIE_SECURE": False, "PREFERRED_URL_SCHEME": "https"}, ["error cookie-secure"]),
    ({"SESSION_COOKIE_SECURE": False, "DEBUG": True}, []),
    ({"SESSION_COOKIE_HTTPONLY": False}, ["warning cookie-httponly", "info cookie-host-prefix-unused"]),
    ({"SESSION_COOKIE_SAMESITE": None}, ["warning cookie-samesite", "info cookie-host-prefix-unused"]),
    ({"SESSION_COOKIE_SAMESITE": None, "DEBUG": True}, []),
    ({"SESSION_COOKIE_SAMESITE": "strict"}, ["info cookie-host-prefix-unused"]),  # werkzeug takes any case
    ({"SESSION_COOKIE_SAMESITE": "lux", "DEBUG": True}, ["error cookie-samesite-unknown"]),
    ({"SESSION_COOKIE_SAMESITE": "None", "DEBUG": True}, []),
    (
        {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": False, "DEBUG": True},
        ["error cookie-samesite-none"],
    ),
    (
        {"SESSION_COOKIE_SAMESITE": "none", "SESSION_COOKIE_SECURE": False, "DEBUG": True},
        ["error cookie-samesite-none"],
    ),
    ({}, ["info cookie-host-prefix-unused"]),
    ({"DEBUG": True}, []),
    ({"SESSION_COOKIE_PATH": "/shop"}, []),
    ({"SESSION_COOKIE_DOMAIN": "example.com"}, ["info cookie-domain-wide"]),
    ({"SESSION_COOKIE_DOMAIN": "example.com", "DEBUG": True}, []),
    ({"SESSION_COOKIE_DOMAIN": ".example.com", "SERVER_NAME": "shop.Example.com:8443"}, ["info cookie-domain-wide"]),
    ({"SESSION_COOKIE_DOMAIN": "example.com", "SERVER_NAME": "badexample.com"}, ["warning cookie-domain"]),
    ({"SESSION_COOKIE_PATH": "/cart", "APPLICATION_ROOT": "/shop"}, ["warning cookie-path"]),
    ({"SESSION_COOKIE_PATH": "/shop/cart", "APPLICATION_ROOT": "/shop"}, ["warning cookie-path"]),
    ({"SESSION_COOKIE_PATH": "/sho", "APPLICATION_ROOT": "/shop"}, ["warning cookie-path"]),
    ({"SESSION_COOKIE_PATH": "/shop/", "APPLICATION_ROOT": "/shop"}, []),
    ({"SESSION_COOKIE_PATH": "/", "APPLICATION_ROOT": "/shop"}, ["info cookie-host-prefix-unused"]),
    ({"APPLICATION_ROOT": "/shop"}, []),
    ({"SESSION_COOKIE_NAME": "__Host-s", "SESSION_COOKIE_SECURE": False, "DEBUG": True}, ["error cookie-host-prefix"]),
    ({"SESSION_COOKIE_NAME": "__host-s", "SESSION_COOKIE_PATH": "/shop"}, ["error cookie-host-prefix"]),
    (
        {"SESSION_COOKIE_NAME": "__Host-s", "SESSION_COOKIE_DOMAIN": "example.com", "DEBUG": True},
        ["error cookie-host-prefix"],
    ),
    ({"SESSION_COOKIE_NAME": "__Secure-s", "SESSION_COOKIE_DOMAIN": "a.com", "DEBUG": True}, []),
    (
        {"SESSION_COOKIE_NAME": "__Secure-s", "SESSION_COOKIE_SECURE": False, "DEBUG": True},
        ["error cookie-secure-prefix"],
    ),
]


@pytest.mark.parametrize(("settings", "expected"), COOKIES, ids=[str(settings) for settings, _ in COOKIES])
def test_cookies(settings: dict[str, Any], expected: list[str]) -> None:
    """What a browser refuses is an error, what other sites can misuse a warning, what follows from a choice an info."""
    assert found(**{**PLAIN, **settings}) == expected


@pytest.mark.skipif(version("flask") < "3.1", reason="needs Flask 3.1, which has Partitioned: pip install -U flask")
def test_partitioned() -> None:
    """Partitioned is sent as Secure by werkzeug: no browser refuses it, and the settings contradict each other."""
    settings = {**PLAIN, "SESSION_COOKIE_PARTITIONED": True, "SESSION_COOKIE_SAMESITE": "None", "DEBUG": True}
    assert found(**settings) == []
    assert found(**{**settings, "SESSION_COOKIE_SECURE": False}) == ["warning cookie-partitioned"]


def test_the_interface_is_asked() -> None:
    """An interface that decides an attribute itself, even by the request, is asked."""

    class Own(SecureCookieSessionInterface):
        def get_cookie_secure(self, app: Flask) -> bool:
            from flask import request

            return request.path == "/"

    app = Flask("shop", static_folder=None)
    app.config.update(GOOD, SESSION_COOKIE_SECURE=False)
    app.session_interface = Own()
    LazySession(app)
    assert problems_of(app) == []


KEYS: list[tuple[dict[str, Any], list[str]]] = [
    ({"SECRET_KEY": None}, ["error secret-key"]),
    ({"SECRET_KEY": ""}, ["error secret-key"]),
    ({"SECRET_KEY": None, "DEBUG": True}, ["error secret-key"]),
    ({"SECRET_KEY": "dev"}, ["warning secret-key-weak"]),
    ({"SECRET_KEY": "dev", "DEBUG": True}, []),
    ({"SECRET_KEY": b"0f1e2d3c4b5a697"}, ["warning secret-key-weak"]),
    ({"SECRET_KEY": b"0f1e2d3c4b5a6978"}, []),
    ({"SECRET_KEY": "a" * 64}, ["warning secret-key-weak"]),
    ({"SECRET_KEY": "You-will-never-guess!"}, ["warning secret-key-weak"]),
    ({"SECRET_KEY_FALLBACKS": []}, []),
    ({"SECRET_KEY_FALLBACKS": [GOOD_KEY[::-1]]}, []),
    ({"SECRET_KEY_FALLBACKS": ["old"]}, ["warning secret-key-weak"]),
    ({"SECRET_KEY_FALLBACKS": [GOOD_KEY, ""]}, ["error secret-key-fallbacks"]),
    ({"SECRET_KEY_FALLBACKS": [None]}, ["error secret-key-fallbacks"]),
    ({"SECRET_KEY_FALLBACKS": GOOD_KEY}, ["error secret-key-fallbacks"]),  # each letter would be a key
]


@pytest.mark.parametrize("server_side", [True, False], ids=["signer", "cookie"])
@pytest.mark.parametrize(("settings", "expected"), KEYS, ids=[str(settings) for settings, _ in KEYS])
def test_keys(settings: dict[str, Any], expected: list[str], server_side: bool) -> None:
    """The key is checked where it signs: Flask's cookie, and ids with SESSION_USE_SIGNER."""
    app = make_app(server_side=server_side, **GOOD, **({"SESSION_USE_SIGNER": True} if server_side else {}))
    app.config.update(settings)  # later, as LazySession would refuse a signer without a key
    assert [f"{problem.severity} {problem.name}" for problem in problems_of(app)] == expected


def test_keys_that_sign_nothing() -> None:
    """Without a signer, sessions in a store need no key."""
    assert found(**{**GOOD, "SECRET_KEY": None, "SECRET_KEY_FALLBACKS": [""]}) == []


@pytest.mark.parametrize(
    ("key", "csrf_key", "expected"),
    [(None, None, ["csrf", "login"]), (None, GOOD_KEY, ["login"]), (GOOD_KEY, None, [])],
)
def test_keys_of_extensions(key: str | None, csrf_key: str | None, expected: list[str]) -> None:
    """Extensions that need a key are named where the store needs none."""
    app = make_app(**{**GOOD, "SECRET_KEY": key, "WTF_CSRF_SECRET_KEY": csrf_key})
    CSRFProtect(app)
    LoginManager(app)
    what = " ".join(problem.what for problem in problems_of(app) if problem.name == "secret-key-extensions")
    assert [word for word in ("csrf", "login") if word in what.lower()] == expected


def test_no_finding_shows_a_key() -> None:
    """Neither the key nor a part of it is in the text."""
    app = make_app(SESSION_USE_SIGNER=True, SECRET_KEY="zq7", SECRET_KEY_FALLBACKS=["xj9", ""])
    words = str(problems_of(app))
    assert "secret-key-fallbacks" in words
    assert "secret-key-weak" in words
    assert not re.search("zq7|xj9", words)


CHOICES: list[tuple[dict[str, Any], list[str]]] = [
    ({"SESSION_REFRESH_EACH_REQUEST": False}, ["info refresh-off"]),
    ({"LAZYSESSION_REFRESH_THROTTLE": 0}, ["info throttle-off"]),
    ({"LAZYSESSION_REFRESH_THROTTLE": 500, "PERMANENT_SESSION_LIFETIME": 1000}, []),
    ({"LAZYSESSION_REFRESH_THROTTLE": 501, "PERMANENT_SESSION_LIFETIME": 1000}, ["warning throttle-long"]),
    ({"LAZYSESSION_ABSOLUTE_LIFETIME": 1000, "PERMANENT_SESSION_LIFETIME": 1000}, ["info absolute-lifetime"]),
    ({"LAZYSESSION_ABSOLUTE_LIFETIME": 1001, "PERMANENT_SESSION_LIFETIME": 1000}, []),
    ({"SESSION_PERMANENT": False}, ["info session-permanent"]),
    ({"SESSION_ID_LENGTH": 16}, []),
    ({"SESSION_ID_LENGTH": 15}, ["warning session-id-length"]),
    ({"SESSION_ID_LENGTH": 8}, ["warning session-id-length"]),
    ({"SESSION_ID_LENGTH": 7}, ["error session-id-length"]),
    ({"LAZYSESSION_ALLOW_PICKLE": True}, ["warning allow-pickle"]),
    ({"LAZYSESSION_CONFLICT": "overwrite"}, ["warning conflict-overwrite"]),
    ({"LAZYSESSION_CONFLICT": "raise"}, []),
    ({"LAZYSESSION_TRACE": True}, ["info trace"]),
    ({"LAZYSESSION_TRACE": True, "DEBUG": True}, []),
]


@pytest.mark.parametrize(("settings", "expected"), CHOICES, ids=[str(settings) for settings, _ in CHOICES])
def test_choices(settings: dict[str, Any], expected: list[str]) -> None:
    """Lifetimes, ids and what the app has chosen."""
    assert found(**{**GOOD, **settings}) == expected


def test_the_refreshes_of_the_signed_cookie() -> None:
    """The throttle has an effect there; with an interface that renews its cookie itself, it has none."""
    assert found(server_side=False, **GOOD, LAZYSESSION_REFRESH_THROTTLE=0) == ["info throttle-off"]
    assert found(server_side=False, **GOOD, SESSION_REFRESH_EACH_REQUEST=False) == ["info refresh-off"]
    app = make_app(server_side=False, **GOOD, LAZYSESSION_REFRESH_THROTTLE=60)
    assert problems_of(app) == []
    with mock.patch.object(app.session_interface, "should_set_cookie", return_value=True):
        (problem,) = problems_of(app)
    assert (problem.name, problem.what.split()[0]) == ("settings-idle", "LAZYSESSION_REFRESH_THROTTLE")


IDLE: dict[str, Any] = {
    "LAZYSESSION_CONFLICT": "overwrite",
    "LAZYSESSION_ON_READ_ERROR": "raise",
    "LAZYSESSION_ABSOLUTE_LIFETIME": 60,
    "LAZYSESSION_ALLOW_PICKLE": True,
}


@pytest.mark.parametrize("name", IDLE)
def test_settings_without_an_effect(name: str) -> None:
    """Over an interface without an adapter, what only an adapter can use is reported to have no effect."""
    app = make_app(server_side=False, **GOOD, **{name: IDLE[name]})
    (problem,) = problems_of(app)
    assert (problem.severity, problem.name) == ("warning", "settings-idle")
    assert f"{name} has no effect: SecureCookieSessionInterface" in problem.what


def test_all_settings_without_an_effect() -> None:
    """Several are one finding; those that work there are none."""
    (problem,) = problems_of(make_app(server_side=False, **GOOD, **IDLE, LAZYSESSION_SKIP_PATHS=["/health"]))
    assert f"{', '.join(IDLE)} have no effect" in problem.what


def test_settings_that_were_changed_later() -> None:
    """What LazySession would have refused is found when it was set later."""
    app = make_app(**GOOD, LAZYSESSION_REFRESH_THROTTLE=600)
    app.config["PERMANENT_SESSION_LIFETIME"] = timedelta(seconds=300)
    (problem,) = problems_of(app)
    assert (problem.severity, problem.name) == ("error", "settings")
    assert "LAZYSESSION_REFRESH_THROTTLE is 600" in problem.what
    app.config["PERMANENT_SESSION_LIFETIME"] = "300"
    (problem,) = problems_of(app)
    assert "PERMANENT_SESSION_LIFETIME is '300'" in problem.what


def test_a_late_store_comes_first() -> None:
    """A late setting is the first finding: the missing key is a consequence of it."""
    app = make_app(server_side=False)
    app.config["SESSION_TYPE"] = "redis"
    assert [problem.name for problem in problems_of(app) if problem.severity == "error"] == ["settings", "secret-key"]


# The documentation


def findings_in_code() -> dict[str, set[str]]:
    """Return every finding that is written in the package, by name, with its severities."""
    findings: dict[str, set[str]] = {}
    for path in [*(ROOT / "lazysession").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
                assert len(node.args) == 4, f"{path.name}:{node.lineno}: a finding has four parts"
                name = node.args[3]
                assert isinstance(name, ast.Constant), f"{path.name}:{node.lineno}: its name is written out"
                severity = node.args[0]
                ends = [severity.body, severity.orelse] if isinstance(severity, ast.IfExp) else [severity]
                values = {end.value for end in ends if isinstance(end, ast.Constant)}
                assert len(values) == len(ends), f"{path.name}:{node.lineno}: its severity is written out"
                findings.setdefault(str(name.value), set()).update(map(str, values))
    return findings


def test_every_finding_is_in_the_list() -> None:
    """The list that ``check --ignore`` compares with has each finding once, sorted."""
    assert list(FINDINGS) == sorted(findings_in_code())


def test_every_finding_is_in_the_documentation() -> None:
    """docs/reference/commands.rst has each finding once, with its severity, and none that is not there."""
    text = (ROOT / "docs/reference/commands.rst").read_text()
    entries = re.findall(r"^   ([\w-]+)\n      \*(\w+(?: or \w+)?)\*: \S.*\n(?:      .*\n)*\n      [A-Z]", text, re.M)
    documented = [(name, set(severities.split(" or "))) for name, severities in entries]
    assert len({name for name, _ in documented}) == len(documented)
    assert dict(documented) == findings_in_code()
