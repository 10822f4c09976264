"""Every setting: its default, what it takes, and the one clear line for what it does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from lazysession import ConfigurationError
from lazysession.patterns import compile_rules
from lazysession.settings import Settings

DAY = 86400.0


def read(lifetime: float = DAY, **values: Any) -> Settings:
    return Settings.from_config({f"LAZYSESSION_{name}": value for name, value in values.items()}, lifetime)


def test_defaults() -> None:
    """What an app gets that sets nothing."""
    assert read() == Settings(
        refresh_throttle=None,
        rules=(),
        skip_static=True,
        skip_paths=(),
        skipped_write="drop",
        transient_keys=frozenset({"_remember"}),
        conflict="merge",
        conflict_exempt_keys=frozenset({"_flashes", "page_history"}),
        on_read_error="unavailable",
        absolute_lifetime=None,
        rotate_on_login=True,
        allow_pickle=False,
        trace=None,
    )


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("REFRESH_THROTTLE", 60, "refresh_throttle", 60),
        ("REFRESH_THROTTLE", timedelta(minutes=2), "refresh_throttle", 120),
        ("REFRESH_THROTTLE", 0, "refresh_throttle", 0),
        ("TRANSIENT_KEYS", ["_a"], "transient_keys", frozenset({"_a"})),
        ("TRANSIENT_KEYS", "_a", "transient_keys", frozenset({"_a"})),
        ("CONFLICT_EXEMPT_KEYS", [], "conflict_exempt_keys", frozenset()),
        ("CONFLICT_EXEMPT_KEYS", "seen", "conflict_exempt_keys", frozenset({"seen"})),
        ("ABSOLUTE_LIFETIME", timedelta(days=1), "absolute_lifetime", DAY),
        ("SKIP_STATIC", False, "skip_static", False),
        ("TRACE", True, "trace", True),
        ("CONFLICT", "raise", "conflict", "raise"),
    ],
)
def test_values(name: str, value: Any, attribute: str, expected: Any) -> None:
    """What is allowed is taken."""
    assert getattr(read(**{name: value}), attribute) == expected


def test_rules_and_skipped_paths_in_their_order() -> None:
    """SKIP_PATHS come after RULES; a single pattern needs no list."""
    settings = read(RULES=[["/a/private/**", "normal"]], SKIP_PATHS="/a/**")
    rules = compile_rules(settings.rules, settings.skip_paths)
    assert [(rule.source, rule.mode.value) for rule in rules] == [
        ("/a/private/**", "normal"),
        ("/a/**", "skip"),
    ]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("REFRESH_THROTTLE", DAY, "less than PERMANENT_SESSION_LIFETIME (86,400 seconds)"),
        ("REFRESH_THROTTLE", -1, "0 or more"),
        ("REFRESH_THROTTLE", "60s", "a number of seconds or a timedelta"),
        ("REFRESH_THROTTLE", True, "a number of seconds or a timedelta"),
        ("RULES", 5, "a list of (pattern, mode) pairs"),
        ("RULES", ["/a"], "a list of (pattern, mode) pairs"),
        ("RULES", "/a", "a list of (pattern, mode) pairs"),
        ("SKIP_PATHS", 5, "a list of patterns"),
        ("SKIP_STATIC", "True", "True or False"),
        ("SKIPPED_WRITE", "ignore", "'drop' or 'raise'"),
        ("TRANSIENT_KEYS", [1], "a list of names"),
        ("CONFLICT", "mine", "'merge' or 'overwrite' or 'raise'"),
        ("ON_READ_ERROR", None, "'unavailable' or 'raise' or 'empty'"),
        ("ABSOLUTE_LIFETIME", 0, "more than 0 seconds"),
        ("ROTATE_ON_LOGIN", 1, "True or False"),
        ("ALLOW_PICKLE", "yes", "True or False"),
        ("TRACE", "on", "True or False"),
    ],
)
def test_wrong_values(name: str, value: Any, allowed: str) -> None:
    """A wrong value is refused in one line with the setting, the value and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        read(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"LAZYSESSION_{name} ")
    assert allowed in message
    assert repr(value) in message or repr(value[0]) in message
    assert "\n" not in message


def test_an_unknown_name() -> None:
    """A misspelt setting is an error that guesses what was meant."""
    with pytest.raises(ConfigurationError, match="did you mean LAZYSESSION_REFRESH_THROTTLE"):
        read(REFRESH_TROTTLE=60)
    with pytest.raises(ConfigurationError, match=r"not a setting of LazySession\. See .*reference/settings"):
        read(XYZZY=60)


def test_a_lifetime_that_is_none() -> None:
    """Sessions that end before they begin are an error of PERMANENT_SESSION_LIFETIME."""
    with pytest.raises(ConfigurationError, match="PERMANENT_SESSION_LIFETIME is 0 seconds"):
        read(0.0)


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask's own from_prefixed_env is enough to set each kind of value."""
    monkeypatch.setenv("FLASK_LAZYSESSION_RULES", '[["/assets/**", "skip"], ["method:OPTIONS", "readonly"]]')
    monkeypatch.setenv("FLASK_LAZYSESSION_SKIP_PATHS", "/health")
    monkeypatch.setenv("FLASK_LAZYSESSION_REFRESH_THROTTLE", "60")
    monkeypatch.setenv("FLASK_LAZYSESSION_SKIP_STATIC", "false")
    monkeypatch.setenv("FLASK_LAZYSESSION_CONFLICT", "overwrite")
    app = Flask("shop")
    app.config.from_prefixed_env()
    settings = Settings.from_config(app.config, DAY)
    assert settings.rules == (("/assets/**", "skip"), ("method:OPTIONS", "readonly"))
    assert settings.skip_paths == ("/health",)
    assert (settings.refresh_throttle, settings.skip_static, settings.conflict) == (60, False, "overwrite")


def test_a_wrong_setting_leaves_the_app_as_it_was(memory_app: Callable[..., Flask]) -> None:
    """The error comes at start-up and the app keeps the interface that it had."""
    from lazysession import LazySession

    app = Flask("shop")
    before = app.session_interface
    app.config["LAZYSESSION_CONFLICT"] = "mine"
    with pytest.raises(ConfigurationError, match=re.escape("LAZYSESSION_CONFLICT is 'mine'")):
        LazySession(app)
    assert app.session_interface is before
    assert "lazysession" not in app.extensions
