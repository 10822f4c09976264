"""The page view over HTTP: gunicorn serves each contender, wrk sends 71 requests for each view, round by round."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import places
from calling import BOGUS
from contenders import Contender
from spread import Spread, ratio, spread

from tests.support.servers import child, free_port

VISITORS = 20
WORKERS, CONNECTIONS = 2, 8


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


def measure_page_views(
    contenders: Sequence[Contender], store_url: str, rounds: int, seconds: float, *, threads: int = 1
) -> dict[str, Outcome]:
    """Serve every contender at once, and load them one after the other in every round."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loads: dict[str, list[Load]] = {each.name: [] for each in contenders}
        served = {}
        for each in contenders:
            port = stack.enter_context(gunicorn(each, store_url, threads))
            cookies = folder / each.name
            cookies.write_text("".join(f"{cookie_from(port, each)}\n" for _ in range(VISITORS)), encoding="utf-8")
            wrk(port, cookies, 1)
            served[each.name] = (port, cookies)
        for number in range(rounds):
            for name in [*served][:: 1 if number % 2 == 0 else -1]:
                loads[name].append(wrk(*served[name], seconds))
    return {name: _outcome(of_rounds) for name, of_rounds in loads.items()}


def throughput(outcomes: dict[str, Outcome], one: str, other: str) -> Spread:
    """Return the throughput of one contender over another's, round by round."""
    return ratio(outcomes[one].rates, outcomes[other].rates)


def _outcome(loads: list[Load]) -> Outcome:
    rates = [load.rate for load in loads]
    return Outcome(rates, spread(rates), spread([load.p50 for load in loads]), spread([load.p99 for load in loads]))


@contextmanager
def gunicorn(contender: Contender, store_url: str, threads: int) -> Generator[int]:
    """Serve a contender until the block ends; yield the port.

    :raises RuntimeError: when the server ended before; with the end of its log.
    """
    port = free_port()
    wanted = {"BENCH_CONTENDER": contender.name, "BENCH_STORE": store_url}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)  # which the child inherits
    with tempfile.NamedTemporaryFile("r") as log:
        command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}"]
        command += ["--threads", str(threads), "--log-level", "error", "--error-logfile", log.name]
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
            raise RuntimeError(f"gunicorn of {contender.name} ended: {log.read()[-2000:]}") from error
        finally:
            server.terminate()  # a master that is killed would leave its workers for a while
            server.wait(10)
            starting.__exit__(None, None, None)


def cookie_from(port: int, contender: Contender) -> str:
    """Log a visitor in and return the cookie; without sessions, a bogus one."""
    path = "/login" if contender.stateful else "/untouched"
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:  # the first waits for the workers
        return str(response.headers.get("Set-Cookie", BOGUS)).partition(";")[0]


def wrk(port: int, cookies: Path, seconds: float) -> Load:
    """Load a server for some seconds.

    :raises RuntimeError: when a request failed: then the bench does not measure the page view.
    """
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "10s", "--latency"]
    command += ["-s", str(places.HERE / "pageview.lua"), f"http://127.0.0.1:{port}", "--", str(cookies)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return parse(done.stdout)


def parse(text: str) -> Load:
    """Read the line that the script writes at its end."""
    found = re.search(r"^BENCH (\d+) (\d+) (\d+) (\d+) (\d+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk did not report: {text[-500:]}")
    requests, duration, errors, p50, p99 = map(int, found.groups())
    if errors or not requests:
        raise RuntimeError(f"{errors} of {requests} requests failed")
    return Load(requests / duration * 1e6, p50 / 1e6, p99 / 1e6)
