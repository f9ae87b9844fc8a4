"""What counts of an amount, in columns, against one purchase at a time."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rulebook.worth import Purchase, counted_minor
from pipeline.score.items import Counted
from tests.score import drawing
from tests.score.making import an_accrual, folds

KEYS = ("amount", "tax", "shipping", "discount")
SPECS: list[dict[str, Any]] = [
    {},
    {"base": "gross"},
    {"base": "sent"},
    {"exclude": ("cards", "tea")},
    {"only": ("tea",), "base": "gross"},
]


@given(
    st.lists(
        st.tuples(
            st.one_of(drawing.bad_items, drawing.items),
            st.integers(-2000, 2000),
            st.integers(-10, 2000),
        ),
        max_size=8,
    ),
    st.sampled_from(SPECS),
    st.sampled_from([("JPY", 0), ("EUR", 2), ("KWD", 3)]),
)
def test_equals_one_at_a_time(drawn, spec, currency) -> None:
    rows = [{"items": i, "amount_minor": a, "items_minor": m} for i, a, m in drawn]
    rule = an_accrual(**spec)
    found = Counted(folds(*rows)).minor(rule, currency[1])
    for row, (items, amount, came_with) in enumerate(drawn):
        lines = tuple(
            (item.get("category", ""), *(item.get(key, "") for key in KEYS))
            for item in json.loads(items or "[]")
        )
        purchase = Purchase(amount, currency[0], lines, came_with)
        assert found[row] == counted_minor(rule, purchase)


@pytest.mark.parametrize(
    "text", ["", "{", "7", "{}", "[7]", '[{"amount":"x"}]', '["amount"]', "\xff"]
)
def test_items_that_do_not_tell_leave_the_amount_as_sent(text: str) -> None:
    batch = folds({"items": text, "items_minor": 1000})
    assert Counted(batch).minor(an_accrual(), 2).tolist() == [1000]


def test_large_amounts_stay_exact() -> None:
    text = json.dumps([{"amount": "9000000000.00"}, {"amount": "1.00", "category": "cards"}])
    whole = 900_000_000_100
    batch = folds({"items": text, "items_minor": whole, "amount_minor": whole - 7})
    rule = an_accrual(exclude=("cards",))
    assert Counted(batch).minor(rule, 2).tolist() == [900_000_000_000 * (whole - 7) // whole]


def test_categories_are_compared_without_case() -> None:
    text = json.dumps([{"amount": "4.00", "category": "Cards"}, {"amount": "6.00"}])
    batch = folds({"items": text, "items_minor": 1000}, {})
    found = Counted(batch).minor(an_accrual(exclude=("cards",)), 2)
    assert found.tolist() == [600, 1000]
    assert found.dtype == np.int64
