"""The connections of a client that Flask-Session's own methods use: each belongs to one process and to one call."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from lazysession.backends.memcached.connect import replace_pool
from lazysession.processes import LocksPerProcess, keep_for_good

#: Set on the client: python-memcached's is a ``threading.local``, so it has one for the connections of each thread.
_MARK = "lazysession_process"
#: Set on the client as well: two apps of a process may share one.
_LOCK = "lazysession_lock"


class ClientUse:
    """Uses of an interface's client, one for each call of a storage method.

    Clients of memcached compare no process id, and after a ``BaseException`` they may keep a connection on which the
    answer is still to come: the next reader would get it, and with it another visitor's session. They are known by
    their ``disconnect_all``. Other clients (redis-py, PyMongo) handle both themselves.

    :param interface: the interface; any, as Flask-Session has no annotations.
    """

    def __init__(self, interface: Any) -> None:
        self._interface = interface
        # The lambda: gevent replaces the class.
        self._lock: LocksPerProcess[threading.Lock] = LocksPerProcess(lambda: threading.Lock())  # noqa: PLW0108
        client = getattr(interface, "client", None)
        if _is_of_memcached(client):
            setattr(client, _MARK, os.getpid())
            self._lock = vars(client).setdefault(_LOCK, self._lock)

    @contextmanager
    def __call__(self) -> Generator[None]:
        """Keep the client to this process, and close its connections if the block ends by an exception.

        :raises ConnectionError: when python-memcached, which reports an outage as a missing key, has no server left.
        """
        client = getattr(self._interface, "client", None)
        if not _is_of_memcached(client):
            yield
            return
        with self._lock_for(client):
            client = self._of_this_process(self._interface.client)  # another thread may have replaced it meanwhile
            try:
                yield
            except BaseException:
                _disconnect(client)
                raise
            if _has_lost_its_servers(client):
                raise ConnectionError("All servers of the memcached client are down.")

    def _lock_for(self, client: Any) -> AbstractContextManager[Any]:
        """Return the lock for a client that neither pools its connections nor has one for each thread.

        Example: gunicorn's worker patches ``threading.local`` after its parent imported python-memcached (--preload).
        All greenlets then share one client, and one greenlet could read the response to another.
        """
        pooled = all(hasattr(node, "client_pool") for node in _nodes(client))
        return nullcontext() if pooled or isinstance(client, threading.local) else self._lock.get()

    def _of_this_process(self, client: Any) -> Any:
        process = os.getpid()
        if getattr(client, _MARK, None) == process:
            return client
        if hasattr(client, "clone"):  # pylibmc sends QUIT on a connection that it closes, and the parent still uses it
            keep_for_good(client)
            client = self._interface.client = client.clone()
        else:
            _disconnect(client)
        setattr(client, _MARK, process)
        return client


def _is_of_memcached(client: object) -> bool:
    return hasattr(type(client), "disconnect_all")  # of the class: a MongoClient has every attribute


def _nodes(client: Any) -> list[Any]:
    """Return the clients of each server of a ``HashClient``; of any other, the client itself."""
    nodes = getattr(client, "clients", None)
    return list(nodes.values()) if isinstance(nodes, dict) else [client]


def _disconnect(client: Any) -> None:
    for node in _nodes(client):
        if hasattr(node, "client_pool"):
            replace_pool(node)
        else:
            node.disconnect_all()


def _has_lost_its_servers(client: Any) -> bool:
    servers = getattr(client, "servers", None)
    return isinstance(servers, list) and bool(servers) and all(getattr(each, "deaduntil", 0) for each in servers)
