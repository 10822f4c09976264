"""What to do at the end of a request: a pure decision. No I/O happens here."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class StoreAction(Enum):
    """What to do in the store."""

    NOTHING = "nothing"
    CREATE = "create"
    REPLACE = "replace"
    ROTATE = "create under the new id, then delete the old"
    DELETE = "delete"


class CookieAction(Enum):
    """What to do with the cookie."""

    KEEP = "keep"
    SET = "set"
    RENEW = "renew"
    DELETE = "delete"


class SavePlan(NamedTuple):
    """The decision: one step for the store, one for the cookie."""

    store: StoreAction
    cookie: CookieAction


_NOTHING = SavePlan(StoreAction.NOTHING, CookieAction.KEEP)


def plan_save(
    *,
    had_record: bool,
    empty: bool,
    rotated: bool,
    changed: bool,
    refreshed: bool,
    permanent: bool,
    refreshes: bool,
    late: bool = False,
) -> SavePlan:
    """Return what to do for a loaded session; one that was not loaded needs nothing and does not come here.

    ========== ======= ======= ========= ==================== ====================================================
    had_record empty   rotated changed   store                cookie
    ========== ======= ======= ========= ==================== ====================================================
    no         yes     any     any       nothing              keep
    no         no      any     any       create               set
    yes        yes     any     any       delete               delete
    yes        no      yes     any       rotate               set
    yes        no      no      yes       replace              set; keep in mode no_refresh (the expiry stays)
    yes        no      no      no        nothing              renew if permanent and refreshed, else keep
    late       yes     any     no        nothing              keep
    ========== ======= ======= ========= ==================== ====================================================

    :param had_record: a record was read, or a cookie with the right shape was cleared without reading.
    :param rotated: the session has another id now than its record has.
    :param changed: its bytes are not those that were read.
    :param refreshes: a write begins a new lifetime; not so in mode no_refresh.
    :param late: its id was rotated away before it was loaded.
    """
    if not had_record or (late and empty and not changed):
        return _NOTHING if empty else SavePlan(StoreAction.CREATE, CookieAction.SET)
    if empty:
        return SavePlan(StoreAction.DELETE, CookieAction.DELETE)
    if rotated:
        return SavePlan(StoreAction.ROTATE, CookieAction.SET)
    if changed:
        return SavePlan(StoreAction.REPLACE, CookieAction.SET if refreshes else CookieAction.KEEP)
    return SavePlan(StoreAction.NOTHING, CookieAction.RENEW) if permanent and refreshed else _NOTHING


def cookie_after(planned: CookieAction, *, here: bool, ended: bool) -> CookieAction:
    """Return what to do with the cookie once the session is stored.

    :param here: it is stored under its own id. Otherwise another request has rotated or ended the session meanwhile,
        and the client may have a newer cookie.
    :param ended: nothing is stored any more.
    """
    if not here:
        return CookieAction.KEEP
    if ended:
        return CookieAction.DELETE
    return CookieAction.KEEP if planned is CookieAction.DELETE else planned
