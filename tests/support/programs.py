"""Small programs that use one session: run step by step on a real session, and all at once on a plain dict.

A program is a tuple of steps. Every way to read and every way to write a session of DESIGN 4 is an entry in a table
here, with the keys that it reads and changes, so that nothing needs to watch the dict on which a program is run.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

PERMANENT = "_permanent"
KEYS = ("a", "b", "c")  # hold small numbers, so that decisions matter
LIST = "l"  # holds a list, to change inside
EXEMPT = ("_flashes", "page_history")
#: What the stored session holds when the requests arrive.
STARTS: tuple[dict[str, Any], ...] = (
    {"a": 0, "b": 1, "l": [0]},
    {"a": 1, "b": 0, "c": 2, "l": []},
    {"a": 0},
)

Data = dict[str, Any]
Pick = Callable[[Sequence[Any]], Any]
Shuffle = Callable[[list[int]], Sequence[int]]


def plain(data: Any) -> Data:
    """Return the items of a session without ``_permanent``."""
    return {key: value for key, value in data.items() if key != PERMANENT}


@dataclass
class Log:
    """The keys that a run of a program read before it changed them itself, and the keys that it changed.

    :param all_but: all keys were read at once, apart from these, which it had changed itself; None for no such read.
    :param empty_but: the same for ``bool``, which asks whether there is any key apart from these.
    """

    read: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    all_but: frozenset[str] | None = None
    empty_but: list[frozenset[str]] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)  # by ``del`` alone, and not read otherwise
    cleared: bool = False
    rotated: bool = False

    def reads(self, key: str) -> None:
        """Record a read of one key."""
        if key not in self.changed and not self.cleared:
            self.read.add(key)

    def reads_all(self) -> None:
        """Record a read of all keys: the first one has read the most."""
        if self.all_but is None and not self.cleared:
            self.all_but = frozenset(self.changed)

    def reads_empty(self) -> None:
        """Record a question whether the session is empty."""
        if not self.cleared:
            self.empty_but.append(frozenset(self.changed))

    def has_read(self, key: str) -> bool:
        """Return whether a key was read."""
        return key in self.read or (self.all_but is not None and key not in self.all_but)


# The ways to read: what they return compares equal for a session and for a dict of the same items.


def _by_item(session: Any, key: str) -> Any:
    try:
        return session[key]
    except KeyError:
        return None


def _del(session: Any, key: str) -> bool:
    try:
        del session[key]
    except KeyError:
        return False
    return True


def _marked(session: Any) -> Data:
    return {PERMANENT: session[PERMANENT]} if PERMANENT in session else {}


def _keys(keys: Any) -> tuple[str, ...]:
    return tuple(sorted(key for key in keys if key != PERMANENT))


def _items(items: Any) -> tuple[Any, ...]:
    return tuple(sorted((key, repr(value)) for key, value in items if key != PERMANENT))


def _values(session: Any) -> tuple[str, ...]:
    return tuple(sorted(repr(value) for value in session.values() if not isinstance(value, bool)))


def _length(session: Any) -> tuple[int]:
    return (len(session) - (PERMANENT in session),)


def _equal(session: Any) -> tuple[bool, ...]:
    marked = _marked(session)
    return tuple(session == {**marked, **start} for start in STARTS)


def _drain(session: Any) -> tuple[Any, ...]:
    return _items([session.popitem() for _ in range(len(session))])


READS_KEY: dict[str, Callable[[Any, str], Any]] = {
    "get": lambda session, key: session.get(key),
    "[]": _by_item,
    "in": lambda session, key: key in session,
}
READS_ALL: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "iter": lambda session: _keys(iter(session)),
    "reversed": lambda session: _keys(reversed(session)),
    "keys": lambda session: _keys(session.keys()),
    "values": _values,
    "items": lambda session: _items(session.items()),
    "session.copy": lambda session: _items(session.copy().items()),
    "copy.copy": lambda session: _items(copy.copy(session).items()),
    "deepcopy": lambda session: _items(copy.deepcopy(session).items()),
    "dict": lambda session: _items(dict(session).items()),
    "**": lambda session: _items({**session}.items()),
    "|": lambda session: _items((session | {}).items()),
    "{} |": lambda session: _items(({} | session).items()),
    "pickle": lambda session: _items(session.__reduce_ex__(4)[4]),
    "len": _length,
    "==": _equal,
}
#: The ways to read that change what they read as well.
TAKES: dict[str, Callable[[Any, str], Any]] = {
    "pop": lambda session, key: session.pop(key, None),
    "del": _del,
    "setdefault": lambda session, key: session.setdefault(key, 1),
    "drain": lambda session, _key: _drain(session),
}
READS = (*READS_KEY, *READS_ALL, *TAKES, "bool")

# The ways to write one key; those that do not take a value remove it.


def _update(session: Any, change: Any) -> None:
    session.update(change)


def _or(session: Any, change: Data) -> None:
    session |= change


WRITES: dict[str, Callable[[Any, str, Any], Any]] = {
    "[]=": lambda session, key, value: session.__setitem__(key, value),
    "update(dict)": lambda session, key, value: session.update({key: value}),
    "update(pairs)": lambda session, key, value: session.update([(key, value)]),
    "update(**kw)": lambda session, key, value: session.update(**{key: value}),
    "|=": lambda session, key, value: _or(session, {key: value}),
    "|= pairs": lambda session, key, value: _or(session, [(key, value)]),  # type: ignore[arg-type]
}


@dataclass
class View:
    """One run of a program.

    :param session: a session, or a dict.
    :param rotate: asks for a new id; does nothing where the session is a dict.
    """

    session: Any
    rotate: Callable[[], None] = lambda: None
    log: Log = field(default_factory=Log)

    def read(self, way: str, key: str) -> Any:
        """Read in one of the ways to read."""
        if way in READS_KEY:
            self.log.reads(key)
            return READS_KEY[way](self.session, key)
        if way in READS_ALL:
            self.log.reads_all()
            return READS_ALL[way](self.session)
        if way == "bool":
            self.log.reads_empty()
            return bool(self.session)
        return self._take(way, key)

    def _take(self, way: str, key: str) -> Any:
        if way == "drain":
            self.log.reads_all()
            before = plain(self.session) if type(self.session) is dict else {}
            drained = TAKES[way](self.session, key)
            self.log.changed |= set(before)
            return drained
        if way == "del" and not self.log.has_read(key) and key not in self.log.changed and not self.log.cleared:
            self.log.deleted.add(key)
        self.log.reads(key)
        changes = way != "setdefault" or type(self.session) is not dict or key not in self.session
        answer = TAKES[way](self.session, key)
        if changes:
            self.log.changed.add(key)
        return answer

    def write(self, way: str, key: str, value: Any) -> None:
        """Write in one of the ways to write."""
        self.log.changed.add(key)
        WRITES[way](self.session, key, value)


@dataclass(frozen=True)
class Write:
    """Assign a value, perhaps the one that is there."""

    way: str
    key: str
    value: int

    def run(self, view: View) -> Any:
        """Take the step, and return what it saw."""
        view.write(self.way, self.key, self.value)


@dataclass(frozen=True)
class Decide:
    """Read, and write only where that gives what was expected."""

    way: str
    key: str
    expected: Any
    writes: tuple[Write, ...]

    def run(self, view: View) -> Any:
        """Take the step, and return what it saw."""
        seen = view.read(self.way, self.key)
        if is_expected(seen, self.expected):
            for write in self.writes:
                write.run(view)
        return copy.deepcopy(seen)


@dataclass(frozen=True)
class Derive:
    """Write a value that was made of what was read."""

    way: str
    key: str
    write: str
    target: str

    def run(self, view: View) -> Any:
        """Take the step, and return what it saw."""
        seen = copy.deepcopy(view.read(self.way, self.key))
        view.write(self.write, self.target, digest(seen) % 1000)
        return seen


@dataclass(frozen=True)
class Increment:
    """Count one up."""

    way: str
    key: str

    def run(self, view: View) -> Any:
        """Take the step, and return what it saw."""
        view.write(self.way, self.key, (view.read("get", self.key) or 0) + 1)


@dataclass(frozen=True)
class WriteBack:
    """Write back what is there, as Flask-Principal does."""

    way: str
    key: str

    def run(self, view: View) -> Any:
        """Take the step, and return what it saw."""
        if view.read("in", self.key):
            view.write(self.way, self.key, view.read("[]", self.key))


@dataclass(frozen=True)
class Append:
    """Change inside a list, which the session cannot notice."""

    way: str  # get, [] or setdefault
    value: int

    def run(self, view: View) -> Any:
        """Take the step, and return what it saw."""
        if self.way == "setdefault":
            view.log.reads(LIST)
            if type(view.session) is dict and LIST not in view.session:
                view.log.changed.add(LIST)
            view.session.setdefault(LIST, []).append(self.value)
            return
        there = view.read(self.way, LIST)
        if there is not None:
            there.append(self.value)


@dataclass(frozen=True)
class Rotate:
    """Ask for a new id."""

    def run(self, view: View) -> Any:
        """Take the step."""
        view.log.rotated = True
        view.rotate()


@dataclass(frozen=True)
class Clear:
    """Log out."""

    def run(self, view: View) -> Any:
        """Take the step."""
        view.log.cleared = True
        view.session.clear()


@dataclass(frozen=True)
class Permanent:
    """Say how long the cookie lives, which is no part of what is compared."""

    value: bool

    def run(self, view: View) -> Any:
        """Take the step."""
        if type(view.session) is not dict:
            view.session.permanent = self.value


@dataclass(frozen=True)
class Flash:
    """Add to a key that is exempt, or take it."""

    key: str
    take: bool

    def run(self, view: View) -> Any:
        """Take the step."""
        if self.take:
            view.session.pop(self.key, None)
        else:
            view.session[self.key] = [*view.session.get(self.key, []), 1]


Step = Write | Decide | Derive | Increment | WriteBack | Append | Rotate | Clear | Permanent | Flash
Program = tuple[Step, ...]


def digest(seen: Any) -> int:
    """Return a number for what was read; numbers and None stand for themselves, so that small values occur."""
    return seen if type(seen) is int else zlib.crc32(repr(seen).encode())


def is_expected(seen: Any, expected: Any) -> bool:
    """Return whether a decision falls: by the value where that is small, otherwise by the parity of a digest."""
    if seen is None or type(seen) is int:
        return bool(seen == expected)
    if isinstance(seen, bool):
        return seen is bool(expected)
    return digest(seen) % 2 == (expected or 0) % 2


@dataclass(frozen=True)
class Run:
    """What a program makes of a session when it runs alone."""

    result: Data
    log: Log
    seen: tuple[Any, ...]


def run_alone(program: Program, data: Data) -> Run:
    """Run a program on a copy of a session's items, from its first step to its last."""
    before = copy.deepcopy(data)
    view = View(copy.deepcopy(data))
    seen = tuple(copy.deepcopy(step.run(view)) for step in program)
    result = plain(view.session)
    for key in {**before, **result}:  # what changed inside a value
        if (key in before) != (key in result) or before.get(key) != result.get(key):
            view.log.changed.add(key)
    return Run(result, view.log, seen)


# Making programs: ``pick`` is random.choice, or a draw of Hypothesis, which then knows how to make them shorter.

WAYS = tuple(WRITES)
VALUES = (0, 1, 2)


def make_write(pick: Pick) -> Write:
    """Return an assignment."""
    return Write(pick(WAYS), pick(KEYS), pick(VALUES))


def make_decision(pick: Pick) -> Decide:
    """Return a decision about one or two assignments."""
    way = pick(_WEIGHTED_READS)
    writes = tuple(make_write(pick) for _ in range(pick((1, 2))))
    return Decide(way, pick((*KEYS, LIST)) if way != "setdefault" else pick(KEYS), pick((*VALUES, None)), writes)


def make_derivation(pick: Pick) -> Derive:
    """Return an assignment of a value that is made of what is read."""
    return Derive(pick(_WEIGHTED_READS), pick(KEYS), pick(WAYS), pick(KEYS))


_WEIGHTED_READS = (*READS_KEY, *READS_KEY, *READS_KEY, *READS_ALL, *TAKES, "pop", "pop", "del", "bool", "bool")
_MAKERS: dict[str, Callable[[Pick], Step]] = {
    "write": make_write,
    "decide": make_decision,
    "derive": make_derivation,
    "increment": lambda pick: Increment(pick(WAYS), pick(KEYS)),
    "write back": lambda pick: WriteBack(pick(WAYS), pick((*KEYS, LIST))),
    "append": lambda pick: Append(pick(("get", "[]", "setdefault")), pick(VALUES)),
    "rotate": lambda pick: Rotate(),
    "clear": lambda pick: Clear(),
    "permanent": lambda pick: Permanent(pick((True, False))),
}
_WEIGHTED_STEPS = (
    *("write",) * 6,
    *("decide",) * 7,
    *("derive",) * 2,
    *("increment",) * 2,
    *("write back",) * 2,
    *("append",) * 2,
    *("rotate", "clear", "permanent"),
)


def make_program(pick: Pick) -> Program:
    """Return a program of one to four steps."""
    return tuple(_MAKERS[pick(_WEIGHTED_STEPS)](pick) for _ in range(pick((1, 2, 2, 3, 3, 4))))


@dataclass(frozen=True)
class Case:
    """Some programs, the session that they find, and the order in which their steps are taken.

    :param order: the number of a program once for each of its steps, and once more for its end.
    """

    start: Data
    programs: tuple[Program, ...]
    order: tuple[int, ...]


def make_case(pick: Pick, shuffle: Shuffle) -> Case:
    """Return two or three programs, and an order of their steps."""
    programs = tuple(make_program(pick) for _ in range(pick((2, 2, 3))))
    turns = [number for number, program in enumerate(programs) for _ in range(len(program) + 1)]
    return Case(pick(STARTS), programs, tuple(shuffle(turns)))
