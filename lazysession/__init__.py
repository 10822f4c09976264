"""Sessions for Flask that are loaded at first use: a request that does not use its session costs nothing."""

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
