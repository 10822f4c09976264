"""The page of guarantees names a test in each row, and each of them is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "guarantees.rst").read_text(encoding="utf-8")
ROWS = re.findall(r"^   \* - (.+?)\n     - (.+?)$", PAGE, re.MULTILINE | re.DOTALL)


@cache
def names_in(path: str) -> set[str]:
    """Answer the names of the tests of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize(("text", "proof"), ROWS, ids=[proof for _, proof in ROWS])
def test_each_row_names_its_test(text: str, proof: str) -> None:
    """A test that is renamed or removed is noticed here."""
    named = re.fullmatch(r"``(\S+\.py)`` ``(test_\w+)``", proof)
    assert named, f"{text!r} names no test"
    assert named[2] in names_in(named[1])


def test_every_row_was_looked_at() -> None:
    """The rows that are found are all that there are."""
    assert len(ROWS) == PAGE.count("\n   * - ") > 30
