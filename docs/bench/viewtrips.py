"""Store round trips of each kind of request of the realistic page view, with each contender that uses Redis."""

from __future__ import annotations

from contenders import EVERYONE, FLASK_SESSION, LAZY, NAIVE, NO_REFRESH, STATIC_AWARE, Contender
from flask import Flask
from views import REALISTIC, Fetch, check, compare, visitor

from tests.support.stores import Store

#: Trips of a request that reads its session, of one that changes it, and of a static file. The hook of the app reads it
#: in each request, also for static files: a wrapper that is lazy, and no more, saves nothing there.
EXPECTED = {
    FLASK_SESSION.name: (2, 2, 2),
    NO_REFRESH.name: (1, 2, 1),
    STATIC_AWARE.name: (2, 2, 0),
    NAIVE.name: (2, 2, 2),
    LAZY.name: (1, 2, 0),
}
CHANGES = {"form sent", "page with a message"}


def in_process(app: Flask) -> Fetch:
    """Return what sends requests to an app without HTTP."""
    client = app.test_client(use_cookies=False)

    def fetch(path: str, cookie: str, form: str) -> tuple[int, str | None, str]:
        type_of = "application/x-www-form-urlencoded" if form else None
        response = client.open(path, method="POST" if form else "GET", data=form or None, content_type=type_of,
                               headers={"Cookie": cookie})  # fmt: skip
        renewed = response.headers.get("Set-Cookie")
        body: str = response.get_data(as_text=True)
        response.close()
        return response.status_code, renewed and renewed.partition(";")[0], body

    return fetch


def count_kinds(store: Store) -> dict[str, dict[str, int]]:
    """Return the round trips by contender and kind of request.

    :raises RuntimeError: when a contender sends other pages than the others, or needs other round trips than expected.
    """
    bodies: dict[str, dict[str, str]] = {}
    found = {}
    for each in EVERYONE:
        trips = _count(store, each, bodies)
        if each.name in EXPECTED:
            found[each.name] = trips
            if trips != expected(each):
                raise RuntimeError(f"round trips of {each.name}: {trips} instead of {expected(each)}")
    compare(bodies)
    return found


def expected(contender: Contender) -> dict[str, int]:
    """Return the round trips that a contender is to need, by kind of request."""
    read, change, static = EXPECTED[contender.name]
    return {kind: static if kind == "static file" else change if kind in CHANGES else read for kind in REALISTIC.kinds}


def _count(store: Store, contender: Contender, bodies: dict[str, dict[str, str]]) -> dict[str, int]:
    fetch = in_process(REALISTIC.make_app(contender, store.config()))
    who = visitor(REALISTIC, contender, fetch)
    fetch("/", who.cookie, "")  # opens connections before counting
    counts: list[int] = []

    def counting(path: str, cookie: str, form: str) -> tuple[int, str | None, str]:
        with store.counted() as trips:
            response = fetch(path, cookie, form)
        counts.append(len(trips))
        return response

    bodies[contender.name] = check(REALISTIC, contender, who, counting)
    return dict(zip(REALISTIC.kinds, counts, strict=True))
