"""What the stores of the tests have in common."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Any

from flask import Flask

from lazysession.records.store import LOCAL_EXPIRY_LIFETIME

LIVE = "a" * 43  # an id of the shape that Flask-Session makes

Trips = tuple[str, ...]


class Store:
    """One store, empty, with the round trips that each verb is to cost there, by the names that the store gives them.

    ``refresh`` is a read that refreshes, ``touch`` a refresh of what was read before; ``keep`` a replace that keeps
    what is left; ``delete_seen`` a delete of what was loaded.
    """

    label: str | None = None  # its row in the table of round trips; None for what only stands in for a store
    session_type: str
    read: Trips
    refresh: Trips
    touch: Trips
    write: Trips
    create: Trips
    delete: Trips
    delete_seen: Trips

    @property
    def peek(self) -> Trips:
        """A read that asks what is left and moves nothing: as any other, but where a store says otherwise."""
        return self.read

    @property
    def keep(self) -> Trips:
        """As any other replace, but where a store says otherwise."""
        return self.write

    def config(self) -> dict[str, Any]:
        """Return the settings of an app on this store."""
        raise NotImplementedError

    def counted(self) -> AbstractContextManager[list[str]]:
        """Fill a list, which is complete when the block has ended, with the round trips that the block makes."""
        raise NotImplementedError

    def pass_time(self, app: Flask, seconds: float) -> None:
        """Make store and app believe that so many seconds have passed."""
        raise NotImplementedError

    def ttl(self, app: Flask, key: str) -> float:
        """Return how many seconds a session has left."""
        return float(backend_of(app).read(key).ttl)

    def payloads(self, app: Flask) -> dict[str, bytes]:
        """Return all that is stored."""
        raise NotImplementedError

    def put(self, app: Flask, key: str, payload: bytes, lifetime: float = 1000) -> None:
        """Store a session that was not there."""
        assert backend_of(app).create(key, payload, lifetime)
        app.session_interface.handler.records.expiries.remember(key, lifetime, LOCAL_EXPIRY_LIFETIME)  # type: ignore[attr-defined]

    def remove(self, app: Flask, key: str) -> None:
        """Remove a session behind the app's back."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what was opened for this test."""


def backend_of(app: Flask) -> Any:
    """Return the backend of a lazy app; the store's own, where a serializer of the app's lies between."""
    backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
    return getattr(backend, "unserialized", backend)


def let_pass(app: Flask, seconds: float) -> None:
    """Make an app believe that so many seconds have passed for the expiries that it remembers."""
    expiries = app.session_interface.handler.records.expiries  # type: ignore[attr-defined]
    now = expiries.clock
    expiries.clock = lambda: now() + seconds


def added_since(notes: list[str]) -> Generator[list[str]]:
    """Count by a list that something else fills: return what was added to it meanwhile."""
    names: list[str] = []
    already = len(notes)
    yield names
    names += notes[already:]
