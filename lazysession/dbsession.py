"""Which session interfaces store through a database session of the app's: these must be left alone in mid-view."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from flask.sessions import SecureCookieSessionInterface, SessionInterface
from werkzeug.local import LocalProxy

#: Packages whose functions use no database session of an app's. Flask-Session's own SQL interface is known by its
#: ``client``.
_LIBRARIES = frozenset({"flask", "flask_session", "werkzeug", "sqlalchemy", "flask_sqlalchemy", "lazysession"})
_SESSIONS = frozenset({"scoped_session", "Session", "SQLAlchemy"})


def uses_db_session(interface: SessionInterface) -> bool:
    """Return whether an interface uses SQLAlchemy's session of the app, such as Flask-SQLAlchemy's ``db.session``.

    Its load in mid-view would flush what the app has pending there, and could commit it. Found by the interface's
    attributes and by what its methods name: a Flask-SQLAlchemy object, a session of SQLAlchemy or one of its models,
    also in functions that they call.
    """
    if type(interface) is SecureCookieSessionInterface:
        return False
    held = _without_proxies([*vars(interface).values(), *_values_of_class(type(interface))])
    return any(map(_is_db_session, held)) or any(
        _is_db_session(value) for function in _functions_in(held) for value in _named_by(function, set())
    )


def _values_of_class(kind: type) -> Iterator[object]:
    for base in kind.__mro__:
        if not _is_of_library(base):
            yield from vars(base).values()


def _functions_in(values: list[Any]) -> Iterator[FunctionType]:
    for value in values:
        for each in (value, *(getattr(value, name, None) for name in ("__func__", "fget", "__wrapped__"))):
            if isinstance(each, FunctionType):
                yield each


def _named_by(function: FunctionType, seen: set[CodeType]) -> Iterator[object]:
    """Return every object that a function names, and what the functions among them name."""
    if function.__code__ in seen or _is_of_library(function):
        return
    seen.add(function.__code__)
    names = set(_names_in(function.__code__))
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    found += [sys.modules[name] for name in names if name in sys.modules]  # imported in the function
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    found = _without_proxies(found)
    found += [vars(each)[name] for each in found if isinstance(each, ModuleType) for name in names & vars(each).keys()]
    found = _without_proxies(found)
    yield from found
    for called in _functions_in(found):
        yield from _named_by(called, seen)


def _without_proxies(values: list[Any]) -> list[Any]:
    """Leave out ``request``, ``current_app`` and the like: they cannot be looked at outside of a request."""
    return [value for value in values if type(value) is not LocalProxy]


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # a function within
            yield from _names_in(constant)


def _is_of_library(value: Any) -> bool:
    return str(getattr(value, "__module__", None)).partition(".")[0] in _LIBRARIES


def _is_db_session(value: object) -> bool:
    """Return whether an object is a database session, has one, or is a model that is queried through one."""
    if isinstance(value, type):
        return hasattr(value, "__mapper__") and hasattr(value, "metadata")
    return any(
        base.__name__ in _SESSIONS and base.__module__.partition(".")[0] in ("sqlalchemy", "flask_sqlalchemy")
        for base in type(value).__mro__
    )
