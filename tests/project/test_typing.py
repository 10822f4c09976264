"""The folder ``typing`` uses each public name, and nothing else runs it but type checkers."""

from __future__ import annotations

import ast
from pathlib import Path

import lazysession

FILES = sorted((Path(__file__).parents[1] / "typing").glob("*.py"))


def test_every_public_name_is_checked() -> None:
    """A name that is added to the package is used there."""
    imports = [
        node for path in FILES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
    ]
    used = {alias.name for each in imports if each.module == "lazysession" for alias in each.names}
    assert used == set(lazysession.__all__)
