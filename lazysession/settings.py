"""Every setting of LazySession: its name, its default, and what is allowed. Values alone: no rule is compiled here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from .errors import ConfigurationError
from .pages import Page, see

PREFIX = "LAZYSESSION_"
#: Separates patterns that are written as one text, as in "/a,/b". A path may hold a comma, but hardly before a slash.
BETWEEN_PATTERNS = r"\s*[,;\s]\s*(?=/|endpoint:|blueprint:|method:)"
_BETWEEN_NAMES = r"\s*,\s*"


@dataclass(frozen=True)
class Settings:
    """The settings of one app, in the order of the documentation.

    :param refresh_throttle: seconds; None for a tenth of the lifetime, at most an hour.
    :param rules: pairs of a pattern and a mode, and ``skip_paths``, patterns: not compiled yet.
    :param absolute_lifetime: seconds; None for no limit.
    :param trace: None while the app is in debug mode.
    """

    refresh_throttle: float | None = None
    rules: tuple[tuple[object, object], ...] = ()
    skip_static: bool = True
    skip_paths: tuple[object, ...] = ()
    skipped_write: str = "drop"
    transient_keys: frozenset[str] = frozenset({"_remember"})
    conflict: str = "merge"
    conflict_exempt_keys: frozenset[str] = frozenset({"_flashes", "page_history"})
    on_read_error: str = "unavailable"
    absolute_lifetime: float | None = None
    rotate_on_login: bool = True
    allow_pickle: bool = False
    trace: bool | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], lifetime: float) -> Settings:
        """Read the settings of an app.

        :param config: the app's config.
        :param lifetime: PERMANENT_SESSION_LIFETIME in seconds.
        :raises ConfigurationError: for the first setting that is wrong or unknown.
        """
        _refuse_unknown_names(config)
        if not lifetime > 0:
            raise ConfigurationError(
                f"PERMANENT_SESSION_LIFETIME is {lifetime:,.10g} seconds: no session would live. Allowed is more "
                "than 0."
            )
        read = _Reader(config)
        return cls(
            refresh_throttle=_throttle(read, lifetime),
            rules=_rules(read),
            skip_static=read.flag("SKIP_STATIC", cls.skip_static),
            skip_paths=read.entries("SKIP_PATHS", (), "a list of patterns", parts=BETWEEN_PATTERNS),
            skipped_write=read.choice("SKIPPED_WRITE", "drop", "raise"),
            transient_keys=frozenset(read.texts("TRANSIENT_KEYS", cls.transient_keys)),
            conflict=read.choice("CONFLICT", "merge", "overwrite", "raise"),
            conflict_exempt_keys=frozenset(read.texts("CONFLICT_EXEMPT_KEYS", cls.conflict_exempt_keys)),
            on_read_error=read.choice("ON_READ_ERROR", "unavailable", "raise", "empty"),
            absolute_lifetime=_absolute_lifetime(read),
            rotate_on_login=read.flag("ROTATE_ON_LOGIN", cls.rotate_on_login),
            allow_pickle=read.flag("ALLOW_PICKLE", cls.allow_pickle),
            trace=read.flag("TRACE", cls.trace),
        )


#: Without the prefix, in the order of the documentation.
NAMES = tuple(each.name.upper() for each in fields(Settings))


def items_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return the names and values of a config, without keys that are not text; an enum's member counts as its value."""
    for name, value in config.items():
        if isinstance(name, str):
            yield str.__str__(name), value


def hint_for_number(value: object) -> str:
    """Return how to write a number that is text; nothing for anything else."""
    number = isinstance(value, str) and re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*", value)
    return f" Write {number[1]} without quotes." if number else ""


class _Reader:
    """Reads single settings of a config, each with a default and the error that names it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def value(self, name: str, default: Any) -> Any:
        return self._config.get(PREFIX + name, default)

    def refuse(self, name: str, allowed: str) -> ConfigurationError:
        value = self.value(name, None)
        hint = " In the environment, None is written null." if value == "None" else hint_for_number(value)
        return ConfigurationError(f"{PREFIX}{name} is {value!r}; allowed is {allowed}.{hint}")

    def flag(self, name: str, default: Any) -> Any:
        value = self.value(name, default)
        if value is not default and not isinstance(value, bool):
            raise self.refuse(name, "True or False (in the environment: true or false)")
        return value

    def choice(self, name: str, *allowed: str) -> str:
        value = self.value(name, allowed[0])
        if value not in allowed:
            raise self.refuse(name, " or ".join(repr(each) for each in allowed))
        return str(value)

    def seconds(self, name: str) -> float | None:
        value = self.value(name, None)
        if isinstance(value, timedelta):
            return value.total_seconds()
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise self.refuse(name, "a number of seconds or a timedelta")
        return value

    def entries(self, name: str, default: Collection[Any], allowed: str, *, parts: str) -> tuple[Any, ...]:
        """Read a list, or a single entry.

        :param parts: a regular expression for the separators in a list that was written as one text, which is refused.
        """
        value = self.value(name, default)
        if isinstance(value, str):
            self._refuse_list_in_text(name, value, allowed, parts)
        if isinstance(value, (str, re.Pattern)):
            return (value,)
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise self.refuse(name, allowed)
        return tuple(value)

    def _refuse_list_in_text(self, name: str, value: str, allowed: str, parts: str) -> None:
        if value.lstrip().startswith(("[", "(", "{")):
            raise ConfigurationError(
                f"{PREFIX}{name} is {value!r}, which is text; allowed is {allowed}. In the environment it is JSON, "
                "with double quotes and square brackets."
            )
        entries = re.split(parts, value.strip())
        if len(entries) > 1:
            raise ConfigurationError(f"{PREFIX}{name} is {value!r}, one text. Write a list: {json.dumps(entries)}.")

    def texts(self, name: str, default: Collection[str]) -> tuple[str, ...]:
        entries = self.entries(name, default, "a list of names", parts=_BETWEEN_NAMES)
        if not all(isinstance(entry, str) for entry in entries):
            raise self.refuse(name, "a list of names")
        return entries


def _refuse_unknown_names(config: Mapping[str, Any]) -> None:
    for name, _ in items_of(config):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in NAMES:
            close = get_close_matches(name.removeprefix(PREFIX), NAMES, n=1, cutoff=0.5)
            hint = f"; did you mean {PREFIX}{close[0]}?" if close else f". {see(Page.SETTINGS)}"
            raise ConfigurationError(f"{name} is not a setting of LazySession{hint}")


def _throttle(read: _Reader, lifetime: float) -> float | None:
    throttle = read.seconds("REFRESH_THROTTLE")
    if throttle is not None and not 0 <= throttle < lifetime:
        raise read.refuse(
            "REFRESH_THROTTLE",
            f"0 or more and less than PERMANENT_SESSION_LIFETIME ({lifetime:,.10g} seconds): a session that is "
            "refreshed later than it ends would end in use",
        )
    return throttle


def _absolute_lifetime(read: _Reader) -> float | None:
    limit = read.seconds("ABSOLUTE_LIFETIME")
    if limit is not None and not 0 < limit < math.inf:  # nan, too
        raise read.refuse("ABSOLUTE_LIFETIME", "more than 0 seconds, or None for no limit")
    return limit


def _rules(read: _Reader) -> tuple[tuple[object, object], ...]:
    allowed = "a list of (pattern, mode) pairs"
    if isinstance(read.value("RULES", ()), (set, frozenset)):
        raise ConfigurationError(f"{PREFIX}RULES is a set, which has no order; allowed is {allowed}.")
    entries = read.entries("RULES", (), allowed, parts=BETWEEN_PATTERNS)
    for entry in entries:
        if not isinstance(entry, (list, tuple)) or len(entry) != 2:
            raise ConfigurationError(f"{PREFIX}RULES has the entry {entry!r}; allowed is {allowed}.")
    return tuple((pattern, mode) for pattern, mode in entries)
