"""The DynamoDB adapter against the contract, on dynalite and on moto, and what only DynamoDB has."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import boto3
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from flask import Flask, session
from flask_session import Session
from flask_session.dynamodb.dynamodb import DynamoDBSession, DynamoDBSessionInterface

from lazysession import ConfigurationError, LazySession
from lazysession.backend import Outcome, Record, SupportsCheck, SupportsPurge, WriteResult
from lazysession.backends.dynamodb import DynamoDBBackend
from lazysession.records.expiry import Refresh
from lazysession.testing import KEY, ComparesAtomically, Contract, Held, KeepsTtl, TellsTtl, race
from tests.support.refreshing import load
from tests.support.servers import free_port
from tests.support.stores.documents import create_plain

ONE_DAY = 86400
LIVE = "a" * 43
NEVER = Refresh(1000, 999)
ACCOUNT = {"region_name": "us-west-2", "aws_access_key_id": "dummy", "aws_secret_access_key": "dummy"}
PATIENCE: dict[str, Any] = {"connect_timeout": 30, "read_timeout": 30}
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials as a container has them, for clients made from URLs; the machine's own are out of reach."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy")


def new_table() -> str:
    """Return a name that no test has used."""
    return f"Sessions-{next(_numbers)}"


def resource(url: str) -> Any:
    return boto3.resource("dynamodb", endpoint_url=url, config=Config(**PATIENCE), **ACCOUNT)


def client(url: str, **options: Any) -> Any:
    return boto3.client("dynamodb", endpoint_url=url, **ACCOUNT, config=Config(**PATIENCE | options))


def url_of(endpoint: str, table: str = "") -> str:
    return f"dynamodb://us-west-2/{table}?endpoint_url={endpoint}"


def make(value: Any, table: str | None = None) -> DynamoDBBackend:
    """Make a backend of a setting, on a table of its own."""
    backend = DynamoDBBackend.from_setting(value, table=table or new_table())
    assert backend is not None
    backend.prepare()
    return backend


def hold(value: Any, endpoint: str) -> Held:
    """Hold a table; time passes on the backend's clock."""
    table = new_table()
    backend = make(value, table)
    now, passed = backend.clock, [0.0]
    backend.clock = lambda: now() + passed[0]

    def pass_time(seconds: float) -> None:
        passed[0] += seconds

    return Held(backend, pass_time, partial(DynamoDBBackend.from_setting, url_of(endpoint, table)))


class DynamoDBContract(Contract):
    """The contract, with the limits of DynamoDB: 400 KB for an item with its names, 2,048 bytes for a key."""

    largest_payload = 400 * 1024 - len("id" + KEY + "val" + "expiration") - 6  # what a time takes at the least
    longest_key = 2048


class StoresTheLargest:
    """A store that takes what DynamoDB takes; moto stops at 405,000 bytes."""

    largest_payload: int

    def test_the_largest_payload(self, held: Held) -> None:
        """A payload just below the limit is stored, and changed."""
        largest = b"a" * (self.largest_payload - 4)  # what a time takes at the most
        assert held.backend.create(KEY, largest, 1000)
        assert held.backend.replace(KEY, largest[:-1] + b"b", 1000, expected=largest).outcome is Outcome.STORED
        assert held.read().payload == largest[:-1] + b"b"


class TestDynalite(DynamoDBContract, StoresTheLargest, TellsTtl, KeepsTtl, ComparesAtomically):
    """dynalite through a resource's client, which converts values itself."""

    @pytest.fixture
    def held(self, dynalite_url: str) -> Held:
        return hold(resource(dynalite_url), dynalite_url)


class TestDynaliteByClient(DynamoDBContract, StoresTheLargest, TellsTtl, KeepsTtl, ComparesAtomically):
    """dynalite through a low-level client, which takes values with their types."""

    @pytest.fixture
    def held(self, dynalite_url: str) -> Held:
        return hold(client(dynalite_url), dynalite_url)


class TestMoto(DynamoDBContract, TellsTtl, KeepsTtl):
    """moto, which loses conditional updates under threads; it proves nothing about races."""

    @pytest.fixture(params=["resource", "client"])
    def held(self, request: pytest.FixtureRequest, moto_url: str) -> Held:
        return hold((resource if request.param == "resource" else client)(moto_url), moto_url)


# Watching and disturbing a client


@contextmanager
def counted(client: Any) -> Generator[list[str]]:
    """Count what a client really sends, attempt by attempt."""
    names: list[str] = []

    def note(request: Any, **_: Any) -> None:
        names.append(request.headers["X-Amz-Target"].decode().partition(".")[2])

    client.meta.events.register("before-send.dynamodb", note)
    try:
        yield names
    finally:
        client.meta.events.unregister("before-send.dynamodb", note)


@contextmanager
def before(client: Any, operation: str, do: Callable[[], Any]) -> Generator[None]:
    """Do something just before a client sends; what it answers is answered to the caller instead of sending."""

    def on_call(**_: Any) -> Any:
        return do()

    client.meta.events.register_first(f"before-call.dynamodb.{operation}", on_call)
    try:
        yield
    finally:
        client.meta.events.unregister(f"before-call.dynamodb.{operation}", on_call)


def failing(code: str) -> Callable[[], Any]:
    """Return an error of DynamoDB's."""
    return lambda: (SimpleNamespace(status_code=400), {"Error": {"Code": code, "Message": "on purpose"}})


def put(backend: DynamoDBBackend, **attributes: Any) -> None:
    """Store an item as somebody else would, with types spelt out."""
    low_level = client(backend.client.meta.endpoint_url)
    low_level.put_item(TableName=backend._table, Item={"id": {"S": KEY}, **attributes})


def stored(backend: DynamoDBBackend, key: str = KEY) -> dict[str, Any]:
    """Return the item as it is stored."""
    low_level = client(backend.client.meta.endpoint_url)
    item: dict[str, Any] = low_level.get_item(TableName=backend._table, Key={"id": {"S": key}}).get("Item", {})
    return item


@pytest.fixture(params=["resource", "client"])
def backend(request: pytest.FixtureRequest, dynalite_url: str) -> DynamoDBBackend:
    """A backend on dynalite, of either kind of client."""
    return make((resource if request.param == "resource" else client)(dynalite_url))


class TestTrips:
    """What each verb sends."""

    def test_read(self, backend: DynamoDBBackend) -> None:
        """Reading is one request; a refresh that is due is one more."""
        backend.create(KEY, b"1", 1000)
        with counted(backend.client) as trips:
            backend.read(KEY)
            load(backend, NEVER)
            load(backend, key="absent")
        assert trips == ["GetItem"] * 3
        with counted(backend.client) as trips:
            assert load(backend)
        assert trips == ["GetItem", "UpdateItem"]

    def test_writes(self, backend: DynamoDBBackend) -> None:
        """Creating, replacing and deleting are one request each, and so is finding a key taken."""
        with counted(backend.client) as trips:
            assert backend.create(KEY, b"1", 1000)
            assert not backend.create(KEY, b"1", 1000)
            assert backend.replace(KEY, b"2", 1000, b"1").outcome is Outcome.STORED
            assert backend.replace(KEY, b"3", None, b"2").outcome is Outcome.STORED
            assert backend.delete(KEY, b"3").outcome is Outcome.STORED
            assert backend.delete(KEY).outcome is Outcome.MISSING
        assert trips == ["PutItem", "PutItem", "UpdateItem", "UpdateItem", "DeleteItem", "DeleteItem"]

    @pytest.mark.parametrize("connect", [resource, client])
    def test_a_change_by_somebody_else_comes_with_the_refusal(self, moto_url: str, connect: Any) -> None:
        """Where the server sends the item along, as DynamoDB does, CONFLICT is one request; and so is an expired one."""
        backend = make(connect(moto_url))
        backend.create(KEY, b"theirs", 1000)
        with counted(backend.client) as trips:
            assert backend.replace(KEY, b"mine", 1000, b"seen") == WriteResult(Outcome.CONFLICT, b"theirs")
            assert backend.delete(KEY, b"seen") == WriteResult(Outcome.CONFLICT, b"theirs")
            backend.clock = lambda: time.time() + 2000
            assert backend.replace(KEY, b"mine", 1000, b"theirs") == WriteResult(Outcome.MISSING)
        assert trips == ["UpdateItem", "DeleteItem", "UpdateItem"]

    def test_a_server_that_does_not_send_the_item_along(self, backend: DynamoDBBackend) -> None:
        """There, one more request tells CHANGED from GONE, with the payload all the same."""
        backend.create(KEY, b"theirs", 1000)
        with counted(backend.client) as trips:
            assert backend.replace(KEY, b"mine", 1000, b"seen") == WriteResult(Outcome.CONFLICT, b"theirs")
        assert trips == ["UpdateItem", "GetItem"]


class TestDefects:
    """What Flask-Session's interface gets wrong on DynamoDB, and this adapter does not."""

    def test_reads_are_consistent(self, backend: DynamoDBBackend) -> None:
        """A session that was just written is what is read, by any replica; Flask-Session does not ask for that."""
        sent: list[dict[str, Any]] = []
        backend.client.meta.events.register(
            "before-send.dynamodb.GetItem", lambda request, **_: sent.append(json.loads(request.body)) or None
        )
        backend.create(KEY, b"1", 1000)
        backend.replace(KEY, b"1", 1000, b"other")  # on dynalite, this asks as well
        backend.read(KEY)
        assert [request["ConsistentRead"] for request in sent] == [True, True]

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flask-Session asks for utcnow()
    def test_an_expired_item_is_absent(self, dynalite_url: str) -> None:
        """DynamoDB removes it within days; until then Flask-Session reads it, and this adapter does not."""
        theirs, ours = resource(dynalite_url), resource(dynalite_url)
        table = new_table()
        apps = [make_app(LazySession, ours, table), make_app(Session, theirs, table)]
        payload = msgspec.msgpack.encode({"a": 1})
        item = {"id": f"session:{LIVE}", "val": payload, "expiration": int(time.time()) - 1}
        theirs.Table(table).put_item(Item=item)
        assert [visitor(app, LIVE).get("/keys").text for app in apps] == ["_permanent", "a"]

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_the_time_to_live_is_on(self, moto_url: str) -> None:
        """A table that this adapter makes removes expired sessions; one of Flask-Session's keeps them indefinitely."""
        theirs, ours = new_table(), new_table()
        make_app(Session, resource(moto_url), theirs)
        make_app(LazySession, resource(moto_url), ours)
        ask = client(moto_url).describe_time_to_live
        assert ask(TableName=theirs)["TimeToLiveDescription"]["TimeToLiveStatus"] == "DISABLED"
        found = ask(TableName=ours)["TimeToLiveDescription"]
        assert found == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expiration"}

    @pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_the_time_zone_of_the_machine_does_not_matter(
        self, dynalite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In Tokyo, Flask-Session stores expirations nine hours early; with a time to live they would be removed so."""
        left = []
        monkeypatch.setenv("TZ", "JST-9")
        time.tzset()
        try:
            for extension in (Session, LazySession):
                table = new_table()
                sid = visitor(make_app(extension, resource(dynalite_url), table)).get("/set/a").text
                item = resource(dynalite_url).Table(table).get_item(Key={"id": f"session:{sid}"})["Item"]
                left.append(float(item["expiration"]) - time.time())
        finally:
            monkeypatch.undo()
            time.tzset()
        assert ONE_DAY - 9 * 3600 - 5 < left[0] <= ONE_DAY - 9 * 3600
        assert ONE_DAY - 5 < left[1] <= ONE_DAY

    def test_a_forked_worker_opens_its_own_connection(self) -> None:
        """What a worker inherits is closed in it, or it would read the answers of its siblings."""
        with recording_server() as (url, addresses):
            backend = DynamoDBBackend(client(url))
            backend.read(KEY)
            backend.read(KEY)
            child = os.fork()
            if child == 0:
                try:
                    backend.read(KEY)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            backend.read(KEY)
        first, second, forked, last = addresses
        assert first == second == last
        assert forked != first


@contextmanager
def recording_server() -> Generator[tuple[str, list[Any]]]:
    """Run a server that has no items, and notes the connection that each request came by."""
    addresses: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            addresses.append(self.client_address)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", addresses
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestOnlyDynamoDB:
    """What only DynamoDB has."""

    def test_optional_verbs(self, backend: DynamoDBBackend) -> None:
        """DynamoDB purges by itself, for nothing; and tells whether it does."""
        assert not isinstance(backend, SupportsPurge)
        assert isinstance(backend, SupportsCheck)

    def test_what_is_stored(self, backend: DynamoDBBackend) -> None:
        """An item has Flask-Session's three attributes, of its types."""
        backend.clock = lambda: 1_800_000_000.25
        backend.create(KEY, b"1", 1000)
        assert stored(backend) == {"id": {"S": KEY}, "val": {"B": b"1"}, "expiration": {"N": "1800001000.25"}}

    def test_an_expired_key_is_free(self, backend: DynamoDBBackend) -> None:
        """What reads as absent can be created; the new item has nothing of the old one."""
        put(backend, val={"B": b"old"}, expiration={"N": "1"}, other={"S": "x"})
        assert load(backend) is None
        assert backend.delete(KEY, b"old").outcome is Outcome.MISSING
        assert backend.create(KEY, b"new", 1000)
        assert stored(backend).keys() == {"id", "val", "expiration"}

    def test_an_item_without_an_expiration_gets_one(self, backend: DynamoDBBackend) -> None:
        """A session that something made immortal is live, cannot be created over, and is mortal at its next refresh."""
        put(backend, val={"B": b"1"})
        assert not backend.create(KEY, b"2", 1000)
        assert backend.read(KEY) == Record(b"1", None)
        assert backend.replace(KEY, b"2", None, b"1").outcome is Outcome.STORED
        assert load(backend, NEVER) == Record(b"2", None, touched=True)
        assert float(stored(backend)["expiration"]["N"]) - time.time() > 990

    def test_an_item_that_is_no_session_is_absent(self, backend: DynamoDBBackend) -> None:
        """Without a payload there is nothing to read, and nothing is written over."""
        put(backend, other={"S": "x"})
        assert load(backend) is None
        assert not backend.create(KEY, b"1", 1000)
        assert stored(backend) == {"id": {"S": KEY}, "other": {"S": "x"}}

    def test_what_is_left_to_the_microsecond(self, backend: DynamoDBBackend) -> None:
        """What is left is not rounded to DynamoDB's seconds."""
        start = time.time()
        backend.clock = lambda: start
        backend.create(KEY, b"1", 0.5)
        backend.clock = lambda: start + 0.25
        record = load(backend, Refresh(0.5, 0.4))
        assert record is not None
        assert not record.touched
        assert record.ttl == pytest.approx(0.25, abs=1e-5)
        backend.clock = lambda: start + 0.51
        assert backend.read(KEY) is None

    def test_a_failed_refresh_is_logged(self, backend: DynamoDBBackend, caplog: pytest.LogCaptureFixture) -> None:
        """A table out of write capacity is read all the same; the log does not name the session."""
        backend.create(KEY, b"1", 1000)
        with before(backend.client, "UpdateItem", failing("ProvisionedThroughputExceededException")):
            record = load(backend)
        assert record is not None
        assert (record.payload, record.touched) == (b"1", False)
        assert "could not be refreshed (ProvisionedThroughputExceededException)" in caplog.text
        assert KEY not in caplog.text

    def test_a_refresh_never_revives(self, backend: DynamoDBBackend, caplog: pytest.LogCaptureFixture) -> None:
        """A logout between the read and its refresh stays a logout, and is no failure."""
        backend.create(KEY, b"1", 1000)
        caplog.clear()
        with before(backend.client, "UpdateItem", lambda: make_again(backend).delete(KEY) and None):
            record = load(backend)
        assert record is not None
        assert not record.touched
        assert stored(backend) == {}
        assert caplog.messages == []

    def test_the_client_of_a_resource_may_be_given_alone(self, dynalite_url: str) -> None:
        """It is told from a plain client by what it does to values."""
        backend = make(resource(dynalite_url).meta.client)
        backend.create(KEY, b"1", 1000)
        assert stored(backend)["val"] == {"B": b"1"}

    @pytest.mark.parametrize("make_client", [resource, client])
    def test_errors_are_the_clients_own(self, make_client: Any) -> None:
        """A server that is not there raises what boto3 raises, at each verb."""
        backend = DynamoDBBackend(impatient(make_client))
        for verb in (
            lambda: backend.read(KEY),
            lambda: backend.touch(KEY, 1000),
            lambda: backend.touch(KEY, 1000, b"1"),
            lambda: backend.create(KEY, b"1", 1000),
            lambda: backend.replace(KEY, b"1", 1000, b"2"),
            lambda: backend.delete(KEY),
            lambda: backend.delete(KEY, b"1"),
            lambda: list(backend.check()),
        ):
            with pytest.raises(EndpointConnectionError):
                verb()

    def test_refusals_of_another_kind_are_errors(self, backend: DynamoDBBackend) -> None:
        """Only a condition that did not hold is an outcome."""
        for operation, verb in (
            ("PutItem", lambda: backend.create(KEY, b"1", 1000)),
            ("UpdateItem", lambda: backend.replace(KEY, b"1", 1000, b"2")),
            ("UpdateItem", lambda: backend.touch(KEY, 1000, b"2")),
            ("DeleteItem", lambda: backend.delete(KEY, b"1")),
            ("GetItem", lambda: backend.read(KEY)),
        ):
            with (
                before(backend.client, operation, failing("AccessDeniedException")),
                pytest.raises(ClientError, match="on purpose"),
            ):
                verb()


def make_again(backend: DynamoDBBackend) -> DynamoDBBackend:
    """Make another backend on the same table."""
    return DynamoDBBackend(client(backend.client.meta.endpoint_url), backend._table)


def impatient(make_client: Any) -> Any:
    """Make a client to a port where nobody listens, that tries once."""
    kind = boto3.resource if make_client is resource else boto3.client
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=1)
    made: Any = kind("dynamodb", endpoint_url=f"http://127.0.0.1:{free_port()}", config=config, **ACCOUNT)
    return made.meta.client if make_client is resource else made


class TestTable:
    """The table: made when it is missing, left as it is when it is there."""

    def test_made_as_flask_session_makes_it(self, dynalite_url: str) -> None:
        """The key and the billing are the same."""
        theirs, ours = new_table(), new_table()
        make_app(Session, resource(dynalite_url), theirs)
        make(url_of(dynalite_url), ours)
        make(url_of(dynalite_url), ours)  # a second start finds it
        tables = [client(dynalite_url).describe_table(TableName=name)["Table"] for name in (theirs, ours)]
        for name in ("KeySchema", "AttributeDefinitions"):
            assert tables[0][name] == tables[1][name]
        assert [table["BillingModeSummary"]["BillingMode"] for table in tables] == ["PAY_PER_REQUEST"] * 2

    def test_made_once_by_many(self, moto_url: str) -> None:
        """Workers that start together make it together."""
        table = new_table()
        for backend in race(*[partial(make, client(moto_url), table)] * 4):
            assert backend.read(KEY) is None

    def test_waited_for_while_another_makes_it(self, dynalite_url: str) -> None:
        """A table that is on its way is waited for, and not made."""
        table, held = new_table(), client(dynalite_url)
        create_plain(held, table)
        on_its_way = [(SimpleNamespace(status_code=200), {"Table": {"TableStatus": "CREATING"}})]
        with before(held, "DescribeTable", lambda: on_its_way.pop() if on_its_way else None), counted(held) as trips:
            make(held, table)
        assert trips == ["DescribeTable"]
        assert on_its_way == []

    def test_made_again_after_it_was_deleted(self, dynalite_url: str) -> None:
        """A table that is being deleted is not taken for one that is there: it is made again once it has gone."""
        table, held = new_table(), client(dynalite_url)
        going = [(SimpleNamespace(status_code=200), {"Table": {"TableStatus": "DELETING"}})]
        with before(held, "DescribeTable", lambda: going.pop() if going else None):
            backend = make(held, table)
        assert backend.create(KEY, b"1", 1000)

    def test_left_alone_when_it_is_there(self, moto_url: str, caplog: pytest.LogCaptureFixture) -> None:
        """Its time to live is the user's to turn on: items that Flask-Session still reads would go."""
        table, held = new_table(), client(moto_url)
        create_plain(held, table)
        with counted(held) as trips:
            backend = make(held, table)
        assert trips == ["DescribeTable"]
        assert list(backend.check()) != []
        assert caplog.messages == []

    def test_a_role_that_may_not_look(self, dynalite_url: str) -> None:
        """A role with the right to use the table alone starts, and does not try to make it."""
        table, held = new_table(), client(dynalite_url)
        create_plain(held, table)
        with before(held, "DescribeTable", failing("AccessDeniedException")), counted(held) as trips:
            backend = make(held, table)
        assert trips == []
        assert backend.create(KEY, b"1", 1000)

    @pytest.mark.parametrize("operation", ["DescribeTable", "CreateTable"])
    def test_other_errors_are_told_at_the_start(self, dynalite_url: str, operation: str) -> None:
        """A table that cannot be had is an error of the client's, which an app logs when it starts."""
        held = client(dynalite_url)
        with before(held, operation, failing("LimitExceededException")), pytest.raises(ClientError, match="on purpose"):
            make(held)

    def test_a_time_to_live_that_cannot_be_turned_on(self, dynalite_url: str, caplog: pytest.LogCaptureFixture) -> None:
        """The app starts without, and the log says so."""
        backend = make(client(dynalite_url))
        assert f"{backend._table!r} was created, but its time to live could not be turned on" in caplog.text


class TestCheck:
    """What is said of a table's set-up."""

    def test_all_is_well(self, moto_url: str) -> None:
        """A table that the adapter made has no problem."""
        assert list(make(resource(moto_url)).check()) == []

    def test_off(self, moto_url: str) -> None:
        """A time to live that is off is found, with the command that turns it on; then all is well."""
        table, held = new_table(), client(moto_url)
        create_plain(held, table)
        (problem,) = make(held, table).check()
        assert problem.severity == "warning"
        assert problem.what.endswith(f"table {table!r} indefinitely: its time to live is off.")
        words = problem.remedy.split()
        assert words[:5] == ["aws", "dynamodb", "update-time-to-live", "--table-name", table]
        enabled, attribute = (pair.partition("=")[2] for pair in words[-1].split(","))
        specification = {"Enabled": enabled == "true", "AttributeName": attribute}
        held.update_time_to_live(TableName=table, TimeToLiveSpecification=specification)
        assert list(make(held, table).check()) == []

    def test_on_for_something_else(self, moto_url: str) -> None:
        """A time to live of another attribute does nothing for sessions."""
        table, held = new_table(), client(moto_url)
        create_plain(held, table)
        specification = {"Enabled": True, "AttributeName": "ttl"}
        held.update_time_to_live(TableName=table, TimeToLiveSpecification=specification)
        (problem,) = make(held, table).check()
        assert "is on for 'ttl', not for 'expiration'" in problem.what

    def test_no_table(self, dynalite_url: str) -> None:
        """A table that is gone is an error."""
        (problem,) = DynamoDBBackend(client(dynalite_url), "Nothing").check()
        assert (problem.severity, problem.what) == ("error", "There is no table 'Nothing' in DynamoDB.")

    def test_not_allowed(self, backend: DynamoDBBackend) -> None:
        """A role that may not ask is told which right it lacks; any other fault raises."""
        with before(backend.client, "DescribeTimeToLive", failing("AccessDeniedException")):
            (problem,) = backend.check()
        assert "dynamodb:DescribeTimeToLive" in problem.remedy
        with before(backend.client, "DescribeTimeToLive", failing("InternalServerError")), pytest.raises(ClientError):
            list(backend.check())


class TestSetting:
    """SESSION_DYNAMODB."""

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (42, "an object of type int is neither a boto3 resource or client for DynamoDB nor a URL"),
            ("redis://localhost", "a URL has the form 'dynamodb://"),
            ("dynamodb://[", "a URL has the form 'dynamodb://"),
            ("dynamodb://eu-west-1/a/b", "a URL has the form 'dynamodb://"),
            ("dynamodb://eu-west-1/a#b", "a URL has the form 'dynamodb://"),
            ("dynamodb://localhost:8000/Sessions", "no host"),
            ("dynamodb://key:s3cret@eu-west-1/Sessions", "no credentials"),
            ("dynamodb://eu-west-1/?timeout=1", "'timeout' is none of the options of a URL"),
            ("dynamodb://eu-west-1/?connect_timeout=s3cret", "a number in the URL is wrong"),
            ("dynamodb://eu-west-1/?connect_timeout=-1", "a number in the URL is wrong"),
            ("dynamodb://eu-west-1/?max_attempts=0", "a number in the URL is wrong"),
            ("dynamodb://eu-west-1/?endpoint_url=s3cret", "the endpoint_url or"),
            ("dynamodb://eu-west-1/?endpoint_url=", "the endpoint_url or"),
            ("dynamodb://s3cret%20/", "the region, "),
            ("dynamodb:///Sessions", "the URL names no region"),
            ("dynamodb://eu-west-1/Others", "its URL names the table 'Others', and SESSION_DYNAMODB_TABLE is 'Mine'"),
        ],
    )
    def test_what_cannot_be_used(self, value: Any, message: str) -> None:
        """Each is told what is wrong with it, and no message shows what may be secret."""
        app = Flask("shop")
        app.config.update(SESSION_TYPE="dynamodb", SESSION_DYNAMODB=value, SESSION_DYNAMODB_TABLE="Mine")
        with pytest.raises(ConfigurationError, match=r"^SESSION_DYNAMODB cannot be used: ") as caught:
            LazySession(app)
        assert message in str(caught.value)
        assert "s3cret" not in str(caught.value)

    def test_other_things_of_boto3(self, dynalite_url: str) -> None:
        """A client of another service and a table are refused: the one cannot, the other has a name of its own."""
        for value in (boto3.client("sts", endpoint_url=dynalite_url, **ACCOUNT), resource(dynalite_url).Table("Mine")):
            with pytest.raises(ValueError, match="neither a boto3 resource or client"):
                DynamoDBBackend.from_setting(value)

    def test_a_url(self, dynalite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a URL leaves out comes from the environment, as boto3 reads it."""
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-south-2")
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynalite_url)
        backend = DynamoDBBackend.from_setting("dynamodb://?connect_timeout=0.5&read_timeout=2&max_attempts=3")
        assert backend is not None
        assert backend._table == "Sessions"
        meta = backend.client.meta
        assert (meta.region_name, meta.endpoint_url) == ("eu-south-2", dynalite_url)
        assert (meta.config.connect_timeout, meta.config.read_timeout) == (0.5, 2)
        assert meta.config.retries["total_max_attempts"] == 3

    def test_the_table(self, dynalite_url: str) -> None:
        """It is named in the URL, or by SESSION_DYNAMODB_TABLE, or both alike."""
        first, second = new_table(), new_table()
        for value, table, expected in (
            (url_of(dynalite_url, first), None, first),
            (url_of(dynalite_url, first), first, first),
            (url_of(dynalite_url), second, second),
            (resource(dynalite_url), second, second),
        ):
            backend = DynamoDBBackend.from_setting(value, table=table)
            assert backend is not None
            assert backend._table == expected

    def test_nothing_is_left_to_flask_session(self) -> None:
        """Without a value, it is the DynamoDB on localhost, as with Flask-Session, and nothing is asked of it."""
        with pytest.warns(RuntimeWarning, match="SESSION_DYNAMODB is not set"):
            backend = DynamoDBBackend.from_setting(None)
        assert backend is not None
        assert backend.client.meta.endpoint_url == "http://localhost:8000"
        assert backend.store.name == "Sessions"

    def test_threads_share_the_client_and_not_the_resource(self, dynalite_url: str) -> None:
        """A resource may not be shared between threads."""
        given = resource(dynalite_url)
        assert make(given).client is given.meta.client

    def test_what_flask_session_builds(self, dynalite_url: str) -> None:
        """Nothing: its interface makes a table when it is built. What apps know it by is there."""
        given = resource(dynalite_url)
        app = make_app(LazySession, given, new_table())
        assert isinstance(app.session_interface, DynamoDBSessionInterface)
        assert app.session_interface.client is given.meta.client
        assert app.session_interface.store.name == app.config["SESSION_DYNAMODB_TABLE"]


# Through an app


def make_app(extension: type, value: Any, table: str, **settings: Any) -> Flask:
    """Make an app with a page of each kind."""
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", PERMANENT_SESSION_LIFETIME=ONE_DAY, **settings)
    app.config.update(SESSION_TYPE="dynamodb", SESSION_DYNAMODB=value, SESSION_DYNAMODB_TABLE=table)
    extension(app)

    def set_key(key: str) -> str:
        session[key] = [key, 1, 2.5, None, {"nested": True}, "\N{SNOWMAN}"]
        return session.sid  # type: ignore[attr-defined, no-any-return]

    app.add_url_rule("/set/<key>", view_func=set_key)
    app.add_url_rule("/keys", view_func=lambda: ",".join(sorted(session)), endpoint="keys")
    app.add_url_rule("/clear", view_func=lambda: session.clear() or "", endpoint="clear")
    app.add_url_rule("/class", view_func=lambda: str(isinstance(session, DynamoDBSession)), endpoint="class")
    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    return app


def visitor(app: Flask, sid: str | None = None) -> Any:
    client = app.test_client()
    if sid is not None:
        client.set_cookie("session", sid)
    return client


class TestInterop:
    """Half of a fleet on Flask-Session, half on LazySession, on one table."""

    @pytest.mark.parametrize("format", ["msgpack", "json"])
    @pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
    @pytest.mark.parametrize("by_url", [False, True], ids=["resource", "url"])
    @pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs", "ours"])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # utcnow(), SESSION_USE_SIGNER
    def test_a_session_wanders_between_both(
        self, dynalite_url: str, format: str, signed: bool, by_url: bool, order: tuple[type, type]
    ) -> None:
        """Written by one, read and changed by the other, read back and ended by it."""
        table = new_table()
        create_plain(client(dynalite_url), table)  # Flask-Session would wait 20 s for a table that it makes itself
        settings = {"SESSION_SERIALIZATION_FORMAT": format, "SESSION_USE_SIGNER": signed}
        first, second = (
            visitor(
                make_app(
                    extension,
                    url_of(dynalite_url) if by_url and extension is LazySession else resource(dynalite_url),
                    table,
                    **settings,
                )
            )
            for extension in order
        )
        sid = first.get("/set/a").text
        second.set_cookie("session", first.get_cookie("session").value)
        assert second.get("/keys").text == "_permanent,a"
        assert second.get("/set/b").text == sid
        assert first.get("/keys").text == "_permanent,a,b"
        assert first.get("/set/c").text == sid
        assert second.get("/keys").text == "_permanent,a,b,c"
        second.get("/clear")
        assert first.get("/keys").text == "_permanent"

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_the_same_items(self, dynalite_url: str) -> None:
        """Both store the same attributes of the same types, the same bytes and the same expiration."""
        items = []
        for extension in (Session, LazySession):
            table = new_table()
            sid = visitor(make_app(extension, resource(dynalite_url), table)).get("/set/a").text
            key = {"id": {"S": f"session:{sid}"}}
            item = client(dynalite_url).get_item(TableName=table, Key=key)["Item"]
            left = float(item.pop("expiration")["N"]) - time.time()
            assert ONE_DAY - 5 < left <= ONE_DAY
            assert item.pop("id") == key["id"]
            items.append(item)
        assert items[0] == items[1]

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_after_session(self, dynalite_url: str) -> None:
        """Called after ``Session(app)``, LazySession takes over its client and its table."""
        table, given = new_table(), resource(dynalite_url)
        theirs = visitor(make_app(Session, given, table))
        app = make_app(Session, given, table)
        LazySession(app)
        sid = theirs.get("/set/a").text
        with counted(given.meta.client) as trips:
            assert visitor(app, sid).get("/untouched").status_code == 200
            assert visitor(app, sid).get("/keys").text == "_permanent,a"
        assert trips == ["GetItem"]

    @pytest.mark.parametrize("by_url", [False, True], ids=["resource", "url"])
    def test_the_class_of_the_session(self, dynalite_url: str, by_url: bool) -> None:
        """A session is one of Flask-Session's own class."""
        value = url_of(dynalite_url) if by_url else resource(dynalite_url)
        assert visitor(make_app(LazySession, value, new_table())).get("/class").text == "True"


class TestRequests:
    """What each kind of request costs at the table."""

    @pytest.mark.parametrize(
        ("path", "sid", "trips"),
        [
            ("/untouched", LIVE, []),
            ("/untouched", None, []),
            ("/keys", LIVE, ["GetItem"]),
            ("/keys", None, []),
            ("/set/a", LIVE, ["GetItem", "UpdateItem"]),
            ("/set/a", None, ["PutItem"]),
            ("/clear", LIVE, ["DeleteItem"]),
            ("/clear", None, []),
        ],
    )
    @pytest.mark.parametrize("connect", [resource, client])
    def test_trips(self, dynalite_url: str, connect: Any, path: str, sid: str | None, trips: list[str]) -> None:
        """Unused is free, reading is one trip, a change one more, a first write one, a logout one."""
        given, table = connect(dynalite_url), new_table()
        app = make_app(LazySession, given, table)
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        backend.create(f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, "b": 1}), ONE_DAY)
        with counted(backend.client) as sent:
            visitor(app, sid).get(path)
        assert sent == trips

    def test_a_refresh_when_due(self, dynalite_url: str) -> None:
        """A refresh is one more trip, once in a tenth of the lifetime."""
        app = make_app(LazySession, resource(dynalite_url), new_table())
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        backend.create(f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, "b": 1}), ONE_DAY)
        backend.clock = lambda: time.time() + ONE_DAY / 10
        for expected in (["GetItem", "UpdateItem"], ["GetItem"]):
            with counted(backend.client) as sent:
                assert visitor(app, LIVE).get("/keys").text == "_permanent,b"
            assert sent == expected
        assert b"b" in stored(backend, f"session:{LIVE}")["val"]["B"]
