"""Extensions that log users in: Flask-Login, Flask-Security-Too, Flask-Principal, Flask-Multipass, Flask-AppBuilder."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from flask import Flask, current_app, flash, redirect, render_template_string, request, session, url_for
from werkzeug.wrappers import Response

from .trying import Extension, SignIn, Visitor

# Flask-Login


def add_flask_login(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Login, a page for users, and one that wants a fresh login."""
    from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
    from flask_login import fresh_login_required as fresh
    from flask_login import login_required as required

    class User(UserMixin):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.id = name

    manager = LoginManager(app)
    manager.user_loader(User)
    manager.login_view = manager.refresh_view = "login"
    messages = "{% for message in get_flashed_messages() %}[{{ message }}]{% endfor %}"
    greeting = "{{ current_user.id if current_user.is_authenticated else 'stranger' }}"

    @app.route("/login", methods=["GET", "POST"])
    def login() -> Any:
        if request.method == "GET":
            return render_template_string(f"{messages} Log in")
        login_user(User(request.form["name"]), remember="remember" in request.form)
        flash("Hello")
        return redirect(request.args.get("next") or "/home")

    @app.get("/logout")
    def logout() -> Response:
        logout_user()
        return redirect("/home")

    app.add_url_rule("/home", "home", lambda: render_template_string(f"{messages} {greeting}"))
    app.add_url_rule("/account", "account", required(lambda: f"Account of {current_user.id}"))
    app.add_url_rule("/password", "password", fresh(lambda: f"Password of {current_user.id}"))
    return lambda name: login_user(User(name))


def use_flask_login(visitor: Visitor) -> None:
    """Log in, be remembered after the browser was closed, log in afresh, log out."""
    visitor.get("/note/tea")
    visitor.get("/account", 302)
    visitor.sees("/login", "[Please log in to access this page.]")
    visitor.post("/login?next=/account", {"name": "ada", "remember": "yes"})
    visitor.sees("/account", "Account of ada")
    visitor.get("/static/site.css")
    visitor.sees("/home", "[Hello] ada")
    visitor.sees("/noted", "tea")
    visitor.get("/password")
    visitor.close_browser()
    visitor.get("/static/site.css")
    visitor.sees("/account", "Account of ada")
    visitor.get("/password", 302)
    visitor.post("/login", {"name": "ada"})
    visitor.sees("/password", "Password of ada")
    visitor.get("/logout", 302)
    visitor.get("/static/site.css")
    visitor.get("/account", 302)
    visitor.sees("/home", "stranger")
    visitor.post("/login", {"name": "bob"})
    visitor.sees("/account", "Account of bob")


# Flask-Security-Too


def add_flask_security(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Security with its defaults."""
    return _add_flask_security(app, closing)


def add_second_factor(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Security with codes by mail, which are kept instead, and a CSRF cookie as its docs say for scripts."""
    from flask_security import MailUtil, tf_security_token_sent
    from flask_wtf import CSRFProtect

    class NoMail(MailUtil):
        def send_mail(self, *_: Any, **__: Any) -> None:
            """Send nothing."""

    def keep(sender: Flask, token: str, **_: object) -> None:
        app.extensions["code"] = token

    tf_security_token_sent.connect(keep, app)
    app.config.update(
        SECURITY_TWO_FACTOR=True,
        SECURITY_TWO_FACTOR_REQUIRED=True,
        SECURITY_TWO_FACTOR_ENABLED_METHODS=["email"],
        SECURITY_TOTP_SECRETS={"1": "a secret of some length for totp"},
        SECURITY_TOTP_ISSUER="shop",
        SECURITY_CSRF_COOKIE_NAME="XSRF-TOKEN",
        WTF_CSRF_TIME_LIMIT=None,
    )
    CSRFProtect(app)
    app.extensions["kept"] = (keep,)  # signals hold their receivers weakly
    app.add_url_rule("/act", "act", lambda: session["_user_id"] and "Done", methods=["POST"])
    return _add_flask_security(app, closing, mail_util_cls=NoMail)


def _add_flask_security(app: Flask, closing: ExitStack, **options: Any) -> SignIn:
    """Add Flask-Security with the user Ada; passwords are hashed quickly."""
    from flask_security import (
        RoleMixin,
        Security,
        SQLAlchemyUserDatastore,
        UserMixin,
        auth_required,
        current_user,
        hash_password,
        login_user,
        roles_required,
    )
    from flask_sqlalchemy import SQLAlchemy

    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", SECURITY_PASSWORD_SALT="salt")
    app.config.update(
        SECURITY_PASSWORD_HASH="pbkdf2_sha512", SECURITY_CHANGEABLE=True, SECURITY_EMAIL_VALIDATOR_ARGS={}
    )
    app.config.update(SECURITY_SEND_PASSWORD_CHANGE_EMAIL=False, SECURITY_PASSWORD_COMPLEXITY_CHECKER=None)
    db: Any = SQLAlchemy(app)
    columns = (db.Column("user_id", db.ForeignKey("user.id")), db.Column("role_id", db.ForeignKey("role.id")))
    roles_of_users = db.Table("roles_of_users", *columns)

    class Role(db.Model, RoleMixin):  # type: ignore[misc]
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String, unique=True)

    class User(db.Model, UserMixin):  # type: ignore[misc]
        id = db.Column(db.Integer, primary_key=True)
        email = db.Column(db.String, unique=True)
        password = db.Column(db.String)
        active = db.Column(db.Boolean)
        fs_uniquifier = db.Column(db.String, unique=True)
        tf_primary_method = db.Column(db.String)
        tf_totp_secret = db.Column(db.String)
        tf_phone_number = db.Column(db.String)
        roles = db.relationship("Role", secondary=roles_of_users)

    users: Any = SQLAlchemyUserDatastore(db, User, Role)
    Security(app, users, **options)
    with app.app_context():
        db.create_all()
        for name in ("ada", "bob"):
            users.create_user(email=f"{name}@example.com", password=hash_password("a long password"), active=True)
        users.add_role_to_user(users.find_user(email="ada@example.com"), users.create_role(name="admin"))
        db.session.commit()
        closing.callback(db.engine.dispose)

    app.add_url_rule("/account", "account", auth_required()(lambda: f"Account of {current_user.email}"))
    app.add_url_rule("/admin", "admin", auth_required()(roles_required("admin")(lambda: "Admin")))
    return lambda name: login_user(users.find_user(email=f"{name}@example.com"))


def use_flask_security(visitor: Visitor) -> None:
    """Mistype the password, log in, be remembered, change the password, log out."""
    visitor.get("/note/tea")
    visitor.get("/account", 302)
    form = {"email": "ada@example.com", "password": "a wrong password", "csrf_token": visitor.csrf_token("/login")}
    assert "Invalid password" in visitor.post("/login", form, 200).text or "not match" in visitor.seen[-1][4]  # type: ignore[index]
    form.update(password="a long password", remember="y", csrf_token=visitor.csrf_token("/login"))
    visitor.post("/login?next=/account", form)
    visitor.sees("/account", "Account of ada@example.com")
    visitor.get("/static/site.css")
    visitor.sees("/admin", "Admin")
    token = visitor.csrf_token("/change")
    new = {
        "password": "a long password",
        "new_password": "another long one",
        "new_password_confirm": "another long one",
    }
    visitor.post("/change", {**new, "csrf_token": token})
    visitor.close_browser()
    visitor.get("/static/site.css")
    visitor.sees("/account", "Account of ada@example.com")
    visitor.post("/logout", {})
    visitor.get("/admin", 302)


def use_second_factor(visitor: Visitor) -> None:
    """Set up the second factor at the first login, mistype a code at the next, and send something by a script."""
    visitor.get("/note/tea")
    form = {"email": "ada@example.com", "password": "a long password"}
    visitor.post("/login", {**form, "csrf_token": visitor.csrf_token("/login")})
    visitor.get("/account", 302)
    visitor.post("/tf-setup", {"setup": "email", "csrf_token": visitor.csrf_token("/tf-setup")}, 200)
    visitor.get("/static/site.css")
    _send_code(visitor, visitor.app.extensions["code"], 302)
    visitor.sees("/account", "Account of ada@example.com")
    visitor.post("/logout", None, headers=_token_of_the_cookie(visitor))
    visitor.get("/account", 302)
    visitor.post("/login", {**form, "csrf_token": visitor.csrf_token("/login")})
    _send_code(visitor, "123", 200)
    _send_code(visitor, visitor.app.extensions["code"], 302)
    visitor.get("/static/site.css")
    visitor.post("/act", None, 400)
    visitor.post("/act", None, 200, headers=_token_of_the_cookie(visitor))
    visitor.sees("/noted", "tea")


def _token_of_the_cookie(visitor: Visitor) -> dict[str, str]:
    cookie = visitor.browser.get_cookie("XSRF-TOKEN")
    assert cookie is not None
    return {"X-XSRF-Token": cookie.value}


def _send_code(visitor: Visitor, code: str, status: int) -> None:
    visitor.post("/tf-validate", {"code": code, "csrf_token": visitor.csrf_token("/tf-validate")}, status)


# Flask-Principal


def add_flask_principal(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Principal, by which Ada is an admin."""
    from flask_principal import (
        AnonymousIdentity,
        Identity,
        Permission,
        Principal,
        RoleNeed,
        identity_changed,
        identity_loaded,
    )

    Principal(app)
    admin = Permission(RoleNeed("admin"))

    @identity_loaded.connect_via(app)
    def give_roles(sender: Flask, identity: Any) -> None:
        if identity.id == "ada":
            identity.provides.add(RoleNeed("admin"))

    def sign_in(name: str) -> None:
        identity_changed.send(current_app._get_current_object(), identity=Identity(name))  # type: ignore[attr-defined]

    @app.post("/login")
    def login() -> Response:
        sign_in(request.form["name"])
        return redirect("/admin")

    @app.post("/logout")
    def logout() -> Response:
        for key in ("identity.id", "identity.auth_type"):
            session.pop(key, None)
        identity_changed.send(current_app._get_current_object(), identity=AnonymousIdentity())  # type: ignore[attr-defined]
        return redirect("/plain")

    app.add_url_rule("/admin", "admin", admin.require(403)(lambda: "Admin"))
    app.extensions["kept"] = (give_roles,)  # signals hold their receivers weakly
    return sign_in


def use_flask_principal(visitor: Visitor) -> None:
    """Visit without a login, as an admin, without a login again, and as another user."""
    visitor.get("/note/tea")
    visitor.get("/admin", 403)
    visitor.post("/login", {"name": "ada"})
    visitor.sees("/admin", "Admin")
    visitor.get("/static/site.css")
    visitor.sees("/admin", "Admin")
    visitor.post("/logout")
    visitor.get("/admin", 403)
    visitor.post("/login", {"name": "bob"})
    visitor.get("/admin", 403)
    visitor.sees("/noted", "tea")


# Flask-Multipass


def add_flask_multipass(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Multipass with its static provider, and what an app does with an identity."""
    from flask_multipass import Multipass

    app.config.update(
        MULTIPASS_AUTH_PROVIDERS={"static": {"type": "static", "identities": {"ada": "secret"}}},
        MULTIPASS_IDENTITY_PROVIDERS={
            "static": {"type": "static", "identities": {"ada": {"email": "ada@example.com"}}, "groups": {}}
        },
        MULTIPASS_PROVIDER_MAP={"static": "static"},
        MULTIPASS_LOGIN_FORM_TEMPLATE="login.html",
        MULTIPASS_SUCCESS_ENDPOINT="plain",
    )
    multipass = Multipass(app)

    @multipass.identity_handler
    def keep(identity: Any) -> None:
        session["user"] = identity.data["email"]

    def sign_in(name: str) -> None:
        session.update(user=f"{name}@example.com", _multipass_login_provider="static")

    app.add_url_rule("/account", "account", lambda: session.get("user", "nobody"))
    app.add_url_rule("/logout", "logout", lambda: multipass.logout(url_for("plain"), clear_session=True))
    return sign_in


def use_flask_multipass(visitor: Visitor) -> None:
    """Mistype the password, log in, log out."""
    visitor.get("/note/tea")
    form_page = visitor.get("/login/?next=/account", 302).headers["Location"]
    token = visitor.csrf_token(form_page)
    visitor.post("/login/static", {"username": "ada", "password": "secret"}, 200)  # without the token
    wrong = {"username": "ada", "password": "wrong", "csrf_token": token}
    visitor.post("/login/static", wrong, 200)
    visitor.get("/static/site.css")
    form = {"username": "ada", "password": "secret", "csrf_token": visitor.csrf_token("/login/static")}
    assert visitor.post("/login/static", form).headers["Location"] == "/account"
    visitor.sees("/account", "ada@example.com")
    visitor.sees("/noted", "tea")
    visitor.get("/logout", 302)
    visitor.sees("/account", "nobody")


# Flask-AppBuilder


def add_flask_appbuilder(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-AppBuilder with the admin Ada, and German."""
    from flask_appbuilder import AppBuilder
    from flask_appbuilder.utils.legacy import get_sqla_class
    from flask_login import login_user

    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", FAB_PASSWORD_HASH_METHOD="pbkdf2:sha256:1")
    app.config["LANGUAGES"] = {"en": {"flag": "gb", "name": "English"}, "de": {"flag": "de", "name": "German"}}
    db = get_sqla_class()(app)
    with app.app_context():
        builder = AppBuilder(app, db.session)
        users = builder.sm
        # Flask-Session 0.8 cannot store the lazy texts that these are, and the page is a 500.
        users.rolemodelview.add_row_message = "Added Row"
        users.add_user("ada", "Ada", "L", "ada@example.com", users.find_role("Admin"), "secret")
        closing.callback(db.engine.dispose)
    return lambda name: login_user(users.find_user(name))


def use_flask_appbuilder(visitor: Visitor) -> None:
    """Mistype the password, log in, add a role and delete it, switch the language, log out."""
    visitor.get("/note/tea")
    visitor.get("/")
    visitor.get("/users/list/", 302)
    form = {"username": "ada", "password": "wrong", "csrf_token": visitor.csrf_token("/login/")}
    visitor.post("/login/", form)
    visitor.sees("/login/", "Invalid login")
    form.update(password="secret", csrf_token=visitor.csrf_token("/login/"))
    visitor.post("/login/", form)
    visitor.get("/static/site.css")
    visitor.get("/static/appbuilder/css/ab.css")
    visitor.sees("/users/list/", "ada@example.com")
    visitor.post("/roles/add", {"name": "Guest", "csrf_token": visitor.csrf_token("/roles/add")})
    visitor.sees("/roles/list/", "Added Row")
    visitor.get("/lang/de", 302)
    visitor.sees("/roles/list/", "Rollen")
    visitor.get("/back", 302)
    visitor.sees("/noted", "tea")
    visitor.get("/logout/", 302)
    visitor.get("/users/list/", 302)


EXTENSIONS = (
    Extension("Flask-Login", "flask-login", add_flask_login, use_flask_login),
    Extension("Flask-Security-Too", "flask-security-too", add_flask_security, use_flask_security),
    Extension("Flask-Security-Too with two factors", "flask-security-too", add_second_factor, use_second_factor),
    Extension("Flask-Principal", "flask-principal", add_flask_principal, use_flask_principal),
    Extension("Flask-Multipass", "flask-multipass", add_flask_multipass, use_flask_multipass),
    Extension("Flask-AppBuilder", "flask-appbuilder", add_flask_appbuilder, use_flask_appbuilder),
)
