"""Is what was asked what was answered? Commands, and what they left: orders, freezes, periods.

A command that was accepted moved something at its time, or left a row (a freeze, a closed period, a
decision); one that was refused did not. An order says what its command asked for. What somebody
else decided names the command that decided it. A period is closed where the book stood when it was
asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from sqlalchemy import Connection, select

from pipeline.ledger.commands import OF_ORDERS, OF_REQUESTS, SPENDING, Command, made
from pipeline.ledger.orders import HOLD_SECONDS_MAX, SECOND_NS
from pipeline.ledger.terms import period_of
from pipeline.ledger.transfers import COMMAND
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.stage import END_OF_TIME
from pipeline.model.words import OWN_COMMANDS, Result
from pipeline.store import book_schema as tables
from pipeline.store.book_schema import AnyRow
from pipeline.store.book_walk import Folds

Say = Callable[[str], None]
OK, AWAITS = int(Result.OK), int(Result.AWAITING_APPROVAL)
RESULTS = frozenset(map(int, Result))
FREEZING = ("freeze", "unfreeze")
PLACING = ("order", "reserve")


class Answers:
    """Compares commands with what came of them, given the folds of a walk."""

    def __init__(self, connection: Connection, folds: Folds, timezone: str, say: Say) -> None:
        self._folds, self._timezone, self._say = folds, timezone, say
        rows = {
            table.name: list(connection.execute(select(table)).all())
            for table in (
                tables.requests, tables.freezes, tables.periods, tables.orders, tables.doubts,
            )
        }  # fmt: skip
        self._bookings = {row[0]: row for row in connection.execute(select(tables.bookings))}
        self._rows: list[AnyRow] = rows["requests"]
        self._commands = {row.request_id: _command(row) for row in self._rows}
        self._by_number = {row.request_number: row for row in self._rows}
        self._by_id = {row.request_id: row for row in self._rows}
        self._freezes = {row.request_id: row for row in rows["freezes"]}
        self._periods = {row.request_id: row for row in rows["periods"]}
        self._orders: list[AnyRow] = rows["orders"]
        self._doubts: dict[int, str] = {row.request_number: row.codes for row in rows["doubts"]}
        self._decided: dict[int, bytes] = {
            row.decided_by: row.request_id for row in self._rows if row.decided_by
        }

    def check(self) -> None:
        """Say all that is wrong."""
        for row in self._rows:
            self._request(row)
        for lost in sorted(self._folds.commands - self._commands.keys()):
            self._say(f"command {id_text(lost)} moved points, but was never asked")
        for number in sorted(self._doubts.keys() - self._by_number.keys()):
            self._say(f"command number {number} was doubtful, but was never asked")
        for order in self._orders:
            self._order(order)
        for row in self._freezes.values():
            self._freeze(row)
        for row in self._periods.values():
            self._period(row)
        for number, booking in sorted(self._bookings.items()):
            if period_of(booking.booked_ns, self._timezone) > booking.period:
                self._say(f"booking {number} is in period {booking.period}, which was over then")

    def frozen(self) -> set[bytes]:
        """Who was ever frozen."""
        return {row.subscriber_id for row in self._freezes.values()}

    def _request(self, row: AnyRow) -> None:
        command, name = self._commands[row.request_id], f"{row.kind} {id_text(row.request_id)}"
        if row.booking_id not in self._bookings:
            self._say(f"{name} was booked by nobody")
        if command.content != row.content:
            self._say(f"{name} is not what was asked: it has another content")
        if row.result not in RESULTS:
            self._say(f"{name} has answer {row.result}, which is none")
        self._decision(row, name)
        if row.kind in OF_ORDERS:  # their cause is the order
            there = (command.id("order"), row.event_ns) in self._folds.times
            if row.result == OK and not there:
                self._say(f"{name} was accepted, but moved nothing")
        elif row.kind in FREEZING or row.kind == "close_period":
            left = self._freezes if row.kind in FREEZING else self._periods
            if (row.request_id in left) != (row.result == OK):
                self._say(f"{name} was {_word(row)}, what it asked for is not so")
        elif row.kind in OF_REQUESTS:
            decided = self._decided.get(row.request_number)
            if row.result == OK and decided != command.id("request"):
                self._say(f"{name} was accepted, but decided nothing")
        elif row.kind in OWN_COMMANDS:  # rules for all, which move nothing themselves
            if row.request_id in self._folds.causes:
                self._say(f"{name} moved something of its own")
            if row.result == OK and not row.decided_by:
                self._say(f"{name} was accepted without a second person")
        else:
            self._moved(row, name)

    def _moved(self, row: AnyRow, name: str) -> None:
        moved = row.request_id in self._folds.causes
        if row.result == AWAITS and moved:
            self._say(f"{name} waits for a second person, but moved something")
        elif moved and row.result != OK:
            self._say(f"{name} was refused, but moved something")
        elif row.result == OK and not moved:
            self._say(f"{name} was accepted, but moved nothing")
        elif moved and (row.request_id, row.event_ns) not in self._folds.times:
            self._say(f"{name} moved something at another time than its own")

    def _decision(self, row: AnyRow, name: str) -> None:
        """What somebody else decided names who did, and does not wait any more. Of spending that
        waits, or did, the book says why.
        """
        waits = row.result == AWAITS or bool(row.decided_by)
        if (waits and row.kind in SPENDING) != bool(self._doubts.get(row.request_number)):
            self._say(f"{name} {'waits, or did,' if waits else 'was doubtful, but waited'} for"
                      f" {'no reason' if waits else 'nobody'}")  # fmt: skip
        if not row.decided_by:
            return
        decision = self._by_number.get(row.decided_by)
        names = None if decision is None else self._commands[decision.request_id].id("request")
        if decision is None or decision.kind not in OF_REQUESTS or names != row.request_id:
            self._say(f"{name} was decided by nobody")
        elif row.result == AWAITS:
            self._say(f"{name} was decided, but waits for a second person")

    def _order(self, order: AnyRow) -> None:
        """An order against the command that placed it."""
        name = f"order {id_text(order.order_id)}"
        asked = self._by_number.get(order.request_number)
        if asked is None or asked.request_id != order.order_id or asked.kind not in PLACING:
            self._say(f"{name} is not what its command asked for")
            return
        command = self._commands[asked.request_id]
        item, seconds = command.text("item"), command.number("hold_seconds")
        wanted = {
            "subscriber_id": command.subscriber_id,
            "points": command.points,
            "redemption": command.text("redemption", "service"),
            "item": item,
            "quantity": max(command.number("quantity", 1), 1) if item else 0,
            **{word: command.text(word) for word in ("region", "channel", "payee")},
        }
        if seconds > 0:
            held_ns = min(seconds, HOLD_SECONDS_MAX) * SECOND_NS
            approved = self._by_number.get(asked.decided_by)
            since_ns = max(command.event_ns, approved.event_ns if approved else 0)
            wanted["hold_until_ns"] = since_ns + held_ns
        wrong = [column for column, value in wanted.items() if getattr(order, column) != value]
        if order.hold_until_ns < command.event_ns and "hold_until_ns" not in wrong:
            wrong.append("hold_until_ns")
        if wrong:
            self._say(f"{name} has another {' and '.join(wrong)} than its command asked for")

    def _freeze(self, row: AnyRow) -> None:
        command, name = self._commands.get(row.request_id), f"freeze {id_text(row.request_id)}"
        if command is None or command.kind not in FREEZING or self._refused(row):
            self._say(f"{name} of subscriber {id_text(row.subscriber_id)} was asked by nobody")
            return
        wanted = (command.subscriber_id, command.event_ns, command.kind == "freeze")
        if wanted != (row.subscriber_id, row.from_ns, row.frozen):
            self._say(f"{name} is not what its command asked for")

    def _period(self, row: AnyRow) -> None:
        command, name = self._commands.get(row.request_id), f"period {row.period}"
        if command is None or command.kind != "close_period" or self._refused(row):
            self._say(f"{name} was closed by nobody")
            return
        booking = self._bookings.get(self._by_id[row.request_id].booking_id)
        closed_ns = None if booking is None else booking.booked_ns
        if (command.text("period"), closed_ns) != (row.period, row.closed_ns):
            self._say(f"{name} is not what its command closed, or was closed at another time")

    def _refused(self, row: AnyRow) -> bool:
        asked = self._by_id.get(row.request_id)
        return asked is None or asked.result != OK


def _command(row: AnyRow) -> Command:
    return made(
        row.request_id, row.kind, row.ref, row.subscriber_id, row.points, row.event_ns, row.body, ""
    )


def _word(row: AnyRow) -> str:
    return "accepted" if row.result == OK else "refused"


class Lives:
    """When members first had points and were last active, by the postings and their lots."""

    def __init__(self, folds: Folds, say: Say) -> None:
        self._folds, self._say = folds, say
        self._since: dict[bytes, int] = defaultdict(lambda: END_OF_TIME, folds.since)

    def lot(self, lot: AnyRow) -> None:
        """A lot that was imported or given by hand: its member had it since it was earned."""
        if lot.cause_kind == COMMAND and lot.parent_lot_id == NO_ID:
            self._since[lot.subscriber_id] = min(self._since[lot.subscriber_id], lot.earned_ns)

    def member(self, row: AnyRow, frozen: bool) -> None:
        """A member against that."""
        name = f"subscriber {id_text(row.subscriber_id)}"
        if row.since_ns != self._since[row.subscriber_id]:
            self._say(f"{name} first had points at another time than its postings say")
        if row.active_ns != self._folds.active.get(row.subscriber_id, 0):
            self._say(f"{name} was last active at another time than its postings say")
        if bool(row.flags) != frozen:
            self._say(f"{name} was {'' if frozen else 'never '}frozen, its flags say otherwise")
