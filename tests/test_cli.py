"""``flask lazysession rules``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import fakeredis
import pytest
from flask import Flask
from flask_session import Session

from lazysession import LazySession, session_mode
from lazysession.backend import Problem


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """An app with a route for each way to get a mode."""
    app = Flask("shop", static_folder=str(tmp_path), static_url_path="/static")
    app.config["SECRET_KEY"] = "key"
    app.config["LAZYSESSION_RULES"] = [("/static/private/**", "normal"), ("method:POST", "normal")]
    app.config["LAZYSESSION_SKIP_PATHS"] = ["/health"]
    LazySession(app)
    app.add_url_rule("/", "index", lambda: "")
    app.add_url_rule("/health", "health", lambda: "")
    app.add_url_rule("/poll", "poll", session_mode("passive")(lambda: ""))
    app.add_url_rule("/item/<int:number>", "item", lambda number: "", methods=["GET", "POST"])
    return app


def run(app: Flask, *arguments: str) -> str:
    result = app.test_cli_runner().invoke(args=["lazysession", "rules", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_table(app: Flask) -> None:
    """Every route with its mode, and what decided it."""
    assert run(app) == (
        "Endpoint  Methods  Rule                     Mode     Decided by\n"
        "--------  -------  -----------------------  -------  -------------\n"
        "health    GET      /health                  skip     /health\n"
        "index     GET      /                        normal   default\n"
        "item      GET      /item/<int:number>       normal   default\n"
        "item      POST     /item/<int:number>       normal   method:POST\n"
        "poll      GET      /poll                    passive  @session_mode\n"
        "static    GET      /static/<path:filename>  skip     static files\n"
    )


def test_rules_that_need_a_real_request() -> None:
    """A callable that asks for what the command cannot make up is said so, and the table goes on."""
    app = Flask("shop", static_folder=None)
    app.config["LAZYSESSION_RULES"] = [(lambda request: request.view_args["number"] > 5, "skip")]
    LazySession(app)
    app.add_url_rule("/item/<int:number>", "item", lambda number: "")
    assert "a rule cannot tell without a real request (TypeError)" in run(app)
    assert run(app, "/item/7").splitlines()[-1].split()[1] == "skip"
    assert run(app, "/item/7?x=1").splitlines()[-1].split()[:2] == ["item", "skip"]


@pytest.mark.parametrize(
    ("arguments", "endpoint", "mode", "reason"),
    [
        (["/poll"], "poll", "passive", "@session_mode"),
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
    """What is no path is said to be none."""
    result = app.test_cli_runner().invoke(args=["lazysession", "rules", "health"])
    assert result.exit_code == 2
    assert "'health' does not start with '/'" in result.output


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_app_whose_interface_was_replaced(app: Flask) -> None:
    """Session(app) after LazySession(app) takes the sessions over; the command says so."""
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
    backend = app.session_interface.keeper.backend  # type: ignore[attr-defined]
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
    backend = app.session_interface.keeper.backend  # type: ignore[attr-defined]
    for number in range(3):
        backend.create(f"key{number}", b"\x81\xa1a\x01", 60)
    now = backend.clock
    backend.clock = lambda: now() + 61
    result = app.test_cli_runner().invoke(args=["lazysession", "purge"])
    assert "Purged 3 expired sessions." in result.output, result.output


def test_check_of_a_store_that_is_down() -> None:
    """A store that cannot be asked is one line, not a traceback."""
    app = Flask("shop")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS="redis://127.0.0.1:1/0")
    LazySession(app)
    result = app.test_cli_runner().invoke(args=["lazysession", "check"])
    assert result.exit_code == 1
    assert "could not be asked (ConnectionError)" in result.output


def test_purge_where_there_is_nothing_to_purge(app: Flask) -> None:
    """A store that expires its records needs no purging."""
    assert "Nothing to purge" in app.test_cli_runner().invoke(args=["lazysession", "purge"]).output


@pytest.mark.parametrize(("severity", "status"), [("warning", 0), ("error", 1)])
def test_check(severity: str, status: int) -> None:
    """Each finding is shown with its remedy; errors make the exit status 1."""
    app = Flask("shop")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis())
    LazySession(app)
    backend = app.session_interface.keeper.backend  # type: ignore[attr-defined]
    backend.check = lambda: [Problem(severity, "The store forgets.", "Tell it not to.")]
    result = app.test_cli_runner().invoke(args=["lazysession", "check"])
    assert result.output == f"{severity}: The store forgets.\n    Tell it not to.\n1 finding.\n"
    assert result.exit_code == status
