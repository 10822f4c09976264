"""Finding adapters: entry points of the group ``lazysession.backends``, named by the SESSION_TYPE that they serve."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from .backend import Adapter
from .errors import ConfigurationError

GROUP = "lazysession.backends"
#: The adapter for interfaces of Flask-Session's that no other one drives; no SESSION_TYPE of its own.
GENERIC = "generic"


def names() -> list[str]:
    """Answer every SESSION_TYPE that has an adapter, sorted."""
    return sorted({entry_point.name for entry_point in entry_points(group=GROUP)} - {GENERIC})


def find(session_type: str) -> type[Adapter] | None:
    """Answer the adapter that serves a SESSION_TYPE, or None when there is none.

    :raises ConfigurationError: when its client library is missing; the message says what to install.
    """
    for entry_point in entry_points(group=GROUP, name=session_type):
        return _load(entry_point)
    return None


def find_for_interface(interface: object) -> type[Adapter] | None:
    """Answer the adapter that drives the interface's class or, for a subclass, the class it comes from."""
    for base in type(interface).__mro__:
        package = base.__module__.split(".")
        if package[0] != "flask_session" or len(package) < 2:
            continue
        adapter = find(package[1])
        if adapter is not None and adapter.drives == f"{base.__module__}:{base.__qualname__}":
            return adapter
    return None


#: The extra that each SESSION_TYPE of this package needs.
_EXTRAS = {name: name for name in ("redis", "memcached", "mongodb", "dynamodb", "cachelib", "sqlalchemy")}
_EXTRAS["filesystem"] = "cachelib"
#: The packages of the modules that a database URL asks for. No name is made up: anybody can register one.
_SQL_PACKAGES = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "pymysql": "pymysql",
    "MySQLdb": "mysqlclient",
    "mariadb": "mariadb",
    "oracledb": "oracledb",
    "pyodbc": "pyodbc",
    "flask_sqlalchemy": "flask-sqlalchemy",
}


def missing_client(session_type: str, error: ImportError) -> ConfigurationError:
    """Make the error that says what to install for a SESSION_TYPE; no command where that is not known."""
    module = (error.name or session_type).partition(".")[0]
    extra = _EXTRAS.get(session_type)
    wanted = f"lazysession[{extra}]" if extra else None
    if module == "valkey" and extra == "redis":
        wanted = "lazysession[valkey]"
    elif extra == "sqlalchemy" and module != "sqlalchemy":
        wanted = _SQL_PACKAGES.get(module)
    hint = " (or set SESSION_SQLALCHEMY to a database URL)" if module == "flask_sqlalchemy" else ""
    command = f": pip install '{wanted}'{hint}" if wanted else "."
    return ConfigurationError(
        f"SESSION_TYPE is {session_type!r}, and a library that it needs is not installed ({error}){command}"
    )


def _load(entry_point: EntryPoint) -> type[Adapter]:
    try:
        adapter: type[Adapter] = entry_point.load()
    except ImportError as error:
        package = entry_point.dist.name if entry_point.dist is not None else "lazysession"
        if package != "lazysession":  # somebody else's adapter, with extras of its own or none
            raise ConfigurationError(
                f"SESSION_TYPE is {entry_point.name!r}, and its adapter in {package} cannot be imported ({error})."
            ) from error
        raise missing_client(entry_point.name, error) from error
    return adapter
