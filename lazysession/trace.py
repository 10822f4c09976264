"""Who asked for the session: the first line of code outside of the session machinery."""

from __future__ import annotations

import inspect
from types import FrameType

_MACHINERY = ("lazysession", "werkzeug.local", "flask.ctx", "flask.globals", "_collections_abc", "collections.abc")


def caller() -> str:
    """Answer ``"module:function:line"`` of the code whose use of the session is running now."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and _is_machinery(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    if frame is None:
        return "unknown"
    return f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_name}:{frame.f_lineno}"


def server_timing(description: str) -> str:
    """Answer the value of a Server-Timing header; names of functions may hold any letters, headers may not."""
    text = description.encode("ascii", "backslashreplace").decode().replace("\\", "/").replace('"', "'")
    return f'session;desc="{text}"'


def _is_machinery(module: str) -> bool:
    return module in _MACHINERY or module.startswith("lazysession.")
