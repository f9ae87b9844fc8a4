"""What is said of members: the login goes no further, and strangers leave nothing."""

from __future__ import annotations

import json

from pipeline.model.batches import MemberFactBatch
from pipeline.model.columns import columns_of
from pipeline.model.tally import Tally
from pipeline.score.member_facts import member_commands
from tests.score.making import KEYS, NOON, an_id, make
from tests.score.test_orders import Logins

ROW = {
    "row": 1, "login": "ann@isp.example", "event_ns": NOON, "received_ns": NOON + 1,
    "joined_ns": 7, "level": "gold", "products": "fibre tv",
}  # fmt: skip


def commands(*rows: dict, tally: Tally | None = None):
    return member_commands(make(MemberFactBatch, list(rows), ROW), Logins(), KEYS, tally or Tally())


def test_facts_become_commands_of_those_who_are_known() -> None:
    tally = Tally()
    found = commands({}, {"login": "eve@isp.example"}, {"level": "silver"}, tally=tally)
    assert found.kind.to_list() == ["member_facts"] * 2
    assert [who.tobytes() for who in found.subscriber_id] == [an_id("ann")] * 2
    first, second = map(json.loads, found.body.to_list())
    assert first == {"joined_ns": 7, "level": "gold", "products": "fibre tv"}
    assert second["level"] == "silver"
    assert (found.event_ns.tolist(), found.received_ns.tolist()) == ([NOON] * 2, [NOON + 1] * 2)
    counts = {"member_facts": 3, "member_facts:unknown_login": 1}
    assert tally.as_dict() == {"score": counts}
    texts = [
        value
        for column in columns_of(type(found))
        if column.dtype is None
        for value in getattr(found, column.name).to_list()
    ]
    assert not [text for text in texts if "isp.example" in text]


def test_the_same_fact_is_the_same_command_and_another_is_not() -> None:
    one, same, other, later = (
        commands(row).command_id[0].tobytes()
        for row in ({}, {"row": 9}, {"products": "tv"}, {"received_ns": NOON + 2})
    )
    assert one == same
    assert len({one, other, later}) == 3


def test_nothing_said_is_no_command() -> None:
    found = member_commands(make(MemberFactBatch, [], {}), Logins(), KEYS, Tally())
    assert len(found) == 0
