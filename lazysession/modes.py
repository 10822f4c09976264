"""Which mode a request gets: compiled patterns in one ordered table, and ``@session_mode`` at the view."""

from __future__ import annotations

import itertools
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar, Union, cast

from flask import Flask, Request
from werkzeug.routing import Rule as Route

from .errors import ConfigurationError
from .patterns import Pattern as Parts
from .patterns import covers, doubt_of, fault_of_function, fault_of_text, reason_for_no_match
from .staticfiles import is_static_route, reason_against_request, reason_against_route


class Mode(str, Enum):
    """What a request may do with the session; see :mod:`lazysession.modes` for how a request gets its mode."""

    NORMAL = "normal"
    NO_REFRESH = "no_refresh"
    READONLY = "readonly"
    SKIP = "skip"

    def __str__(self) -> str:
        return self.value


class Decision(NamedTuple):
    """A request's mode, and what decided it in a reader's words."""

    mode: Mode
    reason: str


logger = logging.getLogger("lazysession")

#: A path glob, ``endpoint:``/``blueprint:``/``method:`` and a name, a compiled regex, or a callable of the request.
Pattern = Union[str, "re.Pattern[str]", Callable[[Request], bool]]
Matcher = Callable[[Request], bool]
View = TypeVar("View", bound=Callable[..., Any])

_VIEW_MODE = "_lazysession_mode"
#: The reason of a mode that ``@session_mode`` gave.
AT_THE_VIEW = "@session_mode"
#: What static files get where nothing speaks against it.
STATIC = Decision(Mode.SKIP, "static files")
#: How the reasons begin that speak against it.
NOT_SKIPPED = f"{STATIC.reason}, but "
_DEFAULT = Decision(Mode.NORMAL, "default")
#: Of how many places a table remembers what its rules say, and how long they may be: clients choose the paths.
PLACES = 1_000
_LONGEST_PLACE = 200
_PATTERNS = (
    "a path glob ('/assets/**'), 'endpoint:NAME', 'blueprint:NAME', 'method:NAME', a compiled regex, or a callable "
    "taking the request"
)


_FUNCTION = Parts("function")


@dataclass(frozen=True)
class Rule:
    """One line of the table: a pattern, compiled, and the mode that it gives.

    :param source: the pattern as it is shown to people.
    :param asks: the pattern is a callable, which may say something else for every request. Any other pattern says the
        same about every request with the same path, endpoint and method.
    :param parts: the pattern as it is compared with others and with the names of the app.
    """

    source: str
    mode: Mode
    matches: Matcher
    asks: bool = False
    parts: Parts = _FUNCTION


def session_mode(mode: Mode | str) -> Callable[[View], View]:
    """Give a view its session mode, on either side of ``@app.route``; it beats the table of rules.

    :param mode: ``"normal"``, ``"no_refresh"``, ``"readonly"`` or ``"skip"``.
    :raises ConfigurationError: for any other mode.
    """
    chosen = parse_mode(mode, "@session_mode")

    def mark(view: View) -> View:
        setattr(view, _VIEW_MODE, chosen)
        return view

    return mark


def parse_mode(mode: object, where: str) -> Mode:
    """Return the mode named ``mode``; ``where`` names the setting in the error."""
    try:
        return Mode(mode)
    except ValueError:
        allowed = ", ".join(repr(each.value) for each in Mode)
        hint = " It is called 'no_refresh' now." if mode == "passive" else ""
        raise ConfigurationError(f"{where}: {mode!r} is not a session mode; allowed are {allowed}.{hint}") from None


def compile_rules(rules: Iterable[tuple[object, object]], skip_paths: Iterable[object]) -> tuple[Rule, ...]:
    """Compile LAZYSESSION_RULES, and after them LAZYSESSION_SKIP_PATHS.

    :raises ConfigurationError: for the first pattern or mode that is none, naming the setting.
    """
    return (
        *(compile_rule(pattern, mode, "LAZYSESSION_RULES") for pattern, mode in rules),
        *(compile_rule(pattern, Mode.SKIP, "LAZYSESSION_SKIP_PATHS") for pattern in skip_paths),
    )


def compile_rule(pattern: Any, mode: object, where: str) -> Rule:
    """Compile one pattern of the setting named ``where``.

    :raises ConfigurationError: when the pattern or the mode is none.
    """
    if isinstance(pattern, str) and pattern in {each.value for each in Mode} and isinstance(mode, str):
        raise ConfigurationError(
            f"{where} has the pair {(pattern, mode)!r}: the pattern comes first, and then the mode."
        )
    chosen = parse_mode(mode, where)
    if isinstance(pattern, re.Pattern):
        if isinstance(pattern.pattern, bytes):
            raise ConfigurationError(f"{where}: {pattern!r} matches bytes; paths are text.")
        parts = Parts("regex", pattern.pattern, pattern.flags)
        return Rule(f"regex {pattern.pattern}", chosen, _path_matcher(pattern.search), parts=parts)
    if isinstance(pattern, str):
        return _compile_text(pattern, chosen, where)
    if callable(pattern):
        name = getattr(pattern, "__qualname__", None) or repr(pattern)
        fault = fault_of_function(pattern)
        if fault is not None:
            raise ConfigurationError(f"{where}: the function {name} {fault}")
        return Rule(f"{name}()", chosen, cast("Matcher", pattern), asks=True, parts=Parts("function", identity=pattern))
    raise ConfigurationError(f"{where}: {pattern!r} is not a pattern; allowed is {_PATTERNS}.")


def _compile_text(pattern: str, mode: Mode, where: str) -> Rule:
    kind, separator, name = pattern.partition(":")
    if pattern.startswith("/"):
        kind, name, matcher = "path", pattern, _path_matcher(glob_to_regex(pattern).fullmatch)
    elif separator and name and kind in _MATCHERS:
        matcher = _MATCHERS[kind](name)
    else:
        raise ConfigurationError(
            f"{where}: {pattern!r} is not a pattern; allowed is {_PATTERNS}. A path starts with '/'."
        )
    parts = Parts(kind, name.upper() if kind == "method" else name)
    fault = fault_of_text(Parts(kind, name))
    if fault is not None:
        raise ConfigurationError(f"{where}: {fault}")
    return Rule(pattern, mode, matcher, parts=parts)


def glob_to_regex(glob: str) -> re.Pattern[str]:
    """Translate a path glob: ``**`` is any text, ``*`` any text within a segment, ``?`` one character of a segment.

    The path is the client's choice, so matching must not try every way to share it out among the stars: what stands
    between two stars is taken where it first fits. A lookahead with a back reference does that, as regular
    expressions before Python 3.11 have no atomic groups.
    """
    first, *others = (_segments_to_regex(part, last=False) for part in re.split(r"\*\*+", glob))
    if not others:
        return re.compile(_segments_to_regex(glob, last=True), re.DOTALL)
    last = _segments_to_regex(re.split(r"\*\*+", glob)[-1], last=True)
    between = [f".*?{part}" for part in others[:-1] if part]
    atoms = [f"(?=(?P<span{number}>{part}))(?P=span{number})" for number, part in enumerate([first, *between])]
    return re.compile("".join(atoms) + f".*{last}", re.DOTALL)


_atoms = itertools.count()


def _segments_to_regex(glob: str, *, last: bool) -> str:
    """Translate a glob without ``**``; in the last part of a pattern its last star reaches as far as it can."""
    texts = [re.escape(text).replace(r"\?", "[^/]") for text in re.split(r"\*", glob)]
    regex = texts.pop(0)
    while texts:
        text, name = texts.pop(0), f"star{next(_atoms)}"
        if last and not texts:
            return f"{regex}[^/]*{text}"
        regex += f"(?=(?P<{name}>[^/]*?{text}))(?P={name})"
    return regex


def _path_matcher(match: Callable[[str], object]) -> Matcher:
    return lambda request: match(request.path) is not None


def _endpoint_matcher(name: str) -> Matcher:
    return lambda request: request.endpoint is not None and fnmatchcase(request.endpoint, name)


def _blueprint_matcher(name: str) -> Matcher:
    return lambda request: any(fnmatchcase(blueprint, name) for blueprint in request.blueprints)


def _method_matcher(name: str) -> Matcher:
    method = name.upper()
    return lambda request: request.method == method


_MATCHERS: dict[str, Callable[[str], Matcher]] = {
    "endpoint": _endpoint_matcher,
    "blueprint": _blueprint_matcher,
    "method": _method_matcher,
}


class RuleTable:
    """The ordered table of one app.

    :param rules: the first that matches decides.
    :param skip_static: after the rules, the static routes of the app and of its blueprints get mode ``skip``, where
        that is safe (:mod:`lazysession.staticfiles`).
    """

    def __init__(self, rules: Iterable[Rule], *, skip_static: bool) -> None:
        self.rules = tuple(rules)
        self.skip_static = skip_static
        self._known: dict[tuple[str, str | None, str], tuple[Rule, ...]] = {}
        self._taken_back: set[str] = set()
        self._names_are_known = False

    def mode_of_route(self, app: Flask, route: Route, method: str) -> Decision:
        """Return the mode of a route, with its variable parts taken as they are written (``/item/<id>``).

        A single request may get another one: because of what stands in their place, or of a file that does not exist.
        """
        with app.test_request_context(route.rule if route.rule.startswith("/") else "/", method=method) as context:
            context.request.url_rule = route
            context.request.routing_exception = None
            self._names_are_known = True  # the command that prints the routes shows them itself
            return self.mode_of(app, context.request, of_route=True)

    def mode_of(self, app: Flask, request: Request, *, of_route: bool = False) -> Decision:
        """Return the mode of a request as far as it is known: before routing only path and method rules can match.

        :param of_route: the request stands for all those to its route: whether its file exists does not count.
        """
        endpoint = request.endpoint
        mode = view_mode(app.view_functions.get(endpoint) if endpoint else None, request.method)
        if mode is not None:
            return Decision(mode, AT_THE_VIEW)
        for rule in self._candidates(app, request, endpoint) if self.rules else ():
            if not rule.asks or rule.matches(request):
                return Decision(rule.mode, rule.source)
        if endpoint is None or not self.skip_static or not is_static_route(app, endpoint):
            return _DEFAULT
        reason = self._reason_against_skipping(app, request, endpoint, of_route=of_route)
        return STATIC if reason is None else Decision(Mode.NORMAL, NOT_SKIPPED + reason)

    def take_back(self, endpoint: str) -> None:
        """Skip the static files of an endpoint no more, in this process."""
        self._taken_back.add(endpoint)

    def _reason_against_skipping(self, app: Flask, request: Request, endpoint: str, *, of_route: bool) -> str | None:
        reason = reason_against_route(app, endpoint)
        if reason is None and endpoint in self._taken_back:
            return "a visitor was turned away"
        return reason if reason is not None or of_route else reason_against_request(app, request)

    def _candidates(self, app: Flask, request: Request, endpoint: str | None) -> tuple[Rule, ...]:
        """Return the rules that may decide: the first that matches, and the callables in front of it."""
        place = (request.path, endpoint, request.method)
        known = self._known.get(place)
        if known is None:
            self._log_unmatched(app)
            known = tuple(self._search(request))
            if len(self._known) >= PLACES:
                self._known.clear()
            if len(request.path) + len(request.method) <= _LONGEST_PLACE:
                self._known[place] = known
        return known

    def _search(self, request: Request) -> Iterator[Rule]:
        for rule in self.rules:
            if rule.asks:
                yield rule
            elif rule.matches(request):
                yield rule
                return

    def unmatched(self, app: Flask) -> Iterator[str]:
        """Return a sentence for each rule whose name nothing in the app has, once all its views are registered."""
        for rule in self.rules:
            reason = reason_for_no_match(rule.parts, app)
            if reason is not None:
                yield f"The session rule {rule.source!r} matches nothing: {reason}"

    def shadowed(self) -> Iterator[tuple[Rule, Rule]]:
        """Return each rule that never decides, and the rule in front of it that matches all that it matches."""
        for place, rule in enumerate(self.rules):
            first = next((each for each in self.rules[:place] if covers(each.parts, rule.parts)), None)
            if first is not None:
                yield rule, first

    def _log_unmatched(self, app: Flask) -> None:
        """Log the rules that match nothing, once: an app that serves requests gets no more views."""
        if not self._names_are_known:
            self._names_are_known = True
            for sentence in self.unmatched(app):
                logger.warning("%s", sentence)

    def warn_of_doubtful_patterns(self) -> None:
        """Warn of each rule that could match, but probably never will."""
        for rule in self.rules:
            doubt = doubt_of(rule.parts)
            if doubt is not None:
                warnings.warn(f"The session rule {rule.source!r} {doubt}", stacklevel=2)

    def warn_of_skipping_everything(self) -> None:
        """Warn of each rule that takes every request away from the session."""
        for rule in self.rules:
            if rule.mode is Mode.SKIP and _matches_everything(rule):
                warnings.warn(
                    f"The session rule {rule.source!r} matches every request and skips its session: "
                    "nobody can log in. Narrow the pattern.",
                    stacklevel=2,
                )


def view_mode(view: Callable[..., Any] | None, method: str) -> Mode | None:
    """Return the mode that ``@session_mode`` gave to a view function, or to a class-based view or its method."""
    view_class = getattr(view, "view_class", None)
    if method == "HEAD" and not hasattr(view_class, "head"):
        method = "GET"  # as Flask answers it
    places = (view,) if view_class is None else (getattr(view_class, method.lower(), None), view, view_class)
    for marked in places:
        mode = getattr(marked, _VIEW_MODE, None)
        if isinstance(mode, Mode):
            return mode
    return None


def _matches_everything(rule: Rule) -> bool:
    """Try paths that no sane pattern has in common; a pattern of one endpoint, blueprint or method matches none."""
    if rule.source in {"endpoint:*", "endpoint:**"}:
        return True
    if not rule.source.startswith(("/", "regex ")):
        return False
    probes = ("/", "/x1q", "/q8/z_", "/login", "/a/b/c/d.e")
    return all(rule.matches(_Probe(path)) for path in probes)  # type: ignore[arg-type]


class _Probe(NamedTuple):
    path: str
