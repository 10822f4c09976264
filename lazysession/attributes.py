"""Attributes that an app sets on its session interface: they are set on the wrapped one, and change the handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from flask.sessions import SessionInterface

#: What Flask uses of an interface apart from open_session, save_session, is_null_session and make_null_session.
METHODS_OF_WRAPPED = (
    "get_cookie_name",
    "get_cookie_domain",
    "get_cookie_path",
    "get_cookie_httponly",
    "get_cookie_secure",
    "get_cookie_samesite",
    "get_cookie_partitioned",
    "get_expiration_time",
    "should_set_cookie",
    "null_session_class",
    "pickle_based",
)
#: Attributes for ids, cookies and session objects: setting one does not change the backend.
NOT_OF_THE_STORE = frozenset(METHODS_OF_WRAPPED) - {"should_set_cookie"} | {
    "make_null_session",
    *("use_signer", "permanent", "session_class", "has_same_site_capability", "_generate_sid", "_get_store_id"),
    *("ttl", "cleanup_n_requests", "_delete_expired_sessions"),
}
#: All known attributes of Flask-Session's interfaces; any other is the app's own.
_KNOWN = NOT_OF_THE_STORE | {
    *("key_prefix", "sid_length", "serializer", "client", "store", "cache", "sql_session_model", "pool"),
}


class Handles(Protocol):
    """What is needed of a session handler."""

    wrapped: SessionInterface


Handler = TypeVar("Handler", bound=Handles)
#: Returns the handler that follows an attribute of the wrapped interface, which has just been set.
Follow = Callable[[Handler, str], Handler]


def with_attribute(handler: Handler, name: str, value: object, follow: Follow[Handler]) -> Handler:
    """Set an attribute of the wrapped interface, and return the session handler that follows it.

    :raises ConfigurationError: when the value cannot be used, or comes too late. The old value is kept.
    """
    wrapped = handler.wrapped
    known, own, before = hasattr(wrapped, name) or name in _KNOWN, name in vars(wrapped), getattr(wrapped, name, None)
    if _is_of_class(wrapped, name, value):
        vars(wrapped).pop(name, None)
    else:
        setattr(wrapped, name, value)
    if not known:  # the app's own: nothing here uses it
        return handler
    try:
        return follow(handler, name)
    except ValueError:
        if own:
            setattr(wrapped, name, before)
        else:
            vars(wrapped).pop(name, None)
        raise


def _is_of_class(wrapped: SessionInterface, name: str, value: object) -> bool:
    """Return whether a value is the method that the class has: undoing a patch sets what was there before."""
    of_class = getattr(type(wrapped), name, None)
    return getattr(value, "__self__", None) is wrapped and getattr(value, "__func__", None) is of_class


def without_attribute(handler: Handler, name: str, follow: Follow[Handler]) -> Handler:
    """Delete an attribute of the wrapped interface; where its class has one of the name, that is used from then on.

    :raises AttributeError: when the interface has no such attribute of its own.
    """
    delattr(handler.wrapped, name)
    return follow(handler, name) if hasattr(handler.wrapped, name) else handler


def is_made_by_flask_session(serializer: object) -> bool:
    """Return whether a serializer's class is one of Flask-Session's, whatever was set on the object."""
    return type(serializer).__module__.partition(".")[0] == "flask_session" and hasattr(serializer, "__dict__")


class SerializerWatch:
    """Detects that an app has changed or replaced Flask-Session's serializer: LazySession has a codec of its own.

    ``app.session_interface.serializer.encoder = X`` sets an option of msgspec. The app may have kept the serializer, or
    the interface that has it, from before LazySession(app), so only these themselves show the change.
    """

    def __init__(self, interface: SessionInterface) -> None:
        self.interface: dict[str, object] = vars(interface)
        self.serializer = serializer = self.interface.get("serializer")
        watched = is_made_by_flask_session(serializer)
        #: Its attributes now, and when the watch was set: compared in each request that uses its session.
        self.attributes: dict[str, object] = serializer.__dict__ if watched else {}
        self.seen = dict(self.attributes)
