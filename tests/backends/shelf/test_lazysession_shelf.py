"""The shelf against LazySession's contract."""

import time
from functools import partial
from pathlib import Path

import pytest
from lazysession_shelf import ShelfBackend

from lazysession.testing import ComparesAtomically, Contract, Held, KeepsTtl, PurgesExpired, TellsTtl


class TestShelf(Contract, TellsTtl, KeepsTtl, ComparesAtomically, PurgesExpired):
    """All of it holds."""

    longest_key = 5000

    @pytest.fixture
    def held(self, tmp_path: Path) -> Held:
        passed = [0.0]

        def pass_time(seconds: float) -> None:
            passed[0] += seconds

        backend = ShelfBackend(tmp_path, clock=lambda: time.time() + passed[0])
        return Held(backend, pass_time, connect=partial(ShelfBackend, tmp_path))
