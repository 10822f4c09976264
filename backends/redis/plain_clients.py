"""Which clients take the direct path: those of the libraries themselves, if nothing wraps or observes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from types import FunctionType
from typing import Any

from lazysession.backends.redis.connect import is_made_later

#: The client libraries whose pools are known, by their major versions, and the class of their clients.
KNOWN = {"redis": range(5, 9), "valkey": range(6, 7)}
_CLIENT = {"redis": "Redis", "valkey": "Valkey"}
_CONNECTIONS = frozenset({"Connection", "SSLConnection", "UnixDomainSocketConnection"})
#: Options of a pool with which a connection does more than send a command and read its response.
_SPECIAL = (
    "cache",
    "cache_config",
    "cache_enabled",
    "client_cache",
    "command_packer",
    "credential_provider",
    "event_dispatcher",
)
#: Methods that ``execute_command`` calls, in some version of a library, and the direct path does not.
_OF_CLIENT = ("execute_command", "_execute_command", "_send_command_parse_response", "parse_response")
_OF_CONNECTION = ("send_command", "pack_command")


def reason_against(client: Any) -> str | None:
    """Return why commands to a client do not take the direct path, or None if they do.

    :param client: of type Any, because it may be of any library.
    """
    if is_made_later(client):
        return "the client is that of a cluster"
    kind, library = type(client), library_of(client)
    if library not in KNOWN or kind.__name__ != _CLIENT[library] or kind.__module__ != f"{library}.client":
        return f"the client is a {kind.__module__}.{kind.__qualname__}"
    return next(_reasons_of_client(library, client), None)


def library_of(client: object) -> str:
    """Return the name of the package that a client's class is from."""
    return type(client).__module__.partition(".")[0]


def _reasons_of_client(library: str, client: Any) -> Iterator[str]:
    version = str(import_module(library).__version__)
    if int(version.partition(".")[0]) not in KNOWN[library]:
        yield f"the pool of {library} {version} is not known"
    for name in filter(type(client).__dict__.__contains__, _OF_CLIENT):
        if name in vars(client) or not _is_of(library, getattr(type(client), name)):
            yield f"the client's {name} is wrapped"
    if client.connection is not None:
        yield "the client has a single connection"
    yield from _reasons_of_pool(library, client.connection_pool)
    if measuring(library)():
        yield "the client records metrics"


def _reasons_of_pool(library: str, pool: Any) -> Iterator[str]:
    if type(pool) is not import_module(f"{library}.connection").ConnectionPool:
        yield f"its pool is a {type(pool).__qualname__}"
    for name in ("get_connection", "release"):
        if name in vars(pool) or not _is_of(library, getattr(type(pool), name)):
            yield f"the pool's {name} is wrapped"
    kind = pool.connection_class
    if kind.__module__ != f"{library}.connection" or kind.__name__ not in _CONNECTIONS:
        yield f"its connections are of the class {kind.__qualname__}"
    for name in _OF_CONNECTION:
        if not _is_of(library, getattr(kind, name)):
            yield f"the connections' {name} is wrapped"
    if pool.connection_kwargs.get("encoding", "utf-8").lower() not in ("utf-8", "utf8"):
        yield "the client has an encoding other than UTF-8"
    for option in _SPECIAL:
        if pool.connection_kwargs.get(option) not in (None, False):
            yield f"the client has the option {option}"
    if getattr(pool, "cache", None) is not None:
        yield "the client has a cache of its own"


def _is_of(library: str, method: object) -> bool:
    """Return whether a method is a library's own: a wrapper can copy its name and module, but not its globals."""
    return type(method) is FunctionType and str(method.__globals__.get("__name__")).partition(".")[0] == library


def measuring(library: str) -> Callable[[], bool]:
    """Return a function that returns whether the library records metrics of each command, as redis-py 7.2 can."""
    try:
        providers = import_module(f"{library}.observability.providers")
    except ImportError:
        return lambda: False
    return lambda: providers.get_observability_instance().get_provider_manager() is not None
