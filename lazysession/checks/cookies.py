"""Problems of the session cookie's attributes: what browsers refuse, and what they let other sites and hosts do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from flask import Flask
from flask.sessions import SessionInterface

from lazysession.backend import Problem


class _Cookie(NamedTuple):
    """The session cookie, with the attributes that the session interface returns."""

    name: str
    domain: str | None
    path: str
    secure: bool
    httponly: bool
    samesite: str | None
    partitioned: bool

    @classmethod
    def of(cls, app: Flask, interface: SessionInterface) -> _Cookie:
        """Return the attributes inside a request, as an interface may use it."""
        with app.test_request_context("/"):
            partitioned = getattr(interface, "get_cookie_partitioned", None)  # Flask 3.1 and later
            return cls(
                interface.get_cookie_name(app),
                interface.get_cookie_domain(app),
                interface.get_cookie_path(app),
                bool(interface.get_cookie_secure(app)),
                bool(interface.get_cookie_httponly(app)),
                interface.get_cookie_samesite(app),
                partitioned is not None and bool(partitioned(app)),
            )


def find_cookie_problems(app: Flask, interface: SessionInterface) -> Iterator[Problem]:
    """Return the problems of the session cookie of an app.

    What depends on how the app is served (HTTPS, other sites) is left out in debug mode.
    """
    cookie = _Cookie.of(app, interface)
    yield from _problems_of_transport(app, cookie)
    yield from _problems_of_scripts_and_sites(app, cookie)
    yield from _problems_of_prefixes(app, cookie)
    yield from _problems_of_reach(app, cookie)


def _problems_of_transport(app: Flask, cookie: _Cookie) -> Iterator[Problem]:
    # werkzeug sends Partitioned cookies as Secure ones
    if cookie.secure or cookie.partitioned or app.debug:
        return
    https = app.config["PREFERRED_URL_SCHEME"] == "https"
    served = "though PREFERRED_URL_SCHEME is https" if https else "and the app is not in debug mode"
    yield Problem(
        "error" if https else "warning",
        f"SESSION_COOKIE_SECURE is off, {served}: a browser also sends the cookie over plain HTTP, unencrypted.",
        "Set SESSION_COOKIE_SECURE = True where the app is served over HTTPS.",
        "cookie-secure",
    )


def _problems_of_scripts_and_sites(app: Flask, cookie: _Cookie) -> Iterator[Problem]:
    if not cookie.httponly:
        yield Problem(
            "warning",
            "SESSION_COOKIE_HTTPONLY is off: any script in a page can read the cookie and send it elsewhere.",
            "Set SESSION_COOKIE_HTTPONLY = True.",
            "cookie-httponly",
        )
    samesite = None if cookie.samesite is None else cookie.samesite.title()  # as werkzeug takes it
    if samesite is None:
        if not app.debug:
            yield Problem(
                "warning",
                "SESSION_COOKIE_SAMESITE is not set: some browsers send the cookie with forms of other sites.",
                "Set SESSION_COOKIE_SAMESITE = 'Lax'.",
                "cookie-samesite",
            )
    elif samesite not in ("Strict", "Lax", "None"):
        yield Problem(
            "error",
            f"SESSION_COOKIE_SAMESITE is {cookie.samesite!r}: every response that sets the cookie fails.",
            "Set SESSION_COOKIE_SAMESITE to 'Lax', 'Strict' or 'None'.",
            "cookie-samesite-unknown",
        )
    elif samesite == "None" and not (cookie.secure or cookie.partitioned):
        yield Problem(
            "error",
            "SESSION_COOKIE_SAMESITE is 'None' and SESSION_COOKIE_SECURE is off: browsers refuse the cookie.",
            "Set SESSION_COOKIE_SECURE = True, or SESSION_COOKIE_SAMESITE = 'Lax' where no other site shows this one.",
            "cookie-samesite-none",
        )
    if cookie.partitioned and not cookie.secure:
        yield Problem(
            "warning",
            "SESSION_COOKIE_PARTITIONED is on and SESSION_COOKIE_SECURE is off: browsers refuse such a cookie, so "
            "Secure is sent against the setting.",
            "Set SESSION_COOKIE_SECURE = True, and serve the app over HTTPS.",
            "cookie-partitioned",
        )


def _problems_of_prefixes(app: Flask, cookie: _Cookie) -> Iterator[Problem]:
    """Return what conflicts with the prefix of the name, which browsers recognize in any case of letters."""
    secure = cookie.secure or cookie.partitioned
    wrong = [] if secure else ["SESSION_COOKIE_SECURE is off"]
    prefix = next((each for each in ("__Host-", "__Secure-") if cookie.name.lower().startswith(each.lower())), None)
    if prefix == "__Host-":
        wrong += [f"SESSION_COOKIE_DOMAIN is {cookie.domain!r}"] if cookie.domain else []
        wrong += [f"the path is {cookie.path!r}"] if cookie.path != "/" else []
        if wrong:
            yield Problem(
                "error",
                f"SESSION_COOKIE_NAME is {cookie.name!r} and {', '.join(wrong)}: browsers refuse the cookie.",
                "Set SESSION_COOKIE_SECURE = True, SESSION_COOKIE_DOMAIN = None, SESSION_COOKIE_PATH = '/'.",
                "cookie-host-prefix",
            )
    elif prefix == "__Secure-" and wrong:
        yield Problem(
            "error",
            f"SESSION_COOKIE_NAME is {cookie.name!r} and {wrong[0]}: browsers refuse the cookie.",
            "Set SESSION_COOKIE_SECURE = True.",
            "cookie-secure-prefix",
        )
    elif prefix is None and secure and not cookie.domain and cookie.path == "/" and not app.debug:
        yield Problem(
            "info",
            f"SESSION_COOKIE_NAME is {cookie.name!r}: another host of the same domain can plant such a cookie.",
            f"SESSION_COOKIE_NAME = '__Host-{cookie.name}' forbids it to browsers. A new name logs all visitors out.",
            "cookie-host-prefix-unused",
        )


def _problems_of_reach(app: Flask, cookie: _Cookie) -> Iterator[Problem]:
    root = str(app.config["APPLICATION_ROOT"] or "/")
    if root != "/" and not f"{root.rstrip('/')}/".startswith(f"{cookie.path.rstrip('/')}/"):
        yield Problem(
            "warning",
            f"SESSION_COOKIE_PATH is {cookie.path!r} and APPLICATION_ROOT is {root!r}: pages of the app outside of "
            "that path have no session.",
            f"Set SESSION_COOKIE_PATH = {root!r}, or leave it out.",
            "cookie-path",
        )
    domain = (cookie.domain or "").lstrip(".").lower()
    server = str(app.config["SERVER_NAME"] or "").partition(":")[0].lower()
    if domain and server and not f".{server}".endswith(f".{domain}"):
        yield Problem(
            "warning",
            f"SESSION_COOKIE_DOMAIN is {cookie.domain!r} and SERVER_NAME is {server!r}: browsers refuse a cookie for a "
            "domain that the host is not in.",
            "Leave SESSION_COOKIE_DOMAIN out, or name the host's own domain.",
            "cookie-domain",
        )
    elif domain and not app.debug:
        yield Problem(
            "info",
            f"SESSION_COOKIE_DOMAIN is {cookie.domain!r}: every host below that domain gets the cookie.",
            "Leave it out, unless they share their sessions.",
            "cookie-domain-wide",
        )
