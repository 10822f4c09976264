"""Names in an app's config that nothing reads, and settings that were set after they were read."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from lazysession import flasksession, registry
from lazysession.errors import ConfigurationError
from lazysession.pages import Page, see
from lazysession.settings import NAMES, PREFIX, items_of

#: Settings of Flask itself, which reads them in each request.
_OF_FLASK = (
    "PERMANENT_SESSION_LIFETIME",
    "SESSION_REFRESH_EACH_REQUEST",
    *(f"SESSION_COOKIE_{each}" for each in ("NAME", "DOMAIN", "PATH", "HTTPONLY", "SECURE", "PARTITIONED", "SAMESITE")),
)
#: What other libraries call a store; an app may use such a name for itself.
_STORES = ("SESSION_URL", "SESSION_URI", "SESSION_SERVER", "SESSION_SERVERS", "SESSION_HOST", "SESSION_DATABASE_URI")
#: What other libraries call our settings; an app may use such a name for itself.
_MEANT = {
    **dict.fromkeys(_STORES, "SESSION_TYPE, with SESSION_<TYPE> for a client or a URL"),
    **dict.fromkeys(
        (
            *("SESSION_TIMEOUT", "SESSION_LIFETIME", "SESSION_PERMANENT_LIFETIME", "SESSION_TTL", "SESSION_EXPIRY"),
            *("SESSION_EXPIRES", "SESSION_MAX_AGE", "SESSION_COOKIE_AGE", "SESSION_COOKIE_MAX_AGE", "SESSION_LENGTH"),
        ),
        "PERMANENT_SESSION_LIFETIME",
    ),
    **dict.fromkeys(("SESSION_ENGINE", "SESSION_BACKEND", "SESSION_STORE", "SESSION_INTERFACE"), "SESSION_TYPE"),
    "SESSION_PREFIX": "SESSION_KEY_PREFIX",
    "SESSION_SERIALIZER": "SESSION_SERIALIZATION_FORMAT",
    "SESSION_SECRET": "SECRET_KEY",
    "SESSION_SECRET_KEY": "SECRET_KEY",
    **dict.fromkeys(("SESSION_DIR", "SESSION_FILE_PATH", "SESSION_FILESYSTEM_DIR"), "SESSION_FILE_DIR"),
}
#: Where other extensions have their servers.
_ELSEWHERE = {
    "redis": ("REDIS_URL", "REDIS_URI", "REDIS_HOST", "CACHE_REDIS_URL"),
    "memcached": ("MEMCACHED_URL", "MEMCACHED_SERVERS", "CACHE_MEMCACHED_SERVERS"),
    "mongodb": ("MONGO_URI", "MONGO_URL", "MONGODB_URI", "MONGODB_HOST", "MONGODB_SETTINGS"),
}
#: Settings of every store, which have no effect without one.
_OF_ANY_STORE = ("SESSION_KEY_PREFIX", "SESSION_USE_SIGNER", "SESSION_PERMANENT", "SESSION_ID_LENGTH")


def refuse_misread_names(config: Mapping[str, Any], defaults: Mapping[str, Any], session_type: str | None) -> None:
    """Refuse names that are nearly those of settings, and stores under names that nothing reads.

    :param defaults: Flask's own config.
    :param session_type: SESSION_TYPE in lower case; ``"null"`` for Flask's signed cookie, None where the app brought an
        interface that has its store already.
    :raises ConfigurationError: for the first such name. A value is never repeated.
    """
    known = _known_names() | options_of(session_type)
    for name, value in items_of(config):
        if value is None or name in known or name in defaults or name.startswith(PREFIX):
            continue
        _refuse_dict(name, value, config, known)
        right = _nearly(name, known)
        if right is not None and config.get(right) in (None, defaults.get(right)) and _may_be(right, value):
            raise ConfigurationError(_misspelled(name, right))
        store = _store_of(name, config, session_type)
        if store is not None:
            right = f"SESSION_{store.upper()}"
            wanted = f"SESSION_TYPE = {store!r}, and {right}" if session_type == "null" else right
            raise ConfigurationError(f"{name} is not read, and {right} is not set. Set {wanted} to a client or a URL.")


def refuse_store_without_type(config: Mapping[str, Any]) -> None:
    """Refuse the setting of a store where SESSION_TYPE is not set.

    :raises ConfigurationError: for the first such setting by name.
    """
    for name in sorted(name for name, value in items_of(config) if value is not None):
        session_type = _type_of_setting(name)
        if session_type is not None:
            raise ConfigurationError(
                f"{name} is set, and SESSION_TYPE is not: sessions would be cookies that visitors can read. Set "
                f"SESSION_TYPE = {session_type!r}, or 'null' for signed cookies. {see(Page.WRONG_SESSION_TYPE)}"
            )


def unread(config: Mapping[str, Any], session_type: str | None) -> Iterator[str]:
    """Return a sentence for each setting that looks like one for sessions, and that nothing reads in this app."""
    for name in filter(_MEANT.__contains__, config):
        yield f"{name} is not read. The setting is {_MEANT[name]}."
    if session_type is None:
        return
    for name in _ELSEWHERE.get(session_type, ()):
        right = f"SESSION_{session_type.upper()}"
        if config.get(name) is not None and config.get(right) is None:
            yield f"{name} is not read for sessions: they are stored on localhost. Set {right} to a client or a URL."
    if session_type == "cachelib":
        for name in filter(config.__contains__, ("SESSION_FILE_DIR", "SESSION_FILE_MODE", "SESSION_FILE_THRESHOLD")):
            yield f"{name} is read only for SESSION_TYPE 'filesystem'. Set SESSION_CACHELIB = 'file:///directory'."
    idle = [name for name in _OF_ANY_STORE if name in config]
    if session_type == "null" and idle and not config.get("SESSION_TYPE"):
        yield f"{', '.join(idle)}: not read without SESSION_TYPE. Set it to a store, or to 'null' for signed cookies."


def unknown(config: Mapping[str, Any], session_type: str | None) -> list[str]:
    """Return the names that begin with ``SESSION_`` and are no setting, or one of another SESSION_TYPE."""
    known = _known_names() | options_of(session_type)
    own = tuple(f"{each}_" for each in _own_stores())
    names = [name for name, value in items_of(config) if name.startswith("SESSION_") and value is not None]
    foreign = {name for name in names if session_type is not None and _is_of_another_type(name, session_type)}
    unread = {name for name in names if not (name in known or name in _MEANT or name.startswith(own))}
    return sorted(foreign | unread)


def _is_of_another_type(name: str, session_type: str) -> bool:
    if name.startswith("SESSION_FILE_"):
        return session_type not in ("filesystem", "cachelib")  # the latter gets a warning
    stores = [each for each in _with_settings() if f"{name}_".startswith(f"SESSION_{each}_")]
    return bool(stores) and stores[0].lower() != session_type


def _type_of_setting(name: str) -> str | None:
    """Return the SESSION_TYPE that a setting belongs to, as SESSION_FILE_DIR to "filesystem"; None for any other."""
    for session_type in (*flasksession.KNOWN_TYPES, *registry.names()):
        own = f"SESSION_{session_type.upper()}"
        if name == own or (name.startswith(f"{own}_") and name in flasksession.defaults()):
            return session_type
    return "filesystem" if name.startswith("SESSION_FILE_") and name in flasksession.defaults() else None


class SettingsRead:
    """The settings of an app that are read once, with the values that they had then.

    :param config: the app's config; it is looked at again when :meth:`refuse_changes` is called.
    :param session_type: SESSION_TYPE in lower case.
    """

    def __init__(self, config: Mapping[str, Any], session_type: str) -> None:
        self._config = config
        self._session_type = session_type
        self._defaults = {**dict.fromkeys(options_of(session_type)), **flasksession.defaults()}
        self._stores = _own_stores()
        self._of_stores = tuple(f"{each}_" for each in self._stores)
        self._before = self._read()

    def refuse_changes(self) -> None:
        """Refuse settings that were set or changed after they were read: they have no effect.

        :raises ConfigurationError: for the first of them by name. A value is never repeated.
        """
        before, now = self._before, self._read()
        changed = sorted(
            name
            for name in now.keys() | before.keys()
            if not _same(now.get(name), before.get(name)) and not self._is_of_another_type(name)
        )
        if changed:
            raise ConfigurationError(
                f"{changed[0]} was set or changed after LazySession(app), which has read it: it has no effect. Load "
                f"the config before. {see(Page.SETTING_TOO_LATE)}"
            )

    def _read(self) -> dict[str, Any]:
        """Return the values by name; a list is copied, as the app may change it."""
        names = {*self._defaults, *(name for name, _ in items_of(self._config) if self._is_read_once(name))}
        values = {name: self._config.get(name, self._defaults.get(name)) for name in names}
        return {name: copy.copy(each) if isinstance(each, (list, dict, set)) else each for name, each in values.items()}

    def _is_of_another_type(self, name: str) -> bool:
        """Return whether a setting is of another store, and so would not have been read before either.

        With signed cookies there is no store: a setting of any store was set too late.
        """
        return self._session_type != "null" and _is_of_another_type(name, self._session_type)

    def _is_read_once(self, name: str) -> bool:
        return name in self._stores or name.startswith((PREFIX, *self._of_stores))


def _same(value: Any, other: Any) -> bool:
    try:
        return value is other or bool(value == other)
    except Exception:  # a client's own comparison may raise anything
        return False


def options_of(session_type: str | None) -> frozenset[str]:
    """Return each SESSION_<TYPE>_<NAME> that the adapter of a SESSION_TYPE takes."""
    try:
        adapter = registry.find(session_type or "null")
    except ConfigurationError:  # its client library is missing, which is reported where the adapter is needed
        return frozenset()
    named = inspect.signature(adapter.from_setting).parameters.values() if adapter is not None else ()
    names = (each.name for each in named if each.kind is each.KEYWORD_ONLY)
    return frozenset(f"SESSION_{session_type}_{name}".upper() for name in names)


def _own_stores() -> tuple[str, ...]:
    """Return the settings of the stores that other packages have an adapter for."""
    return tuple(f"SESSION_{name.upper()}" for name in {*registry.names()} - {*flasksession.KNOWN_TYPES})


def _known_names() -> frozenset[str]:
    types = {*registry.names(), *flasksession.KNOWN_TYPES}
    of_stores = {f"SESSION_{name.upper()}" for name in types - {"filesystem"}}
    return frozenset({*_OF_FLASK, *flasksession.defaults(), *of_stores, *(PREFIX + name for name in NAMES)})


def _refuse_dict(name: str, value: object, config: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse what two underscores in the environment make of a setting; any other dict is the app's own."""
    if name not in ("SESSION", "LAZYSESSION") or not isinstance(value, dict):
        return
    meant = sorted(key for key in map(str, value) if f"{name}_{key}" in known and config.get(f"{name}_{key}") is None)
    if meant:
        raise ConfigurationError(
            f"{name} is a dict: in the environment, write one underscore, as in FLASK_{name}_{meant[0]}. Two make a "
            "dict, and nothing reads it."
        )


def _may_be(right: str, value: object) -> bool:
    """Return whether a value can be meant for a setting: a list is the app's own if the setting takes no list."""
    several = isinstance(value, (list, tuple, set, frozenset, dict))
    return not several or right.startswith(PREFIX) or right.removeprefix("SESSION_") in _with_settings()


def _misspelled(name: str, right: str) -> str:
    if right == PREFIX:
        return f"{name} is not a setting: those of LazySession begin with {PREFIX}. {see(Page.SETTINGS)}"
    return f"{name} is not a setting: nothing reads it. Did you mean {right}?"


def _nearly(name: str, known: frozenset[str]) -> str | None:
    """Return the setting that a name is nearly, PREFIX for one of ours that is not known, or None."""
    plain = _plain(name.upper().removeprefix("FLASK_"))
    if SequenceMatcher(None, plain[:11], "LAZYSESSION").ratio() >= 0.85:
        names = {_plain(each): PREFIX + each for each in NAMES}
        return next((names[each] for each in get_close_matches(plain[11:], names, n=1)), PREFIX)
    by_plain = {_plain(each): each for each in known if not each.startswith(PREFIX)}
    if plain in by_plain:
        return by_plain[plain]
    for store in (*_with_settings(), "FILE"):
        if name.startswith(f"SESSION_{store}_"):
            options = {each.removeprefix(f"SESSION_{store}_"): each for each in known if f"SESSION_{store}_" in each}
            close = get_close_matches(name.removeprefix(f"SESSION_{store}_"), options, n=1, cutoff=0.7)
            return options[close[0]] if close else None
    if name in _MEANT or any(name.startswith(f"{each}_") for each in known):
        return None  # an app's own, as SESSION_COOKIE_NAME_OLD
    if plain.startswith("SESSION"):
        rests = {each.removeprefix("SESSION"): right for each, right in by_plain.items() if each.startswith("SESSION")}
        close = get_close_matches(plain[7:], rests, n=1, cutoff=0.85)
        close += [each for each in rests if len(each) >= 8 and _distance(plain[7:], each) <= 2]  # as two swapped vowels
        return rests[close[0]] if close else None
    close = get_close_matches(plain, by_plain, n=1, cutoff=0.9)
    return by_plain[close[0]] if close and not plain.endswith(close[0]) else None


def _distance(one: str, other: str) -> int:
    """Return how many letters have to be changed, added or taken away to make one text of another."""
    row = list(range(len(other) + 1))
    for count, letter in enumerate(one, 1):
        before, row[0] = row[0], count
        for place, wanted in enumerate(other, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (letter != wanted))
    return row[-1]


def _plain(name: str) -> str:
    return re.sub("[^A-Z0-9]", "", name.upper())


def _with_settings() -> list[str]:
    """Return the stores of Flask-Session that have a setting of their own for a client, in upper case."""
    return [each.upper() for each in flasksession.KNOWN_TYPES if f"SESSION_{each.upper()}" in flasksession.defaults()]


def _store_of(name: str, config: Mapping[str, Any], session_type: str | None) -> str | None:
    """Return the SESSION_TYPE that a name was meant for, if nothing sets its store, which would be on localhost."""
    for store in _with_settings():
        if config.get(f"SESSION_{store}") is None and (
            (session_type in ("null", store.lower()) and name.startswith(f"SESSION_{store}_"))
            or (session_type == store.lower() and name in _STORES)
        ):
            return store.lower()
    return None
