"""The contract suite stores any bytes; a store of dicts keeps sessions only. So each payload is put into a session."""

from __future__ import annotations

from typing import Any

from lazysession.backend import Backend, Record, WriteResult
from lazysession.backends.objects import Items, ObjectCodec

CODEC = ObjectCodec()


def box(payload: bytes) -> Items:
    return CODEC.encode({"_permanent": True, "payload": payload})


def unbox(payload: Items) -> bytes:
    data = CODEC.decode(payload)
    assert list(data) == ["_permanent", "payload"]
    return data["payload"]  # type: ignore[no-any-return]


class Boxed:
    """A backend of any bytes, over one of sessions."""

    def __init__(self, backend: Backend) -> None:
        self.backend: Any = backend

    def read(self, key: str) -> Record | None:
        record = self.backend.read(key)
        return None if record is None else record._replace(payload=unbox(record.payload))

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        return bool(self.backend.create(key, box(payload), ttl))

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        return self._unbox(self.backend.replace(key, box(payload), ttl, box(expected)))

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        return self._unbox(self.backend.delete(key, None if expected is None else box(expected)))

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        return bool(self.backend.touch(key, ttl, None if expected is None else box(expected)))

    def _unbox(self, replaced: WriteResult) -> WriteResult:
        return replaced if replaced.current is None else replaced._replace(current=unbox(replaced.current))


class BoxedPurging(Boxed):
    """The same, over a backend that purges."""

    def purge(self, progress: Any = None) -> int:
        return int(self.backend.purge(progress))
