"""Sentences that say how a figure adds up, from the records of the run: what each request sent and received."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from browser import Answer
from counting import StoreCounts
from measuring import Tally

Noun = Callable[[Answer], str]
TIMES = "\N{MULTIPLICATION SIGN}"
_FORMS = {"/login": "sign-in", "/logout": "sign-out", "/cart/add": "form that filled the cart"}


def total_of(total: float, *parts: tuple[float, str]) -> str:
    """Return a sum as text: each part is its number and what to say; what the parts leave out is named ``others``."""
    rest = total - sum(number for number, _ in parts)
    return " + ".join(text for number, text in [*parts, (rest, plural(rest, "other"))] if number) or "none"


def plural(number: float, noun: str) -> str:
    """Return a number with its noun: ``"1 page that showed"``, ``"2 pages that showed"``."""
    head, *tail = re.split(r"(?= with | without | that | by )", noun, maxsplit=1)
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


def add_up(total: float, answers: list[Answer], number: Callable[[Answer], int], noun: Noun) -> str:
    """Say which requests a total comes from: for 16, ``4 sign-ins + 2 x 6 other requests``.

    The total was counted by itself. Each request counts once, with its own number and under its own noun.
    """
    groups = Counter((number(answer), noun(answer)) for answer in answers)
    parts = ((each * times, (f"{each} {TIMES} " if each > 1 else "") + plural(times, what))
             for (each, what), times in sorted(groups.items(), key=lambda group: group[1]))  # fmt: skip
    return total_of(total, *parts)


def by_cookie(answer: Answer) -> str:
    """Return the noun of a request with Flask-Session, which handles all requests with a session cookie alike."""
    if answer.role == "form" and answer.path in {"/login", "/logout"}:
        return _FORMS[answer.path]
    return f"other request {'with' if answer.cookie_sent else 'without'} a session cookie"


def by_use(answer: Answer) -> str:
    """Return the noun of a request with LazySession, where it matters what a request does."""
    nouns = {"form": _FORMS.get(answer.path, "form"), "page": "page", "part": "request by scripts"}
    return nouns[answer.role]


def by_refresh(answer: Answer) -> str:
    """Return the noun of a request that moved the expiry of its session."""
    what = "changed" if answer.store.write else "did not change"
    return f"request with a session cookie that {what} the session"


def by_change(answer: Answer) -> str:
    """Return the noun of a request that changed the session: a page does so by showing a message."""
    return "page that showed and removed a message" if answer.role == "page" else by_use(answer)
