"""Sessions in memcached as an app sets them up: settings, checks, round trips, and a fleet with Flask-Session."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import memcache
import msgspec
import pytest
from flask import Flask, session
from flask_session import Session
from flask_session.memcached import MemcachedSession
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.serde import pickle_serde
from pymemcache.test.utils import MockMemcacheClient

from lazysession import ConfigurationError, LazySession
from lazysession.backends.memcached import MemcachedBackend
from lazysession.testing import KEY
from tests.support.on_memcached import CLIENTS, ONE_DAY, Server, Wire, every_client, leaves_sockets
from tests.support.servers import child, free_port, need
from tests.support.stores import LIVE
from tests.support.stores.base import let_pass

pytestmark = pytest.mark.usefixtures("close_memcached")

#: The same, and the one that only Flask-Session's own methods drive.
OF_APPS = CLIENTS | {"python-memcached": lambda address: memcache.Client(["{}:{}".format(*address)])}
every_client_of_apps = pytest.mark.parametrize("make_client", OF_APPS.values(), ids=OF_APPS.keys())


class TestSettings:
    """SESSION_MEMCACHED."""

    @pytest.mark.parametrize(
        ("url", "kind", "servers"),
        [
            ("memcached://one", PooledClient, [("one", 11211)]),
            ("memcached://one:1", PooledClient, [("one", 1)]),
            ("memcached://[::1]:1/", PooledClient, [("::1", 1)]),
            ("memcached:///run/memcached.sock", PooledClient, ["/run/memcached.sock"]),
            ("memcached://one:1,two", HashClient, [("one", 1), ("two", 11211)]),
        ],
    )
    def test_urls(self, url: str, kind: type, servers: list[Any]) -> None:
        """A URL names one server or several."""
        backend = MemcachedBackend.from_setting(url + "?timeout=0.5")
        assert backend is not None
        client = backend.client
        assert type(client) is kind
        clients = list(client.clients.values()) if kind is HashClient else [client]
        assert all(type(each) is PooledClient for each in clients)
        assert [each.server for each in clients] == servers
        assert {(each.timeout, each.connect_timeout) for each in clients} == {(0.5, 3.0)}

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "memcached://",
            "localhost:11211",
            "redis://secret",
            "memcached://user:secret@host",
            "memcached://host:secret",
            "memcached://host,:1",
            "memcached://host,",
            "memcached://host/secret",
            "memcached://host#secret",
            "memcached://host?secret=1",
            "memcached://host?timeout=secret",
            "memcached://host?timeout=0",
            "memcached://host?timeout",
            "memcached://[secret",
        ],
    )
    def test_malformed_urls(self, url: str) -> None:
        """A malformed URL is an error that does not repeat it."""
        with pytest.raises(ValueError, match=r"memcached://localhost:11211") as error:
            MemcachedBackend.from_setting(url)
        assert "secret" not in str(error.value)

    @pytest.mark.parametrize(
        "value", [42, object(), {"a": 1}, MockMemcacheClient(), RetryingClient(Client("localhost"))], ids=repr
    )
    def test_other_values(self, value: Any) -> None:
        """What is no client of a library that can compare and set is an error that names those that can."""
        with pytest.raises(ConfigurationError, match=r"SESSION_MEMCACHED cannot be used: a .* is neither a URL"):
            make(LazySession, value)

    def test_no_value(self) -> None:
        """Without a value, Flask-Session makes its own client."""
        assert MemcachedBackend.from_setting(None) is None

    @pytest.mark.filterwarnings("ignore:No valid memcache.Client:RuntimeWarning")
    def test_flask_sessions_own_client(self) -> None:
        """The client that Flask-Session makes without a value can be driven."""
        app = make(LazySession, None)
        assert type(app.session_interface.handler.backend) is MemcachedBackend  # type: ignore[attr-defined]

    def test_a_prefix_that_is_too_long(self) -> None:
        """After Session(app) the prefix is known, and an error at start-up."""
        app = Flask("shop")
        app.config.update(SESSION_TYPE="memcached", SESSION_MEMCACHED=Client("localhost"), SESSION_KEY_PREFIX="p" * 208)
        Session(app)
        with pytest.raises(ValueError, match="shorten SESSION_KEY_PREFIX"):
            LazySession(app)
        app.session_interface.key_prefix = "p" * 207  # type: ignore[attr-defined]
        LazySession(app)


class TestCheck:
    """What only the user can fix."""

    @every_client
    def test_evictions(self, make_client: Callable[[Any], Any]) -> None:
        """A server that evicts items is reported."""
        with small_memcached() as address:
            backend = MemcachedBackend(make_client(address))
            assert not any("evicted" in problem.what for problem in backend.check())
            for number in range(40):
                backend.create(KEY + str(number), b"a" * 100_000, 1000)
            (problem,) = (problem for problem in backend.check() if "evicted" in problem.what)
            assert problem.severity == "warning"

    def test_pickle(self, server: Server) -> None:
        """A client that unpickles is reported, one that does not is not."""
        serde = {"serde": pickle_serde, "timeout": 60, "connect_timeout": 60}
        unpickling = [CLIENTS["pylibmc"](server.address)]
        unpickling += [Client(server.address, **serde), HashClient([server.address], **serde)]
        assert all("unpickles" in problem.what for client in unpickling for problem in MemcachedBackend(client).check())
        assert all(len(list(MemcachedBackend(client).check())) == 1 for client in unpickling)
        for make_client in list(CLIENTS.values())[:4]:
            (problem,) = MemcachedBackend(make_client(server.address)).check()  # that of a client without timeouts
            assert problem.name == "memcached-timeout"


@contextmanager
def small_memcached() -> Generator[tuple[str, int]]:
    """Run a memcached that is soon full."""
    port = free_port()
    program = need("memcached", "apt-get install memcached")
    with child([program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "2"], port, user="memcache"):
        yield ("127.0.0.1", port)


# Through apps


def make(extension: type, client: Any, **settings: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", PERMANENT_SESSION_LIFETIME=ONE_DAY, **settings)
    app.config.update(SESSION_TYPE="memcached", SESSION_MEMCACHED=client)
    extension(app)

    @app.route("/set/<key>")
    def set_key(key: str) -> str:
        session[key] = [key, 1, 2.5, None, {"nested": True}, "\N{SNOWMAN}"]
        return session.sid  # type: ignore[attr-defined, no-any-return]

    app.add_url_rule("/untouched", "untouched", lambda: "")
    app.add_url_rule("/keys", "keys", lambda: ",".join(sorted(session)))
    app.add_url_rule("/clear", "clear", lambda: session.clear() or "")
    app.add_url_rule("/class", "class", lambda: str(isinstance(session, MemcachedSession)))
    return app


def waiting(client: Any) -> Any:
    """Make a client of pymemcache wait for replies, as Flask-Session does not: its writes are done when it returns."""
    for each in (client, *getattr(client, "clients", {}).values()):
        each.default_noreply = False
    return client


@pytest.mark.parametrize("format", ["msgpack", "json"])
@pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs first", "ours first"])
@every_client_of_apps
def test_a_session_is_used_by_both(
    server: Server, make_client: Callable[[Any], Any], format: str, order: tuple[type, type]
) -> None:
    """One writes it, the other reads and changes it, the first reads it again and ends it."""
    settings = {"SESSION_SERIALIZATION_FORMAT": format}
    apps = [make(extension, waiting(make_client(server.address)), **settings) for extension in order]
    first, second = (app.test_client() for app in apps)
    sid = first.get("/set/a").text
    cookie = first.get_cookie("session")
    assert cookie is not None
    second.set_cookie("session", cookie.value)
    assert second.get("/keys").text == "_permanent,a"
    assert second.get("/set/b").text == sid
    assert first.get("/keys").text == "_permanent,a,b"
    assert first.get("/set/c").text == sid
    assert second.get("/keys").text == "_permanent,a,b,c"
    assert second.get("/class").text == "True"
    second.get("/clear")
    assert first.get("/keys").text == "_permanent"


@pytest.mark.parametrize("lifetime", [ONE_DAY, 31 * ONE_DAY])
@every_client_of_apps
def test_the_same_item(server: Server, make_client: Callable[[Any], Any], lifetime: int) -> None:
    """Key, bytes, flags and expiry are those that Flask-Session stores."""
    stored = []
    for extension in (Session, LazySession):
        app = make(extension, waiting(make_client(server.address)))
        app.config["PERMANENT_SESSION_LIFETIME"] = lifetime
        sid = app.test_client().get("/set/a").text
        assert lifetime - 5 < server.ttl(f"session:{sid}") <= lifetime + 1 + server.lag()
        stored.append(server.item(f"session:{sid}"))
    assert stored[0] == stored[1]


def test_through_a_url(server: Server) -> None:
    """A URL is enough, and sessions keep their class."""
    app = make(LazySession, server.url)
    client = app.test_client()
    sid = client.get("/set/a").text
    assert client.get("/keys").text == "_permanent,a"
    assert client.get("/class").text == "True"
    assert server.holds(f"session:{sid}")


def test_after_session(server: Server) -> None:
    """After Session(app) its client is taken over."""
    app = Flask("shop")
    client = Client(server.address)
    app.config.update(SESSION_TYPE="memcached", SESSION_MEMCACHED=client, SECRET_KEY="key")
    Session(app)
    LazySession(app)
    backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
    assert type(backend) is MemcachedBackend
    assert backend.client is client


@pytest.mark.parametrize("path", ["/untouched", "/keys", "/clear"])
@pytest.mark.parametrize("cookie", ["k" * 251, "a\x01b", "a b", "\xe9" * 43])
@every_client_of_apps
def test_a_cookie_that_is_no_key(server: Server, make_client: Callable[[Any], Any], cookie: str, path: str) -> None:
    """What is a 500 with Flask-Session alone is a visitor without a session."""
    app = make(LazySession, make_client(server.address))
    assert app.test_client(use_cookies=False).get(path, headers={"Cookie": f"session={cookie}"}).status_code == 200


@pytest.mark.parametrize("cookie", ["k" * 251, "\xe9" * 43])
def test_such_a_cookie_breaks_flask_session(server: Server, cookie: str) -> None:
    """The defect that is fixed here exists."""
    app = make(Session, Client(server.address), PROPAGATE_EXCEPTIONS=False)
    assert (
        app.test_client(use_cookies=False).get("/untouched", headers={"Cookie": f"session={cookie}"}).status_code == 500
    )


@pytest.fixture
def counted(wire: Wire, server: Server) -> Callable[..., tuple[list[str], Any]]:
    """A function that makes a request with a live session, and returns what was sent and the response."""
    app = make(LazySession, Client(wire.address))
    handler = app.session_interface.handler  # type: ignore[attr-defined]
    handler.records.create(f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, "a": 1}), ONE_DAY)

    def request(path: str, *, sid: str | None = LIVE, later: float = 0) -> tuple[list[str], Any]:
        server.pass_time(later, [f"session:{LIVE}"])
        let_pass(app, later)
        client = app.test_client()
        if sid is not None:
            client.set_cookie("session", sid)
        wire.sent.clear()
        response = client.get(path)
        return list(wire.sent), response

    return request


@pytest.mark.parametrize(
    ("path", "asked", "sent"),
    [
        ("/untouched", {}, []),
        ("/nowhere", {}, []),
        ("/keys", {}, ["gets"]),
        ("/keys", {"later": ONE_DAY / 10}, ["gats"]),
        ("/keys", {"sid": None}, []),
        ("/keys", {"sid": "../../etc/passwd\x7f"}, []),
        ("/set/a", {}, ["gets", "cas"]),
        ("/set/a", {"later": ONE_DAY / 10}, ["gats", "cas"]),
        ("/set/a", {"sid": None}, ["add"]),
        ("/clear", {}, ["gets", "cas"]),
        ("/clear", {"sid": None}, []),
    ],
)
def test_round_trips(
    counted: Callable[..., tuple[list[str], Any]], path: str, asked: dict[str, Any], sent: list[str]
) -> None:
    """What each kind of request costs."""
    assert counted(path, **asked)[0] == sent


def test_a_refresh_renews_the_cookie(counted: Callable[..., tuple[list[str], Any]], server: Server) -> None:
    """Store and cookie are refreshed together, once."""
    assert "Set-Cookie" not in counted("/keys")[1].headers
    assert counted("/keys", later=ONE_DAY / 10)[1].headers["Set-Cookie"].startswith(f"session={LIVE}; Expires=")
    assert ONE_DAY - 5 < server.ttl(f"session:{LIVE}") <= ONE_DAY
    sent, response = counted("/keys")
    assert sent == ["gets"]
    assert "Set-Cookie" not in response.headers


@leaves_sockets
@every_client_of_apps
def test_an_outage_through_an_app(make_client: Callable[[Any], Any]) -> None:
    """Store down: what uses the session is a 503, what does not is not; no cookie is deleted."""
    app = make(LazySession, make_client(("127.0.0.1", free_port())), PROPAGATE_EXCEPTIONS=False)
    client = app.test_client()
    client.set_cookie("session", LIVE)
    for _ in range(2):
        assert client.get("/untouched").status_code == 200
        response = client.get("/keys")
        assert response.status_code == 503
        assert "Set-Cookie" not in response.headers
