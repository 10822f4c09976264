"""A TCP proxy to a real server whose ways to fail are switched while connections are open."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import TracebackType

#: What the proxy can do, to connections that are open already as well as to new ones.
MODES = {
    "pass": "carries everything",
    "refuse": "closes its connections and refuses new ones, as a server that has ended",
    "reset": "resets a connection when something is sent on it; a request does not reach the server",
    "blackhole": "accepts connections and requests, and never answers",
    "cut": "carries a request, and closes the connection after the first bytes of the answer",
    "slow": "carries everything, each answer after a delay",
}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST


class FaultProxy:
    """Carries connections to a server of this machine, on one thread of its own, and fails as its mode says.

    A client's bytes up to the next answer are one round trip; ``trips`` keeps the beginning of each, ``connections``
    counts those that were accepted.

    :param server: the port of the server.
    :param delay: seconds by which the mode ``slow`` delays each answer.
    :param cut_after: how many bytes of an answer the mode ``cut`` lets through.
    """

    def __init__(self, server: int, *, mode: str = "pass", delay: float = 0.02, cut_after: int = 2) -> None:
        self.trips: list[bytes] = []
        self.connections = 0
        self.delay = delay
        self.cut_after = cut_after
        self._server = server
        # Bound and never listening: it keeps the port while connections are refused.
        self._holder = _bound(0)
        self.port = int(self._holder.getsockname()[1])
        self._listening: socket.socket | None = None
        self._links: set[_Link] = set()
        self._mode = "refuse"
        self._cue: tuple[bytes, str] | None = None
        self._answers: list[tuple[float, int, _Link, bytes]] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._orders: list[tuple[Callable[[], None], Future[None]]] = []
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, self._obey)
        self._running = True
        self._thread = threading.Thread(target=self._run, name=f"fault proxy to {server}")
        self._thread.start()
        self.mode = mode

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def mode(self) -> str:
        """One of :data:`MODES`; when setting it returns, it holds for every connection."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        assert mode in MODES, f"{mode!r} is none of {sorted(MODES)}"
        self._do(lambda: self._switch(mode))

    def fail_at(self, words: bytes, mode: str) -> None:
        """Switch to a mode by itself when a client sends something with these words in it, before that is carried."""
        assert mode in MODES, f"{mode!r} is none of {sorted(MODES)}"

        def arm() -> None:
            self._cue = (words, mode)

        self._do(arm)

    def close(self) -> None:
        """Cut every connection, and end the thread."""

        def stop() -> None:
            self._running = False

        if self._thread.is_alive():
            self._do(stop)
            self._thread.join()

    # All below runs on the proxy's own thread

    def _do(self, order: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._orders.append((order, done))
        self._wake.send(b"!")
        done.result(timeout=30)

    def _obey(self) -> None:
        self._woken.recv(1)
        order, done = self._orders.pop(0)
        try:
            order()
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def _run(self) -> None:
        while self._running:
            for key, _ in self._selector.select(self._until_next_answer()):
                if key.fileobj.fileno() != -1:  # type: ignore[union-attr]  # not closed by what came before it
                    key.data()
            self._send_due_answers()
        self._switch("refuse")
        for each in (self._holder, self._wake, self._woken):
            each.close()
        self._selector.close()

    def _until_next_answer(self) -> float | None:
        return max(0.0, self._answers[0][0] - time.monotonic()) if self._answers else None

    def _send_due_answers(self) -> None:
        while self._answers and self._answers[0][0] <= time.monotonic():
            _, _, link, data = heapq.heappop(self._answers)
            if link not in self._links:
                continue
            if data:
                self._deliver(link, data)
            else:
                self._drop(link)

    def _switch(self, mode: str) -> None:
        self._cue = None
        self._mode = mode
        for link in [link for link in self._links if mode == "refuse" or link.starved]:
            self._drop(link)
        if mode == "refuse" and self._listening is not None:
            self._selector.unregister(self._listening)
            self._listening.close()
            self._listening = None
        elif mode != "refuse" and self._listening is None:
            self._listening = _bound(self.port)
            self._listening.listen(128)
            self._selector.register(self._listening, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        assert self._listening is not None
        near = self._listening.accept()[0]
        self.connections += 1
        far = socket.create_connection(("127.0.0.1", self._server))
        link = _Link(near, far)
        self._links.add(link)
        for each, carry in ((near, self._ask), (far, self._answer)):
            each.settimeout(5)  # one that takes nothing must not block the others indefinitely
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(each, selectors.EVENT_READ, partial(carry, link))

    def _ask(self, link: _Link) -> None:
        data = _received(link.near)
        if not data:
            self._drop(link)
            return
        if not link.asked:
            link.asked = True
            self.trips.append(data[:200])
        if self._cue is not None and self._cue[0] in data:
            self._switch(self._cue[1])
        if self._mode == "reset":
            self._drop(link, reset=True)
        elif self._mode == "blackhole":
            link.starved = True
        elif self._mode != "refuse":
            self._send(link, link.far, data)

    def _answer(self, link: _Link) -> None:
        data = _received(link.far)
        if not data and link.due:  # after what is on its way
            self._selector.unregister(link.far)
            heapq.heappush(self._answers, (link.due, next(self._order), link, data))
        elif not data:
            self._drop(link)
        elif self._mode == "reset":  # a server that speaks first
            self._drop(link, reset=True)
        elif self._mode == "blackhole":
            link.starved = True
        elif self._mode == "cut":
            self._send(link, link.near, data[: self.cut_after])
            self._drop(link)
        elif self._mode == "slow" or link.due:
            # What follows in one answer goes with its beginning.
            link.due = max(link.due, time.monotonic() + (self.delay if link.asked else 0))
            link.asked = False
            heapq.heappush(self._answers, (link.due, next(self._order), link, data))
        else:
            self._deliver(link, data)

    def _deliver(self, link: _Link, data: bytes) -> None:
        link.asked, link.due = False, 0.0
        self._send(link, link.near, data)

    def _send(self, link: _Link, to: socket.socket, data: bytes) -> None:
        try:
            to.sendall(data)
        except OSError:
            self._drop(link)

    def _drop(self, link: _Link, *, reset: bool = False) -> None:
        if link not in self._links:
            return
        self._links.remove(link)
        for each in (link.near, link.far):
            with suppress(KeyError):  # the server had hung up
                self._selector.unregister(each)
            if reset:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            else:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            each.close()


class _Link:
    """One client's connection, and the one to the server that serves it.

    ``asked``: the client waits for an answer; ``starved``: something of it was swallowed; ``due``: when the delayed
    answers that are on their way will have been sent.
    """

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self.asked = self.starved = False
        self.due = 0.0


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _received(near: socket.socket) -> bytes:
    try:
        return near.recv(2**16)
    except OSError:
        return b""
