"""Hostile cookies and hostile stored payloads, by the hundred thousand: none logs in, and nothing crashes."""

from __future__ import annotations

import gc
import pickle
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import suppress
from itertools import islice
from typing import Any

import pytest
from flask import Flask
from flask_session.base import ServerSideSession
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.serving import WSGIRequestHandler, make_server

from lazysession.flasksession import StoreInterface
from lazysession.ids import SessionIds
from lazysession.records.expiry import LocalExpiries
from tests.support.hostile.cookies import Cookies
from tests.support.hostile.payloads import EXECUTED, LURE, Payloads, beginning_of, is_session
from tests.support.hostile.target import PAGES, Target
from tests.support.stores import LIVE, FakeRedisStore, Store
from tests.support.stores.cachelib import MemoryStore

pytestmark = pytest.mark.filterwarnings("ignore:The 'use_signer' option is deprecated:DeprecationWarning")

SEED = 20261122
KNOWN = [LIVE, "Known-" + "k" * 37, "x_9" * 14 + "Z"]
SOUND = b"\x82\xaa_permanent\xc3\xa1n\x01"
MEMORY = 600  # blocks that a sweep may leave behind, of any number of requests
ABSOLUTE = {"LAZYSESSION_ABSOLUTE_LIFETIME": 10**9}

MakeTarget = Callable[..., Target]


@pytest.fixture
def share(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """Return how many requests to send: all of them where the servers are required, a tenth elsewhere."""
    whole = request.config.getoption("--require-servers")
    return lambda number: number if whole else number // 10


@pytest.fixture
def make_target() -> Generator[MakeTarget]:
    """A function that makes an app under attack, whose listeners are removed after the test."""
    made: list[Target] = []

    def make(*arguments: Any, **settings: Any) -> Target:
        made.append(Target(*arguments, **settings))
        return made[-1]

    yield make
    for target in made:
        target.close()


@pytest.fixture(autouse=True)
def no_code_was_run() -> Generator[None]:
    """No test of this file lets stored bytes run code."""
    EXECUTED.clear()
    yield
    assert not EXECUTED


def secrets_in(target: Target, header: str) -> list[str]:
    """Return what of a header must not be logged: every value that is too long to be in the log by accident."""
    return [value[:32] for value in target.values(header) if len(value) >= 8]


class Sweep:
    """Sends request after request, keeps the known sessions known, and returns what was counted.

    :param store: the store of the target.
    """

    def __init__(self, target: Target, store: Store) -> None:
        self.target = target
        self.store = store
        self.blocks: list[int] = []
        self.known = frozenset(KNOWN)
        self.random = random.Random(SEED)
        self.restore()

    def restore(self) -> None:
        """Store the known sessions again; in a store in memory nothing else is kept."""
        if isinstance(self.store, FakeRedisStore):
            self.store.client.flushall()
            self.store.client.names.clear()
        if isinstance(self.store, MemoryStore):
            self.store.cache.clear()  # SimpleCache lets go of live sessions when there are many
        for sid in KNOWN:
            self.put(sid, SOUND)

    def put(self, sid: str, payload: bytes) -> None:
        """Store a payload in the place of whatever is there."""
        self.store.remove(self.target.app, f"session:{sid}")
        self.store.put(self.target.app, f"session:{sid}", payload)

    def cookies(self, cookies: Cookies, number: int) -> None:
        """Send hostile cookies; one in fifty is sound, as a proof that the others could have logged in."""
        sound = "sound", cookies.header_of(LIVE)
        for at, sent in enumerate(islice(cookies, number)):
            if at % 50 == 0:
                self.restore()
            case, header = sound if at % 50 == 0 else sent
            self.ask(case, header, self.known, secrets_in(self.target, header))
            if at == number // 5:
                self.record_memory()
            if at % 1000 == 999 or any(key.removeprefix("session:") in self.known for _, key in self.target.calls):
                self.restore()

    def payloads(self, payloads: Payloads, cookies: Cookies, number: int) -> None:
        """Store hostile payloads, each under a known id, and ask for them."""
        header = cookies.header_of(LIVE)
        for at, (case, payload) in enumerate(islice(payloads, number)):
            try:
                if case == "bomb" and self.store.session_type == "cachelib":
                    raise RecursionError  # who can put a pickle there runs code anyway, and needs no bomb
                self.put(LIVE, payload)
            except (ValueError, RecursionError):  # a store of objects, which takes what it can pickle
                self.target.counts["not to be stored"] += 1
                continue
            known = self.known if is_session(payload) else self.known - {LIVE}
            self.ask(case, header, known, [LURE, LIVE, *beginning_of(payload)])
            if at == number // 5:
                self.record_memory()
            if at % 100 == 99:
                self.restore()

    def record_memory(self) -> None:
        """Record the memory in use after a garbage collection, but for local expiries, which are bounded."""
        self.restore()
        records: Any = self.target.app.session_interface.handler.records  # type: ignore[attr-defined]
        records.expiries = LocalExpiries(time.time)
        gc.collect()
        self.blocks.append(sys.getallocatedblocks())

    def ask(self, case: str, header: str, known: frozenset[str], secrets: list[str]) -> None:
        """Request some page; for a sound cookie, one that must show it."""
        page, counts = "read" if case == "sound" else self.random.choice([*PAGES]), self.target.counts
        self.target.ask(page, header, case, known, secrets)
        if case == "sound":
            counts["sound"] += 1
            counts["sound and opened"] += self.target.opened == LIVE

    def settle(self, **more: object) -> int:
        """Print what was counted, check the counts that must stay 0, and return how much memory was taken."""
        target, counts = self.target, self.target.counts
        self.record_memory()
        growth = self.blocks[-1] - self.blocks[0]
        executed, leaks, records = len(EXECUTED), len(target.ears.leaks), target.ears.records
        more.update(seed=SEED, executed=executed, leaks=leaks, records=records, growth=growth)
        print(target.report(**more))  # noqa: T201
        found = "\n".join(f"{number} x {what}" for what, number in target.problems.most_common(40))
        assert not found, found
        assert not leaks, set(target.ears.leaks)
        assert not executed
        assert counts["sound"] == counts["sound and opened"] > 0
        return growth


FORMS = [(False, "msgpack"), (True, "msgpack"), (False, "json"), (True, "json")]


@pytest.mark.parametrize(("signed", "format"), FORMS)
def test_cookies(make_target: MakeTarget, share: Callable[[int], int], signed: bool, format: str) -> None:
    """100,000 hostile cookies, over all forms: no error, no store call for what is no id, and no id adopted."""
    store = FakeRedisStore()
    target = make_target(store, signed=signed, SESSION_SERIALIZATION_FORMAT=format)
    sweep = Sweep(target, store)
    sweep.cookies(Cookies(SEED, KNOWN, signed=signed), share(100_000) // len(FORMS))
    assert sweep.settle(signed=signed, format=format) < MEMORY


@pytest.mark.parametrize(("signed", "format"), FORMS)
@pytest.mark.parametrize("lifetimes", [{}, ABSOLUTE], ids=["idle", "absolute"])
def test_payloads(
    make_target: MakeTarget, share: Callable[[int], int], signed: bool, format: str, lifetimes: dict[str, Any]
) -> None:
    """100,000 damaged and foreign payloads, over all forms: no error, no code run, and nothing of them logged."""
    store = FakeRedisStore()
    target = make_target(store, signed=signed, SESSION_SERIALIZATION_FORMAT=format, **lifetimes)
    sweep = Sweep(target, store)
    cookies = Cookies(SEED, KNOWN, signed=signed)
    sweep.payloads(Payloads(SEED, KNOWN, time.time()), cookies, share(100_000) // len(FORMS) // 2)
    assert sweep.settle(signed=signed, format=format, **lifetimes) < MEMORY


def test_cookies_on_every_store(make_target: MakeTarget, share: Callable[[int], int], any_store: Store) -> None:
    """The same on every store, whose own rules for keys differ: length, case, blanks, control characters."""
    target = make_target(any_store)
    sweep = Sweep(target, any_store)
    cookies = Cookies(SEED, KNOWN, signed=False)
    sweep.cookies(cookies, share(2000))
    malformed = [header for _, header in islice(cookies, share(2000)) if target.id_in(header) is None]
    with any_store.counted() as trips:
        for header in malformed:
            target.ask("read", header, "counted by the store", sweep.known, [])
    print(f"{len(malformed)} malformed, counted by the store: {len(trips)} round trips")  # noqa: T201
    assert malformed
    assert not trips
    sweep.settle(store=any_store.session_type)


def test_payloads_on_every_store(make_target: MakeTarget, share: Callable[[int], int], any_store: Store) -> None:
    """Damaged payloads on every store, as far as it holds them."""
    target = make_target(any_store)
    sweep = Sweep(target, any_store)
    payloads = Payloads(SEED, KNOWN, time.time())
    sweep.payloads(payloads, Cookies(SEED, KNOWN, signed=False), share(2000))
    sweep.settle(store=any_store.session_type)


def test_over_a_real_connection(make_target: MakeTarget, share: Callable[[int], int]) -> None:
    """Broken Cookie headers on the wire, to a real server: its own refusal at most, and nothing in the app."""
    store = FakeRedisStore()
    target = make_target(store)
    Sweep(target, store)
    statuses: Counter[str] = Counter()
    server = make_server("127.0.0.1", 0, target.app, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        for at, (_, header) in enumerate(islice(Cookies(SEED, KNOWN, signed=False), share(5000))):
            page = [*PAGES][at % len(PAGES)]
            request = b"GET /%s HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n" % (page.encode(), header.encode("latin-1"))
            statuses[answer_to(server.port, request + b"Cookie: session=second\r\n\r\n")] += 1
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    print(f"seed: {SEED}, statuses: {dict(statuses)}, in the app: {dict(target.counts)}")  # noqa: T201
    assert statuses.keys() <= {"200", "400", "431"}
    assert statuses["200"] > sum(statuses.values()) / 2
    assert not target.counts


class Quiet(WSGIRequestHandler):
    """Logs no request."""

    def log(self, type: str, message: str, *arguments: object) -> None:
        """Be silent."""


def answer_to(port: int, request: bytes) -> str:
    """Send a request as it is; return the status, or None where there was no answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, suppress(ConnectionError):
        connection.sendall(request)
        with suppress(OSError):  # refused and closed already
            connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
        return received[9:12].decode() if received.startswith(b"HTTP/1.") else ""
    return ""


@settings(deadline=None, max_examples=2000)
@given(st.text() | st.binary().map(lambda value: value.decode("latin-1")) | st.from_regex(r"[\w-]{1,140}\s?"))
def test_the_shape_of_an_id(value: str) -> None:
    """What passes is of the alphabet of ids and of a bounded length, to the very end: no key can hold anything else."""
    app = Flask("shop", static_folder=None)
    codec: Any = None
    backend: Any = None
    ids = SessionIds(StoreInterface(app, backend, codec, ServerSideSession))
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert ids.may_be(value) == (0 < len(value) <= 128 and set(value) <= allowed)


def test_the_traps_are_live() -> None:
    """The pickles among the payloads do run code when they are loaded; without this the other tests prove nothing."""
    pickles = [payload for case, payload in islice(Payloads(SEED, KNOWN, 0), 2000) if case == "pickled"]
    for payload in pickles:
        pickle.loads(payload)
    print(f"{len(pickles)} pickles, {len(EXECUTED)} ran code")  # noqa: T201
    assert {"call", "exec", "value", "eval"} == set(EXECUTED)
    EXECUTED.clear()
