"""``flask lazysession rules``, ``purge`` and ``check``."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from flask import Flask
from flask_session import Session

from lazysession import LazySession, session_mode
from lazysession.backend import Problem


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """An app with a route for each way to get a mode."""
    (tmp_path / "site.css").touch()
    app = Flask("shop", static_folder=str(tmp_path), static_url_path="/static")
    app.config["SECRET_KEY"] = "key"
    app.config["LAZYSESSION_RULES"] = [("/static/private/**", "normal"), ("method:POST", "normal")]
    app.config["LAZYSESSION_SKIP_PATHS"] = ["/health"]
    LazySession(app)
    app.add_url_rule("/", "index", lambda: "")
    app.add_url_rule("/health", "health", lambda: "")
    app.add_url_rule("/poll", "poll", session_mode("no_refresh")(lambda: ""))
    app.add_url_rule("/item/<int:number>", "item", lambda number: "", methods=["GET", "POST"])
    return app


def run(app: Flask, *arguments: str) -> str:
    result = app.test_cli_runner().invoke(args=["lazysession", "rules", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_table(app: Flask) -> None:
    """Every route with its mode, and what decided it."""
    assert run(app) == (
        "Endpoint  Methods  Rule                     Mode        Decided by\n"
        "--------  -------  -----------------------  ----------  -------------\n"
        "health    GET      /health                  skip        /health\n"
        "index     GET      /                        normal      default\n"
        "item      GET      /item/<int:number>       normal      default\n"
        "item      POST     /item/<int:number>       normal      method:POST\n"
        "poll      GET      /poll                    no_refresh  @session_mode\n"
        "static    GET      /static/<path:filename>  skip        static files\n"
    )


def test_rules_that_need_a_real_request() -> None:
    """A callable that needs more than the command can make up is reported, and the table continues."""
    app = Flask("shop", static_folder=None)
    app.config["LAZYSESSION_RULES"] = [(lambda request: request.view_args["number"] > 5, "skip")]
    LazySession(app)
    app.add_url_rule("/item/<int:number>", "item", lambda number: "")
    assert "a rule needs a real request (TypeError)" in run(app)
    assert run(app, "/item/7").splitlines()[-1].split()[1] == "skip"
    assert run(app, "/item/7?x=1").splitlines()[-1].split()[:2] == ["item", "skip"]


@pytest.mark.parametrize(
    ("arguments", "endpoint", "mode", "reason"),
    [
        (["/poll"], "poll", "no_refresh", "@session_mode"),
        (["/static/site.css"], "static", "skip", "static files"),
        (["/static/private/a.pdf"], "static", "normal", "/static/private/**"),
        (["/item/5"], "item", "normal", "default"),
        (["/item/5", "--method", "post"], "item", "normal", "method:POST"),
        (["/nowhere"], "(no route)", "normal", "default"),
        (["/health"], "health", "skip", "/health"),
    ],
)
def test_path(app: Flask, arguments: list[str], endpoint: str, mode: str, reason: str) -> None:
    """A request to a path, with the rule that decides it."""
    last = run(app, *arguments).splitlines()[-1]
    assert [part.strip() for part in last.split("  ") if part] == [endpoint, mode, reason]


def test_a_path_without_a_slash(app: Flask) -> None:
    """What is no path is an error that says so."""
    result = app.test_cli_runner().invoke(args=["lazysession", "rules", "health"])
    assert result.exit_code == 2
    assert "'health' does not start with '/'" in result.output


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_app_whose_interface_was_replaced(app: Flask) -> None:
    """Session(app) after LazySession(app) replaces the interface; the command says so."""
    app.config["SESSION_TYPE"] = "redis"
    Session(app)
    result = app.test_cli_runner().invoke(args=["lazysession", "rules"])
    assert result.exit_code == 1
    assert "its interface is RedisSessionInterface" in result.output


def test_hosts_and_subdomains() -> None:
    """Where routes depend on the host, a whole URL finds them."""
    app = Flask("shop", subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.com"
    LazySession(app)
    app.add_url_rule("/x", "x", lambda: "", subdomain="api")
    last = run(app, "http://api.example.com/x").splitlines()[-1]
    assert last.split() == ["x", "normal", "default"]


def test_purge(tmp_path: Path) -> None:
    """Purging says how many expired sessions it removed."""
    app = Flask("shop")
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=f"sqlite:///{tmp_path}/sessions.db")
    LazySession(app)
    backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
    for number in range(3):
        backend.create(f"key{number}", b"", 60)
    now = backend.clock
    backend.clock = lambda: now() + timedelta(seconds=61)
    runner = app.test_cli_runner()
    assert "Purged 3 expired sessions." in runner.invoke(args=["lazysession", "purge"]).output
    assert "Purged 0 expired sessions." in runner.invoke(args=["lazysession", "purge"]).output


def test_purge_of_files(tmp_path: Path) -> None:
    """Sessions in files are purged the same way."""
    app = Flask("shop")
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=f"file:{tmp_path}/sessions")
    LazySession(app)
    backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
    for number in range(3):
        backend.create(f"key{number}", backend.codec.encode({"a": 1}), 60)
    now = backend.clock
    backend.clock = lambda: now() + 61
    result = app.test_cli_runner().invoke(args=["lazysession", "purge"])
    assert "Purged 3 expired sessions." in result.output, result.output


def test_purge_where_there_is_nothing_to_purge(app: Flask) -> None:
    """A store that expires its records needs no purging."""
    assert "Nothing to purge" in app.test_cli_runner().invoke(args=["lazysession", "purge"]).output


# check


def sound_app(**settings: Any) -> Flask:
    """Make an app on fakeredis with everything right; a check of its store finds what is given as ``problems``."""
    app = Flask("shop", static_folder=None)
    app.config.update(SESSION_COOKIE_NAME="__Host-session", SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="Lax")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis())
    app.config.update(settings)
    LazySession(app)
    return app


def finds(app: Flask, problems: Iterable[Problem]) -> None:
    """Make the check of the app's store find these."""
    app.session_interface.handler.backend.check = lambda: problems  # type: ignore[attr-defined]


def check(app: Flask, *arguments: str) -> tuple[str, int]:
    """Return what the command prints, and its exit status."""
    result = app.test_cli_runner().invoke(args=["lazysession", "check", *arguments])
    return result.output, result.exit_code


FORGETS = Problem("error", "The store forgets.", "Tell it not to.", "store-forgets")
SLOW = Problem("warning", "The store is slow.", "Ask it less.", "store-slow")
FAR = Problem("info", "The store is far.", "Move.")


def test_nothing_to_find() -> None:
    """For a sound app the command prints one line."""
    app = sound_app()
    finds(app, [])
    assert check(app) == ("No findings.\n", 0)


def test_findings_are_sorted() -> None:
    """The worst is first, each with its name where it has one and its remedy; the last line counts them."""
    app = sound_app(SESSION_COOKIE_SECURE=False, SESSION_COOKIE_NAME="session")
    finds(app, [FAR, SLOW, FORGETS])
    output, status = check(app)
    lines = output.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == [
        "error",
        "warning",
        "warning",
        "info",
        "1 error, 2 warnings, 1 info.",
    ]
    assert lines[:2] == ["error: The store forgets. [store-forgets]", "    Tell it not to."]
    assert lines[2].startswith("warning: SESSION_COOKIE_SECURE")  # settings before the store
    assert lines[6:8] == ["info: The store is far.", "    Move."]
    assert status == 1


@pytest.mark.parametrize(
    ("problem", "arguments", "status"),
    [
        (FORGETS, [], 1),
        (SLOW, [], 0),
        (FAR, [], 0),
        (SLOW, ["--fail-on", "warning"], 1),
        (FAR, ["--fail-on", "warning"], 0),
        (FAR, ["--fail-on", "info"], 1),
        (FORGETS, ["--fail-on", "info"], 1),
        (FORGETS, ["--ignore", "store-forgets"], 0),
        (FORGETS, ["--ignore", "secret-key", "--ignore", "store-forgets"], 0),
        (FORGETS, ["--ignore", "secret-key"], 1),
        (FORGETS, ["--offline"], 0),
        (Problem("critical", "On fire.", "Water."), [], 0),  # an adapter's own severity counts as a warning
        (Problem("critical", "On fire.", "Water."), ["--fail-on", "warning"], 1),
        (FORGETS, ["--fail-on", "critical"], 2),
    ],
)
def test_exit_status(problem: Problem, arguments: list[str], status: int) -> None:
    """Errors make it 1, or the severity of --fail-on; what is ignored or not checked does not count."""
    app = sound_app()
    finds(app, [problem])
    assert check(app, *arguments)[1] == status


def test_what_is_ignored_is_counted() -> None:
    """A finding that is left out is counted."""
    app = sound_app()
    finds(app, [FORGETS, SLOW])
    output, _ = check(app, "--ignore", "store-forgets")
    assert output == "warning: The store is slow. [store-slow]\n    Ask it less.\n1 warning (1 ignored).\n"
    output, _ = check(app, "--ignore", "store-forgets", "--ignore", "store-slow")
    assert output == "No findings (2 ignored).\n"


def test_a_store_that_is_down() -> None:
    """What is known is printed first; that the store is down is one line and its own exit status."""
    app = sound_app(SESSION_REDIS="redis://127.0.0.1:1/0", SESSION_PERMANENT=False)
    output, status = check(app)
    lines = output.splitlines()
    assert lines[0].endswith("[session-permanent]")
    said = "The store could not be asked: ConnectionError: Connection refused (127.0.0.1:1). "
    assert lines[-2:] == ["1 info.", said + "See LazySession's docs/troubleshooting.rst#store-unreachable"]
    assert status == 3
    assert check(app, "--offline") == ("\n".join(lines[:-1]) + "\n", 0)
    app.config["SESSION_COOKIE_SECURE"] = False  # which __Host- forbids
    assert check(app)[1] == 1


def test_a_store_that_breaks_off() -> None:
    """What the check of the store found before it failed is shown."""

    def broken() -> Iterator[Problem]:
        yield SLOW
        raise TimeoutError("redis://:secret@10.0.0.1")

    app = sound_app()
    finds(app, broken())
    output, status = check(app)
    assert output.startswith("warning: The store is slow.")
    assert "1 warning.\nThe store could not be asked: TimeoutError" in output
    assert "secret" not in output
    assert status == 3


def test_sessions_without_a_backend() -> None:
    """Over Flask's signed cookie there is no store to check; the settings are checked all the same."""
    app = Flask("shop")
    LazySession(app)
    output, status = check(app)
    assert "error: SECRET_KEY is not set and sessions are Flask's signed cookies" in output
    assert status == 1


SHOP = """
from flask import Flask
from lazysession import LazySession
app = Flask("shop")
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
LazySession(app)
"""


def test_a_terminal(tmp_path: Path) -> None:
    """In a terminal the severity is colored, and lines end at its width; names and options are not broken."""
    (tmp_path / "shop.py").write_text(SHOP)
    near, far = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "FLASK_APP": "shop", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "flask", "lazysession", "check"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=far, stderr=far, check=False, timeout=60)
    os.close(far)
    output = os.read(near, 65536).decode().replace("\r\n", "\n")
    os.close(near)
    assert done.returncode == 1
    assert output.startswith("\x1b[31m\x1b[1merror\x1b[0m: SECRET_KEY is not set")
    plain = re.sub(r"\x1b\[\d+m", "", output).splitlines()
    assert max(map(len, plain)) <= 60
    assert [line for line in plain if line.startswith("warning")]
    assert all(line.startswith(("error", "warning", "    ")) for line in plain[:-1])
    assert "[secret-key]" in output


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("secret-key-week", "Did you mean 'secret-key-weak'?"),
        ("SECRET-KEY", "Did you mean 'secret-key'?"),
        ("xyzzy", ""),
    ],
)
def test_ignoring_what_is_no_finding(name: str, hint: str) -> None:
    """A name that no finding has is a wrong option, with a near one and all that there are."""
    app = sound_app()
    finds(app, [SLOW])
    output, status = check(app, "--ignore", "store-slow", "--ignore", name)
    assert status == 2
    assert f"{name!r} is not a finding. {hint}".rstrip() in output
    assert "Known are absolute-lifetime, allow-pickle, " in output
    assert "store-slow" in output  # found in this run


def test_ignoring_what_is_not_found() -> None:
    """A name of a finding that there is may be given where nothing is found."""
    app = sound_app()
    finds(app, [])
    assert check(app, "--ignore", "redis-memory") == ("No findings.\n", 0)


def test_ignoring_findings_of_an_adapter_of_the_apps_own() -> None:
    """The findings of another package's adapter are not known beforehand."""

    class Backend:
        def check(self) -> list[Problem]:
            return []

    app = sound_app()
    app.session_interface.handler.backend = Backend()  # type: ignore[attr-defined]
    output, status = check(app, "--ignore", "own-finding")
    assert "'own-finding' is not a finding of LazySession, and the store has none of this name." in output
    assert output.endswith("No findings.\n")
    assert status == 0
