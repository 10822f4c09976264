"""Servers of every process model on every store: each visitor sees only what is theirs, and loses nothing.

Run it with ``nox -s processes``; ``-- uwsgi`` or ``-- memcached`` picks what contains the word, ``-- --runs 3`` runs
each cell three times, and ``--write`` writes the table of the documentation. It fails where an answer is another
visitor's, an error, or without the session, or where requests wait for a second, in the median of the runs.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[2]))  # nox sets PYTHONSAFEPATH, which leaves this folder out

from tests.support.forking import STORES as EVERY_DRIVER
from tests.support.processes_table import (
    DOES_NOT_START,
    GENERATED,
    SESSION,
    SLOW,
    Cell,
    in_all,
    rows_of,
    text_of,
    to_rst,
)
from tests.support.servers import Servers, as_child_of_this, free_port

STORES = {store: needs for store, needs in EVERY_DRIVER.items() if store != "psycopg2"}
STORES["python-memcached"] = "memcached"  # whose connections are those of a thread, and here of greenlets
WORKERS, VISITORS, REQUESTS = 2, 8, 10
#: Seconds that no request may wait, other than those sent before its worker had answered one.
LONGEST = 1.0
BIN = Path(sys.executable).parent

_GUNICORN = f"{BIN}/gunicorn -w {WORKERS} -b 127.0.0.1:PORT --no-control-socket processes_app:app"
_UWSGI = f"{BIN}/uwsgi --http-socket 127.0.0.1:PORT --master --processes {WORKERS} --need-app --disable-logging"
MODELS = {
    f"gunicorn {kind}{' --preload' * preload}": f"{_GUNICORN} -k {options}{' --preload' * preload}"
    for kind, options in (("sync", "sync"), ("gthread", "gthread --threads 4"), ("gevent", "gevent"))
    for preload in (False, True)
}
#: What the documentation advises: gevent patches before the app is imported.
MODELS["gunicorn gevent --preload, patched first"] = (
    f"{MODELS['gunicorn gevent --preload']} -c {Path(__file__).parent}/gunicorn_patched.py"
)
MODELS["uwsgi"] = f"{_UWSGI} --module processes_app:app"
MODELS["uwsgi --threads"] = f"{_UWSGI} --threads 4 --module processes_app:app"
MODELS["waitress"] = f"{BIN}/waitress-serve --listen=127.0.0.1:PORT --threads=4 processes_app:app"
_MONGODB = (
    "gevent cannot patch a worker whose parent has used a client of PyMongo: _patch_existing_locks looks at all "
    "objects, and meets weak references of PyMongo's monitors to what PyMongo replaces in a forked process "
    "(ReferenceError). No worker starts. Measured on 2026-11-27: Flask-Session starts none either, used or not, as it "
    "makes its index at start-up. With gevent.monkey.patch_all() in gunicorn's configuration, both start."
)
#: What does not start, through no fault of the sessions: it is shown, and fails nothing.
KNOWN: dict[Cell, str] = {("gunicorn gevent --preload", "mongodb", "used"): _MONGODB}


class Answer(NamedTuple):
    """What a request got: its times in seconds, the process that answered, and what is wrong with it."""

    began: float
    ended: float
    worker: str
    wrong: str


@contextmanager
def served(model: str, store: str, address: str, before: str) -> Generator[tuple[int, Path]]:
    """Run a server until the block ends; yield its port and its log."""
    port = free_port()
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
    environ |= {"MATRIX_STORE": store, "MATRIX_ADDRESS": address, "MATRIX_BEFORE": before}
    command = [*as_child_of_this(), *MODELS[model].replace("PORT", str(port)).split()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        with path.open("wb") as log:
            server = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            for _ in range(600):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if server.poll() is not None:
                    break
                time.sleep(0.05)
            yield port, path
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def visit(port: int, name: str) -> list[Answer]:
    """Log a visitor in and look at the page, on a connection for each request."""
    answers, cookie = [], ""
    for number in range(REQUESTS):
        began, worker = time.monotonic(), ""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/" if number else f"/login/{name}", headers={"Cookie": cookie} if cookie else {})
            response = connection.getresponse()
            text, worker = response.read().decode(), response.headers.get("X-Worker", "")
            connection.close()
            if found := re.match("[^;]*", response.headers.get("Set-Cookie", "")):
                cookie = found[0] or cookie
            wrong = "" if text == name else "lost" if text == "" else "another's"
            wrong = wrong if response.status == 200 else "error"
        except (OSError, http.client.HTTPException) as error:
            wrong = f"error ({type(error).__name__})"
        answers.append(Answer(began, time.monotonic(), worker, wrong))
    return answers


def problems_of(answers: list[Answer]) -> Counter[str]:
    """Count what is wrong, and requests that waited although their worker had answered before."""
    ready: dict[str, float] = {}
    for answer in answers:
        ready[answer.worker] = min(answer.ended, ready.get(answer.worker, answer.ended))
    wrong = Counter(answer.wrong for answer in answers if answer.wrong)
    wrong[SLOW] = sum(
        answer.began > ready[answer.worker] and answer.ended - answer.began > LONGEST for answer in answers
    )
    return +wrong


def run(model: str, store: str, address: str, before: str) -> tuple[Counter[str], str]:
    """Run one cell; return its problems, and the end of the server's log."""
    with served(model, store, address, before) as (port, log), ThreadPoolExecutor(VISITORS) as visitors:
        names = [f"visitor{number}" for number in range(VISITORS)]
        answers = [answer for each in visitors.map(lambda name: visit(port, name), names) for answer in each]
        return problems_of(answers), log.read_text(errors="replace")[-1500:]


def run_all(cells: list[Cell], runs: int) -> dict[Cell, list[tuple[Counter[str], str]]]:
    """Run each cell so many times, two at once; return the problems of each run, and the end of its log."""
    servers = Servers()
    with tempfile.TemporaryDirectory() as folder:
        try:
            servers.start(*sorted({STORES[store] for _, store, _ in cells} - {"folder"}))

            def work(numbered: tuple[int, Cell]) -> tuple[Counter[str], str]:
                number, (model, store, before) = numbered
                needs = STORES[store]
                if needs != "folder":
                    return run(model, store, servers.url(needs), before)
                own = Path(folder, re.sub(r"\W+", "_", f"{number} {model} {store} {before}"))
                own.mkdir()
                return run(model, store, str(own), before)

            # Run by run, so that a moment in which the machine is busy is not in all runs of a cell.
            numbered = [(number, cell) for number in range(runs) for cell in cells]
            with ThreadPoolExecutor(2) as side_by_side:
                results = list(side_by_side.map(work, numbered))
        finally:
            servers.stop()
    return {cell: results[number :: len(cells)] for number, cell in enumerate(cells)}


def show(texts: dict[Cell, str], cells: list[Cell]) -> None:
    """Print the table."""
    models, stores = list(dict.fromkeys(cell[0] for cell in cells)), list(dict.fromkeys(cell[1] for cell in cells))
    print(f"{VISITORS * REQUESTS} requests of {VISITORS} visitors each; {len(cells)} cells\n")  # noqa: T201
    for row in [["", "", *stores], *rows_of(texts, models, stores)]:
        first, before, *others = row
        print(f"{first.strip('`'):44}{before:8}" + "".join(f"{text:>18}" for text in others))  # noqa: T201
    for cell in filter(KNOWN.__contains__, cells):
        now = KNOWN[cell] if texts[cell] == DOES_NOT_START else "it is right now, and can be taken out of KNOWN."
        print(f"\nknown: {', '.join(cell)}: {now}")  # noqa: T201


def main() -> None:
    """Run the matrix, print it, and exit with 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only what contains each of these words")
    parser.add_argument("--runs", type=int, default=1, help="how often each cell is run")
    parser.add_argument("--write", action="store_true", help=f"write {GENERATED.name} of the documentation")
    options = parser.parse_args()
    cells = [
        (model, store, before)
        for model in MODELS
        for store in STORES
        for before in SESSION
        if all(word in f"{model} {store} {before}" for word in options.words)
    ]
    found = run_all(cells, options.runs)
    problems = {cell: in_all([each for each, _ in runs]) for cell, runs in found.items()}
    texts = {cell: DOES_NOT_START if each and cell in KNOWN else text_of(each) for cell, each in problems.items()}
    show(texts, cells)
    if options.write:
        command = shlex.join(["nox", "-s", "processes", *(["--", *sys.argv[1:]])])
        GENERATED.write_text(to_rst(texts, [*MODELS], [*STORES], command), encoding="utf-8")
    for cell, runs in found.items():
        counts = [each[SLOW] for each, _ in runs]
        if any(counts) and not problems[cell]:
            print(f"\n{', '.join(cell)}: slow in single runs, {counts}")  # noqa: T201
    bad = {cell: each for cell, each in problems.items() if each and cell not in KNOWN}
    for cell, each in bad.items():
        log = next(log for one, log in found[cell] if one)
        print(f"\n{', '.join(cell)}: {dict(each)}\n{log}")  # noqa: T201
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
