"""One contender: the shop in a process of its own, which sends its counts through a private pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

from counting import SqlCounter, StoreCounts, count_by_connection, with_records
from shop import THREADS, create_app
from stores import Sessions, Store

_START_SECONDS = 30
_STOP_SECONDS = 5


@dataclass(frozen=True)
class Meter:
    """What a contender's process has used so far. The counts are of SQL; Redis counts its commands itself."""

    counts: StoreCounts
    cpu_seconds: float


class ContenderError(Exception):
    """A contender's process did not start, or has ended."""


class Contender:
    """A running shop; it stops at the end of the ``with`` block, and when this process ends in any way."""

    def __init__(self, sessions: Sessions, store: Store) -> None:
        self.sessions = sessions
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(sessions, store, far_end), daemon=True)
        self._process.start()
        far_end.close()
        try:
            self.origin = f"http://127.0.0.1:{self._hear(_START_SECONDS)}"
        except ContenderError:
            self.stop()
            raise

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def meter(self) -> Meter:
        """Return what the process has used so far. This is not a request to the shop."""
        self._pipe.send("meter")
        meter = self._hear(_STOP_SECONDS)
        if not isinstance(meter, Meter):
            raise ContenderError(f"{self.sessions.title} sent {meter!r} instead of its counts")
        return meter

    def stop(self) -> None:
        """Stop the process: it ends when its pipe closes; if not, it is killed."""
        self._pipe.close()
        self._process.join(_STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _hear(self, seconds: float) -> object:
        try:
            if self._pipe.poll(seconds):
                return self._pipe.recv()
        except (EOFError, OSError):
            pass
        raise ContenderError(f"the {self.sessions.title} shop did not respond; its own message is above")


def _serve(sessions: Sessions, store: Store, pipe: Connection) -> None:
    """Serve the shop on a free port until the pipe closes: what the process of a contender does."""
    from waitress import create_server  # type: ignore[import-untyped]  # ships no types; not installed where the tests run

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent closes the pipe
    counter = SqlCounter().install()
    app = create_app(store, sessions)
    if store.is_redis:
        count_by_connection(app.config["SESSION_REDIS"], counter)
    server = create_server(with_records(app, counter), host="127.0.0.1", port=0, threads=THREADS)
    threading.Thread(target=server.run, daemon=True).start()
    pipe.send(server.effective_port)
    try:
        while pipe.recv():
            pipe.send(Meter(counter.counts(), time.process_time()))
    except (EOFError, OSError):
        pass
    os._exit(0)  # threads of the server may still wait for a browser that has disconnected
