"""Every exception that LazySession raises on its own account."""

from __future__ import annotations

from werkzeug.exceptions import ServiceUnavailable


class ConfigurationError(ValueError):
    """A setting that cannot work; the message names the setting, its value and what is allowed."""


class SessionReadOnly(RuntimeError):
    """A write to the session in a request whose mode forbids it (``readonly``; ``skip`` if so configured)."""


class SessionUnavailable(ServiceUnavailable):
    """The store failed while the session was opened: 503, and ``__cause__`` is the client's own error.

    Raised again, without a cause, when a request that went on all the same changed the session: Flask answers errors
    that come so late with 500.
    """

    description = "The session store is not available."


class SessionConflict(RuntimeError):
    """A change could not be stored beside those of others: too many of them, or CONFLICT forbids to merge."""
