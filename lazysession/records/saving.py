"""Saving: compare-and-swap in a loop, as other requests may change the stored session at the same time."""

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

#: How often a write is tried before the save fails: another request may change the session before each attempt.
ATTEMPTS = 500
_ID_ATTEMPTS = 3

#: Return the payload that replaces the given one; None to delete that one.
ReplacementFor = Callable[[Payload], "Payload | None"]
#: Write(replacement, expected): store the replacement, or delete (None), if the expected payload is still stored.
Write = Callable[["Payload | None", Payload], WriteResult]


class Encoded(NamedTuple):
    """The payload of a session, and its items as a later load decodes them."""

    payload: Payload
    items: dict[str, Any]


class Saved(NamedTuple):
    """The outcome of a save.

    :param payload: what is stored for the session now; None when nothing is.
    :param under_own_id: it is stored under the session's id. Otherwise another request has rotated or ended the session
        meanwhile, and the cookie is not changed, as the client may have a newer one.
    :param contested: the keys that another request changed as well, to other values.
    :param lost: the keys whose change was dropped.
    :param ended: the change was dropped because the session has ended.
    """

    payload: Payload | None
    under_own_id: bool = True
    contested: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    ended: bool = False


class RecordMissing(Exception):
    """The session to be changed has ended."""


class RotatedAway(Exception):
    """The session to be changed has another id now."""

    def __init__(self, forwarding: ForwardingRecord) -> None:
        super().__init__()
        self.forwarding = forwarding


class Save(NamedTuple):
    """A session to be saved.

    :param session: the session of the app; it gets another id if its new one is taken.
    :param sid: the id of the stored record; None when there is none.
    :param expected: the payload that was loaded; None when there is none, or it was not read.
    :param after: the session as it is now.
    :param before: the items that were loaded; None when there were none, or they cannot be decoded.
    :param keys: what the request read and changed.
    :param cleared: delete the stored session, even if another request has changed it meanwhile.
    :param late: the id was rotated away before the session was loaded.
    :param login_keys: the keys that a login set, also to the values that they had before.
    :param logout_keys: the keys that a logout removed, even if a login has set them again.
    """

    session: Any
    sid: str | None
    expected: Payload | None
    after: Encoded
    before: Items | None
    keys: KeyUse
    cleared: bool = False
    late: bool = False
    login_keys: frozenset[str] = frozenset()
    logout_keys: frozenset[str] = frozenset()

    @property
    def change(self) -> Change:
        """What the request did."""
        return Change(self.before or {}, self.after.items, self.keys)

    def late_change(self, forwarding: ForwardingRecord) -> Change:
        """Return what a late request did, which was not given all items of the old record."""
        change = self.change
        return change._replace(hidden=frozenset(forwarding.before) - frozenset(change.before))


class Saving:
    """Carries out each :class:`lazysession.records.plan.StoreAction` for the sessions of one app."""

    def __init__(
        self, store: RecordStore, codec: PayloadCodec, ids: SessionIds, forwarding: Forwarding, merging: Merging
    ) -> None:
        self._store = store
        self._codec = codec
        self._ids = ids
        self._forwarding = forwarding
        self._merging = merging

    def save(self, save: Save, action: StoreAction, lifetime: float, *, keep_ttl: bool) -> Saved:
        """Save a session, and return what is stored then.

        :param lifetime: seconds to live from now.
        :param keep_ttl: a replaced record keeps the seconds that it has left instead.
        :raises SessionConflict: when the change conflicts with that of another request.
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
            return self._change(save, None if keep_ttl else lifetime, empty=action is StoreAction.DELETE)
        except RecordMissing:
            lost = self._merging.changed_keys(save.change)
            return Saved(save.after.payload, under_own_id=False, lost=lost, ended=True)

    # The loop

    def _swap(self, key: str, expected: Payload, replacement_for: ReplacementFor, write: Write) -> Payload | None:
        """Replace a payload; after each conflict, replace the payload that another request has stored instead.

        :param expected: the payload that was loaded.
        :returns: what is stored now; None when the record was deleted.
        :raises RecordMissing: when nothing is stored any more.
        :raises RotatedAway: when a forwarding record is stored.
        """
        replacement = replacement_for(expected)
        result = write(replacement, expected)
        if result.outcome is Outcome.STORED:
            return replacement
        with lock_for(key):  # without it, threads that merge at the same time would make each other merge again
            for _ in range(ATTEMPTS - 1):
                expected = self._current_session(key, result)
                replacement = replacement_for(expected)
                result = write(replacement, expected)
                if result.outcome is Outcome.STORED:
                    return replacement
        raise _too_many_attempts()

    def _current_session(self, key: str, result: WriteResult) -> Payload:
        current = self._current(key, result)
        if current is None:
            raise RecordMissing
        forwarding = self._forwarding.forwarding_of(current)
        if forwarding is not None:
            raise RotatedAway(forwarding)
        return current

    def _current(self, key: str, result: WriteResult) -> Payload | None:
        """Return what is stored, from the result of a write if it has it, else from the store; None for nothing."""
        if result.outcome is not Outcome.CONFLICT or result.current is not None:
            return result.current
        record = self._store.read(key)
        return None if record is None else record.payload

    def _writer(self, key: str, lifetime: float | None) -> Write:
        """Return a function that writes to a key; ``lifetime`` None keeps the seconds that the record has left."""

        def write(replacement: Payload | None, expected: Payload) -> WriteResult:
            if replacement == expected:  # another request has stored the same
                return WriteResult(Outcome.STORED)
            if replacement is None:
                return self._store.delete(key, expected)
            return _stored_if_there(self._store.replace(key, replacement, lifetime, expected), replacement)

        return write

    # The steps

    def _create(self, save: Save, lifetime: float) -> Payload:
        session = save.session
        for _ in range(_ID_ATTEMPTS):
            if self._store.create(self._ids.key(session.sid), save.after.payload, lifetime):
                return save.after.payload
            session.sid = self._ids.new()
        raise SessionConflict("The session could not be stored: every new id was taken. Raise SESSION_ID_LENGTH.")

    def _change(self, save: Save, lifetime: float | None, *, empty: bool) -> Saved:
        """Replace the record, or delete it if the session is empty; change a rotated session under its new id."""
        key = self._ids.key(save.sid or "")
        replacement = _Replacement(self._codec, self._merging, save, None if empty else save.after.payload)
        try:
            stored = self._swap(key, save.expected or b"", replacement, self._writer(key, lifetime))
            return Saved(stored, contested=replacement.contested)
        except RotatedAway as rotated:
            forwarding = rotated.forwarding
        return self._change_rotated(save, forwarding)

    def _rotate(self, save: Save, lifetime: float) -> Saved:
        """Store the session under its new id, and then a forwarding record under the old one.

        If another request has ended the old session meanwhile, the new record is deleted: a rotation must not undo a
        logout.
        """
        new = _NewRecord(self._store, self._create(save, lifetime), self._ids.key(save.session.sid))
        if save.cleared:
            until = self._end(save, forwards=True)
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
        replacement_for = _Replacement(self._codec, self._merging, save, save.after.payload)

        def write(replacement: Payload | None, expected: Payload) -> WriteResult:
            if replacement is None:
                return self._store.delete(old, expected)
            new.put(replacement)
            forwarding = self._forwarding.forwarding_to(save.session.sid, expected)
            return _stored_if_there(self._store.replace(old, forwarding, FORWARDING_LIFETIME, expected), forwarding)

        try:
            stored = self._swap(old, save.expected or b"", replacement_for, write)
        except RotatedAway as rotated:
            forwarding = rotated.forwarding
        else:
            if stored is None:
                new.remove()
            return Saved(stored, contested=replacement_for.contested)
        return self._rotate_late(save, forwarding, new)

    def _end(self, save: Save, *, forwards: bool = False) -> float | None:
        """Delete the session, also under an id that another request gave it.

        :param forwards: a forwarding record may be stored then.
        :returns: until when a forwarding record may be stored under the old id, in seconds since the epoch; None when
            nothing was stored: a client may have made the id up.
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
            current = self._current(key, result)
            before = expected if current is None and result.outcome is Outcome.STORED else current
            if forwards and until is None and before is not None:
                until = self._forwarding.until(before)
            if current is None:
                return until
            forwarding = self._forwarding.forwarding_of(current)
            rotated = None if forwarding is None else self._forwarding.follow(forwarding)
            if rotated is not None:
                if expected is not None:  # without it, the forwarding record has just been deleted
                    self._store.delete(key, current)
                key, expected = rotated.key, rotated.payload
            elif expected is None:
                return until
            else:
                expected = current
        self._store.delete(key)
        return until

    def _session_under(self, key: str) -> Payload | None:
        """Return what is stored under a key if it is a session; None for another program's data."""
        record = self._store.read(key)
        return None if record is None or self._codec.decode(record.payload) is None else record.payload

    # Late requests

    def _change_rotated(self, save: Save, forwarding: ForwardingRecord) -> Saved:
        """Store a late request's change in the session under its new id."""
        replacement = _Replacement(self._codec, self._merging, save, save.after.payload, forwarding)
        self._swap_rotated(forwarding, replacement)
        lost = replacement.contested
        return Saved(save.after.payload, under_own_id=False, contested=lost, lost=lost)

    def _swap_rotated(self, forwarding: ForwardingRecord, replacement_for: ReplacementFor) -> None:
        for _ in range(ROTATIONS):
            rotated = self._follow(forwarding)
            try:
                self._swap(rotated.key, rotated.payload, replacement_for, self._writer(rotated.key, None))
            except RotatedAway as again:
                forwarding = again.forwarding
            else:
                return
        raise _too_many_attempts()

    def _rotate_late(self, save: Save, forwarding: ForwardingRecord, new: _NewRecord) -> Saved:
        """Begin a separate session with what a late request changed, if it changed anything.

        The change may be a login. It must not be stored in a session whose id this client is not given: the request
        that rotated first may be an attacker's. The new session gets no other items of the rotated session: that may
        have been rotated because the old id was stolen.
        """
        own = self._own_items(save, forwarding)
        if not has_content(own):
            saved = self._change_rotated(save, forwarding)
            new.remove()
            return saved
        new.put(self._codec.encode(own))
        self._remove_from_rotated(save, forwarding)
        return Saved(new.payload)

    def _own_items(self, save: Save, forwarding: ForwardingRecord) -> dict[str, Any]:
        """Return the items that the separate session of a late request begins with.

        :raises RecordMissing: when the rotated session has ended since its rotation, but not if it ended with it.
        """
        if forwarding.sid:
            rotated = self._follow(forwarding)
            change = save.late_change(forwarding)
            refused = self._merging.refuse_rotation(change, rotated.items, strict=not save.late)
            if refused is not None:
                raise SessionConflict(refused.explain(), refused.keys)
        after = save.after.items
        own = different_keys(save.before or {}, after, self._codec.same) | save.login_keys | {PERMANENT, CREATED}
        return {key: value for key, value in after.items() if key in own}

    def _remove_from_rotated(self, save: Save, forwarding: ForwardingRecord) -> None:
        """Remove from the rotated session what a late request removed, so that a late logout logs out."""
        before = save.before or {}
        removed = frozenset(before) - frozenset(save.after.items) | (save.logout_keys & frozenset(before))
        if not removed:
            return

        def replacement_for(stored: Payload) -> Payload | None:
            items = self._merging.without(self._codec.decode(stored) or {}, before, removed)
            return self._codec.encode(items) if has_content(items) else None

        with suppress(RecordMissing):
            self._swap_rotated(forwarding, replacement_for)

    def _follow(self, forwarding: ForwardingRecord) -> Rotated:
        rotated = self._forwarding.follow(forwarding)
        if rotated is None:
            raise RecordMissing
        return rotated


class _Replacement:
    """Returns what replaces a payload: the session of the request, or that merged with the payload.

    :param own: the payload of the request's session; None if that is empty, so that the record is deleted.
    :param forwarding: leads to the rotated session of a late request, whose change is always merged.
    """

    def __init__(
        self,
        codec: PayloadCodec,
        merging: Merging,
        save: Save,
        own: Payload | None,
        forwarding: ForwardingRecord | None = None,
    ) -> None:
        self._codec, self._merging, self._save, self._own = codec, merging, save, own
        self._forwarding = forwarding
        #: CONFLICT ``raise`` does not refuse a request that was late when it loaded, unless the session changes again.
        self._strict = forwarding is None or not save.late
        self.contested: tuple[str, ...] = ()

    def __call__(self, stored: Payload) -> Payload | None:
        if self._forwarding is None and stored == self._save.expected:
            self.contested = ()
            return self._own
        items = self._codec.decode(stored)
        if items is None:  # nothing to merge with
            return self._own if self._forwarding is None else stored
        return self._merged(stored, items)

    def _merged(self, stored: Payload, items: dict[str, Any]) -> Payload | None:
        forwarding, strict, self._strict = self._forwarding, self._strict, True
        change = self._save.change if forwarding is None else self._save.late_change(forwarding)
        merged = self._merging.merge(change, items, late=forwarding is not None, strict=strict)
        if isinstance(merged, Refused):
            raise SessionConflict(merged.explain(), merged.keys)
        self.contested = merged.contested
        if not different_keys(merged.items, items, self._codec.same):
            return stored
        return self._codec.encode(merged.items) if has_content(merged.items) else None


class _NewRecord:
    """The record under the new id of a rotation, which is stored before the old one is replaced."""

    def __init__(self, store: RecordStore, payload: Payload, key: str) -> None:
        self._store, self._key, self.payload = store, key, payload

    def put(self, payload: Payload) -> None:
        if payload != self.payload:
            self._store.replace(self._key, payload, None, self.payload)
            self.payload = payload

    def remove(self) -> None:
        self._store.delete(self._key)


def _stored_if_there(result: WriteResult, payload: Payload) -> WriteResult:
    """Return STORED even if the payload is there already: clients repeat a command whose response was lost."""
    return WriteResult(Outcome.STORED) if result.current == payload else result


def _too_many_attempts() -> SessionConflict:
    return SessionConflict(
        f"The session kept changing: {ATTEMPTS} attempts to store this request's changes failed. Keep data that many "
        "requests change at the same time outside the session."
    )
