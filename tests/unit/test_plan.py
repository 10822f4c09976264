"""The plan for the end of a request: a pure function."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lazysession.records.plan import CookieAction, SavePlan, StoreAction, plan_save

FACTS: dict[str, Any] = {
    "had_record": True,
    "empty": False,
    "rotated": False,
    "changed": False,
    "refreshed": False,
    "permanent": True,
    "refreshes": True,
}


@pytest.mark.parametrize(
    ("facts", "plan"),
    [
        ({"had_record": False, "empty": True}, SavePlan(StoreAction.NOTHING, CookieAction.KEEP)),
        ({"had_record": False, "empty": True, "rotated": True}, SavePlan(StoreAction.NOTHING, CookieAction.KEEP)),
        ({"had_record": False}, SavePlan(StoreAction.CREATE, CookieAction.SET)),
        ({"empty": True}, SavePlan(StoreAction.DELETE, CookieAction.DELETE)),
        ({"empty": True, "rotated": True}, SavePlan(StoreAction.DELETE, CookieAction.DELETE)),
        ({"rotated": True}, SavePlan(StoreAction.ROTATE, CookieAction.SET)),
        ({"rotated": True, "changed": True}, SavePlan(StoreAction.ROTATE, CookieAction.SET)),
        ({"changed": True}, SavePlan(StoreAction.REPLACE, CookieAction.SET)),
        ({"changed": True, "refreshes": False}, SavePlan(StoreAction.REPLACE, CookieAction.KEEP)),
        ({}, SavePlan(StoreAction.NOTHING, CookieAction.KEEP)),
        ({"refreshed": True}, SavePlan(StoreAction.NOTHING, CookieAction.RENEW)),
        ({"refreshed": True, "permanent": False}, SavePlan(StoreAction.NOTHING, CookieAction.KEEP)),
    ],
)
def test_each_row(facts: dict[str, Any], plan: SavePlan) -> None:
    """Each row of the table in the docstring."""
    assert plan_save(**FACTS | facts) == plan


def test_every_combination_is_consistent() -> None:
    """A cookie is deleted with its record and only then; nothing is replaced or deleted that was not there."""
    for had, empty, rotated, changed, refreshed, permanent in itertools.product([False, True], repeat=6):
        plan = plan_save(
            had_record=had, empty=empty, rotated=rotated, changed=changed, refreshed=refreshed, permanent=permanent,
            refreshes=True,
        )  # fmt: skip
        assert (plan.cookie is CookieAction.DELETE) == (plan.store is StoreAction.DELETE)
        assert had or plan.store in (StoreAction.NOTHING, StoreAction.CREATE)
        assert not (empty and plan.cookie in (CookieAction.SET, CookieAction.RENEW))
