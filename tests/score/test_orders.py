"""Orders: the login goes no further, and the same reference is the same command."""

from __future__ import annotations

import json

from pipeline.model.batches import OrderBatch
from pipeline.model.columns import columns_of, ids
from pipeline.model.identifiers import id_text
from pipeline.model.tally import Tally
from pipeline.score.orders import order_commands
from tests.score.making import KEYS, NOON, an_id, make


class Logins:
    """Ann and nobody else."""

    subscriber_ids = ids([an_id("ann")])

    def subscriber_of(self, login: str) -> int:
        return 0 if login == "ann@isp.example" else -1


def test_orders_become_commands() -> None:
    rows = [
        {"row": 1, "login": "ann@isp.example", "ref": "o1", "points": 5, "event_ns": NOON},
        {"row": 2, "login": "eve@isp.example", "ref": "o2", "points": -1, "event_ns": NOON},
        {"row": 3, "login": "ann@isp.example", "ref": "o1", "points": 5, "event_ns": NOON},
    ]
    tally = Tally()
    orders = make(OrderBatch, rows, {"received_ns": NOON + 1})
    commands = order_commands(orders, Logins(), KEYS, tally)
    assert commands.kind.to_list() == ["order"] * 3
    assert commands.points.tolist() == [5, -1, 5]
    who = [s.tobytes() for s in commands.subscriber_id]
    assert who == [an_id("ann"), bytes(16), an_id("ann")]
    first, second, again = (c.tobytes() for c in commands.command_id)
    assert first == again != second
    assert commands.received_ns.tolist() == [NOON + 1] * 3
    assert tally.as_dict() == {"score": {"order": 3, "order:unknown_login": 1}}
    texts = [
        value
        for column in columns_of(type(commands))
        if column.dtype is None
        for value in getattr(commands, column.name).to_list()
    ]
    assert not [text for text in texts if "isp.example" in text]


def test_no_orders_give_no_commands() -> None:
    commands = order_commands(make(OrderBatch, [], {}), Logins(), KEYS, Tally())
    assert len(commands) == 0


def test_all_that_the_book_can_be_asked_comes_in_the_same_file() -> None:
    """An order has one id, at once or in two steps; what is about it names it by reference."""
    rows = [
        {"row": 1, "kind": "reserve", "login": "ann@isp.example", "ref": "o1", "points": 5},
        {"row": 2, "kind": "commit", "ref": "c1", "order": "o1", "actor": "shop", "role": "system"},
        {"row": 3, "login": "ann@isp.example", "ref": "o1", "points": 5},
        {"row": 4, "kind": "adjust", "login": "ann@isp.example", "ref": "a1", "points": 9,
         "body": '{"reason": "complaint"}', "actor": "eva"},
        {"row": 5, "kind": "approve", "ref": "p1", "request": "a1", "actor": "kim", "scope": "north"},
        {"row": 6, "kind": "transfer", "login": "ann@isp.example", "ref": "t1", "points": 1,
         "to": "eve@isp.example"},
    ]  # fmt: skip
    tally = Tally()
    commands = order_commands(make(OrderBatch, rows, {}), Logins(), KEYS, tally)
    assert commands.kind.to_list() == [
        "reserve",
        "commit",
        "order",
        "adjust",
        "approve",
        "transfer",
    ]
    ids_of = [id_text(i.tobytes()) for i in commands.command_id]
    bodies = [json.loads(body) for body in commands.body.to_list()]
    assert ids_of[0] == ids_of[2] == bodies[1]["order"]
    assert ids_of[3] == bodies[4]["request"]
    assert bodies[3] == {"reason": "complaint"}
    assert bodies[5] == {}, "nobody has that login, and it goes no further"
    assert commands.actor.to_list() == ["orders", "shop", "orders", "eva", "kim", "orders"]
    assert commands.role.to_list()[1] == "system"
    assert commands.scope.to_list()[4] == "north"
    assert tally.as_dict() == {"score": {"order": 6}}
