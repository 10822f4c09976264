"""The merge rules of DESIGN 6 in a few lines, on a dict: what the oracle of the programs is tested with.

Each part can be left out, so that the oracle can be shown to miss it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from tests.support.programs import EXEMPT, PERMANENT, Case, Data, Log, Step, View, plain
from tests.support.serial import Answer, differing

OLD = "the old id"
RULES = frozenset(
    {
        "changes by name",  # an assignment of an equal value is a change
        "rule 2",
        "rule 3",
        "del reads",  # del raises where the key is absent
        "bool reads what is left",  # bool after removals of one's own depends on all other keys
        "late: all or nothing",  # a late change is not cut in pieces
    }
)


@dataclass
class Request:
    """A request of the model."""

    view: View | None = None
    base: Data | None = None
    permanent: bool | None = None
    cleared_first: bool = False


@dataclass
class Model:
    """A store with one session, and requests that come with its id."""

    start: Data
    rules: frozenset[str] = RULES
    records: dict[str, Data] = field(default_factory=dict)
    forward: str | None = None  # the new id; "" after an end
    before: Data = field(default_factory=dict)
    numbers: int = 0

    def __post_init__(self) -> None:
        self.records[OLD] = copy.deepcopy(self.start)

    def stored(self) -> dict[str, Data]:
        """Return all that is stored."""
        forwarding = {"forwarding": {PERMANENT: {"to": self.forward}}} if self.forward is not None else {}
        return copy.deepcopy({**self.records, **forwarding})

    def begin(self) -> Request:
        """Return a request that has not used its session."""
        return Request()

    def take(self, request: Request, step: Step) -> Any:
        """Take a step."""
        if type(step).__name__ == "Permanent" and request.view is None:
            return None
        if request.view is None:
            request.base = self.load()
            request.view = View(copy.deepcopy(request.base or {}))
        return copy.deepcopy(step.run(request.view))

    def load(self) -> Data | None:
        """Return what the old id shows."""
        if OLD in self.records:
            return copy.deepcopy(self.records[OLD])
        if not self.forward:
            return None if self.forward is None else {}
        now = self.records.get(self.forward)
        if now is None:
            return None
        return copy.deepcopy({k: v for k, v in self.before.items() if k in now and now[k] == v})

    def finish(self, request: Request) -> Answer:
        """Store what the rules allow."""
        if request.view is None:
            return Answer(refused=False, cookie=False)
        log, mine, base = request.view.log, plain(request.view.session), request.base
        changed = differing(base or {}, mine)
        if "changes by name" in self.rules:
            changed |= log.changed - {*EXEMPT, PERMANENT}
        if log.cleared:
            return self.end(base, mine)
        exempt = {key: mine.get(key) for key in EXEMPT if mine.get(key) != (base or {}).get(key)}
        if not changed and not exempt and not log.rotated:
            return Answer(refused=False, cookie=False)
        if base is None:
            return self.create(mine)
        if OLD in self.records:
            return self.replace(log, base, mine, changed, exempt)
        if self.forward and self.forward in self.records:
            return self.change_late(log, base, mine, changed, exempt)
        if log.rotated and self.forward == "":
            return self.create({key: mine[key] for key in changed if key in mine})
        return Answer(refused=False, cookie=False, dropped=bool(changed or exempt or log.rotated))

    def replace(self, log: Log, base: Data, mine: Data, changed: set[str], exempt: Data) -> Answer:
        """Merge with the record."""
        now = self.records[OLD]
        theirs = differing(base, now)
        if changed and not self.allows(log, base, now, changed, theirs):
            return Answer(refused=True, cookie=False)
        merged = put_over(now, mine, changed | set(exempt))
        contested = frozenset(changed & theirs & differing(now, mine))
        del self.records[OLD]
        if not merged:
            return Answer(refused=False, cookie=True, contested=contested)
        if log.rotated:
            self.before, self.forward = copy.deepcopy(now), self.new_id()
            self.records[self.forward] = merged
        else:
            self.records[OLD] = merged
        return Answer(refused=False, cookie=True, contested=contested)

    def allows(self, log: Log, base: Data, now: Data, changed: set[str], theirs: set[str]) -> bool:
        """Return what rules 2 and 3 say."""
        read = {key for key in theirs if log.has_read(key)}
        if "del reads" not in self.rules:
            read -= log.deleted
        if "rule 2" in self.rules and (read - changed or self.other_emptiness(log, base, now)):
            return False
        return "rule 3" not in self.rules or not read & changed or len(changed) == 1 or theirs <= changed

    def other_emptiness(self, log: Log, base: Data, now: Data) -> bool:
        """Return whether a question whether the session is empty has another answer now."""
        strict = "bool reads what is left" in self.rules
        return any(
            bool(set(base) - (own if strict else set())) != bool(set(now) - (own if strict else set()))
            for own in log.empty_but
        )

    def change_late(self, log: Log, base: Data, mine: Data, changed: set[str], exempt: Data) -> Answer:
        """Bring a late request's change to the rotated session, or to one of its own."""
        now = self.records[self.forward or ""]
        theirs = differing(base, now)
        if changed and "rule 2" in self.rules:
            read = {key for key in theirs if log.has_read(key)}
            if "del reads" not in self.rules:
                read -= log.deleted
            if read - changed or self.other_emptiness(log, base, now):
                return Answer(refused=True, cookie=False)
        contested = changed & theirs
        own = {key: mine[key] for key in changed if key in mine}
        if log.rotated and own:
            removed = changed - set(mine) - contested
            self.records[self.forward or ""] = put_over(now, mine, removed)
            return self.create(own)
        if contested and contested != changed and "late: all or nothing" in self.rules:
            return Answer(refused=True, cookie=False)
        uncontested = changed - contested
        merged = put_over(now, mine, uncontested | set(exempt))
        self.records[self.forward or ""] = merged
        if not merged:
            del self.records[self.forward or ""]
        return Answer(refused=False, cookie=False, contested=frozenset(contested))

    def end(self, base: Data | None, mine: Data) -> Answer:
        """End the session under whichever id it has, and begin another."""
        known = OLD in self.records or self.forward is not None
        self.records.pop(OLD, None)
        if self.forward:
            self.records.pop(self.forward, None)
        if mine:
            self.records[self.new_id()] = mine
        self.forward = "" if mine and known else None
        return Answer(refused=False, cookie=True)

    def create(self, data: Data) -> Answer:
        """Store a new session."""
        if data:
            self.records[self.new_id()] = data
        return Answer(refused=False, cookie=bool(data))

    def new_id(self) -> str:
        """Return an id that was never used."""
        self.numbers += 1
        return f"id {self.numbers}"


def put_over(now: Data, mine: Data, keys: set[str]) -> Data:
    """Return what is stored now, with these keys as they are in mine."""
    data = {key: value for key, value in now.items() if key not in keys}
    return {**data, **{key: mine[key] for key in keys if key in mine}}


def play(case: Case, rules: frozenset[str] = RULES) -> Model:
    """Return the model of a case."""
    return Model(case.start, rules)
