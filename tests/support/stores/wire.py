"""A wire to a server, on which round trips are counted as the server gets them."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Wire:
    """Carries bytes between clients and a server of this machine, and records what begins each round trip.

    Whatever a client sends before an answer comes belongs to one trip.

    :param port: the server's port.
    """

    def __init__(self, port: int) -> None:
        self.trips: list[bytes] = []
        self._far_port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut every connection."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._far_port))
                self._sockets += [near, far]
                for each in (near, far):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answered = threading.Event()
                answered.set()
                threading.Thread(target=self._ask, args=(near, far, answered), daemon=True).start()
                threading.Thread(target=self._answer, args=(far, near, answered), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket, answered: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(2**16):
                if answered.is_set():
                    answered.clear()
                    self.trips.append(data)
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    def _answer(self, far: socket.socket, near: socket.socket, answered: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(2**16):
                answered.set()
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)
