"""What each extension costs, next to Flask-Session; ``nox -s extensions -- --write-tables`` writes the tables."""

from __future__ import annotations

import pytest

from tests.support.stores import RedisStore

from . import EXTENSIONS
from .costs import GENERATED, Costs, Found, measure, origin, tables_of, worse
from .trying import LAYERS, Extension


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[Costs, Costs]]:
    """What was measured, by extension: with Flask-Session and with LazySession."""
    return {}


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda extension: extension.name)
def test_no_page_costs_more(extension: Extension, store: RedisStore, found: dict[str, tuple[Costs, Costs]]) -> None:
    """No request makes more round trips than with Flask-Session, or has a header that it has not there."""
    theirs, ours = (measure(extension, layer, store) for layer in LAYERS[:2])
    found[extension.name] = (theirs, ours)
    assert worse(theirs, ours) == []


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda extension: extension.name)
def test_the_order_of_set_up_costs_nothing(extension: Extension, store: RedisStore, found: Found) -> None:
    """An extension costs the same whether it is set up before the sessions or after them."""
    assert measure(extension, LAYERS[2], store) == found[extension.name][1]


def test_the_tables_are_what_was_measured(found: Found, store: RedisStore, request: pytest.FixtureRequest) -> None:
    """The tables of the documentation are those of this run."""
    if found.keys() != {extension.name for extension in EXTENSIONS}:
        pytest.skip("needs all tests of this file: run them together")
    measured = tables_of(found)
    if request.config.getoption("--write-tables"):
        made = origin(EXTENSIONS, store.server.info("server")["redis_version"])
        GENERATED.write_text(f"{made}\n{measured}", encoding="utf-8")
    written = GENERATED.read_text(encoding="utf-8").partition("\n\n")[2]
    assert written == measured, "the tables are old: run nox -s extensions -- --write-tables"
