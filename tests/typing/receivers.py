"""Receivers of the signals, which count what happens to sessions."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask import Flask
from flask.sessions import SessionMixin

from lazysession import Mode, session_conflict, session_opened, session_write_dropped

seen: Counter[str] = Counter()


@session_opened.connect
def count_loaded(app: Flask, session: SessionMixin, mode: Mode, rule: str, origin: str) -> None:
    """Count a session that was loaded, by its mode and the line that used it."""
    seen[f"{app.name} {mode.value} {rule} {origin}"] += 1


@session_conflict.connect
def count_conflict(app: Flask, *, keys: tuple[str, ...], **_: Any) -> None:
    """Count the keys that two requests changed."""
    seen.update(keys)


def count_dropped(app: Flask, **_: Any) -> None:
    """Count a change of a session that had ended."""
    seen["dropped"] += 1


def watch(app: Flask) -> None:
    """Count the changes of one app that were dropped."""
    session_write_dropped.connect(count_dropped, app)
