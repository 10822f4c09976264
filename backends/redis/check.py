"""The problems of a Redis and its client that only the user can fix."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from lazysession.backend import Problem
from lazysession.backends.redis.connect import connection_of
from lazysession.backends.redis.plain_clients import library_of, reason_against
from lazysession.backends.redis.scripts import class_names, is_refused

#: The parsers in C that the client libraries use if they are installed.
_PARSERS = {"redis": "hiredis", "valkey": "libvalkey"}
#: Seconds that a request may wait for a Redis that hangs, before that is a finding.
_LONGEST = 10


def problems_of(node: Any) -> Iterator[Problem]:
    """Return the problems of one master; of type Any, because its client may be of any library.

    :raises Exception: the client's own, when the server does not answer.
    """
    if getattr(node, "connection_pool", None) is not None:
        yield from _problems_of_timeouts(connection_of(node))
    yield from _problems_of_scripts(node)
    info = _ask(node, "INFO")
    if not isinstance(info, dict):
        yield Problem(
            "warning",
            "This account may not use INFO: memory, replicas and disk were not checked.",
            "Allow it with ACL SETUSER ... +info, or make sure that maxmemory-policy is noeviction.",
            "redis-info",
        )
        return
    yield from _problems_of_server(info)
    yield from _problems_of_memory(info)
    if info.get("role") == "master" and not info.get("connected_slaves") and not info.get("aof_enabled"):
        save = _ask(node, "CONFIG GET", "save")  # managed services forbid it, and manage their disks themselves
        if isinstance(save, dict) and save.get("save") == "":
            yield Problem(
                "warning",
                "Redis keeps nothing on disk and has no replica: a restart logs everyone out.",
                "Set appendonly yes, or save, or add a replica.",
                "redis-persistence",
            )


def facts_of(client: Any) -> Iterator[Problem]:
    """Return which path the commands take and why, and whether a faster parser could be installed."""
    reason = reason_against(client)
    if reason is None:
        what = "Commands take the direct path: LazySession sends them on idle connections of the client's own pool."
        yield Problem("info", what, "Nothing to do.", "redis-path")
    else:
        what = f"Commands are sent with execute_command, which needs more CPU time than the direct path: {reason}."
        yield Problem("info", what, "Nothing to do, unless you expected the direct path.", "redis-path")
    parser = _PARSERS.get(library_of(client))
    if parser is not None and find_spec(parser) is None:
        what = f"{parser} is not installed: the client parses responses in Python, which is slower."
        yield Problem("info", what, f"Run pip install {parser}. The client then uses it.", "redis-parser")


def _problems_of_timeouts(connection: Any) -> Iterator[Problem]:
    timeout = getattr(connection, "socket_timeout", 0)
    if timeout is None:
        yield Problem(
            "warning",
            "The client has no socket_timeout: while Redis hangs, requests that use their session hang, too.",
            "Make the client with socket_timeout=2 and socket_connect_timeout=2, or use a URL.",
            "redis-timeout",
        )
        return
    retries = _retries_after_timeout(getattr(connection, "retry", None))
    if retries < 0 or (retries + 1) * timeout > _LONGEST:
        times = "until it succeeds" if retries < 0 else f"{retries + 1} times"
        yield Problem(
            "warning",
            f"The client tries a command {times} and waits {timeout:g} s each time: when Redis hangs, a request waits "
            "for all attempts.",
            "Make the client with socket_timeout=1, socket_connect_timeout=1 and retry=Retry(NoBackoff(), 1), or use "
            "a URL.",
            "redis-retries",
        )


def _retries_after_timeout(retry: Any) -> int:
    """Return how often a connection repeats a command after a timeout; negative if it never stops.

    It is 0 if the library has no such method: Valkey's and redis-py before 6 repeat nothing by default.
    """
    return retry.get_retries() if hasattr(retry, "get_retries") and _repeats_after_timeout(retry) else 0


def _repeats_after_timeout(retry: Any) -> bool:
    """Return whether a command is repeated after a timeout: only then is the second function called."""
    try:
        from redis import TimeoutError as Timeout
    except ImportError:  # the client is Valkey's
        return False

    def time_out() -> None:
        raise Timeout

    def stop(*_: object) -> None:
        raise StopIteration

    try:
        retry.call_with_retry(time_out, stop)
    except StopIteration:
        return True
    except Timeout:
        pass
    return False


def _problems_of_scripts(node: Any) -> Iterator[Problem]:
    if any(_refuses(node, *command) for command in (("EVAL", "return 1", 0), ("EVALSHA", "0" * 40, 0))):
        yield Problem(
            "error" if _refuses(node, "UNWATCH") else "warning",
            "Redis runs no scripts for this account: each change of a session takes up to four round trips, and fails "
            "where transactions are refused as well.",
            "Allow them with ACL SETUSER ... +eval +evalsha.",
            "redis-scripts",
        )


def _problems_of_server(info: dict[str, Any]) -> Iterator[Problem]:
    if int(str(info.get("redis_version", 6)).split(".")[0]) < 6:
        yield Problem(
            "error",
            "Redis is older than 6.0: changes in mode no_refresh fail.",
            "Update Redis.",
            "redis-version",
        )
    if info.get("role") == "slave":
        yield Problem(
            "error",
            "The client is connected to a replica: it can read sessions, but every change fails.",
            "Name the master, or the Sentinels: redis+sentinel://HOST:26379/SERVICE.",
            "redis-replica",
        )
    # Not with a single replica: while it restarts, every change would fail.
    if info.get("connected_slaves", 0) > 1 and "min_slaves_good_slaves" not in info:
        yield Problem(
            "warning",
            "A master that has lost its replicas still accepts changes, which a failover loses.",
            "Set min-replicas-to-write 1 and min-replicas-max-lag 10.",
            "redis-min-replicas",
        )


def _problems_of_memory(info: dict[str, Any]) -> Iterator[Problem]:
    limit, policy = info.get("maxmemory", 0), str(info.get("maxmemory_policy", "noeviction"))
    if not limit:
        return
    if policy != "noeviction":
        first = "any key" if policy.startswith("allkeys") else "keys with an expiry, as sessions are,"
        yield Problem(
            "warning",
            f"maxmemory-policy is {policy}: when memory runs out, Redis removes {first} and visitors are logged out.",
            "Give sessions a Redis of their own, with memory for all of them and maxmemory-policy noeviction.",
            "redis-eviction",
        )
    elif info.get("used_memory", 0) > 0.8 * limit:
        yield Problem(
            "warning" if info["used_memory"] < limit else "error",
            f"Redis uses {info['used_memory'] / limit:.0%} of maxmemory; when it is full, every change fails.",
            "Raise maxmemory, or shorten PERMANENT_SESSION_LIFETIME.",
            "redis-memory",
        )


def _ask(node: Any, *command: str) -> Any:
    """Return what the server replies, or None if this account may not use the command."""
    reply = _reply(node, *command)
    return None if isinstance(reply, Exception) else reply


def _refuses(node: Any, *command: str | int) -> bool:
    """Return whether a command is refused to this account, or unknown to the server."""
    return is_refused(_reply(node, *command))


def _reply(node: Any, *command: str | int) -> Any:
    """Return what the server replies, which may be an error; any, as it depends on the command."""
    try:
        return node.execute_command(*command)
    except Exception as error:
        if "ResponseError" not in class_names(error):
            raise
        return error
