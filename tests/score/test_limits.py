"""Caps and budgets: the worked example, the naive twin, and what others used."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.batches import UsageBatch
from pipeline.model.columns import concat
from pipeline.model.words import TargetReason, TargetState
from pipeline.rulebook.model import Accrual, Caps, Rulebook
from pipeline.score.rate import rate, rated
from pipeline.score.reasoning import told
from tests.naive.rate import rate as naive
from tests.score import drawing
from tests.score.making import DAY_NS, NOON, a_partner, a_rulebook, an_accrual, an_id, folds

LATER = NOON + 60 * DAY_NS
HOUR = 3600 * 10**9


def fixed(points: int, **more: Any) -> Accrual:
    return an_accrual(**({"kind": "fixed", "points": points} | more))


def rules_of(*accruals: Accrual) -> Rulebook:
    return a_rulebook(a_partner(accruals=accruals))


def buys(*who: str, **more: Any) -> list[dict[str, Any]]:
    """Purchases one hour after the other, each of a member."""
    return [
        {"conversion_key": f"C-{n}", "click_subscriber": name, "event_ns": NOON + n * HOUR, **more}
        for n, name in enumerate(who)
    ]


def points(rows: list[dict[str, Any]], rules: Rulebook, used: UsageBatch | None = None) -> list:
    return rate(folds(*rows), rules, LATER, used=used).points.tolist()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("truncate", [60, 40]), ("reject", [60, 0]), ("all_or_nothing", [60, 0])],
)
def test_a_budget_of_a_hundred_and_two_awards_of_sixty(policy: str, expected: list[int]) -> None:
    rules = rules_of(fixed(60, budget=100, budget_policy=policy))
    assert points(buys("ann", "bob"), rules) == expected
    whole = rate(folds(*buys("ann", "bob")), rules, LATER)
    none = TargetReason.NO_POINTS if expected[1] == 0 else TargetReason.AWARDED
    assert whole.reason.tolist() == [TargetReason.AWARDED, none]
    assert whole.cost_minor.tolist() == expected


def test_all_or_nothing_is_by_member() -> None:
    rules = rules_of(fixed(30, budget=100, budget_policy="all_or_nothing"))
    who = ("ann", "bob", "ann", "bob", "bob", "eve", "ann")
    # ann asks 90 in all and gets them; bob asks 90 and nothing is left for that; eve asks 30
    assert points(buys(*who), rules) == [30, 0, 30, 0, 0, 0, 30]
    assert points(buys("bob", "bob", "bob", "bob", "ann"), rules) == [0, 0, 0, 0, 30]


def test_order_is_that_of_purchase_and_key_whatever_order_they_come_in() -> None:
    rules = rules_of(fixed(60, budget=100, budget_policy="truncate"))
    rows = buys("ann", "bob")
    assert points(rows[::-1], rules) == [40, 60]
    same = [row | {"event_ns": NOON} for row in rows]
    first = sorted(range(2), key=lambda n: an_id(f"C-{n}"))[0]
    assert points(same, rules)[first] == 60


@pytest.mark.parametrize(
    ("caps", "expected"),
    [
        (Caps(member=70), [50, 50, 20, 20]),
        (Caps(day=70), [50, 20, 0, 0]),
        (Caps(member_day=30), [30, 30, 0, 0]),
        (Caps(month=120), [50, 50, 20, 0]),
        (Caps(member_month=60, day=110), [50, 50, 10, 0]),
    ],
)
def test_caps(caps: Caps, expected: list[int]) -> None:
    assert points(buys("ann", "bob", "ann", "bob"), rules_of(fixed(50, caps=caps))) == expected


def test_days_and_months_are_those_of_the_programme() -> None:
    rules = rules_of(fixed(50, caps=Caps(day=50)))
    evening = NOON + 9 * HOUR  # 21:00 UTC is the next day in Kolkata
    rows = [
        {**row, "event_ns": at} for row, at in zip(buys("ann", "bob"), (NOON, evening), strict=True)
    ]
    assert points(rows, rules) == [50, 0]
    kolkata = replace(rules, programme=replace(rules.programme, timezone="Asia/Kolkata"))
    assert points(rows, kolkata) == [50, 50]


def test_what_others_hold_is_taken_from_caps_and_budgets() -> None:
    rules = rules_of(fixed(60, budget=100, budget_policy="truncate", caps=Caps(member=50)))
    used = [("sale", an_id("ann"), NOON, 30), ("other", an_id("ann"), NOON, 99)]
    assert points(buys("ann", "bob"), rules, drawing.usage_batch(used)) == [20, 50]
    used.append(("sale", an_id("eve"), NOON - 400 * DAY_NS, 60))
    assert points(buys("ann", "bob"), rules, drawing.usage_batch(used)) == [10, 0]
    used.append(("sale", an_id("eve"), NOON, 600))
    assert points(buys("ann", "bob"), rules, drawing.usage_batch(used)) == [0, 0]


def test_a_rule_that_gives_nothing_now_may_have_given_before() -> None:
    limited = {"budget": 100, "budget_policy": "truncate", "stacking": "add", "priority": 200}
    free = an_accrual(id="free", rate=Fraction(1, 10**6), **limited)
    rules = rules_of(fixed(60, budget=100, budget_policy="reject"), free)
    used = drawing.usage_batch([("free", an_id("ann"), NOON, 5)])
    assert points(buys("ann"), rules, used) == [60]


def test_only_what_stands_uses_anything() -> None:
    rules = rules_of(fixed(60, budget=60, budget_policy="truncate"))
    rows = buys("ann", "bob", "eve")
    rows[0] |= {"status": 5}
    rows[1] |= {"click_found": 0}
    assert points(rows, rules) == [0, 0, 60]
    rows[0] |= {"status": 1}
    assert points(rows, rules) == [60, 0, 0], "what is pending has its points set aside"


def test_a_multiplier_multiplies_what_is_left_of_its_base() -> None:
    double = an_accrual(
        id="double", kind="multiplier", stacking="multiply", factor=Fraction(2), priority=1
    )
    rules = rules_of(fixed(60, budget=100, budget_policy="truncate"), double)
    assert points(buys("ann", "bob", "eve"), rules) == [120, 80, 0]


def test_a_limit_is_told() -> None:
    rules = rules_of(fixed(60, budget=100, budget_policy="truncate"))
    target = rate(folds(*buys("ann", "bob")), rules, LATER)
    found = [json.loads(text) for text in target.explanation.to_list()]
    assert [f["parts"] for f in found] == [[["sale", 60]], [["sale", 40]]]
    assert [f.get("limits") for f in found] == [None, [["sale", "budget", 60, 40]]]
    assert told(target.explanation.text(1))[-2:] == [
        "sum  sale: fixed 60",
        "cut  sale: budget: 60 -> 40",
    ]


def test_what_was_given_can_be_counted_for_others() -> None:
    limited = fixed(60, budget=100, budget_policy="truncate")
    free = fixed(5, id="more", stacking="add", priority=200)
    found = rated(folds(*buys("ann", "bob", "eve")), rules_of(limited, free), LATER)
    assert found.given.rule_id.to_list() == ["sale", "sale"]
    assert found.given.points.tolist() == [60, 40]
    assert found.given_row.tolist() == [0, 1]
    assert [bytes(s) for s in found.given.subscriber_id] == [an_id("ann"), an_id("bob")]
    assert found.targets.points.tolist() == [65, 45, 5]


@given(
    drawing.partners(limits=True),
    drawing.conversions,
    drawing.known,
    drawing.usages,
    st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York"]),
    st.integers(0, 60),
)
def test_equals_the_naive_twin(partners, rows, known, usages, zone, days) -> None:
    made = a_rulebook(*partners)
    rules = replace(made, programme=replace(made.programme, timezone=zone))
    batch, now_ns = folds(*rows), NOON + days * DAY_NS
    found = rated(
        batch,
        rules,
        now_ns,
        members=drawing.member_batch(known),
        used=drawing.usage_batch(usages),
    )
    expected = naive(batch, rules, now_ns, known, usages)
    target = found.targets
    assert target.points.tolist() == [e["points"] for e in expected]
    assert target.reason.tolist() == [e["reason"] for e in expected]
    assert target.cost_minor.tolist() == [e["cost"] for e in expected]
    for row, text in enumerate(target.explanation.to_list()):
        told_ = json.loads(text)
        if "parts" in told_:
            assert dict(told_["parts"]) == expected[row]["parts"]
        assert (target.state[row] != TargetState.NONE) == (target.points[row] > 0)
    given_ = {}
    for row, rule, part in zip(
        found.given_row.tolist(), found.given.rule_id.to_list(), found.given.points.tolist(),
        strict=True,
    ):  # fmt: skip
        given_[row, rule] = part
    limited = {a.id for p in partners for a in p.accruals if a.is_limited}
    assert given_ == {
        (row, rule): part
        for row, answer in enumerate(expected)
        for rule, part in answer["parts"].items()
        if rule in limited and answer["points"]
    }


@given(drawing.partners(limits=True), drawing.conversions, drawing.usages, st.integers(0, 8))
def test_in_order_and_in_two_calls_is_the_same_as_in_one(partners, rows, usages, at) -> None:
    """As long as no budget asks what a member wants in all."""
    accruals = [
        [replace(a, budget_policy="reject" if a.budget else "") for a in p.accruals]
        for p in partners
    ]
    rules = a_rulebook(
        *(replace(p, accruals=tuple(a)) for p, a in zip(partners, accruals, strict=True))
    )
    batch = folds(*rows)
    keys = np.ascontiguousarray(batch.conversion_key).view("S16").reshape(-1)
    batch = batch.take(np.lexsort((keys, batch.event_ns)))
    used = drawing.usage_batch(usages)
    whole = rate(batch, rules, LATER, used=used)
    first = rated(batch.slice(0, at), rules, LATER, used=used)
    rest = rate(batch.slice(at, len(batch)), rules, LATER, used=concat([used, first.given]))
    assert [*first.targets.points.tolist(), *rest.points.tolist()] == whole.points.tolist()
