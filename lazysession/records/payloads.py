"""Encoding of sessions, and whether a session has changed since it was loaded. Pure: no I/O happens here."""

from __future__ import annotations

from typing import Any

from flask.sessions import SessionMixin

from lazysession.backend import Payload, PayloadCodec

from .merging import CREATED, different_keys


class Payloads:
    """Encodes the sessions of one app, and decodes the payloads that were loaded."""

    def __init__(self, codec: PayloadCodec) -> None:
        self._codec = codec

    def encode(self, session: SessionMixin, created_at: float | None) -> Payload:
        """Return the payload of a session that began at ``created_at`` (seconds since the epoch, None for unknown)."""
        return self._codec.encode(session if created_at is None else {**session, CREATED: created_at})

    def encode_loaded(self, session: SessionMixin, created_at: float | None, loaded: Payload | None) -> Payload:
        """Return the payload of a session as it is now; the loaded one if it is unchanged and cannot be encoded.

        Example: a pickle that Flask-Session 0.5 stored holds an object. It can be read, and need not be encoded until
        the session changes.

        :raises TypeError, ValueError: when a changed session cannot be encoded.
        """
        try:
            return self.encode(session, created_at)
        except (TypeError, ValueError):
            before = None if loaded is None else self._decode(loaded)
            if loaded is None or before is None or different_keys(before, session, self._codec.same):
                raise
            return loaded

    def compare(
        self, payload: Payload, created_at: float | None, loaded: Payload | None
    ) -> tuple[dict[str, Any] | None, bool]:
        """Return the items that were loaded, and whether the session has changed since.

        The items are None when nothing was loaded, or it cannot be decoded. They have no time of creation: correcting
        one that is invalid, or ahead of this machine's clock, is no change by the app.

        :param payload: the session as it is now.
        """
        if loaded is None:
            return None, False
        before = self._decode(loaded)
        return before, payload != loaded and self._is_change(payload, created_at, before)

    def _is_change(self, payload: Payload, created_at: float | None, before: dict[str, Any] | None) -> bool:
        """Return whether a payload has other items than were loaded, and not just another encoding of them."""
        if before is not None and created_at is not None:
            before = {**before, CREATED: created_at}  # last, as in encode()
        return before is None or self._codec.encode(before) != payload

    def items_of(self, payload: Payload) -> dict[str, Any]:
        """Return the items of a payload for the app."""
        return self._decode(payload) or {}

    def _decode(self, payload: Payload) -> dict[str, Any] | None:
        items = self._codec.decode(payload)
        if items is not None:
            items.pop(CREATED, None)
        return items
