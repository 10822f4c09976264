"""The contract suite: pytest classes that prove a backend, yours or ours.

An adapter's test file subclasses :class:`Contract` and a mixin for each thing that its store can do, so that the class
line says what the store is good for::

    class TestMyStore(Contract, TellsRemaining, KeepsRemaining, ComparesAtomically):
        @pytest.fixture
        def held(self) -> Held:
            return Held(MyBackend(...), pass_time=...)

Needs pytest. Where a store deviates, override the test and mark it ``xfail(strict=True, reason=...)``: the deviation is
then written down, and its end is noticed.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from .backend import Backend, Outcome, Purges, Record, Renew, Replaced

#: A key of the length and shape that Flask-Session's defaults make.
KEY = "session:" + "k" * 43
#: Asks what is left and is never due.
ASK = Renew(10**6, 10**6 - 1)
#: Refreshes to 1,000 seconds at every read.
ALWAYS = Renew(1000, 0)


@dataclass
class Held:
    """A backend under test, empty, and what the contract has no verb for.

    :param backend: the backend.
    :param pass_time: make the store believe that so many seconds have passed; no test sleeps.
    :param connect: a function that can be pickled and makes a backend on the same data in another process; None where
        the data are in this process only.
    """

    backend: Backend
    pass_time: Callable[[float], None]
    connect: Callable[[], Backend] | None = None

    def read(self, key: str = KEY, renew: Renew | None = None) -> Record:
        """Read what has to be there."""
        record = self.backend.read(key, renew)
        assert record is not None, "the record is gone"
        return record

    def remaining(self) -> float:
        """Answer how many seconds the record has left."""
        remaining = self.read(renew=ASK).remaining
        assert remaining is not None, "the backend does not tell what is left"
        return remaining


class Contract:
    """What every backend does. Override :attr:`largest_payload` and :attr:`longest_key` to the store's limits."""

    #: The largest payload that the store takes, in bytes; None where only memory is the limit.
    largest_payload: int | None = None
    #: The longest key that the store takes, in bytes.
    longest_key: int = 250

    @pytest.fixture
    def held(self) -> Held:
        """Answer the backend under test: each adapter's tests have their own."""
        raise NotImplementedError

    @pytest.mark.parametrize("payload", [b"", b"\x00", bytes(range(256)), b"a" * 2**20], ids=["0", "1", "256", "1 MiB"])
    def test_payloads_come_back_as_they_were(self, held: Held, payload: bytes) -> None:
        """Bytes in, the same bytes out."""
        if self.largest_payload is not None and len(payload) > self.largest_payload:
            pytest.skip(f"the store takes {self.largest_payload} bytes")
        assert held.backend.create(KEY, payload, 1000)
        assert held.read().payload == payload
        assert held.read(renew=ALWAYS).payload == payload
        assert held.backend.replace(KEY, payload[:-1] + b"!", 1000, seen=payload).outcome is Outcome.STORED
        assert held.read().payload == payload[:-1] + b"!"

    def test_a_payload_over_the_limit_is_an_error(self, held: Held) -> None:
        """What the store does not take raises, and leaves what was there."""
        if self.largest_payload is None:
            pytest.skip("the store has no limit")
        too_large = b"a" * (self.largest_payload + 1)
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the client raises
            held.backend.create(KEY, too_large, 1000)
        assert held.backend.read(KEY, None) is None
        held.backend.create(KEY, b"1", 1000)
        with pytest.raises(Exception):  # noqa: B017, PT011
            held.backend.replace(KEY, too_large, 1000, seen=b"1")
        assert held.read().payload == b"1"

    def test_keys_up_to_the_limit(self, held: Held) -> None:
        """The longest key that the core ever sends is a key as any other."""
        key = "session:" + "k" * (self.longest_key - 8)
        assert held.backend.create(key, b"1", 1000)
        assert held.read(key).payload == b"1"
        assert held.backend.replace(key, b"2", 1000, seen=b"1").outcome is Outcome.STORED
        held.backend.delete(key)
        assert held.backend.read(key, None) is None

    def test_keys_do_not_touch_each_other(self, held: Held) -> None:
        """Keys that differ in their last letter, in case, or by a prefix are different keys."""
        keys = [KEY, KEY[:-1] + "K", KEY[:-1], "other:" + "k" * 43]
        for number, key in enumerate(keys):
            assert held.backend.create(key, b"%d" % number, 1000)
        held.backend.delete(keys.pop(0))
        assert [held.read(key).payload for key in keys] == [b"1", b"2", b"3"]

    def test_absent(self, held: Held) -> None:
        """What is not there is an outcome, whatever is asked."""
        assert held.backend.read(KEY, None) is None
        assert held.backend.read(KEY, ALWAYS) is None
        assert held.backend.replace(KEY, b"new", 1000, seen=b"old") == Replaced(Outcome.GONE)
        assert held.backend.replace(KEY, b"new", None, seen=b"old") == Replaced(Outcome.GONE)
        held.backend.delete(KEY)
        assert held.backend.read(KEY, None) is None

    def test_expired(self, held: Held) -> None:
        """What has expired is absent: not read, not refreshed, not replaced, and its key is free or stays taken."""
        held.backend.create(KEY, b"old", 1000)
        held.pass_time(1002)
        assert held.backend.read(KEY, ALWAYS) is None
        assert held.backend.replace(KEY, b"new", 1000, seen=b"old").outcome is Outcome.GONE
        assert held.backend.read(KEY, None) is None

    def test_create_takes_no_key_twice(self, held: Held) -> None:
        """A key that is taken stays as it is."""
        assert held.backend.create(KEY, b"first", 1000)
        assert not held.backend.create(KEY, b"second", 2000)
        assert held.read().payload == b"first"

    def test_replace_names_what_it_saw(self, held: Held) -> None:
        """Another payload than the one seen is CHANGED, and stays; the payload found is the true one, if told."""
        held.backend.create(KEY, b"theirs", 1000)
        replaced = held.backend.replace(KEY, b"mine", 1000, seen=b"other")
        assert replaced.outcome is Outcome.CHANGED
        assert replaced.found in (b"theirs", None)
        assert held.read().payload == b"theirs"

    def test_replace_by_the_same(self, held: Held) -> None:
        """Replacing a payload by itself is STORED, as some stores count only real changes."""
        held.backend.create(KEY, b"same", 1000)
        assert held.backend.replace(KEY, b"same", 1000, seen=b"same").outcome is Outcome.STORED
        assert held.backend.replace(KEY, b"same", None, seen=b"same").outcome is Outcome.STORED

    def test_delete(self, held: Held) -> None:
        """Deleted is gone: no late replace and no late refresh brings it back, and its key is free."""
        held.backend.create(KEY, b"1", 1000)
        held.backend.delete(KEY)
        assert held.backend.replace(KEY, b"2", 1000, seen=b"1").outcome is Outcome.GONE
        assert held.backend.read(KEY, ALWAYS) is None
        assert held.backend.create(KEY, b"3", 1000)

    def test_delete_names_what_it_saw(self, held: Held) -> None:
        """With a payload seen, only that payload is deleted; without, whatever is there."""
        assert held.backend.delete(KEY, b"1") == Replaced(Outcome.GONE)
        assert held.backend.delete(KEY) == Replaced(Outcome.STORED)
        held.backend.create(KEY, b"theirs", 1000)
        deleted = held.backend.delete(KEY, b"other")
        assert deleted.outcome is Outcome.CHANGED
        assert deleted.found in (b"theirs", None)
        assert held.read().payload == b"theirs"
        assert held.backend.delete(KEY, b"theirs").outcome is Outcome.STORED
        assert held.backend.read(KEY, None) is None

    def test_delete_tells_what_it_removed(self, held: Held) -> None:
        """Without a payload seen it answers what was there: it may be a note about where the session went."""
        held.backend.create(KEY, b"theirs", 1000)
        assert held.backend.delete(KEY) == Replaced(Outcome.STORED, b"theirs")
        assert held.backend.read(KEY, None) is None

    def test_a_refresh_keeps_alive(self, held: Held) -> None:
        """A session that is refreshed outlives its first lifetime, and ends one lifetime after its last refresh."""
        held.backend.create(KEY, b"1", 1000)
        for _ in range(3):
            held.pass_time(600)
            record = held.read(renew=ALWAYS)
            assert (record.payload, record.refreshed) == (b"1", True)
        held.pass_time(1002)
        assert held.backend.read(KEY, None) is None

    def test_no_refresh_unless_asked(self, held: Held) -> None:
        """Reads without ``renew`` keep nothing alive."""
        held.backend.create(KEY, b"1", 1000)
        held.pass_time(600)
        assert not held.read().refreshed
        held.pass_time(402)
        assert held.backend.read(KEY, None) is None


class TellsRemaining:
    """The store tells what is left, so refreshes come exactly when due, whichever process made the last one."""

    @pytest.mark.parametrize(
        ("passed", "renew", "refreshed"),
        [
            (0, Renew(1000, 100), False),
            (90, Renew(1000, 100), False),
            (102, Renew(1000, 100), True),
            (0, Renew(500, 100), True),  # the lifetime was shortened: no session outlives it
        ],
    )
    def test_refresh_when_due(self, held: Held, passed: float, renew: Renew, refreshed: bool) -> None:
        """A read moves the expiry when the throttle has passed since the last refresh."""
        held.backend.create(KEY, b"payload", 1000)
        held.pass_time(passed)
        assert held.read(renew=renew).refreshed is refreshed
        if refreshed:
            assert renew.lifetime - 5 < held.remaining() <= renew.lifetime
        else:
            assert 1000 - passed - 5 < held.remaining() <= 1000 - passed

    def test_remaining_is_what_was_left_before(self, held: Held) -> None:
        """A read tells what was left when it came, also when it refreshes."""
        held.backend.create(KEY, b"1", 1000)
        held.pass_time(600)
        remaining = held.read(renew=ALWAYS).remaining
        assert remaining is not None
        assert 395 < remaining <= 400

    def test_replace_begins_a_new_life(self, held: Held) -> None:
        """A replace with a lifetime lives that long from now."""
        held.backend.create(KEY, b"1", 1000)
        held.pass_time(600)
        held.backend.replace(KEY, b"2", 1000, seen=b"1")
        assert 995 < held.remaining() <= 1000


class KeepsRemaining:
    """A replace without a lifetime keeps what is left: a passive request may write and does not keep alive."""

    def test_replace_keeps_the_old_life(self, held: Held) -> None:
        """The record ends when it would have ended."""
        held.backend.create(KEY, b"1", 1000)
        held.pass_time(600)
        assert held.backend.replace(KEY, b"2", None, seen=b"1").outcome is Outcome.STORED
        assert held.read().payload == b"2"
        held.pass_time(402)
        assert held.backend.read(KEY, None) is None


class ComparesAtomically:
    """Replaces, creates and deletes that run at once: proven on the real store, never on a fake."""

    turns = 20
    processes = 4

    def test_replaces_of_the_same(self, held: Held) -> None:
        """Of many replaces that saw the same payload, one is stored."""
        for turn in range(self.turns):
            key = f"{KEY}{turn}"
            held.backend.create(key, b"seen", 1000)
            works = [partial(held.backend.replace, key, b"%d" % number, 1000, b"seen") for number in range(4)]
            outcomes = [replaced.outcome for replaced in race(*works)]
            assert sorted(outcome.value for outcome in outcomes) == ["changed"] * 3 + ["stored"]
            assert held.read(key).payload == b"%d" % outcomes.index(Outcome.STORED)

    def test_creates_of_the_same(self, held: Held) -> None:
        """Of many creates, one is true."""
        for turn in range(self.turns):
            works = [partial(held.backend.create, f"{KEY}{turn}", b"%d" % number, 1000) for number in range(4)]
            assert sorted(race(*works)) == [False] * 3 + [True]

    def test_a_replace_never_revives(self, held: Held) -> None:
        """A delete that runs beside replaces and refreshing reads has the last word."""
        for turn in range(self.turns):
            key = f"{KEY}{turn}"
            held.backend.create(key, b"1", 1000)
            race(
                partial(held.backend.delete, key),
                partial(held.backend.replace, key, b"2", 1000, b"1"),
                partial(held.backend.replace, key, b"3", None, b"1"),
                partial(held.backend.read, key, ALWAYS),
            )
            assert held.backend.read(key, None) is None

    def test_a_delete_of_what_was_seen_loses_nothing(self, held: Held) -> None:
        """Of a replace and a delete that saw the same payload, one wins and the other is told."""
        for turn in range(self.turns):
            key = f"{KEY}{turn}"
            held.backend.create(key, b"1", 1000)
            replaced, deleted = race(
                partial(held.backend.replace, key, b"2", 1000, b"1"), partial(held.backend.delete, key, b"1")
            )
            record = held.backend.read(key, None)
            if record is None:
                assert (replaced.outcome, deleted.outcome) == (Outcome.GONE, Outcome.STORED)
            else:
                assert (replaced.outcome, deleted.outcome) == (Outcome.STORED, Outcome.CHANGED)
                assert record.payload == b"2"

    def test_many_processes_count_together(self, held: Held) -> None:
        """A counter that many processes raise by compare and replace loses no step."""
        if held.connect is None:
            pytest.skip("the data are in this process only")
        held.backend.create(KEY, b"0", 1000)
        with ProcessPoolExecutor(self.processes, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_raise_counter, [held.connect] * self.processes, [self.turns] * self.processes))
        assert held.read().payload == b"%d" % (self.processes * self.turns)


class SurvivesForks:
    """Workers that are forked from a process that has used the store do not share its connections."""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of processes with threads, from Python 3.12 on
    def test_forked_workers(self, held: Held) -> None:
        """Each worker reads and changes its own session, while the others and the parent do the same."""
        children = []
        for worker in range(4):
            held.backend.create(f"{KEY}{worker}", b"%d:0" % worker, 1000)  # the parent has connections
        for worker in range(3):
            child = os.fork()
            if child == 0:
                os._exit(0 if _use_own_session(held.backend, worker) else 1)
            children.append(child)
        assert _use_own_session(held.backend, 3)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def _use_own_session(backend: Backend, worker: int, turns: int = 30) -> bool:
    key = f"{KEY}{worker}"
    try:
        for turn in range(turns):
            record = backend.read(key, None)
            if record is None or record.payload != b"%d:%d" % (worker, turn):
                return False
            backend.replace(key, b"%d:%d" % (worker, turn + 1), 1000, record.payload)
    except Exception:  # in a child nobody would see it
        return False
    return True


def _raise_counter(connect: Callable[[], Backend], turns: int) -> None:
    backend = connect()
    for _ in range(turns):
        while True:
            record = backend.read(KEY, None)
            assert record is not None
            raised = b"%d" % (int(record.payload) + 1)
            if backend.replace(KEY, raised, 1000, record.payload).outcome is Outcome.STORED:
                break


class PurgesExpired:
    """The store keeps expired records, and the backend can remove them."""

    def test_purge(self, held: Held) -> None:
        """Purging deletes what has expired and nothing else, and counts it."""
        assert isinstance(held.backend, Purges)
        for number in range(5):
            held.backend.create(f"{KEY}{number}", b"", 100 if number < 3 else 1000)
        held.pass_time(500)
        told: list[tuple[int, int]] = []
        assert held.backend.purge(lambda done, total: told.append((done, total))) == 3
        assert told
        assert told[-1][0] == 3 <= told[-1][1]
        assert held.backend.purge() == 0
        assert held.backend.read(f"{KEY}4", None) is not None


def race(*works: Callable[[], Any]) -> list[Any]:
    """Run functions at once, each on a thread of its own; answer what they returned, or raise what one raised."""
    gate = threading.Barrier(len(works))
    answers: list[Any] = [None] * len(works)

    def run(number: int, work: Callable[[], Any]) -> None:
        gate.wait()
        try:
            answers[number] = work()
        except Exception as error:  # a thread has nobody to raise to
            answers[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
