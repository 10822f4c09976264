"""The header that says who used the session."""

from __future__ import annotations

from typing import Any

from flask import Flask, session

from lazysession import (
    session_opened,
)
from tests.support.visiting import MakeApp


class TestTrace:
    """The header and the signal that say which line used the session."""

    def test_who_opened_the_session(self, memory_app: MakeApp) -> None:
        """With TRACE, a header names the first use; without, nothing is recorded."""
        for trace in (True, False):
            app = memory_app(LAZYSESSION_TRACE=trace)
            app.add_url_rule("/", view_func=lambda: str(session.get("a")))
            timing = app.test_client().get("/").headers.get("Server-Timing", "")
            assert (f"loaded by {__name__}:<lambda>:" in timing) is trace
            assert timing.endswith('normal"') is trace

    def test_the_signal(self, memory_app: MakeApp) -> None:
        """A listener gets each loaded session, its mode and the rule that decided it."""
        app = memory_app(LAZYSESSION_RULES=[("/**", "no_refresh")])
        app.add_url_rule("/", view_func=lambda: str(session.get("a")))
        heard: list[Any] = []

        def record(sender: Flask, **details: Any) -> None:
            heard.append((sender, details["mode"], details["rule"]))

        with session_opened.connected_to(record, app):
            app.test_client().get("/")
        assert heard == [(app, "no_refresh", "/**")]


def test_the_trace_header_is_ascii(memory_app: MakeApp) -> None:
    """Views may have names in any script; headers may not."""
    app = memory_app(LAZYSESSION_TRACE=True)

    def 购物车() -> str:  # noqa: N802
        return str(session.get("a"))

    app.add_url_rule("/", view_func=购物车)
    header = app.test_client().get("/").headers["Server-Timing"]
    assert header.isascii()
    assert header.count('"') == 2


def test_the_trace_header_keeps_other_metrics(memory_app: MakeApp) -> None:
    """The app's own measurements stay in the header."""
    app = memory_app(LAZYSESSION_TRACE=True)
    app.add_url_rule("/", view_func=lambda: (str(session.get("a")), {"Server-Timing": "db;dur=53"}))
    received = app.test_client().get("/").headers.getlist("Server-Timing")
    assert received[0] == "db;dur=53"
    assert [each.partition(";")[0] for each in received] == ["db", "session"]
