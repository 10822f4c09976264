"""Which static files a front server may send by itself: those that no rule, route or guard of the app takes back.

Sending a request to the app is always correct, only slower. So the front server sends a file only if it is certain that
each request for it has mode ``skip`` and that its route has no guard. All other requests go to the app.
"""

from __future__ import annotations

import io
import mimetypes
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from flask import Blueprint, Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import PathConverter, RequestRedirect
from werkzeug.routing import Rule as Route
from werkzeug.test import create_environ
from werkzeug.utils import send_file

from lazysession.modes import Mode, Rule, RuleTable, view_mode
from lazysession.staticfiles import is_static_route, reason_against_route

from .patterns import TakenBack, glob_taken_back, prefix_taken_back, regex_taken_back

_VARIABLE = "<path:filename>"
#: URLs that need no quoting in any configuration.
_PLAIN_URL = re.compile(r"/(?:[\w.~@+-]+/)+")
_UNSAFE_FOLDER = re.compile(r"[\x00-\x1f\x7f$\\{}`\ufffd\ud800-\udfff]")


@dataclass(frozen=True)
class Location:
    """The files of one static route.

    :param url: what their paths begin with; it ends with a slash.
    :param folder: the absolute path of their folder, without a slash at its end.
    :param reason: why all of them go to the app; None if the front server sends them.
    :param taken_back: what goes to the app, where the front server sends the others.
    :param cache_control: what Flask would send.
    :param note: how the response differs from Flask's; empty if no difference is known.
    """

    endpoint: str
    url: str
    folder: str
    reason: str | None
    taken_back: tuple[TakenBack, ...] = ()
    cache_control: str = "no-cache"
    note: str = ""

    @property
    def quotable(self) -> bool:
        """Whether the name of the folder can be written in any configuration."""
        return _UNSAFE_FOLDER.search(self.folder) is None

    @property
    def protected_folders(self) -> tuple[str, ...]:
        """The URLs of the folders that rules take back."""
        return tuple(
            each.text for each in self.taken_back if each.by_rule and not each.is_regex and each.text[-1] == "/"
        )

    @property
    def needs_app(self) -> bool:
        """Whether a guard, or a rule, makes the app decide who may see some of the files."""
        return self.reason is not None or bool(self.protected_folders)


@dataclass(frozen=True)
class Plan:
    """All that a configuration needs.

    :param without: a sentence for each static route that has no location, and why.
    """

    locations: tuple[Location, ...]
    without: tuple[str, ...]

    def location_of(self, path: str) -> Location | None:
        """Return the location of a path: the one whose URL is the longest."""
        found = [location for location in self.locations if path.startswith(location.url)]
        return max(found, key=lambda location: len(location.url), default=None)

    def serves(self, path: str) -> bool:
        """Return whether the front server sends the file of a path by itself, if there is one."""
        location = self.location_of(path)
        if location is None or location.reason is not None or re.search(for_app_alone(), path):
            return False
        taken = [each for each in location.taken_back if not each.is_regex]
        regexes = [each for other in self.locations for each in other.taken_back if each.is_regex]
        return not any(each.matches(path) for each in (*taken, *regexes))


def for_app_alone() -> str:
    """Return a regular expression for paths that go to the app in each location, because its response differs.

    Flask sends a Content-Encoding with a compressed file, and redirects a path with two slashes. Its routes match no
    line feed.
    """
    suffixes = {*mimetypes.encodings_map, *mimetypes.suffix_map}
    return rf"//|[\x00-\x1f]|(?i:\.({'|'.join(sorted(re.escape(suffix[1:]) for suffix in suffixes))})$)"


def find_locations(app: Flask, rules: RuleTable) -> Plan:
    """Return what a front server may send for an app whose views are all registered."""
    locations: dict[str, Location] = {}
    without = []
    for route in app.url_map.iter_rules():
        if not is_static_route(app, route.endpoint):
            continue
        reason = _reason_against_location(app, route)
        if reason is None:
            url = _url_of(route)
            locations[url] = _location_of(app, rules, route, url)
        else:
            without.append(f"{route.endpoint} ({route.rule}): {reason}")
    return Plan(tuple(_without_duplicates(locations)), tuple(sorted(without)))


def _without_duplicates(locations: dict[str, Location]) -> Iterator[Location]:
    """Yield the locations by URL, each with its own files that go to the app, not with those below a longer URL."""
    for url in sorted(locations):
        location = locations[url]
        inner = tuple(other for other in locations if other != url and other.startswith(url))
        taken: dict[str, TakenBack] = {}
        for each in location.taken_back:  # rules first: a view that was added for one of them does not replace it
            if each.is_regex or not each.text.startswith(inner):
                taken.setdefault(each.text, each)
        yield replace(location, taken_back=tuple(taken.values()))


def _url_of(route: Route) -> str:
    return route.rule.removesuffix(_VARIABLE)


def _reason_against_location(app: Flask, route: Route) -> str | None:
    """Return why a static route can have no location of its own: its requests go to the app with all others."""
    url = _url_of(route)
    if app.url_map.host_matching or app.subdomain_matching or route.host or route.subdomain:
        return "which files a request gets depends on its host"
    if not route.rule.endswith(f"/{_VARIABLE}") or app.url_map.converters.get("path") is not PathConverter:
        return "it is not a folder of files"
    if url == "/":
        return "its URL is that of all pages"
    if _PLAIN_URL.fullmatch(url) is None or "/." in url:
        return "its URL has a variable or a special character"
    return None if _is_reached(app, route, url) else "another route has the same URL, and gets the requests"


def _is_reached(app: Flask, route: Route, url: str) -> bool:
    try:
        found, _ = app.url_map.bind("localhost").match(f"{url}a", method="GET", return_rule=True)
    except (HTTPException, RequestRedirect):
        return False
    return found is route


def _location_of(app: Flask, rules: RuleTable, route: Route, url: str) -> Location:
    owner = cast("Flask | Blueprint", app.blueprints.get(route.endpoint.rpartition(".")[0]) or app)
    folder = _absolute(os.path.join(app.root_path, owner.static_folder or ""))
    taken_back: list[TakenBack] = []
    reason = _reason_against_serving(app, rules, route, url, taken_back)
    if reason is None and _UNSAFE_FOLDER.search(folder):
        reason = "the name of its folder has a special character"
    own_age = not _has_flasks_max_age(owner)
    return Location(
        route.endpoint,
        url,
        folder,
        reason,
        tuple(taken_back),
        _cache_control_of(app, owner),
        "get_send_file_max_age is overridden: browsers ask for each file again." if own_age else "",
    )


def _absolute(folder: str) -> str:
    """Return the path of a folder without "..": after a symbolic link, only the system can resolve it."""
    short = os.path.abspath(folder)
    return short if os.path.realpath(short) == os.path.realpath(folder) else os.path.realpath(folder)


def _has_flasks_max_age(owner: Flask | Blueprint) -> bool:
    function = getattr(owner.get_send_file_max_age, "__func__", None)
    return function in (Flask.get_send_file_max_age, Blueprint.get_send_file_max_age)


def _cache_control_of(app: Flask, owner: Flask | Blueprint) -> str:
    if not _has_flasks_max_age(owner):
        return "no-cache"
    with app.app_context():
        age = owner.get_send_file_max_age(None)
    return send_file(io.BytesIO(), create_environ(), "text/plain", max_age=age).headers["Cache-Control"]


def _reason_against_serving(
    app: Flask, rules: RuleTable, route: Route, url: str, taken_back: list[TakenBack]
) -> str | None:
    """Return why no file of a route is sent by the front server, or None; add to ``taken_back`` what goes to the app.

    The rules are read in order, up to one that gives mode ``skip`` to all files. A ``skip`` rule for only some files is
    ignored: if a later rule takes these files back, they go to the app, which is correct, only slower.
    """
    view = app.view_functions.get(route.endpoint)
    modes = {view_mode(view, method) for method in ("GET", "HEAD")}
    if modes != {None}:
        if modes != {Mode.SKIP}:
            return "@session_mode gives its view another mode than skip"
    else:
        reason = _read_rules(app, rules, route, url, taken_back)
        if reason is not None:
            return reason
    for other in app.url_map.iter_rules():
        first = other.rule.partition("<")[0]
        if other is route or not first.startswith(url) or _is_beaten(app, other, route):
            continue
        found = prefix_taken_back(first, url, f"the route {other.rule}", by_rule=False)
        if found.text == url:
            return f"the route {other.rule} is among its files"
        taken_back.append(found)
    return reason_against_route(app, route.endpoint)


def _is_beaten(app: Flask, other: Route, route: Route) -> bool:
    """Return whether another static route has the same URL and never gets a request."""
    return other.rule == route.rule and is_static_route(app, other.endpoint)


def _read_rules(
    app: Flask, rules: RuleTable, route: Route, url: str, taken_back: list[TakenBack]
) -> str | None:  # fmt: skip
    """Return why the rules leave no file to the front server, or None; add to ``taken_back`` what they take back."""
    for rule in rules.rules:
        found = _reach_of(app, rule, route, url)
        if rule.mode is Mode.SKIP:
            if found is True and _certainly_all(rule, url):
                return None
        elif isinstance(found, TakenBack) and not (found.text == url and not found.is_regex):
            taken_back.append(found)
        elif found:
            return f"the rule {rule.source!r} may take each of its files back"
    return None if rules.skip_static else "LAZYSESSION_SKIP_STATIC is off"


def _certainly_all(rule: Rule, url: str) -> bool:
    pattern = rule.pattern
    if pattern.kind == "path":
        return re.fullmatch(r"[^*?]*\*\*+", pattern.text) is not None and url.startswith(pattern.text.rstrip("*"))
    return pattern.kind in ("endpoint", "blueprint")


def _reach_of(app: Flask, rule: Rule, route: Route, url: str) -> TakenBack | bool:
    """Return which files of a route a rule matches: all or possibly all (True), none (False), or some (TakenBack)."""
    pattern, reason = rule.pattern, f"the rule ({rule.source!r}, {str(rule.mode)!r})"
    if pattern.kind in ("endpoint", "blueprint"):
        request = app.request_class(create_environ(url))  # without a context, at whose end hooks would run
        request.url_rule = route
        return rule.matches(request)
    if pattern.kind == "method":
        return pattern.text in ("GET", "HEAD")  # no other method gets a file from the front server
    if pattern.kind == "path":
        if rule.mode is Mode.SKIP and _certainly_all(rule, url):
            return True
        return glob_taken_back(pattern.text, url, reason) or False
    if pattern.kind == "regex":
        return regex_taken_back(pattern.text, pattern.identity, url, reason)
    return True  # a function
