"""Which spending has to wait: by SQL and row by row, at the bounds, in any order of arrival."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.words import FraudOutcome
from pipeline.rulebook.fraud import SPENDING
from pipeline.rulebook.policies import FraudCode, FraudPolicy
from pipeline.store.doubts import DAY_NS, HOUR_NS, doubts
from tests.naive.doubts import doubts as naive
from tests.score.making import NOON, an_id
from tests.store.store_rows import Filled

FEW = settings(max_examples=min(25, settings.default.max_examples))
USUAL = FraudPolicy(spending=SPENDING)
YEAR_NS = 365 * DAY_NS


def strict(**bounds: int) -> FraudPolicy:
    """Two requests an hour, three a day; 50 points after ten days."""
    velocity = {"hour": 2, "day": 3}
    burn = {"over_ns": 10 * DAY_NS, "points": 50}
    codes = (
        FraudCode("VELOCITY", 100, FraudOutcome.HOLD, velocity),
        FraudCode("DORMANT_BURN", bounds.get("weight", 100), FraudOutcome.REVIEW, burn),
    )
    return FraudPolicy(bounds.get("limit", 100), spending=codes)


@pytest.fixture(scope="module")
def whole(new_store):
    return Filled(new_store())


@pytest.fixture
def filled(whole):
    whole.clear()
    return whole


def spend(filled: Filled, *rows: tuple[str, int, int], who: str = "ann", kind: str = "order"):
    """(id, nanoseconds after noon, points) as requests to spend."""
    filled.add(
        "commands",
        *(
            {"command_id": ref, "ref": ref, "kind": kind, "subscriber_id": who,
             "event_ns": NOON + at, "points": points}
            for ref, at, points in rows
        ),
    )  # fmt: skip


def held(filled: Filled, policy: FraudPolicy = USUAL, start: int = 0) -> dict[bytes, list[str]]:
    found = doubts(filled.store, filled.position(), start, policy)
    return {who: [code for code, _, _ in json.loads(text)] for who, text in found.items()}


def test_the_sixth_within_an_hour_waits(filled):
    spend(filled, *((f"o{n}", n * 60 * 10**9, 1) for n in range(7)))
    assert held(filled) == {an_id("o5"): ["VELOCITY"], an_id("o6"): ["VELOCITY"]}
    (text, _) = doubts(filled.store, filled.position(), 0, USUAL).values()
    assert json.loads(text) == [["VELOCITY", "6 requests to spend within an hour, over 5", 100]]


@pytest.mark.parametrize(("behind", "waits"), [(0, True), (1, False)])
def test_an_hour_is_an_hour(filled, behind, waits):
    spend(filled, *((f"o{n}", 0, 1) for n in range(5)), ("last", HOUR_NS + behind, 1))
    assert held(filled) == ({an_id("last"): ["VELOCITY"]} if waits else {})


@pytest.mark.parametrize(("behind", "waits"), [(0, True), (1, False)])
def test_the_eleventh_within_a_day_waits(filled, behind, waits):
    first = ((f"o{n}", n * 2 * HOUR_NS, 1) for n in range(10))
    spend(filled, *first, ("last", DAY_NS + behind, 1))
    assert held(filled) == ({an_id("last"): ["VELOCITY"]} if waits else {})


def test_of_one_time_the_smaller_ids_come_first(filled):
    spend(filled, *((f"o{n}", 0, 1) for n in range(7)))
    last = sorted(an_id(f"o{n}") for n in range(7))[5:]
    assert set(held(filled)) == set(last)


def test_others_repeats_and_commands_that_spend_nothing_do_not_count(filled):
    spend(filled, *((f"o{n}", n, 1) for n in range(5)))
    spend(filled, ("o1", 1, 1), ("o2", 9, 7))  # the same ids once more
    spend(filled, ("bobs", 3, 1), who="bob")
    spend(filled, ("c", 4, 1), ("d", 5, 1), kind="commit")
    spend(filled, ("nobodys", 3, 1), who="")
    assert held(filled) == {}
    spend(filled, ("gift", 6, 1), kind="transfer")
    assert held(filled) == {an_id("gift"): ["VELOCITY"]}


def test_only_new_rows_are_asked_about_but_all_are_counted(filled):
    spend(filled, *((f"o{n}", n, 1) for n in range(6)))
    assert set(held(filled, start=5)) == {an_id("o5")}
    assert held(filled, start=6) == {}


def test_what_lies_behind_the_position_is_not_known(filled):
    spend(filled, *((f"o{n}", n, 1) for n in range(5)))
    at = filled.position()
    spend(filled, ("early", -1, 1))
    assert doubts(filled.store, at, 0, USUAL) == {}
    assert held(filled) == {an_id("o4"): ["VELOCITY"]}


@pytest.mark.parametrize(
    ("idle", "points", "waits"),
    [(YEAR_NS + 1, 5000, True), (YEAR_NS, 5000, False), (YEAR_NS + 1, 4999, False)],
)
def test_a_large_burn_after_a_year_waits(filled, idle, points, waits):
    filled.add("visits", {"opened_ns": NOON - idle - 1, "last_ns": NOON - idle})
    spend(filled, ("burn", 0, points))
    assert held(filled) == ({an_id("burn"): ["DORMANT_BURN"]} if waits else {})


def test_what_the_burn_says(filled):
    filled.add("visits", {"opened_ns": NOON - 2 * YEAR_NS, "last_ns": NOON - 2 * YEAR_NS})
    spend(filled, ("burn", 0, 9000))
    (text,) = doubts(filled.store, filled.position(), 0, USUAL).values()
    said = "9000 points after 730 days without any activity"
    assert json.loads(text) == [["DORMANT_BURN", said, 100]]


def test_who_was_never_seen_is_not_dormant(filled):
    spend(filled, ("burn", 0, 10**6))
    assert held(filled) == {}


@pytest.mark.parametrize(
    ("stream", "row"),
    [
        ("visits", {"visit_id": "new", "opened_ns": NOON - 9 * DAY_NS, "last_ns": NOON - DAY_NS}),
        ("clicks", {"click_id": "new", "clicked_ns": NOON - 2 * DAY_NS}),
        ("purchases", {"member_id": "ann", "event_ns": NOON - 2 * DAY_NS}),
        ("purchases", {"click_id": "old", "event_ns": NOON - 2 * DAY_NS}),
        ("commands", {"command_id": "x", "event_ns": NOON - 2 * DAY_NS}),
    ],
)
def test_every_activity_counts_but_that_of_the_last_day(filled, stream, row):
    filled.add("visits", {"opened_ns": NOON - 2 * YEAR_NS, "last_ns": NOON - 2 * YEAR_NS})
    filled.add("clicks", {"click_id": "old", "clicked_ns": NOON - 2 * YEAR_NS})
    filled.add("visits", {"visit_id": "today", "opened_ns": NOON - 9, "last_ns": NOON - 1})
    spend(filled, ("burn", 0, 9000))
    assert held(filled) == {an_id("burn"): ["DORMANT_BURN"]}
    filled.add(stream, row)
    assert held(filled) == {}


def test_codes_add_up_to_the_limit(filled):
    filled.add("visits", {"opened_ns": NOON - YEAR_NS, "last_ns": NOON - YEAR_NS})
    spend(filled, ("burn", 0, 60), ("two", 1, 1), ("three", 2, 60))
    assert held(filled, strict(limit=200)) == {an_id("three"): ["VELOCITY", "DORMANT_BURN"]}
    assert set(held(filled, strict(limit=101))) == {an_id("three")}


def test_weight_zero_switches_a_code_off(filled):
    filled.add("visits", {"opened_ns": NOON - YEAR_NS, "last_ns": NOON - YEAR_NS})
    spend(filled, ("burn", 0, 60))
    assert held(filled, strict(weight=0)) == {}
    assert held(filled, strict()) == {an_id("burn"): ["DORMANT_BURN"]}
    assert held(filled, FraudPolicy()) == {}


hours = st.integers(0, 60).map(lambda n: n * HOUR_NS // 4)
days = st.integers(-30, 1).map(lambda n: n * DAY_NS)
whom = st.sampled_from(["ann", "bob"])
requests = st.lists(
    st.tuples(
        st.sampled_from([f"o{n}" for n in range(9)]), whom, st.one_of(hours, days),
        st.sampled_from([10, 50, 60]), st.sampled_from(["order", "reserve", "transfer", "commit"]),
    ),
    max_size=12,
)  # fmt: skip
seen = st.lists(
    st.tuples(st.sampled_from(["visits", "clicks", "purchases"]), whom, days), max_size=4
)


def fill(filled: Filled, activity: list[tuple], asked: list[tuple]) -> None:
    """A store anew, with what members did and what they asked for."""
    filled.clear()
    for number, (stream, who, at) in enumerate(activity):
        when = NOON + at
        row = {
            "visits": {"visit_id": f"v{number}", "opened_ns": when, "last_ns": when},
            "clicks": {"click_id": f"c{number}", "clicked_ns": when},
            "purchases": {"member_id": who, "event_ns": when},
        }[stream]
        filled.add(stream, row | ({} if stream == "purchases" else {"subscriber_id": who}))
    for ref, who, at, points, kind in asked:
        spend(filled, (ref, at, points), who=who, kind=kind)


@FEW
@given(requests, seen, st.integers(0, 12))
def test_equals_the_naive_twin(whole, asked, activity, start):
    fill(whole, activity, asked)
    found = {
        who: {code for code, _, _ in json.loads(text)}
        for who, text in doubts(whole.store, whole.position(), start, strict()).items()
    }
    assert found == naive(whole.streams, whole.position(), start, strict())


@FEW
@given(requests, seen, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(whole, asked, activity, random):
    once = list({row[0]: row for row in asked}.values())  # a repeat has another content
    found = []
    for _ in range(2):
        fill(whole, activity, once)
        found.append(doubts(whole.store, whole.position(), 0, strict()))
        random.shuffle(once)
        random.shuffle(activity)
    assert found[0] == found[1]
