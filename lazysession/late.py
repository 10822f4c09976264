"""What becomes of the changes of late requests, those whose session was given a new id by somebody else."""

from __future__ import annotations

from contextlib import suppress

from flask import Flask

from .backend import Backend, Outcome
from .closing import Opened, changed_keys, merge
from .forwarding import Forwarding, Note, Rotated
from .lifetimes import CREATED
from .merging import MERGES, Merging, RecordGone, Settled, has_content, too_many


class LateChanges:
    """Brings changes to where a note leads."""

    def __init__(self, backend: Backend, forwarding: Forwarding, merging: Merging) -> None:
        self._backend = backend
        self._codec = merging.codec
        self._forwarding = forwarding
        self._merging = merging

    def change(self, app: Flask, opened: Opened, mine: bytes, note: Note) -> Settled:
        """Bring a late request's change to the session that was rotated; what that one changed itself, it keeps.

        :param mine: the request's session as it is now.
        :raises RecordGone: when the rotated session has ended.
        """
        if not opened.late:
            self._merging.refuse_conflict()
        same = self._codec.same
        late = merge(self._merging.items(opened.payload), self._merging.items(mine), note.before, same=same).data
        for _ in range(MERGES):
            rotated = self._follow(note)
            merged = merge(note.before, rotated.items, late, same=same)
            if self._put(rotated, self._merging.payload(merged)):
                self._merging.tell(app, merged.contested)
                return Settled(mine, here=False)
        raise too_many()

    def _put(self, rotated: Rotated, wanted: bytes | None) -> bool:
        if wanted == rotated.payload:
            return True
        if wanted is None:
            return self._backend.delete(rotated.key, rotated.payload).outcome is Outcome.STORED
        return self._backend.replace(rotated.key, wanted, None, rotated.payload).outcome is Outcome.STORED

    def own_part(self, opened: Opened, mine: bytes, note: Note) -> bytes | None:
        """Answer what a late request that asks for an id of its own may store there; None where it gets none.

        It gets one when it brings anything, and takes along nothing else. What it brings may be a login, and must not
        reach a session whose id it is not told: whoever rotated first may be the one who planted the old id. The rest
        is the other session's, which may have been rotated to be rid of whoever sends this.

        :raises RecordGone: when the rotated session has ended; one that ended with its rotation is no hindrance.
        """
        if not opened.late:
            self._merging.refuse_conflict()
        if note.sid:
            self._follow(note)
        base, items = self._merging.items(opened.payload), self._merging.items(mine)
        own = {*changed_keys(base, items, self._codec.same), *opened.brought, "_permanent", CREATED}
        held = {key: items[key] for key in items if key in own}
        return self._codec.encode(held) if has_content(held) else None

    def remove(self, app: Flask, opened: Opened, mine: bytes, note: Note) -> None:
        """Take away from the rotated session what the request took away: a logout ends what it saw."""
        base, items = self._merging.items(opened.payload), self._merging.items(mine)
        kept = {key: value for key, value in base.items() if key in items and key not in opened.dropped}
        if len(kept) < len(base):
            with suppress(RecordGone):
                self.change(app, opened, self._codec.encode(kept), note)

    def _follow(self, note: Note) -> Rotated:
        rotated = self._forwarding.follow(note)
        if rotated is None:
            raise RecordGone
        return rotated
