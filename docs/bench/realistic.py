"""A small app as real ones are: logins, templates, flashed messages, the tutorial's hook, a form, an API, a 404."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from contenders import Contender, bare
from flask import Blueprint, Flask, Response, abort, flash, g, jsonify, redirect, render_template, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, login_required, login_user
from flask_wtf import FlaskForm
from wtforms import StringField
from wtforms.validators import InputRequired


@dataclass(frozen=True)
class Book:
    """A book of the library."""

    number: int
    title: str
    year: int
    blurb: str


class Member(UserMixin):  # type: ignore[misc]  # Flask-Login ships no types
    """A member of the library."""

    id = "1"
    name = "A. Visitor"
    since = 2019


class RemarkForm(FlaskForm):  # type: ignore[misc]  # Flask-WTF ships no types
    """The form of the app; Flask-WTF adds the field against cross-site requests."""

    text = StringField("Remark", validators=[InputRequired()])


#: What a database would hold: reading it is not what the bench measures.
BOOKS = [Book(number, f"The {number}th garden", 1950 + number, "Moss, rain & stones. " * 3) for number in range(24)]
MEMBERS = {"1": Member()}

auth = Blueprint("auth", __name__)


@auth.before_app_request
def load_logged_in_user() -> None:
    """Look the user up before each request, as the tutorial of Flask does; static files are requests as well."""
    user_id = session.get("user_id")
    g.user = None if user_id is None else MEMBERS[user_id]


@auth.get("/login")
def login() -> str:
    """Log the visitor in; without a form, because logins are not measured here."""
    session.clear()
    session["user_id"] = "1"
    login_user(MEMBERS["1"])
    return "in"


def make_app(contender: Contender, settings: dict[str, Any]) -> Flask:
    """Make the app: contenders differ only in their session interface.

    Without sessions there is no token in the form and no message, and Flask-Login gets the same user without a session:
    these pages are what is left if sessions cost nothing.
    """
    app = bare(contender, settings)
    app.config["WTF_CSRF_ENABLED"] = contender.stateful
    logins = LoginManager(app)
    logins.user_loader(MEMBERS.get)
    if not contender.stateful:
        logins.request_loader(lambda _request: MEMBERS["1"])
    app.register_blueprint(auth)
    _add_pages(app, with_messages=contender.stateful)
    return app


def _add_pages(app: Flask, *, with_messages: bool) -> None:
    @app.get("/")
    def home() -> str:
        return render_template("home.html", books=BOOKS)

    @app.get("/books/<int:number>")
    def book(number: int) -> str:
        if number >= len(BOOKS):
            abort(404)
        return render_template("book.html", book=BOOKS[number], books=BOOKS)

    @app.route("/remark", methods=["GET", "POST"])
    @login_required
    def remark() -> ResponseReturnValue:
        form = RemarkForm()
        if not form.validate_on_submit():
            return render_template("remark.html", form=form), 400 if form.is_submitted() else 200
        if with_messages:
            flash("Thank you for your remark.")
        return redirect(url_for("account"))

    @app.get("/account")
    @login_required
    def account() -> str:
        return render_template("account.html")

    @app.get("/api/stock/<int:number>")
    def stock(number: int) -> Response:
        return jsonify(number=number, free=number % 3, of=3)

    @app.errorhandler(404)
    def missing(_: Exception) -> ResponseReturnValue:
        return render_template("missing.html"), 404
