"""Fixtures for the tests of the stores in depth."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.on_memcached import Server, Wire


@pytest.fixture
def server(memcached_url: str) -> Server:
    """A memcached, emptied."""
    from tests.support.on_memcached import Server  # which needs pylibmc

    server = Server(memcached_url)
    server.tell(b"flush_all", b"stats reset")
    return server


@pytest.fixture
def wire(server: Server) -> Generator[Wire]:
    """A wire to a memcached that knows all commands."""
    from tests.support.on_memcached import Wire

    wire = Wire(server)
    yield wire
    wire.close()


@pytest.fixture(scope="module")
def close_mongodb() -> Generator[None]:
    """Close the clients of MongoDB that a file opens, while the servers still run."""
    from tests.support.on_mongodb import CLIENTS

    yield
    while CLIENTS:
        CLIENTS.popitem()[1][0].close()


@pytest.fixture
def aws_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials as a container has them, for clients made from URLs; the machine's own are out of reach."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy")
