"""What holds for the store and for every reader, whatever a model of sessions says."""

from __future__ import annotations

from typing import Any

Data = dict[str, Any]


class Ledger:
    """What holds whatever the model says, seen from the store alone: each number is written once, so it can be traced.

    No number leaves the store unless a request that ended just now removed it, or time did; none ever comes back.
    """

    def __init__(self) -> None:
        self.stored: dict[str, Data] = {}
        self.buried: set[int] = set()
        self.old_ids: dict[str, set[int]] = {}  # ids that were rotated away, and what their holders knew then
        self.sent: list[str] = []
        self.kept = 0

    def settle(self, stored: dict[str, Data], patch: Data, *, ends: bool) -> None:
        """Compare the store before and after something happened.

        :param patch: what a request has written; no other key may lose a number.
        :param ends: a session may end altogether.
        """
        before, after = _places(self.stored), _places(stored)
        lost = {number for number in before.keys() - after.keys() if not ends and before[number] not in patch}
        assert not lost, f"lost: {[(before[number], number) for number in lost]}"
        self.buried |= before.keys() - after.keys()
        revived = (self.buried & after.keys()) - values_in(patch)
        assert not revived, f"revived: {[(after[number], number) for number in revived]}"
        self.buried -= after.keys()
        self.kept += len(before.keys() & after.keys())
        self.stored = stored

    def rotated(self, sid: str) -> None:
        """Record what the holders of an id may know, now that its session gets another one."""
        self.old_ids.setdefault(sid, values_in(self.stored.get(sid, {})))

    def seen(self, cookie: str | None, data: Data) -> None:
        """Check what the holder of a cookie sees at the beginning of a request."""
        numbers = values_in(data)
        assert not numbers & self.buried, "data that had ended"
        assert cookie in self.sent or not numbers, "the session of an id that was never sent"
        assert numbers <= self.old_ids.get(cookie or "", numbers), "data from after the rotation"


def _places(stored: dict[str, Data]) -> dict[int, str]:
    return {number: key for data in stored.values() for key, value in data.items() for number in values_in(value)}


def values_in(data: object) -> set[int]:
    """Return every number in a session; the tests use each number once."""
    if isinstance(data, dict):
        return set().union(*(values_in(value) for value in data.values())) if data else set()
    if isinstance(data, list):
        return set().union(*(values_in(value) for value in data)) if data else set()
    return {data} if isinstance(data, int) and not isinstance(data, bool) else set()
