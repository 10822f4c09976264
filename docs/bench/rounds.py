"""Interleaving: every contender has a short block in every round, so that other load on the machine affects all."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

Block = Callable[[], float]


def timed(work: Callable[[], object], times: int = 1) -> Block:
    """Make a block that returns the seconds of one piece of work; ``work`` does ``times`` of them."""

    def block() -> float:
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) / times

    return block


def interleave(blocks: Mapping[str, Block], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Run the blocks round by round, and return the results of each block.

    Every other round has the reverse order, and every pair of rounds begins with the next block. The garbage collector
    runs between rounds only.
    """
    names = list(blocks)
    told: dict[str, list[float]] = {name: [] for name in names}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(-warm_up, rounds):
            gc.collect(1)
            for name in order(names, number):
                seconds = blocks[name]()
                if number >= 0:
                    told[name].append(seconds)
    finally:
        if was_enabled:
            gc.enable()
    return told


def order(names: list[str], number: int) -> list[str]:
    """Return the order of a round."""
    start = (number // 2) % len(names)
    turned = names[start:] + names[:start]
    return turned if number % 2 == 0 else turned[::-1]
