"""An app under attack, which says after each request what became of it."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from flask import Flask, session
from flask_login import LoginManager, UserMixin, current_user
from itsdangerous import BadSignature, Signer
from werkzeug.sansio.http import parse_cookie
from werkzeug.test import EnvironBuilder

from lazysession import LazySession
from tests.support.stores import Store, prepare

from .cookies import KEY, OLD_KEY, SALT
from .payloads import LURE

PREFIX = "session:"
_SHAPE = re.compile(rb"[A-Za-z0-9_-]{1,128}\Z")  # written again here: the library's own check is under test
_MADE = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_SENT_BACK = re.compile(r'session="?([^;"]*)')
_VERBS = ("read", "create", "replace", "delete")


class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no annotations
    """A user of whatever id the session says."""

    def __init__(self, user_id: object) -> None:
        self.id = str(user_id)


class Ears(logging.Handler):
    """Hears all that is logged, and remembers how often a secret was in it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.secrets: list[str] = []
        self.records = 0
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1
        text = logging.Formatter().format(record)
        if any(secret in text for secret in self.secrets):
            self.leaks.append(record.msg)


class Target:
    """A lazy app on a store, whose backend's calls are recorded.

    :param store: the store of the app.
    :param login: the app has Flask-Login.
    :param signed: the app signs its ids.
    """

    def __init__(self, store: Store, *, signed: bool = False, **settings: Any) -> None:
        self.app = app = Flask("shop", static_folder=None)
        app.config.update(TESTING=True, SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=[OLD_KEY], SESSION_USE_SIGNER=signed)
        app.config.update(**store.config(), **settings)
        prepare(app)
        LazySession(app)
        login: Any = LoginManager(app)
        login.user_loader(User)
        for name, page in PAGES.items():
            app.add_url_rule(f"/{name}", name, self._page(page))
        self.signed = signed
        self.ears = Ears()
        for logger in (logging.getLogger("lazysession"), app.logger):
            logger.addHandler(self.ears)
            logger.setLevel(logging.DEBUG)
            logger.propagate = False
        self.calls: list[tuple[str, str]] = []
        self.backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        for verb in _VERBS:
            setattr(self.backend, verb, self._recorded(verb, getattr(self.backend, verb)))
        self.counts: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()
        self.opened = ""
        self._environ = EnvironBuilder(path="/").get_environ()
        self._signer = Signer([OLD_KEY, KEY], salt=SALT, key_derivation="hmac")

    def close(self) -> None:
        """Stop listening."""
        for logger in (logging.getLogger("lazysession"), self.app.logger):
            logger.removeHandler(self.ears)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True

    def _page(self, page: Callable[[], object]) -> Callable[[], str]:
        def view() -> str:
            page()
            self.opened = session.sid  # type: ignore[attr-defined]
            return "done"

        return view

    def _recorded(self, verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(key: str, *arguments: Any, **options: Any) -> Any:
            self.calls.append((verb, key))
            return call(key, *arguments, **options)

        return recorded

    def values(self, header: str) -> list[str]:
        """Return every value of the session cookie in a header."""
        return parse_cookie(header).getlist("session")

    def id_in(self, header: str) -> str | None:
        """Return what a header names: the one value that has the shape of an id, and the signature where one is due."""
        first = next(iter(self.values(header)), "").encode()
        if self.signed:
            try:
                first = self._signer.unsign(first)
            except BadSignature:
                return None
        return first.decode() if _SHAPE.match(first) else None

    def ask(self, name: str, header: str, case: str, known: frozenset[str], secrets: list[str]) -> int:
        """Send a request past the server, and judge what came of it.

        :param case: what the header or the stored payload tries, for the counts.
        :param known: the ids that the store knows.
        :param secrets: what must not be logged.
        """
        self.calls.clear()
        self.opened = ""
        self.ears.secrets = secrets
        status, sent_back = 0, ""

        def start_response(line: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], object]:
            nonlocal status, sent_back
            status = int(line[:3])
            sent_back = next((value for key, value in headers if key == "Set-Cookie"), "")
            return lambda _: None

        environ = {**self._environ, "PATH_INFO": f"/{name}", "HTTP_COOKIE": header}
        try:
            for _ in self.app.wsgi_app(environ, start_response):
                pass
        except Exception as error:
            self._count("server errors", f"{case}: {type(error).__name__}")
        self.counts["requests"] += 1
        self.counts[f"status {status}"] += 1
        if status >= 500:
            self._count("server errors", f"{case}: {status}")
        self.counts["store calls"] += len(self.calls)
        self._judge(f"{case} on /{name}", name, header, sent_back, known)
        return status

    def _judge(self, case: str, name: str, header: str, sent_back: str, known: frozenset[str]) -> None:
        named, values = self.id_in(header), self.values(header)
        sent = {value.partition(".")[0] if self.signed else value for value in values}
        for verb, key in self.calls:
            sid = key.removeprefix(PREFIX)
            fresh = _MADE.match(sid) is not None and sid not in sent
            if named is None and not (verb == "create" and fresh and name in WRITING):
                self._count("store calls for malformed ids", f"{case}: {verb}")
            if (verb == "create" and not fresh and sid not in known) or (verb == "replace" and sid in sent - known):
                self._count("adopted ids", f"{case}: {verb}")
        self.counts["malformed" if named is None else "known" if named in known else "unknown"] += 1
        given = _SENT_BACK.match(sent_back)
        if given is not None and given[1] and given[1].partition(".")[0] in sent - known:
            self._count("adopted ids", f"{case}: Set-Cookie")

    def _count(self, what: str, case: str) -> None:
        self.counts[what] += 1
        self.problems[f"{what}: {case}"] += 1

    def report(self, **more: object) -> str:
        """Return the counts, for the output of the tests."""
        counts = {name: self.counts[name] for name in ZERO} | dict(sorted(self.counts.items()))
        return ", ".join(f"{name}: {value}" for name, value in {**more, **counts}.items())


#: The counts that must stay at nothing.
ZERO = ("server errors", "store calls for malformed ids", "adopted ids")


def _read() -> object:
    return session.get("n")


def _write() -> None:
    session["n"] = 1 if session.get("n") != 1 else 2


def _nested() -> None:
    session.setdefault("list", [])
    session["list"] = [LURE]


def _clear() -> None:
    session.clear()


def _empty() -> None:
    len(session)
    session.clear()


def _start_over() -> None:
    session.clear()
    session["n"] = 1


def _rotate() -> None:
    session["n"] = 1
    session_interface().regenerate(session)


def _user() -> object:
    return current_user.is_authenticated


def _permanent() -> None:
    session.permanent = not session.permanent


def session_interface() -> Any:
    """Return the interface of the app that serves the request."""
    from flask import current_app

    return current_app.session_interface


#: Every page uses the session, each in a way of its own.
PAGES: dict[str, Callable[[], object]] = {
    "read": _read,
    "write": _write,
    "nested": _nested,
    "clear": _clear,
    "empty": _empty,
    "start-over": _start_over,
    "rotate": _rotate,
    "user": _user,
    "permanent": _permanent,
}
#: The pages that leave something in an empty session.
WRITING = frozenset({"write", "nested", "start-over", "rotate"})
