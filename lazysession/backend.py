"""The contract between LazySession and one store: five methods, each one round trip where it succeeds.

A backend decides nothing: the core calls :meth:`Backend.touch` when a refresh is due. It gets complete store keys, and
payloads, which are bytes unless it brings a codec (:class:`BringsCodec`); it never sees a session object, a cookie or a
setting. Absent, expired and undecodable are outcomes. Only a fault of the system (connection, authentication, out of
space) raises, and then with the client's own exception.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from traceback import walk_tb
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec
from markupsafe import Markup

_MARKUP = 77

#: What is stored: bytes, or what the codec of a backend makes (:class:`BringsCodec`), which the core only compares.
Payload: TypeAlias = Any


class Record(NamedTuple):
    """What is stored under a key.

    :param payload: what is stored, as it was given.
    :param ttl: seconds left; for :meth:`SupportsReadAndTouch.read_and_touch` before it moved the expiry; None when the
        store cannot return them, or the record never expires.
    :param touched: the expiry was moved.
    """

    payload: Payload
    ttl: float | None = None
    touched: bool = False


class TouchFailed(Exception):
    """The record was read, and its expiry could not be moved; the client's own error is the cause.

    :param record: what was read.
    """

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record


class Undecodable(ValueError):
    """What is stored is not a session: raised by our serializer when Flask-Session's interface decodes with it."""


class NotStorable(TypeError):
    """A value of a session that the store cannot hold; the message names its key. The stored session is unchanged."""


class Outcome(Enum):
    """How a conditional write ended."""

    STORED = "stored"
    CONFLICT = "conflict"
    MISSING = "missing"
    #: Nothing was changed: the store cannot keep what a record has left (:meth:`Backend.replace`).
    TTL_UNKNOWN = "ttl unknown"


class WriteResult(NamedTuple):
    """What a replace or delete did.

    :param outcome: STORED (for a delete: removed); CONFLICT, when the stored payload is not ``expected``; MISSING, when
        nothing is stored.
    :param current: with CONFLICT, the payload that is stored now, where the store returns it in the same round trip; of
        a delete without ``expected``, the payload that was removed.
    """

    outcome: Outcome
    current: Payload | None = None


def to_extension(text: Markup) -> msgspec.msgpack.Ext:
    """Return the msgpack extension value of a Markup: number 77, the text in UTF-8."""
    return msgspec.msgpack.Ext(_MARKUP, str.__str__(text).encode())


def plain_value(value: object) -> str | int | float | None:
    """Return a value of a subclass of ``str``, ``int`` or ``float`` as that class, ignoring overridden methods.

    :returns: None for a value of any other class.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else None


def from_extension(number: int, data: memoryview) -> Any:
    """Return the value of a msgpack extension; any, as one with another number is returned unchanged."""
    if number == _MARKUP:
        return Markup(bytes(data).decode())  # noqa: S704 - the app stored it as Markup
    return msgspec.msgpack.Ext(number, bytes(data))


class Backend(Protocol):
    """One store: five methods, each one round trip where it succeeds. Keys are complete, times are seconds.

    Absent, expired and undecodable are outcomes. Only a fault of the system raises, with the client's own error.
    """

    def read(self, key: str) -> Record | None:
        """Return what is stored, None when it is absent or expired."""
        ...

    def create(self, key: str, payload: Payload, ttl: float) -> bool:
        """Store a new record; return False, and change nothing, when the key is taken."""
        ...

    def replace(self, key: str, payload: Payload, ttl: float | None, expected: Payload) -> WriteResult:
        """Put ``payload`` in the place of ``expected``, atomically; never creates.

        :param ttl: seconds to live from now; None keeps what the record has left. A store that can neither keep nor
            return it changes nothing and returns TTL_UNKNOWN; the core then calls this again with the ttl that
            the process remembers.
        """
        ...

    def delete(self, key: str, expected: Payload | None = None) -> WriteResult:
        """Remove the record.

        :param expected: remove it only while this is the stored payload, atomically; None removes whatever is stored.
        :returns: without ``expected``, STORED with exactly the payload that was removed, or MISSING.
        """
        ...

    def touch(self, key: str, ttl: float, expected: Payload | None = None) -> bool:
        """Move the expiry of what is stored, and never change or create data; return whether it was moved.

        :param ttl: seconds to live from now.
        :param expected: move it only while this is the stored payload, where the store can compare without sending it:
            what another request has stored meanwhile may be a forwarding record. A forwarding record that is kept
            longer has no effect: it stores its own end time, and LazySession checks that.
        """
        ...


@runtime_checkable
class SupportsReadAndTouch(Protocol):
    """A backend that reads and moves the expiry in one round trip."""

    def read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        """Return what is stored and the seconds that were left, and move the expiry when that is due.

        Nothing is moved if ``unless_more_than < left <= ttl``, with a second of tolerance: more than ``ttl`` means that
        the lifetime was shortened.

        :param ttl: seconds to live from now; None moves nothing, and only returns the seconds that are left.
        :raises TouchFailed: when the record was read, and its expiry could not be moved.
        """
        ...


class PayloadCodec(Protocol):
    """Makes payloads of sessions, and sessions of payloads. Payloads are equal when the same is stored."""

    def encode(self, data: Mapping[str, Any]) -> Payload:
        """Return the payload of a session's items; nothing that is changed in them later changes it.

        :raises TypeError: when a value cannot be stored; the message names its key and type.
        """
        ...

    def decode(self, payload: Payload) -> dict[str, Any] | None:
        """Return the items of a payload, which the app may change; None when it is not a session."""
        ...

    def read_back(self, payload: Payload, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the items of a payload that is about to be stored.

        :param data: what the payload was made of.
        :raises TypeError: when that cannot be decoded.
        """
        ...

    def same(self, one: Any, other: Any) -> bool:
        """Return whether two values are stored alike; any, as sessions hold anything."""
        ...


@runtime_checkable
class BringsCodec(Protocol):
    """A backend whose payloads are not bytes, such as that of a store of objects."""

    @property
    def codec(self) -> PayloadCodec:
        """What makes its payloads."""
        ...


class Problem(NamedTuple):
    """One finding of :meth:`SupportsCheck.check`.

    :param severity: ``"error"``: sessions do not work or are not safe; ``"warning"``: sessions may fail later, or for
        some visitors; ``"info"``: a consequence of a setting.
    :param what: what is wrong, and why it matters. No part of a secret.
    :param remedy: what to set.
    :param name: the name for ``flask lazysession check --ignore``.
    """

    severity: str
    what: str
    remedy: str
    name: str = ""


@runtime_checkable
class SupportsPurge(Protocol):
    """A backend whose store keeps expired records until they are purged."""

    def purge(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Remove every expired record and return how many there were.

        :param progress: called with the number removed so far and the number in all (the number removed again where
            that is not known), the last time with what is returned; not called where nothing has expired.
        """
        ...


@runtime_checkable
class SupportsPrepare(Protocol):
    """A backend whose store needs something before its first session, such as a table.

    The app starts where :meth:`prepare` fails, so the five methods have to do the same at their first use.
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

        :param database: the Flask-SQLAlchemy object of the app; any, as that package is not required.
        """
        ...


@runtime_checkable
class SupportsExplain(Protocol):
    """A backend that can describe its client's errors in more detail than by class name."""

    def explain(self, error: Exception) -> str:
        """Return what is logged about an error, without a password, session id or payload."""
        ...


def explanation(backend: object, error: Exception) -> str:
    """Return what is logged about an error of a backend: its own text, or the class and the system's reason."""
    backend = getattr(backend, "unserialized", backend)
    return backend.explain(error) if isinstance(backend, SupportsExplain) else with_reason(error)


def with_reason(error: BaseException) -> str:
    """Return the class of an error, and the system's reason if there is one: ``ConnectionError: Connection refused``.

    The messages of clients are left out, as they may repeat a key or a payload. The reason is the system's own text.
    """
    cause: BaseException | None = error
    seen = set[int]()
    while cause is not None and id(cause) not in seen:  # two errors may be each other's causes
        reason = _system_reason(cause)
        if reason:
            return f"{type(error).__name__}: {reason}"
        seen.add(id(cause))
        cause = cause.__cause__ or _replaced_by(cause)
    return type(error).__name__


def _system_reason(error: BaseException) -> str:
    """Return the system's text for an error, or nothing; a client may put any text of its own into an OSError."""
    if not isinstance(error, OSError):
        return ""
    if type(error).__module__ in ("socket", "ssl"):  # their numbers are of other lists
        return str(error.strerror or "")
    return os.strerror(error.errno) if isinstance(error.errno, int) and error.errno in errno.errorcode else ""


def _replaced_by(error: BaseException) -> BaseException | None:
    """Return the error in whose place a client raised this one.

    One that the app was handling before, as in an error handler that uses the session, is the context as well. It was
    caught further out than where this one came from.
    """
    context = error.__context__
    if context is None or context.__traceback__ is None:
        return None
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return context if context.__traceback__.tb_frame in frames else None


@runtime_checkable
class SupportsCheck(Protocol):
    """A backend that can check how its store is set up."""

    def check(self) -> Iterable[Problem]:
        """Return the problems found."""
        ...


class Adapter(Protocol):
    """What an entry point of the group ``lazysession.backends`` names: usually the backend class itself.

    The entry point's name is the SESSION_TYPE that it serves.
    """

    #: The class of Flask-Session's interface that :meth:`from_interface` takes, as ``module:name``; None for a store
    #: that Flask-Session does not know.
    interface_class: ClassVar[str | None]

    @classmethod
    def from_interface(cls, interface: object) -> Backend | None:
        """Return a backend over the client, table and so on of a Flask-Session interface.

        :raises ValueError: when its client is not supported; the message names those that are.
        :returns: None for a client that only the interface's own methods can use: the generic adapter is used.
        """
        ...

    @classmethod
    def from_setting(cls, value: object, **options: object) -> Backend | None:
        """Return a backend of the setting ``SESSION_<TYPE>``, which is a client or a URL string.

        :param options: every setting ``SESSION_<TYPE>_<NAME>``, under ``name`` in lower case.
        :raises ValueError: when the value is neither, or does not fit the options; the message says what is allowed.
        :returns: None if Flask-Session is to build its interface, which :meth:`from_interface` then gets: where there
            is no value, and where Flask-Session would use this very client.
        """
        ...
