"""One request's use of its session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flask.sessions import SessionMixin

from .modes import Mode
from .records.merging import KeyUse


@dataclass(slots=True)
class Opened:
    """An opened session, and what was found when it was opened.

    :param session: the object of the wrapped interface's own session class.
    :param mode: the mode that the first use got, and ``rule``, the reason for it.
    :param sid: the id of the stored record that this session came from; None when there is none.
    :param payload: the stored bytes; None when there is no record, or when it was never read (``cleared``).
    :param refreshed: the read moved the expiry.
    :param remaining: seconds that the record had left when it was read; None when the store cannot tell.
    :param cleared: ``clear()`` came first, so the record was not read.
    :param ended: ``clear()`` came after opening; what is stored ends, whatever others made of it meanwhile.
    :param created: when the session began, seconds since the epoch; None when nobody wrote it down.
    :param late: its id was rotated away a moment ago (:mod:`lazysession.records.rotation`).
    :param since: when it was opened, in seconds since the epoch.
    :param saves: False when nothing of this session may reach the store (``skip``; a read that failed).
    :param missing: it is empty because the store failed, or was not asked; what is stored, nobody knows.
    :param brought: keys that a login brought, also where they had the same values before.
    :param dropped: keys that a logout removed, also where a login brought them back.
    :param keys: which keys the request has read and changed since it was opened, or saved.
    :param items: what ``payload`` holds, decoded when it is first asked for; nothing of it is ever changed.
    """

    session: SessionMixin
    mode: Mode
    rule: str = ""
    sid: str | None = None
    payload: bytes | None = None
    refreshed: bool = False
    ttl: float | None = None
    cleared: bool = False
    ended: bool = False
    created: float | None = None
    late: bool = False
    since: float = 0.0
    saves: bool = True
    missing: bool = False
    login_keys: frozenset[str] = frozenset()
    logout_keys: frozenset[str] = frozenset()
    keys: KeyUse = field(default_factory=KeyUse)
    items: dict[str, Any] | None = None
