"""``gevent.Timeout`` stops greenlets in the middle of commands to Redis: each still reads only its own session."""

from __future__ import annotations

import json
import sys
from urllib.parse import urlsplit

import pytest

from tests.support.faults import FaultProxy
from tests.support.processes import run_module

GREENLETS, ROUNDS = 30, 40
#: Seconds by which the proxy delays each answer. Half of the timeouts are up to twice as long, and stop most calls; the
#: others stop none, on a busy machine either.
DELAY, NEVER = 0.002, 30.0


def main() -> None:
    """Run greenlets that each read, refresh and change a session of their own, and print what they saw.

    Most of them are stopped at some time, before, in or after an answer.
    """
    from gevent import monkey

    monkey.patch_all()

    import random

    import gevent
    import redis

    from lazysession.backends.redis import RedisBackend

    client = redis.Redis(port=int(sys.argv[1]), socket_timeout=30)
    backend = RedisBackend(client)
    seen = {"whole": 0, "stopped": 0, "wrong": 0}

    def visit(number: int) -> None:
        chance = random.Random(number)
        key, mine = f"session:greenlet{number}", b"%d " % number
        stored = mine + b"0"
        client.set(key, stored, ex=100)
        for round_number in range(ROUNDS):
            try:
                with gevent.Timeout(chance.choice((chance.uniform(0, 2 * DELAY), NEVER))):
                    what = chance.randrange(3)
                    if what == 0:
                        record = backend.read(key)
                    elif what == 1:
                        record = backend.read_and_touch(key, 100, 0)
                    else:
                        result = backend.replace(key, mine + b"%d" % round_number, 100, stored)
                        seen["wrong"] += result.current is not None and not bytes(result.current).startswith(mine)
                        record = backend.read(key)
                    seen["wrong"] += record is None or not bytes(record.payload).startswith(mine)
                    stored = stored if record is None else bytes(record.payload)
                    seen["whole"] += 1
            except gevent.Timeout:
                seen["stopped"] += 1

    gevent.joinall([gevent.spawn(visit, number) for number in range(GREENLETS)], raise_error=True)
    pool = client.connection_pool
    counts = len(pool._available_connections), pool._created_connections, len(pool._in_use_connections)
    print(json.dumps([seen, counts, backend._direct is not None]))  # noqa: T201


def test_each_greenlet_reads_its_own_session(redis_url: str) -> None:
    """Each answer is the greenlet's own, and afterwards each connection is back in the pool."""
    pytest.importorskip("gevent")
    port = urlsplit(redis_url).port
    assert port is not None
    with FaultProxy(port, mode="slow", delay=DELAY) as proxy:
        ended = run_module("tests.proofs.test_redis_greenlets", str(proxy.port))
    assert ended.stdout, ended.stderr[-2000:]
    seen, (idle, made, in_use), is_direct = json.loads(ended.stdout)
    assert is_direct
    assert seen["wrong"] == 0
    assert seen["whole"] > 100
    assert seen["stopped"] > 100
    assert in_use == 0
    assert idle == made <= GREENLETS
