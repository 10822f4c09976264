"""The session cookie: reading the id out of a request, and setting and deleting it on a response."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from itsdangerous import BadSignature, Signer
from werkzeug.datastructures import Headers
from werkzeug.http import http_date

from .errors import ConfigurationError
from .logs import Once, this_place
from .pages import Page, see

_PARSED, _KEPT_IN = Request.cookies, Request.dict_storage_class
#: A header as browsers send it: no quotes, no spaces but those between cookies, nothing beyond ASCII.
_PLAIN = re.compile(r"[!#-:<-~]+(?:; [!#-:<-~]+)*|", re.ASCII)
_SALT = "flask-session"


class SessionCookies:
    """The session cookie of one app, with the attributes of the wrapped interface.

    :param interface: the wrapped interface; its ``get_cookie_*`` methods are called, so overriding one keeps working.
    :param may_be_id: returns whether a client's value has the shape of an id.
    :param signed: the id is signed (SESSION_USE_SIGNER), with SECRET_KEY or one of SECRET_KEY_FALLBACKS.
    """

    def __init__(self, interface: SessionInterface, may_be_id: Callable[[str], bool], *, signed: bool) -> None:
        self._interface = interface
        self._may_be_id = may_be_id
        self._signed = signed
        self._last_date = datetime.min, ""
        self._private = PrivateResponses()

    def sent(self, app: Flask, request: Request) -> bool:
        """Return whether the client sent a session cookie, well-formed or not."""
        return bool(cookie_value(request, self._interface.get_cookie_name(app)))

    def read(self, app: Flask, request: Request) -> str | None:
        """Return the session id that the client sent, or None if there is none that is well-formed and signed."""
        value = cookie_value(request, self._interface.get_cookie_name(app))
        if value and self._signed:
            value = self._unsign(app, value)
        return value if value and self._may_be_id(value) else None

    def set(self, app: Flask, session: SessionMixin, sid: str, response: Response, *, renewal: bool) -> None:
        """Set the cookie; one that only renews its expiry is not set on a response for shared caches.

        A response that shared caches may store is made private: they would send the cookie to other visitors.
        """
        if renewal and is_public(response):
            return
        self._private.before_cookie(response)
        value = self._signer(app).sign(sid).decode() if self._signed else sid
        expires = self._expires(app, session)
        response.set_cookie(self._interface.get_cookie_name(app), value, expires=expires, **self._attributes(app))

    def delete(self, app: Flask, response: Response) -> None:
        """Delete the cookie, with the same attributes as it was set with: browsers ignore a delete without them."""
        self._private.before_cookie(response)
        response.delete_cookie(self._interface.get_cookie_name(app), **self._attributes(app))

    def _attributes(self, app: Flask) -> dict[str, Any]:
        interface = self._interface
        attributes: dict[str, Any] = {
            "domain": interface.get_cookie_domain(app),
            "path": interface.get_cookie_path(app),
            "secure": interface.get_cookie_secure(app),
            "httponly": interface.get_cookie_httponly(app),
        }
        if getattr(interface, "has_same_site_capability", True):
            attributes["samesite"] = interface.get_cookie_samesite(app)
        partitioned = getattr(interface, "get_cookie_partitioned", None)  # Flask 3.1 and later
        if partitioned is not None and partitioned(app):
            attributes["partitioned"] = True
        return attributes

    def _expires(self, app: Flask, session: SessionMixin) -> Any:
        """Return the date for ``Expires``; within one second it is the same for all, and writing it takes a while."""
        expires: Any = self._interface.get_expiration_time(app, session)
        if not isinstance(expires, datetime):  # None, or what an override returns that Werkzeug takes: a number, a text
            return expires
        second, last = expires.replace(microsecond=0), self._last_date
        if second != last[0]:
            self._last_date = last = second, http_date(second)
        return last[1]

    def _unsign(self, app: Flask, value: str) -> str | None:
        try:
            return self._signer(app).unsign(value).decode()
        except (BadSignature, UnicodeError):
            return None

    def _signer(self, app: Flask) -> Signer:
        if not app.secret_key:
            raise ConfigurationError(
                "SECRET_KEY is not set, and SESSION_USE_SIGNER signs with it: set SECRET_KEY. "
                f"{see(Page.NO_SECRET_KEY)}"
            )
        older = app.config.get("SECRET_KEY_FALLBACKS") or ()
        keys: list[Any] = [older] if isinstance(older, (str, bytes)) else [*older]
        keys.append(app.secret_key)  # the last one signs
        return Signer(keys, salt=_SALT, key_derivation="hmac")


class PrivateResponses:
    """Makes responses private that set the session cookie and that shared caches may store."""

    def __init__(self) -> None:
        self._once = Once()

    def before_cookie(self, response: Response) -> None:
        """Make a response private that is about to get the cookie; logged once per endpoint."""
        if not may_be_shared(response):
            return
        make_private(response)
        self._once.warn(
            "Shared caches may store the response of %s, and it sets the session cookie: it is sent as private. "
            "Set Cache-Control: private in the view.",
            this_place(),
            page=Page.NOT_CACHED,
        )


def cookie_value(request: Request, name: str) -> str | None:
    """Return the value of one cookie, as ``request.cookies.get`` does.

    That parses all cookies, a tenth of the time of a request that reads its session. Plain cookies need no parsing.
    """
    header = request.environ.get("HTTP_COOKIE", "")
    if "cookies" in request.__dict__ or not _is_usual(type(request)) or not _PLAIN.fullmatch(header):
        return request.cookies.get(name)
    for part in header.split("; "):
        key, _, value = part.partition("=")
        if key == name:
            return str(value)
    return None


def _is_usual(request_class: type[Request]) -> bool:
    """Return whether a request class parses cookies as Werkzeug does; an app's own class may not."""
    if request_class is Request:
        return True
    return request_class.cookies is _PARSED and request_class.dict_storage_class is _KEPT_IN


_DIRECTIVE = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')
_FOR_CDNS = ("cdn-cache-control", "surrogate-control")
_ABOUT_CACHES = ("cache-control", "surrogate-control", "expires")
#: Directives that allow a response to be stored for some time (RFC 9111, RFC 5861).
_AGES = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})


def vary_by_cookie(response: Response) -> None:
    """Tell caches that the response depends on the client's cookies."""
    if response.headers.getlist("Vary"):
        response.vary.add("Cookie")
    else:  # faster than the set, which parses and writes the header
        response.headers.add("Vary", "Cookie")


def varies_by_cookie(headers: Headers) -> bool:
    """Return whether ``Vary`` says that a response depends on the client's cookies, or on anything (``*``)."""
    names = ",".join(headers.getlist("Vary")).split(",")
    return any(name.strip().lower() in {"cookie", "*"} for name in names)


def is_public(response: Response) -> bool:
    """Return whether headers of a response allow shared caches to store it, or those of a CDN (RFC 9213)."""
    if not {"public", "s-maxage"}.isdisjoint(map(_name, _directives(response, "Cache-Control"))):
        return True
    return any(_may_keep(_directives(response, header)) for header in _headers_for_cdns(response))


def may_be_shared(response: Response) -> bool:
    """Return whether shared caches may store a response: a maximum age alone allows that (RFC 9111, 3 and 4.2.1)."""
    if not any(name.lower().endswith(_ABOUT_CACHES) for name, _ in response.headers):  # fast: nearly all have none
        return False
    if is_public(response):
        return True
    directives = _directives(response, "Cache-Control")
    if _forbids(directives):
        return False
    if any(_name(each) in _AGES for each in directives):
        return _gives_an_age(directives)
    expires = response.expires
    return expires is not None and expires.timestamp() > time.time()


def make_private(response: Response) -> None:
    """Make a response private to one visitor; its other directives stay."""
    kept = [
        each for each in _directives(response, "Cache-Control") if _name(each) not in {"public", "s-maxage", "private"}
    ]
    response.headers["Cache-Control"] = ", ".join([*kept, "private"])
    for header in _headers_for_cdns(response):
        del response.headers[header]


def forbid_storing(response: Response) -> None:
    """Forbid all caches to store a response."""
    for header in ["Expires", "Age", "Pragma", "X-Accel-Expires", *_headers_for_cdns(response)]:
        response.headers.pop(header, None)
    response.headers["Cache-Control"] = "no-store"


def _headers_for_cdns(response: Response) -> list[str]:
    """Return the names of headers that CDNs obey before Cache-Control."""
    return [name for name, _ in response.headers if name.lower().endswith(_FOR_CDNS)]


def _directives(response: Response, header: str) -> list[str]:
    value = ",".join(response.headers.getlist(header))
    return [each.strip() for each in _DIRECTIVE.findall(value) if each.strip()]


def _may_keep(directives: list[str]) -> bool:
    return not _forbids(directives) and (_gives_an_age(directives) or "public" in map(_name, directives))


def _forbids(directives: list[str]) -> bool:
    # With a value, they apply to single fields.
    return any(_name(each) in {"private", "no-store", "no-cache"} and not _value(each) for each in directives)


def _gives_an_age(directives: list[str]) -> bool:
    return any(_name(each) in _AGES and _value(each) != "0" for each in directives)


def _name(directive: str) -> str:
    return directive.partition("=")[0].strip().lower()


def _value(directive: str) -> str:
    return directive.partition("=")[2].strip(' "')
