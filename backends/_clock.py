"""The present time, for stores that keep it as a date."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> datetime:
    """Answer the present time as Flask-Session stores it: UTC, without a time zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)
