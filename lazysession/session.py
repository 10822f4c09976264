"""The deferred session: the object behind ``flask.session``, which loads the session at first use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Request
from flask.sessions import SessionMixin
from werkzeug.datastructures import Headers
from werkzeug.local import LocalProxy

from .use import Owner, SessionUse, has_permanent

_REQUIRED = object()


def _forward(name: str) -> Callable[..., Any]:
    def method(self: DeferredSession, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.lazy_read_all(), name)(*args, **kwargs)

    method.__name__ = name
    return method


class DeferredSession(SessionMixin):
    """The session of one request, loaded at first use.

    Everything that depends on the stored data loads it: mapping operations, comparison, ``sid``, ``new``, reading
    ``permanent``, setting ``modified``. These do not load it: ``repr``, ``isinstance``, reading ``modified`` or
    ``accessed``, setting ``accessed`` or ``permanent``, and transient keys.

    :param owner: the session interface of the app.
    :param request: the request that the session belongs to.
    """

    # Class attributes hold the defaults: a request that does not use its session pays for two assignments only.
    lazy_use: SessionUse | None = None  # made at the first use
    lazy_permanent: bool | None = None  # the value that was set before the load
    lazy_headers: Headers | None = None  # of the response that was made while the session was not used
    accessed = False

    def __init__(self, owner: Owner, request: Request) -> None:
        attributes = self.__dict__  # past __setattr__, and fast: every request runs this
        attributes["lazy_owner"] = owner
        attributes["lazy_request"] = request

    if TYPE_CHECKING:
        lazy_owner: Owner
        lazy_request: Request
    else:

        @property
        def __class__(self) -> type:  # for isinstance(), without a load
            use = self.lazy_use
            return type(use.session) if use is not None and use.is_loaded else self.lazy_owner.session_class

    # The use

    def lazy_begin(self) -> SessionUse:
        """Return the request's use of the session, loaded or not."""
        # setdefault is atomic: threads get the same one
        use: SessionUse = self.__dict__.setdefault("lazy_use", SessionUse(self.lazy_owner, self.lazy_request))
        return use

    def lazy_load(self, *, cleared: bool = False) -> SessionUse:
        """Return the use of the session, after loading the session if needed.

        :param cleared: begin an empty session, which need not be read.
        """
        use = self.lazy_use or self.lazy_begin()
        if not use.is_loaded:
            assign(self, "accessed", True)  # Flask does so itself since 3.1.3
            use.load(self, cleared=cleared)
        return use

    @property
    def lazy_loaded(self) -> SessionUse | None:
        """The use of the session if the session is loaded, else None."""
        use = self.lazy_use
        return use if use is not None and use.is_loaded else None

    def _lazy_read(self) -> SessionMixin:
        """Return the loaded session, for an access that depends on none of its keys."""
        return self.lazy_load().session

    def _lazy_read_key(self, key: object) -> SessionMixin:
        use = self.lazy_load()
        use.keys.add_read(key)
        return use.session

    def lazy_read_all(self) -> SessionMixin:
        """Return the loaded session, for an access that may depend on every key."""
        use = self.lazy_load()
        use.keys.add_read_all()
        return use.session

    def lazy_write(self) -> SessionUse:
        """Return the use of the session for a change.

        :raises SessionReadOnly: where the mode forbids one.
        """
        use = self.lazy_load()
        use.check_write(self.lazy_headers)
        return use

    def lazy_count_removal(self) -> None:
        """Count the removal of an absent key as a change if the stored session is unknown."""
        use = self.lazy_loaded
        if use is not None and not use.is_saveable:
            self.lazy_write().session.modified = True

    def _lazy_is_transient(self, key: object) -> bool:
        return key in self.lazy_owner.transient_keys and self.lazy_loaded is None

    # Attributes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and self.lazy_loaded is None and not hasattr(self.lazy_owner.session_class, name):
            raise AttributeError(name)  # template engines and debuggers probe for such names
        session = self._lazy_read()
        if _belongs_to_class(session, name):
            session = self.lazy_read_all()
        return getattr(session, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "accessed":  # Flask sets it at each access of flask.session, before the operation
            assign(self, name, value)
        elif name == "permanent":
            self._lazy_set_permanent(bool(value))
        elif name == "modified":
            if value or self.lazy_loaded is not None:
                setattr(self._lazy_read(), name, value)
        else:
            setattr(self._lazy_write_by_class(name), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._lazy_write_by_class(name), name)

    def _lazy_write_by_class(self, name: str) -> SessionMixin:
        session = self.lazy_write().session
        return self.lazy_read_all() if _belongs_to_class(session, name) else session

    def _lazy_set_permanent(self, value: bool) -> None:
        use = self.lazy_loaded
        if use is None:
            assign(self, "lazy_permanent", value)
        elif not has_permanent(use.session, value):
            self.lazy_write().session.permanent = value

    if not TYPE_CHECKING:  # type checkers know these from SessionMixin

        @property
        def permanent(self) -> bool:
            """As of the wrapped session class; reading it loads."""
            return self._lazy_read().permanent

        @property
        def modified(self) -> bool:
            """As of the wrapped session class, False while not loaded."""
            use = self.lazy_loaded
            return use is not None and use.session.modified

        @property
        def new(self) -> bool:
            """As of the wrapped session class; reading it loads."""
            return self._lazy_read().new

    # The mapping

    def __getitem__(self, key: str) -> Any:
        if self._lazy_is_transient(key):
            raise KeyError(key)
        return self._lazy_read_key(key)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        use = self.lazy_write()
        use.session[key] = value
        use.keys.changed.add(key)

    def __delitem__(self, key: str) -> None:
        if self._lazy_is_transient(key):
            raise KeyError(key)
        use = self.lazy_write()
        use.keys.add_read(key)  # a KeyError depends on the key, too
        del use.session[key]
        use.keys.changed.add(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.lazy_read_all())

    def __len__(self) -> int:
        return len(self.lazy_read_all())

    def __contains__(self, key: object) -> bool:
        return not self._lazy_is_transient(key) and key in self._lazy_read_key(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As of the wrapped session class; a transient key is absent while the session is not loaded."""
        use = self.lazy_use  # inlined, as most reads are this call
        if use is None or not use.is_loaded:
            if key in self.lazy_owner.transient_keys:
                return default
            use = self.lazy_load()
        keys = use.keys
        if key not in keys.changed:
            keys.read.add(key)
        return use.session.get(key, default)

    def pop(self, key: str, default: Any = _REQUIRED) -> Any:
        """As of the wrapped session class; popping an absent key changes nothing, so every mode allows it.

        After a failed load and in mode ``skip`` it counts as a change: the key may be stored.
        """
        value = default
        if key in self:
            value = self.lazy_write().session.pop(key, default)  # default: another thread may have removed it since
        elif key not in self.lazy_owner.transient_keys:
            self.lazy_count_removal()
        use = self.lazy_loaded
        if use is not None:
            use.keys.changed.add(key)
        if value is _REQUIRED:
            raise KeyError(key)
        return value

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As of the wrapped session class; if the key is present, nothing changes, so every mode allows it."""
        session = self._lazy_read_key(key)
        if key in session:
            return session[key]
        use = self.lazy_write()
        value = use.session.setdefault(key, default)
        use.keys.changed.add(key)
        return value

    def popitem(self) -> tuple[str, Any]:
        """As of the wrapped session class; the result depends on all keys."""
        use = self.lazy_write()
        use.keys.add_read_all()
        key, value = use.session.popitem()
        use.keys.changed.add(key)
        return key, value

    def update(self, arg: Any = None, /, **kwargs: Any) -> None:
        """As of the wrapped session class: a mapping or pairs, and keywords."""
        use = self.lazy_write()
        items = dict(() if arg is None else arg, **kwargs)
        use.session.update(items)
        use.keys.changed.update(items)

    def clear(self) -> None:
        """As of the wrapped session class; as the first use of a session, it does not read the stored one.

        Later writes begin a new session, under a new id.
        """
        self.lazy_load(cleared=True)
        use = self.lazy_write()
        use.session.clear()
        self.lazy_owner.handler.end(use)

    def __ior__(self, other: Any) -> DeferredSession:
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        return self.lazy_read_all() == other

    __hash__ = None  # type: ignore[assignment]  # as dict

    def __repr__(self) -> str:
        use = self.lazy_loaded
        return f"<{self.lazy_owner.session_class.__name__} (not loaded)>" if use is None else repr(use.session)

    def __bool__(self) -> bool:
        use = self.lazy_load()
        use.keys.add_emptiness_read(use.session)
        return bool(use.session)

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


def behind_proxy(session: Any) -> Any:
    """Return the session behind ``flask.session``, and anything that is no proxy unchanged."""
    if isinstance(session, LocalProxy):
        return session._get_current_object()  # pyright: ignore[reportPrivateUsage]  # documented by Werkzeug
    return session
