"""A call that is interrupted in the middle of an answer, by whatever exception, takes its connection with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from lazysession.codec import Codec
from tests.support.forking import OVERRIDDEN, STORES, app_with_url
from tests.support.processes import run_module
from tests.support.stores.base import backend_of as backend_of_app

#: Those on a server; and memcached by the clients that an app may bring.
ON_SERVERS = {name: needs for name, needs in STORES.items() if needs != "folder"}
ON_SERVERS |= {"pymemcache.Client": "memcached", "pymemcache.HashClient": "memcached"}
ON_SERVERS |= {"python-memcached": "memcached"} | {
    name: needs
    for name, needs in OVERRIDDEN.items()
    if not name.endswith("pylibmc")  # whose calls Python cannot stop
}
INTERRUPTIONS = 5


class Interrupted(BaseException):
    """What ``gevent.Timeout`` is: no ``Exception``."""


class Gate:
    """Carries bytes to a server and back; while it is shut it interrupts this process when an answer has come."""

    def __init__(self, port: int) -> None:
        self.connections, self.shut, self._port = 0, False, port
        self._opened = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        """Send the answers that were kept back."""
        self.shut = False
        self._opened.set()
        self._opened = threading.Event()

    def _accept(self) -> None:
        while True:
            near = self._listening.accept()[0]
            far = socket.create_connection(("127.0.0.1", self._port))
            self.connections += 1
            threading.Thread(target=self._carry, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, True), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                if answers and self.shut:
                    opened = self._opened
                    os.kill(os.getpid(), signal.SIGALRM)
                    opened.wait(1)  # drivers in C do not stop before they have the answer
                target.sendall(data)
        self.connections -= not answers
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def make_backend(store: str, address: str) -> Any:
    """Make the backend of a store at an address, with its client made here or by a URL."""
    from lazysession.backends.memcached import MemcachedBackend

    port = urlsplit(address).port
    if store == "pymemcache.Client":
        from pymemcache.client.base import Client

        return MemcachedBackend(Client(("127.0.0.1", port)))
    if store == "pymemcache.HashClient":
        from pymemcache.client.hash import HashClient

        return MemcachedBackend(HashClient([("127.0.0.1", port)], use_pooling=True))
    return backend_of_app(app_with_url(store, address))


def main() -> None:
    """Interrupt reads of one session, read another after each, and print what was read and what is still connected."""
    store, address = sys.argv[1:]
    parts = urlsplit(address)
    assert parts.port is not None
    gate = Gate(parts.port)
    backend = make_backend(store, address.replace(f":{parts.port}", f":{gate.port}"))
    names = [f"session:{name}{os.getpid()}" for name in ("ann", "bob")]
    codec: Any = getattr(backend, "codec", Codec("msgpack"))
    for name in names:
        assert backend.create(name, codec.encode({"name": name[8:11]}), 100)

    def interrupt(*_: object) -> None:
        raise Interrupted

    signal.signal(signal.SIGALRM, interrupt)
    backend.read(names[0])
    before, interrupted, wrong = gate.connections, 0, 0
    for _ in range(INTERRUPTIONS):
        gate.shut = True
        try:
            backend.read(names[0])
        except Interrupted:
            interrupted += 1
        gate.open()
        record = backend.read(names[1])
        wrong += record is None or codec.decode(record.payload) != {"name": "bob"}
    deadline = threading.Event()
    for _ in range(50):  # closed connections are seen by the gate's threads
        if gate.connections <= before:
            break
        deadline.wait(0.05)
    print(json.dumps([interrupted, wrong, max(0, gate.connections - before)]))  # noqa: T201
    sys.stdout.flush()
    os._exit(0)


@pytest.mark.parametrize("store", ON_SERVERS)
def test_an_interrupted_connection_is_thrown_away(request: pytest.FixtureRequest, store: str) -> None:
    """The next reader gets its own session, and no connection is left over."""
    address = request.getfixturevalue(f"{ON_SERVERS[store]}_url")
    ended = run_module("tests.proofs.test_interrupted", store, address)
    assert ended.stdout, ended.stderr[-2000:]
    assert json.loads(ended.stdout) == [INTERRUPTIONS, 0, 0]
