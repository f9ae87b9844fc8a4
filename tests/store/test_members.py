"""What was known of members: the newest word on each time, below the position, in any order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.columns import ID_DTYPE, ids
from pipeline.rulebook.model import When
from pipeline.store.members import ask_members, members
from tests.score.making import DAY_NS, NOON, a_partner, a_rulebook, an_accrual, an_id
from tests.store.store_rows import Filled

FEW = settings(max_examples=min(20, settings.default.max_examples))
WHOM = np.unique(ids([an_id(who) for who in ("ann", "bob", "cid")]).view("S16")).view(ID_DTYPE)


@pytest.fixture(scope="module")
def filled(new_store):
    return Filled(new_store())


def fact(who: str, days: int, received: int, level: str, products: str = "", joined: int = 0):
    body = {"joined_ns": joined, "level": level, "products": products}
    return {
        "command_id": f"{who} {days} {received} {level}", "kind": "member_facts", "points": 0,
        "subscriber_id": who, "event_ns": NOON + days * DAY_NS, "received_ns": NOON + received,
        "body": json.dumps(body),
    }  # fmt: skip


def known(filled: Filled, at: dict | None = None) -> list[tuple]:
    found = members(filled.store, filled.position() if at is None else at, WHOM)
    columns = (found.since_ns.tolist(), found.joined_ns.tolist(), found.level.to_list(),
               found.products.to_list())  # fmt: skip
    who = [row.tobytes() for row in found.subscriber_id]
    return sorted(zip(who, *columns, strict=True))


def test_all_that_a_row_says_is_told(filled):
    filled.clear()
    filled.add("commands", fact("ann", 0, 0, "gold", "fibre tv", 77), fact("eve", 0, 0, "gold"))
    filled.add("commands", {**fact("ann", 3, 0, "x"), "kind": "order"})
    assert known(filled) == [(an_id("ann"), NOON, 77, "gold", "fibre tv")]
    assert len(members(filled.store, filled.position(), WHOM[:0])) == 0


def test_what_lies_behind_the_position_is_not_known(filled):
    filled.clear()
    filled.add("commands", fact("ann", 0, 0, "gold"))
    at = filled.position()
    filled.add("commands", fact("ann", 0, 9, "silver"))
    assert [row[3] for row in known(filled, at)] == ["gold"]
    assert [row[3] for row in known(filled)] == ["silver"]


facts = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]), st.integers(0, 2), st.integers(0, 2),
        st.sampled_from(["gold", "silver", ""]),
    ),
    max_size=8,
)  # fmt: skip


@FEW
@given(facts, st.randoms(use_true_random=False))
def test_the_last_word_counts_in_any_order(filled, said, random):
    expected = {}
    for who, days, received, level in said:
        rank = (received, an_id(f"{who} {days} {received} {level}").hex())
        at = (an_id(who), NOON + days * DAY_NS)
        if at not in expected or rank > expected[at][0]:
            expected[at] = rank, level
    wanted = sorted((who, since, 0, level, "") for (who, since), (_, level) in expected.items())
    for _ in range(2):
        filled.clear()
        filled.add("commands", *(fact(*row) for row in said))
        assert known(filled) == wanted
        random.shuffle(said)


@pytest.mark.parametrize(
    ("when", "asks"),
    [
        (When(), False), (When(tenure_months_min=1), True), (When(levels=("gold",)), True),
        (When(products=("tv",)), True),
    ],
)  # fmt: skip
def test_which_rulebooks_ask(when, asks):
    assert ask_members(a_rulebook(a_partner(accruals=(an_accrual(when=when),)))) is asks
