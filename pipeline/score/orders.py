"""Orders and other requests become commands: somebody asks for something about a member's points.

A login is resolved here and goes no further. A login that nobody in the circle has gives a command
without a subscriber, which the book refuses by name (UNKNOWN_MEMBER), so that the asker learns why.
So does a kind that the book does not know: it is counted, and no command.

Everything else needs a role that covers it (`model/access.py`), which the row names: what names
none, and is not a member's own spending, is refused by the book.

References are the asker's own. An order keeps one id whether it is asked for at once (`order`) or
in two steps (`reserve`), so that what comes later names it by its reference; an approval names the
adjustment it is about in the same way.
"""

from __future__ import annotations

import json
from typing import Protocol

import numpy as np

from pipeline.model.access import Role, covers
from pipeline.model.batches import CommandBatch, OrderBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.identifiers import NO_ID, Keys, digest, id_text
from pipeline.model.tally import Tally

STAGE = "score"
KIND, ADJUST = "order", "adjust"
ACTOR = "orders"
ONE_ID = {"reserve": KIND}


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
    """One command per row, in order; the same kind and reference are the same command."""
    known = logins.subscriber_ids

    def subscriber(login: str) -> bytes:
        index = logins.subscriber_of(login) if login else -1
        return known[index].tobytes() if index >= 0 else NO_ID

    kinds = [kind or KIND for kind in orders.kind.to_list()]
    who = [subscriber(login) for login in orders.login.to_list()]
    tally.add(STAGE, "order", len(orders))
    named = zip(who, orders.login.to_list(), strict=True)
    tally.add(STAGE, "order:unknown_login", sum(i == NO_ID and bool(login) for i, login in named))
    references = zip(orders.order.to_list(), orders.request.to_list(), strict=True)
    bodies = [
        _body(said, order, request, subscriber(to) if to else None, keys)
        for said, (order, request), to in zip(
            orders.body.to_list(), references, orders.to.to_list(), strict=True
        )
    ]
    pairs = zip(kinds, orders.ref.to_list(), strict=True)
    return CommandBatch(
        command_id=ids([command_id(keys, kind, ref) for kind, ref in pairs]),
        kind=TextColumn.of(kinds),
        ref=orders.ref,
        actor=TextColumn.of(actor or ACTOR for actor in orders.actor.to_list()),
        role=TextColumn.of(map(_role, kinds, orders.actor.to_list(), orders.role.to_list())),
        scope=orders.scope,
        subscriber_id=ids(who),
        points=orders.points,
        body=TextColumn.of(bodies),
        event_ns=np.array(orders.event_ns),
        received_ns=np.array(orders.received_ns),
    )


def command_id(keys: Keys, kind: str, ref: str) -> bytes:
    """The id of a command by its kind and the asker's reference."""
    return digest(keys.visit, "command", ONE_ID.get(kind, kind), ref)


def _role(kind: str, actor: str, role: str) -> str:
    """Who spends their own points and is named by their login alone asks as a member."""
    own = not role and not actor and covers(Role.MEMBER, kind)
    return Role.MEMBER.value if own else role


def _body(said: str, order: str, request: str, to: bytes | None, keys: Keys) -> str:
    """What was said, with references as ids."""
    ids_of = {
        "order": id_text(command_id(keys, KIND, order)) if order else "",
        "request": id_text(command_id(keys, ADJUST, request)) if request else "",
        "to": id_text(to) if to is not None else "",
    }
    added = {name: value for name, value in ids_of.items() if value}
    if not added:
        return said or "{}"
    return json.dumps({**(json.loads(said) if said else {}), **added}, sort_keys=True)
