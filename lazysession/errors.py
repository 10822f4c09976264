"""The exceptions of LazySession."""

from __future__ import annotations

from collections.abc import Iterable

from werkzeug.exceptions import Conflict, ServiceUnavailable


class ConfigurationError(ValueError):
    """A setting that cannot work; the message names the setting, its value and what is allowed."""


class SessionReadOnly(RuntimeError):
    """A write to the session in a request whose mode forbids it (``readonly``; ``skip`` if so configured)."""


class SessionUnavailable(ServiceUnavailable):
    """The store failed while the session was loaded or saved: 503, and ``__cause__`` is the client's own error.

    While it is loaded, it is raised at the first use of the session, in the view. While it is saved, which Flask does
    after the view, the app's error handlers are called as well.
    """

    description = "The session store is not available."


class SessionConflict(Conflict):
    """A change was refused because another request changed the stored session meanwhile: 409.

    ``str(error)`` is for logs and developers. ``description``, which Flask's default page shows to visitors, names
    neither keys nor settings.

    :param detail: what could not be stored, why, and what to do.
    :param keys: the names of the keys that it is about.
    """

    description = "The session was changed by another request at the same time. Please try again."

    def __init__(self, detail: str, keys: Iterable[str] = ()) -> None:
        super().__init__()
        self.detail = detail
        self.keys = tuple(keys)
        self.args = (detail, self.keys)  # what a copy or a pickle is made of

    def __str__(self) -> str:
        return self.detail
