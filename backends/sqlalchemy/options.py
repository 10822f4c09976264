"""What a database URL and SESSION_SQLALCHEMY_ENGINE_OPTIONS may say, checked before anything connects."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

SETTING = "SESSION_SQLALCHEMY_ENGINE_OPTIONS"

#: Arguments of ``create_engine`` that users write into a URL, where they do not belong.
_ENGINE_ARGUMENTS = {
    *("pool_size", "max_overflow", "pool_timeout", "pool_recycle", "pool_pre_ping", "pool_use_lifo"),
    *("pool_reset_on_return", "poolclass", "echo", "echo_pool", "connect_args", "execution_options"),
}
#: Arguments that the backend sets: with autocommit, each verb is one statement; errors in logs must show no parameters.
_OURS = {"url", "pool", "isolation_level", "hide_parameters", "skip_autocommit_rollback", "logging_name"}
_NUMBERS_OF_ENGINE = ("pool_size", "max_overflow", "pool_timeout", "pool_recycle")
_NUMBERS_OF_URL = {
    *("connect_timeout", "read_timeout", "write_timeout", "timeout", "tcp_user_timeout"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
}
_SQLITE = ("uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements")


def check_query(address: URL, dialect: Any) -> None:
    """Refuse parameters in the query of a URL that its driver does not have.

    :param dialect: SQLAlchemy's class for it; any, as its attributes depend on the driver.
    :raises ValueError: with the name of the parameter, and without its value.
    """
    for name in address.query:
        if name in _ENGINE_ARGUMENTS:
            raise ValueError(f"{name!r} does not belong in the URL. Set {SETTING} = {{{name!r}: ...}}.")
    if "prepare_threshold" in address.query:
        raise ValueError(
            "'prepare_threshold' does not belong in the URL. Leave it out (nothing is prepared then), or set "
            f"{SETTING} = {{'connect_args': {{'prepare_threshold': 5}}}}."
        )
    for name, value in address.query.items():
        if name in _NUMBERS_OF_URL and not _is_number(value):
            raise ValueError(f"{name!r} in the URL is not a number.")
    unknown = sorted(set(_unknown_of(address, dialect)))
    if unknown:
        raise ValueError(
            f"the URL has {', '.join(map(repr, unknown))}, which the driver {dialect.driver} does not know."
        )


def check_options(value: object) -> dict[str, Any]:
    """Return the arguments of ``create_engine`` that the setting names.

    :raises ValueError: when it is not a dict of such arguments.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{SETTING} must be a dict such as {{'pool_size': 10}}, not {type(value).__name__}.")
    options = dict(value)
    ours = sorted(_OURS & options.keys())
    if ours:
        raise ValueError(f"{SETTING} may not have {ours[0]!r}, which LazySession itself sets: leave it out.")
    for name in _NUMBERS_OF_ENGINE:
        if name in options and (isinstance(options[name], bool) or not isinstance(options[name], (int, float))):
            raise ValueError(f"{SETTING} has {name!r} = {options[name]!r}; it must be a number.")
    if not isinstance(options.get("connect_args", {}), Mapping):
        raise ValueError(f"{SETTING} has 'connect_args' that are not a dict such as {{'connect_timeout': 5}}.")
    return options


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _unknown_of(address: URL, dialect: Any) -> Iterable[str]:
    """Return the names in the query that the driver would refuse or ignore; none where that cannot be known."""
    names = set(address.query) - {"plugin"}  # SQLAlchemy's
    if dialect.driver == "pysqlite":
        return () if address.query.get("uri") else names - set(_SQLITE)  # else they are SQLite's, which ignores some
    if dialect.driver == "psycopg":
        from psycopg.pq import Conninfo

        return names - {option.keyword.decode() for option in Conninfo.get_defaults()} - {"read_timeout"}
    if dialect.driver == "psycopg2":
        return [name for name in names if not _psycopg2_knows(name)]
    return _unknown_by_signature(address, dialect)


def _psycopg2_knows(name: str) -> bool:
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import make_dsn

    try:
        make_dsn(**{name: ""})
    except ProgrammingError:
        return False
    return True


def _unknown_by_signature(address: URL, dialect: Any) -> Iterable[str]:
    try:
        library = dialect.import_dbapi()
        known = inspect.signature(library.connect).parameters
        _, options = dialect(dbapi=library).create_connect_args(address)
    except (ArgumentError, AttributeError, ImportError, TypeError, ValueError):
        return ()  # a driver written in C, such as mysqlclient, has no signature
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return ()
    return set(options) - set(known)
