"""The contract between LazySession and one store: four verbs, each one round trip where the store can.

A backend speaks of whole store keys and of payloads as bytes; it never sees a session object, a cookie or a setting.
Absent, expired and undecodable are outcomes. Only a fault of the system (connection, authentication, out of space)
raises, and then with the client's own exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import msgspec
from markupsafe import Markup

_MARKUP = 77


class Renew(NamedTuple):
    """The wish that a read also refreshes the expiry, when that is due.

    :param lifetime: seconds that the session shall have left after a refresh.
    :param throttle: least number of seconds between two refreshes; 0 refreshes at every read.
    """

    lifetime: float
    throttle: float

    def due(self, ttl: float | None) -> bool:
        """Return whether a session with ``ttl`` seconds left (None: no expiry at all) is to be refreshed.

        More left than the lifetime (someone shortened it) is due as well: a session never outlives its lifetime. A
        second more is none: what another machine, or another request while this one waited, has just written.
        """
        return ttl is None or ttl > self.lifetime + 1 or ttl <= self.lifetime - self.throttle


class Record(NamedTuple):
    """What a read found.

    :param payload: the stored bytes.
    :param remaining: seconds left before any refresh; None when the store cannot tell.
    :param refreshed: whether this read moved the expiry.
    """

    payload: bytes
    ttl: float | None
    refreshed: bool


class Undecodable(ValueError):
    """What is stored is no session: raised where an interface of Flask-Session's decodes through us."""


class Outcome(Enum):
    """How a replace, or a delete of what was seen, ended."""

    STORED = "stored"
    CONFLICT = "conflict"
    MISSING = "missing"


class WriteResult(NamedTuple):
    """The answer to a replace or delete.

    :param outcome: STORED (for a delete: removed); CONFLICT, when the stored payload is not ``expected``; MISSING, when
        there is none (any more).
    :param current: with CONFLICT, the payload that is stored now, where the store tells it in the same round trip; of a
        delete that compares nothing, the payload that was removed, None for none.
    """

    outcome: Outcome
    current: bytes | None = None


def to_extension(text: Markup) -> msgspec.msgpack.Ext:
    """Return the extension type that stands for a Markup in a payload in msgpack: number 77, the text in UTF-8."""
    return msgspec.msgpack.Ext(_MARKUP, str.__str__(text).encode())


def plain_value(value: object) -> str | int | float | None:
    """Return the plain value of one of a class derived from ``str``, ``int`` or ``float``, past what that overrides.

    :returns: None for a value of any other class.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else None


def from_extension(number: int, data: memoryview) -> Any:
    """Return what an extension type in msgpack stands for; any, as those of others stay what they are."""
    if number == _MARKUP:
        return Markup(bytes(data).decode())  # noqa: S704 - the app stored it as Markup
    return msgspec.msgpack.Ext(number, bytes(data))


class Backend(Protocol):
    """One store. Keys are complete (prefix included), lifetimes are seconds."""

    def read(self, key: str, renew: Renew | None) -> Record | None:
        """Return the stored record, or None when it is absent or expired.

        :param renew: refresh the expiry on the way when :meth:`Renew.due`; None for no refresh. A refresh that fails
            is logged and never fails the read, and it never changes the payload or creates a record.
        """
        ...

    def create(self, key: str, payload: bytes, lifetime: float) -> bool:
        """Store a new record; answer False, and change nothing, when the key is taken."""
        ...

    def replace(self, key: str, payload: bytes, lifetime: float | None, expected: bytes) -> WriteResult:
        """Put ``payload`` in the place of ``expected``, atomically; never creates.

        :param lifetime: seconds to live from now; None keeps what the record has left.
        """
        ...

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Remove the record; absent is fine.

        :param expected: remove it only while this is the stored payload, atomically; None removes whatever is there.
        :returns: STORED when it was removed, else CONFLICT or MISSING, as for a replace. Without ``expected`` always
            STORED, with the payload that was removed as ``current``: it may be a forwarding record.
        """
        ...


class Problem(NamedTuple):
    """One finding of :meth:`Checks.check`.

    :param severity: ``"error"``, where sessions do not work or are not safe; ``"warning"``, where they will not be one
        day, or for somebody; ``"note"`` for what follows from a choice.
    :param what: what is wrong, and why it matters. No part of a secret.
    :param remedy: what to set.
    :param name: by which ``flask lazysession check --ignore`` knows it.
    """

    severity: str
    what: str
    remedy: str
    name: str = ""


@runtime_checkable
class Purges(Protocol):
    """A backend whose store keeps expired records until someone removes them."""

    def purge(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Remove every expired record and answer how many there were.

        :param progress: called with the number removed so far and the number in all (the number removed again where
            that is not known), the last time with what is returned; not called where nothing has expired.
        """
        ...


@runtime_checkable
class Prepares(Protocol):
    """A backend whose store needs something before its first session, such as a table.

    The app starts where :meth:`prepare` fails, so the verbs have to do the same at their first use.
    """

    def prepare(self) -> None:
        """Make what is missing; called once when the app starts, and not for ``flask db upgrade`` and similar.

        :raises ValueError: where a setting is wrong, which stops the start. Any other error is logged: the store is
            down, or refuses the account.
        """
        ...


@runtime_checkable
class DeclaresTables(Protocol):
    """A backend whose store is a table that may be in the app's own database."""

    def declare_tables(self, database: Any) -> None:
        """Declare the table in the app's metadata, inside an app context.

        :param database: the Flask-SQLAlchemy object of the app; any, as it is no requirement.
        """
        ...


@runtime_checkable
class Explains(Protocol):
    """A backend that can return more of its client's errors than the name of their class."""

    def explain(self, error: Exception) -> str:
        """Return what is logged of an error, without a password, session id or payload."""
        ...


def explanation(backend: object, error: Exception) -> str:
    """Return what is logged of an error of a backend: the backend's own text, or the name of the error's class."""
    backend = getattr(backend, "unserialized", backend)
    return backend.explain(error) if isinstance(backend, Explains) else type(error).__name__


@runtime_checkable
class Checks(Protocol):
    """A backend that can tell what is wrong with its store's set-up."""

    def check(self) -> Iterable[Problem]:
        """Return the problems found, none when all is well."""
        ...


class Adapter(Protocol):
    """What an entry point of the group ``lazysession.backends`` names: usually the backend class itself.

    The entry point's name is the SESSION_TYPE that it serves.
    """

    #: Flask-Session's interface class that :meth:`from_interface` drives, as ``module:name``; None for a store of
    #: one's own, which Flask-Session does not know.
    drives: ClassVar[str | None]

    @classmethod
    def from_interface(cls, interface: object) -> Backend | None:
        """Take over the client, table and the like of Flask-Session's ready interface.

        :raises ValueError: when its client cannot be driven; the message says which can.
        :returns: None for a client that only the interface's own methods can drive, through the generic adapter.
        """
        ...

    @classmethod
    def from_setting(cls, value: object, **options: object) -> Backend | None:
        """Make a backend of the setting ``SESSION_<TYPE>``: a client or a URL string.

        :param options: every setting ``SESSION_<TYPE>_<NAME>``, under ``name`` in lower case.
        :raises ValueError: when the value can be neither; the message says what is allowed.
        :returns: None to leave the value to Flask-Session (no value at all: its own default).
        """
        ...

    @classmethod
    def left_to_flask_session(cls, value: object, **options: object) -> bool:
        """Return whether Flask-Session builds its own interface of this value, and uses that very client."""
        ...
