"""A Redis whose master is killed under load, behind Sentinels and in a cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import redis
from flask import Flask

from tests.support import servers
from tests.support.on_redis import cluster_client, make_app, sentinel_client

# Failover


class SentinelGroup:
    """A master, its replica and Sentinels, as a test of failover sees them."""

    def __init__(self, url: str) -> None:
        self._client = sentinel_client(url)

    def master_of(self, key: str) -> Any:
        """Return a client of the master that holds the key now."""
        return self._client

    def key_on_same_master(self, key: str) -> str:
        """Return another key that the same master holds."""
        return f"same master:{key}"


class Cluster(SentinelGroup):
    """The same of a cluster."""

    def __init__(self, url: str) -> None:
        self._cluster = cluster_client(url)

    def master_of(self, key: str) -> Any:
        self._cluster.get(key)  # learns of a new master
        return self._cluster.get_redis_connection(self._cluster.get_node_from_key(key))

    def key_on_same_master(self, key: str) -> str:
        return f"{{{key}}}same master"


class Visitor:
    """Counts in a session, and records what was acknowledged, and what the replica is known to have.

    :param confirm: returns whether all that the master has acknowledged so far has reached its replica.
    """

    def __init__(self, app: Flask, sid: str, key: str, confirm: Callable[[str], bool]) -> None:
        self.client = app.test_client()
        self.client.set_cookie("session", sid)
        self.sid, self.key, self.confirm = sid, key, confirm
        self.statuses: Counter[int] = Counter()
        self.acknowledged = self.confirmed = self.unknown = self.lost = self.in_a_row = 0
        self.back: float | None = None

    def visit(self, *, killed: bool) -> None:
        """Count once."""
        response = self.client.get(f"/count/{self.key}")
        self.statuses[response.status_code] += 1
        if response.status_code != 200:
            assert "Set-Cookie" not in response.headers
            self.unknown += 1  # the master may have done it before it died
            self.in_a_row, self.back = 0, None
            return
        value = int(response.text)
        assert self.confirmed < value <= self.acknowledged + self.unknown + 1
        self.lost += max(0, self.acknowledged + 1 - value)
        self.acknowledged, self.unknown, self.in_a_row = value, 0, self.in_a_row + 1
        self.back = self.back or time.monotonic()
        if not killed and self.confirm(f"session:{self.sid}"):
            self.confirmed = value


class Load:
    """Visitors of four threads, each with a session of its own and a part in a common one; and bystanders.

    :param confirm: as for :class:`Visitor`.
    """

    def __init__(self, app: Flask, confirm: Callable[[str], bool]) -> None:
        self.app, self.killed, self.stopped = app, False, threading.Event()
        self.shared = self._new_session()
        self.visitors = [Visitor(app, self._new_session(), "own", confirm) for _ in range(4)]
        self.sharers = [Visitor(app, self.shared, f"part{number}", confirm) for number in range(4)]
        self.newcomers: Counter[int] = Counter()
        self.bystanders: Counter[int] = Counter()
        self.errors: list[Exception] = []
        works = [partial(self._count, *pair) for pair in zip(self.visitors, self.sharers, strict=True)]
        self._threads = [threading.Thread(target=self._run, args=[work]) for work in [*works, self._arrive, self._pass]]

    def _new_session(self) -> str:
        client = self.app.test_client()
        assert client.get("/first").status_code == 200
        cookie = client.get_cookie("session")
        assert cookie is not None
        return cookie.value

    def _count(self, visitor: Visitor, sharer: Visitor) -> None:
        visitor.visit(killed=self.killed)
        sharer.visit(killed=self.killed)

    def _arrive(self) -> None:
        """Write without reading, as a first visit does; a failure shows no cookie."""
        response = self.app.test_client().get("/first")
        assert ("Set-Cookie" in response.headers) is (response.status_code == 200)
        self.newcomers[response.status_code] += 1

    def _pass(self) -> None:
        """Use no session, or none that is stored, with a cookie."""
        client = self.visitors[0].client
        self.bystanders[client.get("/untouched").status_code] += 1
        self.bystanders[client.get("/skipped").status_code] += 1

    def _run(self, work: Callable[[], None]) -> None:
        try:
            while not self.stopped.wait(0.005):
                work()
        except Exception as error:
            self.errors.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join()

    def runs_well(self) -> bool:
        """Return whether every visitor was served for a while, and the replica has it, or something is wrong."""
        return bool(self.errors) or all(each.confirmed > 10 for each in (*self.visitors, *self.sharers))

    def is_back(self) -> bool:
        """Return whether there were errors, and every visitor has been served since then, or something is wrong."""
        clients = (*self.visitors, *self.sharers)
        felt = self.newcomers[503] and all(each.statuses[503] for each in self.sharers)
        return bool(self.errors) or bool(felt and all(each.in_a_row > 20 for each in clients))


@pytest.mark.parametrize("kind", ["redis_cluster", "redis_sentinel"])
def test_failover(redis_url: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The app outlives its master: it serves again, keeps what the new master has, and no bystander notices.

    Replication is asynchronous, so Redis itself may lose what it acknowledged last. What it surely kept is known from
    WAIT behind a write that came later: that must be there. The rest is counted.
    """
    with getattr(servers, kind)() as url:
        group = (Cluster if kind == "redis_cluster" else SentinelGroup)(url)

        def confirm(key: str) -> bool:
            try:
                pipeline = group.master_of(key).pipeline(transaction=False)
                return bool(pipeline.set(group.key_on_same_master(key), 1).wait(1, 1000).execute()[1])
            except redis.RedisError:  # it has just been killed
                return False

        with Load(make_app(f"{url}?socket_timeout=1"), confirm) as load:
            key = f"session:{load.shared}"
            servers.wait_until(load.runs_well, "a start")
            assert not load.errors
            load.killed = True
            master = group.master_of(key).info("server")
            before = time.monotonic()
            os.kill(master["process_id"], signal.SIGKILL)
            servers.wait_until(load.is_back, "the failover")
        clients = (*load.visitors, *load.sharers)
        seconds = max(each.back or 0 for each in load.sharers) - before
        statuses = sum((each.statuses for each in clients), Counter())
        lost = sum(each.lost for each in clients)
        with capsys.disabled():
            print(  # noqa: T201
                f"\n{kind}: back after {seconds:.1f} s; counting {dict(statuses)}, lost by Redis {lost}; "
                f"first visits {dict(load.newcomers)}; bystanders {dict(load.bystanders)}"
            )
        assert not load.errors
        assert set(load.bystanders) == {200}
        assert set(statuses) <= {200, 503}
        promoted = group.master_of(key)
        assert promoted.info("server")["process_id"] != master["process_id"]
        for each in clients:
            stored = msgspec.msgpack.decode(group.master_of(f"session:{each.sid}").get(f"session:{each.sid}"))
            assert each.unknown == 0
            assert stored[each.key] == each.acknowledged
        # The promoted replica had no script: it got the one that changes. Reads were not due for a refresh.
        assert promoted.info("commandstats")["cmdstat_eval"]["calls"] >= 1
