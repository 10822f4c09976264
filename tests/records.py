"""What the model of sessions is made of: records, notes, requests, and what a request owes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LIFETIME, THROTTLE, NOTE_LIFETIME = 990.0, 90.0, 10.0
MARK = "_permanent"
GONE = object()

Data = dict[str, Any]
Step = Callable[[], None]


def same(one: object, other: object) -> bool:
    """Tell whether two values are stored alike, the order of their keys included."""
    return json.dumps(one) == json.dumps(other)


def has_content(data: Mapping[str, Any]) -> bool:
    """Tell whether a session is worth a record."""
    return bool(data.keys() - {MARK})


def at(data: Mapping[str, Any], key: str) -> Any:
    """Answer the value of a key in a form that compares, absent being one of its values."""
    return json.dumps(data[key]) if key in data else None


@dataclass
class Record:
    """What is stored under one id, and when it ends."""

    data: Data
    ends: float


@dataclass
class Note:
    """What a rotation leaves under the old id: it leads on ``until`` then by the app's clock, and is stored longer."""

    sid: str
    until: float
    before: Data
    ends: float


@dataclass
class Work:
    """One request: what it read, what it has made of that, and what it asked for beside.

    :param lost: the store gave no session, and the view went on without; ``touched`` tells that it wrote to it then.
    """

    cookie: str | None
    opened: bool = False
    sid: str | None = None
    base: Data | None = None
    mine: Data = field(default_factory=dict)
    permanent: bool | None = None
    refreshed: bool = False
    moved: bool = False
    cleared: bool = False
    ended: bool = False
    late: bool = False
    lost: bool = False
    touched: bool = False
    since: float = 0.0

    @property
    def id_sent(self) -> str | None:
        """The cookie, if that may be an id at all."""
        return self.cookie if self.cookie and re.fullmatch(r"[\w-]{1,128}", self.cookie) else None

    def set_permanent(self, value: bool) -> None:
        """Remember the wish until the session is opened; an equal value is no change."""
        if not self.opened:
            self.permanent = value
        elif self.mine.get(MARK) is not value:
            self.mine[MARK], self.touched = value, True

    def patch(self) -> Data:
        """Answer the keys that this request changed, with their new values."""
        base = self.base or {}
        touched = [key for key in {**base, **self.mine} if at(base, key) != at(self.mine, key)]
        return {key: self.mine.get(key, GONE) for key in touched}


@dataclass
class Owed:
    """What a request owes: the writes in their order, and what its client is told.

    :param cookie: the id that is sent; "" to delete the cookie; None for no word about it.
    :param own: a late request begins a session of its own.
    :param may_skip: the last of the writes changes nothing.
    """

    writes: list[Step] = field(default_factory=list)
    cookie: str | None = None
    permanent: bool = False
    dropped: bool = False
    contested: tuple[str, ...] = ()
    merged: bool = False
    own: bool = False
    may_skip: bool = False


def merged_with(work: Work, theirs: Data) -> tuple[Data, tuple[str, ...]]:
    """Put a request's patch on what is stored; answer that, and the keys that both had changed."""
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
    if value is GONE:
        data.pop(key, None)
    else:
        data[key] = value
