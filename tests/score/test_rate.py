"""Rating: the worked examples, the naive twin, and that differences add up."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.targets import targets_of
from pipeline.model.batches import FoldBatch, TargetBatch
from pipeline.model.words import Status, TargetReason, TargetState
from pipeline.rulebook.model import Rulebook
from pipeline.score.rate import kinds_of, rate
from tests.naive.rate import rate as naive
from tests.naive.reasoning import explained
from tests.score.making import (
    DAY_NS,
    NOON,
    YEAR_START,
    a_contract,
    a_partner,
    a_rulebook,
    an_accrual,
    an_id,
    folds,
)

LATER = NOON + 20 * DAY_NS
FOUR = an_accrual(id="four", rate=Fraction(4, 100), per_point=Fraction(1))
MATCHED = {
    "partner": "books",
    "click_id": "",
    "match_subscriber": "bob",
    "match_visit": "his visit",
    "match_visit_ns": NOON - 5 * 10**9,
    "match_basis": 2,
}
RULES = a_rulebook(
    a_partner("acme-shop"),
    a_partner("bolt", accruals=(an_accrual(id="lead", kind="fixed", action="lead", points=500),)),
    a_partner("books", click_delivery="match", attribution_window_ns=DAY_NS),
    a_partner("four", accruals=(FOUR,)),
    a_partner("ended", contracts=(a_contract(valid_until_ns=NOON),)),
    a_partner(
        "layers",
        accruals=(
            an_accrual(id="any", action="any", rate=Fraction(1, 100)),
            an_accrual(id="past", rate=Fraction(9, 100), valid_until_ns=NOON),
            an_accrual(id="now", rate=Fraction(7, 100), valid_from_ns=NOON),
            an_accrual(id="too", rate=Fraction(8, 100)),
        ),
    ),
)
PARTNERS = tuple(p.id for p in RULES.partners)


def one(
    changes: dict[str, Any], now_ns: int = LATER, rulebook: Rulebook = RULES
) -> tuple[TargetBatch, dict[str, Any]]:
    """The target of one conversion, and its explanation."""
    partner = changes.get("partner", "acme-shop")
    target = rate(folds({"click_partner": partner} | changes), rulebook, now_ns, fold=3)
    return target, json.loads(target.explanation.text(0))


@pytest.mark.parametrize(
    ("currency", "rate_", "per_point", "amount_minor", "points"),
    [
        ("GBP", Fraction(5, 100), Fraction(1, 100), 2609, 130),  # 130.45
        ("EUR", Fraction(4, 100), Fraction(1), 100_000, 40),
        ("EUR", Fraction(4, 100), Fraction(1), 60_000, 24),
        ("EUR", Fraction(4, 100), Fraction(1, 100), 1249, 49),  # 49.96
        ("JPY", Fraction(1, 100), Fraction(1), 1999, 19),
        ("KWD", Fraction(5, 100), Fraction(1, 100), 10_999, 54),  # 10.999 x 5 = 54.995
        ("EUR", Fraction(5, 100), Fraction(1, 100), 19, 0),  # 0.95: not one point
        ("EUR", Fraction(5, 100), Fraction(1, 100), 20, 1),
    ],
)
def test_worked_examples(
    currency: str, rate_: Fraction, per_point: Fraction, amount_minor: int, points: int
) -> None:
    accrual = an_accrual(rate=rate_, per_point=per_point)
    rules = a_rulebook(a_partner(accruals=(accrual,), currency=currency), currency=currency)
    target, _ = one({"amount_minor": amount_minor, "currency": currency}, rulebook=rules)
    assert target.points.tolist() == [points]
    assert target.state[0] == (TargetState.AVAILABLE if points else TargetState.NONE)


def test_points_scale_counts_smallest_units() -> None:
    rules = a_rulebook(a_partner("four", accruals=(FOUR,)), points_scale=2)
    target, told = one({"partner": "four", "amount_minor": 1249}, rulebook=rules)
    assert target.points.tolist() == [49]  # 0.4996 points are 49 hundredths
    assert told["sum"] == "four: 12.49 EUR x 1/25 / 1 = 0.4996 -> 0.49"


def test_money_is_commission_cost_and_margin() -> None:
    target, _ = one({"amount_minor": 2609})
    assert target.receivable_minor.tolist() == [208]  # 8 % of 26.09 is 2.0872
    assert target.cost_minor.tolist() == [130]
    assert target.margin_minor.tolist() == [78]
    stated, _ = one({"amount_minor": 2609, "commission_minor": 199})
    assert (stated.receivable_minor[0], stated.margin_minor[0]) == (199, 69)


def test_what_is_fixed_for_each_conversion_comes_beside_the_share_or_alone() -> None:
    fixed = {"commission_fixed": Fraction(9)}
    lead = an_accrual(kind="fixed", action="lead", points=500)
    rules = a_rulebook(
        a_partner("both", **fixed),
        a_partner("alone", accruals=(lead,), commission=Fraction(0), **fixed),
    )
    rows = ({"partner": "both", "amount_minor": 2609}, {"partner": "alone", "amount_minor": 0})
    batch = folds(*(row | {"kind": "", "click_partner": row["partner"]} for row in rows))
    target = rate(batch, rules, LATER)
    assert target.receivable_minor.tolist() == [900 + 208, 900]
    assert target.margin_minor.tolist() == [1108 - 130, 900 - 500]
    assert [e["receivable"] for e in naive(batch, rules, LATER)] == [1108, 900]
    stated = batch.with_columns(commission_minor=np.array([1, 2]))
    assert rate(stated, rules, LATER).receivable_minor.tolist() == [1, 2]
    whole = a_rulebook(a_partner(commission=Fraction(1), **fixed))
    huge = rate(folds({"amount_minor": 2**63 - 5}), whole, LATER)
    assert huge.receivable_minor.tolist() == [2**63 - 1]


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({}, TargetState.AVAILABLE, TargetReason.AWARDED),
        ({"status": 1}, TargetState.PENDING, TargetReason.PENDING),
        ({"status": 2}, TargetState.PENDING, TargetReason.PENDING),
        ({"status": 4}, TargetState.AVAILABLE, TargetReason.AWARDED),
        ({"status": 5}, TargetState.NONE, TargetReason.DECLINED),
        ({"status": 6}, TargetState.AVAILABLE, TargetReason.AWARDED),
        ({"status": 7}, TargetState.AVAILABLE, TargetReason.AWARDED),
        ({"amount_minor": 0}, TargetState.NONE, TargetReason.NO_POINTS),
        ({"amount_minor": -500}, TargetState.NONE, TargetReason.NO_POINTS),
        ({"click_id": ""}, TargetState.NONE, TargetReason.ORPHAN),
        ({"click_found": 0}, TargetState.NONE, TargetReason.ORPHAN),
        ({"click_partner": "bolt"}, TargetState.NONE, TargetReason.WRONG_PARTNER),
        ({"clicked_ns": NOON + 1}, TargetState.NONE, TargetReason.OUTSIDE_WINDOW),
        ({"clicked_ns": NOON}, TargetState.AVAILABLE, TargetReason.AWARDED),
        ({"clicked_ns": NOON - 30 * DAY_NS}, TargetState.AVAILABLE, TargetReason.AWARDED),
        ({"clicked_ns": NOON - 30 * DAY_NS - 1}, TargetState.NONE, TargetReason.OUTSIDE_WINDOW),
        ({"visit_ambiguous": 1}, TargetState.NONE, TargetReason.AMBIGUOUS),
        ({"kind": "lead"}, TargetState.NONE, TargetReason.NO_RULE),
        ({"partner": "ended"}, TargetState.NONE, TargetReason.NO_RULE),
        ({"partner": "nobody"}, TargetState.NONE, TargetReason.NO_RULE),
        (MATCHED, TargetState.AVAILABLE, TargetReason.AWARDED),
        (MATCHED | {"partner": "acme-shop"}, TargetState.NONE, TargetReason.ORPHAN),
        (MATCHED | {"match_subscriber": ""}, TargetState.NONE, TargetReason.ORPHAN),
        (MATCHED | {"match_visit": ""}, TargetState.NONE, TargetReason.ORPHAN),
        (MATCHED | {"match_basis": 1}, TargetState.NONE, TargetReason.NOT_A_MEMBER),
        (MATCHED | {"match_marked": 1}, TargetState.NONE, TargetReason.STOOD_DOWN),
        (MATCHED | {"match_ambiguous": 1}, TargetState.NONE, TargetReason.AMBIGUOUS),
        (
            MATCHED | {"match_visit_ns": NOON - DAY_NS - 1},
            TargetState.NONE,
            TargetReason.OUTSIDE_WINDOW,
        ),
    ],
)
def test_state_and_reason(
    changes: dict[str, Any], state: TargetState, reason: TargetReason
) -> None:
    target, told = one(changes)
    assert (target.state[0], target.reason[0]) == (state, reason)
    assert (target.points[0] > 0) == (state != TargetState.NONE)
    assert told["reason"] == reason.name.lower()
    waits = (TargetReason.PENDING, TargetReason.NO_POINTS)
    failed = [name for name, _, holds in told["conditions"] if not holds]
    assert bool(failed) == (state == TargetState.NONE and reason not in waits)
    if state == TargetState.NONE:
        assert not target.receivable_minor[0]
        assert not target.release_ns[0]
    else:
        member = "bob" if "match_visit" in changes else "ann"
        assert target.subscriber_id[0].tobytes() == an_id(member)


def test_hold_ends_with_the_return_window() -> None:
    due = NOON + 14 * DAY_NS
    held, told = one({}, due - 1)
    assert (held.state[0], held.reason[0]) == (TargetState.PENDING, TargetReason.HELD)
    assert (held.release_ns[0], held.receivable_minor[0]) == (due, 0)
    assert told["conditions"][-1] == ["return window over", "2026-03-15T12:00:00Z", False]
    free, _ = one({}, due)
    assert (free.state[0], free.release_ns[0]) == (TargetState.AVAILABLE, due)
    assert free.points[0] == held.points[0]


def test_a_rule_for_the_action_comes_before_one_for_any() -> None:
    target, told = one({"partner": "layers"})
    assert (target.rule_id.text(0), target.points[0]) == ("now", 70)
    assert told["rejected"] == [
        ["any", "now comes first"],
        ["past", "ended 2026-03-01T12:00:00Z"],
        ["too", "now comes first"],
    ]
    lead, told = one({"partner": "layers", "kind": "lead"})
    assert (lead.rule_id.text(0), lead.points[0]) == ("any", 10)
    assert ["past", "is for sale"] in told["rejected"]


def test_fixed_points_do_not_ask_for_an_amount() -> None:
    lead = {"partner": "bolt", "kind": "", "amount_minor": 0}
    assert one(lead)[0].points.tolist() == [500]  # all that bolt rewards
    lead = {"partner": "bolt", "kind": "lead", "amount_minor": 0}
    target, told = one(lead)
    assert target.points.tolist() == [500]
    assert told["sum"] == "lead: fixed 500"


def test_targets_carry_what_the_book_asks_for() -> None:
    target, told = one({"facts": 4, "facts_hash": 2**63 + 1})
    assert targets_of(target)  # raises for a target that no accrual may send
    assert (target.fold[0], target.facts[0], int(target.facts_hash[0])) == (3, 4, 2**63 + 1)
    assert target.rule_version[0].tobytes() == RULES.partners[0].accruals[0].version
    assert target.rulebook_hash[0].tobytes() == RULES.hash
    assert (target.contract_version.text(0), target.currency.text(0)) == ("c-1", "EUR")
    assert target.click_id[0].tobytes() == an_id("click")
    assert target.visit_id[0].tobytes() == an_id("visit")
    assert told["sum"] == "sale: 10.00 EUR x 1/20 / 1/100 = 50 -> 50"


def test_the_rule_does_not_depend_on_attribution() -> None:
    """The book pins the rule version at the first rating, which may be an orphan's."""
    orphan, _ = one({"click_found": 0})
    found, _ = one({})
    assert orphan.rule_version[0] == found.rule_version[0]


def test_nothing_gives_nothing() -> None:
    assert len(rate(folds(), RULES, NOON)) == 0


@pytest.mark.parametrize("amount", [10**12, 2**62, 2**63 - 1, -(2**63) + 1])
def test_huge_amounts_stay_whole_numbers(amount: int) -> None:
    target, _ = one({"amount_minor": amount})
    exact = max(amount, 0) * 5 // 100
    assert target.points[0] == (exact if exact <= 2**63 - 1 else 2**63 - 1)
    assert targets_of(target)


times = st.sampled_from(
    [NOON, NOON - 1, NOON + 1, NOON - DAY_NS, NOON - DAY_NS - 1, NOON - 30 * DAY_NS, YEAR_START]
)
drawn_fold = st.fixed_dictionaries(
    {
        "partner": st.sampled_from((*PARTNERS, "nobody")),
        "kind": st.sampled_from(["sale", "lead", "bonus", ""]),
        "status": st.integers(1, 7),
        "amount_minor": st.integers(-(10**6), 10**12) | st.integers(-(2**62), 2**62),
        "commission_minor": st.sampled_from([0, 0, 55]),
        "event_ns": times,
        "click_id": st.sampled_from(["", "click"]),
        "click_found": st.integers(0, 1),
        "click_partner": st.sampled_from(PARTNERS),
        "clicked_ns": times,
        "match_subscriber": st.sampled_from(["", "bob"]),
        "match_visit": st.sampled_from(["", "his visit"]),
        "match_visit_ns": times,
        "match_marked": st.integers(0, 1),
        "match_ambiguous": st.integers(0, 1),
        "match_basis": st.integers(0, 4),
        "visit_ambiguous": st.integers(0, 1),
    }
)


@given(st.lists(drawn_fold, max_size=12), times)
def test_equals_the_naive_twin(rows: list[dict[str, Any]], now_ns: int) -> None:
    # Half of the clicks belong to the conversion's own partner, or hardly any would be attributed.
    for row in rows[::2]:
        row["click_partner"] = row["partner"]
    batch = folds(*rows)
    target = rate(batch, RULES, now_ns + 20 * DAY_NS)
    expected = naive(batch, RULES, now_ns + 20 * DAY_NS)
    assert target.state.tolist() == [e["state"] for e in expected]
    assert target.reason.tolist() == [e["reason"] for e in expected]
    assert target.points.tolist() == [e["points"] for e in expected]
    assert target.receivable_minor.tolist() == [e["receivable"] for e in expected]
    assert target.cost_minor.tolist() == [e["cost"] for e in expected]
    assert target.margin_minor.tolist() == [e["margin"] for e in expected]
    assert target.release_ns.tolist() == [e["release"] for e in expected]
    members = [bytes(s) for s in target.subscriber_id]
    assert members == [e["subscriber"] for e in expected]
    if rows:
        targets_of(target.with_columns(conversion_key=batch.conversion_key))
        asked = batch.with_columns(kind=kinds_of(batch, RULES))
        told = explained(asked, target, RULES, now_ns + 20 * DAY_NS)
        assert target.explanation.to_list() == told


@given(st.lists(st.integers(-(10**7), 10**7), min_size=1, max_size=20), st.integers(1, 9999))
def test_differences_add_up_to_the_last_total(amounts: list[int], basis_points: int) -> None:
    """However often a sale is amended, what was booked in sum is the rounded last target."""
    accrual = an_accrual(rate=Fraction(basis_points, 10_000))
    rules = a_rulebook(a_partner(accruals=(accrual,)))
    totals = [
        rate(folds({"amount_minor": amount}), rules, LATER).points.tolist()[0] for amount in amounts
    ]
    booked = sum(np.diff([0, *totals]).tolist())
    assert booked == max(amounts[-1], 0) * basis_points // 10_000


@given(st.lists(drawn_fold, min_size=1, max_size=10), st.data())
def test_a_row_is_rated_by_itself(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    batch: FoldBatch = folds(*rows)
    whole = rate(batch, RULES, LATER)
    order = np.array(data.draw(st.permutations(range(len(rows)))), np.int64)
    mixed = rate(batch.take(order), RULES, LATER)
    assert mixed.points.tolist() == whole.points[order].tolist()
    assert mixed.explanation.to_list() == whole.explanation.take(order).to_list()
    alone = rate(batch.slice(0, 1), RULES, LATER)
    assert alone.explanation.to_list() == whole.explanation.to_list()[:1]


@given(drawn_fold, times, times)
def test_time_only_releases(row: dict[str, Any], one_ns: int, other_ns: int) -> None:
    """A later `now` changes nothing but HELD into AWARDED; points never change with time."""
    early, late = sorted((one_ns, other_ns))
    before, after = (rate(folds(row), RULES, n + 20 * DAY_NS) for n in (early, late))
    assert before.points.tolist() == after.points.tolist()
    assert before.state[0] <= after.state[0]
    if before.reason[0] != after.reason[0]:
        assert (before.reason[0], after.reason[0]) == (TargetReason.HELD, TargetReason.AWARDED)


def test_every_status_has_a_meaning() -> None:
    states = {Status(s): one({"status": s})[0].state[0] for s in Status}
    assert [s for s, state in states.items() if state == TargetState.NONE] == [Status.DECLINED]
