"""Clients of a memcached, and the wire to it."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient

from lazysession.testing import KEY
from tests.support.optional import import_or_skip

pylibmc = import_or_skip("pylibmc")

ONE_DAY = 86400
HOURLY = ONE_DAY, ONE_DAY - 3600


class Server:
    """What the tests read from the server itself, without a client."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = ("127.0.0.1", int(url.rpartition(":")[2]))
        self.spec = "{}:{}".format(*self.address)

    def send(self, *commands: bytes, end: bytes = b"MN\r\n") -> bytes:
        answer = b""
        with socket.create_connection(self.address, timeout=10) as connection:
            connection.sendall(b"".join(command + b"\r\n" for command in commands))
            while not answer.endswith(end):
                answer += connection.recv(2**16)
        return answer

    def tell(self, *commands: bytes) -> bytes:
        return self.send(*commands, b"mn").removesuffix(b"MN\r\n")

    def ttl(self, key: str = KEY) -> int:
        answer = self.tell(b"mg %s t" % key.encode())
        assert answer.startswith(b"HD t"), answer
        return int(answer[4:])

    def lag(self) -> int:
        """Return by how many whole seconds the server's clock is late: on a busy machine its timer misses ticks."""
        (now,) = re.findall(rb"STAT time (\d+)", self.tell(b"stats"))
        return max(0, int(time.time() - int(now)))

    def holds(self, key: str) -> bool:
        return self.tell(b"mg %s" % key.encode()).startswith(b"HD")

    def item(self, key: str) -> tuple[int, bytes]:
        """Return flags and bytes."""
        head, _, rest = self.tell(b"mg %s f v" % key.encode()).partition(b"\r\n")
        _, size, flags = head.split()
        return int(flags[1:]), rest[: int(size)]

    def pass_time(self, seconds: float, keys: Iterable[str]) -> None:
        """Shorten expiries: memcached has no other clock to set."""
        for key in filter(self.holds, keys):
            left = int(self.ttl(key) - seconds)
            self.tell(b"touch %s %d" % (key.encode(), left if left > 0 else -1))


CLIENTS: dict[str, Callable[[tuple[str, int]], Any]] = {
    "Client": Client,
    "PooledClient": PooledClient,
    "HashClient": lambda address: HashClient([address]),
    "HashClient, pooled": lambda address: HashClient([address], use_pooling=True),
    "pylibmc": lambda address: pylibmc.Client(["{}:{}".format(*address)]),
}
every_client = pytest.mark.parametrize("make_client", CLIENTS.values(), ids=CLIENTS.keys())
pymemcache_alone = pytest.mark.parametrize("make_client", list(CLIENTS.values())[:4], ids=list(CLIENTS)[:4])


class Wire:
    """Carries bytes between a client and the server, and lists the commands that are sent: each is a round trip.

    :param refused: commands that the server is made to not know, as an old one does not.
    :param cut: commands on which the connection is closed, as twemproxy does.
    """

    def __init__(self, server: Server, *, refused: tuple[str, ...] = (), cut: tuple[str, ...] = ()) -> None:
        self.sent: list[str] = []
        self._server, self._refused, self._cut = server, refused, cut
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        self.address: tuple[str, int] = self._listening.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                far = socket.create_connection(self._server.address)
                self._sockets += [near, far]
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, listed: bool) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                name = data.split(None, 1)[0].decode() if listed else ""
                if listed and name != "quit":  # a client that is collected says so at some time; no test waits for it
                    self.sent.append(name)
                if name in self._cut:
                    break
                if name in self._refused:
                    source.sendall(b"ERROR\r\n")
                else:
                    target.sendall(data)
            for each in (source, target):
                each.shutdown(socket.SHUT_RDWR)


#: python-memcached does so with a socket that it cannot connect.
leaves_sockets = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")
