"""Loading and saving server-side sessions over a backend: the store is asked once to read and once to write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flask import Flask, Response
from flask.sessions import SessionInterface, SessionMixin

from .backend import Backend, explanation
from .codec import Codec
from .cookies import SessionCookies
from .errors import SessionConflict, SessionReadOnly, SessionUnavailable
from .ids import SessionIds, signs_ids
from .logs import Once, names, this_place
from .modes import Mode
from .records.expiry import Lifetimes
from .records.loading import Reading, Snapshot
from .records.merging import CREATED, Merging
from .records.payloads import Payloads
from .records.plan import CookieAction, SavePlan, StoreAction, plan_save
from .records.rotation import Forwarding
from .records.saving import Payload, Save, Saved, Saving
from .settings import Settings
from .signals import send, session_conflict, session_write_dropped
from .use import Origin, SessionUse

logger = logging.getLogger("lazysession")

#: A request that was shorter than this renews the cookie unasked; in seconds.
QUICK = 0.25
_DEFAULTS = Settings()


class ServerSideInterface(Protocol):
    """What is relied on in Flask-Session's interfaces, of 0.8 and later."""

    permanent: bool
    session_class: Callable[..., Any]


class ServerSide:
    """Keep sessions in a backend, under the ids, keys and cookies of one of Flask-Session's interfaces.

    :param interface: Flask-Session's ready interface, for its prefix, ids, session class and cookie attributes.
    :param clock: seconds since the epoch; the store's expiry has its own.
    """

    def __init__(
        self,
        interface: SessionInterface,
        backend: Backend,
        codec: Codec,
        settings: Settings = _DEFAULTS,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.wrapped = interface
        self.may_be_unavailable = False
        #: The backend uses a database session of the app's.
        self.loads_before_view = False
        self.clears_unread = True
        self.backend = backend
        self.codec = codec
        self.clock = clock
        self.settings = settings
        self._asked: ServerSideInterface = interface  # type: ignore[assignment]  # Flask-Session has no annotations
        self.session_class: type[SessionMixin] = interface.session_class  # type: ignore[attr-defined]
        self.ids = SessionIds(interface)
        self.cookies = SessionCookies(interface, self.ids, signed=signs_ids(interface))
        self.lifetimes = Lifetimes(settings.refresh_throttle, settings.absolute_lifetime, clock=self._now)
        forwarding = Forwarding(backend, codec, self.ids, self._now)
        self._reading = Reading(backend, codec, self.ids, self.lifetimes, forwarding)
        merging = Merging(codec.same, settings.conflict, settings.conflict_exempt_keys | settings.transient_keys)
        self._payloads = Payloads(codec)
        self._saving = Saving(backend, codec, self.ids, forwarding, merging)
        self._once = Once()

    def over(self, backend: Backend, codec: Codec) -> ServerSide:
        """Return a session handler with the same settings over another backend."""
        return ServerSide(self.wrapped, backend, codec, self.settings, clock=self.clock)

    def unavailable(self, app: Flask) -> bool:
        """Return False: there is always a session."""
        return False

    # Loading

    def load(self, app: Flask, use: SessionUse) -> None:
        """Load the stored session that the cookie names, or begin a new one: an id that is not stored is not adopted.

        :raises SessionUnavailable: when the store fails and ON_READ_ERROR is ``unavailable``.
        """
        sid = self.cookies.read(app, use.request)
        if sid is None:
            self.begin_empty(use, Origin.NEW)
            return
        try:
            renew = None if self.loads_before_view else self.lifetimes.renew(app, use.mode)
            snapshot = self._reading.find(sid, renew)
        except Exception as error:  # whatever the client raises: the contract leaves it the choice
            self._load_without_store(use, error)
            return
        if snapshot is None:
            self.begin_empty(use, Origin.NEW)
            return
        use.since = self.clock()
        use.begin(self._asked.session_class(snapshot.items, sid=sid), Origin.STORED, sid, snapshot)

    def begin_empty(self, use: SessionUse, origin: Origin) -> None:
        """Begin an empty session under a new id, without asking the store."""
        use.begin(self._asked.session_class(sid=self.ids.new(), permanent=self._asked.permanent), origin)

    def start_over(self, app: Flask, use: SessionUse) -> None:
        """Begin an empty session under a new id; the one that the cookie names ends with this request, unread."""
        self.begin_empty(use, Origin.CLEARED if self.cookies.sent(app, use.request) else Origin.NEW)
        use.sid = self.cookies.read(app, use.request)

    def end(self, use: SessionUse) -> None:
        """End what is stored, also if another request changes it meanwhile; later writes get a new id."""
        use.ended = True
        if use.sid is not None and _id(use.session) == use.sid:
            self.rotate(use.session)

    def _load_without_store(self, use: SessionUse, error: Exception) -> None:
        if self.settings.on_read_error == "raise":
            raise error
        logger.error("The session store failed while a session was loaded: %s", explanation(self.backend, error))
        if self.settings.on_read_error == "unavailable":
            raise SessionUnavailable() from error
        self.begin_empty(use, Origin.STORE_DOWN)
        use.mode, use.rule = Mode.READONLY, "the session store is not available"

    # Saving

    def save(self, app: Flask, use: SessionUse, response: Response) -> None:
        """Take the steps that :func:`lazysession.records.plan.plan_save` names: first the store, and then the cookie.

        :raises SessionReadOnly: for a nested change in mode ``readonly``.
        :raises SessionConflict, SessionUnavailable: when the change is refused, and when the store fails.
        """
        if not use.is_saveable:
            _refuse_lost_change(use, response)
            return
        session = use.session
        payload = self._payloads.encode_loaded(session, use.created_at, use.snapshot)
        if payload == use.payload and not use.refreshed and _id(session) == use.sid and session:
            if not self.loads_before_view:
                return  # unchanged: nothing to save
            use.refreshed = self._refresh_after_view(app, use.sid or "", use.mode)
        before = self._payloads.decode(use.snapshot)
        plan = self._plan(use, self._payloads.is_change(payload, use.created_at, use.snapshot, before))
        if plan.store is not StoreAction.NOTHING:
            if use.mode is Mode.READONLY:
                raise SessionReadOnly(f"The session was changed in mode readonly ({use.rule}).")
            self._store(app, use, response, plan, payload, before)
        elif plan.cookie is not CookieAction.RENEW or self._is_current(use):
            self._send_cookie(app, use, response, plan.cookie)

    def _plan(self, use: SessionUse, changed: bool) -> SavePlan:
        return plan_save(
            had_record=use.sid is not None or use.origin is Origin.CLEARED,
            empty=not use.session,
            rotated=_id(use.session) != use.sid,
            changed=changed,
            refreshed=use.refreshed,
            permanent=use.refreshed and use.session.permanent,
            refreshes=use.mode is not Mode.NO_REFRESH,
            late=use.is_late and not use.ended,
        )

    def _store(
        self,
        app: Flask,
        use: SessionUse,
        response: Response,
        plan: SavePlan,
        payload: bytes,
        before: dict[str, Any] | None,
    ) -> None:
        keep = use.mode is Mode.NO_REFRESH and not self.lifetimes.needs_mark(use.created_at)
        payload = self._with_creation(use, payload)
        save = Save(
            use.session,
            use.sid,
            use.payload,
            Payload(payload, self.codec.read_back(payload, use.session)),
            before,
            use.keys,
            use.ended or use.origin is Origin.CLEARED,
            use.is_late,
            use.login_keys,
            use.logout_keys,
        )
        try:
            saved = self._saving.save(save, plan.store, self._lifetime(app, use), keep=keep)
        except SessionConflict:
            self._show_as_loaded(use)
            raise
        except Exception as error:  # whatever the client raises: the contract leaves it the choice
            self._show_as_loaded(use)
            logger.error("The session store failed while a session was saved: %s", explanation(self.backend, error))
            raise SessionUnavailable() from error
        self._send_cookie(app, use, response, self._take_over(use, payload, saved, plan.cookie))
        self._tell(app, saved)

    def _lifetime(self, app: Flask, use: SessionUse) -> float:
        """Return the seconds that a session lives when it is stored now."""
        left = None
        if use.mode is Mode.NO_REFRESH and use.snapshot is not None and use.snapshot.ttl is not None and not use.ended:
            left = use.snapshot.ttl - (self.clock() - use.since)
        return self.lifetimes.of_write(app, left, use.created_at)

    def _refresh_after_view(self, app: Flask, sid: str, mode: Mode) -> bool:
        """Refresh the expiry if it is due, as the load before the view did not; return whether it was moved."""
        renew = self.lifetimes.renew(app, mode)
        if renew is None:
            return False
        try:
            snapshot = self._reading.find(sid, renew)
        except Exception as error:  # whatever the client raises; the session itself was read
            logger.warning("The expiry of a session could not be refreshed (%s).", type(error).__name__)
            return False
        return snapshot is not None and snapshot.refreshed

    def _show_as_loaded(self, use: SessionUse) -> None:
        """Make a session that was not saved what it was: an error page must not show a change that was refused."""
        self._show(use, use.payload)
        if use.sid is not None:
            use.session.sid = use.sid  # type: ignore[attr-defined]

    def _show(self, use: SessionUse, payload: bytes | None) -> None:
        """Make the session hold what a payload holds; None for nothing."""
        items = {} if payload is None else self.codec.decode(payload) or {}
        items.pop(CREATED, None)
        replace_items(use.session, items, self.codec.same)

    def _tell(self, app: Flask, saved: Saved) -> None:
        """Log and signal what became of a change next to those of other requests, now that everything is stored."""
        if saved.ended:
            self._log_dropped(saved.lost, "the session has ended meanwhile")
            send(session_write_dropped, app)
        elif saved.lost:
            self._log_dropped(saved.lost, "another request has changed them, and given the session a new id")
        if saved.contested:
            send(session_conflict, app, keys=saved.contested)

    def _log_dropped(self, keys: tuple[str, ...], reason: str) -> None:
        self._once.warn(f"A change of the session by %s was dropped (%s): {reason}.", this_place(), names(keys))

    def rotate(self, session: SessionMixin) -> None:
        """Give the session a new id; saving sees that it is not the stored one."""
        session.sid = self.ids.new()  # type: ignore[attr-defined]

    def _take_over(self, use: SessionUse, payload: bytes, saved: Saved, cookie: CookieAction) -> CookieAction:
        """Make the stored session the loaded one, in case that it is saved again; return what to do with the cookie."""
        use.refreshed = use.ended = False
        use.keys, use.origin = use.keys.after_save(), Origin.STORED
        snapshot = use.snapshot or Snapshot({}, payload)
        if not saved.here:
            use.snapshot = snapshot._replace(payload=payload)
            return CookieAction.KEEP
        stored = saved.payload
        if stored is None:
            use.sid = use.snapshot = use.created_at = None
            self.rotate(use.session)  # it has ended: what is written from now on is another session
            return CookieAction.DELETE
        if stored != payload:
            self._show(use, stored)
        use.sid, use.snapshot = _id(use.session), snapshot._replace(payload=stored, late=False)
        return CookieAction.KEEP if cookie is CookieAction.DELETE else cookie

    def _is_current(self, use: SessionUse) -> bool:
        """Return whether no other request has ended or rotated the session while a slow request had it loaded.

        A cookie that only renews its expiry must not come after one that names a newer id, or deletes it.
        """
        if self.clock() - use.since < QUICK:
            return True
        try:
            return self._reading.stands(use.sid or "")
        except Exception as error:  # whatever the client raises; the cookie keeps the expiry that it has
            logger.warning("The session cookie was not renewed, as the store failed: %s", type(error).__name__)
            return False

    def _send_cookie(self, app: Flask, use: SessionUse, response: Response, action: CookieAction) -> None:
        if action is CookieAction.DELETE:
            self.cookies.delete(app, response)
        elif action is not CookieAction.KEEP:
            renewal = action is CookieAction.RENEW
            self.cookies.set(app, use.session, _id(use.session), response, renewal=renewal)

    def _with_creation(self, use: SessionUse, payload: bytes) -> bytes:
        """Write down when the session began, where an absolute lifetime asks for it and that was not done before.

        One that was cleared and has a new id begins now.
        """
        begins = use.ended and _id(use.session) != use.sid
        if not begins and not self.lifetimes.needs_mark(use.created_at):
            return payload
        use.created_at = None if self.lifetimes.absolute is None else self.clock()
        return self._payloads.encode(use.session, use.created_at)

    def _now(self) -> float:
        return self.clock()


def _refuse_lost_change(use: SessionUse, response: Response) -> None:
    """Fail if the response reports success but its change cannot be saved."""
    if use.session.modified and response.status_code < 400:
        raise SessionUnavailable("The session was changed, and its store is not available.")


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
