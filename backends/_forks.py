"""What a forked process must not share with its parent is made anew in it."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """What holds locks or connections."""

    def renew(self) -> None:
        """Take new ones, and leave those of the parent alone."""


_inherited: WeakSet[Renewable] = WeakSet()


def renew_after_fork(owner: Renewable) -> None:
    """Call ``owner.renew()`` in each process that is forked: it drops the connections and locks of the parent."""
    _inherited.add(owner)


def _renew_all() -> None:
    for owner in list(_inherited):
        owner.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
