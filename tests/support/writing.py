"""A process that writes to one session in threads, while other processes do the same."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask
from flask_session import Session

from lazysession import LazySession
from tests.support.processes import app_on, count_errors, hear, tell

THREADS = 4


def write(app: Flask, cookie: str, keys: list[list[str]]) -> dict[str, Any]:
    """Set each key in a request of its own; return the keys whose requests succeeded, and the errors.

    :param keys: for each thread, the keys that it sets one after the other.
    """
    together, errors = threading.Barrier(len(keys)), count_errors(app)

    def work(mine: list[str]) -> list[str]:
        client = app.test_client(use_cookies=False)
        together.wait()
        return [key for key in mine if client.get(f"/set/{key}", headers={"Cookie": cookie}).status_code == 200]

    started = time.monotonic()
    with ThreadPoolExecutor(len(keys)) as threads:
        done = [key for each in threads.map(work, keys) for key in each]
    return {"done": done, "errors": dict(errors), "seconds": time.monotonic() - started}


def main() -> None:
    """Do one job after the other: make an app, say so, and write on request."""
    while job := hear():
        with app_on(job["store"], job["address"], LazySession if job["lazy"] else Session) as app:
            app.test_client(use_cookies=False).get("/look", headers={"Cookie": job["cookie"]})  # connects
            tell("ready")
            hear()
            tell(write(app, job["cookie"], job["keys"]))
