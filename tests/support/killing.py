"""A process that runs requests which kill it, each in a copy of its own, at one step after the other."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import cachelib
from flask import Flask, session

import lazysession
from lazysession import LazySession
from tests.support.processes import app_on, disconnect, hear, tell

#: The code that turns a verb into what the system is asked for.
CODE = (str(Path(lazysession.__file__).parent / "backends"), str(Path(cachelib.__file__).parent))
OLD, NEW = "o" * 1000, "n" * 30_000  # more than one packet or page, so that there are halves


class Steps:
    """Counts the steps of a request and ends the process, as ``kill -9`` does, at one of them.

    :param last: the step to die at.
    """

    def __init__(self, last: int) -> None:
        self._left = last
        self._lock = threading.Lock()
        self.counting = False

    def step(self) -> None:
        """Take a step; there is none after the last one."""
        with self._lock:
            if self.counting:
                self._left -= 1
                if self._left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)


def watch_verbs(backend: Any, steps: Steps) -> None:
    """Make two steps of each verb, one before and one after it."""

    def watched(verb: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            steps.step()
            answer = verb(*arguments, **options)
            steps.step()
            return answer

        return run

    for name in ("read", "create", "replace", "delete"):
        setattr(backend, name, watched(getattr(backend, name)))


class Lines:
    """Each line of an adapter, and of cachelib below it, is a step."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        if event == "line":
            self._steps.step()
        return self


class Wire:
    """Carries bytes to a server; before, amid and after each command, when its answer is not yet read, is a step.

    :param url: the server's; ``self.url`` is that of the wire.
    """

    def __init__(self, url: str, steps: Steps) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self._far, self._steps = parts.port, steps
        self._listening = socket.create_server(("127.0.0.1", 0))
        address = parts.netloc.replace(str(parts.port), str(self._listening.getsockname()[1]))
        self.url = urlunsplit(parts._replace(netloc=address))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near = self._listening.accept()[0]
            far = socket.create_connection(("127.0.0.1", self._far))
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = threading.Event()
            threading.Thread(target=self._ask, args=(near, far, asked), daemon=True).start()
            threading.Thread(target=self._answer, args=(far, near, asked), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket, asked: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(2**20):
                half = 0
                # later pieces of a long command are no commands, and PyMongo's heartbeats come when they come
                if not asked.is_set() and b"hello" not in data and b"ismaster" not in data:
                    asked.set()
                    self._steps.step()
                    half = min(len(data) // 2, 100)  # in HTTP's head: dynalite ends when a body breaks off
                    far.sendall(data[:half])
                    self._steps.step()
                far.sendall(data[half:])

    def _answer(self, far: socket.socket, near: socket.socket, asked: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(2**20):
                if asked.is_set():
                    asked.clear()
                    self._steps.step()
                near.sendall(data)


def watch_sqlite(steps: Steps) -> None:
    """Make each instruction of SQLite's machine a step, those that write to the file among them."""
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    def connect(connection: Any, _record: object) -> None:
        connection.set_progress_handler(steps.step, 1)

    event.listen(Pool, "connect", connect)


def add_pages(app: Flask) -> None:
    """Add the requests that are killed, and the one that begins the session they are about."""
    regenerate: Callable[[Any], None] = app.session_interface.regenerate  # type: ignore[attr-defined]

    def begin() -> None:
        session.update(value=OLD)

    def replace() -> None:
        session["value"] = NEW

    def rotate() -> None:
        session["value"] = NEW
        regenerate(session)

    def delete() -> None:
        session.get("value")
        session.clear()

    def clear() -> None:
        session.clear()

    def start_over() -> None:
        session.clear()
        regenerate(session)
        session["value"] = NEW

    def answer(change: Callable[[], None]) -> Callable[[], str]:
        def view() -> str:
            change()
            return ""

        return view

    for change in (begin, replace, rotate, delete, clear, start_over):
        app.add_url_rule(f"/{change.__name__}", change.__name__, answer(change))
    app.add_url_rule("/create", "create", answer(replace))


def sid_of(number: int, what: str) -> str:
    """Return the id that the session of a run has, so that the test can look at it afterwards."""
    return f"{what}-{number}-".ljust(43, "x")


def request(app: Flask, path: str, number: int, steps: Steps, *, lines: bool) -> None:
    """Begin a session where one is needed, and make the request that dies."""
    old, new = sid_of(number, "old"), sid_of(number, "new")
    client, ids = app.test_client(use_cookies=False), app.session_interface.handler.ids  # type: ignore[attr-defined]
    ids.new = lambda: old
    assert client.get("/look" if path == "create" else "/begin").status_code == 200
    ids.new = lambda: new
    steps.counting = True
    sys.settrace(Lines(steps) if lines else None)
    response = client.get(f"/{path}", headers={} if path == "create" else {"Cookie": f"session={old}"})
    sys.settrace(None)
    steps.counting = False
    assert response.status_code == 200


def run(app: Flask, job: dict[str, Any], path: str, number: int, last: int) -> None:
    """Make one run, in a process that was copied for it."""
    steps = Steps(last)
    if job["how"] == "wire":
        with app_on(job["store"], Wire(job["address"], steps).url, LazySession) as wired:
            add_pages(wired)
            request(wired, path, number, steps, lines=False)
            return
    if job["how"] == "instructions":
        watch_sqlite(steps)
    elif job["how"] == "verbs":
        watch_verbs(app.session_interface.handler.backend, steps)  # type: ignore[attr-defined]
    request(app, path, number, steps, lines=job["how"] == "lines")


def copied(run: Callable[[], None]) -> bool:
    """Run something in a copy of this process, and return whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the request was not killed and failed")
    return os.WIFSIGNALED(status)


def main() -> None:
    """Serve one store: make the runs of each request, each dying some steps later, until one comes to its end."""
    store = hear()
    number = 0
    with app_on(store["store"], store["address"], LazySession) as app:
        add_pages(app)
        disconnect(app)
        while job := hear():
            last, numbers = 1, [number := number + 1]
            while copied(lambda: run(app, {**store, **job}, job["path"], number, last)):  # noqa: B023
                last += job["every"]
                numbers.append(number := number + 1)
            tell(numbers)
