"""Rules beside each other: the naive twin, the worked example, what is told, what is pinned."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.words import TargetReason
from pipeline.rulebook.model import Accrual, Rulebook, Step, When
from pipeline.score.rate import rate
from pipeline.score.reasoning import told
from tests.naive.rate import rate as naive
from tests.score import drawing
from tests.score.making import DAY_NS, NOON, a_partner, a_rulebook, an_accrual, an_id, folds

LATER = NOON + 60 * DAY_NS
ZONES = st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York"])


def in_zone(rulebook: Rulebook, timezone: str) -> Rulebook:
    return replace(rulebook, programme=replace(rulebook.programme, timezone=timezone))


@given(drawing.partners(), drawing.conversions, drawing.known, ZONES, st.integers(0, 60))
def test_equals_the_naive_twin(partners, rows, known, zone, days) -> None:
    rules = in_zone(a_rulebook(*partners), zone)
    batch, now_ns = folds(*rows), NOON + days * DAY_NS
    target = rate(batch, rules, now_ns, members=drawing.member_batch(known))
    expected = naive(batch, rules, now_ns, known)
    assert target.reason.tolist() == [e["reason"] for e in expected]
    assert target.points.tolist() == [e["points"] for e in expected]
    assert target.state.tolist() == [e["state"] for e in expected]
    assert target.receivable_minor.tolist() == [e["receivable"] for e in expected]
    assert target.cost_minor.tolist() == [e["cost"] for e in expected]
    for row, text in enumerate(target.explanation.to_list()):
        found = json.loads(text)
        if "parts" in found:
            assert dict(found["parts"]) == expected[row]["parts"]
        elif expected[row]["points"]:
            assert list(expected[row]["parts"]) == [target.rule_id.text(row)]


@given(drawing.partners(), drawing.conversions, drawing.known, st.data())
def test_a_row_is_rated_by_itself(partners, rows, known, data: st.DataObject) -> None:
    rules, members, batch = a_rulebook(*partners), drawing.member_batch(known), folds(*rows)
    whole = rate(batch, rules, LATER, members=members)
    order = np.array(data.draw(st.permutations(range(len(rows)))), np.int64)
    mixed = rate(batch.take(order), rules, LATER, members=members)
    assert mixed.explanation.to_list() == whole.explanation.take(order).to_list()
    assert mixed.terms_hash.tolist() == whole.terms_hash[order].tolist()


BILL = (
    an_accrual(
        id="tariff",
        rate=Fraction(1),
        per_point=Fraction(1),
        exclude=("gift-credit", "penalty", "third-party"),
    ),
    an_accrual(
        id="tenure",
        kind="multiplier",
        stacking="multiply",
        factor=Fraction(6, 5),
        priority=110,
        when=When(tenure_months_min=24),
    ),
    an_accrual(
        id="bundle",
        kind="multiplier",
        stacking="multiply",
        factor=Fraction(2),
        priority=120,
        when=When(products=("bundle",)),
    ),
)
LINES = {"tariff": "58.90", "gift-credit": "10.00", "penalty": "5.00", "third-party": "12.35"}
BILLED = {
    "amount_minor": 8625,
    "items": json.dumps([{"category": c, "amount": a} for c, a in LINES.items()]),
    "items_minor": 8625,
}
ANN = {"subscriber_id": an_id("ann"), "since_ns": 0, "level": "", "products": "phone bundle"}
JOINED_NS = NOON - 914 * DAY_NS  # 30 months


def billed(*rules: Accrual, **member: Any):
    members = drawing.member_batch([{**ANN, "joined_ns": JOINED_NS, **member}])
    return rate(folds(BILLED), a_rulebook(a_partner(accruals=rules)), LATER, members=members)


def test_a_bill_comes_to_three_parts() -> None:
    target = billed(*BILL)
    assert target.points.tolist() == [127]
    found = json.loads(target.explanation.text(0))
    assert found["parts"] == [["tariff", 58], ["tenure", 11], ["bundle", 58]]
    lines = told(target.explanation.text(0))
    assert "yes  tenure: member for 24 months: 30" in lines
    assert "yes  bundle: product bundle: phone bundle" in lines
    assert lines[-3:] == [
        "sum  tariff: 58.90 of 86.25 EUR x 1 / 1 = 58.9 -> 58",
        "sum  tenure: 58 x 1/5 = 11.6 -> 11",
        "sum  bundle: 58 x 1 = 58 -> 58",
    ]


def test_conditions_that_do_not_hold_are_told_and_their_rule_is_rejected() -> None:
    target = billed(*BILL, joined_ns=0, products="phone")
    lines = told(target.explanation.text(0))
    assert target.points.tolist() == [58]
    assert "NO   tenure: member for 24 months: unknown" in lines
    assert "NO   bundle: product bundle: phone" in lines
    assert lines[-2:] == [
        "not  tenure: a condition does not hold",
        "not  bundle: a condition does not hold",
    ]


def test_every_way_to_be_rejected_is_told() -> None:
    more = {"kind": "fixed", "stacking": "add", "priority": 200}
    rules = (
        an_accrual(id="best", kind="fixed", points=9, stacking="best_of", group="g", priority=1),
        an_accrual(id="less", kind="fixed", points=8, stacking="best_of", group="g", priority=1),
        an_accrual(id="tiny", rate=Fraction(1, 10**6), stacking="add", priority=1),
        an_accrual(id="gold", **more | {"priority": 1}, points=5, when=When(levels=("gold",))),
        an_accrual(id="alone", kind="fixed", points=7, stacking="exclusive", priority=50),
        an_accrual(id="base"),
        an_accrual(id="late", **more, points=5, valid_from_ns=NOON + 1),
        an_accrual(id="lead", **more, points=5, action="lead"),
    )
    target = rate(folds({}), a_rulebook(a_partner(accruals=rules)), LATER)
    assert (target.points[0], target.rule_id.text(0)) == (16, "best")
    found = json.loads(target.explanation.text(0))
    assert found["parts"] == [["best", 9], ["alone", 7]]
    assert found["rejected"] == [
        ["less", "another of its group gives more"],
        ["tiny", "worth no point"],
        ["gold", "a condition does not hold"],
        ["base", "a rule before it stands alone"],
        ["late", "begins 2026-03-01T12:00:00.000000001Z"],
        ["lead", "is for lead"],
    ]


def test_ladders_are_told_by_the_step_that_was_reached() -> None:
    steps = (Step(Fraction(5), Fraction(1, 100), 0), Step(Fraction(20), Fraction(1, 50), 0))
    rules = a_rulebook(
        a_partner(accruals=(an_accrual(kind="ladder", ladder="whole", steps=steps),))
    )
    rows = [{"amount_minor": n} for n in (499, 500, 2000)]
    target = rate(folds(*rows), rules, LATER)
    assert target.points.tolist() == [0, 5, 40]
    assert [json.loads(t)["sum"] for t in target.explanation.to_list()] == [
        "sale: 4.99 EUR, below 5 -> 0",
        "sale: 5.00 EUR, from 5 on x 1/100 / 1/100 = 5 -> 5",
        "sale: 20.00 EUR, from 20 on x 1/50 / 1/100 = 40 -> 40",
    ]


def test_a_rulebook_that_adds_a_rule_says_other_terms() -> None:
    """The pin compares rule and terms: a rule beside the one that leads is part of the terms."""
    plain, bonus = an_accrual(), an_accrual(id="more", stacking="add", priority=200, kind="fixed")
    one = rate(folds({}), a_rulebook(a_partner(accruals=(plain,))), LATER)
    other = rate(folds({}), a_rulebook(a_partner(accruals=(plain, bonus))), LATER)
    assert one.rule_version[0] == other.rule_version[0]
    assert one.terms_hash[0] != other.terms_hash[0]
    lead = an_accrual(id="more", stacking="add", priority=200, action="lead")
    same = rate(folds({}), a_rulebook(a_partner(accruals=(plain, lead))), LATER)
    assert same.terms_hash[0] == one.terms_hash[0]


def test_multipliers_alone_are_no_rule() -> None:
    target = rate(folds({}), a_rulebook(a_partner(accruals=BILL[1:])), LATER)
    assert target.reason.tolist() == [TargetReason.NO_RULE]
