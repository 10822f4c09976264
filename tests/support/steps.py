"""What views do with their session, each step taken on the model of it as well."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

from flask import Flask

from tests.support.interleaved import OpenRequest
from tests.support.ledger import Ledger
from tests.support.model import Model

KEYS = ("a", "b", "cart", "user")
STEPS = ("put", "change_inside", "read", "remove", "rotate", "remove_others", "put_back")
RARER = ("make_permanent", "clear", "empty")


def look_past(session: Any) -> dict[str, Any]:
    """Return the session's items, which counts as no read of its keys."""
    assert session.sid
    return dict(session.lazy_use.session)


class Views:
    """Steps on a session by their names; each takes the key that it is about."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.model, self.ledger = Model(), Ledger()
        self.numbers = itertools.count(1)

    def take(self, request: OpenRequest, step: Callable[[Any], Any]) -> None:
        """Take a step on the session and on its model, which opens both, and compare the results."""
        work, began = request.work, not request.work.loaded
        if began:
            self.model.open(work)
            self.ledger.seen(work.cookie, request.run(look_past))
            assert request.run(look_past) == work.mine
        assert request.run(step) == step(work.mine)
        assert request.run(look_past) == work.mine

    def load(self, request: OpenRequest, _key: str = "") -> None:
        """Load the session, and read none of its keys."""
        self.take(request, lambda _session: None)

    def read(self, request: OpenRequest, _key: str = "") -> None:
        """Look at everything."""
        self.take(request, len)
        request.work.reads_all()

    def put(self, request: OpenRequest, key: str) -> None:
        """Set a key to something new."""
        number = next(self.numbers)
        new: dict[str, Callable[[], Any]] = {"cart": lambda: [number], "user": lambda: {"id": number}}
        self.take(request, lambda session: session.__setitem__(key, new.get(key, lambda: number)()))
        request.work.writes(key)

    def change_inside(self, request: OpenRequest, _key: str) -> None:
        """Change what is inside a list and a dict, which the session does not notice."""
        number, another = next(self.numbers), next(self.numbers)
        self.take(request, lambda session: session.get("cart", []).append(number))
        self.take(request, lambda session: session.get("user", {}).update(seen=another))
        request.work.reads("cart", "user")

    def remove(self, request: OpenRequest, key: str) -> None:
        """Remove a key, or try to."""
        self.take(request, lambda session: session.pop(key, None))
        request.work.pops(key)

    def remove_others(self, request: OpenRequest, key: str) -> None:
        """Remove every key but one."""
        self.take(request, lambda session: [session.pop(other, None) for other in KEYS if other != key])
        request.work.pops(*(other for other in KEYS if other != key))

    def empty(self, request: OpenRequest, _key: str) -> None:
        """Remove one key after the other, as pages that show messages once."""
        self.take(request, lambda session: [session.pop(key, None) for key in KEYS])
        request.work.pops(*KEYS)

    def put_back(self, request: OpenRequest, key: str) -> None:
        """Undo what was done to a key that was there when the session was loaded."""
        base = request.work.base or {}
        if key in base:
            self.take(request, lambda session: session.__setitem__(key, copy.deepcopy(base[key])))
            request.work.writes(key)

    def clear(self, request: OpenRequest, _key: str) -> None:
        """Log out."""
        request.run(lambda session: session.clear())
        self.model.clear(request.work)

    def rotate(self, request: OpenRequest, _key: str) -> None:
        """Ask for a new id, as a login does."""
        self.load(request)
        request.run(self.app.session_interface.regenerate)  # type: ignore[attr-defined]
        request.work.rotated = True

    def make_permanent(self, request: OpenRequest, key: str) -> None:
        """Choose how long the cookie lives: as long as the browser runs, or longer."""
        request.run(lambda session: setattr(session, "permanent", key == "a"))
        request.work.set_permanent(key == "a")
