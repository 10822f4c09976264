"""Sessions through the storage methods of a Flask-Session interface: one that encrypts, or has no adapter."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar, Protocol

from lazysession.backend import Problem, Undecodable
from lazysession.backends.client_connections import ClientUse
from lazysession.backends.memcached.check import unmaintained_problems
from lazysession.backends.objects import Items, ObjectBackend, Stored
from lazysession.backends.packing import pack


class StoringInterface(Protocol):
    """The methods that are used of an interface: those that Flask-Session requires of every store."""

    key_prefix: str
    session_class: Any  # Flask-Session has no annotations

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None: ...

    def _upsert_session(self, session_lifetime: timedelta, session: Any, store_id: str) -> None: ...

    def _delete_session(self, store_id: str) -> None: ...


class GenericBackend(ObjectBackend):
    """Keep sessions where the interface keeps them, in its own bytes, by its own three methods.

    Unchanged data are not written, and refreshes are throttled. The methods guarantee less than an adapter:

    - Comparing and replacing excludes the threads of this process only: of two processes that change one session at
      once, one may lose its change, and one that logs out may see the session come back.
    - A refresh stores the data once more, and is due when this process has not done so within the throttle.
    - The ttl cannot be read: a change in mode ``no_refresh`` gives the record a full lifetime if this process does not
      remember its expiry.
    - Bytes that the interface cannot decode are an error if it raises one, not a new session.

    :param interface: the interface; one on SQLAlchemy commits ``db.session``, with all pending changes of the app.
    """

    interface_class: ClassVar[str | None] = None

    def __init__(self, interface: StoringInterface) -> None:
        super().__init__()
        self._interface = interface
        self._client_use = ClientUse(interface)

    @classmethod
    def from_interface(cls, interface: Any) -> GenericBackend:
        """Store through the interface."""
        return cls(interface)

    @classmethod
    def from_setting(cls, value: object, **options: object) -> GenericBackend | None:
        """Refuse: there is no store without an interface.

        :raises ValueError: always.
        """
        raise ValueError("the generic adapter needs a Flask-Session interface; it has no store of its own.")

    def check(self) -> Iterator[Problem]:
        """Return what the interface's methods lack; for a client that needs them, what the client lacks."""
        problems = list(unmaintained_problems(getattr(self._interface, "client", None)))
        yield from problems or [
            Problem(
                "warning",
                f"{type(self._interface).__name__} stores by methods of its own, which cannot compare: of two "
                "processes that change one session at once one may lose its change, or undo the other's logout.",
                "Drop what it overrides, where a plain SESSION_TYPE does, or run one process.",
                "generic-compare",
            )
        ]
        yield from pickle_problems(self._interface)

    def is_expected(self, data: dict[str, Any], expected: Items) -> bool:
        """Compare as msgpack: the interface's own format may return a list for the tuple that was stored."""
        return super().is_expected(data, expected) or pack(data) == pack(expected.items)

    def find(self, key: str) -> Stored | None:
        """Return what the interface retrieves."""
        try:
            with self._client_use():
                data = self._interface._retrieve_session_data(key)  # pyright: ignore[reportPrivateUsage]  # made for it
        except Undecodable:
            return None
        return None if data is None else Stored(data, None)

    def put(self, key: str, data: dict[str, Any], ttl: float) -> None:
        """Upsert a session of the interface's own class."""
        session = self._interface.session_class(data, sid=key.removeprefix(self._interface.key_prefix))
        session.modified = True
        expiry = timedelta(seconds=max(1.0, ttl))  # some interfaces round down; 0 is an error or no expiry
        with self._client_use():
            self._interface._upsert_session(expiry, session, key)  # pyright: ignore[reportPrivateUsage]

    def remove(self, key: str) -> None:
        """Delete with the interface."""
        with self._client_use():
            self._interface._delete_session(key)  # pyright: ignore[reportPrivateUsage]


def pickle_problems(interface: object) -> Iterator[Problem]:
    """Return what is wrong with the serializer of an interface."""
    if _unpickles(getattr(interface, "serializer", None)):
        yield Problem(
            "warning",
            f"{type(interface).__name__} has a serializer made of Flask-Session's, which unpickles what it "
            "cannot decode: anyone who can write to the store can run code here.",
            "Encode and decode by a serializer that is not derived from MsgSpecSerializer.",
            "generic-pickle",
        )


def _unpickles(serializer: object) -> bool:
    return any(base.__name__ == "MsgSpecSerializer" for base in type(serializer).__mro__)
