"""Whatever a visitor does with an extension, it succeeds although another tab changes the session meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask, Response, request, session

from tests.support.stores import RedisStore

from . import EXTENSIONS
from .trying import Extension, Visitor, app_with

#: What is refused: those that look at each key in a request that also changes some depend on every key.
KNOWN = {
    "Authlib": "FAULTS 1: a login with Authlib looks through the whole session",
    "Flask-DebugToolbar": "FAULTS 1: the toolbar shows the whole session",
}
TRIED = [
    pytest.param(
        extension,
        id=extension.name,
        marks=pytest.mark.xfail(strict=True, reason=KNOWN[extension.name]) if extension.name in KNOWN else (),
    )
    for extension in EXTENSIONS
]


@contextmanager
def another_tab(app: Flask, visitor: Visitor) -> Generator[list[str]]:
    """Make another tab of the visitor change the session between each view and the end of its request.

    Yield the requests that are refused.
    """
    refused: list[str] = []
    changed: list[int] = []

    def change() -> str:
        changed.append(1)
        session["changed"] = len(changed)
        return ""

    app.add_url_rule("/another-tab", "another_tab", change)

    def meanwhile(response: Response) -> Response:
        sid = visitor.session_id()
        if sid is not None and request.endpoint != "another_tab":
            tab = app.test_client()
            tab.set_cookie("session", sid)
            threads.submit(tab.get, "/another-tab", base_url=request.host_url).result()
        return response

    app.after_request_funcs.setdefault(None, []).append(meanwhile)  # the first that runs
    app.wsgi_app = _noting_refusals(app.wsgi_app, refused)  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as threads:
        yield refused
    assert changed


def _noting_refusals(serve: Callable[..., Any], refused: list[str]) -> Callable[..., Any]:
    def noting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        def start(status: str, *rest: Any) -> Any:
            if status.startswith("409"):
                refused.append(environ["PATH_INFO"])
            return start_response(status, *rest)

        return serve(environ, start)

    return noting


@pytest.mark.parametrize("extension", TRIED)
def test_nothing_is_refused(extension: Extension, store: RedisStore) -> None:
    """No request is refused, and all that the visitor does succeeds."""
    store.server.flushdb()
    with app_with(extension, "LazySession", store) as app:
        visitor = Visitor(app, store, extension.base_url)
        with another_tab(app, visitor) as refused:
            extension.flow(visitor)
        assert refused == []
