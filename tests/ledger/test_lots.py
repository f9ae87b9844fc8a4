"""Lots: the spending order, the worked example of it, and that taking takes what was asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.lots import Lot, lot_id, spending_key
from pipeline.ledger.moving import shares
from pipeline.ledger.state import LedgerState, Member, rules_of
from pipeline.ledger.terms import expires_ns, inactive_ns, terms_of
from pipeline.model.identifiers import NO_ID
from pipeline.model.stage import END_OF_TIME
from tests.ledger.stories import DAY_NS, KEYS, name_id, ns, rulebook

TERMS = terms_of(rulebook().programme)
ANN = name_id("member", "ann")


def a_lot(name: str, earned: str, points: int, spendable_from: str = "") -> Lot:
    earned_ns = ns(earned)
    expires = expires_ns(TERMS.expiry_policy, earned_ns, "UTC")
    since = ns(spendable_from or earned)
    conversion = name_id("conversion", name)
    return Lot(
        name_id("lot", name), "conversion", conversion, conversion, NO_ID, ANN, TERMS,
        "2026-01", name_id("rule", "r1"), earned_ns, since, expires, points, points,
    )  # fmt: skip


def taken(lots: list[Lot], points: int, at: str) -> list[int]:
    state = LedgerState(KEYS.audit, rules_of(rulebook().programme, NO_ID))
    for lot in lots:
        state.put_lot(lot)
    parts, _ = shares(state.spendable(state.member(ANN), ns(at)), points)
    by_lot = {lot.lot_id: part for lot, part in parts}
    return [by_lot.get(lot.lot_id, 0) for lot in lots]


def test_the_worked_example_of_expiry() -> None:
    """Lot A 100 earned 2024-03-05, lot B 50 earned 2025-02-01; 120 spent on 2026-06-01."""
    lots = [a_lot("B", "2025-02-01", 50), a_lot("A", "2024-03-05", 100)]
    assert taken(lots, 120, "2026-06-01") == [20, 100]
    assert taken(lots, 120, "2027-01-01") == [50, 0], "A has lapsed"
    assert taken(lots, 120, "2024-12-31") == [0, 100], "B was not earned yet"


def test_what_may_not_be_spent_yet_is_left_alone() -> None:
    lots = [a_lot("A", "2026-01-01", 10, "2026-07-01"), a_lot("B", "2026-02-01", 10)]
    assert taken(lots, 15, "2026-06-30") == [0, 10]
    assert taken(lots, 15, "2026-07-01") == [10, 5]


def test_order_is_expiry_then_age_then_id() -> None:
    one, two, twin = (a_lot(name, "2026-01-02", 1) for name in "ABT")
    two.earned_ns = ns("2026-01-01")
    late = a_lot("C", "2025-01-01", 1)
    late.expires_ns = one.expires_ns + DAY_NS
    twin.lot_id = bytes(16)
    assert sorted([late, one, two, twin], key=spending_key) == [two, twin, one, late]


def test_a_lot_belongs_to_one_conversion_and_member() -> None:
    pairs = [(c, m) for c in "abc" for m in ("ann", "bob")]
    made = {
        lot_id(KEYS.audit, programme, name_id("conversion", c), name_id("member", m), at)
        for c, m in pairs
        for programme in ("club", "other")
        for at in (0, 1, 2)
    }
    assert len(made) == 6 * len(pairs), "a transfer makes several lots of one cause"
    assert lot_id(KEYS.visit, "club", name_id("conversion", "a"), ANN) not in made


def test_room_is_what_is_spent_elsewhere() -> None:
    lot = a_lot("A", "2026-01-01", 100)
    assert lot.room == 0
    lot.remaining, lot.held, lot.lapsed = 20, 30, 10
    assert lot.room == 40
    lot.amount = 50
    assert lot.room == -10, "a conversion may be taken back while its points are held"
    assert lot.dates == (lot.earned_ns, lot.spendable_from_ns, lot.expires_ns)


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 300))
def test_taking_takes_what_there_is_and_no_more(amounts: list[int], asked: int) -> None:
    lots = [a_lot(str(n), "2026-01-01", points) for n, points in enumerate(amounts)]
    parts, missing = shares(lots, asked)
    given_up = sum(part for _, part in parts)
    assert given_up + missing == asked
    assert given_up == min(asked, sum(amounts))
    assert all(0 < part <= lot.remaining for lot, part in parts)
    # Every lot but the last one named is taken whole: the order is kept.
    assert all(part == lot.remaining for lot, part in parts[:-1])
    assert [lot.remaining for lot in lots] == amounts, "nothing is taken yet"


# Lots that are dated by what the member did


def idle(state: LedgerState, name: str, earned: str, dated: str = "") -> Lot:
    lot = a_lot(name, earned, 10)
    lot.terms = state.rules.terms
    lot.expires_ns = ns(dated) if dated else END_OF_TIME
    state.put_lot(lot)
    return lot


@pytest.fixture
def state() -> LedgerState:
    made = LedgerState(KEYS.audit, rules_of(rulebook(expiry="inactivity(12)").programme))
    made.put_member(Member(1, ANN, active_ns=ns("2026-05-10T12:00")), (0, -30, 0, 0))
    return made


def test_activity_dates_lots_that_have_no_date(state: LedgerState) -> None:
    """The member's last activity, or the earning where that is later; an own date is kept."""
    old = idle(state, "A", "2025-01-01")
    young = idle(state, "B", "2026-07-01")
    graced = idle(state, "C", "2024-01-01", "2026-06-01")
    policy, zone = state.rules.terms.expiry_policy, state.rules.timezone
    assert state.expiry_of(old) == inactive_ns(policy, ns("2026-05-10T12:00"), zone)
    assert state.expiry_of(old) == ns("2027-05-10T22:00")
    assert state.expiry_of(young) == inactive_ns(policy, ns("2026-07-01"), zone)
    assert state.expiry_of(graced) == ns("2026-06-01")
    assert state.in_spending_order([young, old, graced]) == [graced, old, young]
    member = state.members[ANN]
    assert state.spendable(member, ns("2026-06-01")) == [old]
    assert state.spendable(member, ns("2027-05-10T21:59:59")) == [old, young]
    assert state.spendable(member, ns("2027-05-10T22:00")) == [young]
