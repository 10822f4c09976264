"""Which line of the app used the session first: for the trace header and the signal, in debug mode."""

from __future__ import annotations

import inspect
import os
from functools import lru_cache
from importlib.metadata import packages_distributions
from itertools import islice
from traceback import walk_stack
from types import FrameType
from typing import Any, NamedTuple

import flask
from flask import Flask, has_request_context, request

#: How many frames are looked at, and how long a name may be that is shown.
_MOST_FRAMES = 400
_LONGEST_NAME = 80
#: How much of a description a header holds.
_LONGEST_ORIGIN = 200
#: Libraries between the line that uses the session and the session: their frames are left out.
_SILENT = frozenset(
    {
        *("flask", "flask_session", "werkzeug", "jinja2", "markupsafe", "blinker", "click", "asgiref", "lazysession"),
        *("gevent", "greenlet", "gunicorn", "waitress"),
    }
)
#: Modules of Flask that are shown: they say what the line does with the session.
_SHOWN_OF_FLASK = ("flask.helpers", "flask.json")
#: Methods of Flask's that call hooks and views: frames outside of them have not used the session.
_CALLS_HOOKS = frozenset(
    {
        *("wsgi_app", "full_dispatch_request", "preprocess_request", "dispatch_request", "process_response"),
        *("finalize_request", "handle_user_exception", "handle_http_exception", "handle_exception"),
        *("do_teardown_request", "do_teardown_appcontext"),
    }
)
_RENDERS = "update_template_context"
_SENDS_BODIES = ("werkzeug.wrappers.response", "werkzeug.wsgi")
_STDLIB = os.path.dirname(os.__file__)
_NEXT_TO_FLASK = os.path.dirname(os.path.dirname(flask.__file__))
_INSTALLED = frozenset({"site-packages", "dist-packages"})


class _Found(NamedTuple):
    """What was found on the stack, from the innermost frame to the outermost.

    :param own: the innermost line of the app; empty for none.
    :param extension: the outermost function of a library in the hook or view that used it; empty for none.
    :param via: the innermost function of a library.
    :param hooked: ``own`` has rendered a template, for which ``extension`` was called.
    :param in_view: the walk ended at the call of the view.
    """

    own: str
    extension: str
    via: str
    hooked: bool
    in_view: bool


def origin(app: Flask) -> str:
    """Return what uses the session now: the app's own line, and the function of a library that it called.

    - ``shop.views:profile:41`` or ``template profile.html:3``, with `` via flask_login.utils:_get_user`` for a library.
    - ``extension flask_fancy:before:12`` where no line of the app has used it. `` for shop.views:profile:41`` is the
      line that renders a template, for which the extension was called, or the view that the extension decorates.

    An app's own code is what has the app's import name, or is not installed.
    """
    found = _look(app)
    via = f" via {found.via}" if found.via else ""
    if not found.extension or (found.own and not found.hooked):
        return (found.own or "unknown") + via
    line = found.own or (_view(app) if found.in_view else "")
    text = f"extension {found.extension}" + (f" for {line}" if line else "")
    return text if found.extension.startswith(f"{found.via}:") else text + via


def _look(app: Flask) -> _Found:
    extension = via = ""
    hooked = False
    for frame, _ in islice(walk_stack(inspect.currentframe()), _MOST_FRAMES):
        module, name = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        if module in ("flask.app", "flask.sansio.app") and name in _CALLS_HOOKS:
            return _Found("", extension, via, hooked, name == "dispatch_request")
        if module in _SENDS_BODIES:
            break
        if module in ("flask.app", "flask.sansio.app") and name == _RENDERS:
            hooked = bool(extension)
        template = frame.f_globals.get("__jinja_template__")
        place, function = _place(frame, module, template)
        if _is_own(app, module, _file_of(frame, template)):
            return _Found(place, extension, via, hooked, in_view=False)
        if not _is_silent(module, frame, template):
            via = via or function
            if not hooked and not module.startswith(_SHOWN_OF_FLASK):
                extension = place
    return _Found("", extension, via, hooked, in_view=False)


def _place(frame: FrameType, module: str, template: Any) -> tuple[str, str]:
    """Return a frame as it is shown, with its line and without; any, as Jinja puts its template into the globals."""
    if template is not None:
        name = _short(template.name or "<string>")
        return f"template {name}:{template.get_corresponding_lineno(frame.f_lineno)}", f"template {name}"
    function = f"{_short(module or '?')}:{_short(frame.f_code.co_name)}"
    return f"{function}:{frame.f_lineno}", function


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else "..." + name[-_LONGEST_NAME:]


def _file_of(frame: FrameType, template: Any) -> str:
    if template is not None:
        return str(template.filename or "<template>")
    file = frame.f_code.co_filename
    # Code that was made from a text, such as a dataclass's methods, belongs to the file of its module.
    return str(frame.f_globals.get("__file__") or file) if file.startswith("<") and file[1:7] != "frozen" else file


def _is_silent(module: str, frame: FrameType, template: Any) -> bool:
    if template is not None or module.startswith(_SHOWN_OF_FLASK):
        return False
    return module.partition(".")[0] in _SILENT or _is_standard(frame.f_code.co_filename)


def _is_standard(file: str) -> bool:
    """Return whether a file is of Python's own library."""
    if file.startswith("<frozen"):
        return True
    return _is_in(file, _STDLIB) and _INSTALLED.isdisjoint(file.split(os.sep))


def _is_own(app: Flask, module: str, file: str) -> bool:
    """Return whether code is the app's own, by its module's name or its file."""
    top = module.partition(".")[0]
    if top in _SILENT:
        return False
    if top and top == app.import_name.partition(".")[0]:
        return True
    if _is_standard(file):
        return False
    if _is_in(file, _NEXT_TO_FLASK):  # in one folder with all libraries: pip install --target, a zip, site-packages
        return not (_INSTALLED & {*_NEXT_TO_FLASK.split(os.sep)}) and top not in distributed()
    return _INSTALLED.isdisjoint(file.split(os.sep))


def _is_in(file: str, folder: str) -> bool:
    return file.startswith(folder + os.sep)


@lru_cache(maxsize=1)
def distributed() -> frozenset[str]:
    """Return the outermost names of the packages and modules that installed distributions contain."""
    return frozenset(packages_distributions())


def _view(app: Flask) -> str:
    """Return the view of the current request, if it is the app's own: a decorator has run before its first line."""
    view: Any = app.view_functions.get(request.endpoint or "") if has_request_context() else None
    if view is None:
        return ""
    view = getattr(view, "view_class", None) or inspect.unwrap(view)
    if not hasattr(view, "__name__"):  # any object that can be called
        return ""
    code = getattr(view, "__code__", None)
    file = code.co_filename if code is not None else str(getattr(inspect.getmodule(view), "__file__", ""))
    if not _is_own(app, view.__module__, file):
        return ""
    line = f":{code.co_firstlineno}" if code is not None else ""
    return f"{_short(view.__module__)}:{_short(view.__name__)}{line}"


def server_timing(origin: str, how: str) -> str:
    """Return the value of a Server-Timing header; names of functions and templates may hold any letters.

    :param origin: what :func:`origin` returned; shortened where it is long.
    :param how: what is shown after it.
    """
    letters = "".join(each if each.isprintable() else "?" for each in origin)
    text = letters.encode("ascii", "backslashreplace").decode().replace("\\", "/").replace('"', "'")
    if len(text) > _LONGEST_ORIGIN:
        text = f"{text[: _LONGEST_ORIGIN // 2]}...{text[-_LONGEST_ORIGIN // 2 :]}"
    return f'session;desc="loaded by {text} {how}"'
