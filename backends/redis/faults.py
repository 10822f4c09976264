"""What is wrong with a URL for Redis: messages that name the part, and never show a part of a password."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

_DATABASE = re.compile(r"/?|/\d+", re.ASCII)
_OPTION = re.compile(r"[a-z][a-z0-9_]*")
_CERTIFICATES = ("none", "optional", "required")
_TIMEOUTS = ("socket_timeout", "socket_connect_timeout")


def fault_of(url: str, library: Any) -> str | None:
    """Return the first fault of a URL, as the end of a sentence; None if none is found.

    What clients accept silently is a fault as well: they take a database that is not a number for database 0.

    :param url: its scheme is one of those for Redis or Valkey.
    :param library: the module ``redis`` or ``valkey``.
    """
    return next(_faults(url, library), None)


def _faults(url: str, library: Any) -> Iterator[str]:
    scheme, _, rest = url.partition("://")
    if re.search(r"\s", rest):
        yield "has a blank in it: write %20."
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    behind = rest[len(authority) :]
    if "@" in behind and "@" not in authority and not (scheme == "unix" and behind.startswith("/")):
        yield "has '/', '?' or '#' in its password: write %2F, %3F or %23."
    if "#" in behind:
        yield "has '#' in it: write %23."
    path, _, query = behind.partition("?")
    nodes = authority.rpartition("@")[2]
    if scheme == "unix":
        if nodes or len(path) < 2:
            yield "names no socket: write unix:///run/redis.sock, for example."
    else:
        yield from _faults_of_nodes(scheme, nodes.split(","))
        yield from _faults_of_path(scheme, path)
    yield from _faults_of_query(scheme, query, library, shown="@" not in behind)


def _faults_of_nodes(scheme: str, nodes: list[str]) -> Iterator[str]:
    if len(nodes) > 1 and "+" not in scheme:
        yield f"names several hosts: write {scheme}+cluster:// or {scheme}+sentinel://."
    for node in nodes:
        try:
            parts = urlsplit(f"//{node}")
        except ValueError:
            yield "has an invalid host: write an IPv6 address in square brackets."
            return
        if not parts.hostname:
            yield "names no host: write localhost, if that is meant."
        try:
            valid = parts.port is None or parts.port > 0
        except ValueError:
            valid = False
        if not valid:
            yield "has a port that is not a number from 1 to 65535."


def _faults_of_path(scheme: str, path: str) -> Iterator[str]:
    if scheme.endswith("+cluster") and path not in ("", "/", "/0"):
        yield "names a database, but a cluster has only database 0."
    if scheme.endswith("+sentinel"):
        service, slash, database = path[1:].partition("/")
        if not service:
            yield f"names no service: write {scheme}://host:26379/SERVICE."
        path = slash + database
    if not _DATABASE.fullmatch(path):
        yield "names a database that is not a number: write redis://host:6379/0, for example."


def _faults_of_query(scheme: str, query: str, library: Any, *, shown: bool) -> Iterator[str]:
    known = _options_of(library)
    for text, value in parse_qsl(query, keep_blank_values=True):
        prefix = "sentinel_" if scheme.endswith("+sentinel") and text.startswith("sentinel_") else ""
        name = text.removeprefix(prefix)
        # What looks like an option may be a piece of a password.
        label = f" {text!r}" if shown and _OPTION.fullmatch(text) else ""
        if name not in known:
            close = get_close_matches(name, known, n=1) if label else ()
            hint = f" Did you mean {prefix + close[0]!r}?" if close else ""
            yield f"has the unknown option{label}.{hint}" if label else "has an unknown option."
        elif name.startswith("ssl_") and scheme.partition("+")[0] in ("redis", "valkey", "unix"):
            yield f"has the option {text!r}, which needs rediss://."
        elif not value:
            yield f"has no value for its option{label}."
        elif not _is_valid(name, value, library):
            yield f"has a wrong value for its option{label}."


def _is_valid(name: str, value: str, library: Any) -> bool:
    if name == "ssl_cert_reqs":
        return value in _CERTIFICATES
    parse = import_module(f"{library.__name__}.connection").parse_url
    try:
        parsed = parse(f"{library.__name__}://localhost?{urlencode({name: value})}")[name]
        return name not in _TIMEOUTS or float(parsed) > 0
    except (TypeError, ValueError):
        return False


def _options_of(library: Any) -> frozenset[str]:
    """Return every option that some client, pool or connection of the library takes."""
    connections = import_module(f"{library.__name__}.connection")
    names = ("Connection", "SSLConnection", "UnixDomainSocketConnection", "ConnectionPool", "BlockingConnectionPool")
    kinds = [getattr(connections, name) for name in names]
    family = "Valkey" if library.__name__ == "valkey" else "Redis"
    kinds += [getattr(library, family), import_module(f"{library.__name__}.cluster").__dict__[f"{family}Cluster"]]
    bases = {base for kind in kinds for base in kind.__mro__ if base is not object}
    parameters = {name for base in bases if "__init__" in vars(base) for name in inspect.signature(base).parameters}
    return frozenset(parameters - {"self", "args", "kwargs", "connection_class"})
