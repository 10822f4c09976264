"""The JSON that the shop's scripts fetch. Two of the twelve views use the session; ten do not."""

from __future__ import annotations

from datetime import date
from typing import Any

import cart
from catalog import BY_SLUG, FREE_DELIVERY_PENCE, REVIEWS, SEASONS, TEAS, WEATHER
from flask import Blueprint
from flask_login import current_user

api = Blueprint("api", __name__, url_prefix="/api")

Answer = dict[str, Any]


@api.get("/cart")
def cart_badge() -> Answer:
    """Return how full the cart is. Uses the session."""
    now = cart.current()
    return {"count": now.count, "pence": now.pence, "total": now.total}


@api.get("/me")
def me() -> Answer:
    """Return who is signed in. Uses the session, through Flask-Login."""
    return {"name": current_user.first_name if current_user.is_authenticated else None}


@api.get("/stock")
def stock() -> Answer:
    """Return how many tins of each tea are left."""
    return {tea.slug: tea.stock for tea in TEAS}


@api.get("/brewing")
def brewing() -> Answer:
    """Return how long and how hot each tea is brewed."""
    return {tea.slug: {"name": tea.name, "minutes": tea.minutes, "celsius": tea.celsius} for tea in TEAS}


@api.get("/suggestions")
def suggestions() -> Answer:
    """Return the words that the search box suggests."""
    return {"words": sorted({tea.kind for tea in TEAS} | {tea.name for tea in TEAS})}


@api.get("/offers")
def offers() -> Answer:
    """Return the line at the top of every page."""
    return {"text": "Free delivery by bicycle on orders of £30 and more", "code": None}


@api.get("/shipping")
def shipping() -> Answer:
    """Return from which amount delivery is free, and when the bicycle leaves."""
    return {"freeFromPence": FREE_DELIVERY_PENCE, "leavesAtHour": 15}


@api.get("/hours")
def hours() -> Answer:
    """Return when the shop is open, as pairs of hours from Monday on."""
    return {"days": [[10, 17]] * 5 + [[10, 14], None]}


@api.get("/weather")
def weather() -> Answer:
    """Return today's weather, and a tea for it."""
    sky, slug = WEATHER[date.today().toordinal() % len(WEATHER)]
    return {"sky": sky, "slug": slug, "tea": BY_SLUG[slug].name}


@api.get("/reviews")
def reviews() -> Answer:
    """Return reviews by customers."""
    return {"reviews": [{"text": text, "by": by} for text, by in REVIEWS]}


@api.get("/season")
def season() -> Answer:
    """Return the season and a line about it."""
    name, note = SEASONS[date.today().month % 12 // 3]
    return {"name": name, "note": note}


@api.get("/tea-of-the-day")
def tea_of_the_day() -> Answer:
    """Return a different tea each day."""
    tea = TEAS[date.today().toordinal() % len(TEAS)]
    return {"slug": tea.slug, "name": tea.name, "price": tea.price, "kind": tea.kind}
