"""Who asked what, and what came of it: two hash chains beside that of the postings.

**Requests.** Every command has a link over what was asked, by whom, and how it was answered first.
A later answer is that of the person who decided, and theirs is a request of its own.

**The trail.** One row for everything that people did (whoever acts in another role than `member` or
`system`), and for everything that was denied: who, role and scope, action, object, the points
before and after, when it was asked and booked, why, the result, and the command in the journal that
it came by (`place`, its row of the stream). What changes nothing in the book (`RECORDED_COMMANDS`:
a review, a login that was shown) has its row, too.

A chain shows changes to whoever knows an earlier link of it: `heads` is what to keep elsewhere, and
`is_at` says whether a chain still runs through what was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from pipeline.ledger.commands import OF_ORDERS, OF_REQUESTS, Command
from pipeline.ledger.state import LedgerState
from pipeline.ledger.transfers import FIRST_LINK, Booking, row_link, shared_bytes
from pipeline.model.access import OWN_ACCOUNT
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.words import RECORDED_COMMANDS, Result
from pipeline.store import book_schema as tables
from pipeline.store.book_bulk import put_rows
from pipeline.store.book_schema import AnyRow

ON_RECORD = "on_record"
NAMED = ("order", "request", "conversion_key", "claim", "partner", "item", "period", "programme")
Say = Callable[[str], None]
RESULTS = {int(result): result.name.lower() for result in Result}


class Head(NamedTuple):
    """Where a chain stands: how many rows it has, and the link of the last one in hex digits."""

    chain: str
    number: int
    link: str


class Deed(NamedTuple):
    """A row of the trail, as it is shown."""

    number: int
    action: str
    object: str
    before: str
    after: str
    reason: str
    result: str
    asked_ns: int
    booked_ns: int
    cut: int
    actor: str
    role: str
    scope: str
    command_id: bytes
    place: int  # below zero where no stream is said to have it
    run_id: bytes


class Trail:
    """Rows of the trail that one transaction adds."""

    def __init__(self, connection: Connection, key: bytes, number: int, link: bytes) -> None:
        self._connection, self._key = connection, key
        self.number, self.link = number, link
        self._rows: list[tuple[Any, ...]] = []

    def known(self, places: Iterable[int]) -> set[int]:
        """Which of these rows of the stream have a row already."""
        t, wanted = tables.trail, sorted({place for place in places if place >= 0})
        if not wanted:
            return set()
        first, last = wanted[0], wanted[-1]
        rows = self._connection.execute(select(t.c.place).where(t.c.place.between(first, last)))
        return {row[0] for row in rows}

    def add(
        self,
        command: Command,
        place: int,
        points: tuple[str, str],
        result: str,
        booking_id: int,
        booking_bytes: bytes,
    ) -> None:
        """Add a row; `points` are those before and after."""
        self.number += 1
        row = (
            self.number, place, command.command_id, command.kind, object_of(command), *points,
            command.text("reason"), result, command.event_ns,
        )  # fmt: skip
        self.link = row_link(self._key, self.link, (*row, booking_bytes))
        self._rows.append((*row, booking_id, self.link))

    def flush(self) -> None:
        """Write the rows down."""
        put_rows(self._connection, tables.trail, self._rows)


def request_link(
    key: bytes, previous: bytes, row: tuple[Any, ...], first: int, booking_bytes: bytes
) -> bytes:
    """The link of a request; `row` is its number, id, kind, ref, member, points, time, body and
    content.
    """
    return row_link(key, previous, (*row, first, booking_bytes))


def has_row(command: Command, result: Result) -> bool:
    """Does the trail keep it? What members and systems do by their right is in the requests."""
    return command.role not in OWN_ACCOUNT or result == Result.NOT_ALLOWED


def object_of(command: Command) -> str:
    """What a command is about: a member, or what its body names; what is only on record says it."""
    if command.kind in RECORDED_COMMANDS and command.text("object"):
        return command.text("object")
    if command.subscriber_id != NO_ID:
        return f"member {id_text(command.subscriber_id)}"
    for name in NAMED:
        if command.text(name):
            return f"{name.removesuffix('_key')} {command.text(name)}"
    return ""


def points_of(state: LedgerState, command: Command) -> str:
    """The points of the member a command is about, in words; nothing where it is about nobody."""
    who = command.subscriber_id
    if command.kind in OF_ORDERS:
        order = state.orders.get(command.id("order"))
        who = order.subscriber_id if order is not None else NO_ID
    elif command.kind in OF_REQUESTS:
        asked = state.awaiting.get(command.id("request"))
        who = asked.subscriber_id if asked is not None else NO_ID
    member = state.members.get(who)
    if member is None:
        return ""
    names = ("pending", "available", "reserved", "debt")
    return " ".join(f"{name} {state.shown(member, at)}" for at, name in enumerate(names))


# Asking


def heads(connection: Connection) -> list[Head]:
    """Where the three chains stand."""
    row = connection.execute(select(tables.heads)).one()
    return [
        Head("postings", row.postings, row.link.hex()),
        Head("requests", row.requests, row.requests_link.hex()),
        Head("trail", row.trail, row.trail_link.hex()),
    ]


def is_at(connection: Connection, head: Head) -> bool:
    """Does the chain run through what was kept of it?"""
    found = {
        "postings": (tables.postings.c.posting_number, tables.postings.c.link),
        "requests": (tables.requests.c.request_number, tables.requests.c.link),
        "trail": (tables.trail.c.trail_number, tables.trail.c.link),
    }.get(head.chain)
    if found is None:
        return False
    if not head.number:
        return head.link == FIRST_LINK.hex()
    number, link = found
    there = connection.execute(select(link).where(number == head.number)).scalar()
    return there is not None and there.hex() == head.link


def deeds(connection: Connection, after: int, limit: int) -> list[Deed]:
    """Rows of the trail with a larger number, in their order."""
    t, b = tables.trail, tables.bookings
    query = (
        select(
            t.c.trail_number, t.c.action, t.c.object, t.c.before, t.c.after, t.c.reason, t.c.result,
            t.c.asked_ns, b.c.booked_ns, b.c.cut, b.c.actor, b.c.role, b.c.scope, t.c.command_id,
            t.c.place, b.c.run_id,
        )
        .join(b, b.c.booking_id == t.c.booking_id)
        .where(t.c.trail_number > after)
        .order_by(t.c.trail_number)
        .limit(limit)
    )  # fmt: skip
    return [Deed._make(row) for row in connection.execute(query)]


# Checking


class TrailCheck:
    """Walks both chains and compares the trail with the requests."""

    def __init__(self, connection: Connection, key: bytes, say: Say) -> None:
        self._connection, self._key, self._say = connection, key, say
        self._bookings = {
            row[0]: shared_bytes(Booking(*row[1:]))
            for row in connection.execute(select(tables.bookings))
        }
        self._roles = {row[0]: row.role for row in connection.execute(select(tables.bookings))}
        self._head = connection.execute(select(tables.heads)).one()

    def check(self) -> None:
        """Say all that is wrong."""
        requests = self._rows(tables.requests, tables.requests.c.request_number)
        self._chain("request", requests, self._head.requests, self._head.requests_link)
        trail = self._rows(tables.trail, tables.trail.c.trail_number)
        self._chain("trail row", trail, self._head.trail, self._head.trail_link)
        self._same(requests, trail)

    def _rows(self, table: Any, order: Any) -> list[AnyRow]:
        return list(self._connection.execute(select(table).order_by(order)).all())

    def _chain(self, what: str, rows: list[AnyRow], count: int, last: bytes) -> None:
        previous, number = FIRST_LINK, 0
        for row in rows:
            if row[0] != number + 1:
                self._say(f"{what}s {number + 1} to {row[0] - 1} are missing")
            number = row[0]
            booked = self._bookings.get(row.booking_id, b"")
            if what == "request":
                first = int(Result.AWAITING_APPROVAL) if row.decided_by else row.result
                found = request_link(self._key, previous, tuple(row[:9]), first, booked)
            else:
                found = row_link(self._key, previous, (*row[:10], booked))
            if found != row.link:
                self._say(
                    f"{what} {number} breaks the hash chain: it, or who asked, was changed,"
                    " or one before it is gone"
                )
            previous = row.link
        if number != count:
            self._say(f"the last {what} is {number}, the head says {count}")
        if previous != last:
            self._say(f"the head of the chain is not the link of the last {what}")

    def _same(self, requests: list[AnyRow], trail: list[AnyRow]) -> None:
        """Every row of the trail is of a command that was asked; none of theirs is missing."""
        asked = {row.request_id: row for row in requests}
        seen = set()
        for row in trail:
            seen.add(row.command_id)
            request = asked.get(row.command_id)
            if row.action in RECORDED_COMMANDS:
                continue
            if request is None:
                self._say(f"trail row {row[0]} is of a command that was never asked")
        for request in requests:
            denied = request.result == Result.NOT_ALLOWED
            theirs = self._roles.get(request.booking_id, "") not in OWN_ACCOUNT
            if (theirs or denied) and request.request_id not in seen:
                name = f"{request.kind} {id_text(request.request_id)}"
                self._say(f"{name} was asked by a person or denied, and is not in the trail")
