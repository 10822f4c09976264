"""Sessions in a cache of cachelib, the dicts that Flask-Session stores there: files, memory, or any other."""

from __future__ import annotations

import errno
import pickle
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cachelib import BaseCache, FileSystemCache, NullCache, SimpleCache
from cachelib.serializers import BaseSerializer

from lazysession.backend import Problem
from lazysession.backends.cachelib.files import SessionFiles
from lazysession.backends.common import Preparation
from lazysession.backends.objects import Items, ObjectBackend, Stored

#: Errors of a path that remain when the file system is back, such as a file in the place of a directory.
_NEVER_A_DIRECTORY = (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)
#: The SESSION_TYPE that reaches the same server better, by the name of cachelib's class.
_BETTER = {
    "RedisCache": "redis",
    "ValkeyCache": "redis",
    "MemcachedCache": "memcached",
    "MongoDbCache": "mongodb",
    "DynamoDbCache": "dynamodb",
}


class CacheLibBackend(ObjectBackend):
    """Keep each session under its key in a cache; comparing and replacing excludes the threads of this process only.

    Two processes that share a cache which is neither files nor memory can lose each other's changes. The ttl is known
    for a SimpleCache; for other caches refreshes go by what each process remembers.

    :param cache: a cache of cachelib, or anything with ``get``, ``set``, ``add`` and ``delete`` that behave so.
    """

    interface_class: ClassVar[str | None] = "flask_session.cachelib.cachelib:CacheLibSessionInterface"

    def __init__(self, cache: Any) -> None:
        super().__init__()
        self.cache = cache
        # the method of cachelib's base class returns True and stores nothing
        self._adds = getattr(type(cache), "add", BaseCache.add) is not BaseCache.add

    @classmethod
    def from_interface(cls, interface: Any) -> CacheLibBackend:
        """Take over the cache of Flask-Session's interface."""
        return backend_of(interface.cache)

    @classmethod
    def from_setting(cls, value: object, **options: object) -> CacheLibBackend | None:
        """Return a backend of SESSION_CACHELIB: of a directory, as ``file:///absolute`` or ``file:relative``.

        A directory that is not there is created for its owner alone, its files too, and nothing is ever pruned.

        :raises ValueError: for anything that is neither that nor a cache.
        :returns: None for a cache, which Flask-Session takes, and without a value: it then uses the directory
            ``flask_session``, which prunes.
        """
        if value is None:
            return None
        if isinstance(value, str):
            return FileCacheBackend(_cache_in(_path_of(value)), makes_directory=True)
        if isinstance(value, type) or not all(hasattr(value, name) for name in ("get", "set", "delete")):
            raise ValueError(
                f"an object of type {type(value).__name__} is neither a cache of cachelib nor a URL such as "
                "'file:///var/lib/app/sessions'."
            )
        return None

    def find(self, key: str) -> Stored | None:
        """Get what is stored, and what a SimpleCache knows of its expiry."""
        data = self.cache.get(key)
        if not isinstance(data, dict):
            return None
        ttl = None
        if isinstance(self.cache, SimpleCache):
            expiry = self.cache._cache.get(key, (0,))[0]  # pyright: ignore[reportPrivateUsage]  # there is no other way
            ttl = expiry - self.clock() if expiry else None
        return Stored(data, ttl)

    def put(self, key: str, data: dict[str, Any], ttl: float) -> None:
        """Set with a timeout in whole seconds, at least one: with 0 it would never expire.

        :raises OSError: when the cache says that it could not.
        """
        self._try_to_pickle(data)
        if self.cache.set(key, data, timeout=_seconds(ttl)) is False:
            raise OSError(f"{type(self.cache).__name__} could not store a session.")

    def add(self, key: str, data: dict[str, Any], ttl: float) -> bool:
        """Add in one step where the cache can, else get and set."""
        if not self._adds:
            return super().add(key, data, ttl)
        self._try_to_pickle(data)
        return bool(self.cache.add(key, data, timeout=_seconds(ttl)))

    def _try_to_pickle(self, data: dict[str, Any]) -> None:
        """Raise what pickle raises: cachelib only logs some of that, and its files then hold nothing."""
        if _pickles(self.cache):
            pickle.dumps(data, pickle.HIGHEST_PROTOCOL)

    def remove(self, key: str) -> None:
        """Delete; the result is ignored, as caches return False for what is absent as well."""
        self.cache.delete(key)

    def check(self) -> Iterator[Problem]:
        """Return what is wrong with keeping sessions in this cache."""
        name = type(self.cache).__name__
        better = next((_BETTER[base.__name__] for base in type(self.cache).__mro__ if base.__name__ in _BETTER), None)
        if better is not None:
            yield Problem(
                "warning",
                f"{name} has no atomic replace: processes that change one session at once lose changes.",
                f"Set SESSION_TYPE = {better!r} with the same server; its sessions begin anew.",
                "cachelib-server",
            )
        if isinstance(self.cache, NullCache):
            yield Problem(
                "error",
                "NullCache stores nothing: every request begins a new session.",
                "Use another cache; on one machine, SESSION_CACHELIB = 'file:///path/to/directory' does.",
                "cachelib-null",
            )
        elif isinstance(self.cache, SimpleCache):
            yield Problem(
                "warning",
                "SimpleCache is the memory of one process: other workers do not see its sessions, a restart ends all, "
                f"and beyond {self.cache._threshold} it deletes live ones.",  # pyright: ignore[reportPrivateUsage]
                "Keep it to tests; on one machine, SESSION_CACHELIB = 'file:///path/to/directory' does.",
                "cachelib-memory",
            )
        elif _pickles(self.cache):
            yield Problem(
                "warning",
                f"{name} stores pickles: anyone who can write to it can run code in the app.",
                "Let only the app's own account write there, or use a SESSION_TYPE that stores msgpack or JSON.",
                "cachelib-pickle",
            )


class FileCacheBackend(CacheLibBackend):
    """Keep each session in a file of a FileSystemCache.

    Changes exclude the threads of this process and, where there is ``fcntl`` (not on Windows), the other processes on
    this machine that run LazySession. A refresh writes the expiry alone, in place, so it neither rewrites data nor
    brings a deleted file back.
    """

    def __init__(self, cache: Any, *, makes_directory: bool = False) -> None:
        super().__init__(cache)
        self._files = SessionFiles(cache)
        self._preparation = Preparation(self._make_directory, is_done=not makes_directory)

    def prepare(self) -> None:
        """Make the directory that a URL names, for its owner alone, unless it exists.

        :raises ValueError: when such a directory cannot exist.
        :raises OSError: when the file system is missing, or refuses.
        """
        self._preparation.ensure()

    def _make_directory(self) -> None:
        try:
            Path(self.cache._path).mkdir(mode=0o700, parents=True, exist_ok=True)  # pyright: ignore[reportPrivateUsage]
        except OSError as error:
            if error.errno in _NEVER_A_DIRECTORY:
                raise ValueError(f"its directory cannot be made: {error.strerror}.") from error
            raise

    @contextmanager
    def locked(self, key: str) -> Generator[None]:
        """Hold the lock of the key, and for other processes that of a lock file in the directory."""
        self._preparation.ensure()
        with super().locked(key), self._files.locked(self._files.path(key)):
            yield

    def find(self, key: str) -> Stored | None:
        """Read the file once, expiry and data, so that both are of one moment.

        :raises OSError: when it is there and cannot be read; cachelib itself would take it for absent.
        """
        self._preparation.ensure()
        return self._files.read(key, self.clock())

    def find_again(self, key: str, expected: Items) -> Stored | None:
        """Read the file again, and decode it only if its bytes are others than those of the expected payload."""
        return self._files.read(key, self.clock(), expected)

    def put_again(self, key: str, data: dict[str, Any], ttl: float) -> None:
        """Replace the file, without what cachelib does around that for a new one.

        :raises OSError: when that fails.
        """
        self._try_to_pickle(data)
        try:
            self._files.replace(key, data, int(self.clock()) + _seconds(ttl))
        except PermissionError:  # Windows, and shares of it: another process has the file open, and cachelib waits
            self.put(key, data, ttl)

    def add(self, key: str, data: dict[str, Any], ttl: float) -> bool:
        """Find and put under the key's lock: cachelib's own add is two steps, and takes expired files for taken."""
        return ObjectBackend.add(self, key, data, ttl)

    def touch(self, key: str, ttl: float, expected: Items | None = None) -> bool:
        """Write the expiry alone.

        :param expected: ignored, as comparing would read the file once more.
        """
        with self.locked(key):
            return self._files.extend(key, self.clock(), _seconds(ttl))

    def remove(self, key: str) -> None:
        """Delete the file.

        :raises OSError: when it is there and cannot be deleted; cachelib itself only logs that.
        """
        if not self.cache.delete(key):
            raise OSError("The file of a session could not be deleted.")

    def purge(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Delete the files whose expiry has passed, one by one while the directory is listed.

        :param progress: called after each with the number deleted so far, twice: how many there are is not known.
        """
        deleted = 0
        for _ in self._files.purge(self.clock()):
            deleted += 1
            if progress is not None:
                progress(deleted, deleted)
        return deleted

    def check(self) -> Iterator[Problem]:
        """Return what is wrong with the directory, and with any cache."""
        yield from super().check()
        self._preparation.ensure()
        yield from self._files.check()


class FileSystemBackend(CacheLibBackend):
    """Serve Flask-Session's deprecated type ``filesystem``: the same files, set up by SESSION_FILE_DIR and similar."""

    interface_class: ClassVar[str | None] = "flask_session.filesystem.filesystem:FileSystemSessionInterface"

    @classmethod
    def from_setting(cls, value: object, **options: object) -> CacheLibBackend | None:
        """Return None: Flask-Session builds its interface.

        :raises ValueError: for a value: there is no setting SESSION_FILESYSTEM.
        """
        if value is not None:
            raise ValueError("the directory is SESSION_FILE_DIR; for a URL, set SESSION_TYPE = 'cachelib'.")
        return None


def backend_of(cache: Any) -> CacheLibBackend:
    """Return the backend for a cache; a FileSystemCache subclass that overrides get or set is used like any other."""
    own_ways = any(getattr(type(cache), name, None) is not getattr(FileSystemCache, name) for name in ("get", "set"))
    return CacheLibBackend(cache) if own_ways else FileCacheBackend(cache)


def _path_of(url: str) -> str:
    """Return the path of a ``file:`` URL; the URL is not repeated in errors, as it may be another store's."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.query or parts.fragment:
        raise ValueError("a URL for cachelib is 'file:///absolute/directory' or 'file:relative/directory'.")
    if parts.netloc not in ("", "localhost"):
        raise ValueError(
            "a 'file:' URL names a directory of this machine: 'file:///absolute/directory' has three slashes, "
            "'file:relative/directory' none."
        )
    if parts.path in ("", "/"):
        raise ValueError("the 'file:' URL names no directory.")
    return url2pathname(parts.path)


def _cache_in(path: str) -> FileSystemCache:
    """Return a cache in a directory that may not exist yet; cachelib's own constructor would create it, or fail."""
    cache = FileSystemCache(tempfile.gettempdir(), threshold=0, mode=0o600)
    cache._path = path  # pyright: ignore[reportPrivateUsage]
    return cache


def _pickles(cache: Any) -> bool:
    serializer = getattr(cache, "serializer", None)
    return serializer is not None and getattr(type(serializer), "load", None) is BaseSerializer.load


def _seconds(ttl: float) -> int:
    return max(1, int(ttl))  # with 0 it would never expire
