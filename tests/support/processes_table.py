"""The table of the process matrix: what each cell of it says, after one run or several, and in the documentation."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from tests.support import tables

GENERATED = tables.ROOT / "docs" / "_generated" / "processes.rst"
#: A server, a store, and whether a session was used before the fork.
Cell = tuple[str, str, str]
SESSION = ("unused", "used")
NOT_RUN, RIGHT, DOES_NOT_START = "\N{EN DASH}", "ok", "does not start"
SLOW = "slow"
PACKAGES = ("Flask", "Flask-Session", "gunicorn", "gevent", "pyuwsgi", "waitress", "redis", "SQLAlchemy", "psycopg",
            "PyMySQL", "pymemcache", "python-memcached", "pymongo", "boto3", "cachelib", "lazysession")  # fmt: skip


def in_all(runs: Sequence[Counter[str]]) -> Counter[str]:
    """Return the problems of several runs of a cell: all of them, but of slow requests the median of the runs."""
    every = sum(runs, Counter[str]())
    every[SLOW] = int(statistics.median(run[SLOW] for run in runs))
    return +every


def text_of(problems: Counter[str] | None) -> str:
    """Return what a cell says of its problems; None where it was not run."""
    if problems is None:
        return NOT_RUN
    return ", ".join(f"{count} {what}" for what, count in sorted(problems.items())) or RIGHT


def rows_of(
    texts: Mapping[Cell, str], models: Sequence[str], stores: Sequence[str]
) -> list[list[str]]:  # fmt: skip
    """Return a row for each server, with the session unused before the fork and used."""
    return [
        [f"``{model}``", before, *(texts.get((model, store, before), NOT_RUN) for store in stores)]
        for model in models
        for before in SESSION
    ]


def heading_of(stores: Sequence[str]) -> list[str]:
    """Return the first row."""
    return ["Server", "Session before the fork", *stores]


def to_rst(texts: Mapping[Cell, str], models: Sequence[str], stores: Sequence[str], command: str) -> str:
    """Return the table for the documentation, with the command and the machine that it comes from."""
    widths = [22, 10] + [8] * len(stores)
    table = tables.list_table(heading_of(stores), rows_of(texts, models, stores), widths)
    return f"{table}\n``{command}`` on {_machine()}.\n"


def _machine() -> str:
    installed = {each.name.lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()}
    versions = [f"{package} {installed[package.lower()]}" for package in PACKAGES if package.lower() in installed]
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    return ", ".join([f"{today}: {os.cpu_count()} cores", system, f"Python {platform.python_version()}", *versions])
