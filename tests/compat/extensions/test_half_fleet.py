"""A fleet that runs half on Flask-Session: each request of a visitor goes to the other half than the one before."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.support.stores import RedisStore

from . import EXTENSIONS
from .trying import LAYERS, Extension, Visitor, app_with

#: Those of which the apps keep no more than the session: no database, cache or tokens of their own.
IN_THE_SESSION = {
    "Flask alone",
    "Flask-Babel",
    "Flask-CORS",
    "Flask-Login",
    "Flask-Multipass",
    "Flask-Principal",
    "Flask-SeaSurf",
    "Flask-Talisman",
    "Flask-WTF",
}
TRIED = [pytest.param(extension, id=extension.name) for extension in EXTENSIONS if extension.name in IN_THE_SESSION]


@pytest.mark.parametrize("lazy_first", [True, False])
@pytest.mark.parametrize("extension", TRIED)
def test_half_a_fleet(extension: Extension, store: RedisStore, lazy_first: bool) -> None:
    """All that a visitor does succeeds, whichever half serves it."""
    store.server.flushdb()
    with app_with(extension, LAYERS[0], store) as theirs, app_with(extension, LAYERS[1], store) as ours:
        turns = itertools.cycle([ours.wsgi_app, theirs.wsgi_app] if lazy_first else [theirs.wsgi_app, ours.wsgi_app])

        def serve(*request: Any) -> Any:
            return next(turns)(*request)

        ours.wsgi_app = serve  # type: ignore[method-assign, assignment]
        extension.flow(Visitor(ours, store, extension.base_url))
