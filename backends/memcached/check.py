"""The problems of a client of memcached that only the user can fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lazysession.backend import Problem


def timeout_problems(client: Any) -> Iterator[Problem]:
    """Return the problem of a client without a timeout; any, as it is of one library or another.

    pymemcache has none by default; python-memcached waits 3 s and pylibmc 5 s.
    """
    nodes = getattr(client, "clients", None)  # of a HashClient
    for each in nodes.values() if isinstance(nodes, dict) else [client]:
        missing = [
            name
            for name in ("timeout", "connect_timeout", "socket_timeout")  # the last one is python-memcached's
            if getattr(each, name, 0) is None
        ]
        if missing:
            yield Problem(
                "warning",
                f"The client of memcached has no {' and no '.join(missing)}: when memcached hangs, requests hang with "
                "it, for as long.",
                f"Make the client with {', '.join(f'{name}=2' for name in missing)}, or name it by a URL: "
                "SESSION_MEMCACHED = 'memcached://...'.",
                "memcached-timeout",
            )
            return


def unmaintained_problems(client: Any) -> Iterator[Problem]:
    """Return what a client of python-memcached lacks, and which client to use instead; nothing for any other."""
    if not is_python_memcached(client):
        return
    yield Problem(
        "warning",
        "python-memcached is used without compare-and-swap: of two concurrent changes of a session, one may be lost, "
        "or undo a logout. It also unpickles what it reads.",
        "Use pymemcache: SESSION_MEMCACHED = 'memcached://...' (pip install 'lazysession[memcached]').",
        "memcached-client",
    )
    yield from timeout_problems(client)


def is_python_memcached(client: object) -> bool:
    """Return whether a client is python-memcached's, or derived from it; the library is not imported."""
    return any((base.__module__, base.__qualname__) == ("memcache", "Client") for base in type(client).__mro__)
