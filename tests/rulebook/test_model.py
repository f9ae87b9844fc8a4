"""What an amount is worth, and versions of content."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.stage import END_OF_TIME
from pipeline.rulebook.model import Accrual, Location, files_hash, version_of

PLACE = Location("partners/x.toml", 1, "accrual[0]")


def accrual(**more) -> Accrual:
    values = {
        "id": "x",
        "kind": "percent",
        "action": "sale",
        "rate": Fraction(1, 20),
        "per_point": Fraction(1, 100),
        "points": 0,
        "valid_from_ns": 0,
        "valid_until_ns": END_OF_TIME,
        "version": bytes(16),
        "location": PLACE,
    }
    return Accrual(**values | more)


@pytest.mark.parametrize(
    ("amount", "currency", "rate", "per_point", "scale", "points"),
    [
        (2609, "EUR", "1/20", "1/100", 0, 130),
        (100000, "EUR", "1/25", "1", 0, 40),
        (2609, "EUR", "1/20", "1/100", 2, 13045),
        (1000, "JPY", "1/100", "1", 0, 10),
        (2609, "KWD", "1/20", "1/100", 0, 13),
        (19, "EUR", "1/20", "1/100", 0, 0),
        (-2609, "EUR", "1/20", "1/100", 0, 0),
        (0, "EUR", "1/20", "1/100", 0, 0),
    ],
)
def test_percent(amount, currency, rate, per_point, scale, points):
    rule = accrual(rate=Fraction(rate), per_point=Fraction(per_point))
    assert rule.points_for(amount, currency, scale) == points


def test_fixed_is_worth_the_same_whatever_was_paid():
    rule = accrual(kind="fixed", points=500)
    assert [rule.points_for(amount, "EUR", 0) for amount in (0, 1, 10**9)] == [500] * 3


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 999), st.integers(0, 4))
def test_percent_rounds_down_once(one, other, thousandths, scale):
    rule = accrual(rate=Fraction(thousandths, 1000))
    worth = rule.points_for(one, "EUR", scale)
    exact = Fraction(one, 100) * rule.rate / rule.per_point * 10**scale
    assert 0 <= exact - worth < 1
    together = rule.points_for(one + other, "EUR", scale)
    assert 0 <= together - worth - rule.points_for(other, "EUR", scale) <= 1


def test_versions_are_of_content():
    one = version_of("accrual", {"a": Fraction(1, 2), "b": [1, True, "x"]})
    assert len(one) == 16
    assert version_of("accrual", {"b": [1, True, "x"], "a": Fraction(2, 4)}) == one
    assert version_of("accrual", {"a": Fraction(1, 3), "b": [1, True, "x"]}) != one
    assert version_of("partner", {"a": Fraction(1, 2), "b": [1, True, "x"]}) != one
    with pytest.raises(AssertionError):
        version_of("accrual", 0.5 + 0j)


def test_the_hash_is_of_names_and_texts():
    assert files_hash({"a": "x", "b": "y"}) == files_hash({"b": "y", "a": "x"})
    assert files_hash({"a": "x", "b": "y"}) != files_hash({"a": "y", "b": "x"})
    assert files_hash({"a": "x"}) != files_hash({"b": "x"})
