"""What the book knows while it posts, and the draft in which one posting is made up.

`LedgerState` holds the part of the book that a batch needs; the store fills it before and writes
back what changed after. A posting is made in a `Draft` over it: the draft sees its own changes,
checks that every number fits int64, and is then taken over whole, or dropped without a trace.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from pipeline.ledger.accounts import EntryKind
from pipeline.ledger.lots import Lot, lot_id
from pipeline.ledger.targets import Target
from pipeline.ledger.terms import Terms
from pipeline.ledger.transfers import MAX_LEGS, MAX_STEPS, Leg, LotMove, Transfer, unbalanced
from pipeline.model.identifiers import NO_ID
from pipeline.model.money import INT64_MAX
from pipeline.model.words import Result

INT64_MIN = -INT64_MAX - 1
Balance = tuple[str, str]  # account, commodity


class Pin(NamedTuple):
    """The rulebook a conversion was first rated by, and the rule and terms that it has there."""

    rule_id: str
    rule_version: bytes
    contract_version: str
    rulebook_hash: bytes
    terms_hash: bytes


NO_PIN = Pin("", NO_ID, "", NO_ID, NO_ID)


class Conversion(NamedTuple):
    """The newest target of a conversion that the book took.

    `number` counts the accepted targets, `generation` the pending items so far.
    """

    target: Target
    number: int
    generation: int
    pin: Pin


class PendingItem(NamedTuple):
    """Points waiting for the partner's word. Resolves once: then confirmed + returned == amount."""

    conversion_key: bytes
    generation: int
    subscriber_id: bytes
    terms: Terms
    contract_version: str
    rule_version: bytes
    event_ns: int
    amount: int
    confirmed: int
    returned: int
    resolved: bool


class SettledOrder(NamedTuple):
    """An order that was answered; asking again gives the same answer."""

    subscriber_id: bytes
    points: int
    result: Result


class LedgerState:
    """Everything that postings of one batch read, and what they changed.

    `lots` holds at least the own lots of the batch's conversions, and all non-empty lots of every
    member who may have to give points from others. `changed_*` tell the store what to write.
    """

    def __init__(self, key: bytes, terms: Terms, timezone: str, programme_version: bytes) -> None:
        self.key, self.terms, self.timezone = key, terms, timezone
        self.programme_version = programme_version
        self.terms_by_rulebook: dict[bytes, Terms] = {}
        self.conversions: dict[bytes, Conversion] = {}
        self.pending: dict[tuple[bytes, int], PendingItem] = {}
        self.lots: dict[bytes, Lot] = {}
        self.lots_of: dict[bytes, set[bytes]] = defaultdict(set)
        self.balances: dict[Balance, int] = {}
        self.orders: dict[bytes, SettledOrder] = {}
        self.changed_conversions: set[bytes] = set()
        self.changed_pending: set[tuple[bytes, int]] = set()
        self.changed_lots: set[bytes] = set()
        self.changed_balances: set[Balance] = set()
        self._own_lot_ids: dict[tuple[bytes, bytes], bytes] = {}

    def put_lot(self, lot: Lot) -> None:
        """Add a lot as the store has it."""
        self.lots[lot.lot_id] = lot
        self.lots_of[lot.subscriber_id].add(lot.lot_id)

    def put_conversion(self, conversion: Conversion) -> None:
        """Take over a conversion's new standing."""
        key = conversion.target.conversion_key
        self.conversions[key] = conversion
        self.changed_conversions.add(key)

    def change_lot(self, lot: Lot) -> None:
        """Take over a lot's new standing."""
        self.put_lot(lot)
        self.changed_lots.add(lot.lot_id)

    def terms_of(self, target: Target) -> Terms:
        """The terms of the rulebook that rated a target; where that is unknown, those in force."""
        return self.terms_by_rulebook.get(target.rulebook_hash, self.terms)

    def own_lot_id(self, conversion_key: bytes, subscriber_id: bytes) -> bytes:
        """The id of the lot that a conversion gives to a member."""
        at = (conversion_key, subscriber_id)
        found = self._own_lot_ids.get(at)
        if found is None:
            found = self._own_lot_ids[at] = lot_id(self.key, self.terms.programme, *at)
        return found


class Draft:
    """One posting in the making."""

    def __init__(self, state: LedgerState) -> None:
        self.state = state
        self.transfers: list[Transfer] = []
        self.deltas: dict[Balance, int] = {}
        self.lots: dict[bytes, Lot] = {}
        self.pending: dict[tuple[bytes, int], PendingItem] = {}

    def balance(self, account: str) -> int:
        """The points balance of an account as it would be now."""
        at = (account, self.state.terms.commodity)
        return self.state.balances.get(at, 0) + self.deltas.get(at, 0)

    def lot(self, identifier: bytes) -> Lot | None:
        """A lot as it would be now."""
        return self.lots.get(identifier) or self.state.lots.get(identifier)

    def lots_of(self, subscriber_id: bytes) -> list[Lot]:
        """A member's lots as they would be now, in no order."""
        known = self.state.lots_of.get(subscriber_id, set())
        mine = {lot.lot_id for lot in self.lots.values() if lot.subscriber_id == subscriber_id}
        return [lot for i in known | mine if (lot := self.lot(i)) is not None]

    def pending_item(self, at: tuple[bytes, int]) -> PendingItem:
        """A pending item as it would be now."""
        return self.pending.get(at) or self.state.pending[at]

    def move(
        self,
        kind: EntryKind,
        about: tuple[bytes, bytes, bytes],
        legs: list[tuple[str, int]],
        moves: list[LotMove] | None = None,
    ) -> None:
        """Add a transfer of points about (member, click, visit); legs of zero are left out."""
        commodity = self.state.terms.commodity
        made = tuple(Leg(account, commodity, amount) for account, amount in legs if amount)
        self._add(Transfer(len(self.transfers), kind, *about, made, tuple(moves or ())))

    def move_money(self, legs: dict[Balance, int], about: tuple[bytes, bytes, bytes]) -> None:
        """Add legs of money to the posting's main transfer, or as a transfer of their own."""
        made = tuple(Leg(*at, amount) for at, amount in sorted(legs.items()) if amount)
        if not made:
            return
        main = [t.step for t in self.transfers if t.kind != EntryKind.DEBT_RECOVERY]
        if not main:
            step = len(self.transfers)
            self._add(Transfer(step, EntryKind.ADJUST_DELTA, *about, made, ()))
            return
        transfer = self.transfers[main[-1]]
        self.transfers[main[-1]] = transfer._replace(legs=transfer.legs + made)
        self._count(made)

    def _add(self, transfer: Transfer) -> None:
        assert transfer.step < MAX_STEPS, "a posting has more transfers than ids are made for"
        self.transfers.append(transfer)
        self._count(transfer.legs)
        for identifier, amount, remaining in transfer.moves:
            lot = self.lot(identifier)
            assert lot is not None, "a transfer moved a lot that nobody knows"
            lot = lot._replace(amount=lot.amount + amount, remaining=lot.remaining + remaining)
            assert 0 <= lot.remaining <= lot.amount, "a lot cannot hold more than was granted"
            self.lots[identifier] = lot

    def _count(self, legs: tuple[Leg, ...]) -> None:
        assert len(legs) <= MAX_LEGS, "a transfer has more legs than ids are made for"
        assert not unbalanced(legs), "legs do not sum to zero"
        for account, commodity, amount in legs:
            at = (account, commodity)
            self.deltas[at] = self.deltas.get(at, 0) + amount

    def fits(self) -> bool:
        """Does every number of this posting fit int64?"""
        before = self.state.balances
        numbers = [before.get(at, 0) + delta for at, delta in self.deltas.items()]
        numbers += [leg.amount for transfer in self.transfers for leg in transfer.legs]
        return all(INT64_MIN <= number <= INT64_MAX for number in numbers)

    def accept(self) -> tuple[Transfer, ...]:
        """Make the draft part of the state; the transfers to write down."""
        state = self.state
        for at, delta in self.deltas.items():
            if delta or at not in state.balances:
                state.balances[at] = state.balances.get(at, 0) + delta
                state.changed_balances.add(at)
        for lot in self.lots.values():
            state.change_lot(lot)
        state.pending.update(self.pending)
        state.changed_pending.update(self.pending)
        return tuple(self.transfers)
