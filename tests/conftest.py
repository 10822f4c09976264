"""Fixtures: the stores, and apps on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event
from sqlalchemy.pool import Pool

from lazysession import LazySession
from tests.support import servers as real_servers
from tests.support import summary
from tests.support.servers import NotInstalled, Servers
from tests.support.stores import EVERY_STORE, FakeRedisStore, Store, prepare

STORES = ("fakeredis", "redis", "sqlite", "flask-sqlalchemy")
#: ``nox -s extensions`` names this folder, and so runs it; its packages are installed nowhere else.
collect_ignore = ["compat/extensions"]
# The example of a store of one's own is imported by its own name, as by those who install it.
sys.path.append(str(Path(__file__).parent / "backends" / "shelf"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-servers", action="store_true", help="fail, not skip, where a server is missing")
    parser.addoption("--fakes", action="store_true", help="run what needs no server, and on one store, which is faked")
    parser.addoption("--write-tables", action="store_true", help="write the tables of the documentation from this run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a server, and all stores but one, where ``--fakes`` asks for that."""
    if config.getoption("--fakes"):
        config.hook.pytest_deselected(items=[item for item in items if not needs_fakes_only(item)])
        items[:] = [item for item in items if needs_fakes_only(item)]


def needs_fakes_only(item: pytest.Item) -> bool:
    """Return whether a test runs without a server, on the store that stands for all."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    stores = {parameters.get("store"), parameters.get("any_store")} & EVERY_STORE.keys()
    needed = {f"{server}_url" for server in _servers} | {"nginx", "open_front", "flask_suite"}
    return stores <= {"fakeredis"} and needed.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Generator[None]:
    """Say at the end, after pytest's own summary, why tests were skipped, and which servers were used or not there."""
    yield
    if config.option.collectonly:
        return
    for line in summary.skip_lines([str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ())]):
        terminalreporter.write_line(line)
    outcome = "failed" if config.getoption("--require-servers") else "skipped"
    reports = [report for kind in ("skipped", "error", "failed") for report in terminalreporter.stats.get(kind, ())]
    missing = summary.count_missing([str(report.longrepr) for report in reports], real_servers.MISSING)
    versions = {server: summary.version_of(program) for server, program in real_servers.USED.items()}
    terminalreporter.write_line(summary.servers_line(versions, missing, outcome))


_servers: set[str] = set()  # the names of those that have a fixture


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Generator[Servers]:
    """The servers of this run; those that tests name as their fixtures start side by side."""
    wanted = {name.removesuffix("_url") for item in request.session.items for name in getattr(item, "fixturenames", ())}
    running = Servers()
    running.start(*sorted(wanted & _servers))
    yield running
    running.stop()


def server_fixture(name: str) -> Any:
    """Make a fixture of a server's URL; without the server its tests are skipped, or fail when required."""
    _servers.add(name)

    @pytest.fixture(scope="session", name=f"{name}_url")
    def url(request: pytest.FixtureRequest, servers: Servers) -> str:
        with unless_missing(request):
            return servers.url(name)

    return url


@contextmanager
def unless_missing(request: pytest.FixtureRequest) -> Generator[None]:
    """Skip the test where a server is not installed; fail it when servers are required."""
    try:
        yield
    except NotInstalled as reason:
        (pytest.fail if request.config.getoption("--require-servers") else pytest.skip)(str(reason))


redis_url = server_fixture("redis")
redis_cluster_url = server_fixture("redis_cluster")
redis_sentinel_url = server_fixture("redis_sentinel")
memcached_url = server_fixture("memcached")
postgresql_url = server_fixture("postgresql")
pgbouncer_url = server_fixture("pgbouncer")
mariadb_url = server_fixture("mariadb")
mongodb_url = server_fixture("mongodb")
mongodb_set_url = server_fixture("mongodb_set")
dynalite_url = server_fixture("dynalite")
moto_url = server_fixture("moto")


@pytest.fixture
def close_connections() -> Generator[None]:
    """Close every SQL connection that the test makes, however it ends."""
    opened: list[Any] = []

    def collect(connection: Any, _record: object) -> None:
        opened.append(connection)

    event.listen(Pool, "connect", collect)
    yield
    event.remove(Pool, "connect", collect)
    for connection in opened:
        with suppress(Exception):  # MySQL's raise where the server has closed it
            connection.close()


@pytest.fixture
def close_memcached(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Close what clients of memcached open: they leave it to the garbage collector, and it complains."""
    import memcache
    from pymemcache.client.base import Client

    opened: list[Any] = []

    def collecting(connect: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda connection: opened.append(connection) or connect(connection)

    monkeypatch.setattr(Client, "_connect", collecting(Client._connect))
    monkeypatch.setattr(memcache._Host, "_get_socket", collecting(memcache._Host._get_socket))
    yield
    for connection in opened:
        (connection.close if isinstance(connection, Client) else connection.close_socket)()


@pytest.fixture
def nginx(request: pytest.FixtureRequest) -> Generator[Callable[[str], str]]:
    """A function that starts an nginx with a cache in front of ``host:port``, and returns its URL."""
    with ExitStack() as running:

        def start(upstream: str) -> str:
            with unless_missing(request):
                return running.enter_context(real_servers.nginx(upstream))

        yield start


def open_store(request: pytest.FixtureRequest, folder: Path) -> Generator[Store]:
    """Open the store that the test asks for by name, and close it after the test."""
    kind, needs = EVERY_STORE[request.param]
    opener: Any = folder if needs == "folder" else needs and request.getfixturevalue(f"{needs}_url")
    opened = kind(opener) if needs else kind()  # type: ignore[call-arg]
    yield opened
    opened.close()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Store]:
    """The stores whose adapters came first; most of what an app does is the same on every store."""
    yield from open_store(request, tmp_path)


@pytest.fixture(params=EVERY_STORE)
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Store]:
    """Every store; a test file that is to run on all of them makes this its ``store``."""
    yield from open_store(request, tmp_path)


MakeApp = Callable[..., Flask]


@pytest.fixture
def make_app(store: Any) -> MakeApp:
    """A function that makes a lazy app on the store, from settings."""

    def make(**settings: Any) -> Flask:
        app = Flask("shop", static_folder=None)
        app.config.update(TESTING=True, SECRET_KEY="key", **store.config(), **settings)
        prepare(app)
        LazySession(app)
        return app

    return make


@pytest.fixture
def memory_app() -> Callable[..., Flask]:
    """A function that makes a lazy app on fakeredis, for tests where the store does not matter."""

    def make(**settings: Any) -> Flask:
        app = Flask("shop", static_folder=None)
        app.config.update(TESTING=True, SECRET_KEY="key", **FakeRedisStore().config(), **settings)
        LazySession(app)
        return app

    return make
