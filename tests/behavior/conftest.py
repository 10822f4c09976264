"""Fixtures of the tests of static files."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.support.static_shop import MakeShop, make_static_shop, write_files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of static files."""
    return write_files(tmp_path)


@pytest.fixture
def make_shop(files: Path) -> MakeShop:
    """A function that makes an app with these files."""
    return functools.partial(make_static_shop, files)
