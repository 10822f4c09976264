"""What to do at the end of a request: a pure decision. No I/O happens here."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from lazysession.modes import Mode


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
