"""What is said of an error of a store."""

from __future__ import annotations

import pytest

from lazysession.backend import with_reason
from lazysession.backends.redis.connect import address_of, client_of


def test_the_reason_of_an_error() -> None:
    """The system's reason is told, whatever the client made of it; the client's own text may hold a payload."""
    error = LookupError("session:0123456789 at 10.0.0.1")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert with_reason(error) == "LookupError: Connection refused"
    assert with_reason(ValueError("payload")) == "ValueError"
    assert with_reason(TimeoutError("redis://:secret@10.0.0.1")) == "TimeoutError"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://:secret@localhost:7399/0", " (localhost:7399)"),
        ("redis://localhost", " (localhost:6379)"),
        ("unix:///run/redis.sock", " (/run/redis.sock)"),
        ("redis+cluster://localhost:7000", ""),
        ("redis+sentinel://localhost:26379/shop", ""),
    ],
)
def test_where_a_client_of_redis_connects_to(url: str, address: str) -> None:
    """The address is told, without the password, and without making the client of a cluster."""
    assert address_of(client_of(url)) == address
