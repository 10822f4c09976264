"""The direct path to Redis, interrupted at each of its lines: by a signal's exception, or by another thread."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lazysession.backend import Outcome
from lazysession.backends.redis import RedisBackend, direct
from lazysession.backends.redis.scripts import DIGESTS

ANN, BOB = b"\x81\xa4name\xa3ann", b"\x81\xa4name\xa3bob"

#: What a request does with Ann's session, and whether the result is right.
OPERATIONS: dict[str, tuple[Callable[[RedisBackend], Any], Callable[[Any], bool]]] = {
    "read": (lambda backend: backend.read("session:ann"), lambda record: record.payload == ANN),
    "refresh": (lambda backend: backend.read_and_touch("session:ann", 100, 50), lambda record: record.payload == ANN),
    "replace": (
        lambda backend: backend.replace("session:ann", b"new", 100, ANN),
        lambda result: result.outcome is Outcome.STORED,
    ),
    "create": (lambda backend: backend.create("session:new", b"new", 100), bool),
    "delete": (lambda backend: backend.delete("session:ann"), lambda result: result.current == ANN),
}


class Stopped(BaseException):
    """Is no Exception, as KeyboardInterrupt."""


class OutOfTime(Exception):
    """An app's own, which a signal raises in a request that takes too long."""


def stop(_: redis.Redis) -> None:
    """Raise what an app does not catch."""
    raise Stopped


def run_out_of_time(_: redis.Redis) -> None:
    """Raise what an app may catch."""
    raise OutOfTime


def time_out(_: redis.Redis) -> None:
    """Raise what the client repeats after."""
    raise redis.TimeoutError


def reset(client: redis.Redis) -> None:
    """Forget the pool's connections, as another thread of the app may."""
    client.connection_pool.reset()


@contextmanager
def acting_at(number: int, act: Callable[[], None]) -> Generator[list[int]]:
    """Do something before the line of that number is run, counted over all calls; the list has it if there is one."""
    before, lines, acted = sys.gettrace(), iter(range(1, number + 1)), list[int]()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != direct.__file__:
            return None
        # Python reports these lines where a lock is held that no block gives back yet; it handles no signals there.
        in_with = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(("with ", "try:"))
        if event == "line" and not in_with and next(lines) == number:
            acted.append(frame.f_lineno)
            sys.settrace(None)
            act()
        return trace

    sys.settrace(trace)
    try:
        yield acted
    finally:
        sys.settrace(before)


@pytest.fixture
def make(redis_url: str) -> Iterator[Callable[[], RedisBackend]]:
    """A function that makes a backend with an idle connection, and sessions of Ann and Bob."""
    clients: list[redis.Redis] = []

    def backend() -> RedisBackend:
        client = redis.Redis.from_url(redis_url, retry=Retry(NoBackoff(), 1))
        clients.append(client)
        for script in DIGESTS:
            client.script_load(script)
        client.mset({"session:ann": ANN, "session:bob": BOB})
        client.delete("session:new")
        return RedisBackend(client)

    yield backend
    for client in clients:
        client.close()


def payload_of(backend: RedisBackend, key: str) -> bytes:
    """Return what is stored, as the backend reads it."""
    record = backend.read(key)
    assert record is not None
    return bytes(record.payload)


@pytest.mark.parametrize("act", [stop, run_out_of_time, time_out, reset])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_later_command_gets_the_answer(
    make: Callable[[], RedisBackend], operation: str, act: Callable[[redis.Redis], None]
) -> None:
    """Wherever it is interrupted, the connection is closed or left out: answers never shift."""
    operate, is_right = OPERATIONS[operation]
    number = 0
    for number in range(1, 1000):
        backend = make()
        client: Any = backend.client
        result: Any = None
        with acting_at(number, lambda: act(client)) as acted:  # noqa: B023 - it is called in this round
            try:
                result = operate(backend)
            except (Stopped, OutOfTime, redis.TimeoutError):
                assert act is not reset
            else:
                assert act is not reset or is_right(result), acted
        if not acted:
            break
        client.set("session:ann", ANN)
        for key, payload in (("session:bob", BOB), ("session:ann", ANN)) * 2:
            assert payload_of(backend, key) == payload, acted
            assert client.get(key) == payload, acted
        client.close()
    assert number > 20  # so many lines were there
