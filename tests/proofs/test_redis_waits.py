"""How long a request waits for a Redis that is down: the figures of the page "Outages: timeouts and responses"."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lazysession.backends.redis.connect import client_of

#: Per client: the least and the most seconds for a server that never answers, and for a port that is closed.
WAITS: dict[str, tuple[Callable[[int], Any], tuple[float, float], tuple[float, float]]] = {
    "default": (lambda port: redis.Redis(port=port), (55, 90), (0.1, 30)),
    "from_url": (lambda port: redis.Redis.from_url(f"redis://127.0.0.1:{port}"), (5, 6), (0, 1)),
    "set": (
        lambda port: redis.Redis(port=port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 1)),
        (2, 3),
        (0, 1),
    ),
    "url": (lambda port: client_of(f"redis://127.0.0.1:{port}"), (2, 3), (0, 1)),
}


def waits(client: Any) -> float:
    """Return the seconds until a command fails."""
    started = time.perf_counter()
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        client.execute_command("GET", "key")
    return time.perf_counter() - started


@pytest.mark.skipif(int(redis.__version__.split(".")[0]) < 8, reason="the figures are those of redis-py 8")
@pytest.mark.parametrize("name", WAITS)
def test_how_long_clients_wait(name: str) -> None:
    """A server that accepts connections and never answers, and a port that is closed."""
    make, hanging, refused = WAITS[name]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hanging[0] <= waits(make(port)) <= hanging[1]
    assert refused[0] <= waits(make(port)) <= refused[1]
