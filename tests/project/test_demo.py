"""The demo: its sums add up, its report and its README table show them, and its shop shows what a page costs."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.connection import Connection
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client

from lazysession.backends.redis.scripts import DIGESTS, REPLACE, TAKE
from tests.support.tables import ROOT

DEMO = ROOT / "docs" / "demo"
sys.path.append(str(DEMO))
try:
    import costs
    import counting
    import measuring
    import report
    import results
    import shop
    import stores
finally:  # an app of another test may be named "shop" as well
    sys.path[:] = [folder for folder in sys.path if folder != str(DEMO)]
    for _name, _module in list(sys.modules.items()):
        if Path(getattr(_module, "__file__", None) or "/").parent == DEMO:
            del sys.modules[_name]

HTML = {"Accept": "text/html,*/*"}


@pytest.fixture(autouse=True)
def _no_listeners_stay(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Remove the demo's listeners on every engine: they suit SQLite alone. LazySession's own stay."""
    added: list[tuple[Any, ...]] = []
    listen = event.listen

    def recording(*arguments: Any, **options: Any) -> None:
        listen(*arguments, **options)
        demo = arguments[0] in (Engine, Pool) and not arguments[2].__module__.startswith("lazysession.")
        added.extend([arguments] if demo else [])

    monkeypatch.setattr(event, "listen", recording)
    yield
    for arguments in added:
        event.remove(*arguments)


class Quiet(WSGIRequestHandler):
    """Keeps connections, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def comparison(tmp_path: Path) -> Any:
    """Ten page views of one visitor, and four of another, who does not sign out, in both shops, in this process."""
    counter = counting.SqlCounter().install()
    store = stores.parse_store(f"sqlite:///{tmp_path}/sessions.db")
    event.listen(Pool, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))  # quicker

    def meter() -> SimpleNamespace:
        return SimpleNamespace(counts=counter.counts(), cpu_seconds=0.0)

    found = measuring.Comparison(store.title, ["SQLite 3"])
    with ExitStack() as closing:
        contenders = []
        for one in stores.Sessions:
            app = shop.create_app(store.share_of(one), one)
            recorded = counting.with_records(app, counter)
            server = make_server("127.0.0.1", 0, recorded, threaded=True, request_handler=Quiet)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            closing.callback(server.shutdown)
            origin = f"http://127.0.0.1:{server.server_port}"
            contenders.append(SimpleNamespace(sessions=one, origin=origin, meter=meter))
        measuring.Measurement(contenders, None).run(found, 14, lambda: None)
    return found


def test_the_figures_of_a_run_add_up(comparison: Any, tmp_path: Path) -> None:
    """Each figure stands with its sum, no sum leaves something out, and the report and the README have all of them."""
    assert comparison.differences == []
    rows = {row.label: row for row in results.rows(comparison)}
    assert (rows["Store round trips"].before, rows["Store round trips"].after) == ("1,503", "39")
    assert results.sentences(rows["Store round trips"]) == [
        "Flask-Session: 1,001 reads + 8 writes + 493 refreshes + 1 delete.",
        "LazySession: 30 reads + 8 writes + 1 delete.",
    ]
    assert rows["reads"].why == {
        "Flask-Session": "1 sign-out + 2 sign-ins + 2 × 499 other requests with a session cookie",  # noqa: RUF001
        "LazySession": "2 forms that filled the cart + 7 pages + 21 requests by scripts",
        "Note": "on SQL, Flask-Session reads a second time before it writes",
    }
    assert rows["writes"].why == {
        "": "2 sign-ins + 2 forms that filled the cart + 4 pages that showed and removed a message"
    }
    assert rows["refreshes of the expiry"].why["Flask-Session"] == (
        "493 requests with a session cookie that did not change the session"
    )
    assert (rows["Bytes written"].before, rows["Bytes written"].after) == ("15 kB", "2.0 kB")
    sentences = [sentence for row in rows.values() for sentence in results.sentences(row)]
    assert not [sentence for sentence in sentences if re.search(r"\d others?\.$|None", sentence)]

    page = tmp_path / "report.html"
    report.write_report(comparison, 14, "nox -s demo", page)
    html = page.read_text(encoding="utf-8")
    assert all(sentence in html for sentence in sentences)
    assert "Flask-Session 213 = 3 × 71 requests with a session cookie; LazySession 4 = 1 page + 3 requests" in html  # noqa: RUF001
    assert "redis" not in html.lower()

    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- demo:begin -->\nold\n<!-- demo:end -->\nafter\n", encoding="utf-8")
    report.write_readme([comparison], 14, "nox -s demo", readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- demo:begin -->\n14 page views")
    assert text.endswith("\n<!-- demo:end -->\nafter\n")
    assert "old" not in text.splitlines()
    assert "| 1,503 → **39** (39 : 1) |" in text


@pytest.mark.parametrize(
    ("total", "parts", "text"),
    [
        (3, [(2, "page that showed"), (1, "form")], "2 pages that showed + 1 form"),
        (3, [(1, "refresh"), (0, "form")], "1 refresh + 2 others"),
        (0, [(0, "form")], "none"),
    ],
)
def test_a_sum_names_what_it_leaves_out(total: int, parts: list[tuple[int, str]], text: str) -> None:
    """A sum that does not reach its total says so instead of hiding it."""
    assert report.sums.total_of(total, *(report.sums.of(*part) for part in parts)) == text


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (("GET", "a"), "read"),
        (("SET", "a", "data\r\nEVALSHA", "EX", "9"), "write"),
        (("DEL", "a"), "delete"),
        (("EVALSHA", DIGESTS[REPLACE], "1", "a", "old", "new", "9"), "write"),
        (("EVALSHA", DIGESTS[TAKE], "1", "a"), "delete"),
        (("EVAL", TAKE, "1", "a"), "other"),
    ],
)
def test_each_round_trip_to_redis_has_a_kind(command: tuple[str, ...], kind: str) -> None:
    """A command is counted by its name, or by the digest of its script."""
    assert counting.classify_sent(Connection().pack_command(*command)) == counting.StoreCounts(**{kind: 1})


def costs_of(browser: Client) -> dict[str, list[int]]:
    """Return the rows of the footer by label: LazySession's number, then Flask-Session's."""
    return {label: numbers for label, *numbers in json.loads(browser.get(costs.PATH).text)["rows"]}


@pytest.mark.parametrize("shown", ["lazy", "flask-session"])
def test_the_shop_shows_what_a_page_costs(tmp_path: Path, shown: str) -> None:
    """The footer counts the requests since a page was opened, in both shops, and not itself."""
    store = stores.parse_store(f"sqlite:///{tmp_path}/sessions.db")
    browser = Client(shop.side_by_side(store, stores.Sessions(shown)))
    browser.get("/", headers=HTML)
    assert costs_of(browser)["Round trips to the store"] == [0, 0]

    signed_in = browser.post("/login", data={"name": "ada", "password": "kettle"}, headers=HTML)
    assert signed_in.status_code == 303
    assert len(signed_in.headers.getlist("Set-Cookie")) == 1
    assert "Sign out" in browser.get("/", headers=HTML).text
    assert costs_of(browser)["Requests"] == [2, 2]

    assert costs.PATH in browser.get("/tea/hammock", headers=HTML).text
    browser.get("/static/styles/base.css")
    browser.get("/api/cart")
    assert costs_of(browser) == {
        "Requests": [3, 3],
        "of them with a session cookie": [3, 3],
        "Round trips to the store": [2, 9],
        "Set-Cookie headers": [0, 3],
    }
    assert json.loads(browser.get(costs.PATH).text)["used"] == ["GET /tea/hammock", "GET /api/cart"]

    browser.post("/logout", headers=HTML)
    browser.get("/", headers=HTML)
    costs_after = json.loads(browser.get(costs.PATH).text)
    assert (costs_after["used"], costs_after["usedAtNoCost"]) == (["POST /logout"], ["GET /"])


def test_the_404_page_of_the_shop_does_not_use_the_session(tmp_path: Path) -> None:
    """It has the shop's look, and costs nothing."""
    store = stores.parse_store(f"sqlite:///{tmp_path}/sessions.db")
    browser = Client(shop.create_app(store, stores.Sessions.LAZY))
    browser.post("/login", data={"name": "ada", "password": "kettle"})
    page = browser.get("/nowhere")
    assert page.status_code == 404
    assert "The Lazy Kettle" in page.text
    assert "Vary" not in page.headers
