"""What happened, for whoever wants to count or log it; every signal's sender is the app."""

from __future__ import annotations

import logging
from typing import Any

from blinker import NamedSignal, Namespace
from flask import Flask

logger = logging.getLogger("lazysession")

_signals = Namespace()

#: A session was opened. Extra arguments: ``session`` (the deferred session), ``mode`` and ``rule``.
session_opened = _signals.signal("session-opened")

#: A change was dropped, because the stored session was gone when it should be written (a logout elsewhere, an expiry).
session_write_dropped = _signals.signal("session-write-dropped")

#: The stored session had been changed by someone else. Extra argument: ``keys``, the names changed on both sides.
session_conflict = _signals.signal("session-conflict")


def send(signal: NamedSignal, app: Flask, **arguments: Any) -> None:
    """Send a signal to each of its receivers; what one of them raises is logged, and harms nothing."""
    for receiver in signal.receivers_for(app):
        try:
            receiver(app, **arguments)
        except Exception:  # whatever an app's receiver raises
            logger.exception("A receiver of the signal %r failed.", signal.name)
