"""Sentences that say how a figure of the table adds up. All numbers come from the run; none is typed."""

from __future__ import annotations

import re

from counting import StoreCounts
from measuring import Tally

TIMES = "\N{MULTIPLICATION SIGN}"


def total_of(total: int, *parts: tuple[int, str]) -> str:
    """Return a sum as text: each part is its number and what to say; what the parts leave out is named ``others``."""
    rest = total - sum(number for number, _ in parts)
    return " + ".join(text for number, text in [*parts, (rest, plural(rest, "other"))] if number) or "none"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: ``"1 page that showed"``, ``"2 pages that showed"``."""
    head, *tail = re.split(r"(?= with | that )", noun, maxsplit=1)
    ending = "" if number == 1 else "es" if head.endswith("sh") else "s"
    return f"{number:,} {head}{ending}{''.join(tail)}"


def of(number: int, noun: str) -> tuple[int, str]:
    """Return a part of a sum: so many of one thing."""
    return number, plural(number, noun)


def requests(tally: Tally) -> str:
    """Say how many page views and forms the requests belong to."""
    forms = tally.count(lambda answer: answer.role == "form")
    each = round((tally.requests - forms) / tally.views)
    pages = each * tally.views, f"{plural(tally.views, 'page view')} {TIMES} {each} requests"
    return total_of(tally.requests, pages, of(forms, "posted form"))


def round_trips(counts: StoreCounts) -> str:
    """Say which kinds of round trips there were."""
    kinds = (of(getattr(counts, kind), kind) for kind in ("read", "write", "refresh", "delete", "other"))
    return total_of(counts.round_trips, *kinds)


def for_each_cookie(number: int, tally: Tally, when: str = "") -> str:
    """Say how often each request with a session cookie did something: what Flask-Session's figures depend on."""
    carrying = tally.count(lambda answer: answer.cookie_sent)
    each = number // (carrying or 1)
    text = f"{each} {TIMES} {plural(carrying, 'request with a session cookie')}{when}"
    return total_of(number, (each * carrying, text))


def of_page_views(total: int, tally: Tally, *, with_cookie: bool, unread: int = 0) -> str:
    """Say which requests used the session: LazySession adds ``Vary: Cookie`` to their responses, and to no others.

    :param unread: how many forms sign out, which deletes the session and does not read it.
    """
    used = [answer for answer in tally.answers if answer.varies_by_cookie and (answer.cookie_sent or not with_cookie)]
    views = sum(answer.role == "page" for answer in used)
    forms = sum(answer.role == "form" for answer in used)
    each = (len(used) - forms) // (views or 1)
    which = ", ".join(["the page", *sorted({answer.path for answer in used if answer.role == "part"})])
    noun = "page view with a session cookie" if with_cookie else "page view"
    text = f"{plural(views, noun)} {TIMES} {each} requests that use the session ({which})"
    form = "form with a session cookie" if with_cookie else "form"
    return total_of(total, (each * views, text), of(forms - unread, f"{form} (not to sign out)" if unread else form))


def changes(total: int, tally: Tally, *, deletes: int) -> str:
    """Say which requests changed the session, without those that deleted it: each change sets the cookie anew."""
    forms, pages = (tally.count(lambda a, role=role: a.cookies_set and a.role == role) for role in ("form", "page"))
    return total_of(total, of(forms - deletes, "form"), of(pages, "page that showed and removed a message"))
