"""Which clients and URLs of stores are refused at once, instead of failing in each request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import iscoroutinefunction
from typing import Any

from lazysession.errors import ConfigurationError

#: What a client of some store is called by; in an asynchronous client at least one of them is a coroutine function.
_CALLS = ("execute_command", "get", "get_item")


def refuse_unusable(name: str, client: Any, extensions: Mapping[str, Any]) -> None:
    """Refuse a client that stores nothing without an error: a coroutine that is not awaited looks like success.

    :param name: the setting that the client is of.
    :param extensions: those of the app.
    :raises ConfigurationError: for a class, an asynchronous client or an extension's before its ``init_app``.
    """
    if isinstance(client, type):
        raise ConfigurationError(
            f"{name} cannot be used: it is the class {client.__qualname__} itself. Set an instance, or a URL."
        )
    if _is_asynchronous(type(client)):
        raise ConfigurationError(
            f"{name} is an asynchronous client ({type(client).__module__}.{type(client).__qualname__}): Flask's "
            "sessions need one without asyncio, or a URL."
        )
    if name == "SESSION_REDIS" and hasattr(client, "init_app") and not hasattr(client, "execute_command"):
        raise ConfigurationError(
            f"{name} is a {type(client).__qualname__} that has no client yet: call its init_app(app) before "
            "LazySession(app)."
        )
    if name == "SESSION_SQLALCHEMY" and hasattr(client, "init_app") and extensions.get("sqlalchemy") is not client:
        raise ConfigurationError(
            f"{name} is a {type(client).__qualname__} that is not set up on this app: call its init_app(app) before "
            "LazySession(app)."
        )
    _refuse_damaged_text(name, client)


def _is_asynchronous(kind: type) -> bool:
    of_library = any("asyncio" in base.__module__.split(".") for base in kind.__mro__)
    return of_library or any(iscoroutinefunction(getattr(kind, each, None)) for each in _CALLS)


def _refuse_damaged_text(name: str, value: object) -> None:
    """Refuse what an environment or a .env file leaves in a URL; it is not repeated, as it may hold a password.

    :raises ConfigurationError: for empty text, a variable that was not filled in, and quotes or blanks around a URL.
    """
    if not isinstance(value, str):
        return
    stripped = value.strip()
    if not stripped:
        raise ConfigurationError(f"{name} cannot be used: it is empty. Set a client or a URL, or leave it out.")
    if re.search(r"\$\{\w*\}", value):
        raise ConfigurationError(f"{name} cannot be used: a variable in it, such as ${{HOST}}, was not filled in.")
    what = "blanks" if stripped != value else "quotes" if stripped[0] in "\"'`" else None
    if what is not None:
        raise ConfigurationError(
            f"{name} cannot be used: it has {what} around it. Remove them, from a .env file as well."
        )
    if name == "SESSION_SQLALCHEMY" and value.startswith("postgres://"):
        raise ConfigurationError(f"{name} cannot be used: SQLAlchemy has no postgres://. Write postgresql+psycopg://.")
