"""Flask-Session's development branch: the names that it changes, and the stores that it adds."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import boto3
import flask_session.base
import msgspec
import psycopg2
import pytest
import redis
from botocore.exceptions import ClientError
from flask import Flask, session
from flask_session import Session
from flask_session.base import ServerSideSessionInterface
from flask_session.defaults import Defaults
from flask_session.dynamodb import DynamoDBSessionInterface
from flask_session.redis import RedisSessionInterface
from psycopg2.pool import ThreadedConnectionPool

from lazysession import ConfigurationError, LazySession
from lazysession.backends.generic import GenericBackend
from tests.support import developing
from tests.support.servers import wait_until
from tests.support.stores.documents import create_plain

EXTENSIONS = [Session, LazySession]
ACCOUNT = {"region_name": "us-west-2", "aws_access_key_id": "dummy", "aws_secret_access_key": "dummy"}
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins take the place of Flask-Session 0.8."""
    developing.install(monkeypatch)


def shop(extension: Any = LazySession, **settings: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", **settings)
    extension(app)
    app.add_url_rule("/set/<key>/<value>", "set", lambda key, value: session.update({key: value}) or "")
    app.add_url_rule("/get", "get", lambda: json.dumps(dict(session), sort_keys=True))
    app.add_url_rule("/clear", "clear", lambda: session.clear() or "")
    app.add_url_rule("/unused", "unused", lambda: "")
    return app


def get(browser: Any) -> dict[str, Any]:
    items: dict[str, Any] = json.loads(browser.get("/get").text)
    items.pop("_permanent", None)
    return items


def in_turns(first: Any, second: Any) -> None:
    """Two servers of a fleet read and change one session."""
    assert first.get("/set/user/ada").status_code == 200
    second.set_cookie("session", first.get_cookie("session").value)
    assert second.get("/set/cart/7").status_code == 200
    assert get(first) == get(second) == {"user": "ada", "cart": "7"}
    second.get("/clear")
    assert get(first) == {}


class TestPostgreSQL:
    """SESSION_TYPE "postgresql" goes through Flask-Session's own class."""

    @pytest.fixture
    def pool(self, postgresql_url: str) -> Generator[ThreadedConnectionPool]:
        url = postgresql_url.replace("postgresql+psycopg://", "postgresql://")
        wait_until(lambda: psycopg2.connect(url).close() is None, "the start of PostgreSQL")  # its port is open before
        pool = ThreadedConnectionPool(1, 4, url)
        run(pool, "DROP TABLE IF EXISTS public.flask_sessions")
        yield pool
        pool.closeall()

    @pytest.fixture
    def app(self, branch: None, pool: ThreadedConnectionPool) -> Flask:
        return shop(SESSION_TYPE="postgresql", SESSION_POSTGRESQL=pool)

    @pytest.mark.parametrize("order", [EXTENSIONS, EXTENSIONS[::-1]], ids=["theirs first", "ours first"])
    def test_a_fleet(self, branch: None, pool: ThreadedConnectionPool, order: list[Any]) -> None:
        """Half of a fleet runs on each, in both directions."""
        settings = {"SESSION_TYPE": "PostgreSQL", "SESSION_POSTGRESQL": pool}
        in_turns(*(shop(extension, **settings).test_client() for extension in order))

    def test_it_is_lazy(self, app: Flask) -> None:
        """A request that does not use its session sends nothing; one that reads sends one statement."""
        interface: Any = app.session_interface
        assert type(interface.handler.backend) is GenericBackend
        browser = app.test_client()
        browser.get("/set/user/ada")
        for path, statements in (("/unused", []), ("/get", ["SELECT"]), ("/set/user/ada", ["SELECT"])):
            interface.statements.clear()
            browser.get(path)
            assert interface.statements == statements

    def test_it_is_drop_in(self, app: Flask) -> None:
        """isinstance, the session class and the attributes of the interface are Flask-Session's."""
        interface: Any = app.session_interface
        assert isinstance(interface, developing.PostgreSqlSessionInterface)
        assert interface.pool is app.config["SESSION_POSTGRESQL"]
        with app.test_request_context():
            assert isinstance(session, developing.PostgreSqlSession)

    def test_expiry_and_delete(self, app: Flask, pool: ThreadedConnectionPool) -> None:
        """The stored expiry is the lifetime; what has expired is absent, and a logout deletes the row."""
        browser = app.test_client()
        browser.get("/set/user/ada")
        ((left,),) = run(pool, "SELECT EXTRACT(EPOCH FROM expiry - NOW()) FROM public.flask_sessions")
        assert 31 * 86400 - 60 < left <= 31 * 86400
        run(pool, "UPDATE public.flask_sessions SET expiry = NOW() - INTERVAL '1 second'")
        assert get(browser) == {}
        browser.get("/set/user/bob")
        browser.get("/clear")
        ((live,),) = run(pool, "SELECT COUNT(*) FROM public.flask_sessions WHERE expiry > NOW()")
        assert live == 0

    def test_purging_is_flask_sessions(self, app: Flask, pool: ThreadedConnectionPool) -> None:
        """Flask-Session's command removes expired sessions; ours says so instead of silently doing nothing."""
        app.test_client().get("/set/user/ada")
        run(pool, "UPDATE public.flask_sessions SET expiry = NOW() - INTERVAL '1 second'")
        assert "flask session_cleanup" in app.test_cli_runner().invoke(args=["lazysession", "purge"]).output
        app.test_cli_runner().invoke(args=["session_cleanup"])
        assert run(pool, "SELECT COUNT(*) FROM public.flask_sessions") == [(0,)]

    def test_check(self, app: Flask) -> None:
        """``check`` says what the generic adapter cannot do."""
        assert "generic-compare" in app.test_cli_runner().invoke(args=["lazysession", "check"]).output

    def test_flask_session_0_8(self) -> None:
        """Where Flask-Session does not know it, the error names the remedy."""
        with pytest.raises(ConfigurationError, match=r"'postgresql'.*'sqlalchemy'.*SESSION_SQLALCHEMY.*URL"):
            shop(SESSION_TYPE="postgresql", SESSION_POSTGRESQL="postgresql://localhost/app")


def run(pool: ThreadedConnectionPool, statement: str) -> Any:
    connection = pool.getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else None
    finally:
        pool.putconn(connection)


def test_any_type_that_flask_session_knows(branch: None) -> None:
    """A SESSION_TYPE that only the installed Flask-Session knows works through its class, and in its bytes."""
    shelf: dict[str, bytes] = {}
    settings = {"SESSION_TYPE": "shelf2", "SESSION_SHELF2": shelf, "SESSION_KEY_PREFIX": "shop:"}
    browsers = [shop(extension, **settings).test_client() for extension in EXTENSIONS]
    browsers[1].get("/set/user/ada")
    (key,) = shelf
    assert key.startswith("shop:")
    assert msgspec.msgpack.decode(shelf[key]) == {"_permanent": True, "user": "ada"}
    in_turns(*browsers)
    in_turns(*browsers[::-1])


@pytest.mark.parametrize("order", [EXTENSIONS, EXTENSIONS[::-1]], ids=["theirs first", "ours first"])
def test_an_adapter_next_to_dumps_and_loads(branch: None, redis_url: str, order: list[Any]) -> None:
    """A store that has an adapter shares its sessions with the branch's interface."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    in_turns(*(shop(extension, SESSION_TYPE="redis", SESSION_REDIS=client).test_client() for extension in order))


def test_a_store_interface_stores_what_the_branch_stores(branch: None, redis_url: str) -> None:
    """Where LazySession makes the client, its interface has the methods of the branch's, with the same bytes."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    app = shop(SESSION_TYPE="redis", SESSION_REDIS=redis_url)
    app.test_client().get("/set/user/ada")
    (key,) = client.keys()
    theirs = RedisSessionInterface(app, client=client)
    ours: Any = app.session_interface
    assert theirs._retrieve_session_data(key.decode()) == ours._retrieve_session_data(key.decode())


class TestWithoutSigner:
    """Flask-Session marks its signer for removal: nothing fails where it is gone."""

    @pytest.fixture(autouse=True)
    def signer_is_gone(self, branch: None, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = ServerSideSessionInterface.__init__

        def init(
            self: Any,
            app: Flask,
            key_prefix: str = "session:",
            permanent: bool = True,
            sid_length: int = 32,
            serialization_format: str = "msgpack",
            cleanup_n_requests: int | None = None,
        ) -> None:
            plain(
                self,
                app,
                key_prefix=key_prefix,
                permanent=permanent,
                sid_length=sid_length,
                serialization_format=serialization_format,
                cleanup_n_requests=cleanup_n_requests,
            )
            del self.use_signer

        monkeypatch.setattr(ServerSideSessionInterface, "__init__", init)
        monkeypatch.delattr(Defaults, "SESSION_USE_SIGNER")
        for name in ("_sign", "_unsign", "_get_signer"):
            monkeypatch.delattr(ServerSideSessionInterface, name)

    def test_its_interface(self) -> None:
        """An interface without ``use_signer`` has ids that are not signed."""
        shelf: dict[str, bytes] = {}
        browser = shop(SESSION_TYPE="shelf2", SESSION_SHELF2=shelf).test_client()
        browser.get("/set/user/ada")
        assert get(browser) == {"user": "ada"}
        cookie = browser.get_cookie("session")
        assert cookie is not None
        assert list(shelf) == [f"session:{cookie.value}"]

    def test_ours(self, redis_url: str) -> None:
        """The interface for URLs still signs where the setting asks for it."""
        client = redis.Redis.from_url(redis_url)
        for signed in (False, True):
            client.flushall()
            app = shop(SESSION_TYPE="redis", SESSION_REDIS=redis_url, SESSION_USE_SIGNER=signed)
            browser = app.test_client()
            browser.get("/set/user/ada")
            assert get(browser) == {"user": "ada"}
            cookie = browser.get_cookie("session")
            assert cookie is not None
            assert (f"session:{cookie.value}".encode() in client.keys()) is not signed


class TestDynamoDBTableExists:
    """SESSION_DYNAMODB_TABLE_EXISTS: no table is created or described when the app starts."""

    @pytest.fixture(autouse=True)
    def account(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "dummy")

    @pytest.fixture(params=["resource", "client", "url"])
    def make_value(self, request: pytest.FixtureRequest) -> Any:
        return {
            "resource": lambda url: boto3.resource("dynamodb", endpoint_url=url, **ACCOUNT),
            "client": lambda url: boto3.client("dynamodb", endpoint_url=url, **ACCOUNT),
            "url": lambda url: f"dynamodb://us-west-2/?endpoint_url={url}",
        }[request.param]

    @pytest.mark.parametrize("installed", ["0.8", "branch"])
    def test_nothing_is_sent_at_the_start(
        self, make_value: Any, installed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The app starts where no server is, with either Flask-Session."""
        if installed == "branch":
            developing.install(monkeypatch)
        value = make_value(NOWHERE)
        app = shop(SESSION_TYPE="dynamodb", SESSION_DYNAMODB=value, SESSION_DYNAMODB_TABLE_EXISTS=True)
        expected: Any = developing.DynamoDBSessionInterface if installed == "branch" else DynamoDBSessionInterface
        assert isinstance(app.session_interface, expected)

    def test_without_the_setting(
        self, make_value: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The table is described as before where the setting is missing or False."""
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        for settings in ({}, {"SESSION_DYNAMODB_TABLE_EXISTS": False}):
            caplog.clear()
            shop(SESSION_TYPE="dynamodb", SESSION_DYNAMODB=make_value(NOWHERE), **settings)
            assert "The store of SESSION_DYNAMODB does not answer: EndpointConnectionError" in caplog.text

    def test_a_missing_table_stays_missing(self, make_value: Any, dynalite_url: str) -> None:
        """Requests that use their session get a 503 until the table is created outside of the app."""
        client = boto3.client("dynamodb", endpoint_url=dynalite_url, **ACCOUNT)  # type: ignore[call-overload]
        value, table = make_value(dynalite_url), f"Existing-{type(make_value).__name__}-{id(make_value)}"
        settings = {"SESSION_DYNAMODB": value, "SESSION_DYNAMODB_TABLE": table, "SESSION_DYNAMODB_TABLE_EXISTS": True}
        browser = shop(SESSION_TYPE="dynamodb", **settings).test_client()
        assert browser.get("/set/user/ada").status_code == 503
        assert browser.get("/unused").status_code == 200
        with pytest.raises(ClientError, match="ResourceNotFound"):
            client.describe_table(TableName=table)
        create_plain(client, table)
        assert browser.get("/set/user/ada").status_code == 200
        assert get(browser) == {"user": "ada"}

    def test_flask_sessions_own_server(self, caplog: pytest.LogCaptureFixture) -> None:
        """Without a SESSION_DYNAMODB it is the server on localhost:8000, and nothing is sent there at the start."""
        with pytest.warns(RuntimeWarning, match="localhost:8000"):
            shop(SESSION_TYPE="dynamodb", SESSION_DYNAMODB_TABLE_EXISTS=True)
        assert caplog.text == ""

    @pytest.mark.parametrize("wrong", ["yes", 1, "true"])
    def test_what_is_no_truth(self, wrong: Any) -> None:
        """Any other value is named: a text such as "false" would count as true."""
        value = boto3.client("dynamodb", endpoint_url=NOWHERE, **ACCOUNT)  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match=r"SESSION_DYNAMODB_TABLE_EXISTS is .*True or False"):
            shop(SESSION_TYPE="dynamodb", SESSION_DYNAMODB=value, SESSION_DYNAMODB_TABLE_EXISTS=wrong)


def test_the_stand_ins_are_in_use(branch: None) -> None:
    """The tests above would prove nothing on Flask-Session 0.8's own classes."""
    assert not hasattr(flask_session.base.Serializer, "encode")
    assert psycopg2.__version__ >= "2.9"
