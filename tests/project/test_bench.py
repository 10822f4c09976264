"""The bench: its statistics, its verdicts, what it writes, and that its contenders differ in nothing but their cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from xml.etree import ElementTree

import fakeredis
import pytest

from tests.support import tables
from tests.support.servers import free_port
from tests.support.stores import FakeRedisStore

sys.path.append(str(tables.ROOT / "docs" / "bench"))

import calling
import cells
import contenders
import drawing
import everystore
import goals
import inprocess
import instructions
import overhttp
import places
import publishing
import redisparser
import rounds
import spread
import threaded
import views
import viewtrips

VISIT = ("/login", "/read", "/change", "/same", "/untouched", "/static/site.css", "/logout", "/read", "/nowhere")


def test_the_median_stands_between_its_bounds() -> None:
    """The interval of a median is that of order statistics, and one wild value moves nothing."""
    found = spread.spread([*range(1, 100), 10**9])
    assert (found.median, found.low, found.high) == (50.5, 41, 60)


def test_few_values_are_bounded_by_the_least_and_the_greatest() -> None:
    """With less than six rounds there is no better bound."""
    assert spread.spread([3, 1, 2]) == spread.Spread(2, 1, 3)


def test_nothing_measured_is_an_error() -> None:
    """No median is made up."""
    with pytest.raises(ValueError, match="nothing was measured"):
        spread.spread([])


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which the machine was slow for all changes no ratio."""
    assert spread.ratio([2, 20, 200], [1, 10, 100]) == spread.Spread(2, 2, 2)
    assert spread.difference([3, 12], [1, 10]) == spread.Spread(2, 2, 2)


def test_each_is_in_every_round_and_none_always_first() -> None:
    """Rounds go forwards and backwards, and begin with another contender in turn."""
    names = ["a", "b", "c"]
    orders = [rounds.order(names, number) for number in range(6)]
    assert all(sorted(each) == names for each in orders)
    assert {each[0] for each in orders} == {each[-1] for each in orders} == set(names)


def test_warm_up_is_not_counted() -> None:
    """The first rounds are run and thrown away."""
    ran: list[str] = []

    def block(name: str) -> Callable[[], float]:
        def run() -> float:
            ran.append(name)
            return float(len(ran))

        return run

    counted = rounds.interleave({"a": block("a"), "b": block("b")}, 3, warm_up=2)
    assert len(ran) == 10
    assert {name: len(each) for name, each in counted.items()} == {"a": 3, "b": 3}
    assert min(counted["a"] + counted["b"]) == 5


def test_a_cell_has_the_median_of_the_ratios() -> None:
    """Both send blocks of the same size in turn, and a cell has its ratio round by round."""
    sent: list[int] = []

    def sender(seconds: float) -> everystore.Send:
        def send(times: int) -> dict[str, float]:
            sent.append(times)
            return {"first write": seconds, "logout": 2 * seconds}

        return send

    found = everystore.compare(everystore.VISITS, {"lazy": sender(0.001), "flask-session": sender(0.002)}, 0.05)
    assert found["logout"]["lazy"] == spread.Spread(0.002, 0.002, 0.002)
    assert found["first write"]["ratio"].median == 0.5
    assert sent == [3] * 4 + [2] * (len(sent) - 4)


def test_a_visit_is_a_login_and_its_logout() -> None:
    """Each login is without a cookie, and each logout is of a session that was begun in the same block."""
    app = contenders.make_app(contenders.LAZY, settings())
    assert set(everystore.Visits(app).send(2)) == set(everystore.VISITS)
    assert not app.config["SESSION_REDIS"].keys()


def test_a_visitor_in_a_thread_reads_and_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests of a visitor go round until the time is over, and each has its own seconds."""
    sent: list[str] = []
    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0])
    monkeypatch.setattr(threaded.time, "perf_counter", lambda: next(clock))
    callers: Any = [SimpleNamespace(send=lambda _, path=path: sent.append(path)) for path in threaded.PATHS]
    assert threaded.visit(callers, until=20) == [1, 2, 3, 4, 5, 6]
    assert sent == ["/read"] * 4 + ["/change", "/read"]


@pytest.mark.parametrize("flask_login", [False, True], ids=["plain", "flask-login"])
def test_contenders_serve_the_same(flask_login: bool) -> None:
    """Bodies and statuses are equal; contenders differ in what their sessions cost."""
    answers = {each.name: visit(each, flask_login=flask_login) for each in contenders.EVERYONE if each.stateful}
    assert answers["lazy"][0] == ("200 OK", b"in")
    assert answers["lazy"][-1][0] == "404 NOT FOUND"
    for name, found in answers.items():
        assert found == answers["lazy"], name


def visit(contender: contenders.Contender, *, flask_login: bool) -> list[tuple[str, bytes]]:
    app = contenders.make_app(contender, settings(), flask_login=flask_login)
    answers, cookie = [], None
    for path in VISIT:
        caller = calling.Caller(app, path, cookie)
        body = caller.once()
        answers.append((caller.status, body))
        cookie = caller.new_cookie() or cookie
    return answers


def settings() -> dict[str, Any]:
    return {"SESSION_TYPE": "redis", "SESSION_REDIS": fakeredis.FakeRedis()}


@pytest.mark.parametrize("contender", [contenders.NULL, contenders.SHARED_NULL], ids=lambda each: each.name)
def test_null_sessions_serve_what_needs_no_state(contender: contenders.Contender) -> None:
    """The limits of the comparison return the same pages, and set no cookie."""
    app = contenders.make_app(contender, {})
    for kind in inprocess.kinds_of(contender):
        caller = calling.Caller(app, inprocess.PATHS[kind], calling.BOGUS)
        caller.send(1)
        assert caller.new_cookie() is None
    assert "login" not in inprocess.kinds_of(contender)


def test_an_error_is_not_measured() -> None:
    """A block whose requests fail raises: how fast errors are is not measured."""
    app = contenders.make_app(contenders.NULL, {})
    with pytest.raises(RuntimeError, match="answered with 404"):
        calling.Caller(app, "/nowhere").send(1)


def test_wrk_is_read_and_its_errors_are_errors() -> None:
    """Of wrk's output the script's own line counts."""
    load = overhttp.parse("Latency 1ms\nBENCH 3000 1500000 0 0 0 1900 6500\n")
    assert load == overhttp.Load(2000, 0.0019, 0.0065)
    for errors in ("7 0 0", "0 7 0"):
        with pytest.raises(RuntimeError, match="7 of 3000 requests failed instead of 0"):
            overhttp.parse(f"BENCH 3000 1500000 {errors} 1900 6500\n")
    with pytest.raises(RuntimeError, match="did not report"):
        overhttp.parse("unable to connect")


@pytest.mark.parametrize(("failed", "fails"), [(90, False), (84, False), (91, True), (81, True)])
def test_a_view_has_as_many_404s_as_it_says(failed: int, fails: bool) -> None:
    """A view that asks for missing pages may get a few 404s less when its time is over, and never one more."""
    with pytest.raises(RuntimeError, match="instead of 90") if fails else nullcontext():
        overhttp.parse(f"BENCH 3000 1500000 0 {failed} 90 1900 6500\n")


def test_the_views_are_whole() -> None:
    """Both views have 71 requests for each page, and the realistic one sends a form in the seventh of ten."""
    assert len(views.BARE.asks) == overhttp.REQUESTS
    assert len(views.REALISTIC.asks) == 10 * overhttp.REQUESTS
    forms = [number for number, ask in enumerate(views.REALISTIC.asks) if ask.form]
    assert forms == [6 * overhttp.REQUESTS]
    assert views.REALISTIC.asks[forms[0]].line == "302 /remark text=Fine"
    assert {ask.path for ask in views.REALISTIC.asks} == {ask.path for ask in views.REALISTIC.kinds.values()}


def test_the_realistic_pages_are_the_same_in_each_contender() -> None:
    """Bodies, statuses and round trips of each kind of request are as expected; only the token of a form differs."""
    store = CountedFake()
    trips = viewtrips.count_kinds(store)
    assert trips["lazy"] == {**dict.fromkeys(views.REALISTIC.kinds, 1), "form sent": 2, "page with a message": 2,
                             "static file": 0}  # fmt: skip


class CountedFake(FakeRedisStore):
    """fakeredis with a client that Flask-Session takes for a Redis: it counts what is not sent in a pipeline."""

    def __init__(self) -> None:
        class Counting(fakeredis.FakeRedis):
            names: ClassVar[list[str]] = []

            def execute_command(self, *command: Any, **options: Any) -> Any:
                self.names.append(command[0])
                return super().execute_command(*command, **options)

        self.server = self.client = Counting()
        self.load_scripts()


def test_a_contender_with_other_pages_is_an_error() -> None:
    """What differs is named by contenders and kind; what only one of them can serve is not compared."""
    pages = {"page": "a", "page with a message": "thanks"}
    views.compare({"lazy": pages, "null": {"page": "a"}})
    with pytest.raises(RuntimeError, match=r"lazy and null send different pages: page$"):
        views.compare({"lazy": pages, "null": {"page": "b"}})


def test_a_status_that_is_not_expected_is_an_error() -> None:
    """A page that is answered with an error is found before it is measured."""

    def broken(path: str, cookie: str, form: str) -> tuple[int, str | None, str]:
        return 503, None, "store down"

    with pytest.raises(RuntimeError, match="lazy: untouched was answered with 503 instead of 200"):
        views.check(views.BARE, contenders.LAZY, views.Visitor(), broken)


@pytest.mark.parametrize("name", ["python", "hiredis"])
def test_the_parser_is_the_one_that_is_asked_for(name: str) -> None:
    """A process that is to measure without hiredis, or with it, does so or fails."""
    program = "import redisparser; redisparser.check()"
    environment = {**os.environ, "PYTHONPATH": str(places.HERE), redisparser.NAME: name}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    works = name == "python" or redisparser.INSTALLED
    assert ("does not use the parser of hiredis" in done.stderr) is not works


def test_the_program_under_callgrind_finds_its_modules() -> None:
    """Where Python leaves the folder of a script off the path, as under nox, it gets as far as the missing server."""
    command = [sys.executable, instructions.__file__, f"redis://127.0.0.1:{free_port()}/0", "1"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "RuntimeError: /login was answered with 503" in done.stderr


def test_callgrind_is_read(tmp_path: Path) -> None:
    """The instructions of a dump are its total."""
    (tmp_path / "out.1").write_text("version: 1\nsummary: 100159499\n\n")
    assert instructions.total(tmp_path / "out.1") == 100159499


def test_verdicts() -> None:
    """A goal is met, missed or not measured; a figure without a goal has no verdict."""
    near = {"median": 0.96, "low": 0.9, "high": 1.0}
    most = {"median": 1.6, "low": 1.5, "high": 1.7}
    found = {
        goal.figure: goal
        for goal in goals.judge({
            "untouched": {"over null": near},
            "instructions": dict.fromkeys(INSTRUCTIONS, 100),
            "http": {"redis": {"ratios": {"lazy/null": near}}},
            "realistic": {"redis": {"ratios": {"lazy/flask-session": most, "null/flask-session": most}}},
            "threads": {"32": {"p99 over flask-session": near}},
        })
    }  # fmt: skip
    verdicts = {figure: goal.verdict for figure, goal in found.items()}
    assert verdicts["untouched request, LazySession / bare Flask, instructions"] == "met"
    assert verdicts["the same, time"] == ""
    assert verdicts["bare page view on Redis, LazySession / bare Flask, requests/s"] == "missed, within noise"
    assert verdicts["store round trips of the bare page view"] == "not measured"
    assert verdicts["requests that use their session, 32 threads, LazySession / Flask-Session, p99"].startswith("met")
    realistic = found["realistic page view on Redis, LazySession / Flask-Session, requests/s"]
    assert (realistic.verdict, realistic.limit) == ("missed, within noise", "1.60 (bare Flask / Flask-Session)")


INSTRUCTIONS = ("lazy", "null", "lazy read", "read floor", "lazy change", "change floor", "flask-session read",
                "flask-session change", "lazy read with refresh", "lazy first write", "flask-session first write",
                "lazy visit", "flask-session visit")  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "counted", "reason", "text"),
    [
        (0.6, None, None, "met: 0.60"),
        (0.97, None, None, "met, within noise: 0.97"),
        (1.04, None, "a", "missed, within noise: 1.04 [a]"),
        (1.04, 0.99, None, "met: 1.04, 0.99 in instructions"),
        (0.98, 1.02, None, "missed: 0.98, 1.02 in instructions"),
        (1.2, 0.9, "b", "missed: 1.20 [b]"),
        (0.5, 1.2, "a", "met: 0.50"),
    ],
)
def test_verdict_of_a_cell(ratio: float, counted: float | None, reason: str | None, text: str) -> None:
    """Times decide unless they are too close; then instructions do, if they were counted."""
    assert cells.judge_cell(ratio, counted, reason).text == text


def test_a_reason_is_no_miss_of_the_goal() -> None:
    """Cells that a conditional write cannot meet are counted apart."""
    slow = {"ratio": {"median": 1.4}}
    judged = cells.judge_cells({"files": {"change": slow, "read": {"ratio": {"median": 0.3}}}}, {})
    assert cells.summary(judged) == ("1 of 2 cells met, 1 with a reason", True)
    judged = cells.judge_cells({"redis": {"change": slow}}, {})
    assert cells.summary(judged) == ("0 of 1 cells met, 1 missed", False)


def test_instructions_of_a_logout_are_those_of_a_visit_without_its_login() -> None:
    """A logout needs a session of its own, so it is counted with the request that began it."""
    counted = {"lazy visit": 30.0, "lazy first write": 20.0, "flask-session visit": 25.0,
               "flask-session first write": 20.0}  # fmt: skip
    assert cells.by_instructions("redis", "logout", counted) == 2
    assert cells.by_instructions("memcached", "logout", counted) is None


def test_one_trip_too_many_misses_the_goal() -> None:
    """Round trips are exact or missed."""
    page = {"least": 1, "lazy": 1, "flask-session": 142, "exact": True}
    rows = [{"store": "Redis", "read": page}, {"store": "SQLite", "read": {**page, "lazy": 2, "exact": False}}]
    assert trips_goal(rows[:1]).met is True
    assert trips_goal(rows).met is False


def trips_goal(rows: list[dict[str, Any]]) -> goals.Goal:
    return next(goal for goal in goals.judge({"trips": rows}) if goal.figure.startswith("store round trips"))


def test_charts_are_whole_svg() -> None:
    """Labels are escaped, and each bar is as long as its value says."""
    drawn = drawing.chart(
        "x", "A < B", "text", [drawing.Panel("us", [drawing.Bar("a & b", 50), drawing.Bar("c", 100)])]
    )
    root = ElementTree.fromstring(drawn)
    widths = [float(bar.attrib["width"]) for bar in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert "a & b" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_what_a_run_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run writes JSON, tables and charts."""
    monkeypatch.setattr(publishing, "FIGURES", tmp_path)
    monkeypatch.setattr(publishing, "GENERATED", tmp_path)
    some = spread.Spread(0.00005, 0.00004, 0.00006)
    results = publishing.plain({
        "date": "2026-01-01", "machine": ["2 cores"], "kinds": {"untouched": {"lazy": some, "null": some}},
    })  # fmt: skip
    publishing.write(results, goals.judge(results))
    assert "not measured" in (tmp_path / "bench-goals.rst").read_text()
    assert json.loads((tmp_path / "bench.json").read_text()) == results
    assert "LazySession" in (tmp_path / "bench-kinds.rst").read_text()
    ElementTree.parse(tmp_path / "bench-request.svg")
