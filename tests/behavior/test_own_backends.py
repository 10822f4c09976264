"""Messages for authors of a backend: by the contract suite, and at start-up."""

from __future__ import annotations

import ast
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from fakeredis import FakeRedis
from flask import Flask
from flask_session.redis import RedisSessionInterface

from lazysession import ConfigurationError, LazySession, registry, testing
from lazysession.backend import Outcome, Record, WriteResult

Progress = Callable[[int, int], None]


class Memory:
    """A sound backend: a dict and a lock."""

    interface_class: ClassVar[str | None] = None

    def __init__(self) -> None:
        self.items: dict[str, tuple[bytes, float]] = {}
        self.lock = threading.RLock()
        self.passed = 0.0

    @classmethod
    def from_interface(cls, interface: object) -> Memory:
        raise NotImplementedError

    @classmethod
    def from_setting(cls, value: object, *, size: int = 0, color: str = "") -> Memory:
        return cls()

    def now(self) -> float:
        return time.monotonic() + self.passed

    def live(self, key: str) -> tuple[bytes, float] | None:
        item = self.items.get(key)
        return item if item is not None and item[1] > self.now() else None

    def read(self, key: str) -> Record | None:
        with self.lock:
            item = self.live(key)
            return None if item is None else Record(item[0], item[1] - self.now())

    def read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        with self.lock:
            record = self.read(key)
            if record is None or record.ttl is None or ttl is None or unless_more_than < record.ttl <= ttl + 1:
                return record
            return record._replace(touched=self.touch(key, ttl))

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        with self.lock:
            if self.live(key) is not None:
                return False
            self.items[key] = payload, self.now() + ttl
            return True

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        with self.lock:
            compared, item = self.compare(key, expected)
            if item is not None:
                self.items[key] = payload, item[1] if ttl is None else self.now() + ttl
            return compared

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        with self.lock:
            compared, item = self.compare(key, expected)
            if item is not None:
                del self.items[key]
            return compared

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        with self.lock:
            _, item = self.compare(key, expected)
            if item is not None:
                self.items[key] = item[0], self.now() + ttl
            return item is not None

    def compare(self, key: str, expected: bytes | None) -> tuple[WriteResult, tuple[bytes, float] | None]:
        """Return what a write returns, and what is stored if the write may go on."""
        item = self.live(key)
        if item is None:
            return WriteResult(Outcome.MISSING), None
        if expected is None:
            return WriteResult(Outcome.STORED, item[0]), item
        return (
            (WriteResult(Outcome.STORED), item)
            if item[0] == expected
            else (WriteResult(Outcome.CONFLICT, item[0]), None)
        )

    def purge(self, progress: Progress | None = None) -> int:
        expired = [key for key in self.items if self.live(key) is None]
        for done, key in enumerate(expired, 1):
            del self.items[key]
            if progress is not None:
                progress(done, len(expired))
        return len(expired)


# The contract suite


class Suite(
    testing.Contract,
    testing.ReadsAndTouches,
    testing.TellsTtl,
    testing.KeepsTtl,
    testing.ComparesAtomically,
    testing.PurgesExpired,
):
    """All of it, on a few turns."""

    turns = 3


Suite.__test__ = False  # type: ignore[attr-defined]  # it is called below


def arguments_of(test: Any) -> list[dict[str, Any]]:
    """Return the arguments that a test is parametrized with."""
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names = [mark.args[0]] if isinstance(mark.args[0], str) else list(mark.args[0])
            rows = [[row] if len(names) == 1 else row for row in mark.args[1]]
            return [dict(zip(names, row, strict=True)) for row in rows]
    return [{}]


def failures(kind: type[Memory]) -> dict[str, str]:
    """Run the contract suite on a backend; return the message of each test that failed."""
    failed = {}
    for name in sorted(name for name in dir(Suite) if name.startswith("test_")):
        test = getattr(Suite(), name)
        for arguments in arguments_of(test):
            backend = kind()

            def pass_time(seconds: float, backend: Memory = backend) -> None:
                backend.passed += seconds

            try:
                test(testing.Held(backend, pass_time), **arguments)
            except pytest.skip.Exception:
                pass
            except AssertionError as error:
                failed[name] = str(error)
    return failed


def broken(verb: str, act: Callable[..., Any]) -> type[Memory]:
    """Make a backend of which one verb is broken; ``act`` gets the sound verb first."""
    sound = getattr(Memory, verb)

    def method(self: Memory, *arguments: Any, **options: Any) -> Any:
        return act(self, sound, *arguments, **options)

    return type("Broken", (Memory,), {verb: method})


def _replace_by_upsert(self: Memory, sound: Any, key: str, payload: bytes, ttl: Any, expected: bytes) -> WriteResult:
    self.items[key] = payload, self.now() + (ttl or 1000)
    return WriteResult(Outcome.STORED)


def _replace_without_comparing(
    self: Memory, sound: Any, key: str, payload: bytes, ttl: Any, expected: bytes
) -> WriteResult:
    item = self.live(key)
    return WriteResult(Outcome.MISSING) if item is None else sound(self, key, payload, ttl, item[0])  # type: ignore[no-any-return]


def _replace_with_new_life(
    self: Memory, sound: Any, key: str, payload: bytes, ttl: Any, expected: bytes
) -> WriteResult:
    return sound(self, key, payload, 1000 if ttl is None else ttl, expected)  # type: ignore[no-any-return]


def _replace_keeping_life(self: Memory, sound: Any, key: str, payload: bytes, ttl: Any, expected: bytes) -> WriteResult:
    return sound(self, key, payload, None, expected)  # type: ignore[no-any-return]


def _replace_after_unknown(
    self: Memory, sound: Any, key: str, payload: bytes, ttl: Any, expected: bytes
) -> WriteResult:
    result = sound(self, key, payload, ttl, expected)
    return WriteResult(Outcome.TTL_UNKNOWN) if ttl is None and result.outcome is Outcome.STORED else result  # type: ignore[no-any-return]


def _delete_without_comparing(self: Memory, sound: Any, key: str, expected: bytes | None = None) -> WriteResult:
    sound(self, key)
    return WriteResult(Outcome.STORED)


def _delete_nothing(self: Memory, sound: Any, key: str, expected: bytes | None = None) -> WriteResult:
    return WriteResult(Outcome.STORED)


def _delete_silently(self: Memory, sound: Any, key: str, expected: bytes | None = None) -> WriteResult:
    deleted = sound(self, key, expected)
    return deleted._replace(current=None)  # type: ignore[no-any-return]


def _delete_absent_is_stored(self: Memory, sound: Any, key: str, expected: bytes | None = None) -> WriteResult:
    return sound(self, key, expected) if expected is not None else sound(self, key)._replace(outcome=Outcome.STORED)  # type: ignore[no-any-return]


def _read_touching(self: Memory, sound: Any, key: str) -> Any:
    self.touch(key, 1000)
    return sound(self, key)


def _read_expired(self: Memory, sound: Any, key: str) -> Any:
    item = self.items.get(key)
    return sound(self, key) or (Record(item[0], 1.0) if item else None)


def _read_empty_as_absent(self: Memory, sound: Any, key: str) -> Any:
    record = sound(self, key)
    return record if record is not None and record.payload else None


def _read_without_ttl(self: Memory, sound: Any, key: str, *arguments: Any) -> Any:
    record = sound(self, key, *arguments)
    return None if record is None else record._replace(ttl=None)


def _read_ttl_after(self: Memory, sound: Any, key: str, ttl: float | None, unless_more_than: float) -> Any:
    record = sound(self, key, ttl, unless_more_than)
    return record._replace(ttl=ttl) if record is not None and record.touched else record


def _read_always_touching(self: Memory, sound: Any, key: str, ttl: float | None, unless_more_than: float) -> Any:
    return sound(self, key, ttl or 1000, ttl or 1000)


def _read_never_touching(self: Memory, sound: Any, key: str, ttl: float | None, unless_more_than: float) -> Any:
    return sound(self, key, None, unless_more_than)


def _touch_nothing(self: Memory, sound: Any, key: str, ttl: float, expected: bytes | None = None) -> bool:
    return self.live(key) is not None


def _touch_returning_none(self: Memory, sound: Any, key: str, ttl: float, expected: bytes | None = None) -> None:
    sound(self, key, ttl, expected)


def _touch_the_absent(self: Memory, sound: Any, key: str, ttl: float, expected: bytes | None = None) -> bool:
    sound(self, key, ttl, expected)
    return True


def _touch_creating(self: Memory, sound: Any, key: str, ttl: float, expected: bytes | None = None) -> bool:
    self.items[key] = self.items.get(key, (b"", 0.0))[0], self.now() + ttl
    return True


def _touch_longer(self: Memory, sound: Any, key: str, ttl: float, expected: bytes | None = None) -> bool:
    item = self.live(key)
    return bool(sound(self, key, ttl if item is None else max(ttl, item[1] - self.now()), expected))


def _create_over(self: Memory, sound: Any, key: str, payload: bytes, ttl: float) -> bool:
    self.items[key] = payload, self.now() + ttl
    return True


def _create_returning_none(self: Memory, sound: Any, *arguments: Any) -> None:
    sound(self, *arguments)


def _create_in_capitals(self: Memory, sound: Any, key: str, payload: bytes, ttl: float) -> bool:
    return bool(sound(self, key.lower(), payload, ttl))


def _purge_all(self: Memory, sound: Any, progress: Progress | None = None) -> int:
    count = sound(self, progress)
    self.items.clear()
    return int(count)


def _purge_without_progress(self: Memory, sound: Any, progress: Progress | None = None) -> int:
    return int(sound(self))


def _purge_without_count(self: Memory, sound: Any, progress: Progress | None = None) -> None:
    sound(self, progress)


def _purge_nothing(self: Memory, sound: Any, progress: Progress | None = None) -> int:
    return 0


def _purge_with_wrong_progress(self: Memory, sound: Any, progress: Progress | None = None) -> int:
    count = int(sound(self))
    if progress is not None:
        progress(1, 3)
    return count


MISTAKES: list[tuple[str, Callable[..., Any], str, str]] = [
    ("replace", _replace_by_upsert, "test_absent", "never creates"),
    ("replace", _replace_without_comparing, "test_replace_compares", "CONFLICT"),
    ("replace", _replace_without_comparing, "test_replaces_of_the_same", "one step"),
    ("replace", _replace_with_new_life, "test_replace_keeps_the_expiry", "ttl of None"),
    ("replace", _replace_keeping_life, "test_replace_sets_the_ttl", "seconds to live from now"),
    ("replace", _replace_after_unknown, "test_replace_that_keeps_the_ttl", "TTL_UNKNOWN"),
    ("delete", _delete_without_comparing, "test_delete_compares", "MISSING"),
    ("delete", _delete_nothing, "test_delete", "delete"),
    ("delete", _delete_silently, "test_delete_returns_what_it_removed", "current"),
    ("delete", _delete_absent_is_stored, "test_delete_returns_what_it_removed", "MISSING"),
    ("read", _read_touching, "test_a_read_keeps_nothing_alive", "moves no expiry"),
    ("read", _read_expired, "test_expired", "expired"),
    ("read", _read_empty_as_absent, "test_payloads_come_back_as_they_were", "None"),
    ("read_and_touch", _read_always_touching, "test_without_a_ttl_it_touches_nothing", "ttl of None"),
    ("read_and_touch", _read_always_touching, "test_touch_when_due", "Touch unless"),
    ("read_and_touch", _read_never_touching, "test_it_keeps_alive", "touched=True"),
    ("read_and_touch", _read_without_ttl, "test_ttl_is_what_was_left_before", "ttl"),
    ("read_and_touch", _read_ttl_after, "test_ttl_is_what_was_left_before", "before"),
    ("touch", _touch_nothing, "test_a_touch_keeps_alive", "touch"),
    ("touch", _touch_returning_none, "test_a_touch_keeps_alive", "return True"),
    ("touch", _touch_the_absent, "test_absent", "Return False"),
    ("touch", _touch_creating, "test_absent", "Return False"),
    ("touch", _touch_longer, "test_touch_sets_the_ttl", "seconds left"),
    ("create", _create_over, "test_create_takes_no_key_twice", "taken"),
    ("create", _create_over, "test_creates_of_the_same", "one"),
    ("create", _create_returning_none, "test_payloads_come_back_as_they_were", "True"),
    ("create", _create_in_capitals, "test_keys_do_not_touch_each_other", "case"),
    ("purge", _purge_all, "test_purge", "has not expired"),
    ("purge", _purge_without_progress, "test_purge", "progress(removed so far, all)"),
    ("purge", _purge_without_count, "test_purge", "how many"),
    ("purge", _purge_nothing, "test_purge", "how many"),
    ("purge", _purge_with_wrong_progress, "test_purge", "progress(removed so far, all)"),
]


def test_a_sound_backend_passes() -> None:
    """The backend in which the mistakes are made is sound."""
    assert failures(Memory) == {}


@pytest.mark.parametrize(
    ("verb", "act", "test", "words"), MISTAKES, ids=[f"{act.__name__[1:]}-{test}" for _, act, test, _ in MISTAKES]
)
def test_a_mistake_is_named(verb: str, act: Callable[..., Any], test: str, words: str) -> None:
    """A broken verb makes its test fail, and each message names the verb, what was expected and what was returned."""
    failed = failures(broken(verb, act))
    assert words in failed[test]
    assert f"{verb}(" in failed[test]
    assert all(failed.values())


def test_every_assertion_has_a_message() -> None:
    """An author who sees a test fail need not read its source."""
    tree = ast.parse(Path(testing.__file__).read_text())
    silent = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert) and node.msg is None]
    assert silent == []


def test_the_page_says_what_a_purge_reports() -> None:
    """The page says what a purge has to report."""
    page = (Path(__file__).parents[2] / "docs/guides/own-backend.rst").read_text()
    assert "progress(removed, total)" in page


# Start-up


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Flask]:
    """A function that starts an app on an adapter, as the entry point ``shelf`` of a package names it."""

    def start(adapter: object, **settings: Any) -> Flask:
        module = ModuleType("their_shelf")
        module.ShelfBackend = adapter  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "their_shelf", module)
        point = EntryPoint("shelf", "their_shelf:ShelfBackend", registry.GROUP)
        monkeypatch.setattr(registry, "installed", lambda: (point,))
        app = Flask("shop")
        app.config.update(SESSION_TYPE="shelf", SESSION_SHELF="/mnt", **settings)
        LazySession(app)
        return app

    return start


def without(name: str) -> type:
    """Return the adapter without one of its members."""
    members = {member: value for member, value in vars(Memory).items() if member != name}
    return type("ShelfBackend", (), {member: value for member, value in members.items() if member != "__dict__"})


def test_a_sound_adapter_starts(start: Callable[..., Flask]) -> None:
    """Its options are taken."""
    app = start(Memory, SESSION_SHELF_SIZE=3, SESSION_SHELF_COLOR="red")
    assert type(app.session_interface.handler.backend) is Memory  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "member",
    [
        "interface_class",
        "from_interface",
        "from_setting",
        "read",
        "create",
        "replace",
        "delete",
        "touch",
    ],
)
def test_a_missing_member_is_named(member: str, start: Callable[..., Flask]) -> None:
    """The app does not start, and the error names the class, the entry point, what is missing and the page."""
    with pytest.raises(ConfigurationError) as raised:
        start(without(member))
    message = str(raised.value)
    for words in ("their_shelf:ShelfBackend", "SESSION_TYPE 'shelf'", f" {member}", "own-backend"):
        assert words in message


def test_all_that_is_missing_is_named_at_once(start: Callable[..., Flask]) -> None:
    """An author need not start the app once for each."""
    with pytest.raises(ConfigurationError, match="interface_class, from_interface, from_setting"):
        start(type("ShelfBackend", (), {}))


def test_an_unknown_option_is_named(start: Callable[..., Flask]) -> None:
    """The error names the setting and those that the adapter knows."""
    with pytest.raises(ConfigurationError, match="SESSION_SHELF_COLOUR") as raised:
        start(Memory, SESSION_SHELF_COLOUR="red", SESSION_SHELF_SIZE=3)
    message = str(raised.value)
    assert "SESSION_SHELF_COLOR" in message.replace("SESSION_SHELF_COLOUR", "")
    assert "SESSION_SHELF_SIZE" in message
    assert "their_shelf:ShelfBackend" in message


def test_an_adapter_without_options(start: Callable[..., Flask]) -> None:
    """The error says that there are none."""

    class Plain(Memory):
        @classmethod
        def from_setting(cls, value: object) -> Memory:  # type: ignore[override]
            return cls()

    with pytest.raises(ConfigurationError, match=r"SESSION_SHELF_SIZE.*takes no options"):
        start(Plain, SESSION_SHELF_SIZE=3)


def not_a_classmethod(self: object, value: object, **options: object) -> Memory:
    return Memory()


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("from_setting", not_a_classmethod, "classmethod"),
        ("from_setting", classmethod(lambda cls: Memory()), "from_setting(value, **options)"),
        ("from_setting", "text", "from_setting"),
        ("interface_class", 5, "interface_class"),
        ("interface_class", "redis", "interface_class"),
        ("interface_class", "flask_session.redis.redis:NoSuchInterface", "interface_class"),
        ("read", lambda self, key, renew: None, "read(key)"),
        ("create", lambda self, key, payload: True, "create(key, payload, ttl)"),
        ("replace", lambda self, key, payload, ttl: None, "replace(key, payload, ttl, expected)"),
        ("delete", lambda self, key: None, "delete(key, expected=None)"),
        ("touch", lambda self, key, ttl: None, "touch(key, ttl, expected=None)"),
        ("delete", 5, "delete"),
    ],
)
def test_a_member_that_cannot_be_called_is_named(
    member: str, value: object, words: str, start: Callable[..., Flask]
) -> None:
    """A wrong signature is found at start-up, and not by the first visitor."""
    with pytest.raises(ConfigurationError) as raised:
        start(type("ShelfBackend", (Memory,), {member: value}))
    assert words in str(raised.value)
    assert "their_shelf:ShelfBackend" in str(raised.value)


def test_what_is_made_of_an_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``from_interface`` returns is checked in the same way."""
    from lazysession.backends.redis import RedisBackend

    monkeypatch.setattr(RedisBackend, "from_interface", classmethod(lambda cls, interface: object()))
    app = Flask("shop")
    app.config.update(SESSION_TYPE="redis")
    app.session_interface = RedisSessionInterface(app, client=FakeRedis())
    with pytest.raises(ConfigurationError, match=r"from_interface.*read, create, replace, delete, touch"):
        LazySession(app)
