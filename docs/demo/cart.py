"""The cart: a plain dict of quantities inside the session, changed in place as shops do."""

from __future__ import annotations

from dataclasses import dataclass

from catalog import BY_SLUG, FREE_DELIVERY_PENCE, Tea, pounds
from flask import session

#: The most tins of one tea in a cart.
MOST_TINS = 12


@dataclass(frozen=True)
class Line:
    """One line of the cart."""

    tea: Tea
    quantity: int

    @property
    def pence(self) -> int:
        """The price of this line."""
        return self.tea.pence * self.quantity


@dataclass(frozen=True)
class Cart:
    """The cart: its lines and their totals."""

    lines: tuple[Line, ...]

    @property
    def count(self) -> int:
        """The number of tins."""
        return sum(line.quantity for line in self.lines)

    @property
    def pence(self) -> int:
        """The price of all lines."""
        return sum(line.pence for line in self.lines)

    @property
    def total(self) -> str:
        """The price of all lines, as it is shown."""
        return pounds(self.pence)

    @property
    def until_free_delivery(self) -> str:
        """The amount that is missing for free delivery; empty if delivery is free."""
        missing = FREE_DELIVERY_PENCE - self.pence
        return pounds(missing) if missing > 0 else ""


def current() -> Cart:
    """Return the cart of this visitor. This uses the session."""
    quantities: dict[str, int] = session.get("cart", {})
    return Cart(tuple(Line(BY_SLUG[slug], n) for slug, n in quantities.items() if slug in BY_SLUG))


def put(tea: Tea, tins: int) -> None:
    """Add tins of a tea. This changes a dict inside the session, without setting ``session.modified``."""
    quantities = session.setdefault("cart", {})
    quantities[tea.slug] = max(1, min(MOST_TINS, quantities.get(tea.slug, 0) + tins))


def take_out(tea: Tea) -> None:
    """Remove a tea from the cart."""
    session.get("cart", {}).pop(tea.slug, None)
