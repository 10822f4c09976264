"""What the configuration has to say for any front server, before nginx or Caddy writes it."""

from __future__ import annotations

import mimetypes
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flask import Flask

from lazysession.modes import RuleTable
from lazysession.staticfiles import remember_cookie_of, with_parents

from .locations import Location, Plan, find_locations

#: The suffixes of files that web pages use; those that the folders have are added.
USUAL = frozenset({
    "avif", "bmp", "css", "csv", "eot", "gif", "htm", "html", "ico", "jpeg", "jpg", "js", "json", "map", "md", "mjs",
    "mp3", "mp4", "otf", "pdf", "png", "svg", "ttf", "txt", "wasm", "webm", "webmanifest", "webp", "woff", "woff2",
    "xml",
})  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """What a configuration is printed from.

    :param name: of the app, of letters that every configuration can hold.
    :param upstream: ``host:port`` of the app, or ``unix:/path``.
    :param command: what printed it, for the first line.
    :param types: the content types that Flask sends, without a charset, each with the suffixes that have it.
    :param with_charset: those to which Flask adds ``charset=utf-8``.
    :param passed_over: the hooks and middleware that Flask runs for a static file and a front server does not.
    :param cookies: the names of the cookies of visitors who have a session or are remembered by Flask-Login.
    :param protected: the path of the locations that only the app can name.
    """

    name: str
    upstream: str
    plan: Plan
    types: dict[str, tuple[str, ...]]
    with_charset: tuple[str, ...]
    passed_over: tuple[str, ...]
    cookies: tuple[str, ...]
    protected: str

    @property
    def serves(self) -> bool:
        """Whether there are files that the front server sends by itself."""
        return any(location.reason is None for location in self.plan.locations)

    @property
    def internal(self) -> dict[str, str]:
        """The paths that only the app can name, and their folders."""
        return {
            f"{self.protected_folder(location)}/": location.folder
            for location in self.plan.locations
            if location.needs_app and location.quotable
        }

    def protected_folder(self, location: Location) -> str:
        """Return the path by which only the app can name the folder of a location."""
        name = re.sub("[^A-Za-z0-9_.-]", lambda odd: f"~{ord(odd[0]):x}~", location.endpoint)  # no two are the same
        return f"{self.protected}/{name}"

    def content_type(self, name: str) -> str:
        """Return a content type as Flask sends it."""
        return f"{name}; charset=utf-8" if name in self.with_charset else name


def configuration_of(app: Flask, rules: RuleTable, upstream: str) -> Configuration:
    """Return what the configuration for an app says; all views are registered."""
    plan = find_locations(app, rules)
    types = _content_types(plan)
    return Configuration(
        re.sub(r"\W", "_", app.name, flags=re.ASCII) or "app",
        upstream,
        plan,
        types,
        tuple(name for name in types if "charset=" in app.response_class(mimetype=name).headers["Content-Type"]),
        tuple(_passed_over(app, [location.endpoint for location in plan.locations if location.reason is None])),
        tuple(_cookies(app)),
        _unused_path(app),
    )


def _unused_path(app: Flask) -> str:
    path = "/_protected"
    while any(route.rule.startswith(path) for route in app.url_map.iter_rules()):
        path += "_"
    return path


def _cookies(app: Flask) -> Iterator[str]:
    yield app.session_interface.get_cookie_name(app)
    remember_cookie = remember_cookie_of(app)
    if remember_cookie is not None:
        yield remember_cookie


def _content_types(plan: Plan) -> dict[str, tuple[str, ...]]:
    suffixes = {*USUAL, *(suffix for location in plan.locations for suffix in _suffixes_in(location.folder))}
    types: dict[str, list[str]] = {}
    for suffix in sorted(suffixes):
        found, encoding = mimetypes.guess_type(f"file.{suffix}")
        if found is not None and encoding is None:
            types.setdefault(found, []).append(suffix)
    return {name: tuple(types[name]) for name in sorted(types)}


def _suffixes_in(folder: str) -> Iterator[str]:
    for _, _, files in os.walk(folder):
        suffixes = (os.path.splitext(name)[1][1:].lower() for name in files)
        yield from (suffix for suffix in suffixes if re.fullmatch(r"[a-z0-9]+", suffix))


# What the front server does not run


def _passed_over(app: Flask, endpoints: Iterable[str]) -> Iterator[str]:
    """Yield the hooks and the middleware that run for a static file, by their names."""
    scopes: list[str | None] = [
        None,
        *dict.fromkeys(scope for endpoint in endpoints for scope in with_parents(endpoint.rpartition(".")[0])),
    ]
    tables: dict[str, Mapping[str | None, Iterable[object]]] = {
        "before_request": app.before_request_funcs,
        "URL preprocessor": app.url_value_preprocessors,
        "after_request": app.after_request_funcs,
    }
    for kind, table in tables.items():
        for function in dict.fromkeys(function for scope in scopes for function in table.get(scope, ())):
            if not name_of(function).startswith("lazysession."):
                yield f"{kind}: {name_of(function)}"
    if "wsgi_app" in vars(app):
        yield f"WSGI middleware: {name_of(app.wsgi_app)}"
    for method in ("wsgi_app", "full_dispatch_request", "preprocess_request", "dispatch_request", "process_response"):
        if getattr(type(app), method) is not getattr(Flask, method):
            yield f"overridden method: {name_of(getattr(type(app), method))}"


def name_of(function: object) -> str:
    """Return the module and the name of a function, or of the class of another object, and nothing that it holds."""
    named = function if hasattr(function, "__qualname__") else type(function)
    name = f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', '?')}"
    return "".join(each for each in name if each.isprintable())


# Text


def heading(configuration: Configuration, command: str) -> list[str]:
    """Return the comment at the beginning of a configuration, a list of paragraphs."""
    plan, hooks = configuration.plan, configuration.passed_over
    paragraphs = [f'Printed by "{command}". Print it again when routes, rules or folders change.']
    if configuration.serves:
        paragraphs.append(
            "No hook, decorator or middleware of the app runs for a file that the front server sends by itself."
            + (" If one of these guards files, add a rule for the files to LAZYSESSION_RULES:" if hooks else "")
        )
        paragraphs += [f"- {each}" for each in hooks]
    if plan.without:
        paragraphs.append("These static routes have no location. The app sends their files:")
        paragraphs += [f"- {each}" for each in plan.without]
    return paragraphs


def about(location: Location) -> list[str]:
    """Return the comment on a location, a list of paragraphs."""
    files = f"The files of {location.folder} ({location.endpoint}). {location.note}".strip()
    return [files] if location.reason is None else [files, f"The app sends them: {location.reason}."]


def view_lines(configuration: Configuration, header_value: str, imports: Iterable[str]) -> Iterator[str]:
    """Yield lines of Python: a view checks who asks, and the front server sends the file.

    :param header_value: what makes the value of ``X-Accel-Redirect`` of ``path``.
    """
    yield from (*imports, "from flask import abort", "from werkzeug.security import safe_join", "", "")
    yield from (
        "def let_server_send(folder, name):",
        "    path = safe_join(folder, name)  # without '..'",
        "    if path is None:  # it leads out of the folder",
        "        abort(404)",
        '    if not may_see(path.removeprefix(folder + "/")):  # write it: it looks at the session',
        "        abort(403)",
        "    response = app.response_class()",
        f'    response.headers["X-Accel-Redirect"] = {header_value}',
        '    response.headers["Cache-Control"] = "private, no-cache"',
        '    del response.headers["Content-Type"]  # the server knows it from the name',
        "    return response",
    )
    names: set[str] = set()
    for location in configuration.plan.locations:
        folder = configuration.protected_folder(location)
        if f"{folder}/" not in configuration.internal:
            continue
        if location.reason is not None:
            call = f'let_server_send("{folder}", filename)'
            yield from ("", "", "# It replaces the view and its decorators: may_see has to check what they check.")
            yield f"app.view_functions[{location.endpoint!r}] = lambda filename: {call}"
            continue
        for url in location.protected_folders:
            inside = f"{folder}/{url.removeprefix(location.url)}".rstrip("/")
            name = _view_name(url, names)
            yield from ("", "", f'@app.get("{url}<path:name>")', f"def {name}(name):")
            yield f'    return let_server_send("{inside}", name)'


def _view_name(url: str, taken: set[str]) -> str:
    """Return a name for the view of a folder that no other one has, and add it to them: ``send_static_members``."""
    name = f"send_{re.sub(r'[^0-9A-Za-z]+', '_', url.strip('/'))}"
    name += "" if name not in taken else f"_{len(taken)}"
    taken.add(name)
    return name


def commented(paragraphs: Iterable[str], indent: str) -> Iterator[str]:
    """Yield comments, wrapped."""
    for paragraph in paragraphs:
        plain = "".join(each if each.isprintable() else "?" for each in paragraph)
        yield from textwrap.wrap(
            plain,
            88,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}#   " if plain.startswith("- ") else f"{indent}# ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def as_comment(lines: Iterable[str], indent: str) -> Iterator[str]:
    """Yield lines of code as comments: without the first ``#`` they are code again."""
    return (f"{indent}#{line}" for line in lines)
