"""Plays a case on a player (an app with a store, or a model), and says whether what is stored could be.

The rule: what is stored is what a serial order of the programs gives, or one program's whole session, or a request was
refused and stored nothing. The one exception is a single key that a program read and changed, and no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations, product
from typing import Any, NamedTuple, Protocol

from tests.support.programs import EXEMPT, PERMANENT, Case, Data, Permanent, Program, Run, Step, plain, run_alone


class Answer(NamedTuple):
    """What the client of a request gets, and the signals that the app gets.

    :param contested: the keys of the signal ``session_conflict``.
    :param dropped: the signal ``session_write_dropped`` was sent.
    """

    refused: bool
    cookie: bool
    contested: frozenset[str] = frozenset()
    dropped: bool = False


class Player(Protocol):
    """Plays requests that all come with the id of one stored session."""

    def begin(self) -> Any:
        """Return a request that has arrived, and has not used its session."""

    def take(self, request: Any, step: Step) -> Any:
        """Take a step of its view."""

    def finish(self, request: Any) -> Answer:
        """Make its response."""

    def stored(self) -> dict[str, Data]:
        """Return all that is stored, by any names that stay the same."""


class Torn(AssertionError):
    """What is stored is nothing that could be."""


def compared(data: Data) -> Data:
    """Return the items that belong together."""
    return {key: value for key, value in plain(data).items() if key not in EXEMPT}


def differing(one: Data, other: Data) -> set[str]:
    """Return the keys that two sessions do not hold alike."""
    one, other = compared(one), compared(other)
    return {key for key in {**one, **other} if key not in one or key not in other or one[key] != other[key]}


def is_forwarding(data: Data) -> bool:
    """Return whether a record is what a rotation leaves under the old id."""
    return isinstance(data.get(PERMANENT), dict)


@dataclass
class Played:
    """A request, and what is known of it.

    :param base: the items that it loaded; None where it found no session.
    :param before: the items that were stored when it ended.
    :param aside: it stored a session of its own.
    """

    number: int
    program: Program
    request: Any
    loaded: int | None = None
    finished: int = -1
    base: Data | None = None
    before: Data | None = None
    late: bool = False
    aside: bool = False
    may_drop: bool = False
    run: Run = field(default_factory=lambda: run_alone((), {}))
    seen: list[Any] = field(default_factory=list)
    refused: bool = False

    @property
    def changed(self) -> set[str]:
        """The keys that it changed, without those that are exempt."""
        return self.run.log.changed - {*EXEMPT, PERMANENT}

    @property
    def overlapped(self) -> set[str]:
        """The keys that are stored otherwise now than it loaded them."""
        return differing(self.before or {}, self.base or {})

    def stale(self) -> bool:
        """Return whether what it read may be another now."""
        log, changed = self.run.log, self.overlapped
        return any(map(log.has_read, changed)) or bool(changed and log.empty_but)

    def ways(self) -> Iterator[str]:
        """Return how it may have come into what is stored."""
        if self.aside:
            yield from ("aside", "aside and removed")
            return
        yield "serial"
        if self.overlapped and (self.run.log.cleared or not self.late):
            yield "whole"
        if self.overlapped and len(self.changed) == 1 and all(map(self.run.log.has_read, self.changed)):
            yield "single"
        if self.may_drop:
            yield "dropped"

    def apply(self, way: str, data: Data) -> Data:
        """Return what a session becomes by this request."""
        if way == "serial":
            return run_alone(self.program, data).result
        if way == "whole":
            return self.run.result
        if way == "single":
            (key,) = self.changed
            rest = {name: value for name, value in data.items() if name != key}
            return {**rest, key: self.run.result[key]} if key in self.run.result else rest
        if way == "aside and removed":
            removed = self.changed - set(self.run.result) - self.overlapped
            return {key: value for key, value in data.items() if key not in removed}
        return data


def explain(start: Data, played: list[Played], stored: Data) -> tuple[str, ...] | None:
    """Return in which ways the requests make what is stored, the most ordinary first; None where none do."""
    found: list[tuple[str, ...]] = []
    for order in permutations(played):
        if any(late.finished < early.loaded for n, early in enumerate(order) for late in order[n + 1 :]):  # type: ignore[operator]
            continue
        found += [
            ways
            for ways in product(*(one.ways() for one in order))
            if is_possible(order, ways) and compared(result_of(start, order, ways)) == stored
        ]
    return min(found, key=lambda ways: sum(way not in ("serial", "aside") for way in ways), default=None)


def is_possible(order: tuple[Played, ...], ways: tuple[str, ...]) -> bool:
    """Return whether those that were put over others came after them."""
    return all(
        earlier.finished < one.finished
        for n, one in enumerate(order)
        if ways[n] in ("whole", "single")
        for earlier in order[:n]
    )


def result_of(start: Data, order: tuple[Played, ...], ways: tuple[str, ...]) -> Data:
    """Return what the requests make of a session in this order."""
    data = start
    for one, way in zip(order, ways, strict=True):
        data = one.apply(way, data)
    return data


class Trial:
    """Plays one case, and looks at the store after each request.

    :param counts: what came up is counted here: a test that never meets a case does not test it.
    """

    def __init__(self, player: Player, case: Case, counts: Counter[str]) -> None:
        self.player, self.case, self.counts = player, case, counts
        (self.name,) = names = list(self.sessions())
        self.first: str = names[0]
        self.name: str | None
        self.old: Data | None = None  # what the record under the old id held when it was rotated away
        self.ended = False
        self.time = 0
        self.played = [Played(n, program, player.begin()) for n, program in enumerate(case.programs)]
        self.done: list[Played] = []

    def play(self) -> None:
        """Take each step in its turn."""
        left = {one.number: list(one.program) for one in self.played}
        for number in self.case.order:
            self.time += 1
            one = self.played[number]
            if left[number]:
                self.take(one, left[number].pop(0))
            else:
                self.finish(one)

    def sessions(self) -> dict[str, Data]:
        """Return the sessions that are stored."""
        return {name: plain(data) for name, data in self.player.stored().items() if not is_forwarding(data)}

    def take(self, one: Played, step: Step) -> None:
        """Take a step; the first that uses the session loads it."""
        if one.loaded is None and not isinstance(step, Permanent):
            one.loaded, one.base = self.time, self.seen_by_old_id()
            one.run = run_alone(one.program, one.base or {})
        one.seen.append(self.player.take(one.request, step))

    def seen_by_old_id(self) -> Data | None:
        """Return what a request sees that uses the old id now: after a rotation, what there was and still is."""
        sessions = self.sessions()
        if self.first in sessions:
            return sessions[self.first]
        if self.old is None or self.name is None:
            return None
        now = sessions[self.name]
        return {key: value for key, value in self.old.items() if key in now and now[key] == value}

    def finish(self, one: Played) -> None:
        """End a request, and compare what is stored with what could be."""
        before, everything = self.sessions(), self.player.stored()
        one.finished, one.before = self.time, before.get(self.name or "")
        one.late = self.old is not None or self.ended
        answer = self.player.finish(one.request)
        self.count(one, answer)
        if one.loaded is None or not one.run.log.cleared:
            self.check_what_was_seen(one)
        if answer.refused:
            self.check_refusal(one, answer, everything)
            return
        if one.loaded is None:
            self.demand(everything == self.player.stored(), "a session that was not used was stored")
            return
        self.follow(one, before, answer)
        if one.changed or one.run.log.cleared:  # what only read has its place where it loaded, and changes no other's
            self.done.append(one)
        data = compared(self.sessions().get(self.name or "", {}))
        ways = explain(self.case.start, self.done, data)
        self.demand(ways is not None, f"torn: {data}")
        self.counts.update(f"{way} way" for way in ways or ())

    def check_what_was_seen(self, one: Played) -> None:
        """The steps saw what they see on a plain dict."""
        if one.loaded is not None:
            self.demand(tuple(one.seen) == one.run.seen, f"saw {one.seen}, expected {one.run.seen}")

    def check_refusal(self, one: Played, answer: Answer, everything: dict[str, Data]) -> None:
        """A refused request stores nothing, sends no cookie, and had changed something and read what is another now."""
        one.refused = True
        self.demand(everything == self.player.stored(), "a refused request stored something")
        self.demand(not answer.cookie, "a refused request sent a cookie")
        self.demand(bool(one.changed), "a request was refused that changed nothing, or only what is exempt")
        self.demand(not one.run.log.cleared, "a logout was refused")
        reason = one.stale() or (one.late and bool(one.changed & one.overlapped))
        self.demand(reason, f"a request was refused without a reason: {one.overlapped} changed meanwhile")

    def follow(self, one: Played, before: dict[str, Data], answer: Answer) -> None:
        """Find the session under the id that it has now, and what else a request has stored."""
        after = self.sessions()
        new = set(after) - set(before)
        self.demand(len(new) <= 1, "more than one new session")
        others = {name: data for name, data in before.items() if name != self.name}
        self.demand(others.items() <= after.items(), "another session was changed")
        lived = self.name is not None
        if lived and self.name not in after:
            if one.run.log.cleared or not new:
                self.ended, self.old = True, None
            else:
                self.old = before[self.name or ""]
                self.counts["rotated"] += 1
            self.name = new.pop() if new else None
        self.check_own(one, new, after, replaced=lived and self.name not in before)
        ended = answer.dropped and (self.ended or not lived)
        self.demand(ended or not answer.dropped, "a change was dropped with a session that had not ended")
        one.may_drop = ended or (self.old is not None and self.is_wholly_contested(one, answer))

    def check_own(self, one: Played, new: set[str], after: dict[str, Data], *, replaced: bool) -> None:
        """A session of a request's own holds what that request wrote, and nothing else."""
        left_alone = one.base is None or (one.run.log.cleared and self.name is not None and not replaced)
        one.aside = bool(new) or (self.ended and left_alone)
        for name in new:
            self.counts["own session"] += 1
            wrote = {key: value for key, value in one.run.result.items() if key in one.run.log.changed}
            own = one.run.result if one.run.log.cleared or one.base is None else wrote
            self.demand(after[name] == own, f"a late request's own session holds {after[name]}, expected {own}")

    def is_wholly_contested(self, one: Played, answer: Answer) -> bool:
        """Return whether the rotated session changed all that a late request changed: a signal says so."""
        if not one.late or one.run.log.cleared or not one.changed <= one.overlapped:
            return False
        return bool(answer.contested) or not (differing(one.run.result, one.before or {}) & one.changed)

    def count(self, one: Played, answer: Answer) -> None:
        """Count what came up."""
        self.counts["requests"] += 1
        self.counts["refused"] += answer.refused
        self.counts["late"] += one.late
        self.counts["late and refused"] += one.late and answer.refused
        self.counts["dropped"] += answer.dropped
        self.counts["contested"] += bool(answer.contested)
        self.counts["cleared"] += one.run.log.cleared
        merged = bool(one.loaded and one.changed and one.overlapped) and not (answer.refused or answer.dropped)
        self.counts["merged"] += merged
        self.counts["merged late"] += merged and one.late and not answer.contested

    def demand(self, holds: bool, message: str) -> None:
        """Fail with the whole story where something does not hold."""
        if not holds:
            raise Torn(f"{message}\n{self.story()}")

    def story(self) -> str:
        """Return what was played, in words."""
        lines = [f"stored at first: {self.case.start}"]
        for one in self.played:
            log = one.run.log
            lines.append(f"request {one.number}, loaded {one.base} at {one.loaded}, ended at {one.finished}:")
            lines += [f"    {step}" for step in one.program]
            read = "all" if log.all_but is not None else sorted(log.read)
            lines.append(f"  read {read}, changed {sorted(log.changed)}, alone: {one.run.result}")
            lines.append(f"  late={one.late} refused={one.refused} aside={one.aside} found {one.before} at its end")
        return "\n".join([*lines, f"order: {self.case.order}", f"stored: {self.player.stored()}"])
