"""The payload of a session, and whether it is a change; no I/O happens here."""

from __future__ import annotations

from typing import Any

from flask.sessions import SessionMixin

from lazysession.backend import Payload, PayloadCodec

from .loading import Snapshot
from .merging import CREATED, different_keys


class Payloads:
    """Encodes the sessions of one app, and decodes what was loaded."""

    def __init__(self, codec: PayloadCodec) -> None:
        self._codec = codec

    def encode(self, session: SessionMixin, created: float | None) -> Payload:
        """Return the payload of a session that began at ``created``, in seconds since the epoch; None for unknown."""
        return self._codec.encode(session if created is None else {**session, CREATED: created})

    def encode_loaded(self, session: SessionMixin, created: float | None, snapshot: Snapshot | None) -> Payload:
        """Return the payload of a session as it is now; the loaded one if it is unchanged and cannot be encoded.

        What was stored by other means (a pickle, another format) needs no encoding as long as it is unchanged.

        :raises TypeError, ValueError: when a changed session cannot be encoded.
        """
        try:
            return self.encode(session, created)
        except (TypeError, ValueError):
            before = None if snapshot is None else self._decode(snapshot.payload)
            if snapshot is None or before is None or different_keys(before, session, self._codec.same):
                raise
            return snapshot.payload

    def compare(
        self, payload: Payload, created: float | None, snapshot: Snapshot | None
    ) -> tuple[dict[str, Any] | None, bool]:
        """Return the items that were loaded, and whether a session with this payload is a change of them.

        The items are None when there are none, or they cannot be decoded. They have no time of creation: one that is
        unsound, or ahead of this machine's clock, is no change of the app's.
        """
        if snapshot is None:
            return None, False
        before = self._decode(snapshot.payload)
        return before, payload != snapshot.payload and self._is_change(payload, created, before)

    def _is_change(self, payload: Payload, created: float | None, before: dict[str, Any] | None) -> bool:
        """Return whether a payload differs from the loaded one, and not because another version wrote that."""
        if before is not None and created is not None:
            before = {**before, CREATED: created}  # at the end, where encoding puts it
        return before is None or self._codec.encode(before) != payload

    def items_of(self, payload: Payload) -> dict[str, Any]:
        """Return what the app is shown of a stored payload."""
        return self._decode(payload) or {}

    def _decode(self, payload: Payload) -> dict[str, Any] | None:
        items = self._codec.decode(payload)
        if items is not None:
            items.pop(CREATED, None)
        return items
