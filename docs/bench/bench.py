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
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # nox sets PYTHONSAFEPATH, which leaves this folder out

import everystore
import floors
import growing
import inprocess
import instructions
import overhttp
import places
import publishing
import trips
from contenders import EVERYONE, FLASK_SESSION, LAZY, NULL, Contender, make_app
from goals import judge
from inprocess import Effort
from rich import box
from rich.console import Console
from rich.table import Table
from spread import Spread
from storage import settings_of

from tests.support.faults import FaultProxy
from tests.support.servers import POSTGRES, NotInstalled, Servers

PACKAGES = ("Flask", "Flask-Session", "Flask-Login", "Werkzeug", "redis", "SQLAlchemy", "pymongo", "pymemcache",
            "psycopg", "gunicorn", "msgspec", "lazysession")  # fmt: skip
PARTS = ("process", "stores", "http", "growth", "trips")
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
        by_name = {"process": self._process, "stores": self._stores, "http": self._http, "growth": self._growth,
                   "trips": self._trips}  # fmt: skip
        for part in parts:
            started = time.monotonic()
            by_name[part]()
            self._say(f"{part}: {time.monotonic() - started:.0f} s")
        self.results["seconds"] = round(time.monotonic() - self._started)
        self.results = publishing.plain(self.results)

    def _say(self, line: str) -> None:
        self._console.print(line, style="dim", highlight=False)

    def _process(self) -> None:
        url = self._servers.url("redis")
        effort = Effort(6, 20, 80, 200) if self._quick else Effort(15, 40, 300, 200)
        self.results["kinds"] = inprocess.measure_kinds(url, effort, flask_login=False)
        self.results["kinds, Flask-Login"] = inprocess.measure_kinds(url, effort, flask_login=True)
        self.results["untouched"] = inprocess.measure_untouched(url, effort)
        self.results["floor"] = floors.measure(url, effort)
        self.results["rules"] = inprocess.measure_rules(url, effort)
        if not self._quick:  # under callgrind everything takes fifty times as long
            self.results["instructions"] = instructions.count_instructions(url, 50)
            if self.results["instructions"] is None:
                self._say("valgrind is not installed (apt-get install valgrind): instructions are not counted")

    def _stores(self) -> None:
        self.results["stores"] = everystore.measure_everywhere(self._servers, 0.3 if self._quick else 3, self._say)

    def _http(self) -> None:
        lacking = overhttp.missing()
        if lacking:
            self._say(lacking)
            return
        url = self._servers.url("redis")
        rounds, seconds = (3, 1) if self._quick else (8, 1)
        self._view("redis", EVERYONE if not self._quick else THREE, url, rounds, seconds)
        if not self._quick:  # the ratios that have a goal, from more rounds
            told = overhttp.measure_page_views(THREE, url, 40, seconds)
            self.results["http"]["redis"]["ratios"] = self._ratios(told, THREE)
        few = 3 if self._quick else 9
        with FaultProxy(int(url.rpartition(":")[2].partition("/")[0]), mode="slow", delay=FAR) as proxy:
            far = f"redis://127.0.0.1:{proxy.port}/0"
            self._view("redis, 5 ms", THREE, far, few, seconds)
            if not self._quick:
                self._view("redis, 5 ms, 4 threads", THREE, far, few, seconds, threads=4)
        if self._quick:
            return
        for name in ("postgresql", "mongodb", "memcached"):
            try:
                self._view(name, THREE, self._servers.url(name), few, seconds)
            except NotInstalled as reason:
                self._say(f"{name} is left out: {reason}")
        with tempfile.TemporaryDirectory() as folder:
            self._view("sqlite", THREE, f"sqlite:///{folder}/sessions.db", few, seconds)

    def _view(
        self, place: str, contenders: Sequence[Contender], url: str, rounds: int, seconds: float, *, threads: int = 1
    ) -> None:
        make_app(LAZY, settings_of(url))  # creates the table: two workers of Flask-Session can fail if both create it
        told = overhttp.measure_page_views(contenders, url, rounds, seconds, threads=threads)
        self._say(f"  {place}:")
        ratios = self._ratios(told, contenders)
        self.results.setdefault("http", {})[place] = {"contenders": told, "ratios": ratios}

    def _ratios(self, told: dict[str, overhttp.Outcome], contenders: Sequence[Contender]) -> dict[str, Spread]:
        others = [each.name for each in contenders if each is not LAZY]
        ratios = {f"lazy/{other}": overhttp.throughput(told, "lazy", other) for other in others}
        self._say("    " + ", ".join(f"{name} {each.text(2)}" for name, each in ratios.items()))
        return ratios

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
        self.results["threads"] = growing.reads_by_threads(url, 0.25 if self._quick else 1)

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
    versions = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    return [f"{os.cpu_count()} cores ({cpu})", f"{platform.system()} {platform.release().partition('-')[0]}",
            f"load {os.getloadavg()[0]:.1f} before the run",
            f"Python {platform.python_version()}", *versions, *server_versions()]  # fmt: skip


def show(console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and contenders: under 2 minutes")
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
    for name, make in publishing.TABLES.items():
        if results.get(name):
            show(console, name, *make(results[name]))
    goals = judge(results)
    show(console, "Goals", *publishing.goal_table(goals))
    if arguments.write:
        for path in publishing.write(results, goals):
            console.print(f"written: {path.relative_to(places.ROOT)}", highlight=False)
    console.print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
