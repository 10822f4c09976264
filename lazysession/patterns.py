"""The patterns of rules: compiled, and compared with each other and with an app's names, before any request."""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, cast

from flask import Flask

from .errors import ConfigurationError
from .modes import Matcher, Mode, Pattern, Rule, parse_mode
from .settings import BETWEEN_PATTERNS

logger = logging.getLogger("lazysession")

#: The registered methods of HTTP. A route may accept others as well.
METHODS = frozenset({
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD", "LABEL",
    "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE",
    "OPTIONS", "ORDERPATCH", "PATCH", "POST", "PRI", "PROPFIND", "PROPPATCH", "PUT", "QUERY", "REBIND", "REPORT",
    "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
})  # fmt: skip
_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_VARIABLE = re.compile(r"<[^<>/]+>")
#: A regular expression that is tied to the beginning, has a letter there, and no alternative.
_NO_SLASH = re.compile(r"(?:\^|\\A)\w(?![?*{])[^|]*")
_ALL_ENDPOINTS = (Pattern("endpoint", "*"), Pattern("endpoint", "**"))
_MATCHES_ALL = frozenset({"", "^", "/", "^/", ".", ".+", ".*", "^.*", "^/.*", ".*$", "^.*$", "^/.*$"})
# Stand for the wildcards of a glob where another glob is matched against it; no path has them.
_ANY_TEXT, _ANY_SEGMENT, _ANY_CHARACTER = "\ue000", "\ue001", "\ue002"
_PATTERNS = (
    "a path glob ('/assets/**'), 'endpoint:NAME', 'blueprint:NAME', 'method:NAME', a compiled regex, or a callable "
    "taking the request"
)


def compile_rules(rules: Iterable[tuple[object, object]], skip_paths: Iterable[object]) -> tuple[Rule, ...]:
    """Compile LAZYSESSION_RULES, and after them LAZYSESSION_SKIP_PATHS.

    :raises ConfigurationError: for the first wrong pattern or mode, naming the setting.
    """
    return (
        *(compile_rule(pattern, mode, "LAZYSESSION_RULES") for pattern, mode in rules),
        *(compile_rule(pattern, Mode.SKIP, "LAZYSESSION_SKIP_PATHS") for pattern in skip_paths),
    )


def compile_rule(pattern: Any, mode: object, where: str) -> Rule:
    """Compile one pattern of the setting named ``where``.

    :raises ConfigurationError: when the pattern or the mode is wrong.
    """
    if isinstance(pattern, str) and pattern in {each.value for each in Mode} and isinstance(mode, str):
        raise ConfigurationError(
            f"{where} has the pair {(pattern, mode)!r}: the pattern comes first, and then the mode."
        )
    chosen = parse_mode(mode, where)
    if isinstance(pattern, re.Pattern):
        if isinstance(pattern.pattern, bytes):
            raise ConfigurationError(f"{where}: {pattern!r} matches bytes; paths are text.")
        parts = Pattern("regex", pattern.pattern, pattern.flags)
        return Rule(f"regex {pattern.pattern}", chosen, _path_matcher(pattern.search), parts)
    if isinstance(pattern, str):
        return _compile_text(pattern, chosen, where)
    if callable(pattern):
        name = getattr(pattern, "__qualname__", None) or repr(pattern)
        fault = _fault_of_function(pattern)
        if fault is not None:
            raise ConfigurationError(f"{where}: the function {name} {fault}")
        return Rule(f"{name}()", chosen, cast("Matcher", pattern), Pattern("function", identity=pattern))
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
    parts = Pattern(kind, name.upper() if kind == "method" else name)
    fault = _fault_of_text(Pattern(kind, name))
    if fault is not None:
        raise ConfigurationError(f"{where}: {fault}")
    return Rule(pattern, mode, matcher, parts)


def glob_to_regex(glob: str) -> re.Pattern[str]:
    """Translate a path glob: ``**`` is any text, ``*`` any text within a segment, ``?`` one character of a segment.

    The client chooses the path, so matching must not try every way to divide it among the stars: the text between two
    stars is matched at the first place where it fits. A lookahead with a back reference does that, as regular
    expressions before Python 3.11 have no atomic groups.
    """
    first, *later = (_segments_to_regex(part, last=False) for part in re.split(r"\*\*+", glob))
    if not later:
        return re.compile(_segments_to_regex(glob, last=True), re.DOTALL)
    last = _segments_to_regex(re.split(r"\*\*+", glob)[-1], last=True)
    between = [f".*?{part}" for part in later[:-1] if part]
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


def unmatched(rules: Iterable[Rule], app: Flask) -> Iterator[str]:
    """Return a sentence for each rule whose name nothing in the app has, once all its views are registered."""
    for rule in rules:
        reason = _reason_for_no_match(rule.pattern, app)
        if reason is not None:
            yield f"The session rule {rule.source!r} matches nothing: {reason}"


def log_unmatched(rules: Iterable[Rule], app: Flask) -> None:
    """Log the rules whose name nothing in the app has."""
    for sentence in unmatched(rules, app):
        logger.warning("%s", sentence)


def shadowed(rules: Sequence[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """Return each rule that never decides, and the rule in front of it that matches all that it matches."""
    for place, rule in enumerate(rules):
        first = next((each for each in rules[:place] if _covers(each.pattern, rule.pattern)), None)
        if first is not None:
            yield rule, first


def warn_of_doubtful(rules: Iterable[Rule]) -> None:
    """Warn of each rule that will probably never match, or that takes every request away from its session."""
    for rule in rules:
        doubt = _doubt_of(rule)
        if doubt is not None:
            warnings.warn(f"The session rule {rule.source!r} {doubt}", stacklevel=2)


# Patterns that never match, or probably never


def _fault_of_text(pattern: Pattern) -> str | None:
    """Return why a glob or a method can never match; None where it may."""
    if pattern.kind == "method" and not _METHOD.fullmatch(pattern.text):
        return f"'method:{pattern.text}' is not one method: write a rule for each, without wildcards."
    variable = _VARIABLE.search(pattern.text) if pattern.kind == "path" else None
    if variable is not None:
        return f"{variable[0]!r} is matched letter for letter. Write * for the variable part of a path."
    return None


def _fault_of_function(function: Callable[..., Any]) -> str | None:
    """Return why a function cannot be a rule; None where it takes the request and may return False."""
    always = "what it returns is always true."
    if isinstance(function, type):
        return f"is a class: {always}"
    plain: Any = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    candidates = (plain, getattr(type(plain), "__call__", None))  # noqa: B004 - of the class, as Python calls it
    if any(inspect.iscoroutinefunction(each) for each in candidates):
        return f"is asynchronous: {always}"
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in candidates):
        return f"is a generator: {always}"
    try:
        inspect.signature(function, follow_wrapped=False).bind(object())  # the decorated function is called
    except TypeError:
        return "cannot be called with one argument, the request."
    except ValueError:  # some functions in C have no signature
        return None
    return None


def _doubt_of(rule: Rule) -> str | None:
    """Return what is probably wrong with a rule; None where no reason is known."""
    pattern = rule.pattern
    if rule.mode is Mode.SKIP and (_matches_all(pattern) or pattern in _ALL_ENDPOINTS):
        return "matches every request and skips its session: no visitor can log in. Narrow the pattern."
    if pattern.kind == "method" and pattern.text.upper() not in METHODS:
        return f"names no method of HTTP.{_did_you_mean('method', pattern.text.upper(), METHODS)}"
    if pattern.kind == "path" and re.search(BETWEEN_PATTERNS, pattern.text):
        return "has a comma or a blank in front of a pattern: write two rules."
    if pattern.kind == "regex" and _NO_SLASH.fullmatch(pattern.text):
        return "starts with a letter, but each path starts with '/'."
    return None


def _reason_for_no_match(pattern: Pattern, app: Flask) -> str | None:
    """Return why no request to an app matches a name; None for what some request may match."""
    if pattern.kind == "endpoint":
        return _reason_for_no_name(
            pattern, {*app.view_functions, *(rule.endpoint for rule in app.url_map.iter_rules())}
        )
    if pattern.kind == "blueprint":
        return _reason_for_no_name(pattern, app.blueprints)
    if pattern.kind == "method":
        accepted = {method for route in app.url_map.iter_rules() for method in route.methods or ()}
        if pattern.text.upper() not in METHODS | accepted:
            return f"no route accepts it.{_did_you_mean('method', pattern.text.upper(), METHODS | accepted)}"
    return None


def _reason_for_no_name(pattern: Pattern, known: Collection[str]) -> str | None:
    if any(fnmatchcase(name, pattern.text) for name in known):
        return None
    return f"the app has no such {pattern.kind}.{_did_you_mean(pattern.kind, pattern.text, known)}"


def _did_you_mean(kind: str, name: str, known: Collection[str]) -> str:
    nested = sorted(each for each in known if each.endswith(f".{name}"))
    close = (*nested, *get_close_matches(name, sorted(known), n=1))
    return f" Did you mean '{kind}:{close[0]}'?" if close else ""


def _covers(first: Pattern, second: Pattern) -> bool:
    """Return whether each request that ``second`` matches is matched by ``first`` as well, as far as can be proved."""
    if first == second or _matches_all(first):
        return True
    if first.kind == second.kind == "path":
        return _glob_covers(first.text, second.text)
    if first.kind == "endpoint":
        if second.kind == "blueprint" and not set("*?[").isdisjoint(second.text):
            return first in _ALL_ENDPOINTS
        below = {"endpoint": second.text, "blueprint": f"{second.text}.{_ANY_TEXT}"}.get(second.kind)
        return below is not None and _name_covers(first.text, below)
    if first.kind == "blueprint" and second.kind == "endpoint":  # of it, or of one that is nested in it
        return set("*?[").isdisjoint(first.text) and second.text.startswith(f"{first.text}.")
    return first.kind == second.kind == "blueprint" and _name_covers(first.text, second.text)


def _matches_all(pattern: Pattern) -> bool:
    if pattern.kind == "path":
        return re.fullmatch(r"/\*\*+", pattern.text) is not None
    return pattern.kind == "regex" and pattern.text in _MATCHES_ALL


def _name_covers(first: str, second: str) -> bool:
    """Compare names with the wildcards of ``fnmatch``; ``*`` matches the other's wildcards as if they were letters."""
    if first == second:
        return True
    plain = set("*?[").isdisjoint(second.replace(_ANY_TEXT, "*"))
    return (plain or set("?[").isdisjoint(first)) and fnmatchcase(second, first)


def _glob_covers(first: str, second: str) -> bool:
    """Match one glob against the other, whose wildcards are treated as letters that no path has."""
    text = re.sub(r"\*\*+", _ANY_TEXT, second).replace("*", _ANY_SEGMENT).replace("?", _ANY_CHARACTER)
    parts = {
        "*": f"[^/{_ANY_TEXT}]*",
        "?": f"[^/{_ANY_TEXT}{_ANY_SEGMENT}]",
    }
    tokens = re.split(r"(\*\*+|\*|\?)", first)
    regex = "".join(parts.get(each, ".*" if each.startswith("**") else re.escape(each)) for each in tokens)
    return re.fullmatch(regex, text, re.DOTALL) is not None
