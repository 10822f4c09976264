"""The shape of the house: public names, arrows between files, sizes, packaging."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lazysession

ROOT = Path(__file__).parent.parent

#: Who may import whom: a file imports files that stand below it.
ORDER = [
    *(
        "__init__",
        "extension",
        "cli",
        "checks",
        "findings",
        "cookiechecks",
        "handling",
        "logins",
        "jsonable",
        "regeneration",
        "interface",
        "early",
        "streams",
        "finishing",
        "rendering",
        "session",
        "skipping",
        "failures",
        "attributes",
        "settings",
        "rules",
        "patterns",
        "staticfiles",
        "serialized",
        "serverside",
        "reading",
        "records.saving",
        "forwarding",
        "lifetimes",
        "wrapped",
        "dbsession",
        "closing",
    ),
    *("records.locks", "records.merging"),
    *(
        "testing",
        "cookies",
        "caching",
        "names",
        "flasksession",
        "values",
        "codec",
        "registry",
        "backend",
        "signals",
        "recorder",
        "trace",
        "errors",
    ),
]


def test_public_names() -> None:
    """What the package offers, pinned."""
    assert lazysession.__all__ == [
        "ConfigurationError",
        "LazySession",
        "Mode",
        "SessionConflict",
        "SessionReadOnly",
        "SessionUnavailable",
        "regenerate",
        "session_conflict",
        "session_mode",
        "session_opened",
        "session_write_dropped",
    ]
    assert all(hasattr(lazysession, name) for name in lazysession.__all__)


def imported_modules(path: Path) -> set[str]:
    """Answer the modules of the package that a file imports."""
    names: set[str] = set()
    package = "records." if path.parent.name == "records" else ""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            modules = {node.module} if node.module else {alias.name for alias in node.names}
            names |= {f"{package}{module}" for module in modules}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lazysession"):
            names.add(node.module.removeprefix("lazysession").lstrip("."))
    return names


@pytest.mark.parametrize("name", ORDER)
def test_arrows_point_down(name: str) -> None:
    """No file imports one above it, and the core imports no adapter."""
    imported = imported_modules(ROOT / "lazysession" / f"{name.replace('.', '/')}.py")
    assert imported <= set(ORDER[ORDER.index(name) + 1 :])


def test_every_file_has_its_place() -> None:
    """A new file is put into the order."""
    assert {path.stem for path in (ROOT / "lazysession").glob("*.py")} == {name for name in ORDER if "." not in name}
    records = {f"records.{path.stem}" for path in (ROOT / "lazysession" / "records").glob("[a-z]*.py")}
    assert records == {name for name in ORDER if "." in name}


@pytest.mark.parametrize("path", sorted((ROOT / "backends").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_adapters_know_the_contract_alone(path: Path) -> None:
    """An adapter imports ``lazysession.backend`` and nothing else of the core."""
    assert {name for name in imported_modules(path) if not name.startswith("backends._")} <= {"backend"}


FILES = sorted([*(ROOT / "lazysession").glob("*.py"), *(ROOT / "backends").glob("*.py")])
FILES += sorted((ROOT / "lazysession" / "records").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sizes(path: Path) -> None:
    """A file of more than 400 lines holds more than one idea, a function of more than 40 more than one step."""
    text = path.read_text()
    if path.stem not in ("testing", "saving"):  # a list of promises; one loop and what goes through it
        assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 40, f"{path.name}: {node.name}"


def test_adapters_are_imported_by_their_installed_name() -> None:
    """``import backends`` is refused: two copies of one module would be two sets of classes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", "import backends"], env=environment, capture_output=True, text=True, check=False
    )
    assert "imported as lazysession.backends" in result.stderr


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    """The wheel that is built from the sdist has both halves, the marker of types, and the entry points."""
    command = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"lazysession/{path.name}" for path in (ROOT / "lazysession").glob("*.py")}
    expected |= {f"lazysession/backends/{path.name}" for path in (ROOT / "backends").glob("*.py")}
    expected |= {f"lazysession/records/{path.name}" for path in (ROOT / "lazysession" / "records").glob("*.py")}
    expected.add("lazysession/py.typed")
    assert {name for name in names if ".dist-info" not in name} == expected
    assert any(name.endswith("entry_points.txt") for name in names)
