"""The adapter of memcached."""

from lazysession.backends.memcached.store import MemcachedBackend as MemcachedBackend
