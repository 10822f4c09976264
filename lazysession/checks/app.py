"""What ``flask lazysession check`` finds in the settings of an app, without I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from lazysession.backend import Problem, SupportsPurge
from lazysession.errors import ConfigurationError
from lazysession.flasksession import session_type_of
from lazysession.ids import signs_ids
from lazysession.interface import LazySessionInterface
from lazysession.modes import NOT_SKIPPED, RuleTable
from lazysession.patterns import shadowed, unmatched
from lazysession.serverside import ServerSide
from lazysession.settings import PREFIX, Settings
from lazysession.signedcookie import SignedCookie
from lazysession.startup.names import unread
from lazysession.startup.values import refuse_wrong_flask_settings
from lazysession.wrapped import Wrapped

from .cookies import find_cookie_problems

#: Settings about what is stored: nothing reads them without an adapter.
OF_THE_STORE = ("REFRESH_THROTTLE", "CONFLICT", "ON_READ_ERROR", "ABSOLUTE_LIFETIME", "ALLOW_PICKLE")

_NEW_KEY = "what python -c 'import secrets; print(secrets.token_hex())' prints"
_SHORT_KEY = 16
_USUAL_ID, _SHORT_ID, _GUESSABLE_ID = 32, 16, 8  # random bytes
#: Keys from tutorials and placeholders that are not short, without case and punctuation.
_KNOWN_KEYS = frozenset({
    "hardtoguessstring",
    "youwillneverguess",
    "supersecretkey",
    "mysupersecretkey",
    "thisisasecretkey",
    "thisisaverysecretkey",
    "replacewithasecretkey",
    "changethisinproduction",
    "pleasechangeme",
    "a0zr98j3yxrxhhjmnlwxrt",  # of Flask's documentation, as is the next one
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
})  # fmt: skip


def find_problems(app: Flask, interface: LazySessionInterface) -> Iterator[Problem]:
    """Return the problems of an app's settings; no text has a part of a key."""
    settings = None
    try:
        if interface.before_first_use is not None:
            interface.before_first_use()
        refuse_wrong_flask_settings(app)
        settings = Settings.from_config(app.config, app.permanent_session_lifetime.total_seconds())
    except ConfigurationError as error:  # the first finding: a late setting may cause those that follow
        yield Problem(
            "error", str(error), "Set everything before LazySession(app), which would have refused it.", "settings"
        )
    yield from find_cookie_problems(app, interface)
    yield from _problems_of_keys(app, interface)
    yield from _problems_of_names(app, interface)
    if settings is not None:
        yield from _problems_of_settings(app, interface, settings)


def _problems_of_settings(app: Flask, interface: LazySessionInterface, settings: Settings) -> Iterator[Problem]:
    if isinstance(interface.handler, (ServerSide, SignedCookie)):
        yield from _problems_of_refreshes(app, settings)
    if isinstance(interface.handler, ServerSide):
        yield from _problems_of_lifetimes(app, settings)
        yield from _problems_of_ids(interface.handler)
        yield from _problems_of_choices(settings)
    elif isinstance(interface.handler, Wrapped):
        yield from _problems_of_idle_settings(app, interface.handler)
    yield from find_useless_rules(app, interface.rules)
    yield from _problems_of_static_files(app, interface.rules)
    if settings.trace and not app.debug:
        yield Problem(
            "info",
            f"{PREFIX}TRACE is on: every visitor can read in Server-Timing which line of the app loaded the session.",
            f"Leave {PREFIX}TRACE out: it is then on in debug mode alone.",
            "trace",
        )


def _problems_of_names(app: Flask, interface: LazySessionInterface) -> Iterator[Problem]:
    stored = isinstance(interface.handler, ServerSide)
    session_type = session_type_of(app.config)
    for sentence in unread(app.config, None if stored and session_type == "null" else session_type):
        yield Problem("warning", sentence, "Nothing to do if the app itself reads it.", "settings-unread")


def _problems_of_keys(app: Flask, interface: LazySessionInterface) -> Iterator[Problem]:
    wrapped = interface.handler.wrapped
    if signs_ids(wrapped):
        signs = "SESSION_USE_SIGNER is on"
    elif isinstance(wrapped, SecureCookieSessionInterface):
        signs = "sessions are Flask's signed cookies"
    else:
        yield from _problems_of_extensions(app)
        return
    fallbacks: Any = app.config.get("SECRET_KEY_FALLBACKS") or []
    if isinstance(fallbacks, (str, bytes)) or not all(isinstance(key, (str, bytes)) and key for key in fallbacks):
        yield Problem(
            "error",
            "SECRET_KEY_FALLBACKS is not a list of keys, or holds an empty one: an attacker can make cookies that are "
            "accepted, or every request fails.",
            "Set SECRET_KEY_FALLBACKS = [OLD_KEY], or leave it out.",
            "secret-key-fallbacks",
        )
        fallbacks = []
    if not app.secret_key:
        yield Problem(
            "error",
            f"SECRET_KEY is not set and {signs}: no session can be made.",
            f"Set SECRET_KEY to {_NEW_KEY}.",
            "secret-key",
        )
    elif any(map(_is_weak, [app.secret_key, *fallbacks])) and not app.debug:
        yield Problem(
            "warning",
            f"SECRET_KEY, or one of SECRET_KEY_FALLBACKS, is short or known from examples, and {signs}: an attacker "
            "who guesses it can make cookies that are accepted.",
            f"Set SECRET_KEY to {_NEW_KEY}, and do not keep the old one, though that logs all visitors out.",
            "secret-key-weak",
        )


def _problems_of_extensions(app: Flask) -> Iterator[Problem]:
    """Return which extensions need the key where no session does."""
    needs = {
        "Flask-WTF needs it for CSRF tokens": "csrf" in app.extensions and not app.config.get("WTF_CSRF_SECRET_KEY"),
        "Flask-Login needs it for the remember cookie": hasattr(app, "login_manager"),
    }
    if not app.secret_key and any(needs.values()):
        yield Problem(
            "info",
            f"SECRET_KEY is not set: {', '.join(need for need, is_so in needs.items() if is_so)}.",
            f"Set SECRET_KEY to {_NEW_KEY}.",
            "secret-key-extensions",
        )


def _is_weak(key: str | bytes) -> bool:
    text = key.decode("latin-1") if isinstance(key, bytes) else key
    plain = "".join(filter(str.isalnum, text.lower()))
    return len(key) < _SHORT_KEY or len(set(text)) < _SHORT_KEY // 2 or plain in _KNOWN_KEYS


# Lifetimes, ids, choices


def _problems_of_refreshes(app: Flask, settings: Settings) -> Iterator[Problem]:
    lifetime, throttle = app.permanent_session_lifetime.total_seconds(), settings.refresh_throttle
    if not app.config["SESSION_REFRESH_EACH_REQUEST"]:
        yield Problem(
            "info",
            "SESSION_REFRESH_EACH_REQUEST is off: a session ends "
            f"{lifetime:,.10g} s after its last change, in use or not.",
            "Leave it on, if use is to keep sessions alive; refreshes cost little.",
            "refresh-off",
        )
    elif throttle == 0:
        yield Problem(
            "info",
            f"{PREFIX}REFRESH_THROTTLE is 0: each use of a session moves its expiry, which is work for the "
            "store, or sends Flask's signed cookie again.",
            "Leave it out, unless sessions are to end to the second: it is a tenth of the lifetime then.",
            "throttle-off",
        )
    elif throttle is not None and throttle > lifetime / 2:
        yield Problem(
            "warning",
            f"{PREFIX}REFRESH_THROTTLE is {throttle:,.10g} s of the {lifetime:,.10g} s of PERMANENT_SESSION_LIFETIME: "
            f"a visitor who returns {lifetime - throttle:,.10g} s after the last use may find the session ended.",
            f"Leave {PREFIX}REFRESH_THROTTLE out: it is a tenth of the lifetime then, at most an hour.",
            "throttle-long",
        )


def _problems_of_lifetimes(app: Flask, settings: Settings) -> Iterator[Problem]:
    lifetime, limit = app.permanent_session_lifetime.total_seconds(), settings.absolute_lifetime
    if limit is not None and limit <= lifetime:
        yield Problem(
            "info",
            f"{PREFIX}ABSOLUTE_LIFETIME is {limit:,.10g} s, PERMANENT_SESSION_LIFETIME {lifetime:,.10g} s: no session "
            "ends because it is not used.",
            "Set PERMANENT_SESSION_LIFETIME to the shorter time after which an unused session is to end.",
            "absolute-lifetime",
        )
    if not app.config.get("SESSION_PERMANENT", True):
        yield Problem(
            "info",
            "SESSION_PERMANENT is off: browsers drop the cookie when they close, the store keeps sessions "
            f"{lifetime:,.10g} s.",
            "Set PERMANENT_SESSION_LIFETIME to no more than a visit takes: after that, no cookie names these sessions.",
            "session-permanent",
        )


def _problems_of_ids(handler: ServerSide) -> Iterator[Problem]:
    length: int = getattr(handler.wrapped, "sid_length", None) or _USUAL_ID
    # A store that has to be purged is a table or a directory of its own.
    if handler.ids.may_be_foreign("") and not isinstance(handler.backend, SupportsPurge):
        yield Problem(
            "info",
            "SESSION_KEY_PREFIX is empty: a cookie can name any key of the store, also those of other programs.",
            "Set a prefix, which logs all visitors out once, or keep nothing but sessions in the store.",
            "key-prefix",
        )
    if length < _SHORT_ID:
        yield Problem(
            "error" if length < _GUESSABLE_ID else "warning",
            f"SESSION_ID_LENGTH is {length}: an attacker can find ids of so few random bytes by trying.",
            "Set SESSION_ID_LENGTH = 32, or leave it out.",
            "session-id-length",
        )


def _problems_of_choices(settings: Settings) -> Iterator[Problem]:
    if settings.allow_pickle:
        yield Problem(
            "warning",
            f"{PREFIX}ALLOW_PICKLE is on: anyone who can write to the session store can run code in the app.",
            "Leave it out as soon as the sessions of Flask-Session before 0.7 have expired.",
            "allow-pickle",
        )
    if settings.conflict == "overwrite":
        yield Problem(
            "warning",
            f"{PREFIX}CONFLICT is 'overwrite': of two requests that change a session at once, one loses its change.",
            f"Leave {PREFIX}CONFLICT out: changes of different keys are then merged.",
            "conflict-overwrite",
        )


def find_useless_rules(app: Flask, rules: RuleTable) -> Iterator[Problem]:
    """Return the rules that match nothing in the app, and those that never decide."""
    for sentence in unmatched(rules.rules, app):
        yield Problem(
            "warning", sentence, "Correct the name, or leave the rule out: requests get another mode.", "rule-unmatched"
        )
    for rule, first in shadowed(rules.rules):
        yield Problem(
            "info" if rule.mode is first.mode else "warning",
            f"The session rule {rule.source!r} never decides: {first.source!r} in front of it matches all that it "
            "matches.",
            "Put the narrower rule first, or leave it out.",
            "rule-shadowed",
        )


def _problems_of_static_files(app: Flask, rules: RuleTable) -> Iterator[Problem]:
    """Return the static routes that are not skipped, except those that a rule of the app decides."""
    for route in sorted(app.url_map.iter_rules(), key=lambda route: route.endpoint):
        try:
            reason = rules.mode_of_route(app, route, "GET").reason
        except Exception:  # noqa: S112 - a callable rule may ask for what only a real request has
            continue
        if reason.startswith(NOT_SKIPPED):
            yield Problem(
                "info",
                f"Requests to {route.endpoint} do not skip the session: {reason.removeprefix(NOT_SKIPPED)}.",
                f"Nothing, where that guards the files; otherwise put ('endpoint:{route.endpoint}', 'skip') in "
                f"{PREFIX}RULES.",
                "static-not-skipped",
            )


def _problems_of_idle_settings(app: Flask, handler: Wrapped) -> Iterator[Problem]:
    used = {"REFRESH_THROTTLE"} if isinstance(handler, SignedCookie) else set()
    idle = [PREFIX + name for name in OF_THE_STORE if PREFIX + name in app.config and name not in used]
    if idle:
        yield Problem(
            "warning",
            f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect: {type(handler.wrapped).__name__} "
            "loads and saves sessions itself.",
            "Leave out what has no effect, or set SESSION_TYPE to a store that has an adapter.",
            "settings-idle",
        )
