"""A model of sessions in plain Python: what requests see, what they owe at their end, and who may know it.

It says in its own words what :mod:`lazysession.use` and :mod:`lazysession.records` do: a request's change is a
patch (the top-level keys that it set or removed), and a patch is put on whatever is stored when the request ends,
unless it depends on what is not so any more.
"""

from __future__ import annotations

import copy

from tests.support.records import (
    FORWARDING_LIFETIME,
    LIFETIME,
    MARK,
    THROTTLE,
    Data,
    ForwardingRecord,
    Record,
    SavePlan,
    Step,
    Work,
    at,
    has_content,
    merged_with,
    same,
    set_or_remove,
)

QUICK, ROTATIONS = 0.25, 20


class Model:
    """Every session that the store should hold, and two clocks: the store's, and the app's, which also ticks."""

    def __init__(self) -> None:
        self.now = self.clock = 0.0
        self.records: dict[str, Record] = {}
        self.notes: dict[str, ForwardingRecord] = {}
        self.expired: set[str] = set()  # some stores keep them until somebody sweeps

    def pass_time(self, seconds: float) -> None:
        """Let time pass; what is over ends."""
        self.now, self.clock = self.now + seconds, self.clock + seconds
        over = {sid for sid, record in self.records.items() if record.ends <= self.now}
        self.expired |= over
        for sid in over:
            del self.records[sid]
        self.notes = {sid: note for sid, note in self.notes.items() if note.ends > self.now}

    def follow(self, sid: str | None) -> str | None:
        """Return the id of the session that a note under this id leads to; None when there is none."""
        for _ in range(ROTATIONS + 1):
            if sid in self.records:
                return sid
            note = self.notes.get(sid or "")
            if note is None or note.until <= self.clock:
                return None
            sid = note.sid
        return None

    def open(self, work: Work) -> None:
        """Read the session that the cookie names, or begin an empty one."""
        work.opened, work.since, cookie = True, self.clock, work.cookie or ""
        found, note = self.follow(cookie), self.notes.get(cookie)
        if note is not None and note.until > self.clock:
            now = self.records[found].data if found else {}
            held = {key: value for key, value in note.before.items() if at(now, key) == at(note.before, key)}
            work.late, data = True, held if found or not note.sid else None
        else:
            data = self.records[found].data if found else None
        if data is None:
            work.late, work.mine = False, {MARK: True}
        else:
            work.sid, work.base, work.mine = work.cookie, copy.deepcopy(data), copy.deepcopy(data)
        if work.base is not None and not work.late:
            work.refreshed = self.refresh(work)
        if note is not None:
            self.keep_short(cookie, refreshed=self.refresh_note(cookie))
        if work.permanent is not None:
            work.set_permanent(work.permanent)

    def refresh(self, work: Work) -> bool:
        """Move the expiry of the session that a request reads, if that is due."""
        record = self.records.get(work.cookie or "")
        self.refresh_note(work.cookie)
        if record is None or record.ends - self.now > LIFETIME - THROTTLE:
            return False
        record.ends = self.now + LIFETIME
        return True

    def refresh_note(self, sid: str | None) -> bool:
        """Give a note the life that reading gives it, unless it has that already."""
        note = self.notes.get(sid or "")
        if note is None or note.ends - self.now > LIFETIME - THROTTLE:
            return False
        note.ends = self.now + LIFETIME
        return True

    def keep_short(self, sid: str, *, refreshed: bool) -> None:
        """Take that back, and forget a note whose time is over."""
        note = self.notes[sid]
        if note.until <= self.clock:
            del self.notes[sid]
        elif refreshed:
            note.ends = self.now + note.until - self.clock

    def clear(self, work: Work) -> None:
        """Empty the session; first thing in a request, without reading it."""
        if not work.opened:
            work.opened, work.cleared = True, bool(work.cookie)
            work.sid = work.id_sent
            work.moved = True
            work.mine = {MARK: True if work.permanent is None else work.permanent}
        work.mine = {MARK: work.mine.get(MARK, False)}
        work.ended = work.touched = True
        work.moved = work.moved or work.sid is not None  # what follows is a new session

    def plan(self, work: Work, sid: str) -> SavePlan:
        """Return what a request owes.

        :param sid: the id that its session has now.
        """
        empty, unchanged = not has_content(work.mine), same(work.base, work.mine)
        if not work.opened or (work.late and not work.ended and empty and unchanged):
            return SavePlan()
        if work.sid is None and not work.cleared:
            return SavePlan() if empty else self._told(work.mine, sid, [self._put(sid, work.mine)])
        if work.cleared or (work.ended and (empty or work.moved)):
            return self._owed_for_end(work, sid, empty)
        if work.moved and not empty:
            return self._owed_for_rotation(work, sid)
        if unchanged:
            stands = work.sid in self.records or self.clock - work.since < QUICK  # a quick one does not look
            renewed = work.refreshed and work.mine.get(MARK) and stands
            return self._told(work.mine, sid, []) if renewed else SavePlan()
        return (
            self._owed_for_late_change(work, work.patch())
            if work.sid in self.notes
            else self._owed_for_change(work, empty)
        )

    def _owed_for_end(self, work: Work, sid: str, empty: bool) -> SavePlan:
        """End the session under whichever id it is now, or, unread, under the one that was sent."""
        old, led_to = work.sid or "", self.follow(work.sid)
        known = old in self.records or old in self.notes
        ids = [old] if work.sid is not None and (known or work.cleared) else []
        ends = [self._remove(ended) for ended in dict.fromkeys([*ids, led_to]) if ended is not None]
        if empty:
            return SavePlan(ends, "")
        live = old in self.notes and self.notes[old].until > self.clock
        until = self.notes[old].until if live else None  # which no note prolongs
        last = [self._note(old, "", {}, until)] if led_to is not None or live else []
        return self._told(work.mine, sid, [self._put(sid, work.mine), *ends, *last])

    def _owed_for_change(self, work: Work, empty: bool) -> SavePlan:
        sid = work.sid or ""
        record = self.records.get(sid)
        if record is None:
            return SavePlan(dropped=True)
        if work.is_refused(record.data):
            return SavePlan(refused=True)
        merged, contested = merged_with(work, record.data)
        if not has_content(merged):
            return SavePlan([self._remove(sid)], "", contested=contested, merged=True)
        plan = SavePlan([self._put(sid, merged)]) if empty else self._told(merged, sid, [self._put(sid, merged)])
        plan.contested, plan.merged = contested, not same(record.data, work.base)
        plan.may_skip = merged == record.data
        return plan

    def _owed_for_late_change(self, work: Work, patch: Data) -> SavePlan:
        """What the rotation or a request after it changed stands: the rest reaches the session whole, or not at all."""
        led_to = self.follow(work.sid)
        if led_to is None:
            return SavePlan(dropped=True)
        record = self.records[led_to]
        others = work.others(record.data, self._hidden(work))
        changed_too = others | ({MARK} if at(record.data, MARK) != at(work.base or {}, MARK) else set())
        contested = tuple(key for key in patch if key in changed_too and at(record.data, key) != at(work.mine, key))
        mine = work.effective(others)
        if mine - others and (set(contested) - {MARK} or any(map(work.depends_on, others))):
            return SavePlan(refused=True)
        data = dict(record.data)
        for key, value in patch.items():
            if key not in changed_too:
                set_or_remove(data, key, value)
        write = self._put(led_to, data, record.ends) if has_content(data) else self._remove(led_to)
        return SavePlan([write], contested=contested, merged=True, may_skip=data == record.data)

    def _hidden(self, work: Work) -> set[str]:
        """Return the keys that the old record held and a late request was not shown."""
        return self.notes[work.sid or ""].before.keys() - (work.base or {}).keys()

    def _owed_for_rotation(self, work: Work, sid: str) -> SavePlan:
        create, old, led_to = self._put(sid, work.mine), work.sid or "", self.follow(work.sid)
        if old in self.notes and (led_to is not None or not self.notes[old].sid):
            return self._owed_for_late_rotation(work, sid)
        if led_to is None:
            return SavePlan([create, self._remove(sid)], dropped=True)
        record = self.records[led_to]
        if work.is_refused(record.data):
            return SavePlan([create, self._remove(sid)], refused=True)
        merged, contested = merged_with(work, record.data)
        if not has_content(merged):
            return SavePlan([create, self._remove(old), self._remove(sid)], "", contested=contested)
        again = [] if same(merged, work.mine) else [self._put(sid, merged)]
        plan = self._told(merged, sid, [create, *again, self._note(old, sid, record.data)])
        plan.contested, plan.merged = contested, not same(record.data, work.base)
        return plan

    def _owed_for_late_rotation(self, work: Work, sid: str) -> SavePlan:
        """What it brings begins a session of its own, and nothing else; what it took away goes from the rotated one."""
        own, create = work.differences(), self._put(sid, work.mine)
        led_to = self.follow(work.sid)
        if led_to is not None:
            others = work.others(self.records[led_to].data, self._hidden(work))
            mine = work.effective(others)
            if mine and any(map(work.depends_on, others - mine)):
                return SavePlan([create, self._remove(sid)], refused=True)
        held = {key: value for key, value in work.mine.items() if key in own or key == MARK}
        if not has_content(held):
            plan = self._owed_for_late_change(work, work.patch())
            plan.writes = [create, *([] if plan.may_skip else plan.writes), self._remove(sid)]
            plan.may_skip = False
            return plan
        plan = self._told(held, sid, [create, *([] if same(held, work.mine) else [self._put(sid, held)])])
        plan.own = True
        plan.writes += self._remove_from_rotated(work, led_to)
        return plan

    def _remove_from_rotated(self, work: Work, led_to: str | None) -> list[Step]:
        """Remove what a late rotation removed, unless it was changed since."""
        if led_to is None:
            return []
        record, base = self.records[led_to], work.base or {}
        gone = {key for key in base.keys() - work.mine.keys() if at(record.data, key) == at(base, key)}
        data = {key: value for key, value in record.data.items() if key not in gone}
        if data == record.data:
            return []
        return [self._put(led_to, data, record.ends) if has_content(data) else self._remove(led_to)]

    def _told(self, data: Data, sid: str, writes: list[Step]) -> SavePlan:
        return SavePlan(writes, sid, bool(data.get(MARK)))

    def _put(self, sid: str, data: Data, ends: float | None = None) -> Step:
        record = Record(copy.deepcopy(data), self.now + LIFETIME if ends is None else ends)
        return lambda: self.records.update({sid: record})

    def _note(self, sid: str, new: str, before: Data, until: float | None = None) -> Step:
        until = self.clock + FORWARDING_LIFETIME if until is None else until
        note = ForwardingRecord(new, until, copy.deepcopy(before), self.now + FORWARDING_LIFETIME)

        def leave() -> None:
            self.records.pop(sid, None)
            self.notes[sid] = note

        return leave

    def _remove(self, sid: str) -> Step:
        def remove() -> None:
            self.records.pop(sid, None)
            self.notes.pop(sid, None)

        return remove
