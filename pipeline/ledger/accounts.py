"""Accounts, entry kinds and the period an entry belongs to.

A positive amount debits an account, a negative one credits it. Points are a promise of the
programme, so a member's `pending`, `available` and `reserved` stand on the credit side (negative
when there are points), `debt` and `programme:issued` on the debit side. `balance_shown` turns the
sign for people. Money: the partner owes its commission (`receivable`, debit), out of which come the
cost of the points and the margin (both credit).
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from pipeline.model.identifiers import id_text

ISSUED = "programme:issued"
COST_OF_POINTS = "programme:cost_of_points"
REDEMPTIONS = ("service", "gift", "cash", "partner", "exchange")
OTHER_REDEMPTION = "other"
DEBIT_SIDE = (":debt", ":receivable", ISSUED)


class EntryKind(StrEnum):
    """Why a transfer moved points or money."""

    EARN_PENDING = "earn_pending"  # issued -> pending
    CONFIRM = "confirm"  # pending -> available; the rest of a partial one returns to issued
    CANCEL_PENDING = "cancel_pending"  # pending -> issued
    EARN = "earn"  # issued -> available, no hold
    ADJUST_DELTA = "adjust_delta"  # the difference between two targets of one standing
    REVERSE = "reverse"  # available (and debt) -> issued, after confirmation
    DEBT_RECOVERY = "debt_recovery"  # available -> debt, out of the next credit
    RESERVE = "reserve"  # available -> reserved
    COMMIT = "commit"  # reserved -> redeemed


class MemberAccounts(NamedTuple):
    """The four accounts of one member."""

    pending: str
    available: str
    reserved: str
    debt: str


@lru_cache(maxsize=65536)
def member_accounts(subscriber_id: bytes) -> MemberAccounts:
    """The names of a member's accounts."""
    member = f"member:{id_text(subscriber_id)}:"
    return MemberAccounts(*(member + name for name in MemberAccounts._fields))


@lru_cache(maxsize=4096)
def money_accounts(partner: str) -> tuple[str, str, str]:
    """Receivable, cost of points and margin for one partner's conversions."""
    return f"partner:{partner}:receivable", COST_OF_POINTS, f"margin:{partner}"


def redeemed_account(kind: str) -> str:
    """Where spent points go; a kind that is not on the list goes to `other`, never nowhere."""
    return f"programme:redeemed:{kind if kind in REDEMPTIONS else OTHER_REDEMPTION}"


def balance_shown(account: str, balance: int) -> int:
    """A balance with the sign people expect: what is there is positive, on either side."""
    return balance if account.endswith(DEBIT_SIDE) else -balance
