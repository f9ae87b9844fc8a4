"""Accounts: their names, their owners, and the sign people see."""

from __future__ import annotations

import pytest

from pipeline.ledger.accounts import (
    BUCKETS,
    KIND_WORDS,
    Bucket,
    EntryKind,
    balance_shown,
    exchange_accounts,
    member_accounts,
    money_accounts,
    redeemed_account,
    stock_accounts,
)
from pipeline.ledger.state import Member
from pipeline.model.identifiers import id_text
from tests.ledger.stories import name_id


def test_a_member_has_four_accounts() -> None:
    ann = name_id("member", "ann")
    names = member_accounts(ann)
    assert names.available == f"member:{id_text(ann)}:available"
    assert [name.rpartition(":")[2] for name in names] == [
        "pending",
        "available",
        "reserved",
        "debt",
    ]
    assert set(names).isdisjoint(member_accounts(name_id("member", "bob")))


def test_members_accounts_are_numbers_of_their_own() -> None:
    """Above zero, four to a member, so that a number tells the member and the bucket."""
    numbers = [Member(n, bytes(16)).account(bucket) for n in (1, 2, 3) for bucket in Bucket]
    assert len(set(numbers)) == len(numbers) == 3 * BUCKETS
    assert min(numbers) > 0
    assert [divmod(number, BUCKETS) for number in numbers[4:6]] == [(2, 0), (2, 1)]
    assert tuple(bucket.name.lower() for bucket in Bucket) == member_accounts(bytes(16))._fields


def test_kinds_have_numbers_that_stay() -> None:
    """They are in every book: a number is never given anew."""
    assert list(KIND_WORDS) == list(range(1, len(EntryKind) + 1))
    assert (EntryKind.EARN_PENDING, EntryKind.COMMIT, EntryKind.STOCK) == (1, 9, 22)
    assert KIND_WORDS[EntryKind.MANUAL_ADJUST] == "manual_adjust"


def test_gifts_and_exchanges_have_accounts_and_units() -> None:
    *accounts, unit = stock_accounts("cup")
    assert unit == "stock:cup"
    assert accounts == [f"stock:cup:{where}" for where in ("supplied", "free", "held", "gone")]
    assert exchange_accounts("miles") == (
        "exchange:miles:owed", "exchange:miles:owed_to_us", "exchange:miles:settled",
    )  # fmt: skip


def test_money_is_by_partner_and_the_cost_is_the_programmes() -> None:
    receivable, cost, margin = money_accounts("acme-shop")
    assert receivable == "partner:acme-shop:receivable"
    assert margin == "margin:acme-shop"
    assert money_accounts("bolt-mobile")[1] == cost == "programme:cost_of_points"


@pytest.mark.parametrize(
    ("account", "balance", "shown"),
    [
        ("member:x:available", -40, 40),
        ("member:x:pending", -40, 40),
        ("member:x:debt", 6, 6),
        ("programme:issued", 40, 40),
        ("programme:redeemed:gift", -30, 30),
        ("partner:acme-shop:receivable", 100, 100),
        ("margin:acme-shop", -60, 60),
        ("programme:lapsed", -5, 5),
        ("programme:forfeited", -5, 5),
        ("stock:cup:free", 3, 3),
        ("stock:cup:held", 2, 2),
        ("stock:cup:gone", 1, 1),
        ("stock:cup:supplied", -6, 6),
        ("exchange:miles:owed", -21, 21),
        ("exchange:miles:owed_to_us", 7, 7),
    ],
)
def test_what_is_there_shows_as_positive(account: str, balance: int, shown: int) -> None:
    assert balance_shown(account, balance) == shown


def test_redemptions_are_of_a_closed_list() -> None:
    assert redeemed_account("cash") == "programme:redeemed:cash"
    assert redeemed_account("exchange") == "programme:redeemed:exchange"
    assert redeemed_account("../x") == "programme:redeemed:other"
