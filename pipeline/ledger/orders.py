"""Posting an order: a member spends points.

Reserve and commit happen in one transaction now (a silent issue); the lots are taken in spending
order at the order's event time, so points that have lapsed or may not be spent yet do not count. An
answer is final: asking again under the same order id gives `EXISTS` after an accepted order and the
same refusal after a refused one, whatever the balance became; another member or amount under the
same id gives `EXISTS_WITH_DIFFERENT_POINTS`.
"""

from __future__ import annotations

from pipeline.ledger.accounts import EntryKind, member_accounts, redeemed_account
from pipeline.ledger.lots import spendable, take
from pipeline.ledger.state import Draft, LedgerState, SettledOrder
from pipeline.ledger.targets import Order
from pipeline.ledger.transfers import ORDER, Cause, Posting
from pipeline.model.identifiers import NO_ID
from pipeline.model.words import Result


def post_order(state: LedgerState, order: Order) -> Posting:
    """Post one order; `state` changes with it."""
    settled = state.orders.get(order.order_id)
    if settled is not None:
        if (settled.subscriber_id, settled.points) != (order.subscriber_id, order.points):
            return Posting(Result.EXISTS_WITH_DIFFERENT_POINTS)
        return Posting(Result.EXISTS if settled.result == Result.OK else settled.result)
    posting = _spend(state, order)
    state.orders[order.order_id] = SettledOrder(order.subscriber_id, order.points, posting.result)
    return posting


def _spend(state: LedgerState, order: Order) -> Posting:
    points, member = order.points, order.subscriber_id
    if points <= 0:
        return Posting(Result.NOT_POSITIVE)
    accounts = member_accounts(member)
    if not any((name, state.terms.commodity) in state.balances for name in accounts):
        return Posting(Result.UNKNOWN_MEMBER)
    draft = Draft(state)
    moves, missing = take(spendable(draft.lots_of(member), order.event_ns), points)
    if missing:
        return Posting(Result.INSUFFICIENT_POINTS)
    about = (member, NO_ID, NO_ID)
    reserved = [(accounts.available, points), (accounts.reserved, -points)]
    draft.move(EntryKind.RESERVE, about, reserved)
    redeemed = redeemed_account(order.redemption)
    draft.move(
        EntryKind.COMMIT, about, [(accounts.reserved, points), (redeemed, -points)], list(moves)
    )
    if not draft.fits():
        return Posting(Result.OVERFLOW)
    cause = Cause(
        ORDER, order.order_id, 1, order.event_ns, "", NO_ID,
        "programme", state.programme_version, "", NO_ID,
    )  # fmt: skip
    return Posting(Result.OK, cause, draft.accept())
