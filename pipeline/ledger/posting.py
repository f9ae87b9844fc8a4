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
has not. A target that no rulebook rated neither pins nor breaks a pin.

Points that go from one member to another, or from available back to pending, are taken back from
the old standing and granted anew.

The end does not depend on the way there: with no spending in between, every sequence of targets
that ends alike leaves the same balances and the same non-empty lots.
"""

from __future__ import annotations

from collections import defaultdict

from pipeline.ledger.accounts import ISSUED, EntryKind, member_accounts, money_accounts
from pipeline.ledger.lots import Lot, spending_key, take
from pipeline.ledger.state import (
    NO_PIN,
    Balance,
    Conversion,
    Draft,
    LedgerState,
    PendingItem,
    Pin,
)
from pipeline.ledger.targets import Target
from pipeline.ledger.terms import expires_ns
from pipeline.ledger.transfers import CONVERSION, Cause, LotMove, Posting
from pipeline.model.identifiers import NO_ID
from pipeline.model.words import Result, TargetState

About = tuple[bytes, bytes, bytes]  # member, click, visit
NONE, PENDING, AVAILABLE = TargetState.NONE, TargetState.PENDING, TargetState.AVAILABLE


def post_target(state: LedgerState, target: Target) -> Posting:
    """Post one target; `state` changes with it."""
    held = state.conversions.get(target.conversion_key)
    refused = _refuse(held, target)
    if refused == Result.EXISTS and held is not None and target.fold > held.target.fold:
        _remember(state, held, target)
    if refused is not None:
        return Posting(refused)
    draft = Draft(state)
    generation = _move_points(draft, held, target)
    draft.move_money(_money_difference(held, target), _about(held, target))
    if not draft.fits():
        return Posting(Result.OVERFLOW)
    number = held.number + 1 if held else 1
    pin = _pin(held.pin if held else NO_PIN, target)
    state.put_conversion(Conversion(target, number, generation, pin))
    cause = Cause(
        CONVERSION,
        target.conversion_key,
        number,
        target.event_ns,
        target.partner,
        target.conversion_key,
        pin.rule_id,
        pin.rule_version,
        target.contract_version or pin.contract_version,
        target.rulebook_hash if target.rulebook_hash != NO_ID else pin.rulebook_hash,
    )
    return Posting(Result.OK, cause, draft.accept())


def _refuse(held: Conversion | None, target: Target) -> Result | None:
    """The result of a target that moves nothing; None for one that is to be booked."""
    if held is not None:
        if target.fold < held.target.fold:
            return Result.STALE
        if _breaks(held.pin, target):
            return Result.RULE_VERSION_PINNED
        if target.worth == held.target.worth:
            return Result.EXISTS
        if target.fold == held.target.fold:
            return Result.EXISTS_WITH_DIFFERENT_POINTS
    if target.points < 0:
        return Result.NOT_POSITIVE
    if target.points and target.subscriber_id == NO_ID:
        return Result.UNKNOWN_MEMBER
    return None


def _breaks(pin: Pin, target: Target) -> bool:
    """Did another rulebook than the pin's rate the target, by another rule or on other terms?"""
    if NO_ID in (pin.rulebook_hash, target.rulebook_hash):
        return False
    if target.rulebook_hash == pin.rulebook_hash:
        return False
    return (target.rule_version, target.terms_hash) != (pin.rule_version, pin.terms_hash)


def _pin(pin: Pin, target: Target) -> Pin:
    """The pin after a target: within the pinned rulebook the rule follows the facts."""
    if NO_ID in (target.rule_version, target.terms_hash, target.rulebook_hash):
        return pin
    if pin.rulebook_hash not in (NO_ID, target.rulebook_hash):
        return pin
    return Pin(
        target.rule_id,
        target.rule_version,
        target.contract_version,
        target.rulebook_hash,
        target.terms_hash,
    )


def _remember(state: LedgerState, held: Conversion, target: Target) -> None:
    """Keep the newest word on a conversion whose worth did not change."""
    state.put_conversion(held._replace(target=target, pin=_pin(held.pin, target)))
    if target.standing == AVAILABLE:
        own = state.lots[state.own_lot_id(target.conversion_key, target.subscriber_id)]
        dated = _dated(state, own, target)
        if dated != own:
            state.change_lot(dated)


def _dated(state: LedgerState, lot: Lot, target: Target) -> Lot:
    """A lot with its conversion's newest rule and times, and the terms it was born with."""
    return lot._replace(
        contract_version=target.contract_version,
        rule_version=target.rule_version,
        earned_ns=target.event_ns,
        spendable_from_ns=target.event_ns,
        expires_ns=expires_ns(lot.terms.expiry_policy, target.event_ns, state.timezone),
    )


def _move_points(draft: Draft, held: Conversion | None, target: Target) -> int:
    """Move points from the held standing to the target's; the number of pending items so far."""
    old = held.target if held else target._replace(state=NONE, points=0)
    generation = held.generation if held else 0
    at = (target.conversion_key, generation)
    same = old.subscriber_id == target.subscriber_id
    about = _about(held, target)
    before = about if same else (old.subscriber_id, old.click_id, old.visit_id)
    change = (old.standing, target.standing if same or not target.points else NONE)
    if change == (PENDING, PENDING):
        _adjust_pending(draft, at, about, target.points - old.points)
    elif change == (PENDING, AVAILABLE):
        _confirm(draft, at, about, target)
    elif change == (AVAILABLE, AVAILABLE):
        _adjust_available(draft, about, target, target.points - old.points)
    else:
        if old.standing == PENDING:
            _cancel(draft, at, before)
        elif old.standing == AVAILABLE:
            own = draft.state.own_lot_id(old.conversion_key, old.subscriber_id)
            _take_back(draft, EntryKind.REVERSE, before, own, old.points)
        if target.standing == PENDING:
            generation += 1
            _open_pending(draft, generation, about, target)
        elif target.standing == AVAILABLE:
            _grant(draft, EntryKind.EARN, about, target, target.points, [(ISSUED, target.points)])
    return generation


def _about(held: Conversion | None, target: Target) -> About:
    """Member, click and visit; a target that names no way (a decline) came by the one before."""
    way = held.target if held and NO_ID == target.click_id == target.visit_id else target
    return target.subscriber_id, way.click_id, way.visit_id


def _open_pending(draft: Draft, generation: int, about: About, target: Target) -> None:
    points = target.points
    draft.pending[target.conversion_key, generation] = PendingItem(
        target.conversion_key,
        generation,
        target.subscriber_id,
        draft.state.terms_of(target),
        target.contract_version,
        target.rule_version,
        target.event_ns,
        points,
        0,
        0,
        False,
    )
    account = member_accounts(target.subscriber_id).pending
    draft.move(EntryKind.EARN_PENDING, about, [(ISSUED, points), (account, -points)])


def _adjust_pending(draft: Draft, at: tuple[bytes, int], about: About, change: int) -> None:
    if not change:
        return
    item = draft.pending_item(at)
    draft.pending[at] = item._replace(amount=item.amount + change)
    account = member_accounts(item.subscriber_id).pending
    draft.move(EntryKind.ADJUST_DELTA, about, [(ISSUED, change), (account, -change)])


def _confirm(draft: Draft, at: tuple[bytes, int], about: About, target: Target) -> None:
    """Pending to available; the rest of a partial one returns, a larger one is topped up first."""
    points = target.points
    _adjust_pending(draft, at, about, max(points - draft.pending_item(at).amount, 0))
    item = draft.pending_item(at)
    rest = item.amount - points
    draft.pending[at] = item._replace(confirmed=points, returned=rest, resolved=True)
    account = member_accounts(item.subscriber_id).pending
    legs = [(account, item.amount), (ISSUED, -rest)]
    _grant(draft, EntryKind.CONFIRM, about, target, points, legs)


def _cancel(draft: Draft, at: tuple[bytes, int], about: About) -> None:
    item = draft.pending_item(at)
    draft.pending[at] = item._replace(returned=item.amount, resolved=True)
    account = member_accounts(item.subscriber_id).pending
    draft.move(EntryKind.CANCEL_PENDING, about, [(account, item.amount), (ISSUED, -item.amount)])


def _adjust_available(draft: Draft, about: About, target: Target, change: int) -> None:
    kind = EntryKind.ADJUST_DELTA
    if change > 0:
        _grant(draft, kind, about, target, change, [(ISSUED, change)])
        return
    own = draft.state.own_lot_id(target.conversion_key, target.subscriber_id)
    if change < 0:
        _take_back(draft, kind, about, own, -change)
    lot = draft.lot(own)
    assert lot is not None, "available points have a lot"
    draft.lots[own] = _dated(draft.state, lot, target)


def _grant(
    draft: Draft,
    kind: EntryKind,
    about: About,
    target: Target,
    points: int,
    legs: list[tuple[str, int]],
) -> None:
    """Credit available points into the conversion's own lot, then clear debt out of them."""
    state, member = draft.state, target.subscriber_id
    own = state.own_lot_id(target.conversion_key, member)
    lot = draft.lot(own)
    if lot is None:
        terms = state.terms_of(target)
        lot = Lot(
            own,
            target.conversion_key,
            member,
            terms,
            target.contract_version,
            target.rule_version,
            target.event_ns,
            target.event_ns,
            expires_ns(terms.expiry_policy, target.event_ns, state.timezone),
            0,
            0,
        )
    draft.lots[own] = _dated(state, lot, target)
    accounts = member_accounts(member)
    draft.move(kind, about, [*legs, (accounts.available, -points)], [LotMove(own, points, points)])
    owed = min(draft.balance(accounts.debt), points)
    if owed > 0:
        draft.move(
            EntryKind.DEBT_RECOVERY,
            about,
            [(accounts.available, owed), (accounts.debt, -owed)],
            [LotMove(own, 0, -owed)],
        )


def _take_back(draft: Draft, kind: EntryKind, about: About, own: bytes, points: int) -> None:
    """Take points back: from the own lot, then in spending order, then as debt."""
    member = about[0]
    lot = draft.lot(own)
    assert lot is not None, "available points have a lot"
    there = min(lot.remaining, points)
    moves = [LotMove(own, -points, -there)]
    missing = points - there
    if missing:
        others = [other for other in draft.lots_of(member) if other.lot_id != own]
        taken, missing = take(sorted(others, key=spending_key), missing)
        moves += taken
    accounts = member_accounts(member)
    legs = [(accounts.available, points - missing), (accounts.debt, missing), (ISSUED, -points)]
    draft.move(kind, about, legs, moves)


def _money_difference(held: Conversion | None, target: Target) -> dict[Balance, int]:
    """Legs that take the partner's money from the held target's to this one's."""
    legs: dict[Balance, int] = defaultdict(int)
    for sign, side in ((-1, held.target if held else None), (1, target)):
        if side is None or side.state != AVAILABLE or not side.currency:
            continue
        accounts = money_accounts(side.partner)
        amounts = (side.receivable_minor, -side.cost_minor, -side.margin_minor)
        for account, amount in zip(accounts, amounts, strict=True):
            legs[account, side.currency] += sign * amount
    return legs
