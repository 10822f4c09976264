"""An app made by a factory, with every setting, a mode for each kind of view, and what goes wrong."""

from __future__ import annotations

import re
from datetime import timedelta

from flask import Flask, Request, session
from flask.views import MethodView
from typing_extensions import assert_type

from lazysession import (
    ConfigurationError,
    LazySession,
    Mode,
    SessionConflict,
    SessionReadOnly,
    SessionUnavailable,
    session_mode,
)

lazy = LazySession()


def is_a_poll(request: Request) -> bool:
    """Return whether a script asks, and not a visitor."""
    return request.headers.get("X-Poll") == "1"


def create_app() -> Flask:
    """Return an app, or stop with the one line that says which setting is wrong."""
    app = Flask(__name__)
    app.config.update(
        LAZYSESSION_REFRESH_THROTTLE=timedelta(minutes=5),
        LAZYSESSION_RULES=[
            ("/health", "skip"),
            (re.compile(r"/poll/\d+"), Mode.NO_REFRESH),
            (is_a_poll, Mode.NO_REFRESH),
        ],
        LAZYSESSION_SKIPPED_WRITE="raise",
        LAZYSESSION_ABSOLUTE_LIFETIME=timedelta(days=7),
    )
    try:
        assert_type(lazy.init_app(app), None)
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
    app.add_url_rule("/reports", view_func=Reports.as_view("reports"))
    app.add_url_rule("/unread", view_func=unread)
    app.add_url_rule("/health", view_func=healthy)
    app.register_error_handler(SessionConflict, changed_meanwhile)
    app.register_error_handler(SessionUnavailable, store_down)
    app.register_error_handler(SessionReadOnly, read_only)
    return app


@session_mode("no_refresh")
def unread() -> dict[str, int]:
    """Return how many messages are unread; the poll does not keep the session alive."""
    return {"unread": len(session.get("unread", ()))}


@session_mode(Mode.SKIP)
async def healthy() -> str:
    """Return that the app runs."""
    return "ok"


class Reports(MethodView):
    """Reports that change nothing."""

    decorators = [session_mode(Mode.READONLY)]

    def get(self, number: int = 1) -> str:
        """Return a report."""
        return f"Report {number} for {session.get('user')}"


# A view keeps its own type.
assert_type(unread(), dict[str, int])


def changed_meanwhile(error: SessionConflict) -> tuple[str, int]:
    """Return a page that offers to try again."""
    assert_type(error.keys, tuple[str, ...])
    assert_type(error.detail, str)
    return f"Please try again: {', '.join(error.keys)}", 409


def store_down(error: SessionUnavailable) -> tuple[str, int]:
    """Return a page for the time while the store is down."""
    cause: BaseException | None = error.__cause__
    return f"Please come back later ({type(cause).__name__})", 503


def read_only(error: SessionReadOnly) -> tuple[str, int]:
    """Return a page for a write where only reads are allowed."""
    return str(error), 500


# What a type checker refuses.
session_mode(1)  # type: ignore[arg-type]
LazySession("shop")  # type: ignore[arg-type]
lazy.init_app(None)  # type: ignore[arg-type]
