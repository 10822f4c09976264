"""What happened, for whoever wants to count or log it; every signal's sender is the app."""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

#: A session was opened. Extra arguments: ``session`` (the deferred session), ``mode`` and ``rule``.
session_opened = _signals.signal("session-opened")

#: A change was dropped, because the stored session was gone when it should be written (a logout elsewhere, an expiry).
session_write_dropped = _signals.signal("session-write-dropped")

#: The stored session had been changed by someone else. Extra argument: ``keys``, the names changed on both sides.
session_conflict = _signals.signal("session-conflict")
