"""Opening and closing server-side sessions over a backend: the store is asked once to read and once to write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin

from .backend import Backend, explanation
from .codec import Codec
from .cookies import SessionCookies
from .errors import SessionConflict, SessionReadOnly, SessionUnavailable
from .ids import SessionIds, signs_ids
from .logs import Once, names, this_place
from .modes import Decision, Mode
from .records.expiry import Lifetimes
from .records.loading import Reading
from .records.merging import CREATED, Merging, different_keys
from .records.plan import CookieAction, SavePlan, StoreAction, plan_save
from .records.rotation import Forwarding
from .records.saving import Payload, Saved, Saving
from .signals import send, session_conflict, session_write_dropped
from .use import Opened

logger = logging.getLogger("lazysession")

#: A request that was shorter than this renews the cookie unasked; in seconds.
QUICK = 0.25


class ServerSideInterface(Protocol):
    """What is relied on in Flask-Session's interfaces, of 0.8 and later."""

    permanent: bool
    session_class: Callable[..., Any]


class ServerSide:
    """Keep sessions in a backend, under the ids, keys and cookies of one of Flask-Session's interfaces.

    :param interface: Flask-Session's ready interface, for its prefix, ids, session class and cookie attributes.
    :param conflict: ``"merge"``, ``"overwrite"`` or ``"raise"``.
    :param exempt: keys that nothing else depends on (CONFLICT_EXEMPT_KEYS).
    :param on_read_error: ``"unavailable"``, ``"raise"`` or ``"empty"``.
    :param throttle: least seconds between two refreshes; None for a tenth of the lifetime, at most an hour.
    :param absolute_lifetime: seconds; None for no limit.
    :param clock: seconds since the epoch; the store's expiry has its own.
    """

    def __init__(
        self,
        interface: SessionInterface,
        backend: Backend,
        codec: Codec,
        *,
        conflict: str = "merge",
        exempt: frozenset[str] = frozenset(),
        on_read_error: str = "unavailable",
        throttle: float | None = None,
        absolute_lifetime: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.wrapped = interface
        self.may_be_unavailable = False
        #: The backend uses a database session of the app's.
        self.loads_before_view = False
        self.backend = backend
        self.codec = codec
        self.on_read_error = on_read_error
        self.clock = clock
        self._asked: ServerSideInterface = interface  # type: ignore[assignment]  # Flask-Session has no annotations
        self.session_class: type[SessionMixin] = interface.session_class  # type: ignore[attr-defined]
        self.ids = SessionIds(interface)
        self.cookies = SessionCookies(interface, self.ids, signed=signs_ids(interface))
        self.lifetimes = Lifetimes(throttle, absolute_lifetime, clock=self._now)
        forwarding = Forwarding(backend, codec, self.ids, self._now)
        self._reading = Reading(backend, codec, self.ids, self.lifetimes, forwarding)
        merging = Merging(codec.same, conflict, exempt)
        self._saving = Saving(backend, codec, self.ids, forwarding, merging)
        self._once = Once()
        self._options: dict[str, Any] = {
            "conflict": conflict,
            "exempt": exempt,
            "on_read_error": on_read_error,
            "throttle": throttle,
            "absolute_lifetime": absolute_lifetime,
            "clock": clock,
        }

    def over(self, backend: Backend, codec: Codec) -> ServerSide:
        """Return a session handler with the same settings over another backend."""
        return ServerSide(self.wrapped, backend, codec, **self._options)

    def unavailable(self, app: Flask) -> bool:
        """Tell that there is always a session to be had."""
        return False

    # Opening

    def new(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Return an empty session under a new id, without asking the store."""
        session = self._asked.session_class(sid=self.ids.new(), permanent=self._asked.permanent)
        return Opened(session, decision.mode, decision.reason)

    def open(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Return the stored session that the cookie names, or a new one: ids the store does not know are not adopted.

        :raises SessionUnavailable: when the store fails and ON_READ_ERROR is ``unavailable``.
        """
        sid = self.cookies.read(app, request)
        if sid is None:
            return self.new(app, request, decision)
        try:
            renew = None if self.loads_before_view else self.lifetimes.renew(app, decision.mode)
            found = self._reading.find(sid, renew)
        except Exception as error:  # whatever the client raises: the contract leaves it the choice
            return self._open_without_store(app, request, error)
        if found is None:
            return self.new(app, request, decision)
        return Opened(
            self._asked.session_class(found.items, sid=sid),
            decision.mode,
            decision.reason,
            sid,
            found.payload,
            found.refreshed,
            found.ttl,
            created=found.created,
            late=found.late,
            since=self.clock(),
        )

    def open_nothing(self, app: Flask, request: Request) -> Opened:
        """Return an empty session of which nothing is saved, for what runs after the store has failed."""
        opened = self.new(app, request, Decision(Mode.NORMAL, "the session store is not available"))
        opened.saves, opened.missing = False, True
        return opened

    def start_over(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Return an empty session under a new id; the one that the cookie names ends with this request, unread."""
        opened = self.new(app, request, decision)
        opened.cleared = self.cookies.sent(app, request)
        opened.sid = self.cookies.read(app, request)
        return opened

    def end(self, opened: Opened) -> None:
        """Let what is stored end whatever others make of it, and let what is written from now on have a new id."""
        opened.ended = True
        if opened.sid is not None and _id(opened.session) == opened.sid:
            self.rotate(opened.session)

    def _open_without_store(self, app: Flask, request: Request, error: Exception) -> Opened:
        if self.on_read_error == "raise":
            raise error
        logger.error("The session store failed while a session was opened: %s", explanation(self.backend, error))
        if self.on_read_error == "unavailable":
            raise SessionUnavailable() from error
        opened = self.open_nothing(app, request)
        opened.mode = Mode.READONLY
        return opened

    # Closing

    def close(self, app: Flask, opened: Opened, response: Response) -> None:
        """Take the steps that :func:`lazysession.records.plan.decide` names: first the store, and then the cookie.

        :raises SessionReadOnly: for a nested change in mode ``readonly``.
        :raises SessionConflict, SessionUnavailable: when the change is refused, and when the store fails.
        """
        if not opened.saves:
            self._refuse_lost_change(opened, response)
            return
        payload = self._encode_unless_as_read(opened)
        session = opened.session
        if payload == opened.payload and not opened.refreshed and _id(session) == opened.sid and session:
            if not self.loads_before_view:
                return  # unchanged: nothing to save
            opened.refreshed = self._refresh_after_view(app, opened.sid or "", opened.mode)
        plan = self._plan(opened, payload)
        if plan.store is not StoreAction.NOTHING:
            if opened.mode is Mode.READONLY:
                raise SessionReadOnly(f"The session was changed in mode readonly ({opened.rule}).")
            keep = opened.mode is Mode.NO_REFRESH and not self.lifetimes.needs_mark(opened)
            self._save(app, opened, response, plan, self._mark(opened, payload), keep=keep)
        elif plan.cookie is not CookieAction.RENEW or self._still_stands(opened):
            self._send_cookie(app, opened, response, plan)

    def _save(
        self, app: Flask, opened: Opened, response: Response, plan: SavePlan, payload: bytes, *, keep: bool
    ) -> None:
        mine = Payload(payload, self.codec.read_back(payload, opened.session))
        lifetime = self.lifetimes.of_write(app, opened)
        try:
            saved = self._saving.save(opened, plan.store, mine, self._items_as_read(opened), lifetime, keep=keep)
        except SessionConflict:
            self._show_as_loaded(opened)
            raise
        except Exception as error:  # whatever the client raises: the contract leaves it the choice
            self._show_as_loaded(opened)
            logger.error("The session store failed while a session was saved: %s", explanation(self.backend, error))
            raise SessionUnavailable() from error
        self._send_cookie(app, opened, response, self._take_over(opened, payload, saved, plan))
        self._tell(app, saved)

    def _refresh_after_view(self, app: Flask, sid: str, mode: Mode) -> bool:
        """Refresh the expiry if it is due, as the load before the view did not; return whether it was moved."""
        renew = self.lifetimes.renew(app, mode)
        if renew is None:
            return False
        try:
            found = self._reading.find(sid, renew)
        except Exception as error:  # whatever the client raises; the session itself was read
            logger.warning("The expiry of a session could not be refreshed (%s).", type(error).__name__)
            return False
        return found is not None and found.refreshed

    def _show_as_loaded(self, opened: Opened) -> None:
        """Make a session that was not saved what it was: an error page must not show a change that was refused."""
        self._show(opened, opened.payload)
        if opened.sid is not None:
            opened.session.sid = opened.sid  # type: ignore[attr-defined]

    def _show(self, opened: Opened, payload: bytes | None) -> None:
        """Make the session hold what a payload holds; None for nothing."""
        items = {} if payload is None else self.codec.decode(payload) or {}
        items.pop(CREATED, None)
        replace_items(opened.session, items, self.codec.same)

    def _tell(self, app: Flask, saved: Saved) -> None:
        """Log and signal what became of a change beside those of other requests, now that everything is stored."""
        if saved.ended:
            self._log_dropped(saved.lost, "the session has ended meanwhile")
            send(session_write_dropped, app)
        elif saved.lost:
            self._log_dropped(saved.lost, "another request has changed them, and given the session a new id")
        if saved.contested:
            send(session_conflict, app, keys=saved.contested)

    def _log_dropped(self, keys: tuple[str, ...], reason: str) -> None:
        self._once.warn(f"A change of the session by %s was dropped (%s): {reason}.", this_place(), names(keys))

    def _refuse_lost_change(self, opened: Opened, response: Response) -> None:
        """Let no response claim success that changed a session which the store did not give."""
        if opened.session.modified and response.status_code < 400:
            raise SessionUnavailable("The session was changed, and its store is not available.")

    def rotate(self, session: SessionMixin) -> None:
        """Give the session a new id; closing sees that it is not the stored one."""
        session.sid = self.ids.new()  # type: ignore[attr-defined]

    def _plan(self, opened: Opened, payload: bytes) -> SavePlan:
        return plan_save(
            had_record=opened.sid is not None or opened.cleared,
            empty=not opened.session,
            rotated=_id(opened.session) != opened.sid,
            changed=self._changed(opened, payload),
            refreshed=opened.refreshed,
            permanent=opened.refreshed and opened.session.permanent,
            mode=opened.mode,
            late=opened.late and not opened.ended,
        )

    def _changed(self, opened: Opened, payload: bytes) -> bool:
        if payload == opened.payload or opened.payload is None:
            return False
        # Bytes that another format or version wrote differ without a change; ours of the same data are the measure.
        before = self._items_as_read(opened)
        if before is not None and opened.created is not None:
            before = {**before, CREATED: opened.created}  # at the end, where encoding puts it
        return before is None or self.codec.encode(before) != payload

    def _items_as_read(self, opened: Opened) -> dict[str, Any] | None:
        """Return what was read, None when that is nothing or cannot be decoded.

        Without the mark: one that is unsound, or ahead of this machine's clock, is no change of the app's.
        """
        if opened.items is None and opened.payload is not None:
            opened.items = self.codec.decode(opened.payload)
            if opened.items is not None:
                opened.items.pop(CREATED, None)
        return opened.items

    def _take_over(self, opened: Opened, payload: bytes, saved: Saved, plan: SavePlan) -> SavePlan:
        """Make the stored session the one that was read, in case that it is saved again; return what is still to do."""
        opened.refreshed = opened.cleared = opened.ended = False
        opened.keys, opened.items = opened.keys.after_save(), None
        if not saved.here:
            opened.payload = payload
            return SavePlan(plan.store, CookieAction.KEEP)
        opened.late, stored = False, saved.payload
        if stored is not None and stored != payload:
            self._show(opened, stored)
        opened.sid, opened.payload = (None, None) if stored is None else (_id(opened.session), stored)
        if stored is None:
            self.rotate(opened.session)  # it has ended: what is written from now on is another session
            opened.created = opened.ttl = None
            return SavePlan(plan.store, CookieAction.DELETE)
        return SavePlan(plan.store, CookieAction.KEEP if plan.cookie is CookieAction.DELETE else plan.cookie)

    def _still_stands(self, opened: Opened) -> bool:
        """Return whether the session was not ended or rotated by others while a slow request had it open.

        A cookie that only renews its expiry must not come after one that names a newer id, or deletes it.
        """
        if self.clock() - opened.since < QUICK:
            return True
        try:
            return self._reading.stands(opened.sid or "")
        except Exception as error:  # whatever the client raises; the cookie keeps the expiry that it has
            logger.warning("The session cookie was not renewed, as the store failed: %s", type(error).__name__)
            return False

    def _send_cookie(self, app: Flask, opened: Opened, response: Response, plan: SavePlan) -> None:
        if plan.cookie is CookieAction.DELETE:
            self.cookies.delete(app, response)
        elif plan.cookie is not CookieAction.KEEP:
            renewal = plan.cookie is CookieAction.RENEW
            self.cookies.set(app, opened.session, _id(opened.session), response, renewal=renewal)

    # Bytes and seconds

    def _encode(self, opened: Opened) -> bytes:
        if opened.created is None:
            return self.codec.encode(opened.session)
        return self.codec.encode({**opened.session, CREATED: opened.created})

    def _encode_unless_as_read(self, opened: Opened) -> bytes:
        try:
            return self._encode(opened)
        except (TypeError, ValueError):
            # What was stored by other means (a pickle, another format) and is unchanged needs no encoding.
            before = self._items_as_read(opened)
            if opened.payload is None or before is None or different_keys(before, opened.session, self.codec.same):
                raise
            return opened.payload

    def _mark(self, opened: Opened, payload: bytes) -> bytes:
        """Write down when the session began, where an absolute lifetime asks for it and nobody did so before.

        One that was cleared and has a new id begins now.
        """
        begins = opened.ended and _id(opened.session) != opened.sid
        if not begins and not self.lifetimes.needs_mark(opened):
            return payload
        opened.created = None if self.lifetimes.absolute is None else self.clock()
        return self._encode(opened)

    def _now(self) -> float:
        return self.clock()


def replace_items(session: SessionMixin, items: Mapping[str, Any], same: Callable[[Any, Any], bool]) -> None:
    """Give a session other items, in their order; a value that is the same stays the object that a view may hold."""
    values = {
        key: session[key] if key in session and same(session[key], value) else value for key, value in items.items()
    }
    for key in list(session):
        del session[key]
    session.update(values)


def _id(session: SessionMixin) -> str:
    return str(session.sid)  # type: ignore[attr-defined]  # every server-side session class of Flask-Session has it
