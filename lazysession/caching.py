"""What caches between app and browser may do with a response that depends on a session, or carries its cookie."""

from __future__ import annotations

import re
import time

from flask import Response

_DIRECTIVE = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')


def vary_by_cookie(response: Response) -> None:
    """Tell caches that the response depends on the client's cookies."""
    if response.headers.getlist("Vary"):
        response.vary.add("Cookie")
    else:  # what most requests pay for, without the set that parses and writes the header
        response.headers.add("Vary", "Cookie")


def is_public(response: Response) -> bool:
    """Tell whether a response says that caches for many people may keep it."""
    return not {"public", "s-maxage"}.isdisjoint(map(_name, _cache_directives(response)))


def may_be_shared(response: Response) -> bool:
    """Tell whether caches for many people may keep a response: also by an age alone (RFC 9111, 3 and 4.2.1)."""
    if "Cache-Control" not in response.headers and "Expires" not in response.headers:
        return False
    if is_public(response):
        return True
    said = {_name(each): each.partition("=")[2].strip(' "') for each in _cache_directives(response)}
    if any(said.get(word) == "" for word in ("private", "no-store", "no-cache")):  # not of some headers alone
        return False
    expires = response.expires
    return said["max-age"] != "0" if "max-age" in said else expires is not None and expires.timestamp() > time.time()


def make_private(response: Response) -> None:
    """Let a response say that it is for one visitor; what else it says of caching stays."""
    kept = [each for each in _cache_directives(response) if _name(each) not in {"public", "s-maxage", "private"}]
    response.headers["Cache-Control"] = ", ".join([*kept, "private"])


def _cache_directives(response: Response) -> list[str]:
    said = ",".join(response.headers.getlist("Cache-Control"))
    return [each.strip() for each in _DIRECTIVE.findall(said) if each.strip()]


def _name(directive: str) -> str:
    return directive.partition("=")[0].strip().lower()
