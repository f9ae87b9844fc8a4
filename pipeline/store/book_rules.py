"""Rules for all: what was asked to be published or rated again, and what a second person said.

A rulebook that was approved comes into force at the later of two times: the one it was asked for,
and the one it was approved at. Of those whose time has come, the one that came last is in force; of
two that came at once, the one that was approved last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, select

from pipeline.ledger.commands import Command, made
from pipeline.model.words import Result
from pipeline.store import book_schema as tables
from pipeline.store.book_schema import AnyRow

PUBLISH, RERATE = "publish", "rerate"
CHUNK = 500


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


class Rerate(NamedTuple):
    """A re-rating that was approved: the command, who asked, and who approved in which role."""

    request_id: bytes
    command: Command
    asked_by: str
    approved_by: str
    role: str
    scope: str


def publications(connection: Connection) -> list[Publication]:
    """All of them, in the order in which the book was asked; those that were refused at once are
    none.
    """
    found = []
    for row in connection.execute(_asked(PUBLISH).order_by(tables.requests.c.request_number)):
        asked_by, decision, approved_ns, decided_by, *_ = row[-6:]
        waits = row.result == int(Result.AWAITING_APPROVAL)
        if not waits and decision is None:
            continue
        command = _command(row, PUBLISH)
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


def rerates(connection: Connection, request_ids: Iterable[bytes]) -> list[Rerate]:
    """Those among these requests that are re-ratings and were approved, in the order in which that
    was said.
    """
    wanted, r = [bytes(each) for each in request_ids], tables.requests
    found = []
    for at in range(0, len(wanted), CHUNK):
        chosen = _asked(RERATE).where(r.c.request_id.in_(wanted[at : at + CHUNK]))
        for row in connection.execute(chosen.where(r.c.result == int(Result.OK))):
            asked_by, decision, _, *approver = row[-6:]
            found.append((decision, Rerate(row.request_id, _command(row, RERATE), asked_by,
                                           *approver)))  # fmt: skip
    return [each for _, each in sorted(found, key=lambda pair: pair[0])]


def _asked(kind: str) -> Select[Any]:
    """Requests of a kind, with who asked, and of the decision its number, time, and who."""
    asked, decided = tables.requests, tables.requests.alias("decided")
    asker, decider = tables.bookings, tables.bookings.alias("decider")
    return (
        select(asked, asker.c.actor, decided.c.request_number, decided.c.event_ns,
               decider.c.actor, decider.c.role, decider.c.scope)
        .join(asker, asker.c.booking_id == asked.c.booking_id)
        .outerjoin(decided, decided.c.request_number == asked.c.decided_by)
        .outerjoin(decider, decider.c.booking_id == decided.c.booking_id)
        .where(asked.c.kind == kind)
    )  # fmt: skip


def _command(row: AnyRow, kind: str) -> Command:
    return made(row[1], kind, row[3], row[4], row[5], row[6], row[7], "")


def _files(body: str) -> dict[str, list[str]]:
    """What the body says of files: by what became of them, their names."""
    said = json.loads(body).get("files")
    return said if isinstance(said, dict) else {}


def in_force(found: Iterable[Publication], now_ns: int) -> Publication | None:
    """The publication that is in force at a time; None where none has come yet."""
    came = [p for p in found if p.result == Result.OK and p.comes_ns <= now_ns]
    return max(came, key=lambda p: (p.comes_ns, p.decision), default=None)
