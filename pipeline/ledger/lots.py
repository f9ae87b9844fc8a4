"""Lots: which points a member holds, from which conversion, under which terms.

There is one lot per conversion and member; its id is a hash of both, so a correction, a reversal
and a re-approval all find the same lot. `amount` is what the conversion stands for now, `remaining`
what of it can still be spent: 0 <= remaining <= amount. Spending lowers `remaining`; a correction
moves both.

Spending order: nearest expiry, then earliest earned, then lot id.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.ledger.terms import Terms
from pipeline.ledger.transfers import LotMove
from pipeline.model.identifiers import digest


class Lot(NamedTuple):
    """Points of one member from one conversion; times are UTC nanoseconds."""

    lot_id: bytes
    conversion_key: bytes
    subscriber_id: bytes
    terms: Terms
    contract_version: str
    rule_version: bytes
    earned_ns: int
    spendable_from_ns: int
    expires_ns: int
    amount: int
    remaining: int


def lot_id(key: bytes, programme: str, conversion_key: bytes, subscriber_id: bytes) -> bytes:
    """The id of the lot that a conversion gives to a member."""
    return digest(key, "lot", programme, conversion_key, subscriber_id)


def spending_key(lot: Lot) -> tuple[int, int, bytes]:
    """Sorts lots into the spending order."""
    return lot.expires_ns, lot.earned_ns, lot.lot_id


def spendable(lots: Iterable[Lot], at_ns: int) -> list[Lot]:
    """The lots that may be spent at a time, in spending order."""
    return sorted(
        (lot for lot in lots if lot.remaining and lot.spendable_from_ns <= at_ns < lot.expires_ns),
        key=spending_key,
    )


def take(lots: Iterable[Lot], points: int) -> tuple[list[LotMove], int]:
    """Take points from lots in the order given; the moves, and how many points were not there."""
    moves = []
    for lot in lots:
        if not points:
            break
        taken = min(points, lot.remaining)
        if taken:
            moves.append(LotMove(lot.lot_id, 0, -taken))
            points -= taken
    return moves, points
