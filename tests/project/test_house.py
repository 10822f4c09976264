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

ROOT = Path(__file__).parents[2]

#: What may import what: a file imports files that stand below it. A folder's files stand together.
ORDER = [
    *("__init__", "extension", "cli", "checks.app", "checks.findings", "checks.cookies"),
    *("insight.nginx", "insight.caddy", "insight.configuration", "insight.verify", "insight.locations"),
    *("insight.patterns", "following", "patterns"),
    *("flasklogin", "handling", "jsonable", "regeneration", "interface", "finishing", "rendering", "session"),
    *("skipping", "streams", "attributes", "serverside", "signedcookie", "wrapped", "dbsession", "use"),
    *("records.saving", "records.plan", "records.payloads", "records.loading", "records.rotation", "records.store"),
    *(
        "records.expiry",
        "modes",
        "staticfiles",
        "records.merging",
        "records.locks",
        "testing",
        "cookies",
        "ids",
        "startup.names",
    ),
    *("flasksession", "startup.values", "startup.clients", "codec", "registry", "backend", "signals", "logs"),
    *("recorder", "settings", "processes", "pages", "errors"),
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


CORE = {
    ".".join(path.relative_to(ROOT / "lazysession").with_suffix("").parts): path
    for path in sorted((ROOT / "lazysession").rglob("*.py"))
    if "backends" not in path.parts
}
#: The first lines of a folder, which import nothing.
ROOMS = {"records.__init__", "checks.__init__", "insight.__init__", "startup.__init__"}
ADAPTERS = {
    ".".join(path.relative_to(ROOT / "backends").with_suffix("").parts): path
    for path in sorted((ROOT / "backends").rglob("*.py"))
}


def imported_modules(path: Path, package: str) -> set[str]:
    """Return the modules of lazysession that a file imports, without "lazysession."; ``package`` is the file's own."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        first, *parts = [*above, *(node.module or "").split(".")]
        if first == "lazysession":
            module = ".".join(filter(None, parts))
            modules = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            names |= {name if name in CORE else module for name in modules}
    return names


def imports_of(name: str) -> set[str]:
    """Return the modules of lazysession that a file of the core imports."""
    return imported_modules(CORE[name], f"lazysession.{name}".rpartition(".")[0])


@pytest.mark.parametrize("name", ORDER)
def test_arrows_point_down(name: str) -> None:
    """No file imports one above it, and the core imports no adapter."""
    assert imports_of(name) <= set(ORDER[ORDER.index(name) + 1 :])


def on_a_requests_path() -> set[str]:
    """Return the files that a request may pass: those that these three import, and what those import."""
    found, new = set[str](), {"interface", "serverside", "wrapped"}
    while new:
        name = new.pop()
        found.add(name)
        new |= imports_of(name) - found
    return found


@pytest.mark.xfail(strict=True, reason="the goal of 55 was set before finishing, skipping, streams and rendering")
def test_few_arrows_on_a_requests_path() -> None:
    """A reader who follows a request crosses few borders between files."""
    assert sum(len(imports_of(name)) for name in on_a_requests_path()) <= 55


def test_every_file_has_its_place() -> None:
    """A new file is put into the order."""
    assert set(CORE) - ROOMS == set(ORDER)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_know_the_contract_alone(name: str) -> None:
    """An adapter imports ``backend`` and ``processes`` of the core, what adapters share, and its own folder."""
    package = f"backends.{name.partition('.')[0]}"
    imported = imported_modules(ADAPTERS[name], f"lazysession.backends.{name}".rpartition(".")[0])
    others = {name for name in imported if name.startswith("backends.") and not name.startswith(package)}
    assert imported - others <= {"backend", "processes"} | {name for name in imported if name.startswith(package)}
    if name in ("generic", "client_connections"):  # which know the clients of more than one store
        return
    assert not {name.split(".")[1] for name in others} & {
        path.name for path in (ROOT / "backends").iterdir() if path.is_dir()
    }


FILES = [*CORE.values(), *ADAPTERS.values()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_sizes(path: Path) -> None:
    """A file of more than 400 lines holds more than one idea, a function of more than 40 more than one step."""
    text = path.read_text()
    if path.stem not in ("testing", "saving", "use"):  # a list of promises; one loop; one object and what it needs
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
    expected = {path.relative_to(ROOT).as_posix() for path in CORE.values()}
    expected |= {f"lazysession/{path.relative_to(ROOT).as_posix()}" for path in ADAPTERS.values()}
    expected.add("lazysession/py.typed")
    assert {name for name in names if ".dist-info" not in name} == expected
    assert any(name.endswith("entry_points.txt") for name in names)
