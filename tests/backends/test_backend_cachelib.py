"""The cachelib adapter against the contract: on files, in memory, on Redis, and what only cachelib has."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from cachelib import FileSystemCache, RedisCache, SimpleCache
from flask import Flask

from lazysession import LazySession
from lazysession.backend import NotStorable, Outcome, SupportsCheck, SupportsPurge
from lazysession.backends.cachelib import CacheLibBackend, FileCacheBackend
from lazysession.backends.cachelib.store import backend_of
from lazysession.backends.objects import Items
from lazysession.records.expiry import Refresh
from lazysession.records.store import RecordStore
from lazysession.testing import (
    KEY,
    ComparesAtomically,
    Contract,
    Held,
    KeepsTtl,
    PurgesExpired,
    TellsTtl,
)
from tests.support.boxed import Boxed
from tests.support.connecting import boxed_on_files, on_files
from tests.support.on_cachelib import LIVE, ONE_DAY, expiry_of, findings, make_app, sessions_in
from tests.support.refreshing import load

FUTURE = b"\xff\xff\xff\xff"  # how a file begins that expires in 2106


class CountingFiles(FileSystemCache):
    """Counts what is unpickled and pickled."""

    def __init__(self, path: Path | str, **options: Any) -> None:
        super().__init__(str(path), **{"threshold": 0, "mode": 0o600, **options})
        self.trips: list[str] = []
        cache = self

        class Counting(type(FileSystemCache.serializer)):  # type: ignore[misc]
            def load(self, *arguments: Any) -> Any:
                cache.trips.append("load")
                return super().load(*arguments)

            def dump(self, *arguments: Any) -> None:
                cache.trips.append("dump")
                super().dump(*arguments)

        self.serializer = Counting()


class CountingMemory(SimpleCache):
    """A cache that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.trips: list[str] = []

    def get(self, key: str) -> Any:
        self.trips.append("get")
        return super().get(key)

    def set(self, key: str, value: Any, timeout: Any = None) -> bool | None:
        self.trips.append("set")
        return super().set(key, value, timeout)

    def add(self, key: str, value: Any, timeout: Any = None) -> bool:
        self.trips.append("add")
        return super().add(key, value, timeout)

    def delete(self, key: str) -> bool:
        self.trips.append("delete")
        return super().delete(key)


def age_files(folder: Path | str, seconds: float) -> None:
    """Pass time for every session in a folder, for each process that looks at it."""
    for path in Path(folder).iterdir():
        if not path.name.endswith(".__wz_cache"):
            (expiry,) = struct.unpack("I", path.read_bytes()[:4])
            with path.open("r+b") as file:
                file.write(struct.pack("I", expiry - int(seconds)))


def let_pass(backend: Any, seconds: float) -> None:
    now = backend.clock
    backend.clock = lambda: now() + seconds


class TestFiles(Contract, TellsTtl, KeepsTtl, ComparesAtomically, PurgesExpired):
    """Files, from many threads and processes of one machine."""

    @pytest.fixture
    def held(self, tmp_path: Path) -> Held:
        return Held(boxed_on_files(tmp_path), partial(age_files, tmp_path), partial(boxed_on_files, tmp_path))


class TestMemory(Contract, TellsTtl, KeepsTtl, ComparesAtomically):
    """The memory of one process."""

    @pytest.fixture
    def held(self) -> Held:
        cache = SimpleCache()
        backend = CacheLibBackend(cache)

        def pass_time(seconds: float) -> None:
            for key, (expiry, value) in list(cache._cache.items()):
                cache._cache[key] = (expiry - seconds, value)

        return Held(Boxed(backend), pass_time)


class TestRedisCache(Contract):
    """A cache that cannot return the ttl, on a real Redis; use SESSION_TYPE = 'redis' instead."""

    @pytest.fixture
    def held(self, redis_url: str) -> Held:
        client: Any = redis.Redis.from_url(redis_url)
        client.flushall()
        backend = CacheLibBackend(RedisCache(client))

        def pass_time(seconds: float) -> None:
            let_pass(backend, seconds)
            for key in client.keys():
                client.pexpire(key, int(client.pttl(key) - seconds * 1000))

        return Held(Boxed(backend), pass_time)

    def test_what_is_left_is_known_where_it_was_set(self, held: Held) -> None:
        """A no_refresh change keeps the life that this process gave; another process gives a whole one."""
        passed = 0.0
        records = RecordStore(held.backend, lambda: time.time() + passed)
        records.create(KEY, b"1", 1000)
        held.pass_time(600)
        passed = 600.0
        assert records.replace(KEY, b"2", None, b"1").outcome is Outcome.STORED
        held.pass_time(402)
        assert held.backend.read(KEY) is None


def test_optional_verbs() -> None:
    """Only files need purging, and every cache can be checked."""
    assert not isinstance(CacheLibBackend(SimpleCache()), SupportsPurge)
    assert isinstance(CacheLibBackend(SimpleCache()), SupportsCheck)


class TestRoundTrips:
    """What each verb costs."""

    @pytest.mark.parametrize("kind", [CountingMemory, CountingFiles])
    def test_by_verb(self, kind: Any, tmp_path: Path) -> None:
        """Memory: one call, two to compare and replace. Files: as many readings and writings, and none to refresh."""
        files = kind is CountingFiles
        cache = kind(tmp_path) if files else kind()
        backend = FileCacheBackend(cache) if files else CacheLibBackend(cache)

        def trips(verb: Callable[..., Any], *arguments: Any) -> list[str]:
            cache.trips.clear()
            verb(*arguments)
            return list(cache.trips)

        one, two = (Items({"a": number}) for number in (1, 2))
        get, put = ("load", "dump") if files else ("get", "set")
        assert trips(backend.create, KEY, one, 1000) == ([put] if files else ["add"])
        assert trips(backend.read, KEY) == [get]
        assert trips(load, backend, Refresh(1000, 100)) == [get]
        assert trips(load, backend) == ([get] if files else [get, get, put])
        assert trips(backend.replace, KEY, two, 1000, one) == [get, put]
        assert trips(backend.replace, KEY, two, 1000, one) == [get]
        assert trips(backend.delete, KEY, one) == [get]
        assert trips(backend.delete, KEY) == ([get] if files else [get, "delete"])

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/untouched", []),
            ("/read", ["load"]),
            ("/same", ["load"]),
            ("/change", ["load", "load", "dump"]),
            ("/clear", ["load"]),
        ],
    )
    def test_through_an_app(self, tmp_path: Path, path: str, expected: list[str]) -> None:
        """A file is read once for a request that uses its session, and written for one that changes it."""
        app, cache = counted_app(tmp_path)
        cache.set(f"session:{LIVE}", {"_permanent": True, "a": 1}, timeout=ONE_DAY)
        cache.trips.clear()
        client = app.test_client()
        client.set_cookie("session", LIVE)
        client.get(path)
        assert cache.trips == expected
        assert len(sessions_in(tmp_path)) == (0 if path == "/clear" else 1)

    def test_a_due_refresh_through_an_app(self, tmp_path: Path) -> None:
        """The expiry moves, the data are not written: not one byte of the file is another."""
        app, cache = counted_app(tmp_path)
        cache.set(f"session:{LIVE}", {"_permanent": True, "a": 1}, timeout=ONE_DAY)
        age_files(tmp_path, ONE_DAY / 10)
        (path,) = sessions_in(tmp_path)
        before, inode = path.read_bytes(), path.stat().st_ino
        cache.trips.clear()
        client = app.test_client()
        client.set_cookie("session", LIVE)
        assert "Set-Cookie" in client.get("/read").headers
        assert cache.trips == ["load"]
        assert ONE_DAY - 5 < expiry_of(tmp_path) - time.time() <= ONE_DAY
        assert (path.read_bytes()[4:], path.stat().st_ino) == (before[4:], inode)

    def test_a_first_write_through_an_app(self, tmp_path: Path) -> None:
        """A visitor without a cookie costs one write."""
        app, cache = counted_app(tmp_path)
        app.test_client().get("/change")
        assert cache.trips == ["dump"]


def counted_app(folder: Path) -> tuple[Flask, CountingFiles]:
    cache = CountingFiles(folder)
    app = make_app(LazySession, SESSION_TYPE="cachelib", SESSION_CACHELIB=cache)
    assert isinstance(app.session_interface.handler.backend, FileCacheBackend)  # type: ignore[attr-defined]
    return app, cache


@pytest.mark.parametrize("kind", [CountingMemory, FileSystemCache])
def test_a_value_that_cannot_be_pickled(kind: Any, tmp_path: Path) -> None:
    """What is fixed: cachelib logs that a function cannot be pickled, and the whole session is lost."""
    backend = backend_of(FileSystemCache(str(tmp_path)) if kind is FileSystemCache else kind())
    nameless: Any = type(backend_of)(compile("0", "", "eval"), {"__name__": "nowhere"})
    one, two = Items({"a": 1}), Items({"a": 1, "sort": nameless})
    with pytest.raises(NotStorable, match=r"session\['sort'\] cannot be stored \(function: "):
        backend.create(KEY, two, 1000)
    assert backend.create(KEY, one, 1000)
    with pytest.raises(NotStorable, match=r"session\['sort'\] cannot be stored \(function: "):
        backend.replace(KEY, two, 1000, one)
    record = backend.read(KEY)
    assert record is not None
    assert record.payload == one


class TestOnlyFiles:
    """What FileSystemCache gets wrong, fixed."""

    SESSION = Items({"a": 1})

    def test_a_refresh_never_revives(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A logout by Flask-Session, which takes no lock, comes between the read and the refresh."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        files, extend = backend._files, backend._files.extend

        def logged_out_before(*arguments: Any) -> bool:
            FileSystemCache(str(tmp_path), threshold=0).delete(KEY)
            return extend(*arguments)

        monkeypatch.setattr(files, "extend", logged_out_before)
        record = load(backend)
        assert record is not None
        assert not record.touched
        assert sessions_in(tmp_path) == []

    def test_faults_of_the_disk_are_raised(self, tmp_path: Path) -> None:
        """What cannot be read is not absent, or its user would be logged out; each verb raises where cachelib logs."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        (path,) = sessions_in(tmp_path)
        path.unlink()
        path.mkdir()
        for fails in (
            partial(backend.read, KEY),
            partial(backend.touch, KEY, 1000),
            partial(backend.create, KEY, self.SESSION, 1000),
            partial(backend.replace, KEY, self.SESSION, 1000, self.SESSION),
            partial(backend.delete, KEY),
        ):
            with pytest.raises(OSError, match=r"directory|could not be deleted"):
                fails()

    def test_a_write_that_fails_is_raised(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A full disk is an error, not a session that seems saved."""
        backend = on_files(tmp_path)

        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(backend.cache.serializer, "dump", full, raising=False)
        with pytest.raises(OSError, match="could not store"):
            backend.create(KEY, self.SESSION, 1000)
        assert backend.read(KEY) is None

    def test_a_change_reads_the_bytes_again_and_replaces_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A change decodes nothing where the bytes are as they were, and leaves the count of files and their mode."""
        cache = FileSystemCache(str(tmp_path), threshold=500, mode=0o640)
        backend = backend_of(cache)
        backend.create(KEY, self.SESSION, 1000)
        path = Path(cache._get_filename(KEY))
        record = backend.read(KEY)
        assert record is not None
        count = cache._file_count
        with monkeypatch.context() as patch:
            patch.setattr("cachelib.serializers.FileSystemSerializer.load", None)
            patch.setattr(cache, "_update_count", None)
            assert backend.replace(KEY, Items({"a": 2}), 1000, record.payload).outcome is Outcome.STORED
        assert cache.get(KEY) == {"a": 2}
        assert (cache._file_count, stat.S_IMODE(path.stat().st_mode)) == (count, 0o640)
        assert backend.replace(KEY, Items({"a": 3}), 1000, record.payload).outcome is Outcome.CONFLICT

    def test_a_change_that_fails_leaves_the_session(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that is full at a change is an error; the session is as it was, and no other file is left."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        before = sorted(tmp_path.iterdir())

        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            with pytest.raises(OSError, match="No space left"):
                backend.replace(KEY, Items({"a": 2}), 1000, self.SESSION)
        assert sorted(tmp_path.iterdir()) == before
        record = backend.read(KEY)
        assert record is not None
        assert record.payload == self.SESSION

    def test_a_file_that_another_process_has_open(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a file that is open cannot be replaced, cachelib's own way waits for that."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        replace, refused = os.replace, [PermissionError(13, "in use")]

        def refuse_once(*arguments: Any) -> None:
            if refused:
                raise refused.pop()
            replace(*arguments)

        monkeypatch.setattr(os, "replace", refuse_once)
        assert backend.replace(KEY, Items({"a": 2}), 1000, self.SESSION).outcome is Outcome.STORED
        record = backend.read(KEY)
        assert record is not None
        assert record.payload == Items({"a": 2})

    def test_a_refresh_does_not_revive_what_expired(self, tmp_path: Path) -> None:
        """A session that ends between the read and its refresh stays ended."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        age_files(tmp_path, 1002)
        assert not backend.touch(KEY, 1000)
        assert backend.read(KEY) is None

    @pytest.mark.parametrize(
        "content",
        [b"", b"\x01", b"junk", b"\xff\xff\xff\xff", b"\xff\xff\xff\xffjunk", b"\xff\xff\xff\xff\x80\x04K\x01."],
    )
    def test_a_damaged_file_is_absent(self, tmp_path: Path, content: bytes) -> None:
        """Empty, cut off, not a pickle, or a pickle of no dict: a new session begins, with each verb."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        (path,) = sessions_in(tmp_path)
        path.write_bytes(content)
        assert backend.read(KEY) is None
        assert backend.replace(KEY, self.SESSION, 1000, self.SESSION).outcome is Outcome.MISSING

    def test_a_class_that_was_removed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """An object of a class that the app has lost does not fail every request."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        (path,) = sessions_in(tmp_path)
        path.write_bytes(FUTURE + b"cno_such_module\nCart\n.")
        assert backend.read(KEY) is None
        assert "cannot be decoded (ModuleNotFoundError)" in caplog.text

    def test_an_expired_file_does_not_take_the_key(self, tmp_path: Path) -> None:
        """cachelib's own add says that it does, until the next pruning."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        age_files(tmp_path, 1002)
        assert not backend.cache.add(KEY, {})
        assert backend.create(KEY, self.SESSION, 1000)

    def test_less_than_a_second_is_not_unlimited(self, tmp_path: Path) -> None:
        """A timeout of 0 would never expire: a remaining life below a second is rounded up."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 0.2)
        assert 0 < expiry_of(tmp_path) - time.time() <= 1

    def test_a_file_without_an_expiry_gets_one(self, tmp_path: Path) -> None:
        """A session without an expiry gets one at its next use."""
        backend = on_files(tmp_path)
        backend.cache.set(KEY, {"a": 1}, timeout=0)
        record = load(backend, Refresh(1000, 999))
        assert record is not None
        assert (record.ttl, record.touched) == (None, True)
        assert 990 < expiry_of(tmp_path) - time.time() <= 1000

    def test_purge_leaves_what_is_not_a_session(self, tmp_path: Path) -> None:
        """Files of other programs, temporary files and cachelib's count stay, whatever their first bytes."""
        cache = FileSystemCache(str(tmp_path), threshold=500)
        backend = FileCacheBackend(cache)
        backend.create(KEY, self.SESSION, 1000)
        backend.create(KEY + "2", self.SESSION, 5000)
        assert cache._file_count == 2
        others = [tmp_path / name for name in ("README.txt", "cafe", "z" * 64, f"{'a' * 64}.__wz_cache")]
        for path in others:
            path.write_bytes(b"\x01\x00\x00\x00")
        let_pass(backend, 2000)
        assert backend.purge() == 1
        assert cache._file_count == 1
        assert backend.read(KEY + "2") is not None
        assert all(path.exists() for path in others)

    def test_purge_takes_what_was_cut_off(self, tmp_path: Path) -> None:
        """A file without even an expiry, as a machine that lost its power leaves it, is no session."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        sessions_in(tmp_path)[0].write_bytes(b"\x01")
        assert backend.purge() == 1
        assert sessions_in(tmp_path) == []

    def test_purge_reads_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A session that was refreshed while the purge waited for the lock stays."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        age_files(tmp_path, 2000)
        locked = backend._files.locked

        def revived_before(path: str) -> Any:
            age_files(tmp_path, -2000)
            return locked(path)

        monkeypatch.setattr(backend._files, "locked", revived_before)
        assert backend.purge() == 0
        assert len(sessions_in(tmp_path)) == 1

    def test_locks_are_not_sessions(self, tmp_path: Path) -> None:
        """cachelib neither counts nor prunes the lock files."""
        cache = FileSystemCache(str(tmp_path), threshold=500)
        backend = FileCacheBackend(cache)
        backend.create(KEY, self.SESSION, 1000)
        assert len(list(tmp_path.glob("lazysession-*"))) == 1
        assert len(list(cache._list_dir())) == 1
        cache.clear()
        assert len(list(tmp_path.glob("lazysession-*"))) == 1

    def test_changes_of_another_process_are_waited_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """While another process changes the session all that changes it waits; here, where it waits, it fails."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        (path,) = tmp_path.glob("lazysession-*")
        flock = fcntl.flock
        with path.open("rb") as other:
            flock(other, fcntl.LOCK_EX)
            monkeypatch.setattr(fcntl, "flock", lambda lock, operation: flock(lock, operation | fcntl.LOCK_NB))
            for waits in (
                partial(backend.create, KEY, self.SESSION, 1000),
                partial(backend.replace, KEY, self.SESSION, 1000, self.SESSION),
                partial(backend.delete, KEY),
                partial(backend.delete, KEY, self.SESSION),
                partial(backend.touch, KEY, 1000),
            ):
                with pytest.raises(BlockingIOError):
                    waits()
            assert backend.read(KEY) is not None
        assert backend.delete(KEY, self.SESSION).outcome is Outcome.STORED

    def test_a_process_forked_meanwhile_does_not_keep_the_lock(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A descriptor that a child inherited stays open, and the lock is free all the same."""
        backend = on_files(tmp_path)
        inherited: list[int] = []
        flock = fcntl.flock

        def flock_and_fork(descriptor: int, operation: int) -> None:
            flock(descriptor, operation | fcntl.LOCK_NB)
            inherited.append(os.dup(descriptor))

        monkeypatch.setattr(fcntl, "flock", flock_and_fork)
        try:
            assert backend.create(KEY, self.SESSION, 1000)
            assert backend.replace(KEY, self.SESSION, 1000, self.SESSION).outcome is Outcome.STORED
        finally:
            for descriptor in inherited:
                os.close(descriptor)

    def test_modes(self, tmp_path: Path) -> None:
        """A directory that the adapter makes, and all in it, is for its owner alone."""
        backend = on_files(tmp_path / "new" / "sessions")
        backend.create(KEY, self.SESSION, 1000)
        folder = tmp_path / "new" / "sessions"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}

    def test_a_subclass_that_reads_files_differently(self, tmp_path: Path) -> None:
        """The methods of a subclass that reads its files differently are called."""

        class Backwards(FileSystemCache):
            def get(self, key: str) -> Any:
                found = super().get(key)
                return {name[::-1]: value for name, value in found.items()} if isinstance(found, dict) else found

        cache = Backwards(str(tmp_path))
        backend = backend_of(cache)
        assert type(backend) is CacheLibBackend
        cache.set(KEY, {"abc": 1})
        record = backend.read(KEY)
        assert record is not None
        assert record.payload == Items({"cba": 1})

    def test_without_file_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without fcntl all works in one process, and check() says what does not."""
        monkeypatch.setattr("lazysession.backends.cachelib.files.fcntl", None)
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        assert backend.replace(KEY, self.SESSION, None, self.SESSION).outcome is Outcome.STORED
        assert list(tmp_path.glob("lazysession-*")) == []
        assert "no file locks" in findings(backend)
