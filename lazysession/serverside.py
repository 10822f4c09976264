"""Opening and closing server-side sessions over a backend: the store is asked once to read and once to write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin

from .backend import Backend, Outcome, Renew
from .closing import Cookie, Decision, Mode, Opened, Owed, Store, decide, merge
from .codec import Codec
from .cookies import SessionCookies
from .errors import SessionConflict, SessionReadOnly, SessionUnavailable
from .signals import session_conflict, session_write_dropped

logger = logging.getLogger("lazysession")

#: How often a change is merged with what someone else stored meanwhile, before it counts as failed.
MERGES = 10
_FREE_IDS = 3
_CREATED = "_lazysession_created"


class ServerSideInterface(Protocol):
    """What is relied on in Flask-Session's interfaces, of 0.8 and later."""

    key_prefix: str
    use_signer: bool
    permanent: bool
    sid_length: int
    session_class: Callable[..., Any]

    def _generate_sid(self, session_id_length: int) -> str: ...


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
        return Renew(lifetime, min(lifetime / 10, 3600.0) if throttle is None else throttle)


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
        self.backend = backend
        self.codec = codec
        self.policy = policy
        self.clock = clock
        self._asked: ServerSideInterface = interface  # type: ignore[assignment]  # Flask-Session has no annotations
        self.session_class: type[SessionMixin] = interface.session_class  # type: ignore[attr-defined]
        self.cookies = SessionCookies(interface, signed=self._asked.use_signer, sample=self._new_id())

    def unavailable(self, app: Flask) -> bool:
        """Tell that sessions are always to be had: opening answers a session whatever the cookie says."""
        return False

    # Opening

    def new(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Answer an empty session under a new id, without asking the store."""
        session = self._asked.session_class(sid=self._new_id(), permanent=self._asked.permanent)
        return Opened(session, decision.mode, decision.reason)

    def open(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Answer the stored session that the cookie names, or a new one: ids the store does not know are not adopted.

        :raises SessionUnavailable: when the store fails and ON_READ_ERROR is ``unavailable``.
        """
        sid = self.cookies.read(app, request)
        if sid is None:
            return self.new(app, request, decision)
        try:
            record = self.backend.read(self._key(sid), self._renew(app, decision.mode))
        except Exception as error:  # whatever the client raises: the contract leaves it the choice
            return self._open_without_store(app, request, error)
        data = self.codec.decode(record.payload) if record is not None else None
        if record is None or data is None:
            if record is not None:
                logger.warning("A stored session of %d bytes cannot be decoded; a new one begins.", len(record.payload))
            return self.new(app, request, decision)
        return self._open_record(app, request, decision, sid, record.payload, data, refreshed=record.refreshed)

    def start_over(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Answer an empty session under a new id; the one that the cookie names ends with this request, unread."""
        opened = self.new(app, request, decision)
        opened.cleared = self.cookies.sent(app, request)
        opened.sid = self.cookies.read(app, request)
        return opened

    def _open_record(
        self, app: Flask, request: Request, decision: Decision, sid: str, payload: bytes, data: dict[str, Any],
        *, refreshed: bool,
    ) -> Opened:  # fmt: skip
        created = data.pop(_CREATED, None) if self.policy.absolute_lifetime is not None else None
        if created is not None and self._absolute_rest(created) <= 0:
            return self.new(app, request, decision)
        session = self._asked.session_class(data, sid=sid)
        return Opened(session, decision.mode, decision.reason, sid, payload, refreshed, created=created)

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
        payload = self._encode(opened)
        owed = self._decide(opened, payload)
        if owed.store is not Store.NOTHING:
            if opened.mode is Mode.READONLY:
                raise SessionReadOnly(f"The session was changed in mode readonly ({opened.rule}).")
            payload = self._stamp(opened, payload)
        if self._settle_store(app, opened, payload, owed):
            self._settle_cookie(app, opened, response, owed)

    def rotate(self, session: SessionMixin) -> None:
        """Give the session a new id; closing sees that it is not the stored one."""
        session.sid = self._new_id()  # type: ignore[attr-defined]

    def _decide(self, opened: Opened, payload: bytes) -> Owed:
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
        return before is None or self.codec.encode(before) != payload

    def _settle_store(self, app: Flask, opened: Opened, payload: bytes, owed: Owed) -> bool:
        """Write what is owed; False when the record was gone, so that the cookie is left alone."""
        if owed.store is Store.REPLACE:
            return self._replace(app, opened, payload)
        if owed.store in (Store.CREATE, Store.MOVE):
            self._create(app, opened, payload)
        if owed.store in (Store.DELETE, Store.MOVE) and opened.sid is not None:
            self.backend.delete(self._key(opened.sid))
        return True

    def _create(self, app: Flask, opened: Opened, payload: bytes) -> None:
        for _ in range(_FREE_IDS):
            if self.backend.create(self._key(_id(opened.session)), payload, self._lifetime(app, opened)):
                return
            self.rotate(opened.session)
        raise SessionConflict("The session could not be stored: every new session id was taken.")

    def _replace(self, app: Flask, opened: Opened, payload: bytes) -> bool:
        key, seen = self._key(opened.sid or ""), opened.payload or b""  # both are there: it was read
        lifetime = None if opened.mode is Mode.PASSIVE else self._lifetime(app, opened)
        for _ in range(MERGES):
            outcome, found = self.backend.replace(key, payload, lifetime, seen)
            if outcome is Outcome.STORED:
                return True
            if outcome is Outcome.CHANGED and found is None:
                record = self.backend.read(key, None)
                found = record.payload if record is not None else None
            if found is None:
                return self._write_dropped(app)
            payload, seen = self._reconcile(app, opened, payload, found), found
        raise SessionConflict(f"The session kept changing: {MERGES} attempts to merge this request's changes failed.")

    def _reconcile(self, app: Flask, opened: Opened, payload: bytes, found: bytes) -> bytes:
        """Answer what to store in the place of ``found``, which someone else stored since this request read."""
        if self.policy.conflict == "raise":
            raise SessionConflict(
                "The stored session was changed by another request (LAZYSESSION_CONFLICT is 'raise')."
            )
        base, theirs = self.codec.decode(opened.payload or b""), self.codec.decode(found)
        mine = self.codec.decode(payload)
        if self.policy.conflict == "overwrite" or base is None or mine is None or theirs is None:
            return payload
        merged = merge(base, mine, theirs)
        if merged.contested:
            session_conflict.send(app, keys=merged.contested)
        return self.codec.encode(merged.data)

    def _write_dropped(self, app: Flask) -> bool:
        logger.warning("A change of the session was dropped: the stored session ended while the request ran.")
        session_write_dropped.send(app)
        return False

    def _settle_cookie(self, app: Flask, opened: Opened, response: Response, owed: Owed) -> None:
        if owed.cookie is Cookie.DELETE:
            self.cookies.delete(app, response)
        elif owed.cookie is not Cookie.KEEP:
            renewal = owed.cookie is Cookie.RENEW
            self.cookies.set(app, opened.session, _id(opened.session), response, renewal=renewal)

    # Ids, keys, bytes and seconds

    def _new_id(self) -> str:
        return self._asked._generate_sid(self._asked.sid_length)  # pyright: ignore[reportPrivateUsage]  # theirs

    def _key(self, sid: str) -> str:
        return self._asked.key_prefix + sid

    def _encode(self, opened: Opened) -> bytes:
        data: dict[str, Any] = dict(opened.session)
        if opened.created is not None:
            data[_CREATED] = opened.created
        return self.codec.encode(data)

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
        if self.policy.absolute_lifetime is None:
            return lifetime
        return min(lifetime, self._absolute_rest(opened.created if opened.created is not None else self.clock()))

    def _absolute_rest(self, created: float) -> float:
        return created + (self.policy.absolute_lifetime or 0) - self.clock()


def _id(session: SessionMixin) -> str:
    return str(session.sid)  # type: ignore[attr-defined]  # every server-side session class of Flask-Session has it
