"""What is said of an error of a store."""

from __future__ import annotations

import os
import socket
from unittest.mock import MagicMock, Mock

import pytest
from redis import Redis

from lazysession.backend import with_reason
from lazysession.backends.redis.connect import address_of, client_of


def test_the_reason_of_an_error() -> None:
    """The system's reason is told, whatever the client made of it; the client's own text may hold a payload."""
    error = LookupError("session:0123456789 at 10.0.0.1")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert with_reason(error) == "LookupError: Connection refused"
    assert with_reason(ValueError("payload")) == "ValueError"
    assert with_reason(TimeoutError("redis://:secret@10.0.0.1")) == "TimeoutError"


def test_a_text_that_a_client_put_into_an_error_is_no_reason() -> None:
    """Only the number of an error of the system counts: the second argument of an OSError may be anything."""
    assert with_reason(OSError(5, "cannot write session:0123456789")) == f"OSError: {os.strerror(5)}"
    assert with_reason(OSError("GET failed", "session:0123456789")) == "OSError"
    assert with_reason(OSError(10**30, "session:0123456789")) == "OSError"
    assert with_reason(socket.gaierror(-2, "Name or service not known")) == "gaierror: Name or service not known"


def test_errors_that_are_each_others_causes() -> None:
    """``raise error from error`` makes a circle, and so does a client that raises its first error after a retry."""
    first, again = LookupError(), ValueError()
    first.__cause__, again.__cause__ = again, first
    assert with_reason(first) == "LookupError"
    first.__cause__ = first
    assert with_reason(first) == "LookupError"


def said_of(reason: Exception) -> str:
    """Return what is said of the failure of a client that replaces the system's error by its own."""

    def call() -> None:
        try:
            raise reason
        except OSError:
            raise LookupError("at 10.0.0.1")  # noqa: B904 - as redis-py

    try:
        call()
    except Exception as error:
        return with_reason(error)
    return ""


def test_what_the_app_was_handling_before_is_no_reason() -> None:
    """An error handler that uses the session has an error of its own, which says nothing about the store."""
    try:
        raise FileNotFoundError(2, "")
    except FileNotFoundError:
        assert said_of(ConnectionRefusedError(111, "")) == "LookupError: Connection refused"
        assert said_of(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://:secret@localhost:7399/0", " (localhost:7399)"),
        ("redis://localhost", " (localhost:6379)"),
        ("unix:///run/redis.sock", " (/run/redis.sock)"),
        ("redis://[::1]:7399", " ([::1]:7399)"),
        ("redis+cluster://localhost:7000", ""),
        ("redis+sentinel://localhost:26379/shop", ""),
    ],
)
def test_where_a_client_of_redis_connects_to(url: str, address: str) -> None:
    """The address is told, without the password, and without making the client of a cluster."""
    assert address_of(client_of(url)) == address


class WithoutPool:
    """A client that cannot be asked for its connections."""

    @property
    def connection_pool(self) -> object:
        raise ConnectionError("secret")


@pytest.mark.parametrize("client", [None, object(), Mock(), MagicMock(), WithoutPool(), Redis("redis://me:secret@a")])
def test_a_client_that_does_not_say_where_it_connects_to(client: object) -> None:
    """The error of the store is told without an address; a URL in the place of the host has a password in it."""
    assert address_of(client) == ""
