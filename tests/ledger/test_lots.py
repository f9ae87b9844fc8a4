"""Lots: the spending order, the worked example of it, and that taking takes what was asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.lots import Lot, lot_id, spendable, spending_key, take
from pipeline.ledger.terms import expires_ns, terms_of
from tests.ledger.stories import DAY_NS, KEYS, name_id, ns, rulebook

TERMS = terms_of(rulebook().programme)


def a_lot(name: str, earned: str, points: int, spendable_from: str = "") -> Lot:
    earned_ns = ns(earned)
    expires = expires_ns(TERMS.expiry_policy, earned_ns, "UTC")
    since = ns(spendable_from or earned)
    return Lot(
        name_id("lot", name), name_id("conversion", name), name_id("member", "ann"), TERMS,
        "2026-01", name_id("rule", "r1"), earned_ns, since, expires, points, points,
    )  # fmt: skip


def taken(lots: list[Lot], points: int, at: str) -> list[int]:
    moves, _ = take(spendable(lots, ns(at)), points)
    by_lot = {move.lot_id: -move.remaining_change for move in moves}
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
    one, two = a_lot("A", "2026-01-02", 1), a_lot("B", "2026-01-01", 1)
    late = a_lot("C", "2025-01-01", 1)._replace(expires_ns=one.expires_ns + DAY_NS)
    twin = one._replace(lot_id=bytes(16))
    assert sorted([late, one, two, twin], key=spending_key) == [two, twin, one, late]


def test_a_lot_belongs_to_one_conversion_and_member() -> None:
    pairs = [(c, m) for c in "abc" for m in ("ann", "bob")]
    made = {
        lot_id(KEYS.audit, "club", name_id("conversion", c), name_id("member", m)) for c, m in pairs
    }
    assert len(made) == len(pairs)
    assert made.isdisjoint(
        lot_id(KEYS.audit, "other", name_id("conversion", c), name_id("member", m))
        for c, m in pairs
    )


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 300))
def test_taking_takes_what_there_is_and_no_more(amounts: list[int], asked: int) -> None:
    lots = [a_lot(str(n), "2026-01-01", points) for n, points in enumerate(amounts)]
    moves, missing = take(lots, asked)
    given_up = -sum(move.remaining_change for move in moves)
    assert given_up + missing == asked
    assert given_up == min(asked, sum(amounts))
    assert all(move.amount_change == 0 and move.remaining_change < 0 for move in moves)
    held = {lot.lot_id: lot.remaining for lot in lots}
    assert all(-move.remaining_change <= held[move.lot_id] for move in moves)
    # Every lot but the last one named is taken whole: the order is kept.
    assert all(-move.remaining_change == held[move.lot_id] for move in moves[:-1])
