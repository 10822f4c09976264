"""The adapters: entry points of the group ``lazysession.backends``, named by the SESSION_TYPE that they serve."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .backend import Adapter
from .errors import ConfigurationError
from .pages import Page, see

GROUP = "lazysession.backends"
#: The adapter for interfaces of Flask-Session that have no other one; it has no SESSION_TYPE.
GENERIC = "generic"


@cache
def installed() -> tuple[EntryPoint, ...]:
    """Return the entry points of all adapters, looked up once: that reads a file of each package that is installed."""
    return tuple(entry_points(group=GROUP))


def names() -> list[str]:
    """Return every SESSION_TYPE that has an adapter, sorted."""
    return sorted({entry_point.name for entry_point in installed()} - {GENERIC})


def find(session_type: str) -> type[Adapter] | None:
    """Return the adapter that serves a SESSION_TYPE, or None when there is none.

    :raises ConfigurationError: when its client library is missing; the message says what to install.
    """
    return next((_load(each) for each in installed() if each.name == session_type), None)


def find_for_interface(interface: object) -> type[Adapter] | None:
    """Return the adapter for an interface's class or, for a subclass, for its base class."""
    for base in type(interface).__mro__:
        package = base.__module__.split(".")
        if package[0] != "flask_session" or len(package) < 2:
            continue
        adapter = find(package[1])
        if adapter is not None and adapter.interface_class == f"{base.__module__}:{base.__qualname__}":
            return adapter
    return None


#: The extra that each SESSION_TYPE of this package needs.
_EXTRAS = {name: name for name in ("redis", "memcached", "mongodb", "dynamodb", "cachelib", "sqlalchemy")}
_EXTRAS["filesystem"] = "cachelib"
#: The packages of the modules that a database URL needs. No name is guessed: an attacker could register it.
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
    """Return the error that says what to install for a SESSION_TYPE; no command if that is not known."""
    module = (error.name or session_type).partition(".")[0]
    extra = _EXTRAS.get(session_type)
    wanted = f"lazysession[{extra}]" if extra else None
    if module == "valkey" and extra == "redis":
        wanted = "lazysession[valkey]"
    elif extra == "sqlalchemy" and module != "sqlalchemy":
        wanted = _SQL_PACKAGES.get(module)
    hint = " (or set SESSION_SQLALCHEMY to a database URL)" if module == "flask_sqlalchemy" else ""
    command = f": pip install '{wanted}'{hint}" if wanted else ""
    return ConfigurationError(
        f"SESSION_TYPE is {session_type!r}, and a library that it needs is not installed ({error}){command}. "
        f"{see(Page.CLIENT_LIBRARY_MISSING)}"
    )


def _load(entry_point: EntryPoint) -> type[Adapter]:
    try:
        adapter: type[Adapter] = entry_point.load()
    except ImportError as error:
        package = entry_point.dist.name if entry_point.dist is not None else "lazysession"
        if package != "lazysession":  # another package's adapter, which may have extras of its own
            raise ConfigurationError(
                f"SESSION_TYPE is {entry_point.name!r}, and its adapter in {package} cannot be imported ({error})."
            ) from error
        if error.name == GROUP:  # on Windows, git may make a text file of the link lazysession/backends
            raise ConfigurationError(
                "lazysession was imported from a checkout without links. Install it: pip install -e ."
            ) from error
        raise missing_client(entry_point.name, error) from error
    _loaded[entry_point.name] = adapter, entry_point
    _check_adapter(adapter, entry_point)
    return adapter


# Checks of adapters

#: The loaded adapters and their entry points, for messages.
_loaded: dict[str, tuple[object, EntryPoint]] = {}
#: Each method of a backend, and how it is called.
_VERBS: dict[str, tuple[str, list[tuple[object, ...]]]] = {
    "read": ("read(key)", [("",)]),
    "create": ("create(key, payload, ttl)", [("", b"", 1.0)]),
    "replace": ("replace(key, payload, ttl, expected)", [("", b"", None, b"")]),
    "delete": ("delete(key, expected=None)", [("",), ("", b"")]),
    "touch": ("touch(key, ttl, expected=None)", [("", 1.0), ("", 1.0, b"")]),
}


def check_options(adapter: object, session_type: str, options: Mapping[str, object]) -> None:
    """Refuse settings ``SESSION_<TYPE>_<NAME>`` that an adapter does not take, and missing ones that it needs.

    :raises ConfigurationError: naming the settings, and those that the adapter knows.
    """
    make = _method(adapter, "from_setting")
    parameters = list(inspect.signature(make).parameters.values())[1:]
    prefix, where = f"SESSION_{session_type.upper()}_", _describe(adapter)
    unknown = [name for name in options if not _takes(make, None, options={name: None}, partly=True)]
    if unknown:
        known = [prefix + each.name.upper() for each in parameters if each.kind is not each.VAR_KEYWORD]
        raise ConfigurationError(
            f"{_joined(prefix + name.upper() for name in unknown)} cannot be used: the {where} "
            f"{f'knows {_joined(known)}' if known else 'takes no options'}."
        )
    needed = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    missing = [prefix + name.upper() for name in needed if name not in options]
    if missing:
        raise ConfigurationError(f"Set {_joined(missing)}, which the {where} needs.")


def check_backend(backend: object, adapter: object, maker: str) -> None:
    """Refuse a backend that lacks a method of the contract, or has one with other parameters.

    :param maker: the method of the adapter that made it.
    :raises ConfigurationError: naming the methods.
    """
    where = f"What {maker} of the {_describe(adapter)} returned, an object of type {type(backend).__name__},"
    missing = [verb for verb in _VERBS if not callable(getattr(backend, verb, None))]
    if missing:
        raise ConfigurationError(f"{where} has no {_joined(missing)}. {see(Page.OWN_BACKEND)}")
    for verb, (form, calls) in _VERBS.items():
        method = getattr(backend, verb)
        if not all(_takes(method, *arguments) for arguments in calls):
            raise ConfigurationError(f"{where} has a {verb} that cannot be called as {form}. {see(Page.OWN_BACKEND)}")


def _check_adapter(adapter: object, entry_point: EntryPoint) -> None:
    where = _describe(adapter)
    forms = {"from_interface": "from_interface(interface)", "from_setting": "from_setting(value, **options)"}
    missing = [name for name in ("interface_class", *forms) if not hasattr(adapter, name)]
    if missing:
        raise ConfigurationError(f"The {where} has no {_joined(missing)}. {see(Page.OWN_BACKEND)}")
    served: object = getattr(adapter, "interface_class", None)
    if served is not None and not _names_a_class(served, trusted=entry_point.value.startswith("lazysession.")):
        raise ConfigurationError(
            f"The {where} has interface_class = {served!r}; allowed is None or 'module:class'. {see(Page.OWN_BACKEND)}"
        )
    for name, form in forms.items():
        if not _takes(_method(adapter, name), None, partly=True):
            raise ConfigurationError(
                f"The {where} has to have a classmethod {form}, and has one that is called in another way. "
                f"{see(Page.OWN_BACKEND)}"
            )


def _names_a_class(served: object, *, trusted: bool) -> bool:
    """Return whether ``interface_class`` names a class; where its library is missing, it may."""
    if not isinstance(served, str):
        return False
    module, _, name = served.partition(":")
    if trusted or not module or not name:
        return bool(module and name)
    try:
        return hasattr(import_module(module), name)
    except ImportError:
        return True


def _takes(
    method: object, *arguments: object, options: Mapping[str, object] | None = None, partly: bool = False
) -> bool:
    """Return whether a method can be called with these arguments.

    :param partly: it may need more arguments.
    """
    if not callable(method):
        return False
    try:
        signature = inspect.signature(method)
        (signature.bind_partial if partly else signature.bind)(*arguments, **(options or {}))
    except TypeError:
        return False
    except ValueError:  # a method in C has no signature
        return True
    return not partly or not _needs_more(signature, len(arguments))


def _needs_more(signature: inspect.Signature, given: int) -> bool:
    """Return whether positional arguments are missing, as for a method that is no classmethod."""
    positional = [
        each
        for each in signature.parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return any(each.default is each.empty for each in positional[given:])


def _method(adapter: object, name: str) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(adapter, name)
    return method


def _describe(adapter: object) -> str:
    """Return the adapter as a message names it: where it is, and the SESSION_TYPE of its entry point."""
    for name, (loaded, entry_point) in _loaded.items():
        if loaded is adapter:
            return f"adapter {entry_point.value} (entry point of SESSION_TYPE {name!r})"
    return f"adapter {getattr(adapter, '__qualname__', type(adapter).__name__)}"


def _joined(names: Any) -> str:
    return ", ".join(names)
