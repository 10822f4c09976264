"""Session interfaces to compare with: one without sessions, one that skips a path, and a naive lazy one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from threading import RLock
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface, SessionMixin


class SharedNull(SessionInterface):
    """The strictest limit: the same empty session for every request, which cannot be written to."""

    def __init__(self) -> None:
        self._session = NullSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        """Return it."""
        return self._session

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Do nothing: Flask never calls this, as a null session is not saved."""


class StaticAware(SessionInterface):
    """No session below a path, and the wrapped interface elsewhere, as pallets/flask#5491 suggests."""

    def __init__(self, wrapped: SessionInterface, prefix: str = "/static/") -> None:
        self._wrapped = wrapped
        self._prefix = prefix

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        """Open the session, unless the path is below the prefix."""
        return NullSession() if request.path.startswith(self._prefix) else self._wrapped.open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save what was opened."""
        self._wrapped.save_session(app, session, response)


class NaiveLazy(SessionInterface):
    """Open at the first access of any kind, as flask-session#254 proposes; an opened session is always saved."""

    def __init__(self, wrapped: SessionInterface) -> None:
        self._wrapped = wrapped

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        """Return a proxy."""
        return LazyProxy(lambda: self._wrapped.open_session(app, request))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save what was opened."""
        opened = session.__dict__["_session"]
        if opened is not None:
            self._wrapped.save_session(app, opened, response)


class LazyProxy(SessionMixin, MutableMapping[str, Any]):
    """A mapping with a lock and a closure, which opens its session at any access."""

    def __init__(self, open_session: Callable[[], SessionMixin | None]) -> None:
        self.__dict__.update(_open=open_session, _lock=RLock(), _session=None, accessed=False)

    def _load(self) -> Any:
        with self.__dict__["_lock"]:
            if self.__dict__["_session"] is None:
                self.__dict__["_session"] = self.__dict__["_open"]()
            return self.__dict__["_session"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "accessed":
            self.__dict__[name] = value
        else:
            setattr(self._load(), name, value)

    def __getitem__(self, key: str) -> Any:
        return self._load()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._load()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._load()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())

    def __contains__(self, key: object) -> bool:
        return key in self._load()

    def clear(self) -> None:
        """Remove all items."""
        self._load().clear()
