"""Apps that gevent patches after they were made: no greenlet sees another's session, and none stops all others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.forking import CLIENTS, STORES
from tests.support.optional import import_or_skip
from tests.support.processes import run_module

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: run it on Linux or macOS")

#: Without Flask-SQLAlchemy, which keeps connections of the threads before; MongoDB is in KNOWN of the matrix.
EVERY = {name: needs for name, needs in (STORES | CLIENTS).items() if name not in ("flask-sqlalchemy", "mongodb")}
EVERY |= {"overridden pymemcache": "memcached", "overridden python-memcached": "memcached"}


def run_late(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run in a process that is not patched yet."""
    return run_module("tests.support.patched_late", *arguments, timeout=90)


@pytest.mark.parametrize("store", EVERY)
def test_a_worker_that_is_patched_after_the_fork(request: pytest.FixtureRequest, tmp_path: Path, store: str) -> None:
    """As gunicorn's gevent workers with --preload: each greenlet sees only its own sessions, and loses none."""
    if store.endswith("pylibmc"):
        import_or_skip("pylibmc")
    address = str(tmp_path) if EVERY[store] == "folder" else request.getfixturevalue(f"{EVERY[store]}_url")
    ended = run_late("visits", store, address)
    assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.mark.parametrize("lock", ["of a record", "of objects", "of a client"])
def test_a_lock_of_before_is_not_used(lock: str) -> None:
    """Two greenlets exclude each other, and the one that waits stops no third."""
    ended = run_late("locks", lock)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.split() == ["first", "third", "first", "second", "second"]


def test_a_session_is_loaded_once() -> None:
    """Two greenlets that use the session of one request load it once."""
    ended = run_late("load")
    assert ended.returncode == 0, ended.stderr[-2000:]
    in_one, in_two = ended.stdout.split()
    assert in_one == in_two
