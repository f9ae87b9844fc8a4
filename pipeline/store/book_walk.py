"""One walk over all postings in booking order: what each must be, and sums for the audit.

Checked on the way: numbering without gaps, the hash chain, ids that follow from the cause,
transfers that move something of one commodity, a cause and a rule, the accounting period, times of
booking that never go back, and that each transfer did to lots what it did to accounts. A transfer
debits one account and credits another by one amount, so legs cannot but sum to zero.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select

from pipeline.ledger.accounts import (
    AVAILABLE,
    BUCKETS,
    ISSUED,
    KIND_WORDS,
    LAPSED,
    RESERVED,
    EntryKind,
    member_accounts,
    touches_member,
)
from pipeline.ledger.terms import next_period, period_of
from pipeline.ledger.transfers import (
    COMMAND,
    CONVERSION,
    FIRST_LINK,
    LOT,
    ORDER,
    Booking,
    Cause,
    LotMove,
    Origin,
    Transfer,
    link_of,
    posting_bytes,
    posting_id,
    shared_bytes,
)
from pipeline.model.identifiers import NO_ID
from pipeline.rulebook.model import Programme
from pipeline.store import book_schema as tables
from pipeline.store.book_schema import AnyRow

STEP = 4096
ORDER_KINDS = (EntryKind.RESERVE, EntryKind.COMMIT, EntryKind.RELEASE, EntryKind.REFUND)
# Issued by a command; what conversions issue is compared with their targets.
BY_COMMAND = (EntryKind.MANUAL_ADJUST, EntryKind.MIGRATE_OPEN, EntryKind.CONVERT_IN)
# What makes somebody a member with points, and what keeps points alive that follow activity.
GRANTS = frozenset({
    EntryKind.EARN, EntryKind.CONFIRM, EntryKind.ADJUST_DELTA, EntryKind.RE_RATE,
    EntryKind.TRANSFER,
})  # fmt: skip
ACTIVE = frozenset({
    EntryKind.EARN, EntryKind.CONFIRM, EntryKind.RESERVE, EntryKind.TRANSFER,
    EntryKind.CONVERT_OUT, EntryKind.CONVERT_IN,
})  # fmt: skip


def _ints() -> dict[Any, int]:
    return defaultdict(int)


@dataclass
class Folds:
    """What the postings say, for the audit to compare with what is stored."""

    balances: dict[int, int] = field(default_factory=_ints)  # by account number
    by_conversion: dict[tuple[bytes, str, str], int] = field(default_factory=_ints)
    orders: dict[tuple[bytes, int], int] = field(default_factory=_ints)  # by kind of transfer
    order_steps: Counter[bytes] = field(default_factory=Counter)
    by_command: int = 0  # points issued by people, imports and exchanges
    causes: set[bytes] = field(default_factory=set)  # of all postings
    commands: set[bytes] = field(default_factory=set)  # those that are commands
    times: set[tuple[bytes, int]] = field(default_factory=set)  # causes, and when they were so
    since: dict[bytes, int] = field(default_factory=dict)  # when each member first had points
    active: dict[bytes, int] = field(default_factory=_ints)  # when each was last active
    # Held and spent of each lot by each order.
    order_lots: dict[tuple[bytes, bytes], list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0] * 2)
    )
    lots: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * 4))
    versions: dict[bytes, int] = field(default_factory=_ints)  # number of a conversion's last
    lot_steps: Counter[bytes] = field(default_factory=Counter)
    lapsed_ns: dict[bytes, int] = field(default_factory=_ints)  # the date of each lot's last lapse
    first: dict[bytes, int] = field(default_factory=dict)  # posting that first granted to a lot
    rulebook_of: dict[int, bytes] = field(default_factory=dict)  # by posting
    rule_of: dict[int, bytes] = field(default_factory=dict)  # by posting
    runs: Counter[bytes] = field(default_factory=Counter)  # postings of each
    # By conversion, what each posting said that opened a pending item, in their order: member,
    # contract, rule, time, rulebook.
    opened: dict[bytes, list[tuple[bytes, str, bytes, int, bytes]]] = field(
        default_factory=lambda: defaultdict(list)
    )


class Walk:
    """Goes over the postings once; `problems` and `folds` are what came of it."""

    def __init__(self, connection: Connection, key: bytes, programme: Programme) -> None:
        self.problems: list[str] = []
        self.folds = Folds()
        self._key, self._programme, self._connection = key, programme, connection
        versions = tables.rule_versions
        self._rules = {row[0] for row in connection.execute(select(versions.c.version).distinct())}
        # A book that did a cut or has a rulebook was told of all rules that it booked under.
        self._imports = bool(self._rules) or any(
            connection.execute(select(table).limit(1)).first() is not None
            for table in (tables.rulebooks, tables.cuts)
        )
        self.accounts = {row[0]: row for row in connection.execute(select(tables.accounts))}
        self.names = {
            number: f"{row.account}\0{row.commodity}".encode()
            for number, row in self.accounts.items()
        }
        self._lapsed = self._named(LAPSED)
        self._issued = self._named(ISSUED)
        self.members: dict[int, bytes] = {}
        self.last_posting: dict[bytes, int] = {}
        for number, who in connection.execute(
            select(tables.members.c.member_number, tables.members.c.subscriber_id)
        ):
            self.members[number] = who
            self.last_posting[who] = 0
            for bucket in range(BUCKETS):
                self.names[number * BUCKETS + bucket] = who + bytes((bucket,))
        self._origins = {
            row[0]: (Origin(*row[1:]), shared_bytes(Origin(*row[1:])))
            for row in connection.execute(select(tables.origins))
        }
        self._bookings = {
            row[0]: (Booking(*row[1:]), shared_bytes(Booking(*row[1:])))
            for row in connection.execute(select(tables.bookings))
        }
        self._closed = {row.period: row for row in connection.execute(select(tables.periods))}
        # Links of the postings at which a period was closed.
        self._links = {row.postings: b"" for row in self._closed.values()} | {0: FIRST_LINK}
        self._link, self._posting, self._transfer, self._booked_ns = FIRST_LINK, 0, 0, 0
        self._walk()

    def _named(self, name: str) -> int:
        wanted = (name, self._programme.points)
        found = (n for n, row in self.accounts.items() if (row.account, row.commodity) == wanted)
        return next(found, 0)

    def _rows(self, table: Any, *order: Any) -> Iterator[AnyRow]:
        streamed = self._connection.execution_options(yield_per=STEP)
        return iter(streamed.execute(select(table).order_by(*order)))

    def _walk(self) -> None:
        postings = self._rows(tables.postings, tables.postings.c.posting_number)
        transfers = _Reader(self._rows(tables.transfers, tables.transfers.c.transfer_number))
        moves = _Reader(
            self._rows(
                tables.lot_moves, tables.lot_moves.c.transfer_number, tables.lot_moves.c.lot_id
            )
        )
        for posting in postings:
            before = posting.first_transfer - 1
            self._strays(transfers.until(before), moves.until(before))
            last = posting.first_transfer + posting.transfers - 1
            self._check_posting(posting, transfers.until(last), moves.until(last))
        self._strays(list(transfers.rest()), list(moves.rest()))
        head = self._connection.execute(select(tables.heads)).one()
        if (head.postings, head.transfers) != (self._posting, self._transfer):
            self.problems.append(
                f"the book ends at posting {self._posting} and transfer {self._transfer},"
                f" its head says posting {head.postings} and transfer {head.transfers}"
            )
        if head.link != self._link:
            self.problems.append("the head of the hash chain is not the link of the last posting")
        for what, last in (
            ("accounts", -func.min(tables.accounts.c.account_id)),
            ("members", func.max(tables.members.c.member_number)),
            ("conversions", func.max(tables.conversions.c.conversion_number)),
            ("requests", func.max(tables.requests.c.request_number)),
        ):
            number = self._connection.execute(select(last)).scalar() or 0
            if number > getattr(head, what):
                self.problems.append(
                    f"{what} are numbered to {number}, the head says {getattr(head, what)}"
                )
        for closed in self._closed.values():
            if closed.link != self._links.get(closed.postings):
                self.problems.append(
                    f"period {closed.period} was closed at posting {closed.postings},"
                    " whose link is another"
                )

    def _strays(self, transfers: list[AnyRow], moves: list[AnyRow]) -> None:
        """Rows that lie between postings, or behind the last one."""
        for row in transfers:
            self.problems.append(f"transfer number {row[0]} belongs to no posting")
        there = {row[0] for row in transfers}
        for row in moves:
            if row[0] not in there:
                self.problems.append(f"transfer number {row[0]} has lot moves but does not exist")

    def _check_posting(self, row: AnyRow, transfers: list[AnyRow], moves: list[AnyRow]) -> None:
        say, number = self.problems.append, row.posting_number
        if number != self._posting + 1:
            say(f"postings {self._posting + 1} to {number - 1} are missing")
        self._posting = number
        expected = list(range(self._transfer + 1, self._transfer + 1 + row.transfers))
        if [t.transfer_number for t in transfers] != expected or not expected:
            last = self._transfer + row.transfers
            say(f"posting {number} should have transfers {self._transfer + 1} to {last}")
        for transfer in transfers:
            if transfer.posting_number != number:
                say(f"transfer number {transfer[0]} says that it is of another posting")
        self._transfer = row.first_transfer + row.transfers - 1
        origin, origin_bytes = self._origins.get(row.origin_id, (None, b""))
        booking, booking_bytes = self._bookings.get(row.booking_id, (None, b""))
        if origin is None or booking is None:
            say(f"posting {number} has no origin, or no booking")
            self._link = row.link
            return
        cause = Cause(
            row.cause_id, row.cause_version, row.effective_ns, row.subscriber_id, row.click_id,
            row.visit_id, origin,
        )  # fmt: skip
        head = posting_bytes(row.posting_id, cause, origin_bytes, booking_bytes)
        known = all(t.debit in self.names and t.credit in self.names for t in transfers)
        plain = [Transfer(t.kind, t.debit, t.credit, t.amount) for t in transfers]
        made = [LotMove(m[0] - row.first_transfer, *m[1:]) for m in moves]
        if not known:
            say(f"posting {number} moves accounts that do not exist")
        elif not self._is_chained(head, plain, made, row.link):
            say(
                f"posting {number} breaks the hash chain:"
                " it, a transfer, a lot move or an account was changed, or one before it is gone"
            )
        self._link = row.link
        if number in self._links:
            self._links[number] = row.link
        before = self.last_posting.get(row.subscriber_id)
        if row.previous != (before or 0):
            say(f"posting {number} is not linked to the one before about its subscriber")
        if before or (before is not None and touches_member(plain)):
            self.last_posting[row.subscriber_id] = number
        self._check_head(number, row.posting_id, cause, booking)
        self._fold_posting(number, cause, booking, plain, made)

    def _is_chained(
        self, head: bytes, transfers: list[Transfer], moves: list[LotMove], link: bytes
    ) -> bool:
        """Does the link follow from the one before and from what is there?"""
        try:
            found = link_of(self._key, self._link, head, transfers, self.names, moves)
        except Exception as error:  # what no posting can hold: a number that does not fit
            self.problems.append(f"posting {self._posting} cannot be read: {error}")
            return True
        return found == link

    def _check_head(self, number: int, identifier: bytes, cause: Cause, booking: Booking) -> None:
        say, name, origin = self.problems.append, f"posting {number}", cause.origin
        made = posting_id(self._key, self._programme.id, origin.cause_kind, cause.id, cause.version)
        if made != identifier:
            say(f"{name} does not have the id of its cause")
        if cause.id == NO_ID or not origin.cause_kind or cause.version < 1:
            say(f"{name} has no cause")
        if origin.rule_version == NO_ID:
            say(f"{name} has no rule version")
        elif self._imports and origin.rule_version not in self._rules:
            say(f"{name} was booked under rule version {origin.rule_version.hex()}, never imported")
        period = period_of(booking.booked_ns, self._programme.timezone)
        while period != booking.period and period in self._closed:
            period = next_period(period)
        if period != booking.period:
            say(f"{name} is in period {booking.period}, but was booked in {period}")
        closed = self._closed.get(booking.period)
        if closed is not None and number > closed.postings:
            say(f"{name} is in period {booking.period}, which was closed before")
        if booking.booked_ns < self._booked_ns:
            say(f"{name} was booked at an earlier time than the one before it")
        self._booked_ns = booking.booked_ns

    def _fold_posting(
        self,
        number: int,
        cause: Cause,
        booking: Booking,
        transfers: list[Transfer],
        moves: list[LotMove],
    ) -> None:
        folds, kind = self.folds, cause.origin.cause_kind
        folds.rulebook_of[number] = cause.origin.rulebook_hash
        folds.rule_of[number] = cause.origin.rule_version
        folds.runs[booking.run_id] += 1
        folds.causes.add(cause.id)
        folds.times.add((cause.id, cause.effective_ns))
        if kind == ORDER:
            folds.order_steps[cause.id] += 1
        elif kind == CONVERSION:
            folds.versions[cause.id] = max(folds.versions[cause.id], cause.version)
        elif kind == COMMAND:
            folds.commands.add(cause.id)
        elif kind == LOT:
            folds.lot_steps[cause.id] += 1
            if transfers and transfers[0].kind == EntryKind.EXPIRE:
                folds.lapsed_ns[cause.id] = cause.effective_ns
        by_step: dict[int, list[int]] = {}
        for move in moves:
            sums = by_step.setdefault(move.step, [0] * 4)
            lot = folds.lots[move.lot_id]
            for at, change in enumerate(move[2:]):
                sums[at] += change
                lot[at] += change
            if move.amount > 0:
                folds.first.setdefault(move.lot_id, number)
            if kind == ORDER and move.held:
                taken = folds.order_lots[cause.id, move.lot_id]
                taken[0] += move.held
                if (
                    0 <= move.step < len(transfers)
                    and transfers[move.step].kind == EntryKind.COMMIT
                ):
                    taken[1] -= move.held
        for step, transfer in enumerate(transfers):
            self._fold_transfer(number, cause, transfer, by_step.get(step, [0] * 4))

    def _fold_transfer(
        self, number: int, cause: Cause, transfer: Transfer, moved: list[int]
    ) -> None:
        folds, say, kind = self.folds, self.problems.append, cause.origin.cause_kind
        word = KIND_WORDS.get(transfer.kind, str(transfer.kind))
        if transfer.amount <= 0:
            say(f"a transfer ({word}) of posting {number} moves {transfer.amount}")
        names, changes = [], {AVAILABLE: 0, RESERVED: 0}
        for account, sign in ((transfer.debit, 1), (transfer.credit, -1)):
            amount = sign * transfer.amount
            folds.balances[account] += amount
            name, commodity = self._name(account)
            names.append(commodity)
            if account > 0:
                if self.members.get(account // BUCKETS) != cause.subscriber_id:
                    say(f"posting {number} moves {name}, it is about another subscriber")
                if account % BUCKETS in changes:
                    changes[account % BUCKETS] -= amount
            elif kind == CONVERSION:
                folds.by_conversion[cause.id, name, commodity] += amount
            if account == self._issued and transfer.kind in BY_COMMAND:
                folds.by_command += amount
        if names[0] != names[1]:
            say(f"a transfer ({word}) of posting {number} moves {names[0]} to {names[1]}")
        self._fold_life(cause, transfer)
        if kind == ORDER and transfer.kind in ORDER_KINDS:
            folds.orders[cause.id, transfer.kind] += transfer.amount
        lapsed = sum(
            transfer.amount * sign
            for account, sign in ((transfer.credit, 1), (transfer.debit, -1))
            if account == self._lapsed
        )
        if moved[1:] != [changes[AVAILABLE], changes[RESERVED], lapsed]:
            say(
                f"a transfer ({word}) of posting {number} moves {changes[AVAILABLE]} available,"
                f" {changes[RESERVED]} reserved, {lapsed} lapsed points, but in lots"
                f" {moved[1]}, {moved[2]}, {moved[3]}"
            )
        if transfer.kind == EntryKind.EARN_PENDING:
            origin = cause.origin
            made = (cause.subscriber_id, origin.contract_version, origin.rule_version,
                    cause.effective_ns, origin.rulebook_hash)  # fmt: skip
            folds.opened[cause.id].append(made)

    def _fold_life(self, cause: Cause, transfer: Transfer) -> None:
        """When members had points and were active; imports had them earlier, as their lots say."""
        since, who, at_ns = self.folds.since, cause.subscriber_id, cause.effective_ns
        got = transfer.credit > 0 and transfer.credit % BUCKETS == AVAILABLE
        if got and transfer.kind in GRANTS:
            since[who] = min(since.get(who, at_ns), at_ns)
        gave = transfer.kind != EntryKind.TRANSFER or transfer.debit > 0
        if transfer.kind in ACTIVE and gave:
            self.folds.active[who] = max(self.folds.active[who], at_ns)

    def _name(self, number: int) -> tuple[str, str]:
        if number > 0:
            who = self.members.get(number // BUCKETS, NO_ID)
            return member_accounts(who)[number % BUCKETS], self._programme.points
        row = self.accounts.get(number)
        return (row.account, row.commodity) if row is not None else (f"account {number}", "?")


class _Reader:
    """Rows by a rising first number, taken as far as one asks."""

    def __init__(self, rows: Iterator[AnyRow]) -> None:
        self._rows, self._next = rows, next(rows, None)

    def until(self, last: int) -> list[AnyRow]:
        """The rows up to and including a number."""
        found = []
        while self._next is not None and self._next[0] <= last:
            found.append(self._next)
            self._next = next(self._rows, None)
        return found

    def rest(self) -> Iterator[AnyRow]:
        """All that is left."""
        while self._next is not None:
            yield self._next
            self._next = next(self._rows, None)
