"""One loop that changes a stored session, however many other requests change it at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from lazysession.backend import Outcome, Payload, PayloadCodec, WriteResult
from lazysession.errors import SessionConflict
from lazysession.ids import SessionIds

from .locks import lock_for
from .merging import CREATED, PERMANENT, Change, Items, KeyUse, Merging, Refused, different_keys, has_content
from .plan import StoreAction
from .rotation import FORWARDING_LIFETIME, ROTATIONS, Forwarding, ForwardingRecord, Rotated
from .store import RecordStore

#: How often a write is tried before it fails: other requests may change the session each time.
ATTEMPTS = 500
_FREE_IDS = 3

#: Return the payload to store in the place of the given one; None to delete that one.
WantedFor = Callable[[Payload], "Payload | None"]
#: Store a payload, or delete (None), as long as the other one is stored.
Write = Callable[["Payload | None", Payload], WriteResult]


class Encoded(NamedTuple):
    """The payload of a session, and the items that it holds: decoded once."""

    raw: Payload
    items: dict[str, Any]


class Saved(NamedTuple):
    """What became of a save.

    :param payload: what is stored for the session now; None when nothing is.
    :param here: it is stored under the session's id. Otherwise another request has rotated or ended the session
        meanwhile: the cookie is left alone, as the client may have a newer one.
    :param contested: the keys that another request changed as well, to other values.
    :param lost: the keys whose change was dropped.
    :param ended: they were dropped because the session has ended.
    """

    payload: Payload | None
    here: bool = True
    contested: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    ended: bool = False


class RecordMissing(Exception):
    """The record that is to be changed has ended."""


class RotatedAway(Exception):
    """The record that is to be changed has another id now."""

    def __init__(self, note: ForwardingRecord) -> None:
        super().__init__()
        self.note = note


class Save(NamedTuple):
    """A session that is to be saved.

    :param session: what the app has; it gets another id where its new one is taken.
    :param sid: the id of the stored record; None when there is none.
    :param expected: the payload that was loaded; None when there is none, or it was not read.
    :param mine: the session as it is now.
    :param before: the items that were loaded; None where there were none, or they cannot be decoded.
    :param keys: what the request read and changed.
    :param cleared: what is stored ends, also if another request has changed it meanwhile.
    :param late: the id was rotated away before the session was loaded.
    :param login_keys: what a login set, also where it has the same values as before.
    :param logout_keys: what a logout removed, also where a login has set it again.
    """

    session: Any
    sid: str | None
    expected: Payload | None
    mine: Encoded
    before: Items | None
    keys: KeyUse
    cleared: bool = False
    late: bool = False
    login_keys: frozenset[str] = frozenset()
    logout_keys: frozenset[str] = frozenset()

    @property
    def change(self) -> Change:
        """What the request did."""
        return Change(self.before or {}, self.mine.items, self.keys)

    def late_change(self, note: ForwardingRecord) -> Change:
        """Return the same for a request whose id was rotated away: what the old record held is not all that it sees."""
        change = self.change
        return change._replace(hidden=frozenset(note.before) - frozenset(change.before))


class Saving:
    """Takes the steps of :class:`lazysession.records.plan.Store` for the sessions of one app."""

    def __init__(
        self, store: RecordStore, codec: PayloadCodec, ids: SessionIds, forwarding: Forwarding, merging: Merging
    ) -> None:
        self._store = store
        self._codec = codec
        self._ids = ids
        self._forwarding = forwarding
        self._merging = merging

    def save(self, save: Save, action: StoreAction, lifetime: float, *, keep: bool) -> Saved:
        """Bring the store up to date with a session.

        :param lifetime: seconds to live from now.
        :param keep: a replaced record keeps the seconds that it has left instead.
        :raises SessionConflict: when what another request changed does not allow the change.
        """
        self._store.expect(lifetime)
        try:
            if action is StoreAction.CREATE:
                return Saved(self._create(save, lifetime))
            if action is StoreAction.ROTATE:
                return self._rotate(save, lifetime)
            if action is StoreAction.DELETE and save.cleared:
                self._end(save)
                return Saved(None)
            return self._change(save, None if keep else lifetime, empty=action is StoreAction.DELETE)
        except RecordMissing:
            return Saved(save.mine.raw, here=False, lost=self._merging.changed_keys(save.change), ended=True)

    # The loop

    def _swap(self, key: str, expected: Payload, wanted_for: WantedFor, write: Write) -> Payload | None:
        """Write what is wanted in the place of a payload, and again in the place of what another request stores.

        :param expected: the payload that was loaded.
        :param wanted_for: asked for what to store in the place of ``expected``, and then of what is there instead.
        :returns: what is stored now.
        :raises RecordGone: when there is nothing any more.
        :raises RotatedAway: when there is a forwarding record.
        """
        wanted = wanted_for(expected)
        result = write(wanted, expected)
        if result.outcome is Outcome.STORED:
            return wanted
        with lock_for(key):  # threads that merge at the same time only make each other merge again
            for _ in range(ATTEMPTS - 1):
                expected = self._stored_instead(key, result)
                wanted = wanted_for(expected)
                result = write(wanted, expected)
                if result.outcome is Outcome.STORED:
                    return wanted
        raise _too_many()

    def _stored_instead(self, key: str, result: WriteResult) -> Payload:
        found = self._found(key, result)
        if found is None:
            raise RecordMissing
        note = self._forwarding.forwarding_of(found)
        if note is not None:
            raise RotatedAway(note)
        return found

    def _found(self, key: str, result: WriteResult) -> Payload | None:
        """Return what is stored, from the result of a write where that says it; None for nothing."""
        if result.outcome is not Outcome.CONFLICT or result.current is not None:
            return result.current
        record = self._store.read(key)
        return None if record is None else record.payload

    def _writer(self, key: str, lifetime: float | None) -> Write:
        """Return what writes to a key; ``lifetime`` None keeps the seconds that the record has left."""

        def write(wanted: Payload | None, expected: Payload) -> WriteResult:
            if wanted == expected:  # another request has stored the same
                return WriteResult(Outcome.STORED)
            if wanted is None:
                return self._store.delete(key, expected)
            return _unless_done(self._store.replace(key, wanted, lifetime, expected), wanted)

        return write

    # The steps

    def _create(self, save: Save, lifetime: float) -> Payload:
        session = save.session
        for _ in range(_FREE_IDS):
            if self._store.create(self._ids.key(session.sid), save.mine.raw, lifetime):
                return save.mine.raw
            session.sid = self._ids.new()
        raise SessionConflict("The session could not be stored: every new id was taken. Raise SESSION_ID_LENGTH.")

    def _change(self, save: Save, lifetime: float | None, *, empty: bool) -> Saved:
        """Replace the record, or delete it where the session is empty; change a rotated session where it is now."""
        key = self._ids.key(save.sid or "")
        wanted = _Wanted(self._codec, self._merging, save, None if empty else save.mine.raw)
        try:
            stored = self._swap(key, save.expected or b"", wanted, self._writer(key, lifetime))
            return Saved(stored, contested=wanted.contested)
        except RotatedAway as away:
            note = away.note
        return self._change_rotated(save, note)

    def _rotate(self, save: Save, lifetime: float) -> Saved:
        """Store the session under its new id, and then leave a forwarding record under the old one.

        Where the old session has ended meanwhile, so has the new one: a rotation revives nothing.
        """
        new = _NewRecord(self._store, self._create(save, lifetime), self._ids.key(save.session.sid))
        if save.cleared:
            until = self._end(save)
            if until is not None and save.sid is not None:
                self._store.create(
                    self._ids.key(save.sid), self._forwarding.forwarding_of_end(until), FORWARDING_LIFETIME
                )
            return Saved(new.payload)
        try:
            return self._retire(save, new)
        except (RecordMissing, SessionConflict):
            new.remove()
            raise

    def _retire(self, save: Save, new: _NewRecord) -> Saved:
        old = self._ids.key(save.sid or "")
        wanted_for = _Wanted(self._codec, self._merging, save, save.mine.raw)

        def write(wanted: Payload | None, expected: Payload) -> WriteResult:
            if wanted is None:
                return self._store.delete(old, expected)
            new.put(wanted)
            note = self._forwarding.forwarding_to(save.session.sid, expected)
            return _unless_done(self._store.replace(old, note, FORWARDING_LIFETIME, expected), note)

        try:
            stored = self._swap(old, save.expected or b"", wanted_for, write)
        except RotatedAway as away:
            note = away.note
        else:
            if stored is None:
                new.remove()
            return Saved(stored, contested=wanted_for.contested)
        return self._rotate_late(save, note, new)

    def _end(self, save: Save) -> float | None:
        """Delete the session, also under an id that another request gave it.

        :returns: until when a forwarding record may say so under the old id, in seconds since the epoch; None when
            there was nothing: a client may have made the id up.
        """
        if save.sid is None:
            return None
        key, expected, until = self._ids.key(save.sid), save.expected, None
        if expected is None and self._ids.may_be_foreign(save.sid):
            expected = self._session_under(key)
            if expected is None:
                return None
        for _ in range(ATTEMPTS):
            result = self._store.delete(key, expected)
            found = self._found(key, result)
            there = expected if found is None and result.outcome is Outcome.STORED else found
            if until is None and there is not None:
                until = self._forwarding.until(there)
            if found is None:
                return until
            note = self._forwarding.forwarding_of(found)
            rotated = None if note is None else self._forwarding.follow(note)
            if rotated is not None:
                if expected is not None:  # else the forwarding record is deleted
                    self._store.delete(key, found)
                key, expected = rotated.key, rotated.payload
            elif expected is None:
                return until
            else:
                expected = found
        self._store.delete(key)
        return until

    def _session_under(self, key: str) -> Payload | None:
        """Return the payload of a key if it is a session; None where it is another program's."""
        record = self._store.read(key)
        return None if record is None or self._codec.decode(record.payload) is None else record.payload

    # Late requests

    def _change_rotated(self, save: Save, note: ForwardingRecord) -> Saved:
        """Make a late request's change to the session under its new id."""
        wanted = _Wanted(self._codec, self._merging, save, save.mine.raw, note)
        self._swap_rotated(note, wanted)
        return Saved(save.mine.raw, here=False, contested=wanted.contested, lost=wanted.contested)

    def _swap_rotated(self, note: ForwardingRecord, wanted_for: WantedFor) -> None:
        for _ in range(ROTATIONS):
            rotated = self._follow(note)
            try:
                self._swap(rotated.key, rotated.payload, wanted_for, self._writer(rotated.key, None))
            except RotatedAway as again:
                note = again.note
            else:
                return
        raise _too_many()

    def _rotate_late(self, save: Save, note: ForwardingRecord, new: _NewRecord) -> Saved:
        """Begin a session of its own with what a late request changed, where it changed anything.

        That may be a login, and must not reach a session whose id the client is not told: the request that rotated
        first may be an attacker's. It takes along nothing else: the rest is the rotated session's, which may have been
        rotated because the old id was stolen.
        """
        own = self._own_part(save, note)
        if not has_content(own):
            saved = self._change_rotated(save, note)
            new.remove()
            return saved
        new.put(self._codec.encode(own))
        self._remove_from_rotated(save, note)
        return Saved(new.payload)

    def _own_part(self, save: Save, note: ForwardingRecord) -> dict[str, Any]:
        """Return the items that a late rotation may take along.

        :raises RecordGone: when the rotated session has ended since; one that ended with its rotation is no hindrance.
        """
        if note.sid:
            rotated = self._follow(note)
            change = save.late_change(note)
            refused = self._merging.refuse_rotation(change, rotated.items, strict=not save.late)
            if refused is not None:
                raise SessionConflict(refused.explain(), refused.keys)
        after = save.mine.items
        own = different_keys(save.before or {}, after, self._codec.same) | save.login_keys | {PERMANENT, CREATED}
        return {key: value for key, value in after.items() if key in own}

    def _remove_from_rotated(self, save: Save, note: ForwardingRecord) -> None:
        """Remove from the rotated session what a late request removed: a logout ends what it was shown."""
        before = save.before or {}
        removed = frozenset(before) - frozenset(save.mine.items) | (save.logout_keys & frozenset(before))
        if not removed:
            return

        def wanted_for(stored: Payload) -> Payload | None:
            items = self._merging.without(self._codec.decode(stored) or {}, before, removed)
            return self._codec.encode(items) if has_content(items) else None

        with suppress(RecordMissing):
            self._swap_rotated(note, wanted_for)

    def _follow(self, note: ForwardingRecord) -> Rotated:
        rotated = self._forwarding.follow(note)
        if rotated is None:
            raise RecordMissing
        return rotated


class _Wanted:
    """What a request wants stored in the place of a payload: its session, or that merged with what is stored.

    :param mine: what it wants while the payload is there that was loaded; None where the session is empty.
    :param note: where the rotated session is, for a late request, which is always merged.
    """

    def __init__(
        self,
        codec: PayloadCodec,
        merging: Merging,
        save: Save,
        mine: Payload | None,
        note: ForwardingRecord | None = None,
    ) -> None:
        self._codec, self._merging, self._save, self._mine = codec, merging, save, mine
        self._note = note
        #: With CONFLICT ``raise``, a late request is not refused for what it has loaded, but for what comes after.
        self._strict = note is None or not save.late
        self.contested: tuple[str, ...] = ()

    def __call__(self, stored: Payload) -> Payload | None:
        if self._note is None and stored == self._save.expected:
            self.contested = ()
            return self._mine
        items = self._codec.decode(stored)
        if items is None:  # nothing to merge with
            return self._mine if self._note is None else stored
        return self._merged(stored, items)

    def _merged(self, stored: Payload, items: dict[str, Any]) -> Payload | None:
        late, strict, self._strict = self._note is not None, self._strict, True
        change = self._save.change if self._note is None else self._save.late_change(self._note)
        merged = self._merging.merge(change, items, late=late, strict=strict)
        if isinstance(merged, Refused):
            raise SessionConflict(merged.explain(), merged.keys)
        self.contested = merged.contested
        if not different_keys(merged.items, items, self._codec.same):
            return stored
        return self._codec.encode(merged.items) if has_content(merged.items) else None


class _NewRecord:
    """The record under the new id of a rotation, which is stored before the old one goes."""

    def __init__(self, store: RecordStore, payload: Payload, key: str) -> None:
        self._store, self._key, self.payload = store, key, payload

    def put(self, payload: Payload) -> None:
        if payload != self.payload:
            self._store.replace(self._key, payload, None, self.payload)
            self.payload = payload

    def remove(self) -> None:
        self._store.delete(self._key)


def _unless_done(result: WriteResult, wanted: Payload) -> WriteResult:
    """Return STORED as well when what was wanted is there: clients repeat a command whose answer was lost."""
    return WriteResult(Outcome.STORED) if result.current == wanted else result


def _too_many() -> SessionConflict:
    return SessionConflict(
        f"The session kept changing: {ATTEMPTS} attempts to store this request's changes failed. Keep what many "
        "requests change at the same time in a place of its own, not in a session."
    )
