"""A MongoDB whose primary is killed under load."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from flask import Flask
from pymongo import MongoClient

from lazysession import LazySession
from tests.support.on_mongodb import COLLECT, DB, make_shop
from tests.support.servers import mongodb_set, wait_until

pytestmark = pytest.mark.usefixtures("close_mongodb")

# Failover


class Load:
    """Visitors on threads of their own, which make steps until they are stopped.

    :param visitors: how many.
    """

    def __init__(self, visitors: int) -> None:
        self.done = [0] * visitors
        self.failed: Counter[int] = Counter()
        self.ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, step: Callable[[int, int], int]) -> None:
        """Make each visitor take steps; ``step(visitor, number)`` returns the status of the response."""
        for visitor in range(len(self.done)):
            self._threads.append(threading.Thread(target=self._run, args=(visitor, step)))
            self._threads[-1].start()

    def _run(self, visitor: int, step: Callable[[int, int], int]) -> None:
        for number in itertools.count(1):
            status = step(visitor, number)
            if status == 200:
                self.done[visitor] += 1
            else:
                self.failed[status] += 1
            if self.ending.is_set():
                return

    def wait(self, steps: int) -> None:
        """Wait until each visitor has taken so many steps from now on."""
        goals = [done + steps for done in self.done]
        wait_until(lambda: all(done >= goal for done, goal in zip(self.done, goals, strict=True)), "the load", 60)

    def finish(self) -> None:
        """Stop each visitor after its present step."""
        self.ending.set()
        for thread in self._threads:
            thread.join()


def test_the_primary_is_killed_under_load(mongodb_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """After a failover the app continues without a restart, and nothing that was acknowledged is lost or revived."""
    with mongodb_set() as url, MongoClient(url) as admin:
        app = make_shop(LazySession, SESSION_MONGODB=url)
        shared = app.test_client().get("/set/owner/all").text
        own = [app.test_client().get("/set/owner/one").text for _ in range(2)]
        kept: list[tuple[str, str]] = []
        ended: list[str] = []

        def change(visitor: int, number: int) -> int:
            """Add a key to the visitor's own session, and one to the session of all."""
            status = 0
            for sid in (own[visitor], shared):
                key = f"{visitor}.{number}"
                status = (response := request(app, sid, f"/set/{key}/1")).status_code
                if status == 200 and response.text == sid:
                    kept.append((sid, key))
            return status

        def log_out(_visitor: int, _number: int) -> int:
            """Log in, add a key, and log out."""
            client = app.test_client()
            statuses = [client.get(path).status_code for path in ("/set/a/1", "/set/b/1")]
            sid = client.get_cookie("session")
            status = client.get("/clear").status_code
            if statuses == [200, 200] and status == 200 and sid is not None:
                ended.append(sid.value)
            return status

        def look_on(_visitor: int, number: int) -> int:
            load["untouched"].ending.wait(0.005)  # not to take the processor from the others
            return request(app, own[0], "/untouched" if number % 2 else "/static/on_mongodb.py").status_code

        load = {"changes": Load(2), "logouts": Load(4), "untouched": Load(1)}
        for part, step in zip(load.values(), (change, log_out, look_on), strict=True):
            part.start(step)
        try:
            for part in load.values():
                part.wait(20)
            before = {name: sum(part.done) for name, part in load.items()}
            primary = admin.admin.command("serverStatus")["pid"]  # one of our own three servers
            os.kill(primary, signal.SIGSTOP)
            load["untouched"].wait(40)  # meanwhile all other threads wait for a reply
            os.kill(primary, signal.SIGKILL)
            killed = time.monotonic()
            load["changes"].wait(2)  # a step may have been under way
            seconds = time.monotonic() - killed
            for part in load.values():
                part.wait(20)
        finally:
            for part in load.values():
                part.finish()
        with capsys.disabled():
            sys.stdout.write(f"\nMongoDB takes changes again {seconds:.1f} s after SIGKILL of the primary.")
            for name, part in load.items():
                after = sum(part.done) - before[name]
                sys.stdout.write(f"\n{name}: {before[name]} before SIGKILL, {after} after, failed {dict(part.failed)}")
        assert load["untouched"].failed == Counter()
        stored = {each["id"]: msgspec.msgpack.decode(each["val"]) for each in admin[DB][COLLECT].find()}
        assert len(kept) >= 2 * 2 * 40
        assert [fact for fact in kept if fact[1] not in stored[f"session:{fact[0]}"]] == []
        assert len(ended) >= 4 * 40 - sum(load["logouts"].failed.values())
        assert [sid for sid in ended if f"session:{sid}" in stored] == []
        app.session_interface.client.close()  # type: ignore[attr-defined]


def request(app: Flask, sid: str, path: str) -> Any:
    """Get a page with a cookie."""
    client = app.test_client()
    client.set_cookie("session", sid)
    return client.get(path, buffered=True)
