"""The capability matrix of the documentation: the class lines of the adapters' tests, read off the classes.

``--write-tables`` writes it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from lazysession.testing import ComparesAtomically, Contract, KeepsTtl, PurgesExpired, TellsTtl
from tests.support import tables

GENERATED = tables.ROOT / "docs" / "_generated" / "capabilities.rst"
MIXINS = {
    ComparesAtomically: "Atomic",
    TellsTtl: "Returns the ttl",
    KeepsTtl: "Keeps its expiry",
    PurgesExpired: "To purge",
}
HEAD = ["``SESSION_TYPE``", "Proven on", *MIXINS.values(), "Largest session"]
NO = "no"
NO_LIMIT = "no limit found"
WIDTHS = [16, 34, 10, 10, 10, 10, 10]
#: The adapters of this package; an example of a store of one's own may have such tests as well.
ADAPTERS = sorted(["generic", *(path.parent.name for path in (tables.ROOT / "backends").glob("*/store.py"))])
TESTS = {name: f"tests.backends.test_backend_{name}" for name in ADAPTERS}


def contracts_of(module: Any) -> Iterator[type[Contract]]:
    """Return the classes of a test file that prove a backend, in their order."""
    for name, found in vars(module).items():
        if name.startswith("Test") and inspect.isclass(found) and issubclass(found, Contract):
            yield found


def capabilities_of(contract: type[Contract]) -> list[str]:
    """Return what a class line claims: its mixins, and the store's limit."""
    claimed = ["yes" if issubclass(contract, mixin) else NO for mixin in MIXINS]
    return [*claimed, size_of(contract.largest_payload)]


def deviations_of(contract: type[Contract]) -> list[str]:
    """Return the deviations from the contract that are written down."""
    marks = [mark for _, test in inspect.getmembers(contract) for mark in getattr(test, "pytestmark", [])]
    return [f"*Deviates:* {mark.kwargs['reason']}" for mark in marks if mark.name == "xfail"]


def size_of(limit: int | None) -> str:
    """Return a limit as people say it."""
    if limit is None:
        return NO_LIMIT
    kib = limit / 1024
    return f"{kib:.0f} KiB" if kib < 1000 else f"{kib / 1024:.0f} MiB"


def rows_of(session_type: str, module: Any) -> list[list[str]]:
    """Return the rows of a test file: what can do the same is in one row, each by the first line of its docstring."""
    proven: dict[tuple[str, ...], list[str]] = {}
    for contract in contracts_of(module):
        where = (contract.__doc__ or contract.__name__).splitlines()[0].rstrip(".")
        proven.setdefault(tuple(capabilities_of(contract)), []).extend([where, *deviations_of(contract)])
    most_first = sorted(proven.items(), key=lambda row: -row[0].count("yes"))
    return [[f"``{session_type}``", "\n".join(f"| {line}" for line in where), *cells] for cells, where in most_first]


def test_the_matrix_is_what_the_tests_claim(request: pytest.FixtureRequest) -> None:
    """The matrix in the documentation has the class lines of the adapters' tests, and nothing else."""
    rows = []
    for session_type, name in TESTS.items():
        rows += rows_of(session_type, importlib.import_module(name))
    matrix = tables.list_table(HEAD, rows, WIDTHS)
    if request.config.getoption("--write-tables"):
        GENERATED.write_text(matrix, encoding="utf-8")
    remedy = "the matrix is old: run pytest tests/project/test_capabilities.py --write-tables"
    assert GENERATED.read_text(encoding="utf-8") == matrix, remedy


def test_a_class_line_is_read() -> None:
    """Mixins, limits and deviations are found, inherited ones too."""

    class Base(Contract, TellsTtl):
        largest_payload = 65535

        @pytest.mark.xfail(strict=True, reason="it cannot")
        def test_absent(self) -> None:
            """Deviates."""

    class TestOne(Base, ComparesAtomically):
        """One."""

    assert capabilities_of(TestOne) == ["yes", "yes", NO, NO, "64 KiB"]
    assert deviations_of(TestOne) == ["*Deviates:* it cannot"]
