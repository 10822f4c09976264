"""Count what reaches the store: SQL by SQLAlchemy's and SQLite's own events, Redis by its own ``INFO``."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from redis import Redis
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

from lazysession.backends.redis.scripts import DELETE, DIGESTS, READ, REPLACE, TAKE, TOUCH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: The header of a response with what its request sent to the store.
RECORD = "Store-Counts"
#: What the first command of a round trip to Redis does, by its name or the digest of its script.
_KINDS = {
    **dict.fromkeys(("GET", DIGESTS[READ]), "read"),
    **dict.fromkeys(("SET", "SETEX", "PSETEX", DIGESTS[REPLACE]), "write"),
    **dict.fromkeys(("EXPIRE", "PEXPIRE", DIGESTS[TOUCH]), "refresh"),
    **dict.fromkeys(("DEL", "UNLINK", DIGESTS[DELETE], DIGESTS[TAKE]), "delete"),
}


@dataclass(frozen=True)
class StoreCounts:
    """What the shop sent to a store."""

    read: int = 0
    write: int = 0
    refresh: int = 0
    delete: int = 0
    other: int = 0
    refreshes_within_reads: int = 0
    commits: int = 0
    bytes_written: int = 0
    data_bytes_written: int = 0

    @property
    def round_trips(self) -> int:
        """How often the shop waited for the store."""
        return self.read + self.write + self.refresh + self.delete + self.other

    def __add__(self, other: StoreCounts) -> StoreCounts:
        return StoreCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: StoreCounts) -> StoreCounts:
        return StoreCounts(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class SqlCounter:
    """Counts the statements on the session table, on every engine of this process."""

    def __init__(self, table: str = "sessions") -> None:
        self._table = re.compile(rf"\b{re.escape(table)}\b")
        self._lock = threading.Lock()
        self._counts: dict[int, StoreCounts] = defaultdict(StoreCounts)  # by thread

    def install(self) -> SqlCounter:
        """Start counting: statements by SQLAlchemy's events, commits by SQLite's own."""
        event.listen(Engine, "before_cursor_execute", self._on_statement)
        event.listen(Pool, "connect", self._on_connect)
        return self

    def counts(self) -> StoreCounts:
        """Return everything counted so far."""
        with self._lock:
            return sum(self._counts.values(), StoreCounts())

    def counts_of_this_thread(self) -> StoreCounts:
        """Return what this thread has sent so far."""
        with self._lock:
            return self._counts[threading.get_ident()]

    def count(self, counts: StoreCounts) -> None:
        """Add what this thread has sent."""
        with self._lock:
            self._counts[threading.get_ident()] += counts

    def _on_statement(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        if self._table.search(statement):
            self.count(classify(statement, parameters))

    def _on_connect(self, connection: Any, _record: Any) -> None:
        def on_trace(statement: str) -> None:
            if commits(statement, in_transaction=connection.in_transaction):
                self.count(StoreCounts(commits=1))

        connection.set_trace_callback(on_trace)


def commits(statement: str, *, in_transaction: bool) -> bool:
    """Return whether a statement ends a write transaction: COMMIT does, and so does a write in autocommit mode."""
    verb = statement.split(maxsplit=1)[0].upper()
    return verb == "COMMIT" or (verb in {"INSERT", "UPDATE", "DELETE"} and not in_transaction)


def classify(statement: str, parameters: Any) -> StoreCounts:
    """Return the counts of one SQL statement. Values after WHERE are only compared, and do not count as written."""
    verb = statement.split(maxsplit=1)[0].upper()
    if verb == "SELECT":
        return StoreCounts(read=1)
    if verb == "DELETE":
        return StoreCounts(delete=1)
    if verb not in {"INSERT", "UPDATE"}:
        return StoreCounts(other=1)
    values = parameters[: re.split(r"\sWHERE\s", statement, maxsplit=1)[0].count("?")]
    size = sum(len(value) for value in values if isinstance(value, str | bytes | memoryview))
    data_size = sum(len(value) for value in values if isinstance(value, bytes | memoryview))
    if not data_size:
        return StoreCounts(refresh=1, bytes_written=size)
    return StoreCounts(write=1, bytes_written=size, data_bytes_written=data_size)


def with_records(app: WSGIApplication, counter: SqlCounter) -> WSGIApplication:
    """Make an app send with each response what its request sent to the store: one thread serves it."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        before = counter.counts_of_this_thread()

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            counts = counter.counts_of_this_thread() - before  # the session has been saved
            return start_response(status, [*headers, (RECORD, " ".join(map(str, astuple(counts))))], *error)

        return app(environ, start)

    return serve


def count_by_connection(client: Redis, counter: SqlCounter) -> None:
    """Count what a client sends, in its own process: INFO cannot say which request or which shop sent a command."""
    pool = client.connection_pool

    class Counted(pool.connection_class):  # type: ignore[name-defined,misc]  # TCP, TLS or a socket file
        connecting = False

        def connect(self) -> None:
            self.connecting = True  # its greetings are no round trips of a session
            super().connect()
            self.connecting = False

        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            if not self.connecting:
                counter.count(classify_sent(command))
            super().send_packed_command(command, check_health)

    pool.connection_class = Counted


def classify_sent(command: list[bytes]) -> StoreCounts:
    """Return the counts of one round trip to Redis, by its first command: ``*2 $3 GET $9 session:a`` is a read."""
    words = b"".join(command).split(b"\r\n", 5)
    name = (words[4] if words[2] == b"EVALSHA" else words[2]).decode()
    return StoreCounts(**{_KINDS.get(name, "other"): 1})


class RedisCounter:
    """Counts with the server's own INFO, which counts all clients: the server should have no others meanwhile."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._readings = 0
        first, second = self._info(), self._info()
        self._own_bytes = second["total_net_input_bytes"] - first["total_net_input_bytes"]

    def counts(self) -> StoreCounts:
        """Return everything counted so far, without the commands that read the counters."""
        info = self._info()
        return classify_commands(info, info["total_net_input_bytes"] - self._readings * self._own_bytes)

    def _info(self) -> dict[str, Any]:
        self._readings += 1
        info: dict[str, Any] = self._client.info("all")
        return info


def classify_commands(info: dict[str, Any], bytes_received: int) -> StoreCounts:
    """Return the round trips, without the commands inside scripts, which INFO counts as well.

    LazySession reads with GET, maybe together with an EVALSHA (PTTL and, when due, PEXPIRE inside), replaces with one
    EVALSHA (GET and PSETEX inside) and deletes what it read with one (GET and UNLINK inside). So each GET is one round
    trip, alone or inside a script, except that the GET before a PSETEX or UNLINK belongs to their EVALSHA, and the
    PSETEX or UNLINK counts for it. A script that the server did not know yet is one more round trip.
    """

    def calls(*names: str) -> int:
        return sum(info.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names)

    unknown_scripts: int = info.get("cmdstat_evalsha", {}).get("failed_calls", 0)
    return StoreCounts(
        read=calls("get") - calls("psetex", "unlink"),
        write=calls("set", "setex", "psetex"),
        refresh=calls("expire", "expireat"),
        delete=calls("del", "unlink"),
        other=unknown_scripts + calls("script|load", "getex", "mget", "exists", "ttl"),
        refreshes_within_reads=calls("pexpire"),
        bytes_written=bytes_received,
    )
