"""Tables of DynamoDB: how they are made and checked, and the settings that name them."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from flask import Flask
from flask_session import Session
from flask_session.dynamodb.dynamodb import DynamoDBSessionInterface

from lazysession import ConfigurationError, LazySession
from lazysession.backends.dynamodb import DynamoDBBackend
from lazysession.testing import KEY, race
from tests.support.on_dynamodb import (
    ACCOUNT,
    before,
    client,
    counted,
    failing,
    make,
    make_app,
    new_table,
    resource,
    url_of,
)
from tests.support.stores.documents import create_plain

pytestmark = pytest.mark.usefixtures("aws_account")


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
        """A table that is being made is waited for, and not made."""
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
        """Its time to live is the user's to turn on: items that Flask-Session still reads would be removed."""
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
    def test_other_errors_are_logged_at_the_start(self, dynalite_url: str, operation: str) -> None:
        """A table that cannot be had is an error of the client's, which an app logs when it starts."""
        held = client(dynalite_url)
        with before(held, operation, failing("LimitExceededException")), pytest.raises(ClientError, match="on purpose"):
            make(held)

    def test_a_time_to_live_that_cannot_be_turned_on(self, dynalite_url: str, caplog: pytest.LogCaptureFixture) -> None:
        """The app starts without, and the log says so."""
        backend = make(client(dynalite_url))
        assert f"{backend._table!r} was created, but its time to live could not be turned on" in caplog.text


class TestCheck:
    """What is found of a table's setup."""

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

    @pytest.mark.parametrize("make_client", [resource, client])
    def test_not_allowed(self, dynalite_url: str, make_client: Any) -> None:
        """For a role that may not ask, the finding names the missing right; any other fault raises."""
        backend = make(make_client(dynalite_url))
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
        """Each message says what is wrong, and shows nothing that may be secret."""
        app = Flask("shop")
        app.config.update(SESSION_TYPE="dynamodb", SESSION_DYNAMODB=value, SESSION_DYNAMODB_TABLE="Mine")
        with pytest.raises(ConfigurationError, match=r"^SESSION_DYNAMODB cannot be used: ") as caught:
            LazySession(app)
        assert message in str(caught.value)
        assert "s3cret" not in str(caught.value)

    def test_other_things_of_boto3(self, dynalite_url: str) -> None:
        """A client of another service and a table are refused: one cannot be used, the other has its own name."""
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
        """Without a value, it is the DynamoDB on localhost, as with Flask-Session, and nothing is sent."""
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
        """Nothing: its interface makes a table when it is built. The attributes that apps use are there."""
        given = resource(dynalite_url)
        app = make_app(LazySession, given, new_table())
        assert isinstance(app.session_interface, DynamoDBSessionInterface)
        assert app.session_interface.client is given.meta.client
        assert app.session_interface.store.name == app.config["SESSION_DYNAMODB_TABLE"]
