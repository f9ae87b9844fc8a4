"""Orders become commands: a member asks to spend points, named by the operator's login.

The login is resolved here and goes no further. A login that nobody in the circle has gives a
command without a subscriber, which the book refuses by name (UNKNOWN_MEMBER), so that the asker
learns why.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pipeline.model.batches import CommandBatch, OrderBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.identifiers import NO_ID, Keys, digest
from pipeline.model.tally import Tally

STAGE = "score"
KIND = "order"
ACTOR = "orders"


class Logins(Protocol):
    """Who has a login."""

    @property
    def subscriber_ids(self) -> np.ndarray:
        """Subscriber ids by dense index."""
        ...

    def subscriber_of(self, login: str) -> int:
        """The dense index of a login, -1 for nobody."""
        ...


def order_commands(orders: OrderBatch, logins: Logins, keys: Keys, tally: Tally) -> CommandBatch:
    """One command per order, in order; the same reference is the same command."""
    known = logins.subscriber_ids
    who = [logins.subscriber_of(login) for login in orders.login.to_list()]
    subscribers = [known[index].tobytes() if index >= 0 else NO_ID for index in who]
    refs = orders.ref.to_list()
    tally.add(STAGE, "order", len(orders))
    tally.add(STAGE, "order:unknown_login", subscribers.count(NO_ID))
    return CommandBatch(
        command_id=ids([digest(keys.visit, "command", KIND, ref) for ref in refs]),
        kind=TextColumn.repeat(KIND, len(orders)),
        ref=orders.ref,
        actor=TextColumn.repeat(ACTOR, len(orders)),
        role=TextColumn.repeat("", len(orders)),
        scope=TextColumn.repeat("", len(orders)),
        subscriber_id=ids(subscribers),
        points=orders.points,
        body=TextColumn.repeat("{}", len(orders)),
        event_ns=np.array(orders.event_ns),
        received_ns=np.array(orders.received_ns),
    )
