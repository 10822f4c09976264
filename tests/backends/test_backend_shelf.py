"""A store of one's own, from a package of its own: the example of the page "Write your own backend", installed.

The contract is proven in shelf/test_lazysession_shelf.py, as the page shows it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lazysession_shelf import ShelfBackend

from lazysession.backend import Adapter, Outcome, SupportsCheck, SupportsPurge, WriteResult
from lazysession.testing import KEY

PACKAGE = Path(__file__).parent / "shelf"
SHOP = """
from flask import Flask, session
from lazysession import LazySession

app = Flask(__name__)
app.secret_key = "key"
app.config.from_prefixed_env()
LazySession(app)

@app.get("/visits")
def visits():
    session["visits"] = session.get("visits", 0) + 1
    return f"Visit {session['visits']}"
"""
VISIT = """
import sys
from shop import app
client = app.test_client()
if sys.argv[1:]:
    client.set_cookie("session", sys.argv[1])
print(client.get("/visits").text)
print(client.get_cookie("session").value)
"""


# The backend by itself


@pytest.fixture
def shelf(tmp_path: Path) -> ShelfBackend:
    """An empty shelf, whose directory no other account can open."""
    directory = tmp_path / "sessions"
    directory.mkdir(mode=0o700)
    return ShelfBackend(directory)


def test_it_is_an_adapter(shelf: ShelfBackend) -> None:
    """It has each method of the contract, and the two that may be had."""
    assert {name for name in vars(Adapter) if not name.startswith("_")} <= set(dir(ShelfBackend))
    assert isinstance(shelf, SupportsPurge)
    assert isinstance(shelf, SupportsCheck)


@pytest.mark.parametrize("key", ["session:../../x", "/etc/x", "session:" + "\0", ".", "", "session:.lock", "k" * 70000])
def test_a_key_is_no_path(shelf: ShelfBackend, key: str) -> None:
    """Whatever a visitor sends as an id, nothing outside of the directory is read, written or removed."""
    outside = set(shelf._directory.parent.rglob("*")) - set(shelf._directory.rglob("*"))
    assert shelf.read(key) is None
    assert not shelf.touch(key, 1000)
    assert shelf.create(key, b"1", 1000)
    assert shelf.replace(key, b"2", 1000, b"1").outcome is Outcome.STORED
    (path,) = shelf._directory.glob("*.session")
    assert path.read_bytes() == b"2"
    shelf.delete(key)
    assert not path.exists()
    assert set(shelf._directory.parent.rglob("*")) - set(shelf._directory.rglob("*")) == outside


def test_a_disk_that_is_away_is_a_fault(shelf: ShelfBackend) -> None:
    """Every verb raises: no visitor looks logged out."""
    shutil.rmtree(shelf._directory)
    for verb in (
        lambda: shelf.read(KEY),
        lambda: shelf.touch(KEY, 1000),
        lambda: shelf.create(KEY, b"1", 1000),
        lambda: shelf.replace(KEY, b"1", 1000, b"0"),
        lambda: shelf.delete(KEY),
        lambda: shelf.delete(KEY, b"1"),
        shelf.purge,
        lambda: list(shelf.check()),
    ):
        with pytest.raises(FileNotFoundError):
            verb()


def test_an_expired_key_is_free(shelf: ShelfBackend) -> None:
    """A key whose record has expired can be created."""
    shelf.create(KEY, b"old", 0)
    assert shelf.create(KEY, b"new", 1000)
    assert shelf.delete(KEY, b"new") == WriteResult(Outcome.STORED)


def test_purging_spares_what_was_refreshed_meanwhile(shelf: ShelfBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between listing and removing a file, its session may have been refreshed."""
    for number in range(2):
        shelf.create(f"{KEY}{number}", b"", 0)
    received = []

    def progress(done: int, total: int) -> None:
        received.append((done, total))
        for path in shelf._directory.glob("*.session"):
            os.utime(path, (2**32, 2**32))

    assert shelf.purge(progress) == 1
    assert received == [(1, 2), (2, 2)]


def test_purging_removes_what_writers_left(shelf: ShelfBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that died while it wrote left a file that is no session: it is removed and not counted."""

    def replace(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(OSError, match="Input/output error"):
            shelf.create(KEY, b"1", 0)
    assert shelf.read(KEY) is None
    assert [path.suffix for path in sorted(shelf._directory.iterdir())] == [".lock", ".new"]
    assert shelf.purge() == 0
    assert [path.suffix for path in shelf._directory.iterdir()] == [".lock"]


def test_other_accounts_cannot_read_sessions(shelf: ShelfBackend) -> None:
    """Files are the account's own, and a directory that is not is found."""
    shelf.create(KEY, b"1", 1000)
    assert {path.stat().st_mode & 0o777 for path in shelf._directory.iterdir()} == {0o600}
    assert list(shelf.check()) == []
    shelf._directory.chmod(0o750)
    assert [(problem.severity, problem.name) for problem in shelf.check()] == [("error", "shelf-mode")]


@pytest.mark.parametrize("make", [str, Path, "shelf://{}".format], ids=["text", "path", "url"])
def test_the_setting(tmp_path: Path, make: type) -> None:
    """A path, or a URL, in which a blank is written as %20."""
    directory = tmp_path / "a b"
    directory.mkdir()
    value = make(directory)
    if isinstance(value, str) and value.startswith("shelf:"):
        value = value.replace(" ", "%20")
    assert ShelfBackend.from_setting(value)._directory == directory


@pytest.mark.parametrize("value", [None, 42, "", "sessions", "shelf://nas/pa:ss@word", "/missing", b"/", "shelf:///no"])
def test_a_setting_that_cannot_be_used(value: object) -> None:
    """No value is no default either, as Flask-Session has none for it; a value is not repeated."""
    with pytest.raises(ValueError, match="has to name a directory that is there") as error:
        ShelfBackend.from_setting(value)
    assert "pa:ss" not in str(error.value)


# The package, installed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the package, built of a copy, as a build leaves its own files behind."""
    folder = tmp_path_factory.mktemp("shelf")
    shutil.copytree(PACKAGE, folder / "package", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(folder / "package")]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


class Shop:
    """An app in processes of its own, configured by the environment alone."""

    def __init__(self, folder: Path, *wheels: Path) -> None:
        (folder / "shop.py").write_text(SHOP)
        self.sessions = folder / "sessions"
        self.sessions.mkdir(mode=0o700)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLASK_")},
            "PYTHONPATH": os.pathsep.join(map(str, [folder, *wheels])),
            "FLASK_SESSION_TYPE": "shelf",
            "FLASK_SESSION_SHELF": f"shelf://{self.sessions}",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a fresh Python with these arguments."""
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=self.sessions.parent, capture_output=True, text=True, check=False
        )

    def visit(self, *cookie: str) -> list[str]:
        """Visit the shop in a process of its own; return the text and the cookie."""
        visited = self.run("-c", VISIT, *cookie)
        assert visited.returncode == 0, visited.stderr
        return visited.stdout.split("\n")[:2]


@pytest.fixture
def shop(tmp_path: Path, wheel: Path) -> Shop:
    """The shop where the package is installed."""
    return Shop(tmp_path, wheel)


def test_sessions_are_on_the_shelf(shop: Shop) -> None:
    """The entry point is found, and the next process finds the session."""
    text, cookie = shop.visit()
    assert text == "Visit 1"
    assert shop.visit(cookie) == ["Visit 2", cookie]
    (path,) = shop.sessions.glob("*.session")
    assert b"visits" in path.read_bytes()


def test_the_commands(shop: Shop) -> None:
    """``flask lazysession purge`` and ``check`` reach the backend."""
    for _ in range(2):
        shop.visit()
    os.utime(min(shop.sessions.glob("*.session")), (0, 0))
    purged = shop.run("-m", "flask", "--app", "shop", "lazysession", "purge")
    assert purged.stdout.endswith("Purged 1 expired session.\n"), purged.stderr
    assert len(list(shop.sessions.glob("*.session"))) == 1
    shop.sessions.chmod(0o755)
    checked = shop.run("-m", "flask", "--app", "shop", "lazysession", "check")
    assert checked.returncode == 1
    assert "error: Other accounts can open the directory of sessions. [shelf-mode]" in checked.stdout


def test_an_unknown_type_names_the_shelf(shop: Shop) -> None:
    """What is installed is among the types that are known."""
    shop.environment["FLASK_SESSION_TYPE"] = "shelve"
    error = shop.run("-c", VISIT).stderr.splitlines()[-1]
    assert error.startswith("lazysession.errors.ConfigurationError: SESSION_TYPE is 'shelve'; known are ")
    assert " shelf, " in error


def test_a_setting_that_is_wrong_is_named(shop: Shop) -> None:
    """The app does not start, and says which setting it was."""
    shop.sessions.rmdir()
    error = shop.run("-c", VISIT).stderr.splitlines()[-1]
    assert error.startswith("lazysession.errors.ConfigurationError: SESSION_SHELF cannot be used: it has to name a ")


def test_without_the_package_the_type_is_unknown(tmp_path: Path) -> None:
    """It is the entry point, and nothing in LazySession itself, that makes the type known."""
    error = Shop(tmp_path).run("-c", VISIT).stderr.splitlines()[-1]
    assert error.startswith("lazysession.errors.ConfigurationError: SESSION_TYPE is 'shelf'; known are ")
    assert "shelf" not in error.partition(";")[2]
