"""Accounts, entry kinds and the period an entry belongs to.

A transfer debits one account and credits another. Points are a promise of the programme, so a
member's `pending`, `available` and `reserved` stand on the credit side (negative when there are
points), `debt` and `programme:issued` on the debit side. `balance_shown` turns the sign for people.
Money: the partner owes its commission (`receivable`, debit), out of which come the cost of the
points and the margin (both credit). A gift's stock is a commodity of its own.

Within a book an account is a number. Those of members need no row of their own:

    member number x 4 + bucket     pending, available, reserved, debt of one member
    below zero                     a named account of one commodity, in the order of their opening
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from pipeline.model.identifiers import id_text

ISSUED = "programme:issued"
LAPSED = "programme:lapsed"
FORFEITED = "programme:forfeited"
TRANSIT = "programme:transit"  # between the two members of a transfer; nothing stays in it
COST_OF_POINTS = "programme:cost_of_points"
REDEMPTIONS = ("service", "gift", "cash", "partner", "exchange")
OTHER_REDEMPTION = "other"
DEBIT_SIDE = (":debt", ":receivable", ISSUED, ":owed_to_us", ":free", ":held", ":gone")


class EntryKind(IntEnum):
    """Why a transfer moved points, money or stock. Numbers are append-only."""

    EARN_PENDING = 1  # issued -> pending
    CONFIRM = 2  # pending -> available; the rest of a partial one returns to issued
    CANCEL_PENDING = 3  # pending -> issued
    EARN = 4  # issued -> available, no hold
    ADJUST_DELTA = 5  # the difference between two targets of one standing
    REVERSE = 6  # available (and lapsed, and debt) -> issued, after confirmation
    DEBT_RECOVERY = 7  # available -> debt, out of the next credit
    RESERVE = 8  # available -> reserved
    COMMIT = 9  # reserved -> redeemed
    RELEASE = 10  # reserved -> available
    REFUND = 11  # redeemed -> available
    EXPIRE = 12  # available -> lapsed
    REINSTATE = 13  # lapsed -> available
    TRANSFER = 14  # from one member to another, by way of transit
    CONVERT_OUT = 15  # into another programme's points
    CONVERT_IN = 16  # out of another programme's points
    MANUAL_ADJUST = 17  # by a person, with a reason
    MIGRATE_OPEN = 18  # issued -> available, one lot of a former programme
    FORFEIT = 19  # available -> forfeited
    RE_RATE = 20  # the difference that other rules make, approved
    SETTLE = 21  # the partner's money that goes with a conversion
    STOCK = 22  # gifts that may be ordered


KIND_WORDS = {int(kind): kind.name.lower() for kind in EntryKind}


class Bucket(IntEnum):
    """The accounts that a member has."""

    PENDING = 0
    AVAILABLE = 1
    RESERVED = 2
    DEBT = 3


BUCKETS = len(Bucket)
PENDING, AVAILABLE, RESERVED, DEBT = range(BUCKETS)


class MemberAccounts(NamedTuple):
    """The names of the four accounts of one member, by bucket."""

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


@lru_cache(maxsize=4096)
def stock_accounts(item: str) -> tuple[str, str, str, str, str]:
    """Supplied, free, held and gone of a gift, and the commodity that it is."""
    name = f"stock:{item}"
    return f"{name}:supplied", f"{name}:free", f"{name}:held", f"{name}:gone", name


@lru_cache(maxsize=256)
def exchange_accounts(exchange: str) -> tuple[str, str, str]:
    """What we owe another programme, what it owes us, and what stands against both."""
    name = f"exchange:{exchange}"
    return f"{name}:owed", f"{name}:owed_to_us", f"{name}:settled"


def touches_member(transfers: Iterable[Sequence[int]]) -> bool:
    """Does any of these transfers move points of a member?"""
    return any(transfer[1] > 0 or transfer[2] > 0 for transfer in transfers)


def balance_shown(account: str, balance: int) -> int:
    """A balance with the sign people expect: what is there is positive, on either side."""
    return balance if account.endswith(DEBIT_SIDE) else -balance
