"""The twelve teas of The Lazy Kettle, and the other constant texts of the shop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tea:
    """One tea: the data for a card, a product page and the JSON API."""

    slug: str
    name: str
    kind: str
    pence: int
    minutes: int
    celsius: int
    stock: int
    notes: str

    @property
    def price(self) -> str:
        """The price as it is shown."""
        return pounds(self.pence)


def pounds(pence: int) -> str:
    """Return an amount of pence as text in pounds."""
    return f"£{pence / 100:.2f}"


TEAS: tuple[Tea, ...] = (
    Tea("slow-morning", "Slow Morning", "Black", 640, 4, 98, 34,
        "A round breakfast blend for the second alarm. Malt, toast, and no meetings before ten."),
    Tea("cloud-mountain", "Cloud Mountain", "Black", 1180, 3, 92, 12,
        "First-flush Darjeeling, picked before the mist lifts. Muscatel grapes and cool stone."),
    Tea("moss-garden", "Moss Garden", "Green", 920, 2, 75, 21,
        "Steamed sencha, grassy and sweet. Tastes the way a wet garden smells at six."),
    Tea("paper-lantern", "Paper Lantern", "Green", 860, 3, 80, 18,
        "Green tea scented with jasmine over five nights, because four were not enough."),
    Tea("afternoon-off", "Afternoon Off", "Black", 700, 4, 96, 40,
        "Earl Grey with real bergamot peel. Goes well with a canceled appointment."),
    Tea("hammock", "Hammock", "Herbal", 580, 6, 98, 27,
        "Whole chamomile heads and a little honeybush. Horizontal within the quarter hour."),
    Tea("long-weekend", "Long Weekend", "Herbal", 540, 7, 98, 31,
        "Peppermint, big leaves, nothing else. Clears the head and then leaves it empty."),
    Tea("rainy-tuesday", "Rainy Tuesday", "Smoked", 980, 4, 95, 9,
        "Lapsang souchong dried over pine. A log fire for people without a chimney."),
    Tea("idle-goddess", "Idle Goddess", "Oolong", 1340, 3, 90, 6,
        "Rolled Tieguanyin that opens over seven infusions. She is in no hurry either."),
    Tea("snow-day", "Snow Day", "White", 1560, 5, 78, 5,
        "Silver needle, buds only. So quiet that you may hear the school stay closed."),
    Tea("second-kettle", "Second Kettle", "Green", 720, 3, 85, 24,
        "Genmaicha: green leaf and toasted rice. Popcorn for a film nobody has chosen yet."),
    Tea("nightcap", "Nightcap", "Herbal", 620, 8, 98, 16,
        "Rooibos, orange peel and clove. Forgives being forgotten in the pot until morning."),
)  # fmt: skip

BY_SLUG: dict[str, Tea] = {tea.slug: tea for tea in TEAS}

REVIEWS: tuple[tuple[str, str], ...] = (
    ("Put the kettle on at nine, drank it at noon. Still good.", "Maren, Whitby"),
    ("Delivered by bicycle, at the speed of bicycle. Perfect.", "Tomasz, Leeds"),
    ("My plants look calmer and I only told them about it.", "Ines, Bath"),
)

WEATHER: tuple[tuple[str, str], ...] = (
    ("Drizzle", "rainy-tuesday"),
    ("Bright and cold", "cloud-mountain"),
    ("Fog until lunch", "moss-garden"),
    ("Warm enough for the garden", "hammock"),
    ("Wind from the sea", "slow-morning"),
    ("Snow, allegedly", "snow-day"),
    ("Clear evening", "nightcap"),
)

SEASONS: tuple[tuple[str, str], ...] = (
    ("Winter", "Smoke, spice and second cups."),
    ("Spring", "The first flush is in."),
    ("Summer", "Cold brews overnight in the fridge."),
    ("Autumn", "Oolongs taste best with the window shut."),
)

#: From this many pence on, delivery is free.
FREE_DELIVERY_PENCE = 3000
