"""Does the book keep its own rules? Reads every row once and says what is broken, row by row.

The invariants are those that hold at any time, whatever happened: legs sum to zero; nothing
available, reserved, pending or owed is below zero; lots hold between nothing and what was granted,
and together what is available and reserved; a pending item resolves once and whole; a conversion's
entries sum to its target; nothing was booked without a cause and a rule; points issued are the
targets that stand. Balances, lots, pending items and orders are folds of what is append-only, and
the hash chain shows that this was not touched since it was written (`book_walk`). What they were
made from is compared by `book_origin`.

Nothing here trusts a stored sum; all sums are Python integers, which do not wrap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, Table, select

from pipeline.ledger.accounts import ISSUED, balance_shown, member_accounts, money_accounts
from pipeline.ledger.lots import lot_id
from pipeline.ledger.targets import Target
from pipeline.ledger.terms import expires_ns
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.words import Result, TargetState
from pipeline.rulebook.model import Programme
from pipeline.store import book_schema as tables
from pipeline.store.book_origin import Origins
from pipeline.store.book_pages import conversion_of
from pipeline.store.book_schema import AnyRow
from pipeline.store.book_walk import STEP, Walk


def audit(connection: Connection, key: bytes, programme: Programme) -> list[str]:
    """Every broken invariant as a sentence with the ids concerned; empty for a sound book."""
    walk = Walk(connection, key, programme)
    check = _Check(connection, key, programme, walk)
    check.origins.rulebooks()
    check.accounts()
    check.lots()
    check.pending()
    check.conversions()
    check.orders()
    check.outbox()
    check.origins.references()
    return walk.problems


class _Check:
    """The checks in their order; each leaves sums that the next ones need."""

    def __init__(
        self, connection: Connection, key: bytes, programme: Programme, walk: Walk
    ) -> None:
        self.connection, self.key, self.programme = connection, key, programme
        self.folds, self.say = walk.folds, walk.problems.append
        self.issued = 0
        self.spendable: dict[bytes, int] = defaultdict(int)  # available and reserved, less lots
        self.waiting: dict[bytes, int] = defaultdict(int)  # pending, less open items
        self.granted: dict[bytes, dict[bytes, int]] = defaultdict(dict)
        self.open: dict[bytes, tuple[bytes, int]] = {}
        self.origins = Origins(connection, walk.folds, self.say)

    def rows(self, source: Table | Select[Any]) -> Iterator[AnyRow]:
        """All rows of a table or query, some thousands at a time."""
        query = select(source) if isinstance(source, Table) else source
        return iter(self.connection.execution_options(yield_per=STEP).execute(query))

    def accounts(self) -> None:
        """Balances are sums of entries, and none that must not is below zero."""
        total = 0
        for number, account, commodity, member, balance in self.rows(tables.accounts):
            folded = self.folds.balances.pop(number, 0)
            if folded != balance:
                self.say(
                    f"account {account} has {balance} {commodity}, its entries sum to {folded}"
                )
            if commodity == self.programme.points:
                total += balance
                self.issued += balance if account == ISSUED else 0
            if account.startswith("member:"):
                self._member_account(account, member, balance)
        if total:
            self.say(f"all points together come to {total}, not to zero")

    def _member_account(self, account: str, member: bytes, balance: int) -> None:
        names, shown = member_accounts(member), balance_shown(account, balance)
        if account not in names:
            self.say(f"account {account} is filed under subscriber {id_text(member)}")
        if shown < 0:
            self.say(f"account {account} is below zero: {shown}")
        if account in (names.available, names.reserved):
            self.spendable[member] += shown
        elif account == names.pending:
            self.waiting[member] += shown

    def lots(self) -> None:
        """Lots hold from nothing to what was granted, and all that is available and reserved."""
        moved: dict[bytes, tuple[int, int]] = defaultdict(lambda: (0, 0))
        changes: dict[int, int] = defaultdict(int)
        first: dict[bytes, int] = {}
        for transfer, lot, amount, left in self.rows(tables.lot_moves):
            if amount > 0:
                first[lot] = min(first.get(lot, transfer), transfer)
            moved[lot] = moved[lot][0] + amount, moved[lot][1] + left
            changes[transfer] += left
        for transfer in sorted(changes.keys() | self.folds.spendable.keys()):
            points, taken = self.folds.spendable.get(transfer, 0), changes.get(transfer, 0)
            if points != taken:
                self.say(f"transfer number {transfer} moves {points} points but {taken} in lots")
        terms = {row[0]: row for row in self.rows(tables.terms)}
        for lot in self.rows(tables.lots):
            self._lot(lot, moved.pop(lot.lot_id, (0, 0)), terms.get(lot.terms_id))
            self.origins.lot(lot, first.get(lot.lot_id, 0))
        for lost in sorted(moved):
            self.say(f"lot {id_text(lost)} has moves but does not exist")
        for member, rest in sorted(self.spendable.items()):
            if rest:
                name = f"subscriber {id_text(member)}"
                self.say(f"{name} has {rest} more points available and reserved than in lots")

    def _lot(self, lot: AnyRow, folded: tuple[int, int], terms: AnyRow | None) -> None:
        name = f"lot {id_text(lot.lot_id)}"
        if not 0 <= lot.remaining <= lot.amount:
            self.say(f"{name} has {lot.remaining} of {lot.amount} points")
        if folded != (lot.amount, lot.remaining):
            self.say(
                f"{name} has {lot.remaining} of {lot.amount} points,"
                f" its moves say {folded[1]} of {folded[0]}"
            )
        own = lot_id(self.key, self.programme.id, lot.conversion_key, lot.subscriber_id)
        if own != lot.lot_id:
            self.say(f"{name} is not the lot of its conversion and member")
        if terms is None:
            self.say(f"{name} has no terms")
        elif lot.expires_ns != expires_ns(
            terms.expiry_policy, lot.earned_ns, self.programme.timezone
        ):
            self.say(f"{name} does not expire as {terms.expiry_policy} says")
        self.spendable[lot.subscriber_id] -= lot.remaining
        if lot.amount:
            self.granted[lot.conversion_key][lot.subscriber_id] = lot.amount

    def pending(self) -> None:
        """A pending item resolves at most once, and never into more than it was."""
        for item in self.rows(tables.pending_items):
            name = f"pending item {item.generation} of conversion {id_text(item.conversion_key)}"
            self.origins.pending(item)
            parts = (item.confirmed, item.returned)
            if min(parts) < 0 or sum(parts) > item.amount:
                self.say(f"{name} was {item.amount} points, confirmed and returned are {parts}")
            elif item.resolved and sum(parts) != item.amount:
                self.say(f"{name} is resolved, but only {sum(parts)} of {item.amount} points")
            elif not item.resolved and any(parts):
                self.say(f"{name} is open, but {sum(parts)} of its points are resolved")
            if item.resolved:
                continue
            if item.conversion_key in self.open:
                self.say(f"{name} is open beside another one")
            self.open[item.conversion_key] = item.subscriber_id, item.amount
            self.waiting[item.subscriber_id] -= item.amount
        for member, rest in sorted(self.waiting.items()):
            if rest:
                name = f"subscriber {id_text(member)}"
                self.say(f"{name} has {rest} more points pending than in open items")

    def conversions(self) -> None:
        """One active state each, with entries that sum to it; together they are what was issued."""
        targets, seen = 0, set()
        for row in self.rows(tables.conversions):
            conversion = conversion_of(row)
            target = conversion.target
            seen.add(target.conversion_key)
            targets += target.points if target.standing else 0
            self._standing(target)
            self.origins.target(target)
            self._sums(target)
            if target.points and conversion.pin.rule_version == NO_ID:
                self.say(f"conversion {id_text(target.conversion_key)} has points but no rule")
        if self.issued != targets:
            self.say(f"{self.issued} points are issued, conversions come to {targets}")
        for key in sorted((self.granted.keys() | self.open.keys()) - seen):
            self.say(f"conversion {id_text(key)} has points but does not exist")
        for (key, account, commodity), rest in sorted(self.folds.by_conversion.items()):
            if rest:
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
        """What was redeemed is what accepted orders asked for."""
        for order in self.rows(tables.orders):
            spent = self.folds.redeemed.pop(order.order_id, 0)
            asked = order.points if order.result == Result.OK else 0
            if spent != asked:
                name = f"order {id_text(order.order_id)}"
                self.say(f"{name} should have spent {asked} points, its entries say {spent}")
        for identifier, spent in sorted(self.folds.redeemed.items()):
            self.say(f"order {id_text(identifier)} spent {spent} points but does not exist")

    def outbox(self) -> None:
        """What is not delivered is one unbroken range up to the newest entry."""
        outbox, expected = tables.outbox, None
        for first, last in self.rows(select(outbox).order_by(outbox.c.first_sequence)):
            if first > last or expected not in (None, first):
                self.say(f"the outbox has entries {first} to {last} out of line")
            expected = last + 1
        head = self.connection.execute(select(tables.heads.c.sequence)).scalar_one()
        if expected not in (None, head + 1):
            self.say(f"the outbox ends before entry {expected}, the book at entry {head}")
