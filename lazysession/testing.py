"""The contract suite: pytest classes that test any backend.

An adapter's test file subclasses :class:`Contract` and a mixin for each thing that its store can do, so that the bases
of the class list what the store can do::

    class TestMyStore(Contract, TellsTtl, KeepsTtl, ComparesAtomically):
        @pytest.fixture
        def held(self) -> Held:
            return Held(MyBackend(...), pass_time=...)

Needs pytest. Where a store deviates, override the test and mark it ``xfail(strict=True, reason=...)``: the test then
fails once the store no longer deviates.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from .backend import Backend, Outcome, Record, SupportsPurge, SupportsReadAndTouch, TouchFailed, WriteResult

#: A key of the length and shape that Flask-Session's defaults make.
KEY = "session:" + "k" * 43


@dataclass
class Held:
    """An empty backend under test, with what the tests need besides the five methods.

    :param backend: the backend.
    :param pass_time: make so many seconds pass for the store; no test sleeps.
    :param connect: a function that can be pickled and makes a backend on the same data in another process; None where
        the data are in this process only.
    """

    backend: Backend
    pass_time: Callable[[float], None]
    connect: Callable[[], Backend] | None = None

    def read(self, key: str = KEY) -> Record:
        """Read what has to be there."""
        record = self.backend.read(key)
        assert record is not None, "read() returned None for a record that is stored and has not expired."
        return record

    def read_and_touch(self, ttl: float | None = 1000, unless_more_than: float = 1000) -> Record:
        """Read what has to be there, and move its expiry where that is due."""
        assert isinstance(self.backend, SupportsReadAndTouch), (
            "The backend has no method read_and_touch(key, ttl, unless_more_than). Add it, or leave out "
            "ReadsAndTouches."
        )
        record = self.backend.read_and_touch(KEY, ttl, unless_more_than)
        assert record is not None, "read_and_touch() returned None for a record that is stored and has not expired."
        return record

    def ttl(self) -> float:
        """Return how many seconds the record has left."""
        record = self.read()
        if record.ttl is None and isinstance(self.backend, SupportsReadAndTouch):
            record = self.read_and_touch(None)
        assert record.ttl is not None, (
            "read() and read_and_touch(key, None, 0) returned a record whose ttl is None. Return the seconds left, or "
            "leave out TellsTtl."
        )
        return record.ttl

    def create(self, payload: bytes, key: str = KEY, ttl: float = 1000) -> None:
        """Create what is not there yet."""
        created = self.backend.create(key, payload, ttl)
        assert created, f"create() returned {created!r} for a key that is free. Store the record; return True."

    def touch(self, ttl: float = 1000, expected: bytes | None = None) -> None:
        """Move the expiry of what has to be there."""
        touched = self.backend.touch(KEY, ttl, expected)
        assert touched, (
            f"touch(key, {ttl}, {shown(expected)}) returned {touched!r} for a record that is stored and has not "
            f"expired. Make it live {ttl} seconds from now, change no data, and return True."
        )

    def expect_payload(self, payload: bytes, when: str, key: str = KEY) -> None:
        """Check what is stored."""
        found = self.read(key).payload
        assert found == payload, f"{when}, read() returned {shown(found)} and not {shown(payload)}, which is stored."

    def expect_absent(self, when: str, key: str = KEY) -> None:
        """Check that nothing is stored, nor touched."""
        touched = self.backend.touch(key, 1000)
        assert not touched, f"{when}, touch() returned {touched!r}. Return False for what is absent or has expired."
        records = {"read": self.backend.read(key)}
        if isinstance(self.backend, SupportsReadAndTouch):
            records["read_and_touch"] = self.backend.read_and_touch(key, 1000, 1000)
        for verb, record in records.items():
            assert record is None, f"{when}, {verb}() returned a record. Return None for what is absent or has expired."


def shown(payload: object) -> str:
    """Return a payload as a message shows it: large ones are cut."""
    text = repr(payload)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


def expect_outcome(verb: str, result: WriteResult, outcome: Outcome, why: str) -> None:
    """Check how a replace or a delete ended."""
    got = getattr(result, "outcome", result)
    name = got.name if isinstance(got, Outcome) else repr(got)
    assert got is outcome, f"{verb} returned {name}, not {outcome.name}: {why}"


def expect_current(verb: str, result: WriteResult, *allowed: bytes | None) -> None:
    """Check what a replace or a delete says is stored, or was removed."""
    options = " or ".join(map(shown, allowed))
    assert result.current in allowed, f"{verb} returned current={shown(result.current)}, not {options}."


class Contract:
    """The tests of every backend. Override :attr:`largest_payload` and :attr:`longest_key` to the store's limits."""

    #: The largest payload that the store takes, in bytes; None where only memory is the limit.
    largest_payload: int | None = None
    #: The longest key that the store takes, in bytes.
    longest_key: int = 250

    @pytest.fixture
    def held(self) -> Held:
        """Return the backend under test: each adapter's tests have their own."""
        raise NotImplementedError

    @pytest.mark.parametrize("payload", [b"", b"\x00", bytes(range(256)), b"a" * 2**20], ids=["0", "1", "256", "1 MiB"])
    def test_payloads_come_back_as_they_were(self, held: Held, payload: bytes) -> None:
        """A payload is read exactly as it was stored."""
        if self.largest_payload is not None and len(payload) > self.largest_payload:
            pytest.skip(f"the store takes {self.largest_payload} bytes")
        held.create(payload)
        held.expect_payload(payload, "After create(key, payload, ttl)")
        held.touch(expected=payload)
        held.expect_payload(payload, "After touch()")
        replaced = held.backend.replace(KEY, payload[:-1] + b"!", 1000, expected=payload)
        expect_outcome("replace()", replaced, Outcome.STORED, "the stored payload is the same as expected.")
        held.expect_payload(payload[:-1] + b"!", "After replace()")

    def test_a_payload_over_the_limit_is_an_error(self, held: Held) -> None:
        """What the store does not take raises, and leaves what was there."""
        if self.largest_payload is None:
            pytest.skip("the store has no limit")
        too_large = b"a" * (self.largest_payload + 1)
        advice = f"raised nothing for {len(too_large)} bytes: correct largest_payload, or raise the client's own error."
        assert _raises(lambda: held.backend.create(KEY, too_large, 1000)), f"create() {advice}"
        held.expect_absent("After a create() that raised")
        held.create(b"1")
        assert _raises(lambda: held.backend.replace(KEY, too_large, 1000, expected=b"1")), f"replace() {advice}"
        held.expect_payload(b"1", "After a replace() that raised")

    def test_keys_up_to_the_limit(self, held: Held) -> None:
        """The longest key that the core ever sends is valid."""
        key = "session:" + "k" * (self.longest_key - 8)
        held.create(b"1", key)
        held.expect_payload(b"1", f"After create() with a key of {len(key)} bytes", key)
        replaced = held.backend.replace(key, b"2", 1000, expected=b"1")
        expect_outcome("replace()", replaced, Outcome.STORED, "a key as long as longest_key is valid.")
        held.backend.delete(key)
        held.expect_absent(f"After delete() with a key of {len(key)} bytes", key)

    def test_keys_do_not_touch_each_other(self, held: Held) -> None:
        """Keys that differ in their last letter, in case, or by a prefix are different keys."""
        keys = [KEY, KEY[:-1] + "K", KEY[:-1], "other:" + "k" * 43]
        for number, key in enumerate(keys):
            created = held.backend.create(key, b"%d" % number, 1000)
            assert created, (
                f"create() returned {created!r} for a key that is free: one that differs in its last letter, in case "
                "or in its prefix is another key, and no key may be cut."
            )
        held.backend.delete(keys.pop(0))
        payloads = [held.read(key).payload for key in keys]
        assert payloads == [b"1", b"2", b"3"], (
            f"read() returned {payloads} for three keys that differ in the last letter, in case or by the prefix, "
            "after delete() of a fourth. Each key has a record of its own."
        )

    def test_absent(self, held: Held) -> None:
        """An absent record is an outcome of every method, not an error."""
        held.expect_absent("With nothing stored")
        for ttl in (1000, None):
            replaced = held.backend.replace(KEY, b"new", ttl, expected=b"old")
            expect_outcome("replace()", replaced, Outcome.MISSING, "nothing is stored, and a replace never creates.")
            expect_current("replace()", replaced, None)
        held.backend.delete(KEY)
        held.expect_absent("After replace(), delete() and touch() of what is absent")

    def test_expired(self, held: Held) -> None:
        """What has expired is absent: not read, not touched, not replaced, and its key is free or stays taken."""
        held.create(b"old")
        held.pass_time(1002)
        held.expect_absent("When the record has expired")
        replaced = held.backend.replace(KEY, b"new", 1000, expected=b"old")
        expect_outcome("replace()", replaced, Outcome.MISSING, "the record has expired.")
        held.expect_absent("When the record has expired, after replace()")

    def test_create_takes_no_key_twice(self, held: Held) -> None:
        """A key that is taken stays as it is."""
        held.create(b"first")
        created = held.backend.create(KEY, b"second", 2000)
        assert not created, f"create() returned {created!r} for a key that is taken. Change nothing; return False."
        held.expect_payload(b"first", "After create() of a key that is taken")

    def test_replace_compares(self, held: Held) -> None:
        """Another payload than the expected one is CONFLICT, and stays; ``current``, if given, is that payload."""
        held.create(b"theirs")
        replaced = held.backend.replace(KEY, b"mine", 1000, expected=b"other")
        expect_outcome("replace()", replaced, Outcome.CONFLICT, "the stored payload is another than expected.")
        expect_current("replace()", replaced, b"theirs", None)
        held.expect_payload(b"theirs", "After a replace() that returned CONFLICT")

    def test_replace_by_the_same(self, held: Held) -> None:
        """Replacing a payload by itself is STORED, as some stores count only real changes."""
        held.create(b"same")
        replaced = held.backend.replace(KEY, b"same", 1000, expected=b"same")
        expect_outcome("replace()", replaced, Outcome.STORED, "a payload may be replaced by the same bytes.")

    def test_replace_that_keeps_the_ttl(self, held: Held) -> None:
        """With a ttl of None it stores, or says TTL_UNKNOWN and changes nothing."""
        held.create(b"1")
        replaced = held.backend.replace(KEY, b"2", None, expected=b"other")
        expect_outcome("replace()", replaced, Outcome.CONFLICT, "the stored payload is another than expected.")
        replaced = held.backend.replace(KEY, b"2", None, expected=b"1")
        if replaced.outcome is Outcome.TTL_UNKNOWN:
            held.expect_payload(b"1", "After a replace() that returned TTL_UNKNOWN")
            return
        expect_outcome("replace()", replaced, Outcome.STORED, "the stored payload is the same as expected.")
        held.expect_payload(b"2", "After replace() with a ttl of None")

    def test_delete(self, held: Held) -> None:
        """A deleted record stays deleted: a later replace or touch does not store it again. Its key is free."""
        held.create(b"1")
        held.backend.delete(KEY)
        replaced = held.backend.replace(KEY, b"2", 1000, expected=b"1")
        expect_outcome("replace() after delete()", replaced, Outcome.MISSING, "what was deleted must not come back.")
        held.expect_absent("After delete()")
        held.create(b"3")

    def test_delete_compares(self, held: Held) -> None:
        """With an expected payload, only that payload is deleted."""
        deleted = held.backend.delete(KEY, b"1")
        expect_outcome("delete(key, expected)", deleted, Outcome.MISSING, "nothing is stored.")
        expect_current("delete(key, expected)", deleted, None)
        held.create(b"theirs")
        deleted = held.backend.delete(KEY, b"other")
        expect_outcome(
            "delete(key, expected)", deleted, Outcome.CONFLICT, "the stored payload is another than expected."
        )
        expect_current("delete(key, expected)", deleted, b"theirs", None)
        held.expect_payload(b"theirs", "After a delete() that returned CONFLICT")
        deleted = held.backend.delete(KEY, b"theirs")
        expect_outcome("delete(key, expected)", deleted, Outcome.STORED, "the stored payload is the same as expected.")
        held.expect_absent("After delete(key, expected)")

    def test_delete_returns_what_it_removed(self, held: Held) -> None:
        """Without an expected payload it removes and returns what is there: it may be a forwarding record."""
        deleted = held.backend.delete(KEY)
        expect_outcome("delete(key)", deleted, Outcome.MISSING, "nothing is stored.")
        expect_current("delete(key)", deleted, None)
        held.create(b"theirs")
        deleted = held.backend.delete(KEY)
        expect_outcome("delete(key)", deleted, Outcome.STORED, "without expected, it removes whatever is stored.")
        expect_current("delete(key)", deleted, b"theirs")
        held.expect_absent("After delete(key)")

    def test_a_touch_keeps_alive(self, held: Held) -> None:
        """A record that is touched outlives its first ttl, and ends one ttl after the last touch."""
        held.create(b"1")
        for expected in (None, b"1", b"1"):
            held.pass_time(600)
            held.touch(expected=expected)
            held.expect_payload(b"1", "After touch()")
        held.pass_time(1002)
        held.expect_absent("One ttl after the last touch()")

    def test_a_read_keeps_nothing_alive(self, held: Held) -> None:
        """Reading moves no expiry."""
        held.create(b"1")
        held.pass_time(600)
        touched = held.read().touched
        assert not touched, "read(key) returned touched=True. It moves no expiry."
        held.pass_time(402)
        held.expect_absent("One ttl after create(), with a read(key) in between, which moves no expiry")


class ReadsAndTouches:
    """The store reads and moves the expiry in one round trip."""

    def test_it_keeps_alive(self, held: Held) -> None:
        """A record that is touched while it is read outlives its first ttl."""
        held.create(b"1")
        for _ in range(3):
            held.pass_time(600)
            record = held.read_and_touch()
            assert (record.payload, record.touched) == (b"1", True), (
                f"read_and_touch(key, 1000, 1000) returned touched={record.touched} and {shown(record.payload)} though "
                "a touch was due. Make the record live 1000 seconds from now, change no data, and say touched=True."
            )
            held.expect_payload(b"1", "After read_and_touch()")
        held.pass_time(1002)
        held.expect_absent("One ttl after the last read_and_touch()")

    def test_without_a_ttl_it_touches_nothing(self, held: Held) -> None:
        """With a ttl of None it only reads."""
        held.create(b"1")
        held.pass_time(600)
        record = held.read_and_touch(None)
        assert (record.payload, record.touched) == (b"1", False), (
            f"read_and_touch(key, None, 1000) returned touched={record.touched} and {shown(record.payload)}. With a "
            "ttl of None, return the record and move nothing."
        )
        held.pass_time(402)
        held.expect_absent("One ttl after create(), with a read_and_touch(key, None, 1000) in between")


class TellsTtl:
    """The store returns the ttl, so a session is touched exactly when due, whichever process did so before."""

    @pytest.mark.parametrize(
        ("passed", "ttl", "unless_more_than", "due"),
        [
            (0, 1000, 900, False),
            (90, 1000, 900, False),
            (102, 1000, 900, True),
            (0, 500, 400, True),  # the lifetime was shortened: no session outlives it
        ],
    )
    def test_touch_when_due(self, held: Held, passed: float, ttl: float, unless_more_than: float, due: bool) -> None:
        """A read that touches does so unless enough is left, and not too much."""
        if not isinstance(held.backend, SupportsReadAndTouch):
            pytest.skip("the store does not touch as it reads")
        held.create(b"payload")
        held.pass_time(passed)
        call = f"read_and_touch(key, {ttl}, {unless_more_than})"
        touched = held.read_and_touch(ttl, unless_more_than).touched
        assert touched is due, (
            f"{call} returned touched={touched} with {1000 - passed} seconds left. Touch unless there are more than "
            f"{unless_more_than} and not more than {ttl} left."
        )
        expected, left = ttl if due else 1000 - passed, held.ttl()
        assert expected - 5 < left <= expected, (
            f"After {call}, which returned touched={touched}, the record has {left} seconds left, not {expected}."
        )

    def test_ttl_is_what_was_left_before(self, held: Held) -> None:
        """A read returns the ttl from before, even when it touches."""
        held.create(b"1")
        held.pass_time(600)
        ttl = held.ttl()
        assert 395 < ttl <= 400, f"read() returned ttl={ttl}, 600 seconds after create() with 1000, not 400."
        if isinstance(held.backend, SupportsReadAndTouch):
            before = held.read_and_touch().ttl
            assert 395 < (before or 0) <= 400, (
                f"read_and_touch(key, 1000, 1000) returned ttl={before}, 600 seconds after create() with 1000. Return "
                "what was left before the touch."
            )

    def test_touch_sets_the_ttl(self, held: Held) -> None:
        """A touched record gets exactly that ttl, longer or shorter than before."""
        held.create(b"1")
        for seconds in (2000, 500):
            held.touch(seconds)
            ttl = held.ttl()
            assert seconds - 5 < ttl <= seconds, f"After touch(key, {seconds}) the record has {ttl} seconds left."

    def test_replace_sets_the_ttl(self, held: Held) -> None:
        """A record that is replaced with a ttl gets exactly that ttl."""
        held.create(b"1")
        held.pass_time(600)
        held.backend.replace(KEY, b"2", 1000, expected=b"1")
        ttl = held.ttl()
        assert 995 < ttl <= 1000, (
            f"After replace() with a ttl of 1000 the record has {ttl} seconds left: the ttl is the seconds to live "
            "from now."
        )


class KeepsTtl:
    """A replace with a ttl of None keeps the expiry: a request in mode ``no_refresh`` writes without a refresh."""

    def test_replace_keeps_the_expiry(self, held: Held) -> None:
        """The record ends when it would have ended."""
        held.create(b"1")
        held.pass_time(600)
        replaced = held.backend.replace(KEY, b"2", None, expected=b"1")
        expect_outcome("replace()", replaced, Outcome.STORED, "the stored payload is the same as expected.")
        held.expect_payload(b"2", "After replace()")
        held.pass_time(402)
        held.expect_absent("One ttl after create(), and after replace() with a ttl of None, which keeps the expiry")


class ComparesAtomically:
    """Replaces, creates and deletes that run at once; test the real store, not a fake."""

    turns = 20
    processes = 4

    def test_replaces_of_the_same(self, held: Held) -> None:
        """Of many replaces that expect the same payload, one is stored."""
        for turn in range(self.turns):
            key = f"{KEY}{turn}"
            held.create(b"loaded", key)
            works = [partial(held.backend.replace, key, b"%d" % number, 1000, b"loaded") for number in range(4)]
            outcomes = [replaced.outcome for replaced in race(*works)]
            names = sorted(outcome.name for outcome in outcomes)
            assert names == ["CONFLICT"] * 3 + ["STORED"], (
                f"Of four replace() at once that expect the same payload, the outcomes are {', '.join(names)}. One is "
                "STORED and three are CONFLICT: comparing and storing must be one step for all threads and processes."
            )
            held.expect_payload(b"%d" % outcomes.index(Outcome.STORED), "After the replace() that is STORED", key)

    def test_creates_of_the_same(self, held: Held) -> None:
        """Of many creates, one is true."""
        for turn in range(self.turns):
            works = [partial(held.backend.create, f"{KEY}{turn}", b"%d" % number, 1000) for number in range(4)]
            created = race(*works)
            assert sorted(map(bool, created)) == [False] * 3 + [True], (
                f"Four create() of one key at once returned {created}. One is True: look and store in one step."
            )

    def test_a_replace_never_revives(self, held: Held) -> None:
        """Nothing is stored after a delete that runs at the same time as replaces and touches."""
        for turn in range(self.turns):
            key = f"{KEY}{turn}"
            held.create(b"1", key)
            race(
                partial(held.backend.delete, key),
                partial(held.backend.replace, key, b"2", 1000, b"1"),
                partial(held.backend.replace, key, b"3", None, b"1"),
                partial(_touch, held.backend, key),
                partial(_read_and_touch, held.backend, key),
            )
            held.expect_absent("After delete(), while replace() and touch() ran: a late one revived it", key)

    def test_a_delete_that_compares_loses_nothing(self, held: Held) -> None:
        """Of a replace and a delete that expect the same payload, one is done and the other is not."""
        for turn in range(self.turns):
            key = f"{KEY}{turn}"
            held.create(b"1", key)
            replaced, deleted = race(
                partial(held.backend.replace, key, b"2", 1000, b"1"), partial(held.backend.delete, key, b"1")
            )
            record = held.backend.read(key)
            got = replaced.outcome, deleted.outcome
            wanted = (Outcome.MISSING, Outcome.STORED) if record is None else (Outcome.STORED, Outcome.CONFLICT)
            assert got == wanted, (
                f"replace() and delete(key, expected) at once returned {got[0].name} and {got[1].name}, and "
                f"{'nothing' if record is None else 'a record'} is left. One is done and the other is not: comparing "
                "and changing must be one step."
            )
            if record is not None:
                held.expect_payload(b"2", "After a replace() that is STORED", key)

    def test_many_processes_count_together(self, held: Held) -> None:
        """A counter that many processes raise by compare and replace loses no step."""
        if held.connect is None:
            pytest.skip("the data are in this process only")
        held.create(b"0")
        with ProcessPoolExecutor(self.processes, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_raise_counter, [held.connect] * self.processes, [self.turns] * self.processes))
        total, found = self.processes * self.turns, held.read().payload
        assert found == b"%d" % total, (
            f"{self.processes} processes raised a counter {total} times by replace(), and it is {shown(found)}. "
            "Comparing and storing must be one step for all processes."
        )


class SurvivesForks:
    """Workers that are forked from a process that has used the store do not share its connections."""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of processes with threads, from Python 3.12 on
    def test_forked_workers(self, held: Held) -> None:
        """Each worker reads and changes its own session, while the others and the parent do the same."""
        children = []
        for worker in range(4):
            held.create(b"%d:0" % worker, f"{KEY}{worker}")  # the parent has connections
        for worker in range(3):
            child = os.fork()
            if child == 0:
                os._exit(0 if _use_own_session(held.backend, worker) else 1)
            children.append(child)
        parent = _use_own_session(held.backend, 3)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        assert (parent, statuses) == (True, [0, 0, 0]), (
            f"A process or its forked workers failed, or read another's record (parent succeeded: {parent}, statuses: "
            f"{statuses}). Compare the process id when taking a connection or a lock, and make new ones."
        )


def _use_own_session(backend: Backend, worker: int, turns: int = 30) -> bool:
    key = f"{KEY}{worker}"
    try:
        for turn in range(turns):
            record = backend.read(key)
            if record is None or record.payload != b"%d:%d" % (worker, turn):
                return False
            backend.replace(key, b"%d:%d" % (worker, turn + 1), 1000, record.payload)
    except Exception:  # the parent cannot see an exception of the child
        return False
    return True


def _raise_counter(connect: Callable[[], Backend], turns: int) -> None:
    backend = connect()
    for _ in range(turns):
        while True:
            record = backend.read(KEY)
            assert record is not None, "read() returned None for a record that is stored and has not expired."
            raised = b"%d" % (int(record.payload) + 1)
            if backend.replace(KEY, raised, 1000, record.payload).outcome is Outcome.STORED:
                break


class PurgesExpired:
    """The store keeps expired records, and the backend can remove them."""

    def test_purge(self, held: Held) -> None:
        """Purging deletes what has expired and nothing else, and counts it."""
        assert isinstance(held.backend, SupportsPurge), (
            "The backend has no method purge(progress=None). Add it, or leave out PurgesExpired where the store "
            "removes expired records itself."
        )
        for number in range(5):
            held.create(b"", f"{KEY}{number}", 100 if number < 3 else 1000)
        held.pass_time(500)
        calls: list[tuple[int, int]] = []
        purged = held.backend.purge(lambda removed, total: calls.append((removed, total)))
        assert purged == 3, f"purge() returned {purged!r} with 3 of 5 records expired. Return how many it removed."
        assert calls, "purge(progress) never called progress(removed so far, all), though it removed 3 records."
        assert calls[-1][0] == 3 <= calls[-1][1], (
            f"The last call of purge(progress) was progress{calls[-1]}. It is progress(removed so far, all) with 3 "
            "removed and at least 3 in all."
        )
        purged = held.backend.purge()
        assert purged == 0, f"purge() returned {purged!r} right after a purge. Return how many it removed: 0."
        record = held.backend.read(f"{KEY}4")
        assert record is not None, "purge() removed a record that has not expired."


def _touch(backend: Backend, key: str) -> None:
    """Touch; a failure is allowed, as the core only logs it: SQLite does not wait for another write."""
    with suppress(Exception):
        backend.touch(key, 1000)


def _read_and_touch(backend: Backend, key: str) -> None:
    """Read and touch, in one call where the backend can."""
    if isinstance(backend, SupportsReadAndTouch):
        with suppress(TouchFailed):
            backend.read_and_touch(key, 1000, 1000)
    else:
        backend.read(key)
        _touch(backend, key)


def _raises(act: Callable[[], object]) -> bool:
    try:
        act()
    except Exception:  # whatever the client raises
        return True
    return False


def race(*works: Callable[[], Any]) -> list[Any]:
    """Run functions at once, each on a thread of its own; return what they returned, or raise what one raised."""
    gate = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def run(number: int, work: Callable[[], Any]) -> None:
        gate.wait()
        try:
            results[number] = work()
        except Exception as error:  # an exception of a thread is not raised in its caller
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
