"""The page about the architecture names each file of the project, and no file that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.project.test_house import CORE, imports_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "architecture.rst").read_text(encoding="utf-8")
HOUSE = PAGE.partition(".. _house:")[2].partition(".. _import-order:")[0]


def named_in_tables() -> set[str]:
    """Return the files that the tables of the page name, and the folders of ``tests/``, by their paths."""
    paths = set()
    for table in HOUSE.split(".. list-table::")[1:]:
        indented = re.split(r"^(?=\S)", table, flags=re.MULTILINE)[0]
        folder, *rows = re.split(r"^   \* - ", indented, flags=re.MULTILINE)[1:]
        start = re.findall(r"``(\S+/)``", folder)[0]
        for row in rows:
            first, _, rest = row.partition("\n     - ")
            for name in re.findall(r"``(\S+)``", first):
                paths |= {start + name} if name.endswith(".py") or start == "tests/" else set()
                paths |= {start + name + inside for inside in re.findall(r"``(\w+\.py)``", rest) if name.endswith("/")}
    return paths


def test_every_file_is_named() -> None:
    """The tables name each file of the code and each folder of the tests, and nothing else."""
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in (ROOT / "lazysession", ROOT / "backends")
        for path in folder.rglob("*.py")
        if not path.is_relative_to(ROOT / "lazysession" / "backends")
    }
    files -= {path for path in files if path.endswith("/__init__.py")} - {"lazysession/__init__.py"}
    folders = {f"tests/{path.name}/" for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert named_in_tables() == files | folders


def test_every_path_is_there() -> None:
    """Each path that the page mentions exists; NAME stands for any name."""
    paths = re.findall(r"``((?:lazysession|backends|tests|docs)/[\w/]+(?:\.\w+)?)``", PAGE)
    assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == []
    assert len(paths) > 40


def rows_of_imports() -> list[set[str]]:
    """Return the files of each row of the table of imports, from top to bottom, as modules without "lazysession."."""
    table = PAGE.partition(".. _import-order:")[2].partition(".. _glossary:")[0]
    rows = re.findall(r"^   \* - \d\n     - (.*(?:\n       .*)*)", table, re.MULTILINE)
    named = [re.findall(r"``([\w/]+?)(?:\.py|/)``", row) for row in rows]
    return [{name for name in CORE for each in names if name == each or name.startswith(f"{each}.")} for names in named]


def test_imports_point_down_the_table() -> None:
    """Each file of the core is in one row of the table, and imports files of its own row or of rows below."""
    rows = rows_of_imports()
    assert sorted(name for row in rows for name in row) == sorted(CORE)
    for place, row in enumerate(rows):
        allowed = set().union(*rows[place:])
        for name in row:
            assert imports_of(name) <= allowed, name


def named_in_items() -> list[tuple[set[str], set[str]]]:
    """Return the files that each item of "Where to change what" names, and the names of code in it."""
    items = re.split(
        r"^   \d\. ", PAGE.partition(".. _where-to-change:")[2].partition(".. list-table::")[0], flags=re.M
    )
    named = [set(re.findall(r"``(\w+/[\w/]+\.py)``", item)) for item in items]
    names = [set(re.findall(r"``(?:\w+\.)?([A-Za-z_]+)(?:=\w+)?``", item)) for item in items]
    return [pair for pair in zip(named, names, strict=True) if pair[0] and "NAME" not in str(pair[0])]


def test_functions_are_where_the_page_says() -> None:
    """What an item or a step names is in a file that it names."""
    steps = [({path}, {name}) for path, name in re.findall(r"``(\w+/[\w/]+\.py)`` ``(?:\w+\.)?(\w+)", PAGE)]
    for paths, names in named_in_items() + steps:
        text = "".join((ROOT / path).read_text(encoding="utf-8") for path in paths)
        assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set(), paths
    assert len(steps) > 5


def test_every_place_that_compares_a_mode_is_named() -> None:
    """The recipe for a mode names each file that compares one."""
    recipe = PAGE.partition("\nAdd a mode\n")[2].partition("\nChange what")[0]
    comparing = {
        path.relative_to(ROOT).as_posix()
        for path in CORE.values()
        if re.search(r"\bmode (?:is|is not|in|==) .*Mode\.", path.read_text(encoding="utf-8"))
    }
    assert comparing - set(re.findall(r"``(lazysession/[\w/]+\.py)``", recipe)) == set()
    assert "lazysession/use.py" in comparing
