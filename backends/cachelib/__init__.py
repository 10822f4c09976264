"""The adapter of cachelib."""

from lazysession.backends.cachelib.store import CacheLibBackend as CacheLibBackend
from lazysession.backends.cachelib.store import FileCacheBackend as FileCacheBackend
from lazysession.backends.cachelib.store import FileSystemBackend as FileSystemBackend
