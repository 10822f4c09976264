"""What the adapter for memcached asks of a client."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from lazysession.backend import Outcome

logger = logging.getLogger("lazysession")

#: An expiry in early 1970 (up to 30 days would be counted from now): what is stored with it has expired.
PAST = 30 * 86400 + 1


class Commands(ABC):
    """The commands of memcached, in the way of one client library; an expiry is memcached's, in whole seconds."""

    #: Whether reading may unpickle what it finds.
    unpickles = True

    def __init__(self, client: Any) -> None:
        self._client = client

    @abstractmethod
    def gets(self, key: str) -> tuple[bytes | None, Any]:
        """Return the payload, None when there is none, and the token that :meth:`cas` wants."""

    def gats(self, key: str, expiry: int) -> tuple[bytes | None, Any, bool]:
        """Do as :meth:`gets`, and set the expiry; answer also whether that was done."""
        payload, token = self.gets(key)
        if payload is None:
            return None, None, False
        try:
            return payload, token, self.touch(key, expiry)
        except Exception as error:  # whatever the client raises: the session was read
            logger.warning("The expiry of a session could not be refreshed (%s).", type(error).__name__)
            return payload, token, False

    @abstractmethod
    def add(self, key: str, payload: bytes, expiry: int) -> bool:
        """Store unless the key is taken, and answer whether it was done."""

    @abstractmethod
    def cas(self, key: str, payload: bytes, expiry: int, token: Any) -> Outcome:
        """Store if nobody has stored since the token was told."""

    @abstractmethod
    def touch(self, key: str, expiry: int) -> bool:
        """Set the expiry alone; False when there is no such item."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete; absent is fine."""

    def ttl(self, key: str) -> int | None:
        """Return the seconds that are left; -1 for no expiry, None when that cannot be told."""
        return None

    def statistics(self) -> Iterable[dict[Any, Any]]:
        """Return what each server tells of itself."""
        return [statistics for _, statistics in self._client.get_stats()]
