"""A page view over HTTP: gunicorn serves each contender, wrk sends the requests of the view, round by round."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import places
import redisparser
import views
from contenders import Contender
from spread import Spread, ratio, spread

from tests.support.servers import child, free_port

VISITORS = 20
WORKERS, CONNECTIONS = 2, 8
#: Requests of one page view.
REQUESTS = 71


@dataclass(frozen=True)
class Load:
    """What wrk saw of one contender in one round: requests a second, and latencies in seconds."""

    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Outcome:
    """The results of one contender over all rounds; ``rates`` has one figure for each round."""

    rates: list[float]
    rate: Spread
    p50: Spread
    p99: Spread


def missing() -> str | None:
    """Return what the part over HTTP lacks on this machine, or None."""
    return None if shutil.which("wrk") else "wrk is not installed (apt-get install wrk): the part over HTTP is left out"


@dataclass(frozen=True)
class Serving:
    """What one gunicorn serves: a contender, its view and its store; ``parser`` is that of redis-py."""

    contender: Contender
    view: str
    store: str
    threads: int = 1
    parser: str = redisparser.PYTHON


def serve_each(contenders: Sequence[Contender], view: str, store: str, threads: int = 1) -> dict[str, Serving]:
    """Return what serves each contender, by its name."""
    return {each.name: Serving(each, view, store, threads) for each in contenders}


def measure_page_views(servings: Mapping[str, Serving], rounds: int, seconds: float) -> dict[str, Outcome]:
    """Serve all at once, and load one after the other in every round; the pages are checked before and after."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = {name: Running(each, stack.enter_context(gunicorn(each)), folder) for name, each in servings.items()}
        loads: dict[str, list[Load]] = {name: [] for name in running}
        views.compare({name: each.check() for name, each in running.items()})
        for each in running.values():
            each.load(0, 1)
        for number in range(rounds):
            for name in [*running][:: 1 if number % 2 == 0 else -1]:
                loads[name].append(running[name].load(number, seconds))
        views.compare({name: each.check() for name, each in running.items()})
    return {name: _outcome(of_rounds) for name, of_rounds in loads.items()}


class Running:
    """A server that runs, with visitors who have a session."""

    def __init__(self, serving: Serving, port: int, folder: Path) -> None:
        self._serving, self._port = serving, port
        self._view = views.BY_NAME[serving.view]
        visitors = [views.visitor(self._view, serving.contender, self._fetch) for _ in range(VISITORS)]
        self._asks, self._visitors = folder / "asks", folder / str(port)
        self._asks.write_text("".join(f"{ask.line}\n" for ask in self._view.asks), encoding="utf-8")
        self._visitors.write_text("".join(f"{who.cookie} {who.token}\n" for who in visitors), encoding="utf-8")

    def check(self) -> dict[str, str]:
        """Return the body of each kind of request, for a new visitor."""
        who = views.visitor(self._view, self._serving.contender, self._fetch)
        return views.check(self._view, self._serving.contender, who, self._fetch)

    def load(self, number: int, seconds: float) -> Load:
        """Load the server for some seconds.

        :param number: of the round. A slow server gets few requests in it: in each round other ones.
        :raises RuntimeError: when a request failed: then the bench does not measure the page view.
        """
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "10s", "--latency"]
        command += ["-s", str(places.HERE / "pageview.lua"), f"http://127.0.0.1:{self._port}"]
        command += ["--", str(self._asks), str(self._visitors), str(number * REQUESTS * 3)]
        return parse(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def _fetch(self, path: str, cookie: str, form: str) -> tuple[int, str | None, str]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)  # the first waits for the workers
        headers = {"Cookie": cookie} | ({"Content-Type": "application/x-www-form-urlencoded"} if form else {})
        connection.request("POST" if form else "GET", path, form or None, headers)
        response = connection.getresponse()
        renewed = str(response.headers.get("Set-Cookie", "")).partition(";")[0]
        try:
            return response.status, renewed or None, response.read().decode()
        finally:
            connection.close()


def throughput(outcomes: dict[str, Outcome], one: str, other: str) -> Spread:
    """Return the throughput of one contender over another's, round by round."""
    return ratio(outcomes[one].rates, outcomes[other].rates)


def _outcome(loads: list[Load]) -> Outcome:
    rates = [load.rate for load in loads]
    return Outcome(rates, spread(rates), spread([load.p50 for load in loads]), spread([load.p99 for load in loads]))


@contextmanager
def gunicorn(serving: Serving) -> Generator[int]:
    """Serve an app until the block ends; yield the port.

    :raises RuntimeError: when the server ended before; with the end of its log.
    """
    port = free_port()
    wanted = {"BENCH_CONTENDER": serving.contender.name, "BENCH_VIEW": serving.view, "BENCH_STORE": serving.store,
              redisparser.NAME: serving.parser}  # fmt: skip
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)  # which the child inherits
    with tempfile.NamedTemporaryFile("r") as log:
        command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}"]
        command += ["--threads", str(serving.threads), "--log-level", "error", "--error-logfile", log.name]
        try:
            starting = child([*command, "--pythonpath", str(places.HERE), "served"], port)
            server = starting.__enter__()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        try:
            yield port
        except RuntimeError as error:
            if server.poll() is None:
                raise
            raise RuntimeError(f"gunicorn of {serving.contender.name} ended: {log.read()[-2000:]}") from error
        finally:
            server.terminate()  # a master that is killed would leave its workers for a while
            server.wait(10)
            starting.__exit__(None, None, None)


def parse(text: str) -> Load:
    """Read the line that the script writes at its end.

    :raises RuntimeError: when more requests failed than should, or fewer: those that wrk still waited for may lack.
    """
    found = re.search(r"^BENCH (\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk did not report: {text[-500:]}")
    requests, duration, broken, failed, expected, p50, p99 = map(int, found.groups())
    if broken or not requests or not expected - CONNECTIONS <= failed <= expected:
        raise RuntimeError(f"{broken + failed} of {requests} requests failed instead of {expected}")
    return Load(requests / duration * 1e6, p50 / 1e6, p99 / 1e6)
