"""An app of a project that checks its types: mypy and pyright pass it, both strict, and test_regenerate.py runs it."""

from __future__ import annotations

from flask import Flask, session

from lazysession import LazySession, regenerate


def session_id() -> str | None:
    """Return the id of the visitor's session, or None where sessions have none, as with signed cookies."""
    sid: str | None = getattr(session, "sid", None)
    return sid


def create_app(config: dict[str, object]) -> Flask:
    """Return an app whose logins prevent session fixation."""
    app = Flask(__name__)
    app.config.update(config)
    LazySession(app)

    @app.post("/login/<name>")
    def login(name: str) -> dict[str, str | None]:
        before = session_id()
        regenerate(session)
        session["user"] = name
        return {"before": before, "after": session_id()}

    @app.get("/")
    def index() -> dict[str, str | None]:
        return {"user": session.get("user"), "id": session_id()}

    return app
