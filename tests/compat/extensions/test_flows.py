"""Each extension does what it does with Flask-Session: what a visitor is shown, and what is stored in the end."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from flask_login import current_user

from tests.support.stores import RedisStore

from . import EXTENSIONS
from .trying import LAYERS, Extension, Step, Visitor, app_with


def named(name: str) -> Extension:
    """Return an extension by its name."""
    return next(extension for extension in EXTENSIONS if extension.name == name)


class Use(NamedTuple):
    """What a visitor of an app saw, what each request cost, and what is stored for them in the end."""

    seen: list[object]
    costs: list[Step]
    stored: Any


def use(extension: Extension, layer: str, store: RedisStore) -> Use:
    """Use an extension."""
    store.server.flushdb()
    with app_with(extension, layer, store) as app:
        visitor = Visitor(app, store, extension.base_url)
        extension.flow(visitor)
        return Use(visitor.seen, visitor.costs, visitor.stored())


Uses = dict[str, Use]


@pytest.fixture(scope="module")
def uses() -> Uses:
    """What was seen with Flask-Session, by extension."""
    return {}


def differences(theirs: list[object], ours: list[object]) -> list[tuple[str, str]]:
    """Return where two records of what was seen begin to differ, step by step."""
    found = []
    for before, after in zip(map(repr, theirs), map(repr, ours), strict=True):
        if before != after:
            place = next((at for at, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), 0)
            found.append((before[max(0, place - 80) : place + 80], after[max(0, place - 80) : place + 80]))
    return found


def more(theirs: list[Step], ours: list[Step]) -> list[str]:
    """Return the requests that cost more than with Flask-Session, which gives no session a new id at a login."""
    return [
        f"{our.name}: {their.cost} with Flask-Session, {our.cost} with LazySession"
        for their, our in zip(theirs, ours, strict=True)
        if our.cost.is_more_than(their.cost._replace(trips=their.cost.trips + (our.rotated and not their.rotated)))
    ]


@pytest.mark.parametrize("layer", LAYERS[1:])
@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda extension: extension.name)
def test_the_same_as_with_flask_session(
    extension: Extension, layer: str, store: RedisStore, caplog: pytest.LogCaptureFixture, uses: Uses
) -> None:
    """A visitor sees the same pages, keeps the same session, and we log nothing else than what is expected."""
    if extension.name not in uses:
        uses[extension.name] = use(extension, LAYERS[0], store)
    theirs = uses[extension.name]
    with caplog.at_level(logging.INFO, "lazysession"):
        ours = use(extension, layer, store)
    assert differences(theirs.seen, ours.seen) == []
    assert ours.stored == theirs.stored
    assert more(theirs.costs, ours.costs) == []
    logged = [record.getMessage() for record in caplog.records if record.name == "lazysession"]
    assert len(logged) == len(extension.logged), logged
    assert all(map(str.startswith, logged, extension.logged)), logged


def test_a_socket_connects_again_after_a_login(store: RedisStore) -> None:
    """A login by Flask-Login gives the session a new id, so that a socket with the old one has no login."""
    with (
        app_with(named("Flask-SocketIO with ``manage_session=False``"), "LazySession", store) as app,
        ExitStack() as closing,
    ):
        log_in = named("Flask-Login").add(app, closing)
        sockets, visitor = app.extensions["socketio"], Visitor(app, store)
        sockets.on_event("who", lambda: getattr(current_user, "id", "nobody"))
        app.add_url_rule("/log-in/<name>", "log_in", lambda name: str(log_in(name)))
        visitor.get("/sign-in/somebody")  # whom the app lets connect
        before = sockets.test_client(app, flask_test_client=visitor.browser)
        visitor.get("/log-in/ada")
        after = sockets.test_client(app, flask_test_client=visitor.browser)
        assert (before.emit("who", callback=True), after.emit("who", callback=True)) == ("nobody", "ada")


def test_a_lazy_text_is_stored(store: RedisStore) -> None:
    """Flask-AppBuilder's own message that a row was added, which is a 500 with Flask-Session 0.8, is shown."""
    with app_with(named("Flask-AppBuilder"), "LazySession", store) as app:
        visitor = Visitor(app, store)
        visitor.get("/sign-in/ada")
        del app.extensions["appbuilder"].sm.rolemodelview.add_row_message
        visitor.post("/roles/add", {"name": "Guest", "csrf_token": visitor.csrf_token("/roles/add")})
        visitor.sees("/roles/list/", "Added Row")
