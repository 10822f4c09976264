"""Servers of every process model on every store: each visitor sees only what is theirs, and loses nothing.

Run it with ``nox -s processes``; ``-- uwsgi`` or ``-- memcached`` picks what contains the word. It prints a table and
fails where an answer is another visitor's, an error, or without the session, or where a request waits for a second.
"""

from __future__ import annotations

import http.client
import os
import re
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

from servers import Servers, as_child_of_this, free_port
from test_forked_in_c import STORES as EVERY_DRIVER

STORES = {store: needs for store, needs in EVERY_DRIVER.items() if store != "psycopg2"}
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
MODELS["uwsgi"] = f"{_UWSGI} --module processes_app:app"
MODELS["uwsgi --threads"] = f"{_UWSGI} --threads 4 --module processes_app:app"
MODELS["waitress"] = f"{BIN}/waitress-serve --listen=127.0.0.1:PORT --threads=4 processes_app:app"
#: What does not start, through no fault of the sessions: it is shown, and fails nothing.
KNOWN = {
    ("gunicorn gevent --preload", "mongodb"): "gevent cannot patch a worker whose parent has had a client of PyMongo "
    "(ReferenceError in gevent's _patch_existing_locks, by a weak reference that has died), so none starts."
}


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
    wrong["slow"] = sum(
        answer.began > ready[answer.worker] and answer.ended - answer.began > LONGEST for answer in answers
    )
    return +wrong


def run(model: str, store: str, address: str, before: str) -> tuple[Counter[str], str]:
    """Run one cell; return its problems, and the end of the server's log."""
    with served(model, store, address, before) as (port, log), ThreadPoolExecutor(VISITORS) as visitors:
        names = [f"visitor{number}" for number in range(VISITORS)]
        answers = [answer for each in visitors.map(lambda name: visit(port, name), names) for answer in each]
        return problems_of(answers), log.read_text(errors="replace")[-1500:]


def main() -> None:
    """Run the matrix, print it, and exit with 1 where anything is wrong."""
    words = sys.argv[1:]
    cells = [
        (model, store, before)
        for model in MODELS
        for store in STORES
        for before in ("unused", "used")
        if all(word in f"{model} {store} {before}" for word in words)
    ]
    servers = Servers()
    with tempfile.TemporaryDirectory() as folder:
        try:
            servers.start(*sorted({STORES[store] for _, store, _ in cells} - {"folder"}))

            def work(cell: tuple[str, str, str]) -> tuple[Counter[str], str]:
                model, store, before = cell
                needs = STORES[store]
                if needs != "folder":
                    return run(model, store, servers.url(needs), before)
                own = Path(folder, "-".join(cell).replace(" ", "_"))
                own.mkdir()
                return run(model, store, str(own), before)

            with ThreadPoolExecutor(2) as side_by_side:
                found = dict(zip(cells, side_by_side.map(work, cells), strict=True))
        finally:
            servers.stop()
    stores = [store for store in STORES if any(store == cell[1] for cell in cells)]
    print(f"{VISITORS * REQUESTS} requests of {VISITORS} visitors each; {len(cells)} servers\n")  # noqa: T201
    print(f"{'':36}" + "".join(f"{store:>12}" for store in stores))  # noqa: T201
    for model in dict.fromkeys(cell[0] for cell in cells):
        for before in dict.fromkeys(cell[2] for cell in cells):
            row = [found.get((model, store, before), (Counter(), ""))[0] for store in stores]
            texts = [
                "known" if (model, store) in KNOWN else sum(each.values()) or "ok"
                for store, each in zip(stores, row, strict=True)
            ]
            shown = "".join(f"{text:>12}" for text in texts)
            print(f"{model:28}{before:8}{shown}")  # noqa: T201
    for model, store in dict.fromkeys(cell[:2] for cell in cells if cell[:2] in KNOWN):
        print(f"\nknown: {model}, {store}: {KNOWN[model, store]}")  # noqa: T201
    bad = {cell: each for cell, each in found.items() if each[0] and cell[:2] not in KNOWN}
    for cell, (problems, log) in bad.items():
        print(f"\n{', '.join(cell)}: {dict(problems)}\n{log}")  # noqa: T201
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
