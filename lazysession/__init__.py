"""Sessions that cost something only when a request really uses them."""

from __future__ import annotations

from .errors import ConfigurationError, SessionConflict, SessionReadOnly, SessionUnavailable
from .extension import LazySession
from .modes import Mode, session_mode
from .regeneration import regenerate
from .signals import session_conflict, session_opened, session_write_dropped

__all__ = [
    "ConfigurationError",
    "LazySession",
    "Mode",
    "SessionConflict",
    "SessionReadOnly",
    "SessionUnavailable",
    "regenerate",
    "session_conflict",
    "session_mode",
    "session_opened",
    "session_write_dropped",
]
