"""What the model of sessions is made of: records, forwarding records, requests, and save plans."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LIFETIME, THROTTLE, FORWARDING_LIFETIME = 990.0, 90.0, 10.0
PERMANENT = "_permanent"
MISSING = object()

Data = dict[str, Any]
Step = Callable[[], None]


def same(one: object, other: object) -> bool:
    """Return whether two values are stored alike, the order of their keys included."""
    return json.dumps(one) == json.dumps(other)


def has_content(data: Mapping[str, Any]) -> bool:
    """Return whether a session is worth a record."""
    return bool(data.keys() - {PERMANENT})


def at(data: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key in a form that compares, absent being one of its values."""
    return json.dumps(data[key]) if key in data else None


@dataclass
class Record:
    """What is stored under one id, and when it ends."""

    data: Data
    ends: float


@dataclass
class ForwardingRecord:
    """What a rotation leaves under the old id: it leads on ``until`` then by the app's clock, and is stored longer."""

    sid: str
    until: float
    before: Data
    ends: float


@dataclass
class Work:
    """One request: what it read, what it has made of that, and what else it asked for.

    :param lost: the session could not be loaded.
    """

    cookie: str | None
    loaded: bool = False
    sid: str | None = None
    base: Data | None = None
    mine: Data = field(default_factory=dict)
    permanent: bool | None = None
    refreshed: bool = False
    rotated: bool = False
    cleared: bool = False
    ended: bool = False
    late: bool = False
    lost: bool = False
    since: float = 0.0
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    all_but: set[str] | None = None

    @property
    def id_sent(self) -> str | None:
        """The cookie, if that may be an id at all."""
        return self.cookie if self.cookie and re.fullmatch(r"[\w-]{1,128}", self.cookie) else None

    def set_permanent(self, value: bool) -> None:
        """Remember the value until the session is loaded; an equal value is no change."""
        if not self.loaded:
            self.permanent = value
        elif self.mine.get(PERMANENT) is not value:
            self.mine[PERMANENT] = value

    def reads(self, *keys: str) -> None:
        """Record keys that the request reads, unless it has written them itself."""
        self.read |= set(keys) - self.written

    def writes(self, *keys: str) -> None:
        """Record keys that the request assigns or removes."""
        self.written |= set(keys)

    def pops(self, *keys: str) -> None:
        """Record keys that the request reads and removes."""
        self.reads(*keys)
        self.writes(*keys)

    def reads_all(self) -> None:
        """Record that the request reads every key."""
        self.all_but = set(self.written) if self.all_but is None else self.all_but

    def depends_on(self, key: str) -> bool:
        """Return whether the request knows what a key was before it wrote it."""
        return key in self.read or (self.all_but is not None and key not in self.all_but)

    def differences(self) -> Data:
        """Return the keys that are different now, with their values."""
        base = self.base or {}
        touched = [key for key in {**base, **self.mine} if at(base, key) != at(self.mine, key)]
        return {key: self.mine.get(key, MISSING) for key in touched}

    def patch(self) -> Data:
        """Return the keys that this request wrote, if only with an equal value, and their values now."""
        return {
            key: self.mine.get(key, MISSING) for key in {**self.differences(), **dict.fromkeys(sorted(self.written))}
        }

    def changed_meanwhile(self, now: Data, hidden: Iterable[str] = ()) -> set[str]:
        """Return the keys that another request wrote: they are stored otherwise, or were not shown."""
        base = self.base or {}
        return {key for key in {**base, **now} if at(base, key) != at(now, key)}.union(hidden) - {PERMANENT}

    def effective(self, others: Iterable[str]) -> set[str]:
        """Return the keys whose values this request changed, or put in the place of another request's."""
        return (self.differences().keys() | (self.written & set(others))) - {PERMANENT}

    def is_refused(self, now: Data) -> bool:
        """Return whether the request must not be merged with what is stored now."""
        others = self.changed_meanwhile(now)
        mine = self.effective(others)
        known = {key for key in others if self.depends_on(key)}
        if not mine or not known:
            return False
        if any(key in self.mine and key not in now for key in known):
            return True  # it would bring back what another request has removed
        return bool(known - mine) or not (len(mine) == 1 or others <= mine)  # here a single key always adds up


@dataclass
class SavePlan:
    """What has to be done at the end of a request: the writes in their order, and the cookie.

    :param cookie: the id that is sent; "" to delete the cookie; None to send none.
    :param own: a late request begins a session of its own.
    :param may_skip: the last of the writes changes nothing.
    :param refused: it is a 409, and nothing is stored.
    """

    writes: list[Step] = field(default_factory=list)
    cookie: str | None = None
    permanent: bool = False
    dropped: bool = False
    contested: tuple[str, ...] = ()
    merged: bool = False
    own: bool = False
    may_skip: bool = False
    refused: bool = False


def merged_with(work: Work, theirs: Data) -> tuple[Data, tuple[str, ...]]:
    """Return what is stored with a request's patch, and the keys that both had changed."""
    data, contested = dict(theirs), []
    if same(theirs, work.base):
        return work.mine, ()
    for key, value in work.patch().items():
        if at(theirs, key) not in (at(work.base or {}, key), at(work.mine, key)):
            contested.append(key)
        set_or_remove(data, key, value)
    return data, tuple(contested)


def set_or_remove(data: Data, key: str, value: object) -> None:
    """Apply one part of a patch."""
    if value is MISSING:
        data.pop(key, None)
    else:
        data[key] = value
