"""The mode of a request: from ``@session_mode`` of its view, or from the first matching rule of an ordered table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from flask import Flask, Request
from werkzeug.routing import Rule as Route

from .errors import ConfigurationError
from .staticfiles import is_static_route, reason_against_request, reason_against_route


class Mode(str, Enum):
    """What a request may do with its session; LAZYSESSION_RULES and :func:`session_mode` decide it."""

    NORMAL = "normal"
    NO_REFRESH = "no_refresh"
    READONLY = "readonly"
    SKIP = "skip"

    def __str__(self) -> str:
        return self.value


class Decision(NamedTuple):
    """A request's mode, and the reason for it, as commands and logs show it."""

    mode: Mode
    reason: str


Matcher = Callable[[Request], bool]
View = TypeVar("View", bound=Callable[..., Any])

_VIEW_MODE = "_lazysession_mode"
#: The reason of a mode that ``@session_mode`` sets.
AT_THE_VIEW = "@session_mode"
#: The decision for static files that are safe to skip.
STATIC = Decision(Mode.SKIP, "static files")
#: How the reason begins if they are not.
NOT_SKIPPED = f"{STATIC.reason}, but "
_DEFAULT = Decision(Mode.NORMAL, "default")
_BEFORE_ROUTING = Decision(Mode.NORMAL, "before the view")
#: For how many places a table remembers which rule matches, and how long a place may be: clients choose the paths.
PLACES = 1_000
_LONGEST_PLACE = 200


class Pattern(NamedTuple):
    """A pattern by its parts.

    :param kind: ``"path"``, ``"endpoint"``, ``"blueprint"``, ``"method"``, ``"regex"`` or ``"function"``.
    :param text: the glob, the name or the regular expression; empty for a function.
    :param identity: the flags or the function: patterns with the same text are the same only if these are equal.
    """

    kind: str
    text: str = ""
    identity: object = None


@dataclass(frozen=True)
class Rule:
    """One line of the table: a pattern that :mod:`lazysession.patterns` has compiled, and its mode.

    :param source: the pattern as messages show it.
    :param pattern: the parsed pattern, which is compared with other patterns and with the names of the app.
    """

    source: str
    mode: Mode
    matches: Matcher
    pattern: Pattern

    @property
    def calls_function(self) -> bool:
        """Whether the pattern is a callable, whose result may differ for each request.

        Any other pattern gives all requests with the same path, endpoint and method the same mode.
        """
        return self.pattern.kind == "function"


def session_mode(mode: Mode | str) -> Callable[[View], View]:
    """Set the session mode of a view, above or below ``@app.route``; it takes precedence over the rules.

    :param mode: ``"normal"``, ``"no_refresh"``, ``"readonly"`` or ``"skip"``.
    :raises ConfigurationError: for any other mode.
    """
    chosen = parse_mode(mode, "@session_mode")

    def decorate(view: View) -> View:
        setattr(view, _VIEW_MODE, chosen)
        return view

    return decorate


def parse_mode(mode: object, where: str) -> Mode:
    """Return the mode named ``mode``; ``where`` names the setting in the error."""
    try:
        return Mode(mode)
    except ValueError:
        allowed = ", ".join(repr(each.value) for each in Mode)
        hint = " It is called 'no_refresh' now." if mode == "passive" else ""
        raise ConfigurationError(f"{where}: {mode!r} is not a session mode; allowed are {allowed}.{hint}") from None


class RuleTable:
    """The ordered table of one app.

    :param rules: the first that matches decides.
    :param skip_static: after the rules, the static routes of the app and of its blueprints get mode ``skip``, where
        that is safe (:mod:`lazysession.staticfiles`).
    :param before_first: called with the app when the first request is compared with the rules: all views are
        registered by then.
    """

    def __init__(
        self, rules: Iterable[Rule], *, skip_static: bool, before_first: Callable[[Flask], object] | None = None
    ) -> None:
        self.rules = tuple(rules)
        self.skip_static = skip_static
        self._known: dict[tuple[str, str | None, str], tuple[Rule, ...]] = {}
        self._not_skipped: set[str] = set()
        self._before_first = before_first

    def mode_of_route(self, app: Flask, route: Route, method: str) -> Decision:
        """Return the mode of a route, whose rule is used as the path (``/item/<id>``).

        A single request may get another mode: because of its path, or because its static file does not exist.
        """
        with app.test_request_context(route.rule if route.rule.startswith("/") else "/", method=method) as context:
            context.request.url_rule = route
            context.request.routing_exception = None
            self._before_first = None  # commands print what it would log
            return self.mode_of(app, context.request, of_route=True)

    def mode_of(self, app: Flask, request: Request, *, of_route: bool = False) -> Decision:
        """Return the mode of a request; before routing, only rules for paths and methods can match.

        :param of_route: the request stands for all requests to its route: its static file need not exist.
        """
        endpoint = request.endpoint
        mode = view_mode(app.view_functions.get(endpoint) if endpoint else None, request.method)
        if mode is not None:
            return Decision(mode, AT_THE_VIEW)
        for rule in self._candidates(app, request, endpoint) if self.rules else ():
            if not rule.calls_function or rule.matches(request):
                return Decision(rule.mode, rule.source)
        if endpoint is None or not self.skip_static or not is_static_route(app, endpoint):
            return _DEFAULT
        reason = self._reason_against_skipping(app, request, endpoint, of_route=of_route)
        return STATIC if reason is None else Decision(Mode.NORMAL, NOT_SKIPPED + reason)

    def mode_before_routing(self, app: Flask, request: Request) -> Decision:
        """Return the mode of a request before Flask has routed it; ``normal`` if that cannot be known."""
        before = request.url_rule, request.view_args
        try:
            adapter = app.create_url_adapter(request)
            if adapter is not None:
                request.url_rule, arguments = adapter.match(return_rule=True)
                request.view_args = dict(arguments)
            return self.mode_of(app, request)
        except Exception:  # a 404, a host that Flask refuses later, or a rule that needs a routed request
            return _BEFORE_ROUTING
        finally:
            request.url_rule, request.view_args = before

    def stop_skipping(self, endpoint: str) -> None:
        """Stop skipping the static files of an endpoint, in this process."""
        self._not_skipped.add(endpoint)

    def _reason_against_skipping(self, app: Flask, request: Request, endpoint: str, *, of_route: bool) -> str | None:
        reason = reason_against_route(app, endpoint)
        if reason is None and endpoint in self._not_skipped:
            return "a visitor was refused"
        return reason if reason is not None or of_route else reason_against_request(app, request)

    def _candidates(self, app: Flask, request: Request, endpoint: str | None) -> tuple[Rule, ...]:
        """Return the rules that may decide: the first that matches, and the callables in front of it."""
        place = (request.path, endpoint, request.method)
        known = self._known.get(place)
        if known is None:
            self._check_before_first(app)
            known = tuple(self._search(request))
            if len(self._known) >= PLACES:
                self._known.clear()
            if len(request.path) + len(request.method) <= _LONGEST_PLACE:
                self._known[place] = known
        return known

    def _check_before_first(self, app: Flask) -> None:
        check, self._before_first = self._before_first, None
        if check is not None:
            check(app)

    def _search(self, request: Request) -> Iterator[Rule]:
        for rule in self.rules:
            if rule.calls_function:
                yield rule
            elif rule.matches(request):
                yield rule
                return


def view_mode(view: Callable[..., Any] | None, method: str) -> Mode | None:
    """Return the mode that ``@session_mode`` gave to a view function, or to a class-based view or its method."""
    view_class = getattr(view, "view_class", None)
    if method == "HEAD" and not hasattr(view_class, "head"):
        method = "GET"  # Flask calls the same method for both
    places = (view,) if view_class is None else (getattr(view_class, method.lower(), None), view, view_class)
    for each in places:
        mode = getattr(each, _VIEW_MODE, None)
        if isinstance(mode, Mode):
            return mode
    return None
