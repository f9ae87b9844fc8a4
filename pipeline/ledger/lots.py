"""Lots: which points a member holds, where they come from, under which terms.

There is one lot per conversion and member; its id is a hash of both, so a correction, a reversal
and a re-approval all find the same lot. Other causes (a manual adjustment, an import, a transfer,
an exchange) make lots of their own, numbered within the cause. Four numbers say where the points of
a lot are:

    amount      granted by its cause, as it stands now
    remaining   free to be spent
    held        in a reservation
    lapsed      expired unused
    the rest    was spent, passed on or taken back elsewhere

    0 <= remaining, held, lapsed;  remaining + held + lapsed <= amount

Spending order: nearest expiry, then earliest earned, then lot id.

An activity-based validity does not date its lots: `expires_ns` is the end of time in the row, and
the date follows from the member's last activity (`expiry_of`), so that a purchase rewrites no lot.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.ledger.terms import Terms
from pipeline.model.identifiers import digest


class LotDates(NamedTuple):
    """The dates of a lot, UTC nanoseconds."""

    earned_ns: int
    spendable_from_ns: int
    expires_ns: int


class Lot:
    """Points of one member from one cause; times are UTC nanoseconds.

    `changes` counts lapses and reinstatements, which have the lot as their cause; `lapsed_ns` is
    the date of the last lapse, `lapsed_last` how many of the lapsed points ran out then.
    `parent_lot_id` is the giver's lot where the points came by a
    transfer.
    """

    __slots__ = (
        "amount", "cause_id", "cause_kind", "changes", "contract_version", "conversion_key",
        "earned_ns", "expires_ns", "held", "lapsed", "lapsed_last", "lapsed_ns", "lot_id",
        "parent_lot_id", "remaining", "rule_version", "spendable_from_ns", "stored",
        "subscriber_id", "terms",
    )  # fmt: skip

    def __init__(
        self,
        lot_id: bytes,
        cause_kind: str,
        cause_id: bytes,
        conversion_key: bytes,
        parent_lot_id: bytes,
        subscriber_id: bytes,
        terms: Terms,
        contract_version: str,
        rule_version: bytes,
        earned_ns: int,
        spendable_from_ns: int,
        expires_ns: int,
        amount: int = 0,
        remaining: int = 0,
        held: int = 0,
        lapsed: int = 0,
        changes: int = 0,
        lapsed_ns: int = 0,
        lapsed_last: int = 0,
        stored: bool = False,
    ) -> None:
        self.lot_id, self.cause_kind, self.cause_id = lot_id, cause_kind, cause_id
        self.conversion_key, self.parent_lot_id = conversion_key, parent_lot_id
        self.subscriber_id, self.terms = subscriber_id, terms
        self.contract_version, self.rule_version = contract_version, rule_version
        self.earned_ns, self.spendable_from_ns = earned_ns, spendable_from_ns
        self.expires_ns = expires_ns
        self.amount, self.remaining, self.held, self.lapsed = amount, remaining, held, lapsed
        self.changes, self.lapsed_ns, self.lapsed_last = changes, lapsed_ns, lapsed_last
        self.stored = stored

    @property
    def room(self) -> int:
        """How many points of its amount are neither there nor lapsed: so many may come back."""
        return self.amount - self.remaining - self.held - self.lapsed

    @property
    def dates(self) -> LotDates:
        """Its dates."""
        return LotDates(self.earned_ns, self.spendable_from_ns, self.expires_ns)

    def __repr__(self) -> str:
        return (
            f"Lot({self.lot_id.hex()[:8]} {self.cause_kind} {self.remaining}/{self.amount}"
            f" held {self.held} lapsed {self.lapsed})"
        )


def lot_id(key: bytes, programme: str, cause_id: bytes, subscriber_id: bytes, at: int = 0) -> bytes:
    """The id of the lot that a cause gives to a member; `at` numbers those of one cause."""
    if at:
        return digest(key, "lot", programme, cause_id, subscriber_id, at)
    return digest(key, "lot", programme, cause_id, subscriber_id)


def spending_key(lot: Lot) -> tuple[int, int, bytes]:
    """Sorts lots into the spending order."""
    return lot.expires_ns, lot.earned_ns, lot.lot_id
