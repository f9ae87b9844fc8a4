"""The movements that requests are made of: grant, recover, take, take back, bring back.

Each moves points between accounts and lots of a member by one or two transfers of the posting that
is being made. None of them refuses anything: who calls has looked before.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.ledger.accounts import (
    AVAILABLE,
    DEBT,
    LAPSED,
    RESERVED,
    EntryKind,
)
from pipeline.ledger.lots import Lot
from pipeline.ledger.state import LedgerState, Member
from pipeline.ledger.terms import INACTIVITY
from pipeline.ledger.transfers import LOT, Origin, Posting
from pipeline.model.stage import END_OF_TIME

Part = tuple[Lot, int]  # some points of a lot


def grant(
    state: LedgerState,
    member: Member,
    lot: Lot,
    kind: EntryKind,
    source: int,
    points: int,
    at_ns: int,
) -> None:
    """Credit points into a lot out of the account `source`, then clear debt out of them."""
    member.since_ns = min(member.since_ns, at_ns)
    state.move(kind, source, member.account(AVAILABLE), points)
    state.touch(lot, amount=points, remaining=points)
    recover(state, member, [(lot, points)])


def recover(state: LedgerState, member: Member, credited: Iterable[Part]) -> None:
    """Take what the member owes out of the points just credited, lot by lot."""
    owed = state.shown(member, DEBT)
    if not owed:
        return
    parts = [(lot, points) for lot, points in credited if points]
    points = min(owed, sum(part for _, part in parts))
    if not points:
        return
    state.move(EntryKind.DEBT_RECOVERY, member.account(AVAILABLE), member.account(DEBT), points)
    for lot, there in parts:
        taken = min(points, there)
        if taken:
            state.touch(lot, remaining=-taken)
            points -= taken


def shares(lots: Iterable[Lot], points: int) -> tuple[list[Part], int]:
    """How much of each lot makes up the points, in the order given; and what is missing."""
    parts = []
    for lot in lots:
        if not points:
            break
        taken = min(points, lot.remaining)
        if taken:
            parts.append((lot, taken))
            points -= taken
    return parts, points


def take_back(
    state: LedgerState, member: Member, own: Lot, kind: EntryKind, target: int, points: int
) -> None:
    """Take points of a conversion back into the account `target`.

    They come out of its own lot; then out of what lapsed of that unused, which nobody owes; then
    out of other lots in spending order; what is missing is owed. A reservation keeps its points.
    """
    there = min(own.remaining, points)
    lapsed = min(own.lapsed, points - there)
    others: list[Part] = []
    missing = points - there - lapsed
    if missing:
        lots = [lot for lot in member.lots.values() if lot.remaining and lot is not own]
        others, missing = shares(state.in_spending_order(lots), missing)
    available = points - lapsed - missing
    rest = points  # of the lot's amount, taken off with the first transfer there is
    if available:
        state.move(kind, member.account(AVAILABLE), target, available)
        state.touch(own, amount=-rest, remaining=-there)
        rest = 0
        for lot, part in others:
            state.touch(lot, remaining=-part)
    if lapsed:
        state.move(kind, state.account(LAPSED), target, lapsed)
        state.touch(own, amount=-rest, lapsed=-lapsed)
        rest = 0
    if missing:
        state.move(kind, member.account(DEBT), target, missing)
        if rest:
            state.touch(own, amount=-rest)


def bring_back(
    state: LedgerState,
    member: Member,
    kind: EntryKind,
    source: int,
    parts: list[Part],
) -> list[Lot]:
    """Bring points back to `available` out of the account `source`, into the lots they came from.

    A lot takes what it has room for: its conversion may have been taken back meanwhile, out of
    other lots, which get the rest, last in spending order first. What finds no room is owed. Of
    points that were reserved the holds go. Returns the lots that got points.
    """
    total = sum(points for _, points in parts)
    state.move(kind, source, member.account(AVAILABLE), total)
    held = source == member.account(RESERVED)
    placed: list[Part] = []
    homeless: list[Part] = []
    for lot, points in parts:
        if held:
            state.touch(lot, held=-points)
        fits = min(points, max(lot.room, 0))
        if fits:
            state.touch(lot, remaining=fits)
            placed.append((lot, fits))
        if fits < points:
            homeless.append((lot, points - fits))
    if homeless:
        homeless = _find_room(state, member, homeless, placed)
    for lot, points in homeless:
        state.touch(lot, remaining=points)
    recover(state, member, [*homeless, *placed])
    return [lot for lot, _ in placed]


def _find_room(
    state: LedgerState, member: Member, homeless: list[Part], placed: list[Part]
) -> list[Part]:
    """Put points into other lots of the member that have room; what is left over."""
    owed = state.shown(member, DEBT)
    wanted = sum(points for _, points in homeless) - owed
    lots = [lot for lot in member.lots.values() if lot.room > 0]
    for lot in reversed(state.in_spending_order(lots)):
        fits = min(wanted, lot.room)
        if fits > 0:
            state.touch(lot, remaining=fits)
            placed.append((lot, fits))
            wanted -= fits
    # What is owed is recovered out of the lots it was meant for, which are over-full for a moment.
    left = []
    over = min(owed, sum(points for _, points in homeless)) + max(wanted, 0)
    for lot, points in homeless:
        part = min(points, over)
        if part:
            left.append((lot, part))
            over -= part
    return left


def be_active(state: LedgerState, member: Member, at_ns: int) -> list[Posting]:
    """The member did something at this time.

    Where validity follows activity, what had run out before lapses now, whether or not a cut came
    between; and what lapsed at a date after this time, for want of it, is there again.
    """
    if at_ns <= member.active_ns:
        return []
    postings = []
    for lot in state.in_spending_order(
        [lot for lot in member.lots.values() if lot.remaining and follows_activity(lot)]
    ):
        until_ns = state.expiry_of(lot)
        if until_ns <= at_ns:
            postings.append(lapse(state, member, lot, until_ns))
    for lot in state.in_spending_order(
        [lot for lot in member.lots.values() if lot.lapsed_last and follows_activity(lot)]
    ):
        if at_ns < lot.lapsed_ns:
            postings.append(_reinstate(state, member, lot))
    member.active_ns = at_ns
    state.changed_members.add(member.subscriber_id)
    return postings


def follows_activity(lot: Lot) -> bool:
    """Does a lot expire some time after its member's last activity?"""
    return lot.expires_ns == END_OF_TIME and lot.terms.expiry_policy.startswith(INACTIVITY)


def _reinstate(state: LedgerState, member: Member, lot: Lot) -> Posting:
    """Undo a lapse, effective when it was: until then the points had been there anyhow."""
    points = lot.lapsed_last
    state.move(EntryKind.REINSTATE, state.account(LAPSED), member.account(AVAILABLE), points)
    state.touch(lot, remaining=points, lapsed=-points)
    lot.lapsed_last = 0
    recover(state, member, [(lot, points)])
    lot.changes += 1
    return state.close_posting(
        lot_origin(state, lot), lot.lot_id, lot.changes, lot.lapsed_ns, member.subscriber_id
    )


def lapse(state: LedgerState, member: Member, lot: Lot, at_ns: int) -> Posting:
    """What remains in a lot expires, effective at its date."""
    points = lot.remaining
    state.move(EntryKind.EXPIRE, member.account(AVAILABLE), state.account(LAPSED), points)
    state.touch(lot, remaining=-points, lapsed=points)
    lot.changes += 1
    lot.lapsed_last = points + (lot.lapsed_last if lot.lapsed_ns == at_ns else 0)
    lot.lapsed_ns = at_ns
    return state.close_posting(
        lot_origin(state, lot), lot.lot_id, lot.changes, at_ns, member.subscriber_id
    )


def lot_origin(state: LedgerState, lot: Lot) -> Origin:
    """The origin of what happens to a lot by itself: the rules it was issued under."""
    return Origin(
        LOT, "", "programme", state.rules.version, lot.contract_version, state.rules.rulebook_hash
    )
