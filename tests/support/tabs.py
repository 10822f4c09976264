"""Two browsers on one session, one of which keeps the old id after a rotation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from flask import Flask, session
from flask.testing import FlaskClient

from lazysession.records.rotation import forwarding_in
from tests.support.stores import LIVE, Store

MakeApp = Callable[..., Flask]
OLD = f"session:{LIVE}"


def load() -> None:
    """Load the session, and read none of its keys."""
    assert session.sid  # type: ignore[attr-defined]


class Tabs:
    """A session, its user's browser, and another one, which keeps the old id when the user's gets a new one."""

    def __init__(self, store: Store, app: Flask, **data: Any) -> None:
        self.store, self.app = store, app
        self.time = app.session_interface.handler.clock()  # type: ignore[attr-defined]
        app.session_interface.handler.clock = lambda: self.time  # type: ignore[attr-defined]
        self.steps: dict[str, Callable[[], Any]] = {}
        app.add_url_rule("/<name>", "page", lambda name: str(self.steps[name]() or ""))
        store.put(app, OLD, msgspec.msgpack.encode({"_permanent": True, **data}), 31 * 86400)
        self.user, self.other = self.browser(), self.browser()

    def browser(self) -> FlaskClient:
        """Return a browser with the old id."""
        browser = self.app.test_client()
        browser.set_cookie("session", LIVE)
        return browser

    def request(self, browser: FlaskClient, step: Callable[[], Any]) -> Any:
        """Make a request that takes a step."""
        name = f"step{len(self.steps)}"
        self.steps[name] = step
        return browser.get(f"/{name}")

    def rotate(self, browser: FlaskClient | None = None, **changes: Any) -> Any:
        """Rotate the session by a request of the user's browser or another one."""

        def step() -> None:
            self.regenerate()
            session.update(changes)

        return self.request(browser or self.user, step)

    def regenerate(self) -> None:
        self.app.session_interface.regenerate(session)  # type: ignore[attr-defined]

    def seen_by(self, browser: FlaskClient) -> dict[str, Any]:
        """Return the session that a browser sees; that sets no cookie."""
        seen: dict[str, Any] = {}
        response = self.request(browser, lambda: seen.update(session))
        assert "Set-Cookie" not in response.headers
        seen.pop("_permanent", None)
        return seen

    def records(self) -> list[dict[str, Any]]:
        """Return the stored sessions, without forwarding records."""
        found = [msgspec.msgpack.decode(payload) for payload in self.store.payloads(self.app).values()]
        return [items for items in found if forwarding_in(items) is None]


def log_in(tabs: Tabs) -> None:
    """Rotate as a login does that sets, changes and removes a key."""
    tabs.request(tabs.user, lambda: (tabs.regenerate(), session.update(user=1, token="new"), session.pop("theme")))


def read_and_clear(**left: Any) -> None:
    """End the session as a view does after a hook has read the user, and write to the next session."""
    session.get("user")
    session.clear()
    session.update(left)
