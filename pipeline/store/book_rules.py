"""Which rules are in force: what was asked to be published, and what a second person made of it.

A rulebook that was approved comes into force at the later of two times: the one it was asked for,
and the one it was approved at. Of those whose time has come, the one that came last is in force; of
two that came at once, the one that was approved last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, select

from pipeline.ledger.commands import made
from pipeline.model.words import Result
from pipeline.store import book_schema as tables

PUBLISH = "publish"


class Publication(NamedTuple):
    """A rulebook that was asked to be published; times in UTC nanoseconds.

    `comes_ns` is when it comes into force, and `decided_by` who approved or refused it; 0 and
    nobody while it waits.
    """

    request_id: bytes
    rulebook_hash: bytes
    from_ns: int
    asked_ns: int
    asked_by: str
    reason: str
    files: dict[str, list[str]]
    result: Result
    comes_ns: int
    decided_by: str
    decision: int  # its number among all that was asked


def publications(connection: Connection) -> list[Publication]:
    """All of them, in the order in which the book was asked; those that were refused at once are
    none.
    """
    asked, decided = tables.requests, tables.requests.alias("decided")
    asker, decider = tables.bookings, tables.bookings.alias("decider")
    query = (
        select(asked, asker.c.actor, decided.c.request_number, decided.c.event_ns, decider.c.actor)
        .join(asker, asker.c.booking_id == asked.c.booking_id)
        .outerjoin(decided, decided.c.request_number == asked.c.decided_by)
        .outerjoin(decider, decider.c.booking_id == decided.c.booking_id)
        .where(asked.c.kind == PUBLISH)
        .order_by(asked.c.request_number)
    )
    found = []
    for row in connection.execute(query):
        asked_by, decision, approved_ns, decided_by = row[-4:]
        waits = row.result == int(Result.AWAITING_APPROVAL)
        if not waits and decision is None:
            continue
        command = made(row[1], PUBLISH, row[3], row[4], row[5], row[6], row[7], asked_by)
        from_ns = command.number("from")
        found.append(
            Publication(
                row.request_id, command.id("rulebook"), from_ns, row.event_ns, asked_by,
                command.text("reason"), _files(command.body), Result(row.result),
                0 if decision is None else max(from_ns, approved_ns),
                decided_by or "", decision or 0,
            )
        )  # fmt: skip
    return found


def _files(body: str) -> dict[str, list[str]]:
    """What the body says of files: by what became of them, their names."""
    said = json.loads(body).get("files")
    return said if isinstance(said, dict) else {}


def in_force(found: Iterable[Publication], now_ns: int) -> Publication | None:
    """The publication that is in force at a time; None where none has come yet."""
    came = [p for p in found if p.result == Result.OK and p.comes_ns <= now_ns]
    return max(came, key=lambda p: (p.comes_ns, p.decision), default=None)
