"""What caches between app and browser may do with a response that depends on a session, or carries its cookie."""

from __future__ import annotations

import re
import time

from flask import Response
from werkzeug.datastructures import Headers

_DIRECTIVE = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')
_FOR_NETWORKS = ("cdn-cache-control", "surrogate-control")
#: How long a response may be kept; the stale ones also after its age (RFC 5861).
_AGES = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})


def vary_by_cookie(response: Response) -> None:
    """Tell caches that the response depends on the client's cookies."""
    if response.headers.getlist("Vary"):
        response.vary.add("Cookie")
    else:  # what most requests pay for, without the set that parses and writes the header
        response.headers.add("Vary", "Cookie")


def varies_by_cookie(headers: Headers) -> bool:
    """Return whether caches are told that a response depends on the client's cookies, or on anything (``*``)."""
    names = ",".join(headers.getlist("Vary")).split(",")
    return any(name.strip().lower() in {"cookie", "*"} for name in names)


def is_public(response: Response) -> bool:
    """Tell whether a response says that caches for many people may keep it, or those of a network (RFC 9213)."""
    if not {"public", "s-maxage"}.isdisjoint(map(_name, _directives(response, "Cache-Control"))):
        return True
    return any(_may_keep(_directives(response, header)) for header in _headers_for_networks(response))


def may_be_shared(response: Response) -> bool:
    """Tell whether caches for many people may keep a response: also by an age alone (RFC 9111, 3 and 4.2.1)."""
    if is_public(response):
        return True
    said = _directives(response, "Cache-Control")
    if _forbids(said):
        return False
    if any(_name(each) in _AGES for each in said):
        return _gives_an_age(said)
    expires = response.expires
    return expires is not None and expires.timestamp() > time.time()


def make_private(response: Response) -> None:
    """Let a response say that it is for one visitor; what else it says of caching stays."""
    kept = [
        each for each in _directives(response, "Cache-Control") if _name(each) not in {"public", "s-maxage", "private"}
    ]
    response.headers["Cache-Control"] = ", ".join([*kept, "private"])
    for header in _headers_for_networks(response):
        del response.headers[header]


def forbid_storing(response: Response) -> None:
    """Tell every cache to keep no copy of a response."""
    for header in ["Expires", "Age", "Pragma", "X-Accel-Expires", *_headers_for_networks(response)]:
        response.headers.pop(header, None)
    response.headers["Cache-Control"] = "no-store"


def _headers_for_networks(response: Response) -> list[str]:
    """Answer the names of headers that networks of caches obey before Cache-Control."""
    return [name for name, _ in response.headers if name.lower().endswith(_FOR_NETWORKS)]


def _directives(response: Response, header: str) -> list[str]:
    said = ",".join(response.headers.getlist(header))
    return [each.strip() for each in _DIRECTIVE.findall(said) if each.strip()]


def _may_keep(said: list[str]) -> bool:
    return not _forbids(said) and (_gives_an_age(said) or "public" in map(_name, said))


def _forbids(said: list[str]) -> bool:
    # With a value they are about single fields.
    return any(_name(each) in {"private", "no-store", "no-cache"} and not _value(each) for each in said)


def _gives_an_age(said: list[str]) -> bool:
    return any(_name(each) in _AGES and _value(each) != "0" for each in said)


def _name(directive: str) -> str:
    return directive.partition("=")[0].strip().lower()


def _value(directive: str) -> str:
    return directive.partition("=")[2].strip(' "')
