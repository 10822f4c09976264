"""Clients of DynamoDB and their tables: what the adapter needs before its first session."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError, ParamValidationError

from lazysession.backend import Problem
from lazysession.processes import keep_for_good

logger = logging.getLogger("lazysession")

_DEFAULT_TIMEOUT = 60  # boto3's, for connecting and for reading
_FOR_EVER = float("inf")


class TableMaker:
    """Creates a table as Flask-Session does, with its time to live on, unless it exists.

    :param table: its name.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._was_created = False  # here, so that its time to live is still to be turned on

    def make(self, client: Any, *, timeout: int) -> None:
        """Create the table and wait until it is there; another process may create it at the same time.

        If the role may not look, the table is assumed to exist.

        :param timeout: seconds to wait for a table that is being created.
        :raises ValueError: when the name is not allowed for a table.
        :raises WaiterError: when creating it takes longer; the next call waits again.
        """
        try:
            status = _status(client, self._table)
        except ParamValidationError as error:
            raise ValueError(f"{self._table!r} cannot name a table.") from error
        except ClientError as error:
            if code_of(error) == "ValidationException":
                raise ValueError(f"{self._table!r} cannot name a table.") from error
            raise
        config = {"Delay": 1, "MaxAttempts": timeout}
        if status == "DELETING":
            client.get_waiter("table_not_exists").wait(TableName=self._table, WaiterConfig=config)
            status = "ABSENT"
        if status == "ABSENT" and _create(client, self._table):
            self._was_created = True
        if status in ("ABSENT", "CREATING"):
            client.get_waiter("table_exists").wait(TableName=self._table, WaiterConfig=config)
        if self._was_created:
            _enable_time_to_live(client, self._table)
            self._was_created = False


def _status(client: Any, table: str) -> str:
    try:
        return str(client.describe_table(TableName=table)["Table"]["TableStatus"])
    except ClientError as error:
        if code_of(error) == "ResourceNotFoundException":
            return "ABSENT"
        if code_of(error) == "AccessDeniedException":
            return "UNKNOWN"
        raise


def _create(client: Any, table: str) -> bool:
    try:
        client.create_table(
            TableName=table,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    except ClientError as error:
        if code_of(error) != "ResourceInUseException":
            raise
        return False
    return True


def _enable_time_to_live(client: Any, table: str) -> None:
    specification = {"Enabled": True, "AttributeName": "expiration"}
    try:
        client.update_time_to_live(TableName=table, TimeToLiveSpecification=specification)
    except ClientError as error:
        logger.warning(
            "The DynamoDB table %r was created, but its time to live could not be turned on (%s): expired sessions "
            "stay in it.",
            table,
            code_of(error),
        )


URL_FORM = "'dynamodb://eu-central-1/Sessions'"
#: What a client of a URL has where that says nothing; boto3's own are 60 s, 60 s, and 10 attempts with sleeps between.
_PATIENCE: dict[str, float] = {"connect_timeout": 2, "read_timeout": 5, "max_attempts": 3}
_ATTEMPTS_OF_ENVIRONMENT = "AWS_MAX_ATTEMPTS"
_NUMBERS: dict[str, Callable[[str], float]] = {"connect_timeout": float, "read_timeout": float, "max_attempts": int}


def connect(url: str) -> tuple[Any, str]:
    """Return a client of a URL, and the table that it names. No message shows what the URL contains."""
    from boto3.session import Session  # needed for URLs alone

    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"a URL has the form {URL_FORM}.") from None
    table = parts.path.strip("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme != "dynamodb" or "/" in table or parts.fragment:
        raise ValueError(f"a URL has the form {URL_FORM}.")
    if "@" in parts.netloc or ":" in parts.netloc:
        raise ValueError("the URL may name a region, and no host (?endpoint_url=) and no credentials (AWS_... or IAM).")
    if unknown := query.keys() - {"endpoint_url", *_NUMBERS}:
        raise ValueError(f"{min(unknown)!r} is none of the options of a URL: endpoint_url, {', '.join(_NUMBERS)}.")
    try:
        numbers = _PATIENCE | {name: _NUMBERS[name](query[name]) for name in _NUMBERS if name in query}
        most = numbers.pop("max_attempts")
        left_to_boto3 = _ATTEMPTS_OF_ENVIRONMENT in os.environ and "max_attempts" not in query
        attempts = {} if left_to_boto3 else {"retries": {"total_max_attempts": most}}
        # A session of its own: boto3's default one is not safe to share between threads.
        client = Session().client(
            "dynamodb",
            region_name=parts.netloc or None,
            endpoint_url=query.get("endpoint_url"),
            config=Config(**numbers, **attempts),
        )
    except NoRegionError:
        raise ValueError(f"the URL names no region, and AWS_DEFAULT_REGION does not either: {URL_FORM}.") from None
    except (BotoCoreError, ValueError):
        raise ValueError("the region, the endpoint_url or a number in the URL is wrong.") from None
    return client, table


def default_resource() -> Any:
    """Return the resource that Flask-Session makes where it is given none."""
    import boto3  # needed for this alone

    return boto3.resource(
        "dynamodb",
        endpoint_url="http://localhost:8000",
        region_name="us-west-2",
        aws_access_key_id="dummy",
        aws_secret_access_key="dummy",  # noqa: S106 - as of Flask-Session, for a DynamoDB that takes any
    )


def is_resource(value: object) -> bool:
    """Return whether a value is a boto3 resource (and not a table of one, which would bring a name of its own)."""
    return callable(getattr(value, "Table", None)) and hasattr(getattr(value, "meta", None), "client")


def is_client(value: object) -> bool:
    """Return whether a value is a low-level client for DynamoDB."""
    return callable(getattr(value, "update_item", None)) and hasattr(getattr(value, "meta", None), "events")


def leave_connections(client: Any) -> None:
    """Give a forked process connections of its own: with shared ones, it could read a response to the parent.

    ``client.close()`` is not enough: it waits for locks that a thread of the parent may have held at the fork.
    """
    try:
        session = client._endpoint.http_session
        for manager in (session._manager, *session._proxy_managers.values()):
            keep_for_good(manager.pools)
            manager.pools = type(manager.pools)(manager.pools._maxsize)
    except AttributeError:  # another botocore or urllib3
        client.close()


def takes_python_values(client: Any) -> bool:
    """Return whether the client converts Python values itself, as that of a resource does."""
    parameters: dict[str, Any] = {"Key": {"id": "key"}}
    model = client.meta.service_model.operation_model("GetItem")
    client.meta.events.emit("before-parameter-build.dynamodb.GetItem", params=parameters, model=model, context={})
    return bool(parameters["Key"]["id"] != "key")


def timeout_problems(client: Any) -> Iterator[Problem]:
    """Return a problem for a client with timeouts as long as boto3's defaults."""
    config = client.meta.config
    longest = max(config.connect_timeout or _FOR_EVER, config.read_timeout or _FOR_EVER)
    if longest >= _DEFAULT_TIMEOUT:
        how_long = "without a timeout" if longest == _FOR_EVER else f"{longest:,.10g} s, and several times over"
        yield Problem(
            "warning",
            f"The client waits for DynamoDB {how_long}: when it hangs, requests hang with it.",
            "Make the client with Config(connect_timeout=2, read_timeout=2, retries={'total_max_attempts': 2}), or "
            "name it by a URL: 'dynamodb://REGION/TABLE?connect_timeout=2&read_timeout=2&max_attempts=2'.",
            "dynamodb-timeout",
        )


def code_of(error: Exception) -> str:
    """Return what DynamoDB calls the error; nothing for an error that is not DynamoDB's."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""
