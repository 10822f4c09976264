"""Which session interfaces use a database session of the app, and so must load before the view."""

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
#: Stands for ``app.extensions["sqlalchemy"]``.
_REGISTERED = object()


def uses_db_session(interface: SessionInterface) -> bool:
    """Return whether an interface uses SQLAlchemy's session of the app, such as Flask-SQLAlchemy's ``db.session``.

    Loading in the middle of a view would flush what the app has pending there, and could commit it. Such an interface
    is recognized by its attributes and by the names in its methods, also in functions that they call and in modules
    that are imported by now: a Flask-SQLAlchemy object (also as ``extensions["sqlalchemy"]``), a session of SQLAlchemy,
    or one of its models.
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
        for each in (value, *(_attribute(value, name) for name in ("__func__", "fget", "__wrapped__"))):
            function: Any = each  # a proxy's own __class__ may raise, so isinstance is not asked
            if issubclass(type(function), FunctionType):
                yield function


def _attribute(value: object, name: str) -> object:
    """Return an attribute, or None if there is none; proxies may raise anything."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None


def _named_by(function: FunctionType, seen: set[CodeType]) -> Iterator[object]:
    """Return every object that a function names, and what the functions among them name."""
    if function.__code__ in seen or _is_of_library(function):
        return
    seen.add(function.__code__)
    names = set(_names_in(function.__code__))
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    found += _imported_in(function, names)
    if "extensions" in names and "sqlalchemy" in _constants_in(function.__code__):
        found.append(_REGISTERED)
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    found = _without_proxies(found)
    for each in found:  # which grows: a module may be named in a module
        if issubclass(type(each), ModuleType):
            values = [vars(each)[name] for name in names & vars(each).keys()]
            found += [value for value in _without_proxies(values) if not any(value is known for known in found)]
    yield from found
    for called in _functions_in(found):
        yield from _named_by(called, seen)


def _imported_in(function: FunctionType, names: set[str]) -> Iterator[object]:
    """Return the modules that are imported in a function, by their whole name or from a package above it."""
    package = str(function.__globals__.get("__package__") or "")
    for name in names:
        above = package
        while True:
            path = f"{above}.{name}".strip(".")  # of "from . import x", the name is empty
            if path in sys.modules:
                yield sys.modules[path]
            if not above:
                break
            above = above.rpartition(".")[0]


def _without_proxies(values: list[Any]) -> list[Any]:
    """Leave out ``request``, ``current_app`` and similar, which cannot be inspected outside of a request."""
    return [value for value in values if type(value) is not LocalProxy]


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # a function within
            yield from _names_in(constant)


def _constants_in(code: CodeType) -> Iterator[object]:
    for constant in code.co_consts:
        yield constant
        if isinstance(constant, CodeType):
            yield from _constants_in(constant)


def _is_of_library(value: Any) -> bool:
    return str(getattr(value, "__module__", None)).partition(".")[0] in _LIBRARIES


def _is_db_session(value: object) -> bool:
    """Return whether an object is a database session, has one, or is a model that is queried through one."""
    if issubclass(type(value), type):
        return all(_attribute(value, name) is not None for name in ("__mapper__", "metadata"))
    return value is _REGISTERED or any(
        base.__name__ in _SESSIONS and base.__module__.partition(".")[0] in ("sqlalchemy", "flask_sqlalchemy")
        for base in type(value).__mro__
    )
