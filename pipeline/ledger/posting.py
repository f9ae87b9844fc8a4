"""Posting a target: the book computes what has to move to get from the last target to this one.

Given the newest target it took for a conversion and an absolute new one, the book answers with a
result code and moves the difference, or nothing:

    STALE                         a lower fold than the newest
    RULE_VERSION_PINNED           rated by another rulebook than the first time, and otherwise there
    EXISTS                        the same worth once more. From a higher fold the book remembers
                                  the fold, the facts and the times, so that older folds are stale
                                  from then on and a lot is dated by the newest word; nothing moves
    EXISTS_WITH_DIFFERENT_POINTS  another worth from the same fold
    NOT_POSITIVE, UNKNOWN_MEMBER, OVERFLOW
    OK                            accepted, numbered, the difference booked (which may be nothing)

**Pin.** The first target with a rule and a contract pins its conversion to the rulebook that rated
it: which of that rulebook's rules counts is up to the facts from then on. Another rulebook may
speak as long as it has the same rule and the same terms; one that lacks the rule, or the partner,
has not. A target that no rulebook rated neither pins nor breaks a pin. A re-rating that was
approved (`re_rates`) sets the pin anew, also where the worth stays; its entries say so.

Points that go from one member to another, or from available back to pending, are taken back from
the old standing and granted anew, each as a posting about its member.

The end does not depend on the way there: with no spending in between, every sequence of targets
that ends alike leaves the same balances and the same non-empty lots.
"""

from __future__ import annotations

from pipeline.ledger.accounts import PENDING as WAITING
from pipeline.ledger.accounts import EntryKind, money_accounts
from pipeline.ledger.lots import Lot
from pipeline.ledger.moving import be_active, grant, take_back
from pipeline.ledger.state import (
    AMOUNT_MAX,
    NO_PIN,
    Conversion,
    LedgerState,
    PendingItem,
    Pin,
)
from pipeline.ledger.targets import Target
from pipeline.ledger.terms import expires_ns
from pipeline.ledger.transfers import CONVERSION, Answer, Origin, Posting
from pipeline.model.identifiers import NO_ID
from pipeline.model.words import Result, TargetState

# As plain numbers, which are compared and hashed in a third of the time.
NONE, PENDING, AVAILABLE = (
    int(TargetState.NONE), int(TargetState.PENDING), int(TargetState.AVAILABLE),
)  # fmt: skip


def post_target(state: LedgerState, target: Target, re_rates: bool = False) -> Answer:
    """Post one target; `state` changes with it. `re_rates`: it is an approved re-rating."""
    held = state.conversions.get(target.conversion_key)
    refused = _refuse(state, held, target, re_rates)
    if refused is not None:
        if refused == Result.EXISTS and held is not None and target.fold > held.target.fold:
            _remember(state, held, target, re_rates)
        return Answer(refused)
    return Answer(Result.OK, _Difference(state, held, target, re_rates).post())


def _refuse(
    state: LedgerState, held: Conversion | None, target: Target, re_rates: bool
) -> Result | None:
    """The result of a target that moves nothing; None for one that is to be booked."""
    if held is not None:
        if target.fold < held.target.fold:
            return Result.STALE
        if not re_rates and _breaks(held.pin, target):
            return Result.RULE_VERSION_PINNED
        if target.worth == held.target.worth:
            return Result.EXISTS
        if target.fold == held.target.fold and not re_rates:
            return Result.EXISTS_WITH_DIFFERENT_POINTS
    if target.points < 0:
        return Result.NOT_POSITIVE
    largest = max(
        target.points,
        abs(target.receivable_minor),
        abs(target.cost_minor),
        abs(target.margin_minor),
    )
    if largest > AMOUNT_MAX or state.is_full:
        return Result.OVERFLOW
    if target.points and target.subscriber_id == NO_ID:
        return Result.UNKNOWN_MEMBER
    return None


def _breaks(pin: Pin, target: Target) -> bool:
    """Did another rulebook than the pin's rate the target, by another rule or on other terms?"""
    if target.rulebook_hash == pin.rulebook_hash:
        return False
    if NO_ID in (pin.rulebook_hash, target.rulebook_hash):
        return False
    return (target.rule_version, target.terms_hash) != (pin.rule_version, pin.terms_hash)


def _pin(pin: Pin, target: Target, re_rates: bool = False) -> Pin:
    """The pin after a target: within the pinned rulebook the rule follows the facts."""
    if NO_ID in (target.rule_version, target.terms_hash, target.rulebook_hash):
        return pin
    if not re_rates and pin.rulebook_hash not in (NO_ID, target.rulebook_hash):
        return pin
    return Pin(
        target.rule_id,
        target.rule_version,
        target.contract_version,
        target.rulebook_hash,
        target.terms_hash,
    )


def _remember(state: LedgerState, held: Conversion, target: Target, re_rates: bool) -> None:
    """Keep the newest word on a conversion whose worth did not change."""
    state.put_conversion(held._replace(target=target, pin=_pin(held.pin, target, re_rates)))
    if target.points and target.state == AVAILABLE:
        own = state.lots[state.own_lot_id(target.conversion_key, target.subscriber_id)]
        _date(state, own, target)


def _date(state: LedgerState, lot: Lot, target: Target) -> None:
    """Give a lot its conversion's newest rule and times; it keeps the terms it was born with."""
    now = (target.contract_version, target.rule_version)
    if now != (lot.contract_version, lot.rule_version):
        lot.contract_version, lot.rule_version = now
        state.changed_lots[lot.lot_id] = lot
        state.dated_lots.add(lot.lot_id)
    event_ns = target.event_ns
    until_ns = lot.expires_ns
    if event_ns != lot.earned_ns or not lot.stored:
        until_ns = expires_ns(lot.terms.expiry_policy, event_ns, state.rules.timezone)
    state.date_lot(lot, event_ns, event_ns, until_ns)


class _Difference:
    """The way from what is held of a conversion to its new target."""

    __slots__ = ("generation", "held", "kind", "origin", "state", "target", "version")

    def __init__(
        self, state: LedgerState, held: Conversion | None, target: Target, re_rates: bool
    ) -> None:
        self.state, self.held, self.target = state, held, target
        self.generation = held.generation if held else 0
        # Each target has two numbers: what is taken back of one member, what another is given.
        self.version = held.number + 1 if held else 1
        pin = _pin(held.pin if held else NO_PIN, target, re_rates)
        self.kind = EntryKind.RE_RATE if re_rates else EntryKind.ADJUST_DELTA
        self.origin = Origin(
            CONVERSION,
            target.partner,
            pin.rule_id,
            pin.rule_version,
            target.contract_version or pin.contract_version,
            target.rulebook_hash if target.rulebook_hash != NO_ID else pin.rulebook_hash,
        )
        row = held.row if held else 0
        state.put_conversion(Conversion(target, self.version, self.generation, pin, row))

    def post(self) -> tuple[Posting, ...]:
        """Book it: one posting, and before it one about the member whose points go, if any."""
        state, target, held = self.state, self.target, self.held
        postings: list[Posting] = []
        if target.points and target.state == AVAILABLE and not self._corrects():
            postings = be_active(state, state.member(target.subscriber_id), target.event_ns)
        if held is not None and held.target.points:
            old = held.target
            if old.subscriber_id != target.subscriber_id:
                self._leave(old)
                postings.append(self._close(old.subscriber_id, old, old))
                self.version += 1
                self._enter(NONE, 0)
            else:
                self._enter(old.state, old.points)
        else:
            self._enter(NONE, 0)
        self._move_money()
        postings.append(self._close(target.subscriber_id, target, held.target if held else target))
        conversion = state.conversions[target.conversion_key]
        if (self.version, self.generation) != (conversion.number, conversion.generation):
            state.put_conversion(
                conversion._replace(number=self.version, generation=self.generation)
            )
        return tuple(postings)

    def _corrects(self) -> bool:
        """Is it about points that the member has already? Then the member did nothing anew."""
        old = self.held.target if self.held is not None else None
        if old is None or not old.points or old.state != AVAILABLE:
            return False
        return old.subscriber_id == self.target.subscriber_id

    def _close(self, subscriber_id: bytes, way: Target, before: Target) -> Posting:
        """A posting; a target that names no way (a decline) came by the one before."""
        if way.click_id == way.visit_id == NO_ID:
            way = before
        target = self.target
        return self.state.close_posting(
            self.origin,
            target.conversion_key,
            self.version,
            target.event_ns,
            subscriber_id,
            way.click_id,
            way.visit_id,
        )

    def _leave(self, old: Target) -> None:
        """Take back whatever the held target gave."""
        if old.state == PENDING:
            self._cancel()
        elif old.state == AVAILABLE:
            self._take_back(old.subscriber_id, EntryKind.REVERSE, old.points)

    def _enter(self, before: int, points: int) -> None:
        """Move points of the target's own member from the standing before to the target's."""
        target = self.target
        after = target.state if target.points else NONE
        if before == PENDING == after:
            self._adjust_pending(target.points - points)
        elif before == PENDING and after == AVAILABLE:
            self._confirm()
        elif before == AVAILABLE == after:
            self._adjust_available(target.points - points)
        else:
            if before == PENDING:
                self._cancel()
            elif before == AVAILABLE:
                self._take_back(target.subscriber_id, EntryKind.REVERSE, points)
            if after == PENDING:
                self._open_pending()
            elif after == AVAILABLE:
                issued = self.state.issued_account()
                self._grant(EntryKind.EARN, issued, target.points)

    # Pending

    def _open_pending(self) -> None:
        target, state = self.target, self.state
        self.generation += 1
        item = PendingItem(
            target.conversion_key,
            self.generation,
            target.subscriber_id,
            state.terms_of(target),
            target.contract_version,
            target.rule_version,
            target.event_ns,
            target.points,
            0,
            0,
            False,
        )
        state.put_pending(item)
        account = state.member(target.subscriber_id).account(WAITING)
        state.move(EntryKind.EARN_PENDING, state.issued_account(), account, target.points)

    def _item(self) -> PendingItem:
        return self.state.pending[self.target.conversion_key, self.generation]

    def _adjust_pending(self, change: int) -> None:
        if not change:
            return
        state, item = self.state, self._item()
        state.put_pending(item._replace(amount=item.amount + change))
        account, issued = state.member(item.subscriber_id).account(WAITING), state.issued_account()
        if change > 0:
            state.move(self.kind, issued, account, change)
        else:
            state.move(self.kind, account, issued, -change)

    def _confirm(self) -> None:
        """Pending to available; the rest of a partial one returns, a larger is topped up first."""
        points, state = self.target.points, self.state
        self._adjust_pending(max(points - self._item().amount, 0))
        item = self._item()
        rest = item.amount - points
        state.put_pending(item._replace(confirmed=points, returned=rest, resolved=True))
        account = state.member(item.subscriber_id).account(WAITING)
        if rest:
            state.move(EntryKind.CANCEL_PENDING, account, state.issued_account(), rest)
        self._grant(EntryKind.CONFIRM, account, points)

    def _cancel(self) -> None:
        state, item = self.state, self._item()
        state.put_pending(item._replace(returned=item.amount, resolved=True))
        account = state.member(item.subscriber_id).account(WAITING)
        state.move(EntryKind.CANCEL_PENDING, account, state.issued_account(), item.amount)

    # Available

    def _adjust_available(self, change: int) -> None:
        state, target = self.state, self.target
        if change > 0:
            self._grant(self.kind, state.issued_account(), change)
            return
        if change < 0:
            self._take_back(target.subscriber_id, self.kind, -change)
        _date(state, state.lots[state.own_lot_id(target.conversion_key, target.subscriber_id)],
              target)  # fmt: skip

    def _grant(self, kind: EntryKind, source: int, points: int) -> None:
        """Credit available points into the conversion's own lot."""
        state, target = self.state, self.target
        own = state.own_lot_id(target.conversion_key, target.subscriber_id)
        lot = state.lots.get(own)
        if lot is None:
            lot = self._new_lot(own)
        _date(state, lot, target)
        member = state.member(target.subscriber_id)
        grant(state, member, lot, kind, source, points, target.event_ns)

    def _new_lot(self, identifier: bytes) -> Lot:
        target, state = self.target, self.state
        lot = Lot(
            identifier,
            CONVERSION,
            target.conversion_key,
            target.conversion_key,
            NO_ID,
            target.subscriber_id,
            state.terms_of(target),
            target.contract_version,
            target.rule_version,
            0,
            0,
            0,
        )
        state.put_lot(lot)
        return lot

    def _take_back(self, subscriber_id: bytes, kind: EntryKind, points: int) -> None:
        state = self.state
        own = state.lots[state.own_lot_id(self.target.conversion_key, subscriber_id)]
        member = state.member(subscriber_id)
        take_back(state, member, own, kind, state.issued_account(), points)

    # Money

    def _move_money(self) -> None:
        """Take the partner's money from the held target's to this one's."""
        old, new = (self.held.target if self.held else None), self.target
        sides = []
        for side, sign in ((old, -1), (new, 1)):
            if side is None or side.state != AVAILABLE or not side.currency:
                continue
            where = (side.partner, side.currency)
            sides.append((where, sign * side.cost_minor, sign * side.margin_minor))
        if len(sides) == 2 and sides[0][0] == sides[1][0]:
            (where, *one), (_, *other) = sides
            sides = [(where, one[0] + other[0], one[1] + other[1])]
        for (partner, currency), cost, margin in sides:
            receivable, costs, margins = (
                self.state.account(name, currency) for name in money_accounts(partner)
            )
            self._settle(receivable, costs, cost)
            self._settle(receivable, margins, margin)

    def _settle(self, receivable: int, account: int, amount: int) -> None:
        if amount > 0:
            self.state.move(EntryKind.SETTLE, receivable, account, amount)
        elif amount < 0:
            self.state.move(EntryKind.SETTLE, account, receivable, -amount)
