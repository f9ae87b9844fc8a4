"""Ids follow from causes, and the chain notices any change of any column."""

from __future__ import annotations

from typing import Any, get_type_hints

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.transfers import (
    FIRST_LINK,
    MAX_LEGS,
    Cause,
    Header,
    Leg,
    entry_id,
    entry_link,
    header_bytes,
    transfer_id,
    transfers_of_cause,
    transfers_of_entry,
    unbalanced,
)
from pipeline.model.identifiers import NO_ID
from tests.ledger.stories import KEYS, name_id

KEY = KEYS.audit
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
IDS = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(-(2**63), 2**63 - 1)


def column(name: str) -> st.SearchStrategy[Any]:
    kind = get_type_hints(Header)[name]
    return {bytes: IDS, int: NUMBERS, str: WORDS}[kind]


HEADERS = st.tuples(*map(column, Header._fields)).map(Header._make)


def cause(name: str, version: int) -> Cause:
    return Cause(
        "conversion", name_id("conversion", name), version, 0, "", NO_ID, "", NO_ID, "", NO_ID
    )


def test_ids_tell_causes_numbers_and_steps_apart() -> None:
    made = [
        transfer_id(KEY, programme, cause(name, version), step)
        for programme in ("club", "other")
        for name in "ab"
        for version in (1, 2)
        for step in (0, 1)
    ]
    assert len(set(made)) == len(made)
    assert transfer_id(KEY, "club", cause("a", 1), 0) == made[0]
    assert transfer_id(KEYS.visit, "club", cause("a", 1), 0) not in made
    assert transfer_id(KEY, "club", cause("a", 1)._replace(kind="order"), 0) not in made


def test_the_transfers_of_a_cause_can_be_listed() -> None:
    listed = transfers_of_cause(KEY, "club", "conversion", name_id("conversion", "a"), 2)
    for version in (1, 2):
        for step in range(4):
            assert transfer_id(KEY, "club", cause("a", version), step) in listed
    assert transfer_id(KEY, "club", cause("a", 3), 0) not in listed


@given(IDS, st.integers(0, MAX_LEGS - 1))
def test_an_entry_leads_to_its_transfer(transfer: bytes, leg: int) -> None:
    entries = [entry_id(transfer, number) for number in range(MAX_LEGS)]
    assert len({transfer, *entries}) == MAX_LEGS + 1
    assert transfers_of_entry(entries[leg])[leg] == transfer


@given(HEADERS, st.sampled_from(Header._fields), st.data())
def test_the_chain_sees_every_column(header: Header, name: str, data: st.DataObject) -> None:
    other = header._replace(**{name: data.draw(column(name))})
    leg = Leg("programme:issued", "PTS", 40)
    links = {entry_link(KEY, FIRST_LINK, header_bytes(h), 1, 0, leg) for h in (header, other)}
    assert len(links) == (1 if header == other else 2)


@given(HEADERS, HEADERS)
def test_no_two_headers_look_alike(one: Header, two: Header) -> None:
    assert (header_bytes(one) == header_bytes(two)) == (one == two)


def test_the_chain_sees_the_leg_its_place_and_the_one_before() -> None:
    leg = Leg("a", "PTS", 1)
    made = [
        entry_link(KEY, FIRST_LINK, b"header", 1, 0, leg),
        entry_link(KEYS.visit, FIRST_LINK, b"header", 1, 0, leg),
        entry_link(KEY, bytes(31) + b"\1", b"header", 1, 0, leg),
        entry_link(KEY, FIRST_LINK, b"header", 2, 0, leg),
        entry_link(KEY, FIRST_LINK, b"header", 1, 1, leg),
        entry_link(KEY, FIRST_LINK, b"header", 1, 0, leg._replace(amount=-1)),
        entry_link(KEY, FIRST_LINK, b"header", 1, 0, leg._replace(account="b")),
        entry_link(KEY, FIRST_LINK, b"header", 1, 0, leg._replace(commodity="EUR")),
    ]
    assert len(set(made)) == len(made)


def test_legs_balance_by_commodity() -> None:
    assert unbalanced((Leg("a", "PTS", 5), Leg("b", "PTS", -5), Leg("c", "EUR", 0))) == {}
    assert unbalanced((Leg("a", "PTS", 5), Leg("b", "EUR", -5))) == {"PTS": 5, "EUR": -5}
