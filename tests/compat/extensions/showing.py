"""Extensions that are about the response, or look at it: pages, headers, caches, limits, languages, reports."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from flask import Flask, redirect, render_template_string, request, session
from werkzeug.wrappers import Response

from .trying import Extension, SignIn, Visitor, sign_in_by_hand


def add_nothing(app: Flask, closing: ExitStack) -> SignIn:
    """Add nothing to Flask."""
    return sign_in_by_hand


def use_flask(visitor: Visitor) -> None:
    """Keep a word, and log in."""
    visitor.get("/note/tea")
    visitor.get("/sign-in/ada")
    visitor.get("/static/site.css")
    visitor.get("/nowhere", 404)
    visitor.sees("/noted", "tea")


# Flask-DebugToolbar


def add_flask_debugtoolbar(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-DebugToolbar, one of whose panels shows what is in the session."""
    from flask_debugtoolbar import DebugToolbarExtension

    app.debug = True
    DebugToolbarExtension(app)

    @app.get("/go")
    def go() -> Response:
        session["went"] = "sencha"
        return redirect("/rendered")

    return sign_in_by_hand


def use_flask_debugtoolbar(visitor: Visitor) -> None:
    """See the toolbar with the session in it, also in the place of a redirect."""
    visitor.browser.get("/rendered")
    visitor.get("/note/oolong")
    visitor.get("/sign-in/ada")
    shown = visitor.browser.get("/rendered").text  # times and versions are in it
    visitor.record("flDebug" in shown, "oolong" in shown, "ada" in shown)
    stopped = visitor.browser.get("/go")
    visitor.record(stopped.status, "flDebug" in stopped.text, "sencha" in stopped.text)
    visitor.browser.get("/_debug_toolbar/static/css/toolbar.css").close()
    visitor.sees("/noted", "oolong")


# Flask-Limiter


def add_flask_limiter(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Limiter with a limit by address and one by user."""
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address

    limiter = Limiter(get_remote_address, app=app, storage_uri="memory://")

    @app.get("/by-address")
    @limiter.limit("2 per hour")
    def by_address() -> str:
        return "Here you are"

    @app.get("/by-user")
    @limiter.limit("2 per hour", key_func=lambda: session.get("user", "nobody"))
    def by_user() -> str:
        return "Here you are"

    return sign_in_by_hand


def use_flask_limiter(visitor: Visitor) -> None:
    """Ask too often, and as another user."""
    visitor.get("/sign-in/ada")
    for path in ("/by-address", "/by-user"):
        for status in (200, 200, 429):
            visitor.get(path, status)
    visitor.get("/sign-in/bob")
    visitor.get("/by-address", 429)
    visitor.get("/by-user")


# Flask-Babel


def add_flask_babel(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Babel with the language in the session, as its docs do for users."""
    from datetime import date

    from flask_babel import Babel, format_date

    Babel(app, locale_selector=lambda: session.get("lang") or request.accept_languages.best_match(["en", "de"]))

    def speak(lang: str) -> str:
        session["lang"] = lang
        return ""

    app.add_url_rule("/lang/<lang>", "speak", speak)
    app.add_url_rule("/date", "date", lambda: format_date(date(2026, 5, 1), "long"))
    app.add_url_rule("/page", "page", lambda: render_template_string("{{ 1234.5|numberformat }}"))
    return sign_in_by_hand


def use_flask_babel(visitor: Visitor) -> None:
    """Read a date and a number in the browser's language and in one's own."""
    visitor.sees("/date", "1. Mai 2026", headers={"Accept-Language": "de"})
    visitor.get("/lang/de")
    visitor.get("/static/site.css")
    visitor.sees("/date", "1. Mai 2026")
    visitor.sees("/page", "1.234,5")
    visitor.get("/lang/en")
    visitor.sees("/page", "1,234.5")


# Flask-Caching


def add_flask_caching(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Caching with a page for all, one for each user, and a fragment of a page."""
    from flask_caching import Cache

    app.config["CACHE_TYPE"] = "SimpleCache"
    cache = Cache(app)
    made: list[int] = []

    def count() -> str:
        made.append(1)
        return f"{session.get('user', 'nobody')} {len(made)}"

    fragment = "{% cache 60, 'menu' %}{{ count() }}{% endcache %} {{ session.get('user') }}"
    app.add_url_rule("/for-all", "for_all", cache.cached()(lambda: f"Number {count()[-1]}"))
    app.add_url_rule(
        "/mine", "mine", cache.cached(make_cache_key=lambda *_, **__: f"mine {session.get('user')}")(count)
    )
    app.add_url_rule("/menu", "menu", lambda: render_template_string(fragment, count=count))
    return sign_in_by_hand


def use_flask_caching(visitor: Visitor) -> None:
    """Get pages from the cache, each user their own."""
    visitor.get("/sign-in/ada")
    for _ in range(2):
        visitor.sees("/for-all", "Number 1")
        visitor.sees("/mine", "ada 2")
        visitor.get("/menu")
    visitor.get("/sign-in/bob")
    visitor.sees("/for-all", "Number 1")
    visitor.sees("/mine", "bob 4")
    visitor.sees("/menu", "bob")


# Flask-Talisman


def add_flask_talisman(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Talisman, which wants HTTPS and secure cookies."""
    from flask_talisman import Talisman

    Talisman(app)
    return sign_in_by_hand


def use_flask_talisman(visitor: Visitor) -> None:
    """Be sent to HTTPS, and get a cookie that no other connection gets."""
    visitor.get("/plain", 302, base_url="http://localhost")
    visitor.get("/note/tea")
    cookie = visitor.browser.get_cookie("session")
    assert cookie is not None
    visitor.record(cookie.secure, cookie.http_only, cookie.same_site)
    visitor.get("/sign-in/ada")
    visitor.get("/static/site.css")
    visitor.sees("/noted", "tea")


# Flask-SQLAlchemy


def add_flask_sqlalchemy(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-SQLAlchemy, and views that use both of its and Flask's sessions."""
    from flask_sqlalchemy import SQLAlchemy

    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db: Any = SQLAlchemy(app)

    class Tea(db.Model):  # type: ignore[misc]
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String, unique=True)

    def add(name: str) -> str:
        db.session.add(Tea(name=name))
        session.setdefault("cart", []).append(name)
        db.session.commit()
        return ""

    with app.app_context():
        db.create_all()
        closing.callback(db.engine.dispose)
    app.add_url_rule("/add/<name>", "add", add)
    app.add_url_rule("/teas", "teas", lambda: " ".join(tea.name for tea in Tea.query) + str(session.get("cart")))
    return sign_in_by_hand


def use_flask_sqlalchemy(visitor: Visitor) -> None:
    """Add rows, one of them in vain."""
    visitor.get("/add/oolong")
    visitor.get("/add/oolong", 500)
    visitor.get("/add/sencha")
    visitor.get("/teas")


# Flask-CORS


def add_flask_cors(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-CORS for two sites that may send cookies."""
    from flask_cors import CORS

    CORS(app, origins=["https://other.example", "https://third.example"], supports_credentials=True)
    return sign_in_by_hand


def use_flask_cors(visitor: Visitor) -> None:
    """Ask from another site, and see what it may read."""
    there = {"Origin": "https://other.example", "Access-Control-Request-Method": "GET"}
    visitor.get("/note/tea")
    for response in (visitor.get("/noted", headers=there), visitor.options("/noted", headers=there)):
        names = ("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials")
        visitor.record([response.headers.get(name) for name in names])
    page = visitor.get("/noted", headers=there)
    assert page.vary.as_set() == {"origin", "cookie"}


# Sentry's SDK


def add_sentry(app: Flask, closing: ExitStack) -> SignIn:
    """Add Sentry's SDK."""
    _add_sentry(app, closing, send_default_pii=False)
    return sign_in_by_hand


def add_sentry_with_users(app: Flask, closing: ExitStack) -> SignIn:
    """Add Sentry's SDK that sends who the user is, whom it asks Flask-Login for."""
    from .signing_in import add_flask_login

    _add_sentry(app, closing, send_default_pii=True)
    return add_flask_login(app, closing)


def _add_sentry(app: Flask, closing: ExitStack, *, send_default_pii: bool) -> None:
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            kept.extend([item.payload.json for item in envelope.items if item.type == "event"])

    kept: list[Any] = []
    app.extensions["sentry"] = kept
    sentry_sdk.init(
        "https://key@sentry.invalid/1",
        transport=Kept(),
        send_default_pii=send_default_pii,
    )
    closing.callback(sentry_sdk.get_global_scope().set_client, None)
    app.add_url_rule("/fail", "fail", lambda: f"{1 / 0}")


def use_sentry(visitor: Visitor) -> None:
    """Cause an error, which is reported with the user of the request."""
    visitor.get("/note/tea")
    visitor.get("/fail", 500)
    visitor.get("/sign-in/ada")
    visitor.get("/fail", 500)
    visitor.get("/static/site.css")
    reports = visitor.app.extensions["sentry"]
    assert len(reports) == 2
    for report in reports:
        visitor.record(report["exception"]["values"][0]["type"], report.get("user"), report["transaction"])
    visitor.sees("/noted", "tea")


EXTENSIONS = (
    Extension("Flask alone", "flask", add_nothing, use_flask),
    Extension("Flask-DebugToolbar", "flask-debugtoolbar", add_flask_debugtoolbar, use_flask_debugtoolbar),
    Extension("Flask-Limiter", "flask-limiter", add_flask_limiter, use_flask_limiter),
    Extension("Flask-Babel", "flask-babel", add_flask_babel, use_flask_babel),
    Extension("Flask-Caching", "flask-caching", add_flask_caching, use_flask_caching),
    Extension("Flask-Talisman", "flask-talisman", add_flask_talisman, use_flask_talisman, "https://localhost"),
    Extension("Flask-SQLAlchemy", "flask-sqlalchemy", add_flask_sqlalchemy, use_flask_sqlalchemy),
    Extension("Flask-CORS", "flask-cors", add_flask_cors, use_flask_cors),
    Extension("Sentry's SDK", "sentry-sdk", add_sentry, use_sentry),
    Extension("Sentry's SDK with ``send_default_pii``", "sentry-sdk", add_sentry_with_users, use_sentry),
)
