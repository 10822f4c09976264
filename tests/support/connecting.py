"""Functions that make a backend in another process, which cannot import a test module."""

from __future__ import annotations

from pathlib import Path

from lazysession.backend import Backend
from lazysession.backends.cachelib import CacheLibBackend, FileCacheBackend
from lazysession.backends.memcached import MemcachedBackend
from tests.support.boxed import BoxedPurging


def on_files(folder: Path) -> FileCacheBackend:
    """Make a backend on a directory."""
    backend = CacheLibBackend.from_setting(f"file:{folder}")
    assert isinstance(backend, FileCacheBackend)
    return backend


def boxed_on_files(folder: Path) -> Backend:
    """Make one that takes any bytes."""
    return BoxedPurging(on_files(folder))


def connect_client(address: tuple[str, int]) -> MemcachedBackend:
    """Make a backend on pymemcache's Client."""
    from pymemcache.client.base import Client

    return MemcachedBackend(Client(address))


def connect_pylibmc(spec: str) -> MemcachedBackend:
    """Make a backend on pylibmc's Client."""
    import pylibmc

    return MemcachedBackend(pylibmc.Client([spec]))
