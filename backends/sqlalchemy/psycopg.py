"""A read timeout for connections of psycopg: neither psycopg nor the library below it has one.

Its ``connect_timeout``, keepalives and ``tcp_user_timeout`` are no substitute: where a server is frozen (``SIGSTOP``),
or a proxy takes what is sent and never responds, the kernel on the other side acknowledges each packet, and a request
on an open connection waits indefinitely.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from sqlalchemy import Engine, event


def limit_reads(engine: Engine, seconds: float) -> None:
    """Make the connections of an engine of psycopg's raise, and close, after so many seconds without a response."""
    import psycopg  # needed for its own engines alone

    class LimitedConnection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return super().wait(self._until(gen, time.monotonic() + seconds), *arguments, **options)
            except psycopg.OperationalError as error:
                if error.sqlstate is None:  # not from the server: psycopg may take the connection for usable
                    self.pgconn.finish()
                raise

        def _until(self, gen: Any, deadline: float) -> Generator[Any, Any, Any]:
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if not ready and time.monotonic() >= deadline:
                        raise psycopg.OperationalError(f"no response within {seconds} s")
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value

    def connect(_dialect: object, _record: object, arguments: Any, options: Any) -> Any:
        return LimitedConnection.connect(*arguments, **options)

    event.listen(engine, "do_connect", connect)
