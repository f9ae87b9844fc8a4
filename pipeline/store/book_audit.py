"""Does the book keep its own rules? Reads every row once and says what is broken, row by row.

The invariants are those that hold at any time, whatever happened: nothing available, reserved,
pending or owed is below zero, and who owes has nothing available; lots hold between nothing and
what was granted, and together what is available and reserved; a pending item resolves once and
whole; a conversion's transfers sum to its target; an order's to what it stands for; nothing was
booked without a cause and a rule. And invariant 0: points issued are the targets that stand, and
what people, imports and exchanges issued; every lot traces to one of these.

Balances, lots, pending items and orders are folds of what is append-only, and the hash chain shows
that this was not touched since it was written (`book_walk`). What they were made from is compared
by `book_origin`. Nothing here trusts a stored sum; all sums are Python integers, which do not wrap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, Table, select

from pipeline.ledger.accounts import (
    BUCKETS,
    ISSUED,
    TRANSIT,
    Bucket,
    EntryKind,
    member_accounts,
    money_accounts,
)
from pipeline.ledger.lots import lot_id
from pipeline.ledger.targets import Target
from pipeline.ledger.transfers import COMMAND, CONVERSION
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.words import TargetState
from pipeline.rulebook.model import Programme
from pipeline.store import book_schema as tables
from pipeline.store.book_answers import Answers, Lives
from pipeline.store.book_origin import Origins, dated_by
from pipeline.store.book_reads import conversion_of
from pipeline.store.book_schema import AnyRow
from pipeline.store.book_trail import TrailCheck
from pipeline.store.book_walk import STEP, Walk


def audit(connection: Connection, key: bytes, programme: Programme) -> list[str]:
    """Every broken invariant as a sentence with the ids concerned; empty for a sound book."""
    walk = Walk(connection, key, programme)
    check = _Check(connection, key, programme, walk)
    answers = Answers(connection, walk.folds, programme.timezone, walk.problems.append)
    check.origins.rulebooks()
    check.accounts()
    check.members()
    check.lots()
    check.lives(answers.frozen())
    check.pending()
    check.conversions()
    check.orders()
    answers.check()
    TrailCheck(connection, key, walk.problems.append).check()
    check.outbox()
    check.origins.references()
    return walk.problems


class _Check:
    """The checks in their order; each leaves sums that the next ones need."""

    def __init__(
        self, connection: Connection, key: bytes, programme: Programme, walk: Walk
    ) -> None:
        self.connection, self.key, self.programme = connection, key, programme
        self.folds, self.say, self.last = walk.folds, walk.problems.append, walk.last_posting
        self.issued = 0
        self.total = 0
        self.free: dict[bytes, int] = defaultdict(int)  # available, less what lots have
        self.held: dict[bytes, int] = defaultdict(int)  # reserved, less what lots hold
        self.waiting: dict[bytes, int] = defaultdict(int)  # pending, less open items
        self.granted: dict[bytes, dict[bytes, int]] = defaultdict(dict)
        self.open: dict[bytes, tuple[bytes, int]] = {}
        self.lots_held: dict[bytes, int] = {}
        self.origins = Origins(connection, key, programme, walk.folds, self.say)
        self.since = Lives(walk.folds, self.say)

    def rows(self, source: Table | Select[Any]) -> Iterator[AnyRow]:
        """All rows of a table or query, some thousands at a time."""
        query = select(source) if isinstance(source, Table) else source
        return iter(self.connection.execution_options(yield_per=STEP).execute(query))

    def accounts(self) -> None:
        """Balances are sums of transfers."""
        for number, account, commodity, balance in self.rows(tables.accounts):
            folded = self.folds.balances.pop(number, 0)
            if folded != balance:
                self.say(
                    f"account {account} has {balance} {commodity}, its transfers sum to {folded}"
                )
            if commodity == self.programme.points:
                self.total += balance
                self.issued += balance if account == ISSUED else 0
                if account == TRANSIT and balance:
                    self.say(f"{balance} points are left between two members")
            if account.startswith("stock:") and not account.endswith(":supplied") and balance < 0:
                self.say(f"account {account} is below zero: {balance}")

    def members(self) -> None:
        """What members have is a sum of transfers, too, and never below zero."""
        for row in self.rows(tables.members):
            number, member, balances = row[0], row[1], row[2:6]
            names = member_accounts(member)
            for bucket, balance in enumerate(balances):
                folded = self.folds.balances.pop(number * BUCKETS + bucket, 0)
                if folded != balance:
                    self.say(
                        f"account {names[bucket]} has {balance} points,"
                        f" its transfers sum to {folded}"
                    )
                shown = balance if bucket == Bucket.DEBT else -balance
                if shown < 0:
                    self.say(f"account {names[bucket]} is below zero: {shown}")
                self.total += balance
            if row.last_posting != self.last[member]:
                self.say(f"the last posting about subscriber {id_text(member)} is another")
            self.waiting[member] -= row.pending
            self.free[member] -= row.available
            self.held[member] -= row.reserved
            if row.debt and row.available:
                self.say(f"subscriber {id_text(member)} owes {row.debt}, and has points available")
        if self.total:
            self.say(f"all points together come to {self.total}, not to zero")
        for number in sorted(number for number, sum_ in self.folds.balances.items() if sum_):
            self.say(f"account number {number} has transfers but does not exist")

    def lives(self, frozen: set[bytes]) -> None:
        """When members first had points and were last active, and whether they were ever frozen."""
        for row in self.rows(tables.members):
            self.since.member(row, row.subscriber_id in frozen)

    def lots(self) -> None:
        """Lots hold from nothing to what was granted, and all that is available and reserved."""
        terms = {row[0]: row for row in self.rows(tables.terms)}
        dates = tables.lot_dates
        born: dict[bytes, AnyRow] = {}
        for row in self.rows(select(dates).order_by(dates.c.until_ns.desc())):
            born[row.lot_id] = row
        known: set[bytes] = set()
        parents: dict[bytes, bytes] = {}
        for lot in self.rows(tables.lots):
            known.add(lot.lot_id)
            if lot.parent_lot_id != NO_ID:
                parents[lot.lot_id] = lot.parent_lot_id
            self.since.lot(lot)
            self._lot(lot, self.folds.lots.pop(lot.lot_id, [0] * 4))
            self._lot_dates(lot, terms.get(lot.terms_id), born.get(lot.lot_id))
            self.origins.lot(lot, self.folds.first.get(lot.lot_id, 0), born.get(lot.lot_id))
        for lost in sorted(self.folds.lots):
            self.say(f"lot {id_text(lost)} has moves but does not exist")
        for lost in sorted(lot for lot, parent in parents.items() if parent not in known):
            self.say(f"lot {id_text(lost)} came from a lot that does not exist")
        for lost in sorted(born.keys() - known):
            self.say(f"lot {id_text(lost)} had other dates, but does not exist")
        self.origins.passed_on()
        for what, sums in (("available", self.free), ("reserved", self.held)):
            for member, rest in sorted(sums.items()):
                if rest:
                    name = f"subscriber {id_text(member)}"
                    self.say(f"{name} has {rest} more points {what} than in lots")

    def _lot(self, lot: AnyRow, folded: list[int]) -> None:
        name = f"lot {id_text(lot.lot_id)}"
        numbers = [lot.amount, lot.remaining, lot.held, lot.lapsed]
        if min(numbers) < 0 or lot.remaining + lot.lapsed > lot.amount:
            self.say(
                f"{name} has {lot.remaining} of {lot.amount} points, {lot.held} held,"
                f" {lot.lapsed} lapsed"
            )
        if folded != numbers:
            self.say(
                f"{name} has {lot.remaining} of {lot.amount} points, {lot.held} held,"
                f" {lot.lapsed} lapsed; its moves say {folded[1]} of {folded[0]}, {folded[2]},"
                f" {folded[3]}"
            )
        if self.folds.lot_steps.get(lot.lot_id, 0) != lot.changes:
            self.say(f"{name} lapsed or came back {lot.changes} times, its postings say otherwise")
        last = self.folds.lapsed_ns.get(lot.lot_id, 0), self.folds.lapsed_last.get(lot.lot_id, 0)
        if last != (lot.lapsed_ns, lot.lapsed_last):
            self.say(f"{name} lapsed last at another time than its postings say, or with more")
        if lot.parent_lot_id == NO_ID:
            own = lot_id(self.key, self.programme.id, lot.cause_id, lot.subscriber_id)
            if own != lot.lot_id:
                self.say(f"{name} is not the lot of its cause and member")
        if lot.cause_kind not in (CONVERSION, COMMAND):
            self.say(f"{name} traces to nothing that may issue points")
        self.free[lot.subscriber_id] -= lot.remaining
        self.held[lot.subscriber_id] -= lot.held
        if lot.held:
            self.lots_held[lot.lot_id] = lot.held
        if lot.amount and lot.cause_kind == CONVERSION:
            self.granted[lot.cause_id][lot.subscriber_id] = lot.amount

    def _lot_dates(self, lot: AnyRow, terms: AnyRow | None, born: AnyRow | None) -> None:
        """A lot of a conversion was first dated as its terms say; later perhaps by a refund."""
        name = f"lot {id_text(lot.lot_id)}"
        if terms is None:
            self.say(f"{name} has no terms")
        elif lot.cause_kind == CONVERSION:
            first = born or lot
            until = dated_by(terms.expiry_policy, first.earned_ns, self.programme.timezone)
            if first.expires_ns != until:
                does = "did" if born else "does"
                self.say(f"{name} {does} not expire as {terms.expiry_policy} says")

    def pending(self) -> None:
        """A pending item resolves at most once, and never into more than it was."""
        keys = {
            row[0]: row[1]
            for row in self.rows(
                select(tables.conversions.c.conversion_number, tables.conversions.c.conversion_key)
            )
        }
        for item in self.rows(tables.pending_items):
            key = keys.get(item.conversion_number, NO_ID)
            name = f"pending item {item.generation} of conversion {id_text(key)}"
            self.origins.pending(item, key)
            parts = (item.confirmed, item.returned)
            if min(parts) < 0 or sum(parts) > item.amount:
                self.say(f"{name} was {item.amount} points, confirmed and returned are {parts}")
            elif item.resolved and sum(parts) != item.amount:
                self.say(f"{name} is resolved, but only {sum(parts)} of {item.amount} points")
            elif not item.resolved and any(parts):
                self.say(f"{name} is open, but {sum(parts)} of its points are resolved")
            if item.resolved:
                continue
            if key in self.open:
                self.say(f"{name} is open beside another one")
            self.open[key] = item.subscriber_id, item.amount
            self.waiting[item.subscriber_id] -= item.amount
        for member, rest in sorted(self.waiting.items()):
            if rest:
                name = f"subscriber {id_text(member)}"
                self.say(f"{name} has {rest} more points pending than in open items")

    def conversions(self) -> None:
        """One active state each, with transfers that sum to it; invariant 0."""
        targets, seen = 0, set()
        for row in self.rows(tables.conversions):
            conversion = conversion_of(row)
            target = conversion.target
            seen.add(target.conversion_key)
            targets += target.points if target.standing else 0
            self._standing(target)
            self.origins.target(target)
            self._sums(target)
            name = f"conversion {id_text(target.conversion_key)}"
            if target.points and conversion.pin.rule_version == NO_ID:
                self.say(f"{name} has points but no rule")
            opened = len(self.folds.opened.get(target.conversion_key, ()))
            if conversion.generation != opened:
                self.say(f"{name} waited {conversion.generation} times, its postings {opened}")
            if conversion.number < self.folds.versions[target.conversion_key]:
                self.say(f"{name} has more postings than the {conversion.number} it says")
        if self.issued != targets + self.folds.by_command:
            self.say(
                f"{self.issued} points are issued, conversions come to {targets}"
                f" and commands to {self.folds.by_command}"
            )
        for key in sorted((self.granted.keys() | self.open.keys()) - seen):
            self.say(f"conversion {id_text(key)} has points but does not exist")
        for (key, account, commodity), rest in sorted(self.folds.by_conversion.items()):
            if rest and account not in UNCOUNTED:
                name = f"conversion {id_text(key)}"
                self.say(f"{name} has {rest} {commodity} more on {account} than its target")

    def _standing(self, target: Target) -> None:
        key, name = target.conversion_key, f"conversion {id_text(target.conversion_key)}"
        granted, waiting = self.granted.get(key, {}), self.open.get(key)
        mine = (target.subscriber_id, target.points)
        stands = {
            TargetState.NONE: not granted and waiting is None,
            TargetState.PENDING: not granted and waiting == mine,
            TargetState.AVAILABLE: waiting is None and granted == dict([mine]),
        }
        if not stands[target.standing]:
            lots = ", ".join(f"{n} of {id_text(m)}" for m, n in sorted(granted.items())) or "none"
            item = "none" if waiting is None else f"{waiting[1]} of {id_text(waiting[0])}"
            self.say(
                f"{name} should be {target.standing.name.lower()} with {target.points} points of"
                f" {id_text(target.subscriber_id) or 'nobody'}; pending: {item}; in lots: {lots}"
            )

    def _sums(self, target: Target) -> None:
        expected = {(ISSUED, self.programme.points): target.points}
        if target.state == TargetState.AVAILABLE and target.currency:
            amounts = (target.receivable_minor, -target.cost_minor, -target.margin_minor)
            for account, amount in zip(money_accounts(target.partner), amounts, strict=True):
                expected[account, target.currency] = amount
        for (account, commodity), amount in expected.items():
            self.folds.by_conversion[target.conversion_key, account, commodity] -= amount

    def orders(self) -> None:
        """An order stands for what its postings did: reserved, spent, let go, given back."""
        taken: dict[int, list[int]] = defaultdict(lambda: [0] * 3)
        held: dict[bytes, int] = defaultdict(int)
        ids = {row.request_number: row.order_id for row in self.rows(tables.orders)}
        lots_taken = self.folds.order_lots
        for row, lot, *numbers in self.rows(tables.order_lots):
            if min(numbers) < 0 or numbers[2] > numbers[1]:
                self.say(f"order number {row} took {numbers} of lot {id_text(lot)}")
            folded = lots_taken.pop((ids.get(row, NO_ID), lot), [0] * 2)
            if folded != numbers[:2]:
                self.say(
                    f"order number {row} holds and spent {numbers[:2]} of lot {id_text(lot)},"
                    f" its postings say {folded}"
                )
            for at, number in enumerate(numbers):
                taken[row][at] += number
            held[lot] += numbers[0]
        for lot in sorted(held.keys() | self.lots_held.keys()):
            if held.get(lot, 0) != self.lots_held.get(lot, 0):
                self.say(
                    f"lot {id_text(lot)} holds {self.lots_held.get(lot, 0)} points,"
                    f" orders hold {held.get(lot, 0)} of it"
                )
        for order_id, lot in sorted(at for at, numbers in lots_taken.items() if any(numbers)):
            self.say(f"order {id_text(order_id)} took points of lot {id_text(lot)}, but says not")
        self._orders(taken)

    def _orders(self, taken: dict[int, list[int]]) -> None:
        folded, steps = self.folds.orders, self.folds.order_steps
        for order in self.rows(tables.orders):
            name = f"order {id_text(order.order_id)}"
            sums = [folded.pop((order.order_id, int(kind)), 0) for kind in ORDER_SUMS]
            reserved, spent, let_go, refunded = sums
            stands = (order.points, order.committed, order.refunded)
            if (reserved, spent, refunded) != stands:
                self.say(
                    f"{name} stands for {stands} points reserved, spent and refunded,"
                    f" its postings say {(reserved, spent, refunded)}"
                )
            left = reserved - spent - let_go
            if bool(left) != bool(order.is_open):
                self.say(f"{name} is {'open' if order.is_open else 'closed'} and holds {left}")
            if taken.pop(order.request_number, [0] * 3) != [left, spent, refunded]:
                self.say(f"{name} does not hold, spend and refund what it took of lots")
            if steps.pop(order.order_id, 0) != order.number:
                self.say(f"{name} took {order.number} steps, its postings are others")
        for identifier in sorted({at[0] for at in folded} | steps.keys()):
            self.say(f"order {id_text(identifier)} moved points but does not exist")
        for row in sorted(taken):
            self.say(f"order number {row} took points of lots but does not exist")

    def outbox(self) -> None:
        """What is not delivered is one unbroken range up to the newest transfer."""
        outbox, expected = tables.outbox, None
        for first, last in self.rows(select(outbox).order_by(outbox.c.first_transfer)):
            if first > last or expected not in (None, first):
                self.say(f"the outbox has transfers {first} to {last} out of line")
            expected = last + 1
        head = self.connection.execute(select(tables.heads.c.transfers)).scalar_one()
        if expected not in (None, head + 1):
            self.say(f"the outbox ends before transfer {expected}, the book at transfer {head}")


ORDER_SUMS = (EntryKind.RESERVE, EntryKind.COMMIT, EntryKind.RELEASE, EntryKind.REFUND)
# What a conversion leaves on these is not told by its target: lapsed points may be taken back.
UNCOUNTED = ("programme:lapsed",)
