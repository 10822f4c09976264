"""The settings of Flask-Session and Flask that sessions depend on, checked once when the app is set up."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from difflib import get_close_matches
from inspect import getattr_static
from pathlib import Path
from typing import Any

from flask import Flask

from lazysession.codec import FORMATS
from lazysession.errors import ConfigurationError
from lazysession.settings import hint_for_number

_Check = Callable[[Any], bool]
_LONGEST_SHOWN = 60
#: Text that is true in Python and means the opposite.
_NO = frozenset({"false", "no", "off", "n", "f", "0", "none", "null", "never", "disable", "disabled"})


def shown(value: object) -> str:
    """Return a value as messages show it: what may be long, or hold a password, is named by its type."""
    text = repr(value) if isinstance(value, (str, int, float, list, tuple, timedelta, type(None))) else ""
    return text if text and len(text) <= _LONGEST_SHOWN else f"an object of type {type(value).__name__}"


def refuse_wrong_flask_settings(app: Flask) -> None:
    """Refuse what Flask would fail at in each request that saves a session.

    If a subclass of Flask defines the lifetime itself, that of the config is not checked.

    :raises ConfigurationError: for the first wrong value.
    """
    usual = getattr_static(Flask, "permanent_session_lifetime")
    own = getattr_static(type(app), "permanent_session_lifetime") is not usual
    checks = {name: check for name, check in _FLASK.items() if not (own and name == "PERMANENT_SESSION_LIFETIME")}
    _check_all(app.config, checks)


def refuse_wrong_session_settings(config: Mapping[str, Any], session_type: str) -> None:
    """Refuse what Flask-Session would fail at, or take for its opposite (``"false"`` counts as true).

    :param session_type: SESSION_TYPE in lower case; the settings of another store are not read.
    :raises ConfigurationError: for the first wrong value.
    """
    _check_all(config, _FLASK_SESSION)
    _check_all(config, _OF_TYPES.get(session_type, {}))
    if session_type == "sqlalchemy":
        _refuse_no_database(config)


def refuse_wrong_key(config: Mapping[str, Any]) -> None:
    """Refuse a SECRET_KEY that nothing can be signed with; one that is not set is explained where it is needed.

    :raises ConfigurationError: for a key that is neither text nor bytes.
    """
    key = config.get("SECRET_KEY")
    if key and not isinstance(key, (str, bytes)):
        raise ConfigurationError(
            f"SECRET_KEY is an object of type {type(key).__name__}; allowed is text or bytes. In the environment, put "
            "digits alone into double quotes as well: FLASK_SECRET_KEY='\"...\"'."
        )


def _check_all(config: Mapping[str, Any], checks: Mapping[str, tuple[_Check, str]]) -> None:
    for name, (holds, allowed) in checks.items():
        if name in config and not holds(config[name]):
            raise ConfigurationError(_wrong(name, config[name], allowed))


def _wrong(name: str, value: object, allowed: str) -> str:
    true = ", which counts as true" if allowed == _FLAG[1] and isinstance(value, str) else ""
    return f"{name} is {shown(value)}{true}; allowed is {allowed}.{hint_for_number(value)}"


def _refuse_no_database(config: Mapping[str, Any]) -> None:
    named = ("SESSION_SQLALCHEMY", "SQLALCHEMY_DATABASE_URI", "SQLALCHEMY_BINDS")
    if not any(config.get(name) for name in named):
        raise ConfigurationError(
            "SESSION_SQLALCHEMY is not set: SESSION_TYPE 'sqlalchemy' needs a Flask-SQLAlchemy object or a database "
            "URL there, or SQLALCHEMY_DATABASE_URI."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_flag(value: object) -> bool:
    """Return whether a value is as true as it reads: any text is true, so "false" and similar are refused."""
    text = value.strip().lower() if isinstance(value, str) else ""
    return text not in _NO and not get_close_matches(text, ["false"], n=1, cutoff=0.75)


def _is_lifetime(value: object) -> bool:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value if _is_number(value) else math.nan
    try:
        return seconds > 0 and datetime.now(timezone.utc) + timedelta(seconds=seconds) is not None  # type: ignore[arg-type, operator]
    except OverflowError:  # no cookie could say when it expires
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_text_or_nothing(value: object) -> bool:
    return not value or isinstance(value, str)


def _is_cookie_name(value: object) -> bool:
    return isinstance(value, str) and re.search(r"\A\s|[=;,\x00-\x1f\x7f]|\s\Z|\A\Z", value) is None


def _is_count(least: int, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_directory(value: object) -> bool:
    if not isinstance(value, (str, os.PathLike)):
        return False
    path = Path(value).absolute()
    try:
        present = next(each for each in (path, *path.parents) if each.exists())
    except OSError:  # a name too long, or a directory that may not be looked into
        return False
    return present.is_dir() and os.access(present, os.W_OK | os.X_OK)


_FLAG: tuple[_Check, str] = (_is_flag, "True or False")
_TEXT: tuple[_Check, str] = (_is_text, "text")
_TEXT_OR_NONE: tuple[_Check, str] = (_is_text_or_none, "text or None")

_FLASK: Mapping[str, tuple[_Check, str]] = {
    "PERMANENT_SESSION_LIFETIME": (
        _is_lifetime,
        "a number of seconds or a timedelta, more than 0, that ends before the year 10000",
    ),
    "SESSION_COOKIE_NAME": (_is_cookie_name, "text without '=', ';', ',' and blanks around it"),
    "SESSION_COOKIE_DOMAIN": (_is_text_or_nothing, "text or None"),
    "SESSION_COOKIE_PATH": (_is_text_or_nothing, "text or None"),
    "SESSION_COOKIE_SAMESITE": _TEXT_OR_NONE,
    "SESSION_COOKIE_SECURE": _FLAG,
    "SESSION_COOKIE_HTTPONLY": _FLAG,
    "SESSION_COOKIE_PARTITIONED": _FLAG,
    "SESSION_REFRESH_EACH_REQUEST": _FLAG,
}
_FLASK_SESSION: Mapping[str, tuple[_Check, str]] = {
    "SESSION_PERMANENT": _FLAG,
    "SESSION_USE_SIGNER": _FLAG,
    "SESSION_KEY_PREFIX": _TEXT,
    "SESSION_ID_LENGTH": (lambda value: value is None or _is_count(1, value), "a whole number of bytes, 1 or more"),
    "SESSION_SERIALIZATION_FORMAT": (lambda value: value in FORMATS, " or ".join(map(repr, FORMATS))),
}
_SQL: Mapping[str, tuple[_Check, str]] = {
    "SESSION_CLEANUP_N_REQUESTS": (
        lambda value: value is None or value is False or _is_count(0, value),
        "a whole number of requests, or None",
    ),
    "SESSION_SQLALCHEMY_TABLE": _TEXT,
    "SESSION_SQLALCHEMY_SCHEMA": _TEXT_OR_NONE,
    "SESSION_SQLALCHEMY_SEQUENCE": _TEXT_OR_NONE,
    "SESSION_SQLALCHEMY_BIND_KEY": _TEXT_OR_NONE,
}
_FILES: Mapping[str, tuple[_Check, str]] = {
    "SESSION_FILE_DIR": (_is_directory, "the path of a directory that the app can write to"),
    "SESSION_FILE_MODE": (
        # 600 in decimal is 0o1130, which the app itself cannot read
        lambda value: _is_count(0, value) and value & 0o600 == 0o600,
        "a number such as 0o600 (in the environment: 384)",
    ),
    "SESSION_FILE_THRESHOLD": (lambda value: _is_count(0, value), "a whole number of files"),
}
_OF_TYPES: Mapping[str, Mapping[str, tuple[_Check, str]]] = {
    "filesystem": _FILES,
    "sqlalchemy": _SQL,
    "mongodb": {"SESSION_MONGODB_DB": _TEXT_OR_NONE, "SESSION_MONGODB_COLLECT": _TEXT},
    "dynamodb": {"SESSION_DYNAMODB_TABLE": _TEXT_OR_NONE},
}
