"""A small OAuth 2 provider, whose only user is Ada; it wants the secret of its client, and PKCE where that began."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from flask import Flask, abort, redirect, request
from werkzeug.wrappers import Response

from tests.support.served import serving

CLIENT, SECRET = "shop", "client secret"


@contextmanager
def oauth_provider() -> Generator[str]:
    """Serve the provider on a free port until the block ends; yield its URL."""
    app = Flask("provider", static_folder=None)
    codes: dict[str, dict[str, str]] = {}
    tokens: set[str] = set()

    @app.get("/authorize")
    def authorize() -> Response:
        asked = request.args
        if (asked["client_id"], asked["response_type"]) != (CLIENT, "code"):
            abort(400)
        code = secrets.token_urlsafe()
        codes[code] = dict(asked)
        return redirect(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    @app.post("/token")
    def token() -> dict[str, Any]:
        asked = codes.pop(request.form["code"])
        if not _is_client() or request.form["redirect_uri"] != asked["redirect_uri"]:
            abort(401)
        if "code_challenge" in asked and _challenge(request.form["code_verifier"]) != asked["code_challenge"]:
            abort(400)
        made = secrets.token_urlsafe()
        tokens.add(made)
        return {"access_token": made, "token_type": "Bearer", "expires_in": 3600}

    @app.get("/me")
    def me() -> dict[str, str]:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in tokens:
            abort(401)
        return {"name": "ada"}

    with serving(app) as port:
        yield f"http://127.0.0.1:{port}"


def _is_client() -> bool:
    login = request.authorization
    if login is not None:
        return (login.username, login.password) == (CLIENT, SECRET)
    return (request.form.get("client_id"), request.form.get("client_secret")) == (CLIENT, SECRET)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
