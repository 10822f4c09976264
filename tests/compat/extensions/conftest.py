"""Fixtures for the tests of extensions."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.stores import RedisStore


def pytest_configure(config: pytest.Config) -> None:
    """Make warnings errors only where they are about this package: the extensions have many of their own."""
    for line in ("ignore", "error:::lazysession"):
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="module")
def store(redis_url: str) -> Generator[RedisStore]:
    """A real Redis."""
    opened = RedisStore(redis_url)
    yield opened
    opened.close()
