"""Sessions as files in one directory, on a disk that machines share: ``SESSION_TYPE = "shelf"``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from lazysession.backend import Outcome, Problem, Record, WriteResult


class ShelfBackend:
    """Keep each payload in a file whose modification time is the moment when the session expires.

    A file is put in place whole, so reading needs no lock. Whatever changes or removes one holds the lock of its key.

    :param directory: where the files are; it has to exist.
    :param clock: the present time, in seconds since the epoch.
    """

    interface_class: ClassVar[str | None] = None

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self.clock = clock

    @classmethod
    def from_interface(cls, interface: object) -> ShelfBackend:
        """Refuse: Flask-Session has no interface for this store, so this is never called."""
        raise NotImplementedError

    @classmethod
    def from_setting(cls, value: object, **options: object) -> ShelfBackend:
        """Return a backend of SESSION_SHELF: the path of a directory, or ``shelf:///path``.

        :raises ValueError: for anything else. A directory that is missing is not made: its disk may not be mounted.
        """
        if isinstance(value, str) and value.startswith("shelf:///"):
            value = unquote(urlsplit(value).path)
        if not isinstance(value, (str, Path)) or not os.path.isabs(value) or not os.path.isdir(value):
            raise ValueError("it has to name a directory that is there, as '/mnt/shop/sessions' or 'shelf:///mnt/...'.")
        return cls(Path(value))

    def read(self, key: str) -> Record | None:
        """Read the file, and when it expires."""
        return self._find(self._path(key))

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        """Create the file, unless there is one that has not expired."""
        path = self._path(key)
        with self._locked(path):
            if self._find(path) is not None:
                return False
            self._put(path, payload, self.clock() + ttl)
            return True

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        """Compare, and put a new file in the place of the old one."""
        path = self._path(key)
        with self._locked(path):
            compared = self._compare(path, expected)
            if compared.outcome is Outcome.STORED:
                self._put(path, payload, path.stat().st_mtime if ttl is None else self.clock() + ttl)
            return compared

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Compare, and remove the file; a request that waits to replace it finds that it is gone."""
        path = self._path(key)
        with self._locked(path):
            compared = self._compare(path, expected)
            if compared.outcome is Outcome.STORED:
                path.unlink()
            return compared

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Compare, and set the time of the file, and nothing else."""
        path, expiry = self._path(key), self.clock() + ttl
        with self._locked(path):
            if self._compare(path, expected).outcome is not Outcome.STORED:
                return False
            os.utime(path, (expiry, expiry))
            return True

    def purge(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Remove the files whose time has passed, and what writers left that died."""
        expired = [path for path in self._directory.iterdir() if path.suffix != ".lock" and self._has_expired(path)]
        purged = 0
        for done, path in enumerate(expired, 1):
            with self._locked(path):
                if self._has_expired(path):  # still: it may have been touched since it was listed
                    path.unlink()
                    purged += path.suffix == ".session"
            if progress is not None:
                progress(done, len(expired))
        return purged

    def check(self) -> Generator[Problem]:
        """Return who else could read or forge sessions."""
        if self._directory.stat().st_mode & 0o077:
            yield Problem(
                "error", "Other accounts can open the directory of sessions.", "chmod 700 the directory.", "shelf-mode"
            )

    def _path(self, key: str) -> Path:
        # Part of a key comes from a visitor's cookie: it may hold '/../', or be too long for a name.
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()}.session"

    def _find(self, path: Path) -> Record | None:
        try:
            with path.open("rb") as file:
                ttl = os.fstat(file.fileno()).st_mtime - self.clock()
                return Record(file.read(), ttl) if ttl > 0 else None
        except FileNotFoundError:
            self._directory.stat()  # raises if the disk is missing: that is a fault, not an absent session
            return None

    def _compare(self, path: Path, expected: bytes | None) -> WriteResult:
        record = self._find(path)
        if record is None:
            return WriteResult(Outcome.MISSING)
        if expected is None:
            return WriteResult(Outcome.STORED, record.payload)
        return (
            WriteResult(Outcome.STORED) if record.payload == expected else WriteResult(Outcome.CONFLICT, record.payload)
        )

    def _put(self, path: Path, payload: bytes, expiry: float) -> None:
        new = path.with_suffix(".new")
        with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())  # some disks tell only now that they are full
        os.utime(new, (expiry, expiry))
        os.replace(new, path)

    def _has_expired(self, path: Path) -> bool:
        try:
            return path.stat().st_mtime <= self.clock()
        except FileNotFoundError:
            return False

    @contextmanager
    def _locked(self, path: Path) -> Generator[None]:
        """Exclude every thread, process and machine that changes the same file; keys share 256 locks."""
        lock = os.open(self._directory / f"{path.name[:2]}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # closing would not do: a process forked meanwhile has it open too
        finally:
            os.close(lock)
