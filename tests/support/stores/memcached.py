"""memcached."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from pymemcache.client.base import Client, PooledClient

from .base import Store, backend_of, let_pass
from .wire import Wire


class MemcachedStore(Store):
    """A real memcached through pymemcache, counted on the wire; time passes there and for the app's local expiries."""

    label = "memcached"
    read, refresh, write, create, delete = ("gets",), ("gats",), ("cas",), ("add",), ("gets", "cas")
    keep = ("mg", "cas")  # an item cannot be written without an expiry, so what is left is asked for
    delete_seen, touch = ("cas",), ("touch",)
    session_type = "memcached"

    def __init__(self, url: str) -> None:
        port = int(url.rpartition(":")[2])
        self.server = Client(("127.0.0.1", port), default_noreply=False)
        self.server.flush_all()
        self._wire = Wire(port)
        self.client = PooledClient(("127.0.0.1", self._wire.port), timeout=10, no_delay=True)

    def config(self) -> dict[str, Any]:
        return {"SESSION_TYPE": "memcached", "SESSION_MEMCACHED": self.client}

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        names: list[str] = []
        already = len(self._wire.trips)
        yield names
        names += [trip.split(None, 1)[0].decode() for trip in self._wire.trips[already:]]

    def pass_time(self, app: Flask, seconds: float) -> None:
        let_pass(app, seconds)
        for key in self.payloads(app):
            self.server.touch(key, int(self.ttl(app, key) - seconds))
        backend = backend_of(app)
        now = backend.clock
        backend.clock = lambda: now() + seconds

    def ttl(self, app: Flask, key: str) -> float:
        return float(self.server.raw_command(f"mg {key} t").removeprefix(b"HD t"))

    def payloads(self, app: Flask) -> dict[str, bytes]:
        """Of every key that a client named, what the server holds: it has no list of them."""
        keys = {trip.split(None, 2)[1].decode() for trip in self._wire.trips}
        return {key: payload for key in keys if (payload := self.server.get(key)) is not None}

    def remove(self, app: Flask, key: str) -> None:
        self.server.delete(key)

    def close(self) -> None:
        self.client.close()
        self.server.close()
        self._wire.close()
