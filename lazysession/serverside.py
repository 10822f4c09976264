"""The session handler over a backend: one round trip to load a session, and one to save it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from flask import Flask, Response
from flask.sessions import SessionInterface, SessionMixin

from .backend import Backend, NotStorable, Payload, PayloadCodec, explanation
from .cookies import SessionCookies
from .errors import SessionConflict, SessionReadOnly, SessionUnavailable
from .ids import SessionIds, signs_ids
from .logs import Once, names, this_place
from .modes import Mode
from .pages import Page, see
from .records.expiry import Lifetimes
from .records.loading import Loading
from .records.merging import Merging
from .records.payloads import Payloads
from .records.plan import CookieAction, StoreAction, cookie_after, plan_save
from .records.rotation import Forwarding
from .records.saving import Encoded, Save, Saved, Saving
from .records.store import RecordStore
from .settings import Settings
from .signals import send, session_conflict, session_write_dropped
from .use import STORE_DOWN, Origin, SessionUse

logger = logging.getLogger("lazysession")

#: Seconds. A request that took less renews the cookie without checking that the session still has its id.
QUICK_REQUEST = 0.25
_DEFAULTS = Settings()


class ServerSideInterface(Protocol):
    """The attributes that are used of Flask-Session's interfaces, of 0.8 and later."""

    permanent: bool
    session_class: Callable[..., Any]


class ServerSide:
    """Load and save sessions in a backend, with the ids, keys and cookies of one of Flask-Session's interfaces.

    :param interface: Flask-Session's interface, for its prefix, ids, session class and cookie attributes.
    :param clock: seconds since the epoch; the store expires records by its own clock.
    """

    def __init__(
        self,
        interface: SessionInterface,
        backend: Backend,
        codec: PayloadCodec,
        settings: Settings = _DEFAULTS,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.wrapped = interface
        self.may_be_unavailable = False
        #: Set where the backend uses the app's database session.
        self.loads_before_view = False
        self.clears_unread = True
        self.backend = backend
        self.codec = codec
        self.clock = clock
        self.settings = settings
        self._interface: ServerSideInterface = interface  # type: ignore[assignment]  # Flask-Session has no annotations
        self.session_class: type[SessionMixin] = interface.session_class  # type: ignore[attr-defined]
        self.ids = SessionIds(interface)
        self.cookies = SessionCookies(interface, self.ids.may_be, signed=signs_ids(interface))
        self.lifetimes = Lifetimes(settings.refresh_throttle, settings.absolute_lifetime, clock=self._now)
        self.records = RecordStore(backend)
        forwarding = Forwarding(self.records, codec, self.ids, self._now)
        self._loading = Loading(self.records, codec, self.ids, self.lifetimes, forwarding)
        merging = Merging(codec.same, settings.conflict, settings.conflict_exempt_keys | settings.transient_keys)
        self._payloads = Payloads(codec)
        self._saving = Saving(self.records, codec, self.ids, forwarding, merging)
        self._once = Once()

    def over(self, backend: Backend, codec: PayloadCodec) -> ServerSide:
        """Return a session handler with the same settings over another backend of the same store."""
        handler = ServerSide(self.wrapped, backend, codec, self.settings, clock=self.clock)
        handler.loads_before_view, handler.records.expiries = self.loads_before_view, self.records.expiries
        return handler

    def unavailable(self, app: Flask) -> bool:
        """Return False: there is always a session."""
        return False

    # Loading

    def load(self, app: Flask, use: SessionUse) -> None:
        """Load the session of the request's cookie, or begin a new one under a new id if there is none.

        :raises SessionUnavailable: when the store fails and ON_READ_ERROR is ``unavailable``.
        """
        sid = self.cookies.read(app, use.request)
        if sid is None:
            self.begin_empty(use, Origin.NEW)
            return
        try:
            refresh = None if self.loads_before_view else self.lifetimes.refresh(app, use.mode)
            snapshot = self._loading.load(sid, refresh)
        except Exception as error:  # a backend may raise any error of its client
            self._load_without_store(use, error)
            return
        if snapshot is None:
            self.begin_empty(use, Origin.NEW)
            return
        use.loaded_at = self.clock()
        use.begin(self._interface.session_class(snapshot.items, sid=sid), Origin.STORED, sid, snapshot)

    def begin_empty(self, use: SessionUse, origin: Origin) -> None:
        """Begin an empty session under a new id, without asking the store."""
        use.begin(self._interface.session_class(sid=self.ids.new(), permanent=self._interface.permanent), origin)

    def start_over(self, app: Flask, use: SessionUse) -> None:
        """Begin an empty session under a new id; saving it deletes the session of the cookie, which is not read."""
        self.begin_empty(use, Origin.CLEARED if self.cookies.sent(app, use.request) else Origin.NEW)
        use.sid = self.cookies.read(app, use.request)

    def end(self, use: SessionUse) -> None:
        """Make saving delete the stored session, even if another request changes it; later writes get a new id."""
        use.ended = True
        if use.sid is not None and not use.starts_over:
            self.rotate(use.session)

    def _load_without_store(self, use: SessionUse, error: Exception) -> None:
        if self.settings.on_read_error == "raise":
            raise error
        self._log_failure("loaded", error)
        if self.settings.on_read_error == "unavailable":
            raise SessionUnavailable() from error
        self.begin_empty(use, Origin.STORE_DOWN)
        use.mode, use.rule = Mode.READONLY, STORE_DOWN

    def _log_failure(self, done: str, error: Exception) -> None:
        what = explanation(self.backend, error)
        logger.error("The session store failed while a session was %s: %s. %s", done, what, see(Page.STORE_UNREACHABLE))

    # Saving

    def save(self, app: Flask, use: SessionUse, response: Response) -> None:
        """Carry out the save plan (:func:`lazysession.records.plan.plan_save`): the store first, then the cookie.

        :raises SessionReadOnly: for a nested change in mode ``readonly``.
        :raises SessionConflict, SessionUnavailable: when the change is refused, and when the store fails.
        """
        session: Any = use.session  # Flask-Session has no annotations
        if not use.is_saveable:
            if session.modified and response.status_code < 400:  # the response reports success
                raise SessionUnavailable("The session was changed, and its store is not available.")
            return
        payload = self._payloads.encode_loaded(session, use.created_at, use.payload)
        if payload == use.payload and not use.refreshed and session.sid == use.sid and session:
            if not self.loads_before_view:
                return  # unchanged: nothing to save
            use.refreshed = self._loading.refresh(use.sid or "", self.lifetimes.refresh(app, use.mode))
        before, changed = self._payloads.compare(payload, use.created_at, use.payload)
        plan = plan_save(
            had_record=use.sid is not None or use.origin is Origin.CLEARED,
            empty=not session,
            rotated=session.sid != use.sid,
            changed=changed,
            refreshed=use.refreshed,
            permanent=use.refreshed and session.permanent,
            refreshes=use.mode is not Mode.NO_REFRESH,
            late=use.is_late and not use.ended,
        )
        cookie, saved = plan.cookie, None
        if plan.store is not StoreAction.NOTHING:
            saved = self._store(app, use, plan.store, payload, before)
            cookie = cookie_after(cookie, under_own_id=saved.under_own_id, ended=saved.payload is None)
        elif cookie is CookieAction.RENEW and self.clock() - use.loaded_at >= QUICK_REQUEST:
            # Another request may have rotated or ended the session: the old cookie must not overwrite its new one.
            cookie = cookie if self._loading.is_current(use.sid or "") else CookieAction.KEEP
        if cookie is CookieAction.DELETE:
            self.cookies.delete(app, response)
        elif cookie is not CookieAction.KEEP:
            self.cookies.set(app, session, session.sid, response, renewal=cookie is CookieAction.RENEW)
        if saved is not None:
            self._report(app, saved)

    def _store(
        self, app: Flask, use: SessionUse, action: StoreAction, payload: Payload, before: dict[str, Any] | None
    ) -> Saved:
        """Carry out an action in the store, and update the session and its use from the outcome."""
        if use.mode is Mode.READONLY:
            raise SessionReadOnly(f"The session was changed in mode readonly ({use.rule}).")
        lacks_created_at = self.lifetimes.lacks_created_at(use.created_at)
        keep_ttl = use.mode is Mode.NO_REFRESH and not lacks_created_at
        if lacks_created_at or use.starts_over:
            use.created_at = self.lifetimes.new_created_at()
            payload = self._payloads.encode(use.session, use.created_at)
        left = use.seconds_left(self.clock()) if use.mode is Mode.NO_REFRESH else None
        lifetime = self.lifetimes.of_write(app, left, use.created_at)
        cleared = use.ended or use.origin is Origin.CLEARED
        is_stored = not cleared or action is not StoreAction.DELETE
        after = Encoded(payload, self.codec.read_back(payload, use.session) if is_stored else {})
        changes = use.keys, cleared, use.is_late, use.login_keys, use.logout_keys
        save = Save(use.session, use.sid, use.payload, after, before, *changes)
        try:
            saved = self._saving.save(save, action, lifetime, keep_ttl=keep_ttl)
        except Exception as error:  # a backend may raise any error of its client
            use.replace_items(before or {}, self.codec.same)  # an error page must not show a change that is not stored
            use.restore_id()
            if isinstance(error, (SessionConflict, NotStorable)):
                raise
            self._log_failure("saved", error)
            raise SessionUnavailable() from error
        if saved.under_own_id and saved.payload is not None and saved.payload != payload:
            use.replace_items(self._payloads.items_of(saved.payload), self.codec.same)
        has_new_id = use.session.sid != use.sid  # type: ignore[attr-defined]  # clear() gave it one
        use.reset_after_save(saved.payload if saved.under_own_id else payload, under_own_id=saved.under_own_id)
        if saved.under_own_id and saved.payload is None and not has_new_id:
            self.rotate(use.session)  # the session has ended: a later write begins a new one
        return saved

    def rotate(self, session: SessionMixin) -> None:
        """Give the session a new id; saving compares it with the stored one."""
        session.sid = self.ids.new()  # type: ignore[attr-defined]

    def _report(self, app: Flask, saved: Saved) -> None:
        """Log and signal that a change was dropped, or conflicts with another request's; called when all is stored."""
        if saved.ended:
            self._log_dropped(saved.lost, "the session has ended meanwhile")
            send(session_write_dropped, app)
        elif saved.lost:
            self._log_dropped(saved.lost, "another request has changed these keys, and given the session a new id")
        if saved.contested:
            send(session_conflict, app, keys=saved.contested)

    def _log_dropped(self, keys: tuple[str, ...], reason: str) -> None:
        message = f"A change of the session by %s was dropped (%s): {reason}."
        self._once.warn(message, this_place(), names(keys), page=Page.NOT_SAVED)

    def _now(self) -> float:
        return self.clock()
