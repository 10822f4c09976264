"""Compare LazySession with other session interfaces: ``python docs/bench/bench.py --quick``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # nox sets PYTHONSAFEPATH, which leaves this folder out
os.environ["BENCH_REDIS_PARSER"] = "python"  # see redisparser.py

import apart
import everystore
import floors
import growing
import inprocess
import instructions
import overhttp
import places
import publishing
import redisparser
import tabulating
import threaded
import trips
import viewtrips
from contenders import EVERYONE, FLASK_SESSION, LAZY, NULL, make_app
from goals import judge
from inprocess import Effort
from overhttp import Serving, serve_each
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from storage import settings_of

from tests.support.faults import FaultProxy
from tests.support.servers import POSTGRES, NotInstalled, Servers
from tests.support.stores import RedisStore

PACKAGES = ("Flask", "Flask-Session", "Flask-Login", "Werkzeug", "redis", "SQLAlchemy", "pymongo", "pymemcache",
            "psycopg", "gunicorn", "msgspec", "lazysession")  # fmt: skip
PARTS = ("process", "stores", "http", "realistic", "hiredis", "growth", "trips")
THREE = (NULL, FLASK_SESSION, LAZY)
FAR = 0.005


class Bench:
    """One run."""

    def __init__(self, servers: Servers, console: Console, *, quick: bool) -> None:
        self._servers = servers
        self._console = console
        self._quick = quick
        self._started = time.monotonic()
        self.results: dict[str, Any] = {"date": date.today().isoformat(), "quick": quick, "machine": machine()}

    def run(self, parts: Sequence[str]) -> None:
        """Measure the parts one after the other."""
        redisparser.check()
        for part in parts:
            started = time.monotonic()
            getattr(self, f"_{part}")()
            self._say(f"{part}: {time.monotonic() - started:.0f} s")
        self.results["seconds"] = round(time.monotonic() - self._started)
        self.results = publishing.plain(self.results)

    def _say(self, line: str) -> None:
        self._console.print(line, style="dim", highlight=False)

    def _process(self) -> None:
        url = self._servers.url("redis")
        effort = Effort(6, 20, 60, 200) if self._quick else Effort(15, 40, 300, 200)
        self.results["kinds"] = inprocess.measure_kinds(url, effort, flask_login=False)
        self.results["kinds, Flask-Login"] = inprocess.measure_kinds(url, effort, flask_login=True)
        self.results["untouched"] = inprocess.measure_untouched(url, effort)
        self.results["floor"] = floors.measure(url, effort)
        self.results["rules"] = inprocess.measure_rules(url, effort)
        if not self._quick:  # under callgrind everything takes fifty times as long
            self.results["instructions"] = instructions.count_instructions(url, 40)
            if self.results["instructions"] is None:
                self._say("valgrind is not installed (apt-get install valgrind): instructions are not counted")

    def _stores(self) -> None:
        self.results["stores"] = everystore.measure_everywhere(self._servers, 0.3 if self._quick else 3, self._say)

    def _http(self) -> None:
        """Measure the bare page view on each store."""
        if not self._has_wrk():
            return
        self._near_and_far("http", "bare")
        if self._quick:
            return
        with self._far() as far:
            self._view("http", "redis, 5 ms, 4 threads", serve_each(THREE, "bare", far, 4), 6)
        for name in ("postgresql", "mongodb", "memcached"):
            try:
                self._view("http", name, serve_each(THREE, "bare", self._servers.url(name)), 6)
            except NotInstalled as reason:
                self._say(f"{name} is left out: {reason}")
        with tempfile.TemporaryDirectory() as folder:
            self._view("http", "sqlite", serve_each(THREE, "bare", f"sqlite:///{folder}/sessions.db"), 6)

    def _realistic(self) -> None:
        """Measure the realistic page view on Redis."""
        self.results["realistic, trips"] = self._count_realistic()
        if self._has_wrk():
            self._near_and_far("realistic", "realistic")

    def _count_realistic(self) -> dict[str, dict[str, int]]:
        store = RedisStore(self._servers.url("redis"))
        try:
            return viewtrips.count_kinds(store)
        finally:
            store.close()

    def _near_and_far(self, part: str, view: str) -> None:
        """Measure a view with every contender, and the three whose ratios have a goal in more rounds, also far away."""
        url = self._servers.url("redis")
        if self._quick:
            self._view(part, "redis", serve_each(THREE, view, url), 3)
        else:
            everyone = self._view(part, "redis", serve_each(EVERYONE, view, url), 6)
            self._view(part, "redis", serve_each(THREE, view, url), 24)
            self.results[part]["redis"]["contenders"] = everyone
        with self._far() as far:
            self._view(part, "redis, 5 ms", serve_each(THREE, view, far), 3 if self._quick else 10)

    @contextmanager
    def _far(self) -> Generator[str]:
        """Put a delay between the apps and Redis, as long as the block."""
        port = int(self._servers.url("redis").rpartition(":")[2].partition("/")[0])
        with FaultProxy(port, mode="slow", delay=FAR) as proxy:
            yield f"redis://127.0.0.1:{proxy.port}/0"

    def _view(self, part: str, place: str, servings: dict[str, Serving], rounds: int) -> dict[str, overhttp.Outcome]:
        make_app(LAZY, settings_of(servings["lazy"].store))  # creates the table: of two workers, one would fail
        told = overhttp.measure_page_views(servings, rounds, 1)
        over = [("lazy", other) for other in servings if other != "lazy"] + [("null", "flask-session")]
        ratios = {f"{one}/{other}": overhttp.throughput(told, one, other) for one, other in over}
        self._say(f"  {place}: " + ", ".join(f"{name} {each.text(2)}" for name, each in ratios.items()))
        self.results.setdefault(part, {})[place] = {"contenders": told, "ratios": ratios}
        return told

    def _has_wrk(self) -> bool:
        lacking = overhttp.missing()
        if lacking:
            self._say(lacking)
        return not lacking

    def _hiredis(self) -> None:
        """Measure requests on Redis with the parser of hiredis and without it."""
        if not redisparser.INSTALLED:
            self._say("hiredis is not installed (pip install hiredis): what it brings is left out")
            return
        url = self._servers.url("redis")
        self.results["hiredis"] = {"process": apart.measure(url, 20 if self._quick else 150)}
        if self._quick or not self._has_wrk():
            return
        servings = {
            f"{each.name} {parser}": Serving(each, "realistic", url, parser=parser)
            for each in (FLASK_SESSION, LAZY)
            for parser in (redisparser.PYTHON, redisparser.HIREDIS)
        }
        told = overhttp.measure_page_views(servings, 12, 1)
        self.results["hiredis"]["http"] = {
            each.name: {
                "python": told[f"{each.name} python"].rate,
                "hiredis": told[f"{each.name} hiredis"].rate,
                "ratio": overhttp.throughput(told, f"{each.name} hiredis", f"{each.name} python"),
            }
            for each in (FLASK_SESSION, LAZY)
        }

    def _growth(self) -> None:
        rounds = 40 if self._quick else 200
        self.results["refresh"] = {}
        for name in growing.NATIVE_EXPIRY:
            try:
                self.results["refresh"][name] = growing.refresh_by_size(self._servers.url(name), rounds)
            except NotInstalled as reason:
                self._say(f"{name} is left out: {reason}")
        url = self._servers.url("redis")
        counts = (1_000, 10_000) if self._quick else (1_000, 10_000, 100_000, 1_000_000)
        with tempfile.TemporaryDirectory() as folder:
            database = f"sqlite:///{folder}/sessions.db"
            self.results["sessions"] = growing.read_by_sessions(url, database, counts, 5 if self._quick else 20)
        few, many = (2, 6) if self._quick else (6, 24)
        self.results["threads"] = threaded.measure(url, {1: few, 4: few, 8: few, 32: many})

    def _trips(self) -> None:
        self.results["trips"] = trips.count_everywhere(self._servers, self._say)


def server_versions() -> list[str]:
    """Return the versions of wrk and of the servers that are installed."""
    programs = {
        "Redis": "redis-server",
        "PostgreSQL": str(POSTGRES / "postgres"),
        "memcached": "memcached",
        "wrk": "wrk",
    }
    told = []
    for name, program in programs.items():
        found = shutil.which(program)
        if found is not None:
            done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
            number = re.search(r"\d+\.\d[\d.]*", done.stdout)
            told += [f"{name} {number[0]}"] if number else []
    return told


def machine() -> list[str]:
    """Return a description of the machine, and the versions."""
    cpu = platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        models = [line for line in described.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    extra = ["hiredis"] if redisparser.INSTALLED else []
    versions = [f"{package} {importlib.metadata.version(package)}" for package in (*PACKAGES, *extra)]
    return [f"{os.cpu_count()} cores ({cpu})", f"{platform.system()} {platform.release().partition('-')[0]}",
            f"load {os.getloadavg()[0]:.1f} before the run",
            f"Python {platform.python_version()}", *versions, *server_versions()]  # fmt: skip


def show(console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table, highlight=False)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and contenders: under 3 minutes")
    parser.add_argument("--write", action="store_true", help="write the table, the charts and the JSON into docs/")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure only this part; may be repeated")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the bench."""
    arguments = parse_arguments()
    console = Console(width=150)
    started = time.monotonic()
    with ExitStack() as stack:
        servers = Servers()
        stack.callback(servers.stop)
        bench = Bench(servers, console, quick=arguments.quick)
        console.print(", ".join(bench.results["machine"]), highlight=False)
        bench.run(arguments.part or PARTS)
    results = bench.results
    goals = judge(results)
    for name, table in tabulating.tables(results, goals).items():
        show(console, name, *table)
    if arguments.write:
        for path in publishing.write(results, goals):
            console.print(f"written: {path.relative_to(places.ROOT)}", highlight=False)
    console.print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
