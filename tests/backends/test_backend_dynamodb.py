"""The DynamoDB adapter against the contract, on dynalite and on moto, and what only DynamoDB has."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from flask_session import Session

from lazysession import LazySession
from lazysession.backend import Outcome, Record, SupportsCheck, SupportsPurge, WriteResult
from lazysession.backends.dynamodb import DynamoDBBackend
from lazysession.records.expiry import Refresh
from lazysession.testing import KEY, ComparesAtomically, Contract, Held, KeepsTtl, TellsTtl
from tests.support.on_dynamodb import (
    ACCOUNT,
    LIVE,
    ONE_DAY,
    before,
    client,
    counted,
    failing,
    make,
    make_app,
    new_table,
    resource,
    stored,
    url_of,
    visitor,
)
from tests.support.refreshing import load
from tests.support.servers import free_port

pytestmark = pytest.mark.usefixtures("aws_account")

NEVER = Refresh(1000, 999)


def hold(value: Any, endpoint: str) -> Held:
    """Return a table as Held; time passes on the backend's clock."""
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


def put(backend: DynamoDBBackend, **attributes: Any) -> None:
    """Store an item as another program would, with types spelt out."""
    low_level = client(backend.client.meta.endpoint_url)
    low_level.put_item(TableName=backend._table, Item={"id": {"S": KEY}, **attributes})


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
    def test_a_change_by_another_request_comes_with_the_refusal(self, moto_url: str, connect: Any) -> None:
        """Where the server sends the item along, as DynamoDB does, CONFLICT is one request, also of an expired item."""
        backend = make(connect(moto_url))
        backend.create(KEY, b"theirs", 1000)
        with counted(backend.client) as trips:
            assert backend.replace(KEY, b"mine", 1000, b"seen") == WriteResult(Outcome.CONFLICT, b"theirs")
            assert backend.delete(KEY, b"seen") == WriteResult(Outcome.CONFLICT, b"theirs")
            backend.clock = lambda: time.time() + 2000
            assert backend.replace(KEY, b"mine", 1000, b"theirs") == WriteResult(Outcome.MISSING)
        assert trips == ["UpdateItem", "DeleteItem", "UpdateItem"]

    def test_a_server_that_does_not_send_the_item_along(self, backend: DynamoDBBackend) -> None:
        """There, one more request distinguishes CONFLICT from MISSING, with the payload all the same."""
        backend.create(KEY, b"theirs", 1000)
        with counted(backend.client) as trips:
            assert backend.replace(KEY, b"mine", 1000, b"seen") == WriteResult(Outcome.CONFLICT, b"theirs")
        assert trips == ["UpdateItem", "GetItem"]


class TestDefects:
    """What Flask-Session's interface gets wrong on DynamoDB, and this adapter does not."""

    def test_reads_are_consistent(self, backend: DynamoDBBackend) -> None:
        """A session that was just written is read, from any replica; Flask-Session does not ask for that."""
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

    @pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs time.tzset: run it on Linux or macOS")
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
        """What a worker inherits is closed in it, or it would read the replies of its siblings."""
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
    """Run a server that has no items, and records the connection of each request."""
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
        """DynamoDB purges by itself; check() says whether it does."""
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
        """A session without an expiration is live, cannot be created over, and gets an expiry at its next refresh."""
        put(backend, val={"B": b"1"})
        assert backend.delete(KEY, b"1").outcome is Outcome.STORED
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
        """It is distinguished from a plain client by how it converts values."""
        backend = make(resource(dynalite_url).meta.client)
        backend.create(KEY, b"1", 1000)
        assert stored(backend)["val"] == {"B": b"1"}

    @pytest.mark.parametrize("make_client", [resource, client])
    def test_errors_are_the_clients_own(self, make_client: Any) -> None:
        """A server that is down raises what boto3 raises, at each verb."""
        backend = DynamoDBBackend(unreachable(make_client))
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


def unreachable(make_client: Any) -> Any:
    """Make a client to a port on which no server listens, that tries once."""
    kind = boto3.resource if make_client is resource else boto3.client
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=1)
    made: Any = kind("dynamodb", endpoint_url=f"http://127.0.0.1:{free_port()}", config=config, **ACCOUNT)
    return made.meta.client if make_client is resource else made
