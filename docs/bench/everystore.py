"""Every store: each kind of request with LazySession and with Flask-Session, in process, in interleaved rounds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from calling import Caller, log_in
from contenders import FLASK_SESSION, LAZY, make_app
from flask import Flask
from rounds import interleave
from spread import Spread, ratio, spread
from storage import STORES, settings_of

from tests.support.servers import NotInstalled, Servers

#: The kinds of requests that are one path with the cookie of a live session.
PATHS = {"untouched": "/untouched", "read": "/read", "read with refresh": "/read", "change": "/change"}
#: Those of a visitor who comes without a cookie and leaves again.
VISITS = ("first write", "logout")
KINDS = (*PATHS, *VISITS)
#: A block of requests takes about as long, in seconds.
BLOCK = 0.01

Cell = dict[str, Spread]
#: Sends a number of requests, and returns the seconds of one by kind.
Send = Callable[[int], dict[str, float]]


@dataclass(frozen=True)
class Pair:
    """The same app with both, on one store; ``due`` is the app whose reads all refresh."""

    lazy: Flask
    due: Flask
    flask_session: Flask

    @classmethod
    def on(cls, url: str) -> Pair:
        """Make the apps on the store of a URL, each with a client of its own."""
        due = {**settings_of(url), "LAZYSESSION_REFRESH_THROTTLE": 0}
        return cls(make_app(LAZY, settings_of(url)), make_app(LAZY, due), make_app(FLASK_SESSION, settings_of(url)))


def measure_everywhere(servers: Servers, seconds: float, say: Callable[[str], None]) -> dict[str, dict[str, Cell]]:
    """Return the cells by store and kind of request.

    :param seconds: how long each cell is measured.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for store, server in STORES.items():
            try:
                url = servers.url(server) if server else f"{store}:///{Path(folder, store)}"
            except NotInstalled as reason:
                say(f"{store} is left out: {reason}")
                continue
            found[store] = measure_store(Pair.on(url), seconds)
    return found


def measure_store(pair: Pair, seconds: float) -> dict[str, Cell]:
    """Return the cells of one store by kind of request."""
    cells = {}
    for kind, path in PATHS.items():
        lazy = pair.due if kind == "read with refresh" else pair.lazy
        senders = {"lazy": same(kind, lazy, path), "flask-session": same(kind, pair.flask_session, path)}
        cells.update(compare((kind,), senders, seconds))
    visitors = {"lazy": Visits(pair.lazy).send, "flask-session": Visits(pair.flask_session).send}
    cells.update(compare(VISITS, visitors, 2 * seconds))
    return cells


def same(kind: str, app: Flask, path: str) -> Send:
    """Make a sender of the same request, with the cookie of a live session."""
    caller = Caller(app, path, log_in(app))

    def send(times: int) -> dict[str, float]:
        started = time.perf_counter()
        caller.send(times)
        return {kind: (time.perf_counter() - started) / times}

    return send


class Visits:
    """Sends first requests, which begin a session, and then the logouts of those sessions."""

    def __init__(self, app: Flask) -> None:
        self._enter, self._leave = Caller(app, "/login"), Caller(app, "/logout")

    def send(self, times: int) -> dict[str, float]:
        """Send as many of both, and return the seconds of one by kind."""
        cookies = []
        started = time.perf_counter()
        for _ in range(times):
            self._enter.send(1)
            cookies.append(self._enter.new_cookie())
        entered = time.perf_counter()
        for cookie in cookies:
            self._leave.once(cookie)
            self._leave.check()
        return {"first write": (entered - started) / times, "logout": (time.perf_counter() - entered) / times}


def compare(kinds: tuple[str, ...], senders: Mapping[str, Send], seconds: float) -> dict[str, Cell]:
    """Return the seconds of one request with both, and the median of their ratios, by kind."""
    for send in senders.values():
        send(3)  # opens connections and prepares statements
    costs = {name: sum(send(3).values()) for name, send in senders.items()}
    times = min(max(int(BLOCK / max(costs.values())), 2), 50)
    rounds = min(max(int(seconds / sum(costs.values()) / times), 6), 400)
    told: dict[str, list[dict[str, float]]] = {name: [] for name in senders}

    def block(name: str) -> float:
        told[name].append(senders[name](times))
        return 0.0

    interleave({name: partial(block, name) for name in senders}, rounds)
    cells = {}
    for kind in kinds:
        values = {name: [each[kind] for each in of_rounds[-rounds:]] for name, of_rounds in told.items()}
        cells[kind] = {name: spread(each) for name, each in values.items()}
        cells[kind]["ratio"] = ratio(values["lazy"], values["flask-session"])
    return cells
