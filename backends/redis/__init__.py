"""The adapter of redis."""

from lazysession.backends.redis.store import RedisBackend as RedisBackend
