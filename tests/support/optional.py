"""Packages that the tests use where they are installed."""

from __future__ import annotations

from typing import Any

import pytest

#: How to install what the group "test" does not have on every Python.
HOW = {
    "pylibmc": "apt-get install libmemcached-dev, then pip install pylibmc",
    "psycopg": "pip install 'psycopg[binary]'",
    "psycopg2": "pip install psycopg2-binary",
}


def import_or_skip(package: str) -> Any:
    """Return a package; skip the test, or the file, where it is not installed."""
    return pytest.importorskip(package, reason=f"{package} is not installed: {HOW[package]}")
