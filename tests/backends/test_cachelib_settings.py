"""Caches of the app's own, the settings that make one, and what ``check`` finds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import pytest
import redis
from cachelib import BaseCache, FileSystemCache, RedisCache, SimpleCache
from redis.backoff import NoBackoff
from redis.retry import Retry

from lazysession import LazySession
from lazysession.backend import Outcome
from lazysession.backends.cachelib import CacheLibBackend, FileCacheBackend, FileSystemBackend
from lazysession.backends.objects import Items
from lazysession.errors import ConfigurationError
from lazysession.processes import Recent
from lazysession.records.expiry import Refresh
from lazysession.records.store import RecordStore
from lazysession.testing import (
    KEY,
)
from tests.support.connecting import on_files
from tests.support.on_cachelib import ONE_DAY, findings, make_app, sessions_in
from tests.support.refreshing import load

CLOSED = 1  # a port on which no server listens


class LeastCache(BaseCache):
    """A cache of one's own with the three methods that Flask-Session needs; it hands out the very dict that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}
        self.timeouts: list[int] = []

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any, timeout: Any = None) -> bool:
        self.values[key] = value
        self.timeouts.append(timeout)
        return True

    def delete(self, key: str) -> bool:
        return self.values.pop(key, None) is not None


class TestAnyCache:
    """Caches with few methods."""

    def test_the_least(self) -> None:
        """A cache without an add of its own: cachelib's base says yes and stores nothing."""
        cache = LeastCache()
        backend = CacheLibBackend(cache)
        one, two = (Items({"a": number}) for number in (1, 2))
        assert backend.create(KEY, one, 1000)
        assert not backend.create(KEY, two, 1000)
        assert cache.values == {KEY: {"a": 1}}
        assert backend.replace(KEY, two, 1000, one).outcome is Outcome.STORED
        assert cache.values == {KEY: {"a": 2}}

    def test_what_is_no_session(self) -> None:
        """A value of another kind under the key counts as absent."""
        cache = LeastCache()
        cache.set(KEY, [1, 2])
        backend = CacheLibBackend(cache)
        session = Items({"a": 1})
        assert load(backend) is None
        assert backend.replace(KEY, session, 1000, session).outcome is Outcome.MISSING

    def test_what_a_process_remembers_throttles(self) -> None:
        """A process refreshes when it is due; one that remembers nothing refreshes once."""
        cache = LeastCache()
        for passed in ([0.0], [0.0]):
            records = RecordStore(CacheLibBackend(cache), lambda passed=passed: passed[0])
            cache.set(KEY, {"a": 1})
            cache.timeouts.clear()
            touched = []
            for _ in range(3):
                touched += [load(records, Refresh(1000, 100)).touched for _ in range(2)]  # type: ignore[union-attr]
                passed[0] += 102
            assert touched == [True, False] * 3
            assert cache.timeouts == [1000] * 3

    def test_what_a_process_remembers(self) -> None:
        """A change with a ttl counts as a refresh; a session that was deleted is unknown when it is created again."""
        cache = LeastCache()
        records = RecordStore(CacheLibBackend(cache))
        session = Items({"a": 1})

        def touched() -> bool:
            record = load(records, Refresh(1000, 100))
            assert record is not None
            return record.touched

        cache.set(KEY, {"a": 1})
        records.replace(KEY, session, 1000, session)
        assert not touched()
        records.delete(KEY)
        cache.set(KEY, {"a": 1})
        assert touched()

    def test_a_no_refresh_change_of_an_unknown_session(self) -> None:
        """Where the ttl is unknown it is the longest lifetime so far, and before any, Flask's default."""
        cache = LeastCache()
        records = RecordStore(CacheLibBackend(cache))
        session = Items({"a": 1})
        for key in "xyz":
            cache.set(key, {"a": 1})
        records.replace("x", session, None, session)
        load(records, Refresh(500, 100), "y")
        records.replace("z", session, None, session)
        assert cache.timeouts[3:] == [31 * ONE_DAY, 500, 500]

    def test_a_refresh_that_fails_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """The session was read; the log names neither it nor what it holds."""

        class Full(LeastCache):
            def set(self, key: str, value: Any, timeout: Any = None) -> bool:
                return timeout is None and super().set(key, value, timeout)

        cache = Full()
        cache.set(KEY, {"a": 1})
        record = load(CacheLibBackend(cache))
        assert record is not None
        assert not record.touched
        assert "could not be refreshed (OSError)" in caplog.text
        assert KEY not in caplog.text

    def test_a_logout_between_reading_and_refreshing(self) -> None:
        """A refresh stores what is there at that time, and nothing where there is nothing."""

        class LoggingOut(LeastCache):
            def get(self, key: str) -> Any:
                found = super().get(key)
                self.values.clear()
                return found

        cache = LoggingOut()
        cache.set(KEY, {"a": 1})
        record = load(CacheLibBackend(cache))
        assert record is not None
        assert not record.touched
        assert cache.values == {}

    def test_what_is_remembered_is_bounded(self) -> None:
        """The value that was stored longest ago is removed."""
        recent = Recent[int](most=2)
        recent.put("a", 0)
        recent.put("b", 2)
        recent.put("a", 1)
        recent.put("c", 3)
        assert [recent.get(key) for key in "abc"] == [1, None, 3]

    @pytest.mark.parametrize("verb", ["read", "create", "replace", "delete", "touch"])
    def test_a_refused_connection(self, verb: str) -> None:
        """A fault of the system raises what the client raises."""
        client = redis.Redis("127.0.0.1", CLOSED, retry=Retry(NoBackoff(), 0))
        backend = CacheLibBackend(RedisCache(client))
        session = Items({"a": 1})
        arguments = {
            "read": (KEY,),
            "create": (KEY, session, 1000),
            "replace": (KEY, session, 1000, session),
            "delete": (KEY,),
            "touch": (KEY, 1000),
        }
        with pytest.raises(redis.ConnectionError):
            getattr(backend, verb)(*arguments[verb])


class TestSettings:
    """SESSION_CACHELIB and its URLs."""

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("file:///{}/sessions", "{}/sessions"),
            ("file://localhost/{}/sessions", "{}/sessions"),
            ("file:///{}/my%20sessions", "{}/my sessions"),
            ("file:sessions", "sessions"),
            ("file:deep/sessions", "deep/sessions"),
            ("FILE:sessions", "sessions"),
        ],
    )
    def test_urls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, path: str) -> None:
        """A URL makes the directory, in which nothing is pruned."""
        monkeypatch.chdir(tmp_path)
        root = str(tmp_path).lstrip("/")
        app = make_app(LazySession, SESSION_TYPE="cachelib", SESSION_CACHELIB=url.format(root))
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        assert backend.cache._path == path.format("/" + root)
        assert Path(path.format(tmp_path)).is_dir()
        assert backend.cache._threshold == 0
        assert app.test_client().get("/change").status_code == 200
        assert len(sessions_in(backend.cache._path)) == 1

    @pytest.mark.parametrize(
        "value",
        [
            *("", "sessions", "/var/lib/sessions", "file:", "file://", "file:///", "file://var/lib", "file:a?b=c"),
            *("file:a#b", "redis://:hunter2@localhost", 42, b"file:a", object(), FileSystemCache),
        ],
    )
    def test_what_is_neither(self, value: Any) -> None:
        """An error at start-up names the setting, and repeats no password."""
        with pytest.raises(ConfigurationError, match="SESSION_CACHELIB cannot be used") as caught:
            make_app(LazySession, SESSION_TYPE="cachelib", SESSION_CACHELIB=value)
        assert "hunter2" not in str(caught.value)

    def test_a_directory_that_cannot_be(self, tmp_path: Path) -> None:
        """A file in the way is an error at start-up."""
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match="its directory cannot be made"):
            make_app(LazySession, SESSION_TYPE="cachelib", SESSION_CACHELIB=f"file:{tmp_path}/file")

    def test_filesystem_has_no_value(self) -> None:
        """SESSION_FILESYSTEM is no setting."""
        with pytest.raises(ConfigurationError, match="SESSION_FILE_DIR"):
            make_app(LazySession, SESSION_TYPE="filesystem", SESSION_FILESYSTEM="file:sessions")

    def test_who_builds(self) -> None:
        """Flask-Session accepts every cache, and no URL."""
        assert CacheLibBackend.from_setting(SimpleCache()) is None
        assert CacheLibBackend.from_setting("file:sessions") is not None
        assert FileSystemBackend.from_setting(None) is None


class TestCheck:
    """What check() finds, and that it finds nothing else."""

    def test_files(self, tmp_path: Path) -> None:
        """Files as the URL makes them are pickles, and that is all."""
        (problem,) = on_files(tmp_path / "sessions").check()
        assert problem.severity == "warning"
        assert "stores pickles" in problem.what

    @pytest.mark.parametrize(
        ("threshold", "mode", "folder_mode", "expected"),
        [
            (500, 0o600, 0o700, "error: Beyond 500 sessions"),
            (0, 0o644, 0o700, "warning: The files of sessions have mode 0644"),
            (0, 0o600, 0o770, "error: Other accounts can write"),
        ],
    )
    def test_a_directory(
        self, tmp_path: Path, threshold: int, mode: int, folder_mode: Literal[0o700], expected: str
    ) -> None:
        """Each thing that can be wrong is said, with the remedy."""
        tmp_path.chmod(folder_mode)
        backend = FileCacheBackend(FileSystemCache(str(tmp_path), threshold=threshold, mode=mode))
        assert expected in findings(backend)
        assert len(list(backend.check())) == 2

    def test_memory(self) -> None:
        """The memory of one process is for tests."""
        (problem,) = CacheLibBackend(SimpleCache()).check()
        assert "memory of one process" in problem.what

    def test_servers(self) -> None:
        """For a server that has its own adapter, the check recommends that one."""
        problems = findings(CacheLibBackend(RedisCache("127.0.0.1", CLOSED)))
        assert "Set SESSION_TYPE = 'redis'" in problems
        assert "stores pickles" in problems

    def test_another_serializer(self, tmp_path: Path) -> None:
        """A cache that was given a serializer without pickle is no danger."""
        from cachelib.serializers import JSONSerializer

        cache = FileSystemCache(str(tmp_path / "sessions"), threshold=0)
        cache.serializer = JSONSerializer()  # type: ignore[assignment]
        (tmp_path / "sessions").chmod(0o700)
        assert findings(FileCacheBackend(cache)) == ""

    def test_the_level_of_what_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """Checking logs nothing."""
        with caplog.at_level(logging.DEBUG):
            list(CacheLibBackend(SimpleCache()).check())
        assert caplog.text == ""
