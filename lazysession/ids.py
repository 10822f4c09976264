"""Session ids, and the store keys that are made of them."""

from __future__ import annotations

import re
from secrets import token_urlsafe
from typing import Any

from flask.sessions import SessionInterface
from flask_session.base import ServerSideSessionInterface

#: The longest session id that is looked up, unless the interface itself makes longer ones.
LONGEST_ID = 128


_URLSAFE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


#: The ids of an interface that overrides making them; without "..", as some interfaces use them as file names.
_PRINTABLE = re.compile(r"(?!.*\.\.)[!-\[\]-~]+", re.ASCII)


class SessionIds:
    """Session ids as the wrapped interface makes them, and the store keys that it makes of them.

    :param interface: one of Flask-Session's; overriding ``_generate_sid`` or ``_get_store_id`` keeps working. A version
        of Flask-Session without them gets what version 0.8 returns.
    """

    def __init__(self, interface: SessionInterface) -> None:
        self._interface: Any = interface  # Flask-Session has no annotations
        self._shape = _URLSAFE if _makes_usual_ids(interface) else _PRINTABLE
        self.length = len(self.new())
        self._longest = max(LONGEST_ID, self.length)

    def new(self) -> str:
        """Return a new random id."""
        length: int = self._interface.sid_length
        generate = getattr(self._interface, "_generate_sid", None)
        return token_urlsafe(length) if generate is None else str(generate(length))

    def key(self, sid: str) -> str:
        """Return the store key of an id."""
        make = getattr(self._interface, "_get_store_id", None)
        return f"{self._interface.key_prefix}{sid}" if make is None else str(make(sid))

    def may_be(self, value: str) -> bool:
        """Return whether a client's value has the shape of an id: only such a value is looked up."""
        return len(value) <= self._longest and self._shape.fullmatch(value) is not None

    def may_be_foreign(self, sid: str) -> bool:
        """Return whether the key of an id may be another program's: it has no prefix, and is not as long as our ids.

        Example: with SESSION_KEY_PREFIX = "", the cookie ``celery`` names Celery's queue. What is stored there must be
        decoded before anything is done to it, as for an id from before SESSION_ID_LENGTH was changed.
        """
        return len(sid) != self.length and self.key(sid) == sid


def _makes_usual_ids(interface: SessionInterface) -> bool:
    """Return whether an interface makes its session ids as Flask-Session does: URL-safe letters."""
    usual = getattr(ServerSideSessionInterface, "_generate_sid", None)
    return "_generate_sid" not in vars(interface) and getattr(type(interface), "_generate_sid", None) is usual


def signs_ids(interface: object) -> bool:
    """Return whether an interface signs its ids; Flask-Session marks its signer for removal."""
    return bool(getattr(interface, "use_signer", False))
