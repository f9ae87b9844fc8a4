"""What is said of members becomes commands, so that rules can ask for tenure, level and products.

A row says all of a member from its event time on, until the member's next one. A login is resolved
here and goes no further; of somebody who is nobody in the circle nothing is kept, and it is
counted. The same fact told at another time is another command: of two about one time the one that
was received later counts (`store/members.py`).

    {"joined_ns": since when a member, 0 where not known, "level": word, "products": words}
"""

from __future__ import annotations

import json

import numpy as np

from pipeline.model.batches import CommandBatch, MemberFactBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.identifiers import Keys, digest, id_text
from pipeline.model.tally import Tally
from pipeline.model.words import MEMBER_FACTS
from pipeline.score.orders import Logins, command_id

STAGE = "score"
ACTOR = "members"


def member_commands(
    facts: MemberFactBatch, logins: Logins, keys: Keys, tally: Tally
) -> CommandBatch:
    """One command per row whose login somebody in the circle has, in order."""
    index = np.array([logins.subscriber_of(login) for login in facts.login.to_list()], np.int64)
    tally.add(STAGE, MEMBER_FACTS, len(facts))
    tally.add(STAGE, f"{MEMBER_FACTS}:unknown_login", int((index < 0).sum()))
    known = facts.take(index >= 0)
    who = [logins.subscriber_ids[at].tobytes() for at in index[index >= 0].tolist()]
    columns = (known.joined_ns.tolist(), known.level.to_list(), known.products.to_list())
    bodies = [
        json.dumps({"joined_ns": joined, "level": level, "products": products}, sort_keys=True)
        for joined, level, products in zip(*columns, strict=True)
    ]
    times = zip(known.event_ns.tolist(), known.received_ns.tolist(), strict=True)
    refs = [_ref(keys, *row) for row in zip(who, bodies, times, strict=True)]
    count = len(known)
    return CommandBatch(
        command_id=ids([command_id(keys, MEMBER_FACTS, ref) for ref in refs]),
        kind=TextColumn.repeat(MEMBER_FACTS, count),
        ref=TextColumn.of(refs),
        actor=TextColumn.repeat(ACTOR, count),
        role=TextColumn.repeat("", count),
        scope=TextColumn.repeat("", count),
        subscriber_id=ids(who),
        points=np.zeros(count, np.int64),
        body=TextColumn.of(bodies),
        event_ns=np.array(known.event_ns),
        received_ns=np.array(known.received_ns),
    )


def _ref(keys: Keys, who: bytes, body: str, times: tuple[int, int]) -> str:
    return id_text(digest(keys.visit, MEMBER_FACTS, who, body, *times))
