"""Merging a request's change with what others stored meanwhile, as CONFLICT says, and what can come of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from flask import Flask

from .closing import Merged
from .codec import Codec
from .errors import SessionConflict
from .lifetimes import CREATED
from .signals import session_conflict

#: How often a change is merged with what someone else stored meanwhile, before it counts as failed.
MERGES = 500


class Settled(NamedTuple):
    """What became of a step.

    :param payload: what is stored for the session now; None when nothing is.
    :param here: it is stored under the session's id. Otherwise the change went on to the session that was rotated
        meanwhile, or was dropped with a session that has ended: the cookie is then left alone, as it may be newer.
    """

    payload: bytes | None
    here: bool = True


class RecordGone(Exception):
    """The record that a change was made to has ended."""


class Merging:
    """Answers for the merges of one app.

    :param conflict: ``"merge"``, ``"overwrite"`` or ``"raise"`` (CONFLICT).
    """

    def __init__(self, codec: Codec, conflict: str) -> None:
        self.codec = codec
        self.conflict = conflict

    def refuse_conflict(self) -> None:
        """Raise SessionConflict where CONFLICT is ``raise``."""
        if self.conflict == "raise":
            raise SessionConflict(
                "The stored session was changed by another request (LAZYSESSION_CONFLICT is 'raise')."
            )

    def payload(self, merged: Merged) -> bytes | None:
        """Answer the payload of a merge, None for one that is not worth a record."""
        return self.codec.encode(merged.data) if has_content(merged.data) else None

    def tell(self, app: Flask, contested: Iterable[str]) -> None:
        """Tell which keys both sides had changed, when it is settled whose change stands."""
        keys = tuple(key for key in contested if key != CREATED)
        if keys:
            session_conflict.send(app, keys=keys)

    def items(self, payload: bytes | None) -> dict[str, Any]:
        """Answer the items of a payload, none where there is no session in it; any, as sessions hold anything."""
        return (self.codec.decode(payload) if payload is not None else None) or {}


def has_content(data: dict[str, Any]) -> bool:
    """Tell whether a session is worth a record: Flask-Session stores none with nothing but the permanent mark."""
    return any(key not in ("_permanent", CREATED) for key in data)


def too_many() -> SessionConflict:
    """Answer the error of a change that could not be merged in :data:`MERGES` attempts."""
    return SessionConflict(
        f"The session kept changing: {MERGES} attempts to merge this request's changes failed. Keep what many requests "
        "change at the same time in a place of its own, not in a session."
    )
