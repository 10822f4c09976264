"""What a request owes when it ends: a pure decision. No I/O happens here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from flask.sessions import SessionMixin

from .records.merging import KeyUse


class Mode(str, Enum):
    """What a request may do with the session; see :mod:`lazysession.rules` for how a request gets its mode."""

    NORMAL = "normal"
    PASSIVE = "passive"
    READONLY = "readonly"
    SKIP = "skip"

    def __str__(self) -> str:
        return self.value


class Decision(NamedTuple):
    """A request's mode, and what decided it in a reader's words."""

    mode: Mode
    reason: str


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
    :param late: its id was rotated away a moment ago (:mod:`lazysession.forwarding`).
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
    remaining: float | None = None
    cleared: bool = False
    ended: bool = False
    created: float | None = None
    late: bool = False
    since: float = 0.0
    saves: bool = True
    missing: bool = False
    brought: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    keys: KeyUse = field(default_factory=KeyUse)
    items: dict[str, Any] | None = None


class Store(Enum):
    """What the store is owed."""

    NOTHING = "nothing"
    CREATE = "create"
    REPLACE = "replace"
    MOVE = "create under the new id, then delete the old"
    DELETE = "delete"


class Cookie(Enum):
    """What the client is owed."""

    KEEP = "keep"
    SET = "set"
    RENEW = "renew"
    DELETE = "delete"


class Owed(NamedTuple):
    """The decision: one step for the store, one for the cookie."""

    store: Store
    cookie: Cookie


_NOTHING = Owed(Store.NOTHING, Cookie.KEEP)


def decide(
    *,
    had_record: bool,
    empty: bool,
    moved: bool,
    changed: bool,
    refreshed: bool,
    permanent: bool,
    mode: Mode,
    late: bool = False,
) -> Owed:
    """Tell what is owed for an opened session; one that was never opened owes nothing and does not come here.

    ========== ======= ======= ========= ==================== ============================================
    had_record empty   moved   changed   store                cookie
    ========== ======= ======= ========= ==================== ============================================
    no         yes     any     any       nothing              keep
    no         no      any     any       create               set
    yes        yes     any     any       delete               delete
    yes        no      yes     any       move                 set
    yes        no      no      yes       replace              set; keep when passive (the expiry stays)
    yes        no      no      no        nothing              renew if permanent and refreshed, else keep
    late       yes     any     no        nothing              keep
    ========== ======= ======= ========= ==================== ============================================

    :param had_record: a record was read, or a cookie with the right shape was cleared without reading.
    :param moved: the session has another id now than its record has.
    :param changed: its bytes are not those that were read.
    :param late: its id was rotated away before it was opened; what it is shown may be nothing, which it then leaves.
    """
    if not had_record or (late and empty and not changed):
        return _NOTHING if empty else Owed(Store.CREATE, Cookie.SET)
    if empty:
        return Owed(Store.DELETE, Cookie.DELETE)
    if moved:
        return Owed(Store.MOVE, Cookie.SET)
    if changed:
        return Owed(Store.REPLACE, Cookie.KEEP if mode is Mode.PASSIVE else Cookie.SET)
    return Owed(Store.NOTHING, Cookie.RENEW) if permanent and refreshed else _NOTHING
