"""Requests that overlap without threads, and a backend that fails on request."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any, NamedTuple

from flask import Flask, Response, g

from lazysession.backend import Outcome
from tests.support.records import Work


class StoreDown(Exception):
    """What the client of a store raises that cannot be reached."""


class Fault(NamedTuple):
    """One failure: of the ``number``-th call of its kind, before it reached the store, or (``done``) of its answer."""

    number: int
    done: bool
    read: bool = False


class Faults:
    """Wraps the verbs of a backend: counts the writes that took effect, and fails a call where that is wanted."""

    def __init__(self, backend: Any) -> None:
        self.wanted: Fault | None = None
        self.hit = False
        self.effects = 0
        for verb in ("read", "read_and_touch", "create", "replace", "delete"):
            if hasattr(backend, verb):
                setattr(backend, verb, self._standing_before(verb, getattr(backend, verb)))

    def expect(self, fault: Fault | None) -> None:
        """Start counting, and fail as wanted."""
        self.wanted, self.hit, self.effects = fault, False, 0

    def _standing_before(self, verb: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            fault = self.wanted
            fails = fault is not None and self._is_next(fault, verb)
            if fails and fault is not None and not fault.done:
                raise StoreDown
            answer = ask(*arguments, **options)
            if not _reads(verb):
                unconditional = verb == "delete" and arguments[1] is None
                self.effects += unconditional or answer is True or getattr(answer, "outcome", None) is Outcome.STORED
            if fails:
                raise StoreDown
            return answer

        return call

    def _is_next(self, fault: Fault, verb: str) -> bool:
        if fault.read is not _reads(verb):
            return False
        self.wanted = fault._replace(number=fault.number - 1) if fault.number > 1 else None
        self.hit = self.hit or fault.number == 1
        return fault.number == 1


def _reads(verb: str) -> bool:
    return verb.startswith("read")


class OpenRequest:
    """A request that has begun and not ended, and what the model knows of it."""

    def __init__(self, app: Flask, client: str, cookie: str | None) -> None:
        self.client, self.work = client, Work(cookie)
        self._context = contextvars.copy_context()
        self._app = app
        self._flask = app.test_request_context("/", headers={"Cookie": f"session={cookie}"} if cookie else {})
        self._context.run(self._flask.push)
        self.session: Any = self._flask.session
        self.ended = False
        self.failed: Exception | None = None

    def run(self, step: Callable[[Any], Any]) -> Any:
        """Take one step of the view; the first that fails ends it."""
        try:
            return self._context.run(step, self.session)
        except Exception as error:
            self.failed = error
            raise

    def finish(self) -> Response:
        """Make Flask build the response, as it does for any view."""

        def dispatch() -> Response:
            g.failed = self.failed
            try:
                return self._app.full_dispatch_request()
            except Exception as error:
                return self._app.handle_exception(error)

        response = self._context.run(dispatch)
        self.abandon()
        return response

    def abandon(self) -> None:
        """Leave the contexts."""
        if not self.ended:
            self.ended = True
            self._context.run(self._flask.pop, None)


def view() -> str:
    """Everything has happened before: what is left is to fail."""
    if g.failed is not None:
        raise g.failed
    return ""


def parse_cookie(header: str) -> dict[str, str]:
    """Return the parts of a Set-Cookie header by their names."""
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return {name: value for name, _, value in pairs}
