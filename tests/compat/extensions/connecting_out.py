"""Extensions that go over a wire of their own: Authlib, Flask-Dance, Flask-SocketIO."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import requests
from flask import Flask, redirect, session, url_for

from tests.support.served import serving

from .provider import CLIENT, SECRET, oauth_provider
from .trying import Extension, SignIn, Visitor, sign_in_by_hand


def come_back(visitor: Visitor, start: str) -> str:
    """Follow a login to the provider, and return the path that it sends the visitor back to."""
    there = visitor.get(start, 302).headers["Location"]
    back = requests.get(there, allow_redirects=False, timeout=10).headers["Location"]
    return urlsplit(back)._replace(scheme="", netloc="").geturl()


# Authlib


def add_authlib(app: Flask, closing: ExitStack) -> SignIn:
    """Add Authlib's client, which keeps the state and the PKCE verifier of a login in the session."""
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.flask_client import OAuth

    url = closing.enter_context(oauth_provider())
    oauth: Any = OAuth(app)
    oauth.register(
        "local",
        client_id=CLIENT,
        client_secret=SECRET,
        authorize_url=f"{url}/authorize",
        access_token_url=f"{url}/token",
        api_base_url=url,
        client_kwargs={"code_challenge_method": "S256"},
    )

    @app.get("/callback")
    def callback() -> Any:
        try:
            oauth.local.authorize_access_token()
        except OAuthError as error:
            return f"Refused: {error.error}", 403
        session["user"] = oauth.local.get("/me").json()["name"]
        return redirect("/account")

    app.add_url_rule("/login", "login", lambda: oauth.local.authorize_redirect(url_for("callback", _external=True)))
    app.add_url_rule("/account", "account", lambda: session.get("user", "nobody"))
    return sign_in_by_hand


def use_authlib(visitor: Visitor) -> None:
    """Come back without having gone, log in in two tabs, come back twice, and with another visitor's state."""
    visitor.get("/note/tea")
    visitor.get("/callback?code=1&state=2", 403)
    first, second = come_back(visitor, "/login"), come_back(visitor, "/login")
    visitor.get("/static/site.css")
    visitor.get(first, 302)
    visitor.sees("/account", "ada")
    visitor.get(first, 403)
    visitor.get(second, 302)
    visitor.get(come_back(visitor.another(), "/login"), 403)
    visitor.sees("/account", "ada")
    visitor.sees("/noted", "tea")


# Flask-Dance


def add_flask_dance(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-Dance, which keeps the state of a login and the token in the session."""
    from flask_dance.consumer import OAuth2ConsumerBlueprint

    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    closing.callback(os.environ.pop, "OAUTHLIB_INSECURE_TRANSPORT")
    url = closing.enter_context(oauth_provider())
    blueprint = OAuth2ConsumerBlueprint(
        "local",
        __name__,
        client_id=CLIENT,
        client_secret=SECRET,
        base_url=url,
        authorization_url=f"{url}/authorize",
        token_url=f"{url}/token",
        redirect_to="account",
        use_pkce=True,
        code_challenge_method="S256",
    )
    app.register_blueprint(blueprint)

    @app.get("/account")
    def account() -> str:
        return str(blueprint.session.get("/me").json()["name"]) if blueprint.session.authorized else "nobody"

    @app.get("/logout")
    def logout() -> str:
        del blueprint.token
        return ""

    return sign_in_by_hand


def use_flask_dance(visitor: Visitor) -> None:
    """Come back without having gone, log in, log out."""
    visitor.get("/note/tea")
    visitor.get("/local/authorized?code=1&state=2", 302)
    visitor.sees("/account", "nobody")
    back = come_back(visitor, "/local")
    visitor.get("/static/site.css")
    visitor.get(back, 302)
    visitor.sees("/account", "ada")
    visitor.get("/nowhere", 404)
    visitor.get("/logout")
    visitor.sees("/account", "nobody")
    visitor.sees("/noted", "tea")
    visitor.get(come_back(visitor, "/local"), 302)


# Flask-SocketIO


def add_flask_socketio(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-SocketIO, which copies the session when a socket connects."""
    return _add_sockets(app)


def add_flask_socketio_sharing(app: Flask, closing: ExitStack) -> SignIn:
    """Add Flask-SocketIO in the way that its docs give for server-side sessions: sockets and pages share them."""
    return _add_sockets(app, manage_session=False)


def _add_sockets(app: Flask, **options: Any) -> SignIn:
    from flask_socketio import ConnectionRefusedError as Refused
    from flask_socketio import SocketIO

    sockets: Any = SocketIO(app, async_mode="threading", **options)

    @sockets.on("connect")
    def connect() -> None:
        if "user" not in session:
            raise Refused("Log in first")

    @sockets.on("add")
    def add(tea: str) -> list[str]:
        session["cart"] = [*session.get("cart", []), tea]
        return [session["user"], *session["cart"]]

    @sockets.on("look")
    def look() -> str:
        return str(session.get("user"))

    app.add_url_rule("/cart", "cart", lambda: " ".join(session.get("cart", [])))
    return sign_in_by_hand


def use_flask_socketio(visitor: Visitor) -> None:
    """Connect by a real client and by Flask-SocketIO's own, and use the session; without a login, it is refused."""
    sockets: Any = visitor.app.extensions["socketio"]
    visitor.get("/note/tea")
    visitor.get("/sign-in/ada")
    for transport in ("polling", "websocket"):
        _connect_for_real(visitor, transport)
    visitor.get("/cart")
    client = sockets.test_client(visitor.app, flask_test_client=visitor.browser)  # no real one is answered from now on
    visitor.record(client.emit("add", "oolong", callback=True), client.emit("add", "sencha", callback=True))
    visitor.get("/cart")
    visitor.record(client.emit("look", callback=True))
    client.disconnect()
    visitor.record(sockets.test_client(visitor.app, flask_test_client=visitor.app.test_client()).is_connected())
    visitor.sees("/noted", "tea")


def _connect_for_real(visitor: Visitor, transport: str) -> None:
    import socketio

    with serving(visitor.app) as port, socketio.SimpleClient() as client:
        headers = {"Cookie": f"session={visitor.session_id()}"}
        client.connect(f"http://127.0.0.1:{port}", headers=headers, transports=[transport])
        visitor.record(transport, client.call("add", transport), client.call("look"))


EXTENSIONS = (
    Extension("Authlib", "authlib", add_authlib, use_authlib),
    Extension("Flask-Dance", "flask-dance", add_flask_dance, use_flask_dance),
    Extension("Flask-SocketIO", "flask-socketio", add_flask_socketio, use_flask_socketio),
    Extension(
        "Flask-SocketIO with ``manage_session=False``", "flask-socketio", add_flask_socketio_sharing, use_flask_socketio
    ),
)
