"""Which requests for static files are skipped: those for which no hook can go wrong with an empty session.

A request for a static file needs no session, but a hook may use it, for example to load the user in every request. With
an empty session such a hook does no harm, unless it guards the file or logs the visitor in. If a hook may do that, the
request is not skipped. This is decided at the first use of the session: if no hook uses it, nothing here runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import TypeGuard

from flask import Flask, Request
from werkzeug.security import safe_join

_METHOD = "send_static_file"
_REMEMBER_COOKIE = "remember_token"  # Flask-Login's default


def is_static_route(app: Flask, endpoint: str | None) -> bool:
    """Return whether an endpoint is that of the static files of the app or of one of its blueprints."""
    if endpoint is None or not endpoint.endswith("static"):
        return False
    owner, _, name = endpoint.rpartition(".")
    scaffold = app.blueprints.get(owner) if owner else app
    return name == "static" and scaffold is not None and scaffold.has_static_folder


def reason_against_route(app: Flask, endpoint: str) -> str | None:
    """Return why no file of a static route is skipped, or None: its view or a hook of its blueprint may be a guard.

    Hooks of the whole app do not count. They run for every request, most of them to load the user.

    :param endpoint: one for which :func:`is_static_route` is true.
    """
    blueprint = endpoint.rpartition(".")[0]
    owner = app.blueprints[blueprint] if blueprint else app
    if not _is_flasks_view(app.view_functions.get(endpoint), owner):
        return "its view is wrapped or overridden"
    for name in with_parents(blueprint):
        if app.before_request_funcs.get(name):
            return f"the blueprint {name!r} has a before_request hook"
        if app.url_value_preprocessors.get(name):
            return f"the blueprint {name!r} has a URL preprocessor"
    return None


def reason_against_request(app: Flask, request: Request) -> str | None:
    """Return why one request to a static route is not skipped although the route is, or None.

    :param request: one to a route for which :func:`reason_against_route` returns None.
    """
    if not _finds_file(app, request):
        return "there is no such file"
    if _has_remember_cookie(app, request):
        return "with a remember cookie"
    return None


# Whether the view is Flask's


def _is_flasks_view(view: object, owner: object) -> bool:
    """Return whether a view is what Flask registered to send the files of an app or a blueprint, as Flask sends them.

    A wrapper made with functools.wraps has the name, the module and the attributes of what it wraps, but not its code
    and not its globals. An object that only looks like a function (wrapt) may have even these, but not its type.
    """
    if type(view) is MethodType:  # what Flask registers for a blueprint
        return view.__self__ is owner and _is_flasks(view.__func__) and view.__func__.__code__.co_name == _METHOD
    # For an app, Flask registers a lambda that calls the method: which may be a subclass's, or the instance's own.
    return (
        isinstance(owner, Flask)
        and _is_flasks(view)
        and _METHOD in view.__code__.co_names
        and _is_flasks_view(owner.send_static_file, owner)
    )


def _is_flasks(function: object) -> TypeGuard[FunctionType]:
    """Return whether a function is written in Flask, in whichever of its modules."""
    return type(function) is FunctionType and function.__globals__["__name__"].partition(".")[0] == "flask"


def with_parents(blueprint: str) -> Iterator[str]:
    """Yield the name of a blueprint and of each that it is nested in: ``"a.b"``, ``"a"``."""
    while blueprint:
        yield blueprint
        blueprint = blueprint.rpartition(".")[0]


# What a single request asks for


def _finds_file(app: Flask, request: Request) -> bool:
    """Return whether the file exists, looking where ``flask.send_from_directory`` does.

    With ``static_url_path=""`` each unknown URL is a static file that does not exist. A name that no file can have,
    such as one with a NUL byte, does not exist either.
    """
    blueprint = (request.endpoint or "").rpartition(".")[0]
    folder = (app.blueprints[blueprint] if blueprint else app).static_folder
    filename = (request.view_args or {}).get("filename")
    if folder is None or not isinstance(filename, str):
        return False
    path = safe_join(folder, filename)
    return path is not None and os.path.isfile(os.path.join(app.root_path, path))


def _has_remember_cookie(app: Flask, request: Request) -> bool:
    """Return whether Flask-Login may log the visitor in by a cookie: with empty sessions, it does so for each file."""
    name = remember_cookie_of(app)
    return name is not None and name in request.cookies


def remember_cookie_of(app: Flask) -> str | None:
    """Return the name of Flask-Login's remember cookie; None for an app without Flask-Login."""
    if not hasattr(app, "login_manager"):
        return None
    name: str = app.config.get("REMEMBER_COOKIE_NAME", _REMEMBER_COOKIE)
    return name
