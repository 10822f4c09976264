"""The two page views that are measured over HTTP, as lists of requests, and the kinds of requests in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import contenders
import realistic
from calling import BOGUS
from contenders import Contender
from flask import Flask

STATIC = "/static/site.css"
#: The token that Flask-WTF puts into a form.
_TOKEN = re.compile(r'<input id="csrf_token" [^>]*value="([^"]+)">')


@dataclass(frozen=True)
class Ask:
    """A request, and the status of its response; ``form`` is what is sent, to which the visitor's token is added."""

    path: str
    status: int = 200
    form: str = ""

    @property
    def line(self) -> str:
        """Return it as pageview.lua reads it."""
        return f"{self.status} {self.path} {self.form}".rstrip()


@dataclass(frozen=True)
class Visitor:
    """A visitor who has a session: what is sent with each request, and the token that forms need."""

    cookie: str = BOGUS
    token: str = ""


@dataclass(frozen=True)
class View:
    """A page view: an app, its kinds of requests, and the requests of one visitor in their order.

    :param kinds: what is checked before anything is measured, in this order.
    :param stateful: the kinds whose response depends on the session: contenders without one are not compared there.
    :param form: the page whose form has the visitor's token.
    """

    make_app: Callable[[Contender, dict[str, Any]], Flask]
    kinds: dict[str, Ask]
    asks: list[Ask]
    stateful: frozenset[str] = frozenset()
    form: str | None = None


def _view(pages: Iterable[Ask], *others: tuple[int, Ask]) -> list[Ask]:
    """Return the requests of a page and those that it causes: as many of each other kind as its number says."""
    return [*pages, *(ask for times, ask in others for ask in [ask] * times)]


_static, _untouched = Ask(STATIC), Ask("/untouched")
BARE = View(
    contenders.make_app,
    {"untouched": _untouched, "read": Ask("/read"), "static file": _static},
    _view([Ask("/read")], (60, _static), (10, _untouched)),
)

_sent = Ask("/remark", 302, "text=Fine")
_home, _book, _account, _form = Ask("/"), Ask("/books/7"), Ask("/account"), Ask("/remark")
_stock, _missing = Ask("/api/stock/7"), Ask("/apple-touch-icon.png", 404)
#: Ten views of one visitor, who sends a form in the seventh: its answer leads to the account, with a message.
_PAGES = ([_home], [_book], [_home], [_book], [_account], [_form], [_sent, _account], [_home], [_book], [_home])
REALISTIC = View(
    realistic.make_app,
    {"page": _home, "page that shows the user": _book, "form": _form, "form sent": _sent,
     "page with a message": _account, "page without a message": _account, "API": _stock, "404": _missing,
     "static file": _static},
    [ask for pages in _PAGES for ask in _view(pages, (65 - len(pages), _static), (4, _stock), (2, _missing))],
    frozenset({"page with a message"}),
    "/remark",
)  # fmt: skip
BY_NAME = {"bare": BARE, "realistic": REALISTIC}

#: Sends a request with a cookie and, if it is a form, with what it says; returns status, cookie set and body.
Fetch = Callable[[str, str, str], tuple[int, str | None, str]]


def visitor(view: View, contender: Contender, fetch: Fetch) -> Visitor:
    """Begin a session, and look at the form if the view has one."""
    if not contender.stateful:
        return Visitor()
    cookie = fetch("/login", "", "")[1] or BOGUS
    if view.form is None:
        return Visitor(cookie)
    _, renewed, page = fetch(view.form, cookie, "")
    found = _TOKEN.search(page)
    if found is None:
        raise RuntimeError(f"the form of {contender.name} has no token")
    return Visitor(renewed or cookie, found[1])


def check(view: View, contender: Contender, who: Visitor, fetch: Fetch) -> dict[str, str]:
    """Return the body of each kind of request, without what differs by visitor.

    :raises RuntimeError: when a response has another status than expected.
    """
    bodies, cookie = {}, who.cookie
    for kind, ask in view.kinds.items():
        form = f"{ask.form}&csrf_token={who.token}" if ask.form else ""
        status, renewed, body = fetch(ask.path, cookie, form)
        if status != ask.status:
            raise RuntimeError(f"{contender.name}: {kind} was answered with {status} instead of {ask.status}")
        cookie = renewed or cookie  # a session in a cookie changes with it
        if contender.stateful or kind not in view.stateful:
            bodies[kind] = _TOKEN.sub("", body)
    return bodies


def compare(bodies: dict[str, dict[str, str]]) -> None:
    """Raise an error unless all contenders send the same bodies.

    :param bodies: those of :func:`check`, by contender.
    """
    for name, kinds in bodies.items():
        for other, theirs in bodies.items():
            differing = [kind for kind in kinds.keys() & theirs.keys() if kinds[kind] != theirs[kind]]
            if differing:
                raise RuntimeError(f"{name} and {other} send different pages: {', '.join(differing)}")
