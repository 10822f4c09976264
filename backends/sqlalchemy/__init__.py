"""The adapter of sqlalchemy."""

from lazysession.backends.sqlalchemy.store import SqlAlchemyBackend as SqlAlchemyBackend
