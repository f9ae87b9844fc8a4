"""Changes after `locked`: what is one, what a decision covers, and SQL against the twin."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.identifiers import id_text
from pipeline.model.words import AmountMode, Status
from tests.naive import folds as naive
from tests.score.making import NOON, an_id
from tests.store.store_rows import SECOND, Filled, dicts

FEW = settings(max_examples=min(15, settings.default.max_examples))
MINUTE = 60 * SECOND


@pytest.fixture(scope="module")
def filled(new_store):
    return Filled(new_store())


@pytest.fixture
def story(filled):
    filled.clear()
    return filled


def at(minutes: int, status: Status, **changes) -> dict:
    moment = NOON + minutes * MINUTE
    return {"status": status, "status_ns": moment, "received_ns": moment, **changes}


def fold_of(story: Filled, **position: int) -> tuple[str, int, int]:
    """Status, amount and the number of messages that count."""
    (row,) = dicts(story.store.folds(story.position() | position, None, NOON, 1))
    return Status(row["status"]).name, row["amount_minor"], row["facts"]


def decision(verdict: str, minutes: int, key: str = "C-1") -> dict:
    body = {"conversion_key": id_text(an_id(key)), "verdict": verdict, "about": "locked"}
    return {"kind": "review", "body": json.dumps(body), "event_ns": NOON + minutes * MINUTE}


QUIET = {
    "paid": at(2, Status.PAID, amount_mode=AmountMode.DELTA, amount_minor=0),
    "paid with the amount": at(2, Status.PAID, amount_minor=1000),
    "locked again": at(2, Status.LOCKED, amount_minor=1000),
}
LOUD = {
    "declined": at(2, Status.DECLINED),
    "approved": at(2, Status.APPROVED),
    "paid with another amount": at(2, Status.PAID, amount_minor=600),
    "a difference": at(2, Status.PAID, amount_mode=AmountMode.DELTA, amount_minor=-1),
}


@pytest.mark.parametrize("name", [*QUIET, *LOUD])
def test_only_a_change_is_left_out(story, name):
    story.add("purchases", at(0, Status.APPROVED), at(1, Status.LOCKED))
    story.add("purchases", {**QUIET, **LOUD}[name])
    assert fold_of(story)[2] == (3 if name in QUIET else 2)
    assert fold_of(story)[:2] in (("LOCKED", 1000), ("PAID", 1000))


def test_what_came_before_the_lock_in_fold_order_counts_whenever_it_arrives(story):
    story.add("purchases", at(5, Status.LOCKED, amount_minor=600))
    story.add("purchases", at(1, Status.ADJUSTED, amount_minor=600))
    assert fold_of(story) == ("LOCKED", 600, 2)


def test_a_decision_covers_what_was_received_until_then(story):
    story.add("purchases", at(0, Status.APPROVED), at(1, Status.LOCKED), at(2, Status.DECLINED))
    story.add("commands", decision("release", 1))
    assert fold_of(story)[0] == "LOCKED"
    story.add("commands", decision("release", 2))
    assert fold_of(story)[0] == "DECLINED"
    assert fold_of(story, commands=1)[0] == "LOCKED"
    story.add("commands", decision("decline", 3), decision("release", 9, "C-2"))
    assert fold_of(story)[0] == "LOCKED"


def test_a_lock_under_an_id_that_came_before_is_none(story):
    """It is the earlier message again, whatever it says now."""
    story.add("purchases", at(1, Status.APPROVED, message_id="m"))
    story.add("purchases", at(1, Status.LOCKED, message_id="m"), at(2, Status.DECLINED))
    assert fold_of(story) == ("DECLINED", 1000, 2)


STATUSES = (Status.LOCKED, Status.LOCKED, Status.PAID, Status.DECLINED, Status.APPROVED)
message = st.builds(
    lambda key, minutes, status, mode, amount, received: (
        at(minutes, status, conversion_key=key, amount_mode=mode, amount_minor=amount)
        | {"received_ns": NOON + received * MINUTE}
    ),
    st.sampled_from("ab"),
    st.integers(0, 4),
    st.sampled_from(STATUSES),
    st.sampled_from(AmountMode),
    st.integers(0, 1),
    st.integers(0, 4),
)
decisions = st.builds(
    decision, st.sampled_from(("release", "decline")), st.integers(0, 4), st.sampled_from("ab")
)


@pytest.mark.slow
@FEW
@given(st.lists(message, min_size=1, max_size=16), st.lists(decisions, max_size=3))
def test_the_sql_leaves_out_what_the_twin_does(filled, purchases, commands):
    filled.clear()
    filled.add("purchases", *purchases)
    filled.add("commands", *commands)
    position = filled.position()
    found = [
        {k: v for k, v in row.items() if k not in ("offset", "row_hash")}
        for row in dicts(filled.store.folds(position, None, NOON, 1))
    ]
    assert found == naive.fold_all(filled.streams, position)
