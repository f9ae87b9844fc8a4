"""Intake: every message becomes one row, good or parked with its reason; never an exception."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.addresses import parse_prefix, prefix_hash
from pipeline.model.batches import MessageBatch, PurchaseBatch
from pipeline.model.columns import TextColumn, columns_of, concat, ids, no_ids
from pipeline.model.faults import Fault
from pipeline.model.identifiers import digest, id_text
from pipeline.model.tally import Tally
from pipeline.model.texts import hashed_reference, kept_reference
from pipeline.model.words import AmountMode, OrderBy, ParkReason, Status
from pipeline.score.intake import STATUS_WORDS, Intake
from tests.naive import intake as naive
from tests.score.making import (
    KEYS,
    NOON,
    a_partner,
    a_rulebook,
    an_accrual,
    an_id,
    messages,
)

RULES = a_rulebook(
    a_partner("acme-shop"),
    a_partner("bolt", accruals=(an_accrual(kind="fixed", action="lead", points=5),)),
    a_partner("closed", status="paused"),
    a_partner("yen", currency="JPY"),
)


class Members:
    """Two members with tokens at acme-shop."""

    subscriber_ids = ids([an_id("ann"), an_id("bob")])

    def by_token(self, partner: str, token: str) -> int:
        tokens = {("acme-shop", "token of ann"): 0, ("acme-shop", "token of bob"): 1}
        return tokens.get((partner, token), -1)


def an_intake() -> Intake:
    return Intake(RULES, KEYS, Members())


def push(*rows: dict[str, Any], intake: Intake | None = None) -> PurchaseBatch:
    return (intake or an_intake()).push(messages(*rows), Tally())


def one(**changes: Any) -> dict[str, Any]:
    """The row of one message as a dict."""
    batch = push(changes)
    values = {}
    for column in columns_of(PurchaseBatch):
        found = getattr(batch, column.name)
        values[column.name] = found.text(0) if isinstance(found, TextColumn) else found[0]
    return values


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"fault": Fault.ROW_MALFORMED}, ParkReason.MALFORMED, "the line could not be taken apart"),
        ({"kind": "gift"}, ParkReason.MALFORMED, "kind: not one we know: 'gift'"),
        ({"amount_mode": "more"}, ParkReason.MALFORMED, "amount_mode: expected absolute or delta"),
        ({"sequence": "-1"}, ParkReason.MALFORMED, "sequence: not a whole number"),
        ({"items": "{"}, ParkReason.MALFORMED, "items: not JSON"),
        ({"items": "[" * 9000}, ParkReason.MALFORMED, "items: not JSON"),
        ({"items": "[1]"}, ParkReason.MALFORMED, "items: not a list of objects"),
        ({"address": "here"}, ParkReason.MALFORMED, "address: not an address"),
        ({"port": "65536"}, ParkReason.MALFORMED, "port: not a port"),
        ({"coupon": "a\x00b"}, ParkReason.MALFORMED, "coupon: control characters"),
        ({"order_ref": "x" * 129}, ParkReason.MALFORMED, "order_ref: over 128 characters"),
        ({"conversion_id": ""}, ParkReason.MISSING_KEY, "a partner and a conversion id are needed"),
        ({"partner": ""}, ParkReason.MISSING_KEY, "a partner and a conversion id are needed"),
        (
            {"amount": "12,50"},
            ParkReason.BAD_AMOUNT,
            "amount: not a decimal number of EUR with its decimals",
        ),
        (
            {"amount": "1.005"},
            ParkReason.BAD_AMOUNT,
            "amount: not a decimal number of EUR with its decimals",
        ),
        (
            {"commission": "1e3"},
            ParkReason.BAD_AMOUNT,
            "commission: not a decimal number of EUR with its decimals",
        ),
        (
            {"amount": "10000000000.01"},
            ParkReason.BAD_AMOUNT,
            "amount: larger than any order",
        ),
        (
            {"amount": "", "commission": "1"},
            ParkReason.BAD_AMOUNT,
            "a commission without the amount it is for",
        ),
        ({"status": "maybe"}, ParkReason.UNKNOWN_STATUS, "not a status we know: 'maybe'"),
        ({"status": ""}, ParkReason.UNKNOWN_STATUS, "not a status we know"),
        ({"status": "call +1 202 555 0100"}, ParkReason.UNKNOWN_STATUS, "not a status we know"),
        ({"currency": "XTS"}, ParkReason.UNKNOWN_CURRENCY, "not a currency we know: 'XTS'"),
        ({"currency": "usd"}, ParkReason.UNKNOWN_CURRENCY, "USD, but the contract is in EUR"),
        ({"partner": "who"}, ParkReason.UNKNOWN_PARTNER, "no such partner: 'who'"),
        ({"partner": "closed"}, ParkReason.PARTNER_NOT_LIVE, "closed is paused"),
        (
            {"fault": Fault.TIME_BAD, "event_ns": 0},
            ParkReason.BAD_TIME,
            "a time is not UTC nanoseconds and not ISO 8601 in UTC",
        ),
    ],
)
def test_parks(changes: dict[str, Any], reason: ParkReason, detail: str) -> None:
    row = one(**changes)
    assert (ParkReason(row["parked"]), row["parked_detail"]) == (reason, detail)
    assert row["raw"]
    assert not row["amount_minor"]


def test_a_good_row() -> None:
    row = one(
        partner="ACME-shop",
        conversion_id="C-7",
        line_id="2",
        order_ref="R-7",
        click_ref=id_text(an_id("click")),
        status="Confirmed",
        kind="Order",
        amount="26.09",
        commission="2.09",
        currency="eur",
        coupon="SPRING",
        status_ns=NOON + 1,
        sequence="4",
        message_id="m-1",
    )
    assert (row["parked"], row["parked_detail"]) == (0, "")
    assert (row["partner"], row["conversion_id"], row["line_id"]) == ("acme-shop", "C-7", "2")
    assert (row["amount_minor"], row["commission_minor"], row["currency"]) == (2609, 209, "EUR")
    assert (row["status"], row["kind"]) == (Status.APPROVED, "sale")
    assert (row["amount_mode"], row["order_by"]) == (AmountMode.ABSOLUTE, OrderBy.SENDER)
    assert (row["status_ns"], row["sequence"]) == (NOON + 1, 4)
    assert row["click_id"].tobytes() == an_id("click")
    assert (row["order_ref"], row["coupon"]) == ("R-7", "SPRING")
    key = digest(KEYS.visit, "conversion", "acme-shop", "C-7", "2")
    assert row["conversion_key"].tobytes() == key
    assert row["message_id"].tobytes() == digest(KEYS.visit, "message", "acme-shop", "m-1")
    assert (row["id_given"], one()["id_given"]) == (1, 0)
    assert (row["row"], row["input"]) == (1, "purchases.tsv")


def test_status_words_are_those_of_the_table_by_hand() -> None:
    assert {word: int(status) for word, status in STATUS_WORDS.items()} == naive.WORDS


@pytest.mark.parametrize("word", sorted(naive.WORDS))
def test_status_words(word: str) -> None:
    assert one(status=word.upper())["status"] == naive.WORDS[word]


def test_a_bare_status_changes_no_amount() -> None:
    row = one(status="approved", amount="")
    assert (row["amount_mode"], row["amount_minor"]) == (AmountMode.DELTA, 0)


def test_a_correction_is_folded_into_what_it_corrects() -> None:
    sale, correction = push(
        {"conversion_id": "C-9"},
        {
            "conversion_id": "C-9b",
            "correction_of": "C-9",
            "amount": "-2.50",
            "amount_mode": "delta",
            "status": "adjusted",
        },
    ).conversion_key
    assert sale == correction
    assert one(conversion_id="C-9b", correction_of="C-9")["conversion_id"] == "C-9"


def test_lines_and_partners_are_conversions_of_their_own() -> None:
    batch = push({}, {"line_id": "1"}, {"partner": "bolt"}, {"conversion_id": "C-2"}, {})
    keys = [k.tobytes() for k in batch.conversion_key]
    assert len(set(keys)) == 4
    assert keys[0] == keys[4]


def test_kind_is_what_the_message_says() -> None:
    assert one(partner="bolt")["kind"] == ""
    assert one(partner="bolt", kind="sale")["kind"] == "sale"
    assert one(kind="Purchase")["kind"] == "sale"


def test_arrival_orders_what_the_sender_does_not() -> None:
    assert one()["order_by"] == OrderBy.ARRIVAL
    assert one(sequence="0")["order_by"] == OrderBy.ARRIVAL
    assert one(sequence="1")["order_by"] == OrderBy.SENDER
    assert one(status_ns=NOON)["order_by"] == OrderBy.SENDER


def test_a_token_names_the_member_now() -> None:
    assert one(member="token of bob")["member_id"].tobytes() == an_id("bob")
    assert one(member="token of eve")["member_id"].tobytes() == bytes(16)
    assert one(member="token of bob", partner="bolt")["member_id"].tobytes() == bytes(16)


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8:1:2::9", "2001:db8:1::/48"])
def test_an_address_is_kept_as_its_hash(address: str) -> None:
    row = one(address=address, at_ns=NOON - 3, port="4711")
    prefix = parse_prefix(address)
    assert prefix is not None
    assert row["match_hash"].tobytes() == prefix_hash(KEYS.address, *prefix)
    assert row["match_ns"] == NOON - 3
    assert row["member_id"].tobytes() == bytes(16)
    assert one(address=address)["match_ns"] == NOON
    assert one()["match_ns"] == 0


@pytest.mark.parametrize("parked", [{}, {"amount": "x"}])
@pytest.mark.parametrize("text", ["ann@isp.example", "198.51.100.10", "news.example", "Ann Muster"])
def test_what_tells_somebody_is_kept_as_its_hash(text: str, parked: dict[str, Any]) -> None:
    names = ("conversion_id", "line_id", "order_ref", "coupon", "correction_of")
    row = one(**dict.fromkeys(names, text), click_ref=text, **parked)
    assert bool(row["parked"]) is bool(parked)
    assert {row[name] for name in (*names, "click_ref")} == {kept_reference(text, KEYS.audit)}
    key = digest(KEYS.visit, "conversion", "acme-shop", text, text)
    assert row["conversion_key"].tobytes() == key, "a conversion is what the sender says it is"


def test_what_is_no_id_of_a_click_is_never_kept_in_clear() -> None:
    row = one(click_ref="wren-login")
    assert row["click_ref"] == hashed_reference("wren-login", KEYS.audit)
    assert row["click_id"].tobytes() == bytes(16)
    assert one(click_ref=id_text(an_id("click")))["click_ref"] == id_text(an_id("click"))
    assert one()["click_ref"] == ""


def test_items_keep_known_keys_as_text() -> None:
    items = [{"sku": "S1", "quantity": 2, "tax": 1e999, "buyer": "Ann", "amount": 4.10}, {}]
    text = json.dumps(items)
    kept = json.loads(one(items=text)["items"])
    assert kept == [{"sku": "S1", "quantity": "2", "amount": "4.1"}, {}]


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        ({"sku": "AB-12/3.x#4", "category": "shoes"}, ["sku", "category"]),
        ({"sku": "for Erika Muster", "category": "Gift for Erika"}, []),
        ({"sku": "198.51.100.10", "category": "news.example"}, []),
        ({"sku": "erika@shop.example", "category": "é"}, []),
        ({"sku": "x" * 65, "quantity": "two", "tax": "1" * 40}, []),
        ({"sku": "", "amount": "-4.10", "discount": 1}, ["amount", "discount"]),
    ],
)
def test_items_hold_codes_and_numbers(item: dict[str, Any], kept: list[str]) -> None:
    (found,) = json.loads(one(items=json.dumps([item]))["items"])
    assert found.keys() == set(kept)


def test_a_reason_is_a_plain_word_or_nothing() -> None:
    assert one(reason="out_of_stock")["reason"] == "out_of_stock"
    for text in ("returned by Erika Muster", "Erika@shop.example", "tel. 030 1234", "x" * 25):
        assert one(reason=text)["reason"] == ""


def test_other_currencies_have_their_own_decimals() -> None:
    assert one(partner="yen", amount="1999")["amount_minor"] == 1999
    assert one(partner="yen", amount="19.99")["parked"] == ParkReason.BAD_AMOUNT
    assert one(partner="yen", amount="1", currency="EUR")["parked"] == ParkReason.UNKNOWN_CURRENCY


def test_the_same_sender_message_twice_is_a_duplicate() -> None:
    batch = push(
        {"message_id": "m", "amount": "bad"},  # parked: does not use up its id
        {"message_id": "m"},
        {"message_id": "m"},
        {"message_id": "m", "amount": "11.00"},
        {"message_id": "m", "partner": "bolt"},
    )
    reasons = [ParkReason.BAD_AMOUNT, 0, ParkReason.DUPLICATE, ParkReason.DUPLICATE, 0]
    assert batch.parked.tolist() == reasons
    assert batch.parked_detail.to_list()[2:4] == [
        "the same message again",
        "its message id came before, with other content",
    ]


def test_messages_without_an_id_are_kept() -> None:
    batch = push({"raw": "a"}, {"raw": "a"}, {"raw": "a", "received_ns": NOON + 1})
    assert batch.parked.tolist() == [0, 0, 0]
    assert batch.message_id[0] == batch.message_id[1] != batch.message_id[2]


def test_state_survives_in_three_ways() -> None:
    first, again = {"message_id": "m"}, {"message_id": "m", "amount": "12.00"}
    intake = an_intake()
    rows = push(first, intake=intake)
    restored, remembered = an_intake(), an_intake()
    restored.restore(intake.snapshot())
    remembered.remember(rows)
    for later in (intake, restored, remembered):
        batch = push(again, first, {}, intake=later)
        assert batch.parked.tolist() == [ParkReason.DUPLICATE, ParkReason.DUPLICATE, 0]
        assert batch.parked_detail.text(1) == "the same message again"
    empty = an_intake()
    empty.restore(an_intake().snapshot())
    assert push(first, intake=empty).parked.tolist() == [0]


def test_counts_what_was_parked() -> None:
    tally = Tally()
    an_intake().push(messages({}, {"amount": "x"}, {"amount": "y"}, {"status": "?"}), tally)
    assert tally.as_dict() == {
        "score": {"message": 4, "parked:bad_amount": 2, "parked:unknown_status": 1}
    }


def test_nothing_gives_nothing() -> None:
    assert len(push()) == 0


amounts = st.sampled_from(
    ["", "0", "1", "-1", "+1.5", "1.50", "1.500", "1.505", ".5", "5.", "1e3", "NaN", "٣", "1" * 15,
     "1" * 16, "9999999999.99", "10000000000", "10000000000.01", "1_0", " 1", "--1"]
) | st.from_regex(r"-?\d{1,9}(\.\d{1,4})?", fullmatch=True)  # fmt: skip


@given(
    st.sampled_from([*sorted(naive.WORDS), "", "maybe", "APPROVED"]),
    amounts,
    st.sampled_from(["", "absolute", "delta"]),
)
def test_equals_the_naive_twin(status: str, amount: str, mode: str) -> None:
    message = {"status": status, "amount": amount.strip(), "amount_mode": mode}
    row, expected = one(**message), naive.read(message)
    if expected is None:
        assert row["parked"]
    else:
        assert not row["parked"]
        assert (row["status"], row["amount_mode"], row["amount_minor"]) == expected


TEXTS = [c.name for c in columns_of(MessageBatch) if c.dtype is None]
NUMBERS = {
    "fault": st.sampled_from([0, 26, 27]),
    **dict.fromkeys(
        ("event_ns", "received_ns", "at_ns", "status_ns"), st.integers(-(2**63), 2**63 - 1)
    ),
}
good = {
    "partner": "acme-shop", "conversion_id": "C", "status": "new", "amount": "1", "kind": "sale",
    "currency": "EUR", "sequence": "3", "message_id": "m", "address": "192.0.2.1",
    "items": '[{"sku": "a"}]', "click_ref": id_text(an_id("x")), "amount_mode": "delta",
    "port": "80",
}  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(TEXTS), st.binary(max_size=40) | st.text(max_size=40)),
    st.fixed_dictionaries({}, optional=NUMBERS),
    st.integers(0, 3),
)
def test_any_bytes_are_parked_or_good(
    texts: dict[str, Any], numbers: dict[str, int], neighbours: int
) -> None:
    """Whatever stands in any field: no exception, and the good rows beside it stay good."""
    row = good | texts | numbers
    beside = [good | {"message_id": f"n{n}"} for n in range(neighbours)]
    batch = push(row, *beside)
    assert len(batch) == 1 + neighbours
    assert not batch.parked[1:].any()
    assert abs(int(batch.amount_minor[0])) <= 10**12
    if batch.parked[0]:
        assert batch.parked_detail.text(0)
    else:
        assert batch.conversion_key[0] != no_ids(1)[0]
        assert batch.status[0] in set(Status)
        assert batch.currency.text(0) == "EUR"
    for value in texts.values():
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        if len(raw) > 24:
            assert raw not in batch.parked_detail[0]


@given(st.lists(st.sampled_from("aabc"), max_size=8), st.integers(1, 8))
def test_how_messages_are_cut_changes_nothing(names: list[str], size: int) -> None:
    rows = [{"message_id": n, "amount": "bad" if n == "c" else "1"} for n in names]
    whole = push(*rows)
    batch, intake = messages(*rows), an_intake()
    parts = [intake.push(batch.slice(a, a + size), Tally()) for a in range(0, len(rows), size)]
    if parts:
        joined = concat(parts)
        assert joined.parked.tolist() == whole.parked.tolist()
        assert joined.message_id.tobytes() == whole.message_id.tobytes()
        assert np.array_equal(joined.row, whole.row)
