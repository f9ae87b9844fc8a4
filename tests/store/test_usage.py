"""What others hold of caps and budgets, by SQL and in plain Python."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.rulebook.model import Caps
from pipeline.store.clickhouse_schema import ConversionBatch
from pipeline.store.folds import chosen
from pipeline.store.usage import Limits, limits_of, usage
from tests.naive.usage import usage as naive
from tests.score.making import DAY_NS, NOON, a_partner, a_rulebook, an_accrual, an_id, make
from tests.store.store_rows import Filled, dicts

FEW = settings(max_examples=min(15, settings.default.max_examples))
RULES = [
    an_accrual(id="budget", budget=9, budget_policy="reject"),
    an_accrual(id="month", caps=Caps(month=9)),
    an_accrual(id="member", caps=Caps(member=9)),
    an_accrual(id="both", caps=Caps(member_day=9)),
    an_accrual(id="free"),
]
LIMITS = limits_of([a_rulebook(a_partner(accruals=tuple(RULES)))])


@pytest.fixture(scope="module")
def filled(new_store):
    return Filled(new_store())


def test_what_limits_ask_for():
    assert (
        Limits(
            frozenset({"budget", "month", "member", "both"}),
            frozenset({"member", "both"}),
            frozenset({"month", "both"}),
            frozenset({"acme-shop"}),
        )
        == LIMITS
    )
    assert limits_of([]).rules == frozenset()


rule_ids = st.sampled_from([rule.id for rule in RULES])
parts = st.lists(st.tuples(rule_ids, st.integers(1, 9)), max_size=3)
outcomes = st.lists(
    st.fixed_dictionaries(
        {
            "conversion_key": st.sampled_from("abcd"),
            "cut": st.integers(1, 4),
            "fold": st.integers(1, 4),
            "result": st.sampled_from([0, 0, 0, 1, 3, 8]),
            "state": st.sampled_from([0, 1, 2, 2]),
            "reason": st.just(1),
            "status": st.just(3),
            "partner": st.just("acme-shop"),
            "subscriber_id": st.sampled_from(["ann", "bob"]),
            "event_ns": st.integers(0, 60).map(lambda n: NOON + n * 10**11),
            "rule_id": rule_ids,
            "points": st.integers(1, 9),
            "explanation": st.one_of(
                st.just(""), parts.map(lambda p: json.dumps({"reason": "x", "parts": p}))
            ),
        }
    ),
    max_size=10,
    unique_by=lambda row: (row["conversion_key"], row["fold"], row["cut"]),
)


@FEW
@given(outcomes, st.sets(st.sampled_from("abcd")), st.integers(1, 5))
def test_equals_the_naive_twin(filled, rows, bought, fold):
    filled.clear()
    filled.add("purchases", *({"conversion_key": key} for key in sorted(bought)))
    for number in range(1, 5):
        mine = [row for row in rows if row["cut"] == number]
        if mine:
            batch = make(ConversionBatch, mine, {})
            filled.store.deliver_conversions(batch, number, an_id("run"))
    at = filled.position()
    # What is held and due is touched as well; nothing is, before the beginning.
    previous = at | {"purchases": 0}
    found = usage(filled.store, at, previous, 0, fold, LIMITS)
    kept = dicts(make(ConversionBatch, rows, {}))
    expected = naive(kept, {an_id(key) for key in bought}, fold, LIMITS)
    assert {
        (row["rule_id"], row["subscriber_id"], row["event_ns"]): row["points"]
        for row in dicts(found)
    } == expected


def test_where_everything_is_folded_nobody_is_left(filled):
    at = filled.position()
    assert chosen(at, None, NOON, 1) is None
    assert len(usage(filled.store, at, None, NOON, 1, LIMITS)) == 0
    new_rules = at | {"rulebooks": 1}
    assert len(usage(filled.store, new_rules, at, NOON + DAY_NS, 1, LIMITS)) == 0
