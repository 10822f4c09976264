"""What a visitor of the shop does: ten page views, from the first page to signing out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from accounts import DEMO_NAME, DEMO_PASSWORD
from browser import Browser, Visit

#: The median desktop page: Web Almanac 2024, chapter "Page Weight". 24 of them are scripts, 18 images.
REQUESTS_OF_A_VIEW = 71


@dataclass(frozen=True)
class Step:
    """One page view; with fields, the page view that follows a posted form."""

    title: str
    path: str
    fields: dict[str, str] | None = field(default=None, hash=False)

    def take(self, browser: Browser) -> Visit:
        """View the page, or post the form, in a browser."""
        return browser.open(self.path) if self.fields is None else browser.submit(self.path, self.fields)


JOURNEY: tuple[Step, ...] = (
    Step("Home page, no cookie", "/"),
    Step("A tea, no cookie", "/tea/moss-garden"),
    Step("Sign-in page, no cookie", "/login"),
    Step("Signs in, back home", "/login", {"name": DEMO_NAME, "password": DEMO_PASSWORD}),
    Step("Looks at a tea", "/tea/rainy-tuesday"),
    Step("Puts it in the cart", "/cart/add", {"tea": "rainy-tuesday", "tins": "2"}),
    Step("Looks at another tea", "/tea/afternoon-off"),
    Step("Puts it in as well", "/cart/add", {"tea": "afternoon-off", "tins": "1"}),
    Step("Home page again", "/"),
    Step("Signs out, back home", "/logout", {}),
)


def journeys(views: int) -> Iterator[tuple[Step, ...]]:
    """Divide page views among visitors; the last visitor may do only the first steps."""
    while views > 0:
        yield JOURNEY[:views]
        views -= len(JOURNEY)
