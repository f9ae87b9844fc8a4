"""Fraud codes: each at its edge, what they come to together, what people decide."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.words import FraudOutcome, TargetReason, TargetState, Verdict
from pipeline.rulebook.policies import Coupon, FraudPolicy
from pipeline.score.attribute import attribute
from pipeline.score.fraud import CODES, screen
from pipeline.score.rate import rate
from pipeline.score.reasoning import told
from pipeline.score.terms import Terms
from tests.naive import fraud as naive
from tests.score.knowing import a_policy, evidence, with_fraud
from tests.score.making import DAY_NS, NOON, a_contract, a_partner, a_rulebook, an_id, folds

SECOND = 10**9
OURS = (Coupon("LOY-", True, bytes(16), ""), Coupon("ANN10", False, bytes(16), ""))
SHOP = a_partner(coupons=OURS, other_coupons="review")
STAFFED = a_partner("staffed")
object.__setattr__(STAFFED, "insiders", (an_id("ann"),))
BOOKS = a_partner("books", click_delivery="match")
RULES = with_fraud(a_rulebook(SHOP, STAFFED, BOOKS))
CLICKED = NOON - 3600 * SECOND


def codes(known: dict, policy: FraudPolicy | None = None, **fold) -> list[str]:
    """The codes that hold for one conversion, told by its explanation."""
    rules = with_fraud(RULES, policy) if policy else RULES
    fold.setdefault("click_partner", fold.get("partner", "acme-shop"))
    target = rate(folds(fold), rules, NOON, evidence=evidence(known))
    found = json.loads(target.explanation.text(0)).get("fraud", {"codes": []})
    return [code for code, _, _ in found["codes"]]


MATCHED = {
    "partner": "books",
    "click_id": "",
    "match_subscriber": "ann",
    "match_visit": "visit",
    "match_visit_ns": NOON - 7200 * SECOND,
    "match_basis": 2,
}
EDGES = {
    "NO_SESSION": [({"traffic_ns": CLICKED - 1}, {}), ({"traffic_ns": CLICKED}, {})],
    "NO_SESSION at all": [({"traffic_ns": 0}, {}), ({"traffic_ns": 0}, MATCHED)],
    "FAST": [
        ({}, {"clicked_ns": NOON - 5 * SECOND + 1}),
        ({}, {"clicked_ns": NOON - 5 * SECOND}),
    ],
    "FLOOD": [({"clicks_hour": 31}, {}), ({"clicks_hour": 30}, {})],
    "MULTI_ACC": [({"members_at_address": 3}, {}), ({"members_at_address": 2}, {})],
    "DUP_ORDER": [({"claimed_before": 1}, {}), ({"claimed_before": 0}, {})],
    "RETURNER": [
        ({"orders_before": 10, "reversed_before": 4}, {}),
        ({"orders_before": 10, "reversed_before": 3}, {}),
    ],
    "RETURNER of few": [
        ({"orders_before": 5, "reversed_before": 5}, {}),
        ({"orders_before": 4, "reversed_before": 4}, {}),
    ],
    "COUPON": [({"coupon": "OTHER"}, {}), ({"coupon": "loy-7"}, {})],
    "COUPON alone": [({"coupon": "ANN101"}, {}), ({"coupon": "ann10"}, {})],
    "DORMANT": [({"idle_ns": 365 * DAY_NS + 1}, {}), ({"idle_ns": 365 * DAY_NS}, {})],
    "GEO_IP": [
        ({"address_foreign": 1, "traffic_ns": NOON - 3600 * SECOND - 1}, MATCHED),
        ({"address_foreign": 1, "traffic_ns": NOON - 3600 * SECOND}, MATCHED),
    ],
    "SELF_REF": [({}, {"partner": "staffed"}), ({}, {"partner": "acme-shop"})],
}


@pytest.mark.parametrize("name", EDGES)
def test_a_code_holds_on_one_side_of_its_edge(name):
    (inside, fold), (outside, other) = EDGES[name]
    rules = a_policy(NO_SESSION=None) if name == "FAST" else None
    assert codes(inside, rules, **fold) == [name.split()[0]]
    assert codes(outside, rules, **other) == []


def test_every_code_has_an_edge():
    assert {name.split()[0] for name in EDGES} == set(CODES)


def test_a_coupon_counts_only_where_the_contract_minds():
    assert codes({"coupon": "OTHER"}, partner="staffed", click_subscriber="bob") == []


OUTCOMES = {
    "hold": (TargetState.PENDING, TargetReason.FRAUD_HOLD),
    "review": (TargetState.PENDING, TargetReason.FRAUD_REVIEW),
    "block": (TargetState.NONE, TargetReason.FRAUD_BLOCKED),
    "decline": (TargetState.NONE, TargetReason.FRAUD_DECLINED),
}


def rated(known: dict, now_ns: int = NOON + 20 * DAY_NS, outcome: str = "review", **fold):
    rules = with_fraud(RULES, a_policy(FLOOD={"outcome": outcome}))
    return rate(folds(fold), rules, now_ns, evidence=evidence(known))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_what_an_outcome_leads_to(outcome):
    target = rated({"clicks_hour": 40}, outcome=outcome)
    assert (target.state[0], target.reason[0]) == OUTCOMES[outcome]
    waits = OUTCOMES[outcome][0] == TargetState.PENDING
    assert target.points[0] == (50 if waits else 0)
    assert target.receivable_minor[0] == target.cost_minor[0] == 0
    fraud = json.loads(target.explanation.text(0))["fraud"]
    assert (fraud["score"], fraud["outcome"], fraud["points"]) == (100, outcome, 50)
    assert target.subscriber_id[0].tobytes() == an_id("ann")


def test_hold_waits_longer_and_then_counts():
    due = NOON + 44 * DAY_NS
    before, after = (rated({"clicks_hour": 40}, due - d, "hold") for d in (1, 0))
    assert (before.reason[0], before.release_ns[0]) == (TargetReason.FRAUD_HOLD, due)
    assert (after.reason[0], after.state[0]) == (TargetReason.AWARDED, TargetState.AVAILABLE)
    assert json.loads(after.explanation.text(0))["fraud"]["outcome"] == "hold", "it is still told"


def test_what_waits_for_a_person_never_comes_due():
    assert rated({"clicks_hour": 40}).release_ns[0] == 0


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_what_brings_no_points_anyway_keeps_its_reason(outcome):
    declined = rated({"clicks_hour": 40}, outcome=outcome, status=5)
    assert declined.reason[0] == TargetReason.DECLINED
    orphan = rated({"clicks_hour": 40}, outcome=outcome, click_found=0)
    assert orphan.reason[0] == TargetReason.ORPHAN
    assert "fraud" not in json.loads(orphan.explanation.text(0)), "nobody's member is judged"


def test_a_hold_is_no_matter_before_the_partner_has_confirmed():
    assert rated({"clicks_hour": 40}, outcome="hold", status=1).reason[0] == TargetReason.PENDING
    assert rated({"clicks_hour": 40}, status=1).reason[0] == TargetReason.FRAUD_REVIEW


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_person_has_the_last_word(outcome):
    said = {"actor": "eve", "reason": "I called", "clicks_hour": 40}
    freed = rated({**said, "verdict": Verdict.RELEASE}, outcome=outcome)
    assert (freed.reason[0], freed.points[0]) == (TargetReason.AWARDED, 50)
    refused = rated({**said, "verdict": Verdict.DECLINE}, outcome=outcome)
    assert (refused.reason[0], refused.points[0]) == (TargetReason.FRAUD_DECLINED, 0)
    lines = told(freed.explanation.text(0))
    assert "release by eve 2026-03-01T12:00:00Z: I called" in lines
    assert "code FLOOD (100): 40 clicks within an hour, over 30" in lines
    assert f"score 100 of 100: {outcome}" in lines


def test_a_decision_counts_where_no_score_is_asked_for():
    refused = rate(folds({}), a_rulebook(), NOON, evidence=evidence({"verdict": Verdict.DECLINE}))
    assert refused.reason[0] == TargetReason.FRAUD_DECLINED


def test_codes_that_weigh_little_count_only_together():
    policy = a_policy(FLOOD={"weight": 60}, DORMANT={"weight": 40, "outcome": "block"})
    rules = with_fraud(RULES, policy)
    flood, dormant = {"clicks_hour": 40}, {"idle_ns": 400 * DAY_NS}
    found = rate(folds({}, {}, {}), rules, NOON, evidence=evidence(flood, dormant, flood | dormant))
    blocked = TargetReason.FRAUD_BLOCKED
    assert found.reason.tolist() == [TargetReason.HELD, TargetReason.HELD, blocked]
    outcomes = [json.loads(text)["fraud"]["outcome"] for text in found.explanation.to_list()]
    assert outcomes == ["none", "none", "block"]


def test_without_a_table_of_codes_nothing_changes():
    suspicious = evidence({"clicks_hour": 900, "claimed_before": 9, "traffic_ns": 0})
    rules = a_rulebook(SHOP)
    plain, asked = rate(folds({}), rules, NOON), rate(folds({}), rules, NOON, evidence=suspicious)
    assert plain.explanation.to_list() == asked.explanation.to_list()
    assert plain.reason.tolist() == asked.reason.tolist()


def test_stricter_codes_are_other_terms():
    hashes = [
        rate(folds({}), rules, NOON).terms_hash[0].tobytes()
        for rules in (a_rulebook(SHOP), RULES, with_fraud(RULES, a_policy(FLOOD={"over": 3})))
    ]
    assert len(set(hashes)) == 3


# Against the twin

figures = st.fixed_dictionaries(
    {
        "traffic_ns": st.sampled_from((0, CLICKED - 1, CLICKED, CLICKED + SECOND, NOON)),
        "clicks_hour": st.sampled_from((0, 1, 30, 31)),
        "orders_before": st.integers(0, 7),
        "reversed_before": st.integers(0, 4),
        "claimed_before": st.integers(0, 1),
        "members_at_address": st.integers(0, 3),
        "address_foreign": st.integers(0, 1),
        "idle_ns": st.sampled_from((0, 365 * DAY_NS, 366 * DAY_NS)),
        "coupon": st.sampled_from(("", "loy-1", "ANN10", "else")),
        "verdict": st.sampled_from((0, 0, 0, 1, 2)),
    }
)
changes = st.fixed_dictionaries(
    {
        "weight": st.sampled_from((0, 40, 60, 100)),
        "outcome": st.sampled_from(tuple(OUTCOMES)),
    }
)
policies = st.builds(
    lambda limit, some: a_policy(limit, **{**some, "COUPON": {"weight": some["FAST"]["weight"]}}),
    st.sampled_from((50, 100, 150)),
    st.fixed_dictionaries({name: changes for name in CODES if name != "COUPON"}),
)
rows = st.lists(
    st.tuples(
        figures,
        st.sampled_from(("acme-shop", "staffed", "books")),
        st.sampled_from((NOON - SECOND, CLICKED)),
    ),
    max_size=8,
)


@given(rows, policies)
def test_codes_score_and_outcome_are_those_of_the_twin(conversions, policy):
    partners = {"acme-shop": SHOP, "staffed": STAFFED, "books": BOOKS}
    batch = folds(
        *(
            MATCHED
            if name == "books"
            else {"partner": name, "click_partner": name, "clicked_ns": at}
            for _, name, at in conversions
        )
    )
    terms = Terms(RULES.partners)
    contract = terms.contract_numbers(terms.partner_numbers(batch.partner), batch.event_ns)
    found = attribute(batch, terms, contract)
    asked = [partners[name] for _, name, _ in conversions]
    result = screen(
        batch, found, evidence(*(known for known, _, _ in conversions)), policy, asked,
        [p.contract for p in asked],
    )  # fmt: skip
    for row, (known, name, at) in enumerate(conversions):
        partner = partners[name]
        fold = {
            "member": an_id("ann"), "by_click": name != "books", "event_ns": NOON,
            "clicked_ns": at,
        }  # fmt: skip
        expected = naive.codes_of(fold, known, policy, partner, partner.contract)
        fraud = result.told[row].get("fraud", {"codes": []})
        assert [code for code, _, _ in fraud["codes"]] == expected
        score, outcome = naive.outcome_of(expected, known["verdict"], policy, partner.contract)
        assert (result.score[row], result.outcome[row]) == (score, outcome)
        assert result.longer_ns[row] == (policy.hold_ns if outcome == FraudOutcome.HOLD else 0)


def test_no_row_is_no_row():
    target = rate(folds(), RULES, NOON, evidence=evidence())
    assert len(target) == 0
    assert isinstance(np.asarray(target.reason), np.ndarray)


def test_the_share_of_a_returner_is_exact():
    third = a_policy(RETURNER={"over": Fraction(1, 3)})
    assert codes({"orders_before": 9, "reversed_before": 3}, third) == []
    assert codes({"orders_before": 9, "reversed_before": 4}, third) == ["RETURNER"]


def test_contracts_of_tests_are_as_those_of_files():
    assert a_contract().other_coupons == "pay"
