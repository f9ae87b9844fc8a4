"""The life of an order: points are reserved, then spent or released, and may come back.

    reserve   available -> reserved; the lots taken are remembered with the order
    commit    reserved -> redeemed; what is not committed is released in the same posting
    release   reserved -> available, into the lots they came from
    refund    redeemed -> available, into the lots they came from; partly, and more than once
    order     reserve and commit at once

Lots are taken in spending order at the order's event time, so points that have lapsed or may not be
spent yet do not count. A reservation ends by itself at `hold_until`, decided by event time: before
a later command about the member is looked at, and when a cut is done. What is reserved does not
lapse, and commit never fails for lack of points.

A refund after the date of a lot follows the programme: `original` leaves the date (the points lapse
at the next cut), `grace(Nd)` lets them be used until the end of the Nth local day, `fresh` dates
them as if earned now.
"""

from __future__ import annotations

from pipeline.ledger.accounts import (
    AVAILABLE,
    RESERVED,
    EntryKind,
    redeemed_account,
    stock_accounts,
)
from pipeline.ledger.commands import Command
from pipeline.ledger.moving import Part, be_active, bring_back, lapse, shares
from pipeline.ledger.state import AMOUNT_MAX, Hold, LedgerState, Member, Order
from pipeline.ledger.terms import INACTIVITY, expires_ns, grace_days, grace_ns, inactive_ns
from pipeline.ledger.transfers import ORDER, Answer, Origin, Posting
from pipeline.model.identifiers import NO_ID
from pipeline.model.stage import END_OF_TIME
from pipeline.model.words import Result

OK = Result.OK
SECOND_NS = 10**9
HOLD_SECONDS_MAX = 366 * 86_400


def order_origin(state: LedgerState) -> Origin:
    """Orders come to be by the programme's rules."""
    rules = state.rules
    return Origin(ORDER, "", "programme", rules.version, "", rules.rulebook_hash)


def release_due(state: LedgerState, member: Member, now_ns: int) -> list[Posting]:
    """Release the member's reservations whose time is over."""
    if not member.holds:
        return []
    due = [order for order in member.holds.values() if order.hold_until_ns <= now_ns]
    due.sort(key=lambda order: (order.hold_until_ns, order.order_id))
    return [_let_go(state, member, order, order.hold_until_ns) for order in due]


def may_spend(state: LedgerState, command: Command) -> Result | None:
    """Why a member may not spend now; None where nothing stands in the way but points."""
    if command.points <= 0:
        return Result.NOT_POSITIVE
    if command.points > AMOUNT_MAX or state.is_full:
        return Result.OVERFLOW
    member = state.members.get(command.subscriber_id)
    if member is None or (
        command.kind == "transfer" and command.id("to") in (NO_ID, member.subscriber_id)
    ):
        return Result.UNKNOWN_MEMBER
    if member.freezes and member.is_frozen(command.event_ns):
        return Result.FROZEN
    waiting_ns, since_ns = state.rules.waiting_ns, member.since_ns
    if waiting_ns and since_ns != END_OF_TIME and command.event_ns < since_ns + waiting_ns:
        return Result.WAITING_PERIOD
    return None


def cannot_spend(state: LedgerState, command: Command) -> Result | None:
    """Why it would be refused as things are; None where it may be booked."""
    refused = may_spend(state, command)
    if refused is not None or command.kind == "convert_out":  # which uses what makes whole points
        return refused
    there = state.spendable(state.members[command.subscriber_id], command.event_ns)
    return Result.INSUFFICIENT_POINTS if shares(there, command.points)[1] else None


def place(
    state: LedgerState, command: Command, commits: bool, held_from_ns: int | None = None
) -> Answer:
    """`order` (commits at once) and `reserve`; a reservation lasts from `held_from_ns` on, where
    somebody approved it, else from its own time.
    """
    refused = may_spend(state, command)
    if refused is not None:
        return Answer(refused)
    member, points, at_ns = state.members[command.subscriber_id], command.points, command.event_ns
    item, quantity = command.text("item"), max(command.number("quantity", 1), 1)
    if item and not _in_stock(state, item, quantity):
        return Answer(Result.OUT_OF_STOCK)
    parts, missing = shares(state.spendable(member, at_ns), points)
    if missing:
        return Answer(Result.INSUFFICIENT_POINTS)
    before = be_active(state, member, at_ns)
    seconds = min(max(command.number("hold_seconds"), 0), HOLD_SECONDS_MAX)
    order = Order(
        command.command_id,
        member.subscriber_id,
        points,
        points if commits else 0,
        0,
        not commits,
        max(at_ns, held_from_ns or 0) + (seconds * SECOND_NS if seconds else state.rules.hold_ns),
        1,
        command.text("redemption", "service"),
        item,
        quantity if item else 0,
        (command.text("region"), command.text("channel"), command.text("payee")),
    )
    state.orders[order.order_id] = order
    state.changed_orders[order.order_id] = order
    state.move(EntryKind.RESERVE, member.account(AVAILABLE), member.account(RESERVED), points)
    for lot, part in parts:
        state.touch(lot, remaining=-part, held=part)
        order.lots[lot.lot_id] = Hold(held=part)
    _stock(state, order, "free", "held")
    if commits:
        _redeem(state, member, order, parts)
    else:
        member.holds[order.order_id] = order
    return Answer(OK, (*before, _close(state, order, at_ns)))


def commit(state: LedgerState, command: Command) -> Answer:
    """`commit`: spend what is reserved, or part of it."""
    order = state.orders.get(command.id("order"))
    if order is None:
        return Answer(Result.UNKNOWN_ORDER)
    if not order.is_open:
        return Answer(Result.CLOSED_ORDER)
    if command.points < 0:
        return Answer(Result.NOT_POSITIVE)
    if command.points > order.points:
        return Answer(Result.INSUFFICIENT_POINTS)
    member, points = state.members[order.subscriber_id], command.points or order.points
    order.committed, order.is_open = points, False
    order.number += 1
    del member.holds[order.order_id]
    state.changed_orders[order.order_id] = order
    spent: list[Part] = []
    rest: list[Part] = []
    for lot in state.in_spending_order([state.lots[identifier] for identifier in order.lots]):
        held = order.lots[lot.lot_id].held
        part = min(points, held)
        points -= part
        if part:
            spent.append((lot, part))
        if held > part:
            rest.append((lot, held - part))
            order.lots[lot.lot_id].held = part
    _redeem(state, member, order, spent)
    if rest:
        bring_back(state, member, EntryKind.RELEASE, member.account(RESERVED), rest)
    return Answer(OK, (_close(state, order, command.event_ns),))


def release(state: LedgerState, command: Command) -> Answer:
    """`release`: the points are free again."""
    order = state.orders.get(command.id("order"))
    if order is None:
        return Answer(Result.UNKNOWN_ORDER)
    if not order.is_open:
        return Answer(Result.CLOSED_ORDER)
    member = state.members[order.subscriber_id]
    return Answer(OK, (_let_go(state, member, order, command.event_ns),))


def refund(state: LedgerState, command: Command) -> Answer:
    """`refund`: points that were spent come back."""
    order = state.orders.get(command.id("order"))
    if order is None:
        return Answer(Result.UNKNOWN_ORDER)
    if not order.committed:
        return Answer(Result.NOT_COMMITTED)
    if command.points < 0:
        return Answer(Result.NOT_POSITIVE)
    left = order.committed - order.refunded
    points = command.points or left
    if points > left or not points:
        return Answer(Result.INSUFFICIENT_POINTS)
    member = state.members[order.subscriber_id]
    parts: list[Part] = []
    lots = state.in_spending_order([state.lots[identifier] for identifier in order.lots])
    for lot in reversed(lots):
        hold = order.lots[lot.lot_id]
        part = min(points, hold.committed - hold.refunded)
        if part:
            parts.append((lot, part))
            hold.refunded += part
            points -= part
    before = _date_again(state, member, parts, command.event_ns)
    order.refunded += sum(part for _, part in parts)
    order.number += 1
    state.changed_orders[order.order_id] = order
    redeemed = state.account(redeemed_account(order.redemption))
    bring_back(state, member, EntryKind.REFUND, redeemed, parts)
    return Answer(OK, (*before, _close(state, order, command.event_ns)))


def _date_again(state: LedgerState, member: Member, parts: list[Part], at_ns: int) -> list[Posting]:
    """Give lots whose date is past another one, as the programme says of refunds.

    What remains in such a lot lapses at its old date first.
    """
    rules, postings = state.rules, []
    if rules.refund == "original":
        return []
    days = grace_days(rules.refund)
    for lot, _ in parts:
        was_ns = state.expiry_of(lot)
        if was_ns > at_ns:
            continue
        if lot.remaining:
            postings.append(lapse(state, member, lot, was_ns))
        if days is not None:
            until_ns = grace_ns(at_ns, days, rules.timezone)
        elif lot.terms.expiry_policy.startswith(INACTIVITY):
            until_ns = inactive_ns(lot.terms.expiry_policy, at_ns, rules.timezone)
        else:
            until_ns = expires_ns(lot.terms.expiry_policy, at_ns, rules.timezone)
        state.date_lot(lot, lot.earned_ns, lot.spendable_from_ns, until_ns)
    return postings


def _let_go(state: LedgerState, member: Member, order: Order, at_ns: int) -> Posting:
    """End a reservation; its points go back to where they came from."""
    order.is_open = False
    order.number += 1
    del member.holds[order.order_id]
    state.changed_orders[order.order_id] = order
    lots = state.in_spending_order([state.lots[identifier] for identifier in order.lots])
    parts = [(lot, order.lots[lot.lot_id].held) for lot in lots]
    for hold in order.lots.values():
        hold.held = 0
    bring_back(state, member, EntryKind.RELEASE, member.account(RESERVED), parts)
    _stock(state, order, "held", "free")
    return _close(state, order, at_ns)


def _redeem(state: LedgerState, member: Member, order: Order, parts: list[Part]) -> None:
    """Spend what is held of these lots, and hand out the gift."""
    redeemed = state.account(redeemed_account(order.redemption))
    total = sum(part for _, part in parts)
    state.move(EntryKind.COMMIT, member.account(RESERVED), redeemed, total)
    for lot, part in parts:
        state.touch(lot, held=-part)
        hold = order.lots[lot.lot_id]
        hold.held -= part
        hold.committed += part
    _stock(state, order, "held", "gone")


def _close(state: LedgerState, order: Order, at_ns: int) -> Posting:
    return state.close_posting(
        order_origin(state), order.order_id, order.number, at_ns, order.subscriber_id, NO_ID, NO_ID
    )


# Stock

STOCK_AT = {"supplied": 0, "free": 1, "held": 2, "gone": 3}


def stock_account(state: LedgerState, item: str, where: str) -> int:
    """The number of one of a gift's accounts."""
    names = stock_accounts(item)
    return state.account(names[STOCK_AT[where]], names[4])


def free_stock(state: LedgerState, item: str) -> int:
    """How many of a gift may be ordered."""
    names = stock_accounts(item)
    number = state.accounts.get((names[1], names[4]))
    return state.balances[number] if number is not None else 0


def _in_stock(state: LedgerState, item: str, quantity: int) -> bool:
    return free_stock(state, item) >= quantity


def _stock(state: LedgerState, order: Order, source: str, target: str) -> None:
    if order.item:
        where, whence = (stock_account(state, order.item, at) for at in (target, source))
        state.move(EntryKind.STOCK, where, whence, order.quantity)
