"""Loading a record as the core does: its expiry moves when that is due."""

from __future__ import annotations

from lazysession.backend import Backend, Record
from lazysession.records.expiry import Refresh
from lazysession.records.store import RecordStore
from lazysession.testing import KEY

#: A refresh to 1,000 seconds that is always due.
ALWAYS = Refresh(1000, 0)


def load(backend: Backend | RecordStore, refresh: Refresh = ALWAYS, key: str = KEY) -> Record | None:
    """Return what is stored; its expiry is moved, in a second round trip where the store needs one.

    :param backend: a backend, of whose expiries nothing is remembered, or its records.
    """
    records = backend if isinstance(backend, RecordStore) else RecordStore(backend)
    if records.touches_as_it_reads:
        return records.load(key, refresh)
    record = records.load(key, None)
    return None if record is None else record._replace(touched=records.refresh(key, record, refresh))
