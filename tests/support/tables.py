"""Tables of the documentation that are written by tests, from what these have found."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Row = Sequence[str]

_CALLED = {"redis": "redis-py"}


def list_table(head: Row, rows: Sequence[Row], widths: Sequence[int]) -> str:
    """Return a table in reStructuredText."""
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "   :class: generated",
        f"   :widths: {' '.join(map(str, widths))}",
        "",
    ]
    return "\n".join([*lines, "".join(map(list_table_row, [head, *rows]))])


def made_by(command: str, packages: Iterable[str], redis_version: str) -> str:
    """Return the lines that say by which command, when and with which versions tables were made."""
    versions = ", ".join(f"{_CALLED.get(package, package)} {version(package)}" for package in packages)
    made = f"Made by ``{command} --write-tables`` on {date.today()} with Redis {redis_version}, {versions}."
    return "\n".join(textwrap.wrap(made, 120, break_on_hyphens=False)) + "\n"


def keep(name: str, head: Row, rows: Sequence[Row], widths: Sequence[int], request: pytest.FixtureRequest) -> None:
    """Write a table of the documentation when asked to (``--write-tables``); else compare it with what is there."""
    path = ROOT / "docs" / "_generated" / f"{name}.rst"
    table = list_table(head, rows, widths)
    if request.config.getoption("--write-tables"):
        path.write_text(table, encoding="utf-8")
    remedy = f"the table is old: run pytest {request.path.relative_to(ROOT)} --write-tables"
    assert path.read_text(encoding="utf-8") == table, remedy


def list_table_row(row: Row) -> str:
    """Return one row of such a table."""
    cells = (cell.replace("\n", "\n       ") for cell in row)
    return "".join(f"{'     ' if number else '   * '}- {cell}\n" for number, cell in enumerate(cells))
