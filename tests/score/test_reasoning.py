"""Explanations: what was asked, what was found, and the arithmetic, for people too."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest

from pipeline.score.rate import rate
from pipeline.score.reasoning import told
from tests.score.making import (
    DAY_NS,
    NOON,
    a_partner,
    a_rulebook,
    an_accrual,
    an_id,
    folds,
)
from tests.score.test_rate import MATCHED, RULES

LATER = NOON + 20 * DAY_NS


def explained(changes: dict[str, Any], now_ns: int = LATER) -> list[str]:
    changes = {"click_partner": changes.get("partner", "acme-shop")} | changes
    return told(rate(folds(changes), RULES, now_ns).explanation.text(0))


def test_a_click_from_the_contract_to_the_sum() -> None:
    click = json.loads(rate(folds({}), RULES, LATER).explanation.text(0))["conditions"][1][1]
    assert explained({"amount_minor": 2609}) == [
        "yes  contract in force: c-1",
        f"yes  click is ours: {click}",
        "yes  same partner: acme-shop",
        "yes  within 30 days: clicked 2026-03-01T11:00:00Z, bought 2026-03-01T12:00:00Z",
        "yes  visit unambiguous",
        "yes  rule for: sale",
        "yes  not declined: approved",
        "yes  return window over: 2026-03-15T12:00:00Z",
        "sum  sale: 26.09 EUR x 1/20 / 1/100 = 130.45 -> 130",
    ]
    assert click.replace("-", "") == an_id("click").hex()


def test_a_matched_visit() -> None:
    lines = explained(MATCHED | {"match_marked": 1, "match_basis": 1})
    assert [line for line in lines if line.startswith("NO")] == [
        "NO   consented: listed",
        "NO   no other affiliate",
    ]
    assert "yes  member named" in lines
    assert any(
        line.startswith("yes  within 1 days: visited 2026-03-01T11:59:55Z") for line in lines
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"click_id": ""}, "NO   a click, or a shop that matches"),
        ({"click_partner": "bolt"}, "NO   same partner: bolt"),
        ({"clicked_ns": 0}, "NO   within 30 days: clicked never, bought 2026-03-01T12:00:00Z"),
        ({"kind": "lead"}, "NO   rule for: lead"),
        ({"status": 5}, "NO   not declined: declined"),
        ({"status": 0}, "yes  not declined: unknown"),
        ({"partner": "nobody"}, "NO   contract in force"),
        (MATCHED | {"match_visit": ""}, "NO   visited before"),
        (MATCHED | {"match_subscriber": ""}, "NO   member named"),
    ],
)
def test_what_failed_is_said(changes: dict[str, Any], line: str) -> None:
    assert line in explained(changes)


def test_a_held_conversion_says_until_when() -> None:
    assert "NO   return window over: 2026-03-15T12:00:00Z" in explained({}, NOON)
    assert not [x for x in explained({"status": 1}) if "return window" in x]


def test_rules_that_were_not_used_are_named() -> None:
    assert "not  past: ended 2026-03-01T12:00:00Z" in explained({"partner": "layers"})


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(1000, "3.3333... -> 3"), (300, "1 -> 1"), (299, "0.9966... -> 0"), (-5, "0 -> 0")],
)
def test_long_fractions_are_cut_off_not_rounded(amount: int, shown: str) -> None:
    rules = a_rulebook(
        a_partner(accruals=(an_accrual(rate=Fraction(1, 3), per_point=Fraction(1)),))
    )
    lines = told(rate(folds({"amount_minor": amount}), rules, LATER).explanation.text(0))
    assert lines[-1].endswith(f"= {shown}")


def test_no_explanation_is_no_line() -> None:
    assert told("") == []
