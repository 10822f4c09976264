"""Clients of Redis and Valkey, clusters and Sentinels from URL strings, as the Redis adapter takes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any
from urllib.parse import unquote, urlsplit

from lazysession.backends.redis.faults import fault_of

#: Seconds that a client made from a URL waits for a connection or a reply, unless the URL sets a timeout.
TIMEOUT = 2.0
_SCHEME = re.compile(r"unix|(redis|valkey)(s?)(\+cluster|\+sentinel)?")
_HOST = re.compile(r"[\w.-]+|\[[\da-fA-F:.]+(%\w+)?\]")
_PARTS = re.compile(r"([^/?#]*@)?([^/?#@]*)([^?#]*)(\?[^#]*)?")


def client_of(url: str) -> Any:
    """Make the client that a URL asks for, any as its library may be another; it connects with its first command.

    :raises ValueError: for another scheme, an option that the client does not know, a client library that is missing.
    """
    scheme, _, rest = url.partition("://")
    known = _SCHEME.fullmatch(scheme)
    if known is None:
        raise ValueError(
            "Redis URL must start with redis://, rediss://, unix://, redis+cluster://, rediss+cluster://, "
            "redis+sentinel:// or rediss+sentinel://, or the same with valkey in the place of redis."
        )
    family, secure, topology = known[1] or "redis", known[2] or "", known[3]
    try:
        library = import_module(family)
    except ImportError:
        if family == "redis":
            raise
        raise ValueError("its URL asks for the client library of Valkey: pip install valkey") from None
    fault = fault_of(url, library)
    if fault is not None:
        raise ValueError(f"its URL {fault}")
    make = {"+cluster": _cluster, "+sentinel": _master, None: _single}[topology]
    try:
        return make(library, f"{family}{secure}://" if known[1] else "unix://", rest)
    except (TypeError, ValueError, _errors(library)):  # whose messages may repeat a piece of a password
        raise ValueError(
            "its URL cannot be understood: is each port a number, is each option of the query one of the client's, "
            "are '/', '?', '#', '@' and '%' in the password written as %2F, %3F, %23, %40 and %25?"
        ) from None


def _single(library: Any, scheme: str, rest: str) -> Any:
    client = _class(library).from_url(scheme + rest, **_timeouts(library, _parse(library, scheme + rest)))
    connection_of(client)  # knows which options there are
    return client


def _cluster(library: Any, scheme: str, rest: str) -> Any:
    user, nodes, path, query = _split(rest)
    url = f"{scheme}{user}{nodes[0]}{path}{query}"
    _single(library, "", url)
    timeouts = _timeouts(library, _parse(library, url))
    del timeouts["retry_on_error"]  # the cluster's own: after a lost connection it asks who is master now
    cluster = import_module(f"{library.__name__}.cluster")
    others = [cluster.ClusterNode(*_address(node, 6379)) for node in nodes[1:]]
    make = getattr(cluster, f"{_class(library).__name__}Cluster").from_url
    return _Late(lambda: make(url, startup_nodes=[*others], **timeouts))


def _master(library: Any, scheme: str, rest: str) -> Any:
    """Make a client of the master: each new connection asks the Sentinels for its address."""
    user, nodes, path, query = _split(rest)
    service, _, database = path[1:].partition("/")
    words = query[1:].split("&")
    own = "&".join(word for word in words if not word.startswith("sentinel_"))
    options = _parse(library, f"{scheme}{user}/{database}?{own}")
    options.pop("connection_class", None)  # TLS, as the Sentinel's own class of connection needs to hear it
    options |= _timeouts(library, options)
    if scheme in ("rediss://", "valkeys://"):
        options["ssl"] = True
    shared = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_", "retry"))}
    theirs = "&".join(word.removeprefix("sentinel_") for word in words if word.startswith("sentinel_"))
    to_sentinels = shared | _parse(library, f"{scheme}?{theirs}")
    to_sentinels.pop("connection_class", None)
    make = import_module(f"{library.__name__}.sentinel").Sentinel
    sentinel = make([_address(node, 26379) for node in nodes], sentinel_kwargs=to_sentinels)
    client = sentinel.master_for(unquote(service), _class(library), **options)
    connection_of(client)
    return client


def _class(library: Any) -> Any:
    return library.Valkey if library.__name__ == "valkey" else library.Redis


def _errors(library: Any) -> Any:
    return getattr(library, f"{_class(library).__name__}Error")


def _parse(library: Any, url: str) -> dict[str, Any]:
    parsed: dict[str, Any] = import_module(f"{library.__name__}.connection").parse_url(url)
    return parsed


def _timeouts(library: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the timeouts, and one retry, at once, after a lost connection: after a timeout it would take as long."""
    timeout = options.get("socket_timeout", TIMEOUT)
    lost = library.exceptions.ConnectionError
    name = library.__name__
    retry = import_module(f"{name}.retry").Retry(import_module(f"{name}.backoff").NoBackoff(), 1, (lost,))
    connect_timeout = options.get("socket_connect_timeout", timeout)
    timeouts = {"socket_timeout": timeout, "socket_connect_timeout": connect_timeout}
    return {**timeouts, "retry": retry, "retry_on_error": [lost]}


def _split(rest: str) -> tuple[str, list[str], str, str]:
    """Return the account, the nodes, the path and the query of a URL without its scheme."""
    parts = _PARTS.fullmatch(rest)
    if parts is None:
        raise ValueError("a fragment")
    return parts[1] or "", parts[2].split(","), parts[3], parts[4] or ""


def _address(node: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{node}")
    return parts.hostname or "localhost", parts.port or port


def connection_of(client: Any) -> Any:
    """Return a connection as the client would make it, not connected; any, as its library may be another."""
    return client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)


def address_of(client: Any) -> str:
    """Return where a client connects to, in parentheses; nothing for a cluster, behind Sentinels, or if it is odd.

    The log says it beside an error of the store, so it never raises. A host that is none may be a URL with a password.
    """
    try:
        options = {} if isinstance(client, _Late) else client.connection_pool.connection_kwargs
        host, port, path = options.get("host"), options.get("port", 6379), options.get("path")
        if host is not None:
            host = f"[{host}]" if ":" in host else host
            return f" ({host}:{int(port)})" if _HOST.fullmatch(host) else ""
        return f" ({path})" if isinstance(path, str) else ""
    except Exception:  # whatever a client of the app's own raises
        return ""


class _Late:
    """A client that is made at its first use: a cluster's asks the nodes at once, and an app starts without them."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        # Without a lock: while the cluster is down, each request would wait for the failures of those before it.
        if self._client is None:
            self._client = self._make()
        return getattr(self._client, name)


def is_made_later(client: object) -> bool:
    """Return whether a client is one of this module's that is made at its first use."""
    return isinstance(client, _Late)
