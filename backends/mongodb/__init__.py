"""The adapter of mongodb."""

from lazysession.backends.mongodb.store import MongoDBBackend as MongoDBBackend
