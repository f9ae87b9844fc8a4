"""Ids follow from causes, and the chain notices any change of any byte of a posting."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.ledger.transfers import (
    FIRST_LINK,
    LEGS,
    MAX_STEPS,
    Booking,
    Cause,
    LotMove,
    Origin,
    Transfer,
    entry_id,
    link_of,
    posting_bytes,
    posting_id,
    postings_of_entry,
    postings_of_transfer,
    shared_bytes,
    transfer_id,
)
from tests.ledger.stories import KEYS, name_id

KEY = KEYS.audit
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
IDS = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
AMOUNTS = st.integers(1, 2**63 - 1)
VALUES = {bytes: IDS, int: NUMBERS, str: WORDS}


def rows(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any row of texts, ids and numbers."""
    hints = get_type_hints(kind)
    return st.tuples(*(VALUES[hints[name]] for name in kind._fields)).map(kind._make)


ORIGINS, BOOKINGS = rows(Origin), rows(Booking)
HEADS = st.tuples(IDS, st.tuples(IDS, NUMBERS, NUMBERS, IDS, IDS, IDS), ORIGINS, BOOKINGS)
Head = tuple[bytes, tuple[Any, ...], Origin, Booking]


def bytes_of(head: Head) -> bytes:
    identifier, cause, origin, booking = head
    made = Cause(*cause, origin)
    return posting_bytes(identifier, made, shared_bytes(origin), shared_bytes(booking))


# Ids


def test_ids_tell_causes_numbers_and_steps_apart() -> None:
    made = [
        transfer_id(posting_id(KEY, programme, kind, name_id("cause", name), version), step)
        for programme in ("club", "other")
        for kind in ("conversion", "order", "command", "lot")
        for name in "ab"
        for version in (1, 2)
        for step in range(MAX_STEPS)
    ]
    assert len(set(made)) == len(made)
    assert posting_id(KEY, "club", "conversion", name_id("cause", "a"), 1) == made[0]
    assert posting_id(KEYS.visit, "club", "conversion", name_id("cause", "a"), 1) not in made


@given(IDS, st.integers(0, MAX_STEPS - 1), st.integers(0, LEGS - 1))
def test_entries_and_transfers_lead_to_their_posting(posting: bytes, step: int, leg: int) -> None:
    transfers = [transfer_id(posting, number) for number in range(MAX_STEPS)]
    entries = [entry_id(transfer, side) for transfer in transfers for side in range(LEGS)]
    assert transfers[0] == posting
    assert len({*transfers, *entries}) == MAX_STEPS * (1 + LEGS)
    assert postings_of_transfer(transfers[step])[step] == posting
    assert postings_of_entry(entry_id(transfers[step], leg)).count(posting) == 1


# What a posting says, as bytes


@given(HEADS, HEADS)
def test_no_two_postings_say_the_same(one: Head, two: Head) -> None:
    assert (bytes_of(one) == bytes_of(two)) == (one == two)


@given(HEADS, st.data())
def test_every_value_of_a_posting_counts(head: Head, data: st.DataObject) -> None:
    """One value is changed: of the cause, of where it came from, of how it was booked."""
    identifier, cause, *shared = head
    part = data.draw(st.sampled_from(("id", "cause", "origin", "booking")))
    if part == "id":
        other: Any = (data.draw(IDS), cause, *shared)
    elif part == "cause":
        at = data.draw(st.integers(0, len(cause) - 1))
        value = data.draw(IDS if isinstance(cause[at], bytes) else NUMBERS)
        other = (identifier, (*cause[:at], value, *cause[at + 1 :]), *shared)
    else:
        at = ("origin", "booking").index(part)
        name = data.draw(st.sampled_from(shared[at]._fields))
        value = data.draw(VALUES[get_type_hints(type(shared[at]))[name]])
        shared[at] = shared[at]._replace(**{name: value})
        other = (identifier, cause, *shared)
    assert (bytes_of(head) == bytes_of(other)) == (head == other)


def test_texts_that_run_into_each_other_are_told_apart() -> None:
    plain = Booking(1, 2, "2026-03", bytes(16), "ann", "", "")
    other = plain._replace(actor="an", role="n")
    numbers = plain._replace(cut=11, booked_ns=2), plain._replace(cut=1, booked_ns=12)
    assert len({shared_bytes(row) for row in (plain, other, *numbers)}) == 4


# The chain

ACCOUNTS = {1: b"member one", 2: b"member two", -1: b"programme:issued\0PTS", -2: b"x\0EUR"}
ORIGIN = Origin("conversion", "acme", "acme/percent", bytes(16), "2026-01", bytes(16))
BOOKING = Booking(1, 2, "2026-03", bytes(16), "ann", "agent", "north")
PLAIN: Head = (bytes(16), (b"c" * 16, 1, 0, b"m" * 16, bytes(16), bytes(16)), ORIGIN, BOOKING)
TRANSFERS = st.lists(
    st.builds(
        Transfer,
        st.integers(0, 2**16 - 1),
        st.sampled_from(sorted(ACCOUNTS)),
        st.sampled_from(sorted(ACCOUNTS)),
        AMOUNTS,
    ),
    min_size=1,
    max_size=4,
)
MOVES = st.lists(
    st.builds(LotMove, st.integers(0, 3), IDS, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=4
)


def link(
    transfers: list[Transfer],
    moves: list[LotMove],
    names: dict[int, bytes] = ACCOUNTS,
    head: Head = PLAIN,
    previous: bytes = FIRST_LINK,
    key: bytes = KEY,
) -> bytes:
    return link_of(key, previous, bytes_of(head), transfers, names, moves)


@given(TRANSFERS, MOVES, TRANSFERS, MOVES)
def test_no_two_postings_have_one_link(
    transfers: list[Transfer], moves: list[LotMove], others: list[Transfer], more: list[LotMove]
) -> None:
    same = (transfers, moves) == (others, more)
    assert (link(transfers, moves) == link(others, more)) == same


@given(TRANSFERS, MOVES, st.data())
def test_every_value_of_a_transfer_and_of_a_lot_move_counts(
    transfers: list[Transfer], moves: list[LotMove], data: st.DataObject
) -> None:
    rows: list[Any] = [*transfers, *moves]
    at = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from(rows[at]._fields))
    limits = {"kind": (0, 2**16 - 1), "step": (0, 3), "amount": (1, 2**63 - 1)}
    if name == "lot_id":
        value: Any = data.draw(IDS)
    elif name in ("debit", "credit"):
        value = data.draw(st.sampled_from(sorted(ACCOUNTS)))
    else:
        value = data.draw(st.integers(*limits.get(name, (-(2**63), 2**63 - 1))))
    assume(value != getattr(rows[at], name))
    before = link(transfers, moves)
    rows[at] = rows[at]._replace(**{name: value})
    assert link(rows[: len(transfers)], rows[len(transfers) :]) != before


@given(TRANSFERS, MOVES, st.sampled_from(sorted(ACCOUNTS)), st.binary(max_size=24))
def test_the_name_of_an_account_counts_and_its_number_does_not(
    transfers: list[Transfer], moves: list[LotMove], number: int, name: bytes
) -> None:
    used = any(number in (t.debit, t.credit) for t in transfers)
    same = not used or name == ACCOUNTS[number]
    assert (link(transfers, moves, {**ACCOUNTS, number: name}) == link(transfers, moves)) == same
    again = {number + 10: name for number, name in ACCOUNTS.items()}
    moved = [t._replace(debit=t.debit + 10, credit=t.credit + 10) for t in transfers]
    assert link(moved, moves, again) == link(transfers, moves)


ONE = [Transfer(1, 1, -1, 40)]
MOVE = LotMove(0, b"l" * 16, 40, 40, 0, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"key": KEYS.visit},
        {"previous": bytes(31) + b"\1"},
        {"head": (b"p" * 16, *PLAIN[1:])},
        {"head": (*PLAIN[:2], ORIGIN._replace(consent_id=b"n" * 16), BOOKING)},
        {"head": (*PLAIN[:3], BOOKING._replace(scope="south"))},
        {"transfers": [*ONE, *ONE]},
        {"transfers": []},
        {"transfers": [ONE[0]._replace(debit=-1, credit=1)]},
        {"moves": []},
        {"moves": [MOVE, MOVE._replace(step=1)]},
        {"moves": [MOVE._replace(remaining=0, held=40)]},
    ],
)
def test_the_chain_sees_its_key_the_link_before_and_all_that_is_in_it(changed: dict) -> None:
    plain: dict[str, Any] = {"transfers": ONE, "moves": [MOVE]}
    assert link(**plain) == link(**plain)
    assert link(**plain | changed) != link(**plain)


@given(st.permutations([*ONE, Transfer(2, 2, -1, 5), Transfer(2, 2, -1, 6)]))
def test_the_order_of_transfers_counts(order: list[Transfer]) -> None:
    plain = [*ONE, Transfer(2, 2, -1, 5), Transfer(2, 2, -1, 6)]
    assert (link(order, []) == link(plain, [])) == (order == plain)
