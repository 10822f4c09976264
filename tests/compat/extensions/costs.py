"""What a page costs with an extension: round trips to the store, and headers for caches and browsers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flask.testing import FlaskClient

from tests.support import tables
from tests.support.stores import RedisStore

from .trying import Cost, Extension, app_with, cost_of

GENERATED = tables.ROOT / "docs" / "_generated" / "extensions.rst"
PAGES = {"Plain page": "/plain", "Rendered page": "/rendered", "Static file": "/static/site.css", "404": "/nowhere"}
#: The visitors, and the pages that make them what they are.
VISITORS = {
    "Without a cookie": (),
    "With an anonymous session": ("/note/tea",),
    "Logged in": ("/note/tea", "/sign-in/ada"),
}
FLASK_ALONE = "Flask alone"
#: Packages whose versions the table names next to those of the extensions.
BASE = ("flask", "flask-session", "werkzeug", "redis")

#: By visitor and page.
Costs = Mapping[tuple[str, str], Cost]
#: With Flask-Session and with LazySession, by extension.
Found = Mapping[str, tuple[Costs, Costs]]


def measure(extension: Extension, layer: str, store: RedisStore) -> Costs:
    """Measure each page for each visitor, who has seen it once."""
    store.server.flushdb()
    with app_with(extension, layer, store) as app:
        costs = {}
        for visitor, history in VISITORS.items():
            browser = app.test_client()
            for path in (*history, *(PAGES.values() if history else ())):
                browser.get(path, base_url=extension.base_url).close()
            for page, path in PAGES.items():
                client = browser if history else app.test_client()
                costs[visitor, page] = _measure_request(client, path, extension.base_url, store)
        return costs


def _measure_request(browser: FlaskClient, path: str, base_url: str, store: RedisStore) -> Cost:
    with store.counted() as trips:
        response = browser.get(path, base_url=base_url, buffered=True)
    response.close()
    return cost_of(response, len(trips))


def worse(theirs: Costs, ours: Costs) -> list[str]:
    """Return where a request costs more than with Flask-Session, or has a header that it has not there."""
    return [
        f"{page}, {visitor.lower()}: {theirs[visitor, page]} with Flask-Session, {ours[visitor, page]} with LazySession"
        for visitor, page in theirs
        if ours[visitor, page].is_more_than(theirs[visitor, page])
    ]


def table_of(found: Found, visitor: str) -> str:
    """Return the table for one kind of visitor; extensions that cost the same share a row, Flask alone is its name."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, (theirs, ours) in found.items():
        cells = tuple(f"{theirs[visitor, page]} → {ours[visitor, page]}" for page in PAGES)
        rows.setdefault(cells, []).append(name)
    head = (visitor, *PAGES)
    lines = [(_shared(names), *cells) for cells, names in rows.items()]
    return tables.list_table(head, lines, (40, 15, 15, 15, 15))


def _shared(names: Sequence[str]) -> str:
    return f"{names[0]}, and each extension that is not named below" if names[0] == FLASK_ALONE else ", ".join(names)


def tables_of(found: Found) -> str:
    """Return all tables."""
    return "\n".join(table_of(found, visitor) for visitor in VISITORS)


def origin(extensions: Sequence[Extension], redis_version: str) -> str:
    """Return the lines that say when, how and with which versions the tables were made."""
    packages = dict.fromkeys([*BASE, *sorted({each.package for each in extensions} - {"flask"})])
    return tables.made_by("nox -s extensions --", packages, redis_version)
