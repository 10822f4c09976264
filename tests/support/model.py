"""A model of sessions in plain Python: what requests see, what is saved at their end, and who may see it.

It says in its own words what :mod:`lazysession.use` and :mod:`lazysession.records` do: a request's change is a
patch (the top-level keys that it set or removed), and a patch is put on whatever is stored when the request ends,
unless it depends on what is not so any more.
"""

from __future__ import annotations

import copy

from tests.support.records import (
    FORWARDING_LIFETIME,
    LIFETIME,
    PERMANENT,
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
        self.forwarding: dict[str, ForwardingRecord] = {}
        self.expired: set[str] = set()  # some stores keep them until they are purged

    def pass_time(self, seconds: float) -> None:
        """Pass time; what is over ends."""
        self.now, self.clock = self.now + seconds, self.clock + seconds
        over = {sid for sid, record in self.records.items() if record.ends <= self.now}
        self.expired |= over
        for sid in over:
            del self.records[sid]
        self.forwarding = {sid: record for sid, record in self.forwarding.items() if record.ends > self.now}

    def follow(self, sid: str | None) -> str | None:
        """Return the id of the session that a forwarding record leads to; None when there is none."""
        for _ in range(ROTATIONS + 1):
            if sid in self.records:
                return sid
            record = self.forwarding.get(sid or "")
            if record is None or record.until <= self.clock:
                return None
            sid = record.sid
        return None

    def open(self, work: Work) -> None:
        """Read the session that the cookie names, or begin an empty one."""
        work.loaded, work.since, cookie = True, self.clock, work.cookie or ""
        found, record = self.follow(cookie), self.forwarding.get(cookie)
        if record is not None and record.until > self.clock:
            now = self.records[found].data if found else {}
            held = {key: value for key, value in record.before.items() if at(now, key) == at(record.before, key)}
            work.late, data = True, held if found or not record.sid else None
        else:
            data = self.records[found].data if found else None
        if data is None:
            work.late, work.mine = False, {PERMANENT: True}
        else:
            work.sid, work.base, work.mine = work.cookie, copy.deepcopy(data), copy.deepcopy(data)
        if work.base is not None and not work.late:
            work.refreshed = self.refresh(work)
        if record is not None:
            self.keep_short(cookie, refreshed=self.refresh_forwarding(cookie))
        if work.permanent is not None:
            work.set_permanent(work.permanent)

    def refresh(self, work: Work) -> bool:
        """Move the expiry of the session that a request reads, if that is due."""
        record = self.records.get(work.cookie or "")
        self.refresh_forwarding(work.cookie)
        if record is None or record.ends - self.now > LIFETIME - THROTTLE:
            return False
        record.ends = self.now + LIFETIME
        return True

    def refresh_forwarding(self, sid: str | None) -> bool:
        """Give a forwarding record the lifetime that a read gives it, unless it has that already."""
        record = self.forwarding.get(sid or "")
        if record is None or record.ends - self.now > LIFETIME - THROTTLE:
            return False
        record.ends = self.now + LIFETIME
        return True

    def keep_short(self, sid: str, *, refreshed: bool) -> None:
        """Undo that, and remove a forwarding record whose time is over."""
        record = self.forwarding[sid]
        if record.until <= self.clock:
            del self.forwarding[sid]
        elif refreshed:
            record.ends = self.now + record.until - self.clock

    def clear(self, work: Work) -> None:
        """Empty the session; first thing in a request, without reading it."""
        if not work.loaded:
            work.loaded, work.cleared = True, bool(work.cookie)
            work.sid = work.id_sent
            work.rotated = True
            work.mine = {PERMANENT: True if work.permanent is None else work.permanent}
        work.mine = {PERMANENT: work.mine.get(PERMANENT, False)}
        work.ended = True
        work.rotated = work.rotated or work.sid is not None  # what follows is a new session

    def plan(self, work: Work, sid: str) -> SavePlan:
        """Return what has to be done at the end of a request.

        :param sid: the id that its session has now.
        """
        empty, unchanged = not has_content(work.mine), same(work.base, work.mine)
        if not work.loaded or (work.late and not work.ended and empty and unchanged):
            return SavePlan()
        if work.sid is None and not work.cleared:
            return SavePlan() if empty else self._with_cookie(work.mine, sid, [self._put(sid, work.mine)])
        if work.cleared or (work.ended and (empty or work.rotated)):
            return self._plan_end(work, sid, empty)
        if work.rotated and not empty:
            return self._plan_rotation(work, sid)
        if unchanged:
            stands = work.sid in self.records or self.clock - work.since < QUICK  # a quick one does not look
            renewed = work.refreshed and work.mine.get(PERMANENT) and stands
            return self._with_cookie(work.mine, sid, []) if renewed else SavePlan()
        return (
            self._plan_late_change(work, work.patch())
            if work.sid in self.forwarding
            else self._plan_change(work, empty)
        )

    def _plan_end(self, work: Work, sid: str, empty: bool) -> SavePlan:
        """End the session under the id that it has now, or, where it was not loaded, under the one that was sent."""
        old, led_to = work.sid or "", self.follow(work.sid)
        known = old in self.records or old in self.forwarding
        ids = [old] if work.sid is not None and (known or work.cleared) else []
        ends = [self._remove(ended) for ended in dict.fromkeys([*ids, led_to]) if ended is not None]
        if empty:
            return SavePlan(ends, "")
        live = old in self.forwarding and self.forwarding[old].until > self.clock
        until = self.forwarding[old].until if live else None  # which no forwarding record prolongs
        last = [self._forward(old, "", {}, until)] if led_to is not None or live else []
        return self._with_cookie(work.mine, sid, [self._put(sid, work.mine), *ends, *last])

    def _plan_change(self, work: Work, empty: bool) -> SavePlan:
        sid = work.sid or ""
        record = self.records.get(sid)
        if record is None:
            return SavePlan(dropped=True)
        if work.is_refused(record.data):
            return SavePlan(refused=True)
        merged, contested = merged_with(work, record.data)
        if not has_content(merged):
            return SavePlan([self._remove(sid)], "", contested=contested, merged=True)
        plan = SavePlan([self._put(sid, merged)]) if empty else self._with_cookie(merged, sid, [self._put(sid, merged)])
        plan.contested, plan.merged = contested, not same(record.data, work.base)
        plan.may_skip = merged == record.data
        return plan

    def _plan_late_change(self, work: Work, patch: Data) -> SavePlan:
        """What the rotation or a request after it changed stands; the rest is stored as a whole, or not at all."""
        led_to = self.follow(work.sid)
        if led_to is None:
            return SavePlan(dropped=True)
        record = self.records[led_to]
        others = work.changed_meanwhile(record.data, self._hidden(work))
        changed_too = others | ({PERMANENT} if at(record.data, PERMANENT) != at(work.base or {}, PERMANENT) else set())
        contested = tuple(key for key in patch if key in changed_too and at(record.data, key) != at(work.mine, key))
        mine = work.effective(others)
        if mine - others and (set(contested) - {PERMANENT} or any(map(work.depends_on, others))):
            return SavePlan(refused=True)
        data = dict(record.data)
        for key, value in patch.items():
            if key not in changed_too:
                set_or_remove(data, key, value)
        write = self._put(led_to, data, record.ends) if has_content(data) else self._remove(led_to)
        return SavePlan([write], contested=contested, merged=True, may_skip=data == record.data)

    def _hidden(self, work: Work) -> set[str]:
        """Return the keys that the old record held and a late request was not shown."""
        return self.forwarding[work.sid or ""].before.keys() - (work.base or {}).keys()

    def _plan_rotation(self, work: Work, sid: str) -> SavePlan:
        create, old, led_to = self._put(sid, work.mine), work.sid or "", self.follow(work.sid)
        if old in self.forwarding and (led_to is not None or not self.forwarding[old].sid):
            return self._plan_late_rotation(work, sid)
        if led_to is None:
            return SavePlan([create, self._remove(sid)], dropped=True)
        record = self.records[led_to]
        if work.is_refused(record.data):
            return SavePlan([create, self._remove(sid)], refused=True)
        merged, contested = merged_with(work, record.data)
        if not has_content(merged):
            return SavePlan([create, self._remove(old), self._remove(sid)], "", contested=contested)
        again = [] if same(merged, work.mine) else [self._put(sid, merged)]
        plan = self._with_cookie(merged, sid, [create, *again, self._forward(old, sid, record.data)])
        plan.contested, plan.merged = contested, not same(record.data, work.base)
        return plan

    def _plan_late_rotation(self, work: Work, sid: str) -> SavePlan:
        """What it adds begins a session of its own; what it removed is removed from the rotated one."""
        own, create = work.differences(), self._put(sid, work.mine)
        led_to = self.follow(work.sid)
        if led_to is not None:
            others = work.changed_meanwhile(self.records[led_to].data, self._hidden(work))
            mine = work.effective(others)
            if mine and any(map(work.depends_on, others - mine)):
                return SavePlan([create, self._remove(sid)], refused=True)
        held = {key: value for key, value in work.mine.items() if key in own or key == PERMANENT}
        if not has_content(held):
            plan = self._plan_late_change(work, work.patch())
            plan.writes = [create, *([] if plan.may_skip else plan.writes), self._remove(sid)]
            plan.may_skip = False
            return plan
        plan = self._with_cookie(held, sid, [create, *([] if same(held, work.mine) else [self._put(sid, held)])])
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

    def _with_cookie(self, data: Data, sid: str, writes: list[Step]) -> SavePlan:
        return SavePlan(writes, sid, bool(data.get(PERMANENT)))

    def _put(self, sid: str, data: Data, ends: float | None = None) -> Step:
        record = Record(copy.deepcopy(data), self.now + LIFETIME if ends is None else ends)
        return lambda: self.records.update({sid: record})

    def _forward(self, sid: str, new: str, before: Data, until: float | None = None) -> Step:
        until = self.clock + FORWARDING_LIFETIME if until is None else until
        record = ForwardingRecord(new, until, copy.deepcopy(before), self.now + FORWARDING_LIFETIME)

        def leave() -> None:
            self.records.pop(sid, None)
            self.forwarding[sid] = record

        return leave

    def _remove(self, sid: str) -> Step:
        def remove() -> None:
            self.records.pop(sid, None)
            self.forwarding.pop(sid, None)

        return remove
