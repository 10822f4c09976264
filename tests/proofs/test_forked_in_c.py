"""Workers that are forked in C, as by uWSGI's defaults, share no connection and wait for no lock of their parent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.forking import CLIENTS, OVERRIDDEN, STORES
from tests.support.optional import import_or_skip
from tests.support.processes import run_module

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: run it on Linux or macOS")


@pytest.mark.parametrize("before", ["used", "unused"])
@pytest.mark.parametrize("store", STORES | CLIENTS | OVERRIDDEN)
def test_every_worker_sees_only_its_own_sessions(
    request: pytest.FixtureRequest, tmp_path: Path, store: str, before: str
) -> None:
    """A session is used before the fork or not: no answer is another visitor's, no session is lost."""
    if store.endswith("pylibmc"):
        import_or_skip("pylibmc")
    needs = (STORES | CLIENTS | OVERRIDDEN)[store]
    address = str(tmp_path) if needs == "folder" else request.getfixturevalue(f"{needs}_url")
    ended = run_module("tests.support.forking", store, address, before)
    assert ended.returncode == 0, ended.stderr[-2000:]
