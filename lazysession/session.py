"""The deferred session: what ``flask.session`` is until, and after, a request really uses it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol

from flask import Request
from flask.sessions import SessionMixin
from werkzeug.datastructures import Headers
from werkzeug.local import LocalProxy

from .errors import SessionReadOnly
from .failures import Failure, Failures, goes_on_empty
from .modes import Decision, Mode
from .use import Opened

_REQUIRED = object()
#: The attribute for the lock of the load: a session that has it was used.
LOADED_UNDER = "lazy_lock"


class Opener(Protocol):
    """What a deferred session needs of the interface that made it."""

    transient_keys: frozenset[str]
    raises_on_skipped_write: bool

    @property
    def session_class(self) -> type[SessionMixin]:
        """The class that the opened session will have."""
        ...

    def open_now(self, session: DeferredSession, *, cleared: bool) -> Opened:
        """Open the session for good; ``cleared`` starts it empty, without reading where the store allows that."""
        ...

    def end_now(self, opened: Opened) -> None:
        """Let the opened session end: it was cleared."""

    def tell_opened(self, session: DeferredSession, opened: Opened) -> None:
        """Tell whoever listens that the session was opened."""

    def note_late_write(self, session: DeferredSession) -> None:
        """Hear of a write after the response was saved."""

    def regenerate(self, session: SessionMixin) -> None:
        """Give the session a new id."""


def _forward(name: str) -> Callable[..., Any]:
    def method(self: DeferredSession, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.lazy_read_all(), name)(*args, **kwargs)

    method.__name__ = name
    return method


class DeferredSession(Failures, SessionMixin):
    """Stands for the session of one request, and opens it at first use.

    Everything that depends on the stored data opens it: mapping operations, comparison, ``sid``, ``new``, reading
    ``permanent``, setting ``modified``. These do not: ``repr``, ``isinstance``, reading ``modified`` or ``accessed``,
    setting ``accessed`` or ``permanent``, and transient keys.

    :param opener: the session interface of the app.
    :param request: the request that the session belongs to.
    """

    # Class attributes serve as defaults: a request that does not use its session pays for two assignments.
    lazy_opened: Opened | None = None
    lazy_permanent: bool | None = None
    lazy_opening = False
    lazy_closed = False  # saved
    lazy_passed: Headers | None = None  # of the response that was made while the session was not used
    lazy_decision: Decision | None = None  # decided when a streamed response was made
    lazy_early: Opened | Failure | None = None  # loaded before the view, for an interface that needs that
    lazy_origin = ""  # the code that used it first, if that is traced
    lazy_took = 0.0  # milliseconds of the load
    accessed = False

    def __init__(self, opener: Opener, request: Request) -> None:
        attributes = self.__dict__  # the quickest way past __setattr__, for what every request pays
        attributes["lazy_opener"] = opener
        attributes["lazy_request"] = request

    if TYPE_CHECKING:
        lazy_opener: Opener
    else:

        @property
        def __class__(self) -> type:  # isinstance() asks here, so it answers without opening
            opened = self.lazy_opened
            return self.lazy_opener.session_class if opened is None else type(opened.session)

    # Opening

    def _lazy_use(self) -> Opened:
        return self.lazy_opened or self.lazy_open()

    def _lazy_read(self) -> SessionMixin:
        """Return the opened session, for what depends on none of its keys."""
        return self._lazy_use().session

    def _lazy_read_key(self, key: object) -> SessionMixin:
        opened = self._lazy_use()
        opened.keys.note_read(key)
        return opened.session

    def lazy_read_all(self) -> SessionMixin:
        """Return the opened session, for what may depend on every key."""
        opened = self._lazy_use()
        opened.keys.note_read_all()
        return opened.session

    def lazy_write(self) -> SessionMixin:
        """Return the opened session for a change; raises where the mode forbids one."""
        opened = self.lazy_opened or self.lazy_open()
        if not self._lazy_may_write(opened.mode):
            raise SessionReadOnly(f"The session may not be changed here: its mode is {opened.mode} ({opened.rule}).")
        if self.lazy_closed or self.lazy_passed is not None or self.lazy_failed:
            self.lazy_opener.note_late_write(self)
        return opened.session

    def _lazy_may_write(self, mode: Mode) -> bool:
        return mode is not Mode.READONLY and not (mode is Mode.SKIP and self.lazy_opener.raises_on_skipped_write)

    def lazy_open(self, *, cleared: bool = False) -> Opened:
        """Open the session, once; whoever comes second waits and shares it."""
        attributes = self.__dict__
        with attributes.setdefault(LOADED_UNDER, RLock()):  # setdefault is atomic: threads get the same lock
            if self.lazy_opened is not None:
                return self.lazy_opened
            if self.lazy_opening:
                raise RuntimeError("The session is used by the very code that opens it (a rule, a backend).")
            attributes["lazy_opening"] = True
            try:
                opened = self.lazy_opener.open_now(self, cleared=cleared)
            except SessionReadOnly:  # clear() where the mode forbids it; reading may follow
                raise
            except Exception as error:
                if not goes_on_empty(self, error):
                    raise
                opened = self.lazy_opener.open_now(self, cleared=False)
            finally:
                attributes["lazy_opening"] = False
            self._lazy_apply_permanent(opened)
            attributes["lazy_opened"] = opened
        self.lazy_opener.tell_opened(self, opened)
        return opened

    def _lazy_apply_permanent(self, opened: Opened) -> None:
        if self.lazy_permanent is None or opened.missing or opened.mode not in (Mode.NORMAL, Mode.NO_REFRESH):
            return
        if not says_permanent(opened.session, self.lazy_permanent):
            opened.session.permanent = self.lazy_permanent

    def lazy_note_removal(self) -> None:
        """Count the removal of what is not there as a change where nobody knows what is there."""
        if self.lazy_opened is not None and self.lazy_opened.missing:
            self.lazy_write().modified = True

    def _lazy_is_transient(self, key: object) -> bool:
        return self.lazy_opened is None and key in self.lazy_opener.transient_keys

    # Attributes

    def __getattr__(self, name: str) -> Any:
        if self.lazy_opened is None and name.startswith("__") and not hasattr(self.lazy_opener.session_class, name):
            raise AttributeError(name)  # template engines and debuggers probe for such names
        session = self._lazy_read()
        if _belongs_to_class(session, name):
            session = self.lazy_read_all()
        return getattr(session, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "accessed":  # Flask sets it before anyone knows what will be done with the session
            assign(self, name, value)
        elif name == "permanent":
            self._lazy_set_permanent(bool(value))
        elif name == "modified":
            if value or self.lazy_opened is not None:
                setattr(self._lazy_read(), name, value)
        else:
            setattr(self._lazy_write_by_class(name), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._lazy_write_by_class(name), name)

    def _lazy_write_by_class(self, name: str) -> SessionMixin:
        session = self.lazy_write()
        return self.lazy_read_all() if _belongs_to_class(session, name) else session

    def _lazy_set_permanent(self, value: bool) -> None:
        if self.lazy_opened is None:
            assign(self, "lazy_permanent", value)
        elif not says_permanent(self.lazy_opened.session, value):
            self.lazy_write().permanent = value

    if not TYPE_CHECKING:  # the class attributes of SessionMixin say this to type checkers

        @property
        def permanent(self) -> bool:
            """As of the wrapped session class; reading it opens."""
            return self._lazy_read().permanent

        @property
        def modified(self) -> bool:
            """As of the wrapped session class, False while not opened."""
            return self.lazy_opened is not None and self.lazy_opened.session.modified

        @property
        def new(self) -> bool:
            """As of the wrapped session class; reading it opens."""
            return self._lazy_read().new

    # The mapping

    def __getitem__(self, key: str) -> Any:
        if self._lazy_is_transient(key):
            raise KeyError(key)
        return self._lazy_read_key(key)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.lazy_write()[key] = value
        opened = self.lazy_opened
        if opened is not None:  # as after every write; without the call, for what most requests that write do
            opened.keys.changed.add(key)

    def __delitem__(self, key: str) -> None:
        if self._lazy_is_transient(key):
            raise KeyError(key)
        session = self.lazy_write()
        self._lazy_read_key(key)  # a KeyError tells the view that it is absent
        del session[key]
        self._lazy_use().keys.changed.add(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.lazy_read_all())

    def __len__(self) -> int:
        return len(self.lazy_read_all())

    def __contains__(self, key: object) -> bool:
        return not self._lazy_is_transient(key) and key in self._lazy_read_key(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As of the wrapped session class; a transient key is absent while the session is not opened."""
        opened = self.lazy_opened  # spelled out: this is what most requests that read do
        if opened is None:
            if key in self.lazy_opener.transient_keys:
                return default
            opened = self.lazy_open()
        keys = opened.keys
        if key not in keys.changed:
            keys.read.add(key)
        return opened.session.get(key, default)

    def pop(self, key: str, default: Any = _REQUIRED) -> Any:
        """As of the wrapped session class; popping what is not there changes nothing, so every mode allows it.

        Where the store failed, or is not asked (``skip``), nobody knows what is there: it is a change then.
        """
        value = default
        if key in self:
            value = self.lazy_write().pop(key, default)  # another thread may have been quicker
        elif key not in self.lazy_opener.transient_keys:
            self.lazy_note_removal()
        if self.lazy_opened is not None:
            self.lazy_opened.keys.changed.add(key)
        if value is _REQUIRED:
            raise KeyError(key)
        return value

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As of the wrapped session class; a key that is there changes nothing, so every mode allows it."""
        session = self._lazy_read_key(key)
        if key in session:
            return session[key]
        value = self.lazy_write().setdefault(key, default)
        self._lazy_use().keys.changed.add(key)
        return value

    def popitem(self) -> tuple[str, Any]:
        """As of the wrapped session class; which item it is depends on all of them."""
        session = self.lazy_write()
        self.lazy_read_all()
        key, value = session.popitem()
        self._lazy_use().keys.changed.add(key)
        return key, value

    def update(self, arg: Any = None, /, **kwargs: Any) -> None:
        """As of the wrapped session class: a mapping or pairs, and keywords."""
        session = self.lazy_write()
        items = dict(() if arg is None else arg, **kwargs)
        session.update(items)
        self._lazy_use().keys.changed.update(items)

    def clear(self) -> None:
        """As of the wrapped session class; first thing in a request, it does not read what it clears.

        What is written after it belongs to a new session, under a new id.
        """
        opened = self.lazy_opened or self.lazy_open(cleared=True)
        self.lazy_write().clear()
        self.lazy_opener.end_now(opened)

    def __ior__(self, other: Any) -> DeferredSession:
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        return self.lazy_read_all() == other

    __hash__ = None  # type: ignore[assignment]  # as dict

    def __repr__(self) -> str:
        if self.lazy_opened is None:
            return f"<{self.lazy_opener.session_class.__name__} (not opened)>"
        return repr(self.lazy_opened.session)

    def __bool__(self) -> bool:
        opened = self._lazy_use()
        opened.keys.note_emptiness(opened.session)
        return bool(opened.session)

    if not TYPE_CHECKING:  # type checkers know these from MutableMapping
        __or__ = _forward("__or__")
        __ror__ = _forward("__ror__")
        __reversed__ = _forward("__reversed__")
        keys = _forward("keys")
        values = _forward("values")
        items = _forward("items")
        copy = _forward("copy")

    def __copy__(self) -> Any:
        return copy.copy(self.lazy_read_all())

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.lazy_read_all(), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.lazy_read_all().__reduce_ex__(protocol)


assign = object.__setattr__  # past DeferredSession.__setattr__


def _belongs_to_class(session: SessionMixin, name: str) -> bool:
    """Return whether an attribute is a method or property of the session class, which may read and change any key."""
    return name not in vars(session) and hasattr(type(session), name)


_KNOWN_PACKAGES = frozenset({"flask", "flask_session", "werkzeug", "collections", "builtins"})
_WAYS = frozenset(
    {
        *("__init__", "__new__", "__getattr__", "__getattribute__", "__getitem__", "__setitem__", "__delitem__"),
        *("__contains__", "__iter__", "__len__", "__bool__", "__eq__", "get", "pop", "popitem", "setdefault"),
        *("update", "clear", "keys", "values", "items", "copy"),
    }
)


def has_own_ways(session_class: type[SessionMixin]) -> bool:
    """Return whether a session class of an app's own reads or changes its items in ways that only it knows.

    The keys that it reads are then not known one by one: all of them count as read.
    """
    return any(
        base.__module__.partition(".")[0] not in _KNOWN_PACKAGES and not _WAYS.isdisjoint(vars(base))
        for base in session_class.__mro__
    )


def behind_proxy(session: Any) -> Any:
    """Return the session behind ``flask.session``; what is no proxy unchanged, and any, as callers pass anything."""
    if isinstance(session, LocalProxy):
        return session._get_current_object()  # pyright: ignore[reportPrivateUsage]  # documented by Werkzeug
    return session


def says_permanent(session: SessionMixin, value: bool) -> bool:
    """Return whether a session has this value for ``permanent`` already: setting an equal value is no change."""
    return session.permanent == value and "_permanent" in session
