"""Orders: the login goes no further, and the same reference is the same command."""

from __future__ import annotations

from pipeline.model.batches import OrderBatch
from pipeline.model.columns import columns_of, ids
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
