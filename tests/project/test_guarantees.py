"""The pages of guarantees and of differences name a test in each row, and each of them is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from lazysession.settings import NAMES, PREFIX

ROOT = Path(__file__).parents[2]


class Row(NamedTuple):
    """A row of a table.

    :param cells: the text of each, of which the last one ends with the test.
    """

    page: str
    cells: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.cells[0].split())[:60]}"


def rows_of(page: str) -> list[Row]:
    """Return the rows of all tables of a page, without those of headings."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = []
    for table in re.split(r"^\.\. list-table::.*\n", text, flags=re.MULTILINE)[1:]:
        options, *parts = re.split(r"^   \* - ", re.split(r"^(?=\S)", table, flags=re.MULTILINE)[0], flags=re.MULTILINE)
        cells = [tuple(cell.strip() for cell in re.split(r"^     - ", part, flags=re.MULTILINE)) for part in parts]
        rows += [Row(page, each) for each in cells[":header-rows: 1" in options :]]
    return rows


GUARANTEES, DIFFERENCES = rows_of("explanation/guarantees.rst"), rows_of("reference/differences.rst")


@cache
def names_in(path: str) -> set[str]:
    """Return the names of the tests of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", GUARANTEES + DIFFERENCES, ids=str)
def test_each_row_names_its_test(row: Row) -> None:
    """A test that is renamed or removed is noticed here."""
    named = re.search(r"(?:^|\n\n *)``(\S+\.py)`` ``(test_\w+)``$", row.cells[-1])
    assert named, f"{row} names no test"
    assert named[2] in names_in(named[1])


@pytest.mark.parametrize("row", DIFFERENCES, ids=str)
def test_each_difference_says_how_to_undo_it(row: Row) -> None:
    """It names a setting that exists, or says why there is none or what to do instead."""
    flask_session, ours, why, undone = row.cells
    assert flask_session
    assert ours
    assert why
    undone = undone.rpartition("\n\n")[0]
    assert {name.removeprefix(PREFIX) for name in re.findall(PREFIX + r"\w+", undone)} <= set(NAMES)
    assert re.match(r"None\b.* .|.*(?:``|:ref:|:doc:)", undone, re.DOTALL), f"{row}: {undone!r}"


@pytest.mark.parametrize(("rows", "least"), [(GUARANTEES, 60), (DIFFERENCES, 55)], ids=["guarantees", "differences"])
def test_every_row_was_looked_at(rows: list[Row], least: int) -> None:
    """The rows that are found are all that there are."""
    page = (ROOT / "docs" / rows[0].page).read_text(encoding="utf-8")
    assert len(rows) == page.count("\n   * - ") - page.count(":header-rows: 1") >= least
