"""The save plan: what to do in the store and with the cookie at the end of a request. Pure: no I/O happens here."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class StoreAction(Enum):
    """What to do in the store."""

    NOTHING = "nothing"
    CREATE = "create"
    REPLACE = "replace"
    ROTATE = "create under the new id, then forward the old"
    DELETE = "delete"


class CookieAction(Enum):
    """What to do with the cookie."""

    KEEP = "keep"
    SET = "set"
    RENEW = "renew"
    DELETE = "delete"


class SavePlan(NamedTuple):
    """One action for the store, and one for the cookie."""

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
    """Return the save plan of a loaded session; a session that was not loaded is not saved.

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

    :param had_record: a record was loaded, or ``clear()`` came first and the cookie has a well-formed id.
    :param rotated: the session has another id than its record.
    :param changed: its payload is not the one that was loaded.
    :param refreshes: a write begins a new lifetime, as in every mode but no_refresh.
    :param late: the request is late: the id was rotated away before the session was loaded.
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


def cookie_after(planned: CookieAction, *, under_own_id: bool, ended: bool) -> CookieAction:
    """Return what to do with the cookie after the save.

    :param under_own_id: the session is stored under its own id. Otherwise another request has rotated or ended it
        meanwhile, and the client may have a newer cookie.
    :param ended: nothing is stored any more.
    """
    if not under_own_id:
        return CookieAction.KEEP
    if ended:
        return CookieAction.DELETE
    return CookieAction.KEEP if planned is CookieAction.DELETE else planned
