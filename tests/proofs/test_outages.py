"""What a client gets when the store fails: every fault, every kind of request, every store, through a fault proxy.

The tables below are what the documentation shows; ``--write-tables`` writes them there.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

import msgspec
import pytest
from flask import flash, render_template_string

from lazysession import SessionUnavailable
from tests.support import outages, tables
from tests.support.faults import MODES
from tests.support.outages import EVERY_SERVER, Outage

FAULTS = ("refuse", "reset", "blackhole", "cut", "slow")

#: What the client gets, by the kind of its request and by the fault, where LAZYSESSION_ON_READ_ERROR is left alone.
TABLE: dict[str, tuple[str, ...]] = {
    "Not used": ("200", "200", "200", "200", "200"),
    "Static file": ("200", "200", "200", "200", "200"),
    "Read, no cookie": ("200", "200", "200", "200", "200"),
    "Read": ("503", "503", "503", "503", "200"),
    "Read, refresh due": ("503", "503", "503", "503", "200"),
    "Changed": ("503", "503", "503", "503", "200"),
    "Nested value changed": ("503", "503", "503", "503", "200"),
    "New id": ("503", "503", "503", "503", "200"),
    "First write, no cookie": ("503", "503", "503", "503", "200"),
    "Cleared without a read": ("503", "503", "503", "503", "200"),
    "Read before the fault": ("200", "200", "200", "200", "200"),
    "Read before the fault, refresh during it": ("200", "200", "200", "200", "200"),
    "Read before the fault, changed": ("503", "503", "503", "503", "200"),
    "Read before the fault, nested value changed": ("503", "503", "503", "503", "200"),
    "Read before the fault, new id": ("503", "503", "503", "503", "200"),
    "Read before the fault, cleared": ("503", "503", "503", "503", "200"),
}
#: The requests above that fail while the session is opened, by the value of LAZYSESSION_ON_READ_ERROR.
READ_ERRORS: dict[str, tuple[str, ...]] = {
    "unavailable": ("503", "503", "503"),
    "raise": ("500", "500", "500"),
    "empty": ("200", "500", "500"),
}
READ_ERROR_KINDS = ("Read", "Changed", "New id")
#: What each kind requests: a path, whether with the cookie of a session, and whether its expiry is due for a refresh.
REQUESTS: dict[str, tuple[str, bool, bool]] = {
    "Not used": ("/untouched", True, False),
    "Static file": ("/static/site.css", True, False),
    "Read, no cookie": ("/read", False, False),
    "Read": ("/read", True, False),
    "Read, refresh due": ("/read", True, True),
    "Changed": ("/change", True, False),
    "Nested value changed": ("/nest", True, False),
    "New id": ("/rotate", True, False),
    "First write, no cookie": ("/change", False, False),
    "Cleared without a read": ("/clear", True, False),
    "Read before the fault": ("/then/read", True, False),
    "Read before the fault, refresh during it": ("/read", True, True),
    "Read before the fault, changed": ("/then/change", True, False),
    "Read before the fault, nested value changed": ("/then/nest", True, False),
    "Read before the fault, new id": ("/then/rotate", True, False),
    "Read before the fault, cleared": ("/then/clear", True, False),
}
OLD = {"a": 1, "list": []}
#: What a browser's session holds after a page that was done in whole, where that is another; None when it ended.
AFTER: dict[str, dict[str, Any] | None] = {
    "change": {"a": 2, "list": []},
    "nest": {"a": 1, "list": [1]},
    "clear": None,
}
GENERATED = tables.ROOT / "docs" / "_generated" / "outages.rst"


@pytest.fixture(scope="module", params=EVERY_SERVER)
def outage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Outage]:
    """An app on each store that is a server, with a proxy between them."""
    with outages.opened(request, tmp_path_factory.mktemp("static")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def end_of_the_fault(outage: Outage) -> Generator[None]:
    """No test leaves a fault to the next."""
    yield
    outage.proxy.mode = "pass"


@pytest.fixture(autouse=True)
def long_waits_only_when_required(request: pytest.FixtureRequest) -> None:
    """A server that never answers takes each client's whole timeout: the quick run leaves it to ``nox -s servers``."""
    waits = getattr(request.node, "callspec", None) and request.node.callspec.params.get("fault") == "blackhole"
    if waits and not request.config.getoption("--require-servers"):
        pytest.skip("waits for the timeout of a client: nox -s servers runs it")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", TABLE)
def test_what_the_client_gets(outage: Outage, kind: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each cell of the table; the store then has the session as it was or as it should be, and works again."""
    path, has_cookie, due = REQUESTS[kind]
    alone = kind == "Read before the fault, refresh during it"
    if alone and outage.refresh_words is None:
        pytest.skip("does not apply: this store reads and refreshes with one command")
    browser = outage.visitor(OLD) if has_cookie else outage.app().test_client()
    if due:
        outage.make_refresh_due()
    before = outage.proxy.connections, len(outage.proxy.trips)
    with outage.verbs() as verbs, outage.fault(fault, at=outage.refresh_words if alone else None, path=path):
        response = outage.get(browser, path)
    expected = TABLE[kind][FAULTS.index(fault)]
    assert str(response.status_code) == expected
    if expected != "200":
        assert "Set-Cookie" not in response.headers
        assert len(set(verbs)) == len(verbs), f"a verb that fails is not tried again: {verbs}"
    if path in {"/untouched", "/static/site.css"} or kind == "Read, no cookie":
        assert verbs == []
        if not outage.monitored:
            assert (outage.proxy.connections, len(outage.proxy.trips)) == before
    if alone and fault != "slow":
        assert "could not be refreshed" in caplog.text
        assert "Set-Cookie" not in response.headers
    outage.proxy.mode = "pass"
    if has_cookie:
        new = AFTER.get(path.rpartition("/")[2], OLD)
        allowed = [new] if expected == "200" else [OLD, new] if fault == "cut" else [OLD]
        assert outage.look(browser) in allowed


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "slow"])
@pytest.mark.parametrize("setting", [setting for setting in READ_ERRORS if setting != "unavailable"])
def test_on_read_error(outage: Outage, setting: str, fault: str) -> None:
    """The rest of the second table; of the session that ``empty`` shows nothing reaches the store or the client."""
    for kind, expected in zip(READ_ERROR_KINDS, READ_ERRORS[setting], strict=True):
        browser = outage.visitor(OLD, setting)
        with outage.verbs(setting) as verbs, outage.fault(fault, path=REQUESTS[kind][0]):
            response = outage.get(browser, REQUESTS[kind][0])
        outage.proxy.mode = "pass"
        assert str(response.status_code) == expected, kind
        assert verbs == ["read"]
        assert "Set-Cookie" not in response.headers
        if expected == "200":
            assert response.text == "a is None"
        failure = outage.failures[-1] if expected == "500" else None
        if setting == "raise":
            assert failure is not None
            assert not type(failure).__module__.startswith("lazysession")
        assert outage.look(browser) == OLD


@pytest.mark.parametrize("fault", ["refuse", "reset", "blackhole"])
def test_the_app_can_handle_it(outage: Outage, fault: str) -> None:
    """An error handler gets the error of a failed read, and the client's own error as its cause."""
    heard: list[Exception | None] = []

    def sorry(error: SessionUnavailable) -> tuple[str, int]:
        heard.append(error.__cause__)  # type: ignore[arg-type]
        return "Come back soon.", 503

    app = outage.make_app()
    app.register_error_handler(SessionUnavailable, sorry)
    browser = outage.visitor(OLD, app=app)
    with outage.fault(fault, path="/read"):
        response = outage.get(browser, "/read")
    assert (response.status_code, response.text) == (503, "Come back soon.")
    assert heard[0] is not None
    assert "lazysession" not in type(heard[0]).__module__


def test_an_error_page_that_uses_the_session(outage: Outage) -> None:
    """After the first use has failed, the same request finds an empty session, of which nothing is saved."""
    app = outage.make_app()
    outages.add_flask_login(app)
    page = "{{ current_user.is_anonymous }} {{ get_flashed_messages() }} {{ session.get('a') }}"

    def sorry(_error: Exception) -> tuple[str, int]:
        flash("The shop is closed.")
        return render_template_string(page), 503

    app.register_error_handler(503, sorry)
    app.after_request(outages.count_the_items)
    browser = outage.visitor(OLD, app=app)
    with outage.verbs(app=app) as verbs, outage.fault("refuse", path="/read"):
        response = outage.get(browser, "/read")
    assert (response.status_code, response.text) == (503, "True [&#39;The shop is closed.&#39;] None")
    assert verbs == ["read"]
    assert "Set-Cookie" not in response.headers
    outage.proxy.mode = "pass"
    assert outage.look(browser) == OLD


def test_a_restart_between_two_requests(outage: Outage) -> None:
    """An outage that no request met: the connections that it closed are made anew, and no request fails."""
    for page in ("read", "change", "rotate", "clear"):
        browser = outage.visitor(OLD)
        outage.get_at_once(browser, "/read", 3)
        outage.proxy.mode = "refuse"
        outage.proxy.mode = "pass"
        assert outage.get(browser, f"/{page}").status_code == 200, page
        assert outage.look(browser) == AFTER.get(page, OLD)


def test_nothing_of_the_session_is_logged(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    """A failed read is one line that names the client's error, and neither the id nor what the session holds."""
    browser = outage.visitor({"secret": "kettle"})
    cookie = browser.get_cookie("session")
    assert cookie is not None
    with caplog.at_level(logging.DEBUG, "lazysession"), outage.fault("reset", path="/read"):
        outage.get(browser, "/read")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("lazysession")]
    assert [line for line in said if "failed while a session was loaded" in line]
    assert not [line for line in said if cookie.value in line or "kettle" in line]


def test_the_faults_are_faults(outage: Outage) -> None:
    """The proxy carries what it is to carry: without a fault, every kind of request succeeds."""
    for kind, (path, has_cookie, due) in REQUESTS.items():
        browser = outage.visitor(OLD) if has_cookie else outage.app().test_client()
        if due:
            outage.make_refresh_due()
        with outage.fault("pass", path=path):
            response = outage.get(browser, path)
        assert response.status_code == 200, kind
        if due:
            assert "Set-Cookie" in response.headers, kind


def generated() -> str:
    """Return the tables as the documentation shows them."""
    faults = {"refuse": "Refused", "reset": "Reset", "blackhole": "Never answers", "cut": "Cut", "slow": "Slow"}
    assert list(faults) == list(FAULTS)
    assert READ_ERRORS["unavailable"] == tuple(TABLE[kind][0] for kind in READ_ERROR_KINDS)
    assert set(faults) < set(MODES)
    first = tables.list_table(["Request", *faults.values()], [[kind, *TABLE[kind]] for kind in TABLE], [40] + [12] * 5)
    kinds = ["Setting", *READ_ERROR_KINDS]
    second = tables.list_table(kinds, [[f"``{name}``", *cells] for name, cells in READ_ERRORS.items()], [40] + [20] * 3)
    return f"{first}\n{second}"


def test_the_tables_are_those_of_the_documentation(request: pytest.FixtureRequest) -> None:
    """The documentation shows the tables of this file."""
    if request.config.getoption("--write-tables"):
        GENERATED.write_text(generated(), encoding="utf-8")
    assert GENERATED.read_text(encoding="utf-8") == generated(), (
        "the tables are old: run pytest tests/proofs/test_outages.py --write-tables"
    )
    page = (tables.ROOT / "docs" / "reference" / "outages.rst").read_text(encoding="utf-8")
    assert page.count(".. include:: ../_generated/outages.rst") == 1


def test_the_payload_is_a_session() -> None:
    """What the tests store is what Flask-Session would."""
    assert msgspec.msgpack.decode(outages.payload(OLD)) == {"_permanent": True, **OLD}
