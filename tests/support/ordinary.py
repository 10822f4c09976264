"""An ordinary shop that keeps its state in the session, written as the docs of Flask and its extensions say.

It has Flask-Login, flashed messages, Flask-WTF's CSRF protection, a cart, a language and a page history. ``main``
serves it in a process of its own, where the two requests of a pair wait for each other once both have loaded their
session.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from typing import Any

from flask import Flask, flash, g, redirect, render_template_string, request, session, url_for
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from flask_session import Session
from flask_wtf import CSRFProtect
from werkzeug.wrappers import Response

from lazysession import LazySession
from tests.support.processes import app_on, count_errors, hear, tell
from tests.support.served import serving

HISTORY = 10
TEXTS = {"en": {"added": "Added", "hello": "Hello"}, "de": {"added": "Hinzugefügt", "hello": "Hallo"}}

LAYOUT = """<!doctype html>
<html lang="{{ g.lang }}">
<p id="user">{{ current_user.id if current_user.is_authenticated else "" }}</p>
<p id="cart">{{ session.get("cart", [])|length }}</p>
<ul>{% for message in get_flashed_messages() %}<li class="message">{{ message }}</li>{% endfor %}</ul>
<form method="post"><input name="csrf_token" value="{{ csrf_token() }}"></form>
<main>{{ content }}</main>
"""


class User(UserMixin):  # type: ignore[misc]
    """A user, known by name."""

    def __init__(self, name: str) -> None:
        self.id = name


def text(name: str) -> str:
    """Return a text in the visitor's language."""
    return TEXTS[g.lang][name]


def page(content: str) -> str:
    """Return a page, and keep it in the visitor's history."""
    history = session.get("page_history", [])
    history.append(request.path)
    session["page_history"] = history[-HISTORY:]
    return render_template_string(LAYOUT, content=content)


def add_shop(app: Flask) -> None:
    """Add the shop to an app."""

    @app.before_request
    def choose_language() -> None:
        g.lang = session.get("lang") or request.accept_languages.best_match(TEXTS) or "en"

    manager = LoginManager(app)
    manager.user_loader(User)
    manager.login_view = "home"
    CSRFProtect(app)

    @app.get("/")
    def home() -> str:
        return page(text("hello"))

    @app.get("/product/<int:number>")
    def product(number: int) -> str:
        return page(f"Product {number}")

    @app.get("/cart")
    def cart() -> str:
        return page(" ".join(session.get("cart", [])))

    @app.get("/account")
    @login_required
    def account() -> str:
        return page(f"Account of {current_user.id}")

    @app.post("/cart")
    def add_to_cart() -> Response:
        cart = session.get("cart", [])
        cart.append(request.form["item"])
        session["cart"] = cart
        flash(f"{text('added')} {request.form['item']}")
        return redirect(url_for("cart"))

    @app.post("/language")
    def switch_language() -> Response:
        session["lang"] = request.form["lang"]
        return redirect(url_for("home"))

    @app.post("/login")
    def login() -> Response:
        login_user(User(request.form["name"]))
        flash(f"{text('hello')} {request.form['message']}")
        return redirect(url_for("account"))

    @app.post("/logout")
    @login_required
    def logout() -> Response:
        logout_user()
        flash(f"Goodbye {request.form['message']}")
        return redirect(url_for("home"))


class Meetings:
    """Makes the two requests of a pair overlap: neither continues before both have loaded their session."""

    def __init__(self) -> None:
        self._barriers: defaultdict[str, threading.Barrier] = defaultdict(lambda: threading.Barrier(2))
        self._lock = threading.Lock()

    def meet(self) -> None:
        """Wait for the other request of this pair."""
        pair = request.headers.get("X-Pair")
        if pair is not None:
            with self._lock:
                barrier = self._barriers[pair]
            barrier.wait(30)


def main() -> None:
    """Serve the shop on one store after the other, each until it is stopped; then report the errors of its requests."""
    logging.disable(logging.WARNING)  # the counts say what happened
    while job := hear():
        settings: dict[str, Any] = job["settings"]
        with app_on(job["store"], job["address"], LazySession if job["lazy"] else Session, **settings) as app:
            add_shop(app)
            app.before_request_funcs[None].insert(1, Meetings().meet)  # after choose_language, which loads the session
            errors = count_errors(app)
            with serving(app) as port:
                tell(port)
                hear()
            tell(errors)
