"""Accounts: their names, their owners, and the sign people see."""

from __future__ import annotations

import pytest

from pipeline.ledger.accounts import (
    balance_shown,
    member_accounts,
    money_accounts,
    redeemed_account,
)
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
    ],
)
def test_what_is_there_shows_as_positive(account: str, balance: int, shown: int) -> None:
    assert balance_shown(account, balance) == shown


def test_redemptions_are_of_a_closed_list() -> None:
    assert redeemed_account("cash") == "programme:redeemed:cash"
    assert redeemed_account("../x") == "programme:redeemed:other"
