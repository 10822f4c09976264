"""Opening and closing server-side sessions over a backend: the store is asked once to read and once to write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin

from .backend import Backend, Record, Renew
from .closing import Cookie, Decision, Mode, Opened, Owed, Store, decide
from .codec import Codec
from .cookies import SessionCookies, SessionIds
from .errors import SessionReadOnly, SessionUnavailable
from .saving import RecordGone, Saving

logger = logging.getLogger("lazysession")

_CREATED = "_lazysession_created"


class ServerSideInterface(Protocol):
    """What is relied on in Flask-Session's interfaces, of 0.8 and later."""

    use_signer: bool
    permanent: bool
    session_class: Callable[..., Any]


@dataclass(frozen=True)
class Policy:
    """What the settings say about reading and writing the store.

    :param refresh_throttle: seconds; None for a tenth of the lifetime, at most an hour.
    :param conflict: ``"merge"``, ``"overwrite"`` or ``"raise"``.
    :param on_read_error: ``"unavailable"``, ``"raise"`` or ``"empty"``.
    :param absolute_lifetime: seconds; None for no limit.
    """

    refresh_throttle: float | None = None
    conflict: str = "merge"
    on_read_error: str = "unavailable"
    absolute_lifetime: float | None = None

    def renew(self, lifetime: float) -> Renew:
        """Answer the refresh that a session of this lifetime, in seconds, gets when it is used."""
        throttle = self.refresh_throttle
        if throttle is None or throttle >= lifetime:  # the lifetime may be changed after the settings were checked
            throttle = min(lifetime / 10, 3600.0)
        return Renew(lifetime, throttle)


class ServerSide:
    """Keep sessions in a backend, under the ids, keys and cookies of one of Flask-Session's interfaces.

    :param interface: Flask-Session's ready interface, for its prefix, ids, session class and cookie attributes.
    :param clock: seconds since the epoch; only the absolute lifetime asks it.
    """

    def __init__(
        self,
        interface: SessionInterface,
        backend: Backend,
        codec: Codec,
        policy: Policy,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.wrapped = interface
        self.may_be_unavailable = False
        self.backend = backend
        self.codec = codec
        self.policy = policy
        self.clock = clock
        self._asked: ServerSideInterface = interface  # type: ignore[assignment]  # Flask-Session has no annotations
        self.session_class: type[SessionMixin] = interface.session_class  # type: ignore[attr-defined]
        self.ids = SessionIds(interface)
        self.cookies = SessionCookies(interface, self.ids, signed=self._asked.use_signer)
        self._saving = Saving(backend, codec, self.ids, policy.conflict)

    def unavailable(self, app: Flask) -> bool:
        """Tell that there is always a session to be had."""
        return False

    # Opening

    def new(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Answer an empty session under a new id, without asking the store."""
        session = self._asked.session_class(sid=self.ids.new(), permanent=self._asked.permanent)
        return Opened(session, decision.mode, decision.reason)

    def open(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Answer the stored session that the cookie names, or a new one: ids the store does not know are not adopted.

        :raises SessionUnavailable: when the store fails and ON_READ_ERROR is ``unavailable``.
        """
        sid = self.cookies.read(app, request)
        if sid is None:
            return self.new(app, request, decision)
        try:
            record = self.backend.read(self.ids.key(sid), self._renew(app, decision.mode))
        except Exception as error:  # whatever the client raises: the contract leaves it the choice
            return self._open_without_store(app, request, error)
        data = self.codec.decode(record.payload) if record is not None else None
        if record is None or data is None:
            if record is not None:
                logger.warning("A stored session of %d bytes cannot be decoded; a new one begins.", len(record.payload))
            return self.new(app, request, decision)
        return self._open_record(app, request, decision, sid, record, data)

    def start_over(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Answer an empty session under a new id; the one that the cookie names ends with this request, unread."""
        opened = self.new(app, request, decision)
        opened.cleared = self.cookies.sent(app, request)
        opened.sid = self.cookies.read(app, request)
        return opened

    def _open_record(
        self, app: Flask, request: Request, decision: Decision, sid: str, record: Record, data: dict[str, Any]
    ) -> Opened:
        created = data.pop(_CREATED, None) if self.policy.absolute_lifetime is not None else None
        if not isinstance(created, (int, float)):
            created = None
        elif self._absolute_rest(created) <= 0:
            return self.new(app, request, decision)
        opened = Opened(self._asked.session_class(data, sid=sid), decision.mode, decision.reason, sid, record.payload)
        opened.refreshed, opened.remaining, opened.created = record.refreshed, record.remaining, created
        return opened

    def _open_without_store(self, app: Flask, request: Request, error: Exception) -> Opened:
        if self.policy.on_read_error == "raise":
            raise error
        logger.error("The session store failed while a session was opened: %s", type(error).__name__)
        if self.policy.on_read_error == "unavailable":
            raise SessionUnavailable() from error
        opened = self.new(app, request, Decision(Mode.READONLY, "the session store is not available"))
        opened.saves = False
        return opened

    # Closing

    def close(self, app: Flask, opened: Opened, response: Response) -> None:
        """Take the steps that :func:`lazysession.closing.decide` names: first the store, and then the cookie.

        :raises SessionReadOnly: for a nested change in mode ``readonly``.
        :raises SessionConflict: when the change could not be stored beside those of others.
        """
        if not opened.saves:
            return
        payload = self._encode_unless_as_read(opened)
        owed = self._owed(opened, payload)
        if owed.store is not Store.NOTHING:
            if opened.mode is Mode.READONLY:
                raise SessionReadOnly(f"The session was changed in mode readonly ({opened.rule}).")
            payload = self._stamp(opened, payload)
            keep, lifetime = opened.mode is Mode.PASSIVE, self._lifetime(app, opened)
            try:
                stored = self._saving.settle(app, opened, owed.store, payload, lifetime, keep)
            except RecordGone:
                return
            owed = self._take_over(opened, payload, stored, owed)
        self._settle_cookie(app, opened, response, owed)

    def rotate(self, session: SessionMixin) -> None:
        """Give the session a new id; closing sees that it is not the stored one."""
        session.sid = self.ids.new()  # type: ignore[attr-defined]

    def _owed(self, opened: Opened, payload: bytes) -> Owed:
        return decide(
            had_record=opened.sid is not None or opened.cleared,
            empty=not opened.session,
            moved=_id(opened.session) != opened.sid,
            changed=self._changed(opened, payload),
            refreshed=opened.refreshed,
            permanent=opened.session.permanent,
            mode=opened.mode,
        )

    def _changed(self, opened: Opened, payload: bytes) -> bool:
        if payload == opened.payload or opened.payload is None:
            return False
        # Bytes that another format or version wrote differ without a change; ours of the same data are the measure.
        before = self.codec.decode(opened.payload)
        if before is not None and opened.created is not None:
            before[_CREATED] = before.pop(_CREATED)  # to the end, where encoding puts it
        return before is None or self.codec.encode(before) != payload

    def _take_over(self, opened: Opened, payload: bytes, stored: bytes | None, owed: Owed) -> Owed:
        """Make the stored session the one that was read, in case that it is saved again; answer what is still owed."""
        if stored is not None and stored != payload:
            replace_items(opened.session, self.codec.decode(stored) or {})
            opened.session.pop(_CREATED, None)
        opened.sid, opened.payload = (None, None) if stored is None else (_id(opened.session), stored)
        opened.refreshed = opened.cleared = opened.ended = False
        if stored is None:
            return Owed(owed.store, Cookie.DELETE)
        return Owed(owed.store, Cookie.KEEP if owed.cookie is Cookie.DELETE else owed.cookie)

    def _settle_cookie(self, app: Flask, opened: Opened, response: Response, owed: Owed) -> None:
        if owed.cookie is Cookie.DELETE:
            self.cookies.delete(app, response)
        elif owed.cookie is not Cookie.KEEP:
            renewal = owed.cookie is Cookie.RENEW
            self.cookies.set(app, opened.session, _id(opened.session), response, renewal=renewal)

    # Bytes and seconds

    def _encode(self, opened: Opened) -> bytes:
        data: dict[str, Any] = dict(opened.session)
        if opened.created is not None:
            data[_CREATED] = opened.created
        return self.codec.encode(data)

    def _encode_unless_as_read(self, opened: Opened) -> bytes:
        try:
            return self._encode(opened)
        except (TypeError, ValueError):
            # What was stored by other means (a pickle, another format) and is unchanged needs no encoding.
            if opened.payload is not None and self.codec.decode(opened.payload) == dict(opened.session):
                return opened.payload
            raise

    def _stamp(self, opened: Opened, payload: bytes) -> bytes:
        """Write down when the session began, where an absolute lifetime asks for it and nobody did so before."""
        if self.policy.absolute_lifetime is None or opened.created is not None:
            return payload
        opened.created = self.clock()
        return self._encode(opened)

    def _renew(self, app: Flask, mode: Mode) -> Renew | None:
        if mode is Mode.PASSIVE or not app.config["SESSION_REFRESH_EACH_REQUEST"]:
            return None
        return self.policy.renew(app.permanent_session_lifetime.total_seconds())

    def _lifetime(self, app: Flask, opened: Opened) -> float:
        lifetime: float = app.permanent_session_lifetime.total_seconds()
        if opened.mode is Mode.PASSIVE and opened.remaining is not None:
            lifetime = opened.remaining
        if self.policy.absolute_lifetime is None:
            return lifetime
        return min(lifetime, self._absolute_rest(opened.created if opened.created is not None else self.clock()))

    def _absolute_rest(self, created: float) -> float:
        return created + (self.policy.absolute_lifetime or 0) - self.clock()


def replace_items(session: SessionMixin, data: Mapping[str, Any]) -> None:
    """Give a session other items."""
    for key in [key for key in session if key not in data]:
        del session[key]
    session.update(data)


def _id(session: SessionMixin) -> str:
    return str(session.sid)  # type: ignore[attr-defined]  # every server-side session class of Flask-Session has it
