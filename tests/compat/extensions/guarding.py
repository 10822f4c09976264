"""Extensions that guard forms, or keep them: Flask-WTF, Flask-SeaSurf, Flask-Admin."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from flask import Flask, flash, redirect, render_template_string, session
from werkzeug.wrappers import Response

from .trying import Extension, SignIn, Visitor, sign_in_by_hand

# Flask-WTF


def add_flask_wtf(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-WTF's protection of all forms, one of its forms, and a POST without one."""
    from flask_wtf import CSRFProtect, FlaskForm
    from wtforms import StringField
    from wtforms.validators import DataRequired

    class Order(FlaskForm):  # type: ignore[misc]
        tea = StringField(validators=[DataRequired()])

    CSRFProtect(app)
    page = "{% for message in get_flashed_messages() %}[{{ message }}]{% endfor %}{{ form.csrf_token }}{{ form.tea() }}"

    @app.route("/order", methods=["GET", "POST"])
    def order() -> Any:
        form = Order()
        if form.validate_on_submit():
            session["tea"] = form.tea.data
            flash(f"Ordered {form.tea.data}")
            return redirect("/order")
        return render_template_string(page, form=form)

    app.add_url_rule("/pay", "pay", lambda: f"Paid for {session['tea']}", methods=["POST"])
    return sign_in_by_hand


def use_flask_wtf(visitor: Visitor) -> None:
    """Send a form without a token, with one, with another visitor's, and a request of a script."""
    visitor.post("/order", {"tea": "oolong"}, 400)
    token = visitor.csrf_token("/order")
    visitor.get("/static/site.css")
    visitor.get("/nowhere", 404)
    visitor.post("/order", {"tea": "oolong", "csrf_token": token})
    visitor.sees("/order", "[Ordered oolong]")
    assert visitor.post("/pay", None, 200, headers={"X-CSRFToken": token}).text == "Paid for oolong"
    visitor.get("/sign-in/ada")
    visitor.post("/pay", {"csrf_token": token}, 200)
    other = visitor.another().csrf_token("/order")
    visitor.post("/pay", {"csrf_token": other}, 400)


# Flask-SeaSurf


def add_flask_seasurf(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-SeaSurf and a form."""
    from flask_seasurf import SeaSurf

    SeaSurf(app)
    form = '<input name="_csrf_token" value="{{ csrf_token() }}">'
    app.add_url_rule("/order", "order", lambda: render_template_string(form))
    app.add_url_rule("/pay", "pay", lambda: f"Paid by {session.get('user')}", methods=["POST"])
    return sign_in_by_hand


def use_flask_seasurf(visitor: Visitor) -> None:
    """Send a form without a token, and with one in the form or in a header, also after a static file and a login."""
    visitor.post("/pay", {}, 403)
    token = visitor.csrf_token("/order", "_csrf_token")
    visitor.get("/static/site.css")
    visitor.post("/pay", {"_csrf_token": token}, 200)
    visitor.get("/sign-in/ada")
    visitor.get("/nowhere", 404)
    cookie = visitor.browser.get_cookie("_csrf_token")
    assert cookie is not None
    assert visitor.post("/pay", None, 200, headers={"X-CSRFToken": cookie.value}).text == "Paid by ada"
    other = visitor.another().csrf_token("/order", "_csrf_token")
    visitor.post("/pay", {"_csrf_token": other}, 403)


# Flask-Admin


def add_flask_admin(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Admin with a table of teas for those who are logged in, and forms with tokens in the session."""
    from flask_admin import Admin
    from flask_admin.contrib.sqla import ModelView
    from flask_admin.form import SecureForm
    from flask_babel import Babel
    from flask_sqlalchemy import SQLAlchemy

    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db: Any = SQLAlchemy(app)

    class Tea(db.Model):  # type: ignore[misc]
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String)

    class Teas(ModelView):  # type: ignore[misc]
        form_base_class = SecureForm

        def is_accessible(self) -> bool:
            return "user" in session

        def inaccessible_callback(self, name: str, **_: Any) -> Response:
            return redirect("/plain")

    Babel(app)  # which Flask-Admin wants where it is installed
    Admin(app).add_view(Teas(Tea, db.session))
    with app.app_context():
        db.create_all()
        closing.callback(db.engine.dispose)
    return sign_in_by_hand


def use_flask_admin(visitor: Visitor) -> None:
    """Be turned away, log in, then create, edit, find and delete a tea."""
    visitor.get("/note/tea")
    visitor.get("/admin/tea/", 302)
    visitor.get("/sign-in/ada")
    visitor.get("/admin/")
    visitor.get("/admin/static/admin/css/bootstrap4/admin.css")
    visitor.post("/admin/tea/new/", {"name": "oolong"}, 200)  # without a token
    visitor.post("/admin/tea/new/", {"name": "oolong", "csrf_token": visitor.csrf_token("/admin/tea/new/")})
    visitor.sees("/admin/tea/", "Record was successfully created.")
    token = visitor.csrf_token("/admin/tea/edit/?id=1")
    visitor.get("/static/site.css")
    visitor.post("/admin/tea/edit/?id=1", {"name": "sencha", "csrf_token": token})
    visitor.sees("/admin/tea/", "sencha")
    form = {"id": "1", "url": "/admin/tea/", "csrf_token": visitor.csrf_token("/admin/tea/")}
    visitor.post("/admin/tea/delete/", form)
    visitor.sees("/admin/tea/", "Record was successfully deleted.")
    visitor.sees("/noted", "tea")


EXTENSIONS = (
    Extension("Flask-WTF", "flask-wtf", add_flask_wtf, use_flask_wtf),
    Extension(
        "Flask-SeaSurf",
        "flask-seasurf",
        add_flask_seasurf,
        use_flask_seasurf,
        logged=("A change of the session was dropped: requests to static", "Cookies were not sent: requests to static"),
    ),
    Extension("Flask-Admin", "flask-admin", add_flask_admin, use_flask_admin),
)
