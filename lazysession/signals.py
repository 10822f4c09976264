"""The signals, for apps that count or log what happens; the sender is the app."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from blinker import NamedSignal, Namespace
from flask import Flask

logger = logging.getLogger("lazysession")

_signals = Namespace()

#: A session was loaded. Extra arguments: ``session`` (the deferred session), ``mode``, ``rule``, and ``origin``, the
#: line that used it, empty where that is not traced.
session_opened = _signals.signal("session-opened")

#: A change was dropped, as the stored session had ended before it was saved (a logout in another request, an expiry).
session_write_dropped = _signals.signal("session-write-dropped")

#: Another request had changed the stored session. Extra argument: ``keys``, the keys that both requests changed.
session_conflict = _signals.signal("session-conflict")


def send(signal: NamedSignal, app: Flask, *, added: Mapping[str, Any] | None = None, **arguments: Any) -> None:
    """Send a signal to each of its receivers; what a receiver raises is only logged.

    :param added: arguments that were added later: a receiver that does not take one is called without it.
    """
    for receiver in signal.receivers_for(app):
        try:
            receiver(app, **arguments, **_taken(receiver, added or {}))
        except Exception:  # whatever an app's receiver raises
            logger.exception("A receiver of the signal %r failed.", signal.name)


def _taken(receiver: Callable[..., Any], added: Mapping[str, Any]) -> dict[str, Any]:
    parameters = signature(receiver).parameters if added else {}
    takes_all = any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())
    return {name: value for name, value in added.items() if takes_all or name in parameters}
