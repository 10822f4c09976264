"""The session cookie: reading the id out of a request, and setting and deleting it on a response."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from secrets import token_urlsafe
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from itsdangerous import BadSignature, Signer

from .caching import is_public, make_private, may_be_shared
from .errors import ConfigurationError
from .flasksession import makes_usual_ids
from .trace import this_place

logger = logging.getLogger("lazysession")

#: The longest session id that is looked up, unless the interface itself makes longer ones.
LONGEST_ID = 128
_URLSAFE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PARSED, _KEPT_IN = Request.cookies, Request.dict_storage_class
#: A header as browsers send it: no quotes, no spaces but those between cookies, nothing beyond ASCII.
_PLAIN = re.compile(r"[!#-:<-~]+(?:; [!#-:<-~]+)*|", re.ASCII)
#: Ids of other makes; some interfaces make file names of them.
_PRINTABLE = re.compile(r"(?!.*\.\.)[!-\[\]-~]+", re.ASCII)
_SALT = "flask-session"


class SessionIds:
    """Session ids as the wrapped interface makes them, and the store keys that it makes of them.

    :param interface: one of Flask-Session's; overriding ``_generate_sid`` or ``_get_store_id`` keeps working. A version
        of Flask-Session without them gets what those of 0.8 return.
    """

    def __init__(self, interface: SessionInterface) -> None:
        self._asked: Any = interface  # Flask-Session has no annotations
        self._shape = _URLSAFE if makes_usual_ids(interface) else _PRINTABLE
        self.length = len(self.new())
        self._longest = max(LONGEST_ID, self.length)

    def new(self) -> str:
        """Make an id that nobody has."""
        length: int = self._asked.sid_length
        generate = getattr(self._asked, "_generate_sid", None)
        return token_urlsafe(length) if generate is None else str(generate(length))

    def key(self, sid: str) -> str:
        """Answer the store key of an id."""
        make = getattr(self._asked, "_get_store_id", None)
        return f"{self._asked.key_prefix}{sid}" if make is None else str(make(sid))

    def may_be(self, value: str) -> bool:
        """Tell whether a client's value has the shape of an id: only such a value is looked up."""
        return len(value) <= self._longest and self._shape.fullmatch(value) is not None

    def may_be_foreign(self, sid: str) -> bool:
        """Return whether the key of an id may be another program's: it has no prefix, and is not as long as our ids.

        Example: with SESSION_KEY_PREFIX = "", the cookie ``celery`` names Celery's queue. What is stored there must be
        decoded before anything is done to it, as for an id from before SESSION_ID_LENGTH was changed.
        """
        return len(sid) != self.length and self.key(sid) == sid


class SessionCookies:
    """The session cookie of one app, with the attributes that the wrapped interface answers.

    :param interface: the wrapped interface; its ``get_cookie_*`` methods are asked, so overriding one keeps working.
    :param signed: the id is signed (SESSION_USE_SIGNER), with SECRET_KEY or one of SECRET_KEY_FALLBACKS.
    """

    def __init__(self, interface: SessionInterface, ids: SessionIds, *, signed: bool) -> None:
        self._interface = interface
        self._ids = ids
        self._signed = signed
        self._made_private: set[str] = set()

    def sent(self, app: Flask, request: Request) -> bool:
        """Tell whether the client sent a session cookie, of whatever shape."""
        return bool(cookie_value(request, self._interface.get_cookie_name(app)))

    def read(self, app: Flask, request: Request) -> str | None:
        """Answer the session id that the client sent, or None when there is none of the right shape and signature."""
        value = cookie_value(request, self._interface.get_cookie_name(app))
        if value and self._signed:
            value = self._unsign(app, value)
        return value if value and self._ids.may_be(value) else None

    def set(self, app: Flask, session: SessionMixin, sid: str, response: Response, *, renewal: bool) -> None:
        """Send the cookie; a mere renewal is left off a response that is for everybody.

        The cookie turns a response private that shared caches may keep: there it would hand one visitor's session to
        the next.
        """
        if renewal and is_public(response):
            return
        if may_be_shared(response):
            self._make_private(response)
        value = self._signer(app).sign(sid).decode() if self._signed else sid
        expires = self._expires(app, session)
        response.set_cookie(self._interface.get_cookie_name(app), value, expires=expires, **self._attributes(app))

    def delete(self, app: Flask, response: Response) -> None:
        """Delete the cookie, with the same attributes as it was set with: browsers ignore a delete without them."""
        if may_be_shared(response):
            self._make_private(response)
        response.delete_cookie(self._interface.get_cookie_name(app), **self._attributes(app))

    def _attributes(self, app: Flask) -> dict[str, Any]:
        asked = self._interface
        attributes: dict[str, Any] = {
            "domain": asked.get_cookie_domain(app),
            "path": asked.get_cookie_path(app),
            "secure": asked.get_cookie_secure(app),
            "httponly": asked.get_cookie_httponly(app),
        }
        if getattr(asked, "has_same_site_capability", True):
            attributes["samesite"] = asked.get_cookie_samesite(app)
        partitioned = getattr(asked, "get_cookie_partitioned", None)  # Flask 3.1 and later
        if partitioned is not None and partitioned(app):
            attributes["partitioned"] = True
        return attributes

    def _expires(self, app: Flask, session: SessionMixin) -> datetime | None:
        return self._interface.get_expiration_time(app, session)

    def _make_private(self, response: Response) -> None:
        make_private(response)
        place = this_place()
        if place not in self._made_private:
            self._made_private.add(place)
            logger.warning(
                "Shared caches may keep the response of %s, and it has to carry the session cookie: it is sent as "
                "private. Let it say so itself. Said once for each endpoint.",
                place,
            )

    def _unsign(self, app: Flask, value: str) -> str | None:
        try:
            return self._signer(app).unsign(value).decode()
        except (BadSignature, UnicodeError):
            return None

    def _signer(self, app: Flask) -> Signer:
        if not app.secret_key:
            raise ConfigurationError("SECRET_KEY is not set, and SESSION_USE_SIGNER signs with it: set SECRET_KEY.")
        older = app.config.get("SECRET_KEY_FALLBACKS") or ()
        keys: list[Any] = [older] if isinstance(older, (str, bytes)) else [*older]
        keys.append(app.secret_key)  # the last one signs
        return Signer(keys, salt=_SALT, key_derivation="hmac")


def cookie_value(request: Request, name: str) -> str | None:
    """Answer the value of one cookie, as ``request.cookies.get`` does, which parses all of them.

    That takes a tenth of a request that reads its session, and a header of plain cookies needs no parsing.
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
    """Tell whether requests take their cookies from where Werkzeug does; those of an app may not."""
    if request_class is Request:
        return True
    return request_class.cookies is _PARSED and request_class.dict_storage_class is _KEPT_IN
