"""Store round trips of one page view, counted at every store by the counters of the tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from calling import Caller, log_in
from contenders import FLASK_SESSION, LAZY, Contender, make_app
from storage import settings_of

from tests.support.servers import NotInstalled, Servers
from tests.support.stores import EVERY_STORE, Store

ASSETS = 70
#: What the page of a view does, and which verbs of a store it needs.
PAGES = {"untouched": (), "read": ("read",), "change": ("read", "write")}
#: A replacement for a real server.
LEFT_OUT = {"fakeredis"}

Trips = dict[str, Any]


def count_everywhere(servers: Servers, say: Callable[[str], None]) -> list[Trips]:
    """Return a row for each store: the least number of round trips, and those of each contender, for each page."""
    rows = []
    for name, (kind, needs) in EVERY_STORE.items():
        if name in LEFT_OUT:
            continue
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            try:
                opener: Any = folder if needs == "folder" else needs and servers.url(needs)
            except NotInstalled as reason:
                say(f"{name} is left out: {reason}")
                continue
            store: Store = kind(opener) if needs else kind()  # type: ignore[call-arg]
            stack.callback(store.close)
            rows.append(_count(store))
    return rows


def _count(store: Store) -> Trips:
    row: Trips = {"store": store.label}
    for page, verbs in PAGES.items():
        least = [trip for verb in verbs for trip in getattr(store, verb)]
        lazy = count_view(store, LAZY, page)
        others = len(count_view(store, FLASK_SESSION, page)) if counts_everyone(store) else None
        row[page] = {"least": len(least), "lazy": len(lazy), "flask-session": others, "exact": lazy == least}
    return row


def counts_everyone(store: Store) -> bool:
    """Return whether a store is counted for Flask-Session, too: files are counted only where LazySession opens them."""
    return store.session_type != "filesystem" and not isinstance(store.config().get("SESSION_CACHELIB"), str)


def count_view(store: Store, contender: Contender, page: str) -> list[str]:
    """Return the round trips of a page and its assets, for a visitor with a live session."""
    settings = store.config()
    if contender is FLASK_SESSION and isinstance(settings.get("SESSION_SQLALCHEMY"), str):  # it takes no URL
        settings.update(settings_of(settings["SESSION_SQLALCHEMY"]))
    app = make_app(contender, settings)
    cookie = log_in(app)
    views = [Caller(app, f"/{page}", cookie)]
    views += [Caller(app, "/static/site.css" if number < 60 else "/untouched", cookie) for number in range(ASSETS)]
    Caller(app, "/change", cookie).send(1)  # opens connections and prepares statements before counting
    with store.counted() as trips:
        for view in views:
            view.send(1)
    return trips
