"""Requests that use their session, in many threads of one process: how many a second, and how long the slowest take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

from calling import Caller, log_in
from contenders import FLASK_SESSION, LAZY, make_app
from flask import Flask
from rounds import interleave
from spread import Spread, ratio, spread
from storage import settings_of

THREADS = (1, 4, 8, 32)
#: Four reads, and then a change.
PATHS = ("/read",) * 4 + ("/change",)
SECONDS = 0.25


def measure(url: str, rounds: Mapping[int, int]) -> dict[int, dict[str, Spread]]:
    """Return requests a second, the 99th percentile of their seconds, and its ratio, by number of threads.

    :param rounds: by number of threads.
    """
    apps = {each.name: make_app(each, settings_of(url)) for each in (FLASK_SESSION, LAZY)}
    return {threads: _measure(apps, threads, of_threads) for threads, of_threads in rounds.items()}


def _measure(apps: dict[str, Flask], threads: int, rounds: int) -> dict[str, Spread]:
    visitors = {name: [_callers(app) for _ in range(threads)] for name, app in apps.items()}
    slowest: dict[str, list[float]] = {name: [] for name in apps}
    with ThreadPoolExecutor(threads) as pool:

        def block(name: str) -> float:
            until = time.perf_counter() + SECONDS
            told = sorted(chain.from_iterable(pool.map(partial(visit, until=until), visitors[name])))
            slowest[name].append(told[len(told) * 99 // 100])
            return len(told) / SECONDS

        rates = interleave({name: partial(block, name) for name in apps}, rounds, warm_up=1)
    late = {name: seconds[-rounds:] for name, seconds in slowest.items()}
    found = {f"{name} rate": spread(values) for name, values in rates.items()}
    found.update({f"{name} p99": spread(values) for name, values in late.items()})
    return {**found, "p99 over flask-session": ratio(late[LAZY.name], late[FLASK_SESSION.name])}


def _callers(app: Flask) -> list[Caller]:
    cookie = log_in(app)
    return [Caller(app, path, cookie) for path in PATHS]


def visit(callers: list[Caller], until: float) -> list[float]:
    """Send the requests of one visitor again and again, and return the seconds of each."""
    told: list[float] = []
    now = time.perf_counter()
    while now < until:
        callers[len(told) % len(callers)].send(1)
        ended = time.perf_counter()
        told.append(ended - now)
        now = ended
    return told
