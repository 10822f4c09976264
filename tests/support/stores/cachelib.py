"""Files and memory, by cachelib."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cachelib import SimpleCache
from flask import Flask

from lazysession.backends.packing import pack, unpack

from .base import Store, added_since, backend_of, let_pass


class CountingMemory(SimpleCache):
    """Records what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def get(self, key: str) -> Any:
        self.names.append("get")
        return super().get(key)

    def set(self, key: str, value: Any, timeout: Any = None) -> bool | None:
        self.names.append("set")
        return super().set(key, value, timeout)

    def add(self, key: str, value: Any, timeout: Any = None) -> bool:
        self.names.append("add")
        return super().add(key, value, timeout)

    def delete(self, key: str) -> bool:
        self.names.append("delete")
        return super().delete(key)


class MemoryStore(Store):
    """cachelib's SimpleCache, counted by its methods; each is a look into a dict of this process."""

    label = "Memory (cachelib)"
    read, refresh, write, create, delete = ("get",), ("get", "get", "set"), ("get", "set"), ("add",), ("get", "delete")
    delete_seen, touch = ("get", "delete"), ("get", "set")
    session_type = "cachelib"

    def __init__(self) -> None:
        self.cache = CountingMemory()

    def config(self) -> dict[str, Any]:
        return {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": self.cache}

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        yield from added_since(self.cache.names)

    def pass_time(self, app: Flask, seconds: float) -> None:
        let_pass(app, seconds)
        for key, (expiry, value) in list(self.cache._cache.items()):
            self.cache._cache[key] = (expiry - seconds, value)

    def payloads(self, app: Flask) -> dict[str, bytes]:
        return {key: pack(SimpleCache.get(self.cache, key)) for key in self.cache._cache}

    def put(self, app: Flask, key: str, payload: bytes, lifetime: float = 1000) -> None:
        SimpleCache.set(self.cache, key, unpack(payload), int(lifetime))

    def remove(self, app: Flask, key: str) -> None:
        SimpleCache.delete(self.cache, key)


_watches: list[FilesStore] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    for store in _watches:
        store.record(event, arguments)


sys.addaudithook(_audit)  # for good: there is no way to remove one


class FilesStore(Store):
    """cachelib's files, counted by what Python asks of the system: opening, putting into place, removing.

    Lock files are not counted.
    """

    label = "Files (cachelib)"
    read, refresh, write, create = ("read",), ("read", "update"), ("read", "write"), ("read", "write")
    delete, delete_seen, touch = ("read", "delete"), ("read", "delete"), ("update",)
    session_type = "cachelib"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "sessions"
        self._names: list[str] = []
        self._opens = {os.O_RDONLY: "read", os.O_RDWR: "update", os.O_WRONLY: "write"}
        _watches.append(self)

    def record(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record what is done to a session's file; a change is done when its new file is put in the old one's place."""
        path = arguments[1] if event == "os.rename" else arguments[0] if arguments else None
        if not isinstance(path, str) or Path(path).parent != self.folder or path.endswith(".__wz_cache"):
            return
        if event == "open":
            self._names.append(self._opens[arguments[2] & os.O_ACCMODE])
        elif event in {"os.rename", "os.remove"}:
            self._names.append("write" if event == "os.rename" else "delete")

    def config(self) -> dict[str, Any]:
        return {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": self.folder.as_uri()}

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        yield from added_since(self._names)

    def _files(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if not path.name.endswith(".__wz_cache")]

    def pass_time(self, app: Flask, seconds: float) -> None:
        let_pass(app, seconds)
        for path in self._files():
            content = path.read_bytes()
            (expiry,) = struct.unpack("I", content[:4])
            path.write_bytes(struct.pack("I", expiry - int(seconds)) + content[4:])

    def payloads(self, app: Flask) -> dict[str, bytes]:
        """By the names of the files, from which the keys cannot be read."""
        load = backend_of(app).cache.serializer.loads
        return {path.name: pack(load(path.read_bytes()[4:])) for path in self._files()}

    def put(self, app: Flask, key: str, payload: bytes, lifetime: float = 1000) -> None:
        backend_of(app).cache.set(key, unpack(payload), int(lifetime))

    def remove(self, app: Flask, key: str) -> None:
        backend_of(app).cache.delete(key)

    def close(self) -> None:
        _watches.remove(self)
