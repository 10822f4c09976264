"""Sessions in a DynamoDB table, the same as Flask-Session's: an item for each session, with its expiry."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from lazysession.backend import Outcome, Problem, Record, WriteResult, with_reason
from lazysession.backends.common import Preparation
from lazysession.backends.dynamodb.connect import (
    URL_FORM,
    TableMaker,
    code_of,
    connect,
    default_resource,
    is_client,
    is_resource,
    leave_connections,
    takes_python_values,
    timeout_problems,
)
from lazysession.processes import PerProcess

DEFAULT_TABLE = "Sessions"
#: Seconds that a request, or else the start of an app, waits for a table that DynamoDB is creating.
_TIMEOUT, _TIMEOUT_AT_START = 3, 120

# An item without an expiration is one that never expires, as DynamoDB itself takes it: comparing no value is false.
_LIVE = "attribute_exists(id) AND NOT expiration <= :now"
_EXPECTED = "val = :expected AND NOT expiration <= :now"
_FREE = "attribute_not_exists(id) OR expiration <= :now"
#: With a refusal comes the item that was found, at no cost.
_TELL = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


class DynamoDBBackend:
    """Keep each payload in an item; every verb is one conditional request, and reads are consistent.

    :param client: a low-level client, or the one inside a resource (``resource.meta.client``): clients may be shared
        between threads, resources may not.
    :param table: the name of the table.
    :param makes_table: create the table where it does not exist, at the latest at the first use.
    :param clock: the present time in seconds since 1970, UTC.
    """

    interface_class: ClassVar[str | None] = "flask_session.dynamodb.dynamodb:DynamoDBSessionInterface"

    def __init__(
        self,
        client: Any,
        table: str = DEFAULT_TABLE,
        *,
        makes_table: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # Any: boto3 makes the classes of its clients at run time.
        self._client_here = PerProcess(lambda: client, leave_connections)
        self._client_here.get()  # what is connected from now on is this process's
        self.clock = clock
        self._table = table
        self._typed = not takes_python_values(client)
        #: The resource's table, as Flask-Session's interface has it; none for a client or a URL.
        self.store: Any = None
        self._maker = TableMaker(table)
        self._preparation = Preparation(
            lambda: self._maker.make(self._client_here.get(), timeout=_TIMEOUT), is_done=not makes_table
        )

    @property
    def client(self) -> Any:
        """The client, without the connections that a forked worker has from its parent."""
        return self._client_here.get()

    def prepare(self) -> None:
        """Create the table, with its time to live on, unless it exists.

        :raises ValueError: when the name is not allowed for a table.
        :raises ClientError, BotoCoreError: when DynamoDB cannot be reached, or refuses the role.
        """
        if self._preparation.is_done:
            return
        try:
            self._maker.make(self.client, timeout=_TIMEOUT_AT_START)
            self._preparation.note_done()
        finally:
            leave_connections(self.client)  # none may be inherited by forked workers

    def explain(self, error: Exception) -> str:
        """Return DynamoDB's name for an error, or its class."""
        return code_of(error) or with_reason(error)

    @classmethod
    def from_interface(cls, interface: Any) -> DynamoDBBackend:
        """Take over the client and the table of Flask-Session's interface."""
        return cls(interface.client.meta.client, interface.store.name)

    @classmethod
    def from_setting(
        cls, value: Any, *, table: str | None = None, table_exists: object = None, **options: object
    ) -> DynamoDBBackend:
        """Make a backend of SESSION_DYNAMODB: a boto3 resource, a client, or a URL.

        A URL is ``dynamodb://REGION/TABLE``, where both may be left out, with ``endpoint_url``, ``connect_timeout``
        and ``read_timeout`` (seconds) and ``max_attempts`` in its query. Credentials are found as boto3 finds them.
        The table is created, with its time to live on, where it does not exist: by :meth:`prepare`, or at the first
        use.

        :param table_exists: True if the table is created by other means: nothing is created, and nothing is sent.
        :raises ValueError: for anything else, for a URL without a region where boto3 knows none either, and for a
            table that is named twice.
        :returns: without a value, one for the DynamoDB on localhost:8000, as with Flask-Session, with its warning.
            Never None: Flask-Session creates the table when it is set up, for which DynamoDB must be reachable.
        """
        if table_exists is not None and not isinstance(table_exists, bool):
            raise ValueError(f"SESSION_DYNAMODB_TABLE_EXISTS is {table_exists!r}; allowed is True or False.")
        if value is None:
            warnings.warn(
                "SESSION_DYNAMODB is not set: sessions go to the DynamoDB on localhost:8000.", RuntimeWarning, 2
            )
            value = default_resource()
        client, table = _client_and_table(value, table)
        backend = cls(client, table, makes_table=not table_exists)
        if is_resource(value):
            backend.store = value.Table(table)
        return backend

    def read(self, key: str) -> Record | None:
        """Read with one GetItem."""
        return self._get(key, self.clock())

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        """Create with one PutItem; a key whose item has expired is free, as DynamoDB removes it days later."""
        now = self.clock()
        item = {"id": self._value("S", key), "val": self._value("B", payload), "expiration": self._time(now + ttl)}
        values = {":now": self._time(now)}
        try:
            self._ready().put_item(
                TableName=self._table, Item=item, ConditionExpression=_FREE, ExpressionAttributeValues=values
            )
        except ClientError as error:
            if _is_refusal(error):
                return False
            raise
        return True

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        """Replace with one UpdateItem that names the expected payload; CONFLICT comes with the current one."""
        now = self.clock()
        change = "SET val = :val"
        values = {":val": self._value("B", payload), ":expected": self._value("B", expected)}
        if ttl is not None:
            change += ", expiration = :expiration"
            values[":expiration"] = self._time(now + ttl)
        try:
            self._update(key, now, change, _EXPECTED, values)
        except ClientError as error:
            return self._why_refused(error, key, now)
        return WriteResult(Outcome.STORED)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Delete with one DeleteItem, which returns what was there; it names an expected payload as a replace does."""
        now = self.clock()
        condition: dict[str, Any] = {"ReturnValues": "ALL_OLD"}
        if expected is not None:
            values = {":expected": self._value("B", expected), ":now": self._time(now)}
            condition = {"ConditionExpression": _EXPECTED, "ExpressionAttributeValues": values} | _TELL
        try:
            answer = self._ready().delete_item(**self._item(key), **condition)
        except ClientError as error:
            return self._why_refused(error, key, now)
        if expected is not None:
            return WriteResult(Outcome.STORED)
        removed = _parse(answer.get("Attributes"), now)
        return WriteResult(Outcome.MISSING) if removed is None else WriteResult(Outcome.STORED, removed.payload)

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Move the expiration with one UpdateItem; ``expected`` is not compared: it would be sent with each refresh."""
        now = self.clock()
        try:
            self._update(key, now, "SET expiration = :expiration", _LIVE, {":expiration": self._time(now + ttl)})
        except ClientError as error:
            if _is_refusal(error):
                return False
            raise
        return True

    def check(self) -> Iterator[Problem]:
        """Look at the client's timeouts, and whether the table exists and removes expired sessions by itself."""
        yield from timeout_problems(self.client)
        table = f"the DynamoDB table {self._table!r}"
        try:
            found = self.client.describe_time_to_live(TableName=self._table)["TimeToLiveDescription"]
        except ClientError as error:
            if code_of(error) == "ResourceNotFoundException":
                yield Problem(
                    "error",
                    f"There is no table {self._table!r} in DynamoDB.",
                    "Create it, or start the app with the right to create it and SESSION_DYNAMODB_TABLE_EXISTS off.",
                    "dynamodb-table",
                )
            elif code_of(error) == "AccessDeniedException":
                remedy = "Allow dynamodb:DescribeTimeToLive, or look for yourself."
                yield Problem(
                    "warning", f"This role may not ask whether {table} has a time to live.", remedy, "dynamodb-rights"
                )
            else:
                raise
            return
        on = found["TimeToLiveStatus"] in ("ENABLED", "ENABLING")
        if not on or found.get("AttributeName") != "expiration":
            how = f"is on for {found.get('AttributeName')!r}, not for 'expiration'" if on else "is off"
            yield Problem(
                "warning",
                f"Expired sessions stay in {table} indefinitely: its time to live {how}.",
                f"aws dynamodb update-time-to-live --table-name {self._table} "
                "--time-to-live-specification Enabled=true,AttributeName=expiration",
                "dynamodb-ttl",
            )

    def _ready(self) -> Any:
        """Return the client, after the table was made or found."""
        self._preparation.ensure()
        return self.client

    def _get(self, key: str, now: float) -> Record | None:
        return _parse(self._ready().get_item(**self._item(key), ConsistentRead=True).get("Item"), now)

    def _why_refused(self, error: ClientError, key: str, now: float) -> WriteResult:
        if not _is_refusal(error):
            raise error
        # Without an item it is gone, or the server (dynalite) is one that does not send it along.
        item: Any = error.response.get("Item")
        found = _parse(item, now) if item else self._get(key, now)
        return WriteResult(Outcome.MISSING) if found is None else WriteResult(Outcome.CONFLICT, found.payload)

    def _update(self, key: str, now: float, change: str, condition: str, values: dict[str, Any]) -> None:
        self._ready().update_item(
            **self._item(key),
            UpdateExpression=change,
            ConditionExpression=condition,
            ExpressionAttributeValues=values | {":now": self._time(now)},
            **_TELL,
        )

    def _item(self, key: str) -> dict[str, Any]:
        return {"TableName": self._table, "Key": {"id": self._value("S", key)}}

    def _time(self, seconds: float) -> Any:
        number = f"{seconds:.6f}"  # microseconds, as Flask-Session; the time to live takes fractions as well
        return self._value("N", number if self._typed else Decimal(number))

    def _value(self, type: str, value: Any) -> Any:
        return {type: value} if self._typed else value


def _client_and_table(value: Any, table: str | None) -> tuple[Any, str]:
    """Return the client and the table that the settings name; any, as boto3 makes its classes at run time."""
    if isinstance(value, str):
        client, named = connect(value)
        if named and table and named != table:
            raise ValueError(f"its URL names the table {named!r}, and SESSION_DYNAMODB_TABLE is {table!r}.")
        return client, named or table or DEFAULT_TABLE
    if is_resource(value):
        return value.meta.client, table or DEFAULT_TABLE
    if is_client(value):
        return value, table or DEFAULT_TABLE
    raise ValueError(
        f"an object of type {type(value).__name__} is neither a boto3 resource or client for DynamoDB nor a "
        f"URL such as {URL_FORM}."
    )


def _parse(item: dict[str, Any] | None, now: float) -> Record | None:
    """Return the record of an item, or None for one that counts as absent."""
    if not item or "val" not in item:
        return None
    expiration = _plain(item.get("expiration"))
    ttl = None if expiration is None else float(expiration) - now
    if ttl is not None and ttl <= 0:
        return None
    return Record(bytes(_plain(item["val"])), ttl)


def _plain(value: Any) -> Any:
    """Take a value out of ``{"B": value}`` (a client) or ``Binary(value)`` (a resource)."""
    return next(iter(value.values())) if isinstance(value, dict) else getattr(value, "value", value)


def _is_refusal(error: Exception) -> bool:
    return code_of(error) == "ConditionalCheckFailedException"
