"""The table of the process matrix, without its servers; ``nox -s processes -- --runs 3 --write`` makes it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.support import tables
from tests.support.processes_matrix import KNOWN, MODELS, STORES
from tests.support.processes_table import (
    DOES_NOT_START,
    GENERATED,
    NOT_RUN,
    RIGHT,
    SESSION,
    heading_of,
    in_all,
    text_of,
    to_rst,
)


@pytest.mark.parametrize(
    ("slow", "expected"), [([0], 0), ([3], 3), ([0, 5, 0], 0), ([2, 0, 1], 1), ([0, 0, 9], 0), ([4, 0], 2)]
)
def test_of_slow_requests_the_median_counts(slow: list[int], expected: int) -> None:
    """One run in three on a busy machine is no finding."""
    assert in_all([Counter({"slow": count}) for count in slow])["slow"] == expected


def test_of_all_else_each_counts() -> None:
    """A response that is another visitor's is a finding, in any run."""
    runs = [Counter[str](), Counter({"another's": 1, "slow": 7}), Counter({"lost": 2})]
    assert in_all(runs) == {"another's": 1, "lost": 2}


def test_what_a_cell_says() -> None:
    """Its problems by kind, or that it is right, or that it was not run."""
    assert [text_of(each) for each in (Counter({"slow": 1, "lost": 2}), Counter(), None)] == [
        "2 lost, 1 slow",
        RIGHT,
        NOT_RUN,
    ]


def test_the_table_says_where_it_comes_from() -> None:
    """The command, the date and the versions stand below it; what was not run is a dash."""
    rst = to_rst({("waitress", "redis", "used"): RIGHT}, ["waitress"], ["redis", "files"], "nox -s processes")
    assert tables.list_table_row(["``waitress``", "used", RIGHT, NOT_RUN]) in rst
    assert tables.list_table_row(["``waitress``", "unused", NOT_RUN, NOT_RUN]) in rst
    assert re.search(r"\n``nox -s processes`` on \d{4}-\d\d-\d\d: \d+ cores, .*lazysession \d", rst)


def test_the_documentation_has_each_server_and_store() -> None:
    """A server or store that was added, and a cell that is wrong, are noticed here."""
    text = GENERATED.read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in re.split(r"^     - ", row, flags=re.MULTILINE)]
        for row in re.split(r"^   \* - ", text.partition("\n\n``nox")[0], flags=re.MULTILINE)[1:]
    ]
    assert rows[0] == heading_of([*STORES])
    assert [row[:2] for row in rows[1:]] == [[f"``{model}``", before] for model in MODELS for before in SESSION]
    for model, before, *cells in rows[1:]:
        for store, cell in zip(STORES, cells, strict=True):
            known = {DOES_NOT_START} if (model.strip("`"), store, before) in KNOWN else set[str]()
            assert cell in known | {RIGHT, NOT_RUN}, (model, before, store)
