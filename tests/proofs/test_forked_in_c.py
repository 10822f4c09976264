"""Workers that are forked in C, as by uWSGI's defaults, share no connection and wait for no lock of their parent."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import command_for

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

#: Every store that processes can share, and what its address is: a server's name, or the test's own folder.
STORES = {
    "redis": "redis",
    "sqlite": "folder",
    "postgresql": "postgresql",
    "psycopg2": "postgresql",
    "mariadb": "mariadb",
    "memcached": "memcached",
    "mongodb": "mongodb",
    "dynamodb": "dynalite",
    "files": "folder",
}
#: The same for clients of the app's own.
CLIENTS = {
    "flask-sqlalchemy": "postgresql",
    "pymemcache": "memcached",
    "pylibmc": "memcached",
    "python-memcached": "memcached",
}
#: The same behind an interface with storage methods of its own.
OVERRIDDEN = {f"overridden {name}": "memcached" for name in ("pymemcache", "PooledClient", "HashClient", "pylibmc")}
OVERRIDDEN["overridden python-memcached"] = "memcached"


def run_forked(store: str, address: str, before: str) -> subprocess.CompletedProcess[str]:
    """Run the workers in a process with one thread: a lock that another holds at the fork would stay locked."""
    command = command_for("tests.support.forking", store, address, before)
    environ = {**os.environ, "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, env=environ, capture_output=True, check=False, text=True, timeout=60)


@pytest.mark.parametrize("before", ["used", "unused"])
@pytest.mark.parametrize("store", STORES | CLIENTS | OVERRIDDEN)
def test_every_worker_sees_only_its_own_sessions(
    request: pytest.FixtureRequest, tmp_path: Path, store: str, before: str
) -> None:
    """A session is used before the fork or not: no answer is another visitor's, no session is lost."""
    if store.endswith("pylibmc"):
        pytest.importorskip("pylibmc")
    needs = (STORES | CLIENTS | OVERRIDDEN)[store]
    address = str(tmp_path) if needs == "folder" else request.getfixturevalue(f"{needs}_url")
    ended = run_forked(store, address, before)
    assert ended.returncode == 0, ended.stderr[-2000:]
