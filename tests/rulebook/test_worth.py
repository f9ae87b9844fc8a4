"""The worked examples of stacked rules, and what counts of an amount."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from pipeline.rulebook.check import run_examples
from pipeline.rulebook.model import Step, When
from pipeline.rulebook.worth import ITEM_MAX, Purchase, counted_minor, item_number, parts_of
from tests.rulebook.texts import ACME, rules
from tests.score.making import an_accrual

BILL = """
[[accrual]]
id         = "bill-tariff"
kind       = "percent"
action     = "bonus"
rate       = "100%"
per_point  = "1.00"
exclude    = ["gift-credit", "penalty", "third-party"]
valid_from = 2026-01-01

[[accrual]]
id         = "bill-tenure"
kind       = "multiplier"
action     = "bonus"
factor     = "120%"
priority   = 110
valid_from = 2026-01-01
[accrual.when]
tenure_months_min = 24

[[accrual]]
id         = "bill-bundle"
kind       = "multiplier"
action     = "bonus"
factor     = 2
priority   = 120
valid_from = 2026-01-01
[accrual.when]
products = ["bundle"]

[[example]]
action = "bonus"
amount = "86.25"
points = 127
tenure_months = 30
products = ["bundle"]
items = [
  {category = "tariff", amount = "58.90"}, {category = "gift-credit", amount = "10.00"},
  {category = "penalty", amount = "5.00"}, {category = "third-party", amount = "12.35"},
]

[[example]]
action = "bonus"
amount = "58.90"
points = 69
tenure_months = 24

[[example]]
action = "bonus"
amount = "58.90"
points = 58

[[example]]
host = "m."""


def test_a_bill_comes_to_three_parts():
    rulebook = rules(ACME, ('[[example]]\nhost = "m.', BILL.lstrip("\n")))
    assert [str(r) for r in run_examples(rulebook) if not r.passed] == []
    partner = rulebook.partners[0]
    candidates = partner.candidates_at("bonus", partner.accruals[1].valid_from_ns)
    bill = (
        ("tariff", "58.90", "", "", ""),
        ("gift-credit", "10.00", "", "", ""),
        ("penalty", "5.00", "", "", ""),
        ("third-party", "12.35", "", "", ""),
    )
    purchase = Purchase(8625, "EUR", bill, 8625, 30, products=("bundle",))
    parts = [(rule.id, points) for rule, points in parts_of(candidates, purchase, 0)]
    assert parts == [("bill-tariff", 58), ("bill-tenure", 11), ("bill-bundle", 58)]


def fixed(name: str, points: int, **more: Any):
    return an_accrual(id=name, kind="fixed", points=points, **more)


def stacked(*rules_, **purchase: Any) -> list[tuple[str, int]]:
    found = parts_of(rules_, Purchase(**({"amount_minor": 1000, "currency": "EUR"} | purchase)), 0)
    return [(rule.id, points) for rule, points in found]


BASE = fixed("base", 50)
TIMES = an_accrual(
    id="times", kind="multiplier", stacking="multiply", factor=Fraction(5, 4), priority=200
)


def test_what_adds_is_added_and_only_the_base_is_multiplied():
    assert stacked(BASE, fixed("more", 7, stacking="add"), TIMES) == [
        ("base", 50), ("more", 7), ("times", 12),
    ]  # fmt: skip
    assert stacked(TIMES) == []


def test_of_a_group_the_best_counts_and_of_equals_the_first():
    group = {"stacking": "best_of", "group": "g"}
    rules_ = (fixed("a", 5, **group), fixed("b", 9, **group), fixed("c", 9, **group))
    other = fixed("d", 1, stacking="best_of", group="h")
    assert stacked(*rules_, other) == [("b", 9), ("d", 1)]


def test_an_exclusive_rule_silences_what_comes_after_it_if_it_is_worth_anything():
    alone = {"stacking": "exclusive"}
    first = fixed("first", 3, stacking="add")
    assert stacked(first, fixed("alone", 9, **alone), BASE, TIMES) == [("first", 3), ("alone", 9)]
    gold = fixed("alone", 9, **alone, when=When(levels=("gold",)))
    assert stacked(gold, BASE) == [("base", 50)]
    nothing = an_accrual(id="alone", **alone)
    assert stacked(nothing, BASE, amount_minor=0) == [("base", 50)]


@pytest.mark.parametrize(
    ("when", "known", "holds"),
    [
        (When(24), {"tenure_months": 24}, True),
        (When(24), {"tenure_months": 23}, False),
        (When(24), {}, False),
        (When(tenure_months_below=24), {"tenure_months": 23}, True),
        (When(tenure_months_below=24), {}, False),
        (When(levels=("gold", "silver")), {"level": "silver"}, True),
        (When(levels=("gold",)), {}, False),
        (When(products=("tv",)), {"products": ("net", "tv")}, True),
        (When(products=("tv",)), {"products": ("net",)}, False),
        (When(amount_min=Fraction(10)), {}, True),
        (When(amount_min=Fraction(1001, 100)), {}, False),
        (When(amount_below=Fraction(10)), {}, False),
        (When(24, levels=("gold",)), {"tenure_months": 30}, False),
    ],
)
def test_conditions(when, known, holds):
    assert bool(stacked(fixed("x", 1, when=when), **known)) is holds


SLICES = (Step(Fraction(0), Fraction(1, 100), 0), Step(Fraction(100), Fraction(3, 100), 0))
PRIZES = (Step(Fraction(50), Fraction(0), 100), Step(Fraction(100), Fraction(0), 300))


@pytest.mark.parametrize(
    ("steps", "ladder", "amount", "points"),
    [
        (SLICES, "whole", 9999, 99),
        (SLICES, "whole", 10_000, 300),
        (SLICES, "slices", 10_000, 100),
        (SLICES, "slices", 15_050, 251),  # 100 + 1.515: rounded down once
        (SLICES, "slices", -1, 0),
        (SLICES[1:], "slices", 9999, 0),
        (PRIZES, "whole", 4999, 0),
        (PRIZES, "whole", 5000, 100),
        (PRIZES, "whole", 99_999, 300),
    ],
)
def test_ladders(steps, ladder, amount, points):
    rule = an_accrual(kind="ladder", ladder=ladder, steps=steps)
    assert rule.points_for(amount, "EUR", 0) == points
    assert an_accrual(kind="ladder", ladder=ladder, steps=steps, max_points=99).points_for(
        amount, "EUR", 0
    ) == min(points, 99)


SHOES = ("shoes", "119.00", "19.00", "4.90", "5.10")
CARD = ("gift-card", "50.00", "", "", "")


@pytest.mark.parametrize(
    ("rule", "items", "amounts", "counted"),
    [
        ({}, (), (10_000, 0), 10_000),
        ({}, (SHOES,), (11_900, 11_900), 9_000),
        ({"base": "gross"}, (SHOES,), (11_900, 11_900), 11_900),
        ({"base": "sent"}, (SHOES,), (11_900, 11_900), 11_900),
        ({}, (SHOES, CARD), (16_900, 16_900), 14_000),
        ({"exclude": ("gift-card",)}, (SHOES, CARD), (16_900, 16_900), 9_000),
        ({"only": ("gift-card",)}, (SHOES, CARD), (16_900, 16_900), 5_000),
        # never more than the amount they came with: this one was sent without tax
        ({}, (("x", "119.00", "19.00", "", ""),), (10_000, 10_000), 10_000),
        ({"base": "gross"}, (("x", "119.00", "", "", ""),), (10_000, 10_000), 10_000),
        # amended to half: half of what counted
        ({"exclude": ("gift-card",)}, (SHOES, CARD), (8_450, 16_900), 4_500),
        ({}, (("x", "0.333", "", "", ""),) * 3, (100, 100), 99),  # 0.999: rounded down once
        # items that do not tell
        ({}, (("x", "", "", "", ""),), (700, 700), 700),
        ({}, (("x", "1.1234567", "", "", ""),), (700, 700), 700),
        ({}, (SHOES,), (700, 0), 700),
        ({}, (("x", "-5.00", "", "", ""), ("y", "9.00", "", "", "")), (400, 400), 400),
    ],
)
def test_what_counts_of_an_amount(rule, items, amounts, counted):
    amount, came_with = amounts
    assert counted_minor(an_accrual(**rule), Purchase(amount, "EUR", items, came_with)) == counted


def test_numbers_of_items():
    assert [item_number(text) for text in ("", "1.5", "-0.000001")] == [0, 1_500_000, -1]
    assert item_number(str(ITEM_MAX // 10**6)) == ITEM_MAX
    assert item_number(str(ITEM_MAX // 10**6 + 1)) is None
    assert item_number("1.1234567") is None
