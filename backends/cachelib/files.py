"""The directory of a FileSystemCache: what cachelib leaves out, on the files that it writes."""

from __future__ import annotations

import io
import logging
import os
import stat
import struct
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, BinaryIO

from cachelib.serializers import FileSystemSerializer

from lazysession.backend import Problem
from lazysession.backends.objects import Items, Stored
from lazysession.processes import stripe

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("lazysession")

_EXPIRY = struct.Struct("I")  # a file begins with it: seconds since the epoch; 0 for never
_LOCKS = 16
_MODE_OF_TEMPORARY = 0o600


class SessionFiles:
    """Read, refresh, lock and purge the files of a FileSystemCache.

    :param cache: the cache; any, as its directory, mode and names have no public attributes.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._path: Any = lru_cache()(cache._get_filename)  # it hashes the key, and a change asks for it four times

    def path(self, key: str) -> str:
        """Return the path of a session's file."""
        path: str = self._path(key)
        return path

    @property
    def _pickles(self) -> bool:
        """Whether the cache has cachelib's own serializer, and not one of the app's."""
        return type(self._cache.serializer) is FileSystemSerializer

    @contextmanager
    def locked(self, path: str) -> Generator[None]:
        """Hold the lock of a file, shared by all threads and processes of this machine; without fcntl, do nothing.

        The locks are files of their own, as a session's file is another one after each change.
        """
        if fcntl is None:
            yield
            return
        # The name ends as that of cachelib's temporary files, which it neither counts nor prunes.
        name = f"lazysession-{stripe(os.path.basename(path), _LOCKS)}{self._cache._fs_transaction_suffix}"
        lock = os.open(os.path.join(self._cache._path, name), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # closing would not do: a process forked meanwhile has it open too
        finally:
            os.close(lock)

    def read(self, key: str, now: float, expected: Items | None = None) -> Stored | None:
        """Return what a file holds, or None for what is absent, expired or cannot be decoded.

        :param expected: a payload of this file; the same bytes are not decoded once more.
        :raises OSError: when the file is there and cannot be read.
        """
        try:
            with open(self.path(key), "rb", buffering=0) as file:
                content = file.read()
        except FileNotFoundError:
            return None
        ttl, encoded = _ttl_of(content, now), content[_EXPIRY.size :]
        if not _lives(ttl):
            return None
        if expected is not None and expected.pickled == encoded and self._pickles:
            return Stored(expected.items, ttl, encoded)
        data = self._load(encoded)
        return Stored(data, ttl, encoded if self._pickles else None) if isinstance(data, dict) else None

    def _load(self, encoded: bytes) -> Any:
        try:
            return self._cache.serializer.load(io.BytesIO(encoded))
        except Exception as error:  # unpickling raises whatever the bytes make it raise
            logger.warning("A stored session cannot be decoded (%s); it counts as absent.", type(error).__name__)
            return None

    def replace(self, key: str, data: dict[str, Any], expiry: int) -> None:
        """Put a new file in the place of one that is there: cachelib's count of files stays, and nothing is pruned.

        :param expiry: seconds since the epoch.
        """
        content = io.BytesIO()
        content.write(_EXPIRY.pack(expiry))
        self._cache.serializer.dump(data, content)
        number, temporary = tempfile.mkstemp(self._cache._fs_transaction_suffix, dir=self._cache._path)
        try:
            with open(number, "wb") as file:
                file.write(content.getbuffer())
            if self._cache._mode != _MODE_OF_TEMPORARY:
                os.chmod(temporary, self._cache._mode)
            os.replace(temporary, self.path(key))
        except BaseException:
            with suppress(FileNotFoundError):
                os.remove(temporary)
            raise

    def extend(self, key: str, now: float, seconds: int) -> bool:
        """Write the expiry, and nothing else; False when the file is gone or has expired."""
        with suppress(FileNotFoundError), open(self.path(key), "r+b") as file:
            if _lives(_read_ttl(file, now)):
                file.seek(0)
                file.write(_EXPIRY.pack(int(now) + seconds))
                return True
        return False

    def purge(self, now: float) -> Iterator[int]:
        """Delete the files whose expiry has passed; yield 1 after each."""
        with os.scandir(self._cache._path) as entries:
            for entry in entries:
                if self._is_session(entry.name) and self._expired(entry.path, now) and self._remove(entry.path, now):
                    self._cache._update_count(delta=-1)
                    yield 1

    def _is_session(self, name: str) -> bool:
        """Return whether a file has a name of cachelib's, a hash; so has its count of files, which never expires."""
        return len(name) == self._cache._hash_method().digest_size * 2 and not name.strip("0123456789abcdef")

    def _expired(self, path: str, now: float) -> bool:
        with suppress(FileNotFoundError), open(path, "rb") as file:
            return not _lives(_read_ttl(file, now))
        return False

    def _remove(self, path: str, now: float) -> bool:
        with self.locked(path), suppress(FileNotFoundError):
            if self._expired(path, now):  # again: it may have been refreshed before the lock was held
                os.remove(path)
                return True
        return False

    def check(self) -> Iterator[Problem]:
        """Return what is wrong with the directory and how the cache was made."""
        if self._cache._threshold:
            yield Problem(
                "error",
                f"Beyond {self._cache._threshold} sessions, FileSystemCache deletes live ones.",
                "Make it with threshold=0, or set SESSION_TYPE = 'cachelib' and SESSION_CACHELIB = "
                "'file:///path/to/directory'; then run 'flask lazysession purge' now and then.",
                "files-threshold",
            )
        if fcntl is None:
            yield Problem(
                "warning",
                "There are no file locks here: processes that change one session at once lose changes.",
                "Run one process, or use another SESSION_TYPE.",
                "files-locks",
            )
        if os.name == "posix":
            yield from self._check_modes()

    def _check_modes(self) -> Iterator[Problem]:
        if self._cache._mode & 0o077:
            yield Problem(
                "warning",
                f"The files of sessions have mode {self._cache._mode:04o}: other accounts can open them.",
                "Make the FileSystemCache with mode=0o600.",
                "files-mode",
            )
        if stat.S_IMODE(os.stat(self._cache._path).st_mode) & 0o022:
            yield Problem(
                "error",
                "Other accounts can write to the directory of sessions: what they put there runs as code in the app.",
                "Remove that permission (chmod go-w), or use a directory of the app's own account.",
                "files-directory",
            )


def _read_ttl(file: BinaryIO, now: float) -> float | None:
    """Read the seconds that a file has left, as :func:`_ttl_of`."""
    return _ttl_of(file.read(_EXPIRY.size), now)


def _ttl_of(content: bytes, now: float) -> float | None:
    """Return the seconds that a file has left; None when it never expires, negative when it is damaged."""
    if len(content) < _EXPIRY.size:
        return -1.0
    (expiry,) = _EXPIRY.unpack_from(content)
    return expiry - now if expiry else None


def _lives(ttl: float | None) -> bool:
    return ttl is None or ttl >= 0
