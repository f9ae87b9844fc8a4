"""Posting a command: looks whether it was answered before, refuses it by name, or books it.

An answer is final: asking again under the same id gives `EXISTS` after an accepted command and the
same refusal after a refused one, whatever the balance became; other content under the same id gives
`EXISTS_WITH_DIFFERENT_POINTS`. Nothing but a second person changes an answer: what awaits approval
is booked, or refused, when somebody else approves it.

Spending may be **doubtful**: who posts it says so, with a reason. What would be refused anyway is
refused; else it waits as an adjustment does, until a person approves or rejects it. Then it is
placed at its own time with all the usual checks; a reservation lasts from the approval on.

Whether the role in which it is asked covers a command comes first (`access.py`): what it does not
cover changes nothing at all.

Time-outs come next: before a command about a member is looked at, that member's reservations whose
time was over at the command's event time are released.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.ledger import orders
from pipeline.ledger.access import refusal
from pipeline.ledger.accounts import (
    AVAILABLE,
    FORFEITED,
    TRANSIT,
    EntryKind,
    exchange_accounts,
    redeemed_account,
)
from pipeline.ledger.commands import OF_ORDERS, OF_REQUESTS, SPENDING, Command
from pipeline.ledger.lots import Lot, lot_id
from pipeline.ledger.moving import Part, be_active, grant, recover, shares
from pipeline.ledger.state import AMOUNT_MAX, LedgerState, Member, Settled
from pipeline.ledger.terms import expires_ns
from pipeline.ledger.transfers import COMMAND, Answer, Origin, Posting
from pipeline.model.access import Role
from pipeline.model.identifiers import NO_ID
from pipeline.model.words import Result

OK = Result.OK


def post_command(state: LedgerState, command: Command, doubtful: bool = False) -> Answer:
    """Post one command; `state` changes with it. `doubtful`: spending that a person has to see."""
    settled = state.requests.get(command.command_id)
    if settled is not None:
        if settled.content != command.content:
            return Answer(Result.EXISTS_WITH_DIFFERENT_POINTS)
        return Answer(Result.EXISTS if settled.result == OK else settled.result)
    denied = refusal(state, command)
    if denied is not None:
        state.requests[command.command_id] = Settled(command.content, denied)
        return Answer(denied)
    before = _release_due(state, command)
    if doubtful and command.kind in SPENDING:
        answer = Answer(orders.cannot_spend(state, command) or Result.AWAITING_APPROVAL)
    else:
        answer = POSTED[command.kind](state, command)
    state.requests[command.command_id] = Settled(command.content, answer.result)
    if answer.result == Result.AWAITING_APPROVAL:
        state.awaiting[command.command_id] = command
    return Answer(answer.result, (*before, *answer.postings))


def _release_due(state: LedgerState, command: Command) -> list[Posting]:
    """Release what is due of the member that a command is about."""
    who = command.subscriber_id
    if command.kind in OF_ORDERS:
        order = state.orders.get(command.id("order"))
        who = order.subscriber_id if order is not None else NO_ID
    elif command.kind in OF_REQUESTS:
        asked = state.awaiting.get(command.id("request"))
        who = asked.subscriber_id if asked is not None else NO_ID
    member = state.members.get(who)
    return [] if member is None else orders.release_due(state, member, command.event_ns)


def _origin(state: LedgerState) -> Origin:
    rules = state.rules
    return Origin(COMMAND, "", "programme", rules.version, "", rules.rulebook_hash)


def _close(state: LedgerState, command: Command, who: bytes, version: int = 1) -> Posting:
    return state.close_posting(_origin(state), command.command_id, version, command.event_ns, who)


def _too_much(state: LedgerState, points: int) -> bool:
    return abs(points) > AMOUNT_MAX or state.is_full


def _new_lot(
    state: LedgerState, command: Command, source: str, earned_ns: int, until_ns: int | None = None
) -> Lot:
    """A lot of the command's member, with nothing in it yet."""
    rules, who = state.rules, command.subscriber_id
    terms = rules.terms._replace(source=source)
    if until_ns is None:
        until_ns = expires_ns(terms.expiry_policy, earned_ns, rules.timezone)
    lot = Lot(
        lot_id(state.key, state.programme, command.command_id, who),
        COMMAND,
        command.command_id,
        NO_ID,
        NO_ID,
        who,
        terms,
        "",
        rules.version,
        earned_ns,
        earned_ns,
        until_ns,
    )
    state.put_lot(lot)
    return lot


# Between members and programmes


def _transfer(state: LedgerState, command: Command) -> Answer:
    refused = orders.may_spend(state, command)
    if refused is not None:
        return Answer(refused)
    giver, to = state.members[command.subscriber_id], command.id("to")
    points, at_ns = command.points, command.event_ns
    parts, missing = shares(state.spendable(giver, at_ns), points)
    if missing:
        return Answer(Result.INSUFFICIENT_POINTS)
    before = be_active(state, giver, at_ns)
    transit = state.account(TRANSIT)
    state.move(EntryKind.TRANSFER, giver.account(AVAILABLE), transit, points)
    for lot, part in parts:
        state.touch(lot, remaining=-part)
    out = _close(state, command, giver.subscriber_id)
    receiver = state.member(to)
    receiver.since_ns = min(receiver.since_ns, at_ns)
    state.move(EntryKind.TRANSFER, transit, receiver.account(AVAILABLE), points)
    given: list[Part] = []
    for number, (lot, part) in enumerate(parts):
        twin = Lot(
            lot_id(state.key, state.programme, command.command_id, to, number),
            COMMAND,
            command.command_id,
            lot.conversion_key,
            lot.lot_id,
            to,
            lot.terms,
            lot.contract_version,
            lot.rule_version,
            *lot.dates,
        )
        state.put_lot(twin)
        state.touch(twin, amount=part, remaining=part)
        given.append((twin, part))
    recover(state, receiver, given)
    return Answer(OK, (*before, out, _close(state, command, to, 2)))


def _convert_out(state: LedgerState, command: Command) -> Answer:
    """Points of ours into another programme's; what makes no whole point there stays here."""
    refused = orders.may_spend(state, command)
    name = command.text("programme")
    rate = state.rate_of(name, out=True)
    foreign = int(command.points * rate)
    if refused == Result.NOT_POSITIVE or (rate and foreign <= 0):
        return Answer(Result.NOT_POSITIVE)
    if not rate:
        return Answer(Result.UNKNOWN_EXCHANGE)
    if refused is not None or foreign > AMOUNT_MAX:
        return Answer(refused or Result.OVERFLOW)
    used = -int(-(foreign / rate) // 1)  # rounded up
    member = state.members[command.subscriber_id]
    parts, missing = shares(state.spendable(member, command.event_ns), used)
    if missing:
        return Answer(Result.INSUFFICIENT_POINTS)
    before = be_active(state, member, command.event_ns)
    gone = state.account(redeemed_account("exchange"))
    state.move(EntryKind.CONVERT_OUT, member.account(AVAILABLE), gone, used)
    for lot, part in parts:
        state.touch(lot, remaining=-part)
    owed, _, settled = _exchange(state, name)
    state.move(EntryKind.CONVERT_OUT, settled, owed, foreign)
    return Answer(OK, (*before, _close(state, command, member.subscriber_id)))


def _convert_in(state: LedgerState, command: Command) -> Answer:
    """Another programme's points into ours, rounded down."""
    if command.points <= 0:
        return Answer(Result.NOT_POSITIVE)
    name = command.text("programme")
    rate = state.rate_of(name, out=False)
    if not rate:
        return Answer(Result.UNKNOWN_EXCHANGE)
    points = int(command.points * rate)
    if points <= 0:
        return Answer(Result.NOT_POSITIVE)
    if _too_much(state, max(points, command.points)):
        return Answer(Result.OVERFLOW)
    if command.subscriber_id == NO_ID:
        return Answer(Result.UNKNOWN_MEMBER)
    member, at_ns = state.member(command.subscriber_id), command.event_ns
    before = be_active(state, member, at_ns)
    lot = _new_lot(state, command, "exchange", at_ns)
    grant(state, member, lot, EntryKind.CONVERT_IN, state.issued_account(), points, at_ns)
    _, owed_to_us, settled = _exchange(state, name)
    state.move(EntryKind.CONVERT_IN, owed_to_us, settled, command.points)
    return Answer(OK, (*before, _close(state, command, member.subscriber_id)))


def _exchange(state: LedgerState, name: str) -> tuple[int, int, int]:
    unit = state.rules.exchanges[name].unit
    one, two, three = exchange_accounts(name)
    return state.account(one, unit), state.account(two, unit), state.account(three, unit)


# By people


def _adjust(state: LedgerState, command: Command, approved: bool = False) -> Answer:
    points, who = command.points, command.subscriber_id
    if not points:
        return Answer(Result.NOT_POSITIVE)
    if _too_much(state, points):
        return Answer(Result.OVERFLOW)
    if not command.text("reason").strip():
        return Answer(Result.NO_REASON)
    member = state.members.get(who)
    if who == NO_ID or (points < 0 and member is None):
        return Answer(Result.UNKNOWN_MEMBER)
    if abs(points) > state.rules.manual_limit and not approved:
        return Answer(Result.AWAITING_APPROVAL)
    issued, at_ns, kind = state.issued_account(), command.event_ns, EntryKind.MANUAL_ADJUST
    if points > 0:
        member = state.member(who)
        grant(state, member, _new_lot(state, command, "manual", at_ns), kind, issued, points, at_ns)
        return Answer(OK, (_close(state, command, who),))
    assert member is not None, "one without account gives nothing"
    parts, missing = _all_parts(state, member, -points)
    if missing:
        return Answer(Result.INSUFFICIENT_POINTS)
    _give_up(state, member, kind, issued, parts)
    return Answer(OK, (_close(state, command, who),))


def _forfeit(state: LedgerState, command: Command) -> Answer:
    """What is available is lost: all of it, or so many points."""
    if not command.text("reason").strip():
        return Answer(Result.NO_REASON)
    member = state.members.get(command.subscriber_id)
    if member is None:
        return Answer(Result.UNKNOWN_MEMBER)
    points = command.points or state.shown(member, AVAILABLE)
    if points <= 0:
        return Answer(Result.NOT_POSITIVE)
    parts, missing = _all_parts(state, member, points)
    if missing:
        return Answer(Result.INSUFFICIENT_POINTS)
    _give_up(state, member, EntryKind.FORFEIT, state.account(FORFEITED), parts)
    return Answer(OK, (_close(state, command, member.subscriber_id),))


def _all_parts(state: LedgerState, member: Member, points: int) -> tuple[list[Part], int]:
    """Points out of all that remains, whatever its dates."""
    lots = [lot for lot in member.lots.values() if lot.remaining]
    return shares(state.in_spending_order(lots), points)


def _give_up(
    state: LedgerState, member: Member, kind: EntryKind, target: int, parts: list[Part]
) -> None:
    total = sum(part for _, part in parts)
    state.move(kind, member.account(AVAILABLE), target, total)
    for lot, part in parts:
        state.touch(lot, remaining=-part)


def _migrate(state: LedgerState, command: Command) -> Answer:
    """A lot of a former programme, with its own dates: the member has been one since it was earned,
    also for the waiting period.
    """
    if command.points <= 0:
        return Answer(Result.NOT_POSITIVE)
    if _too_much(state, command.points):
        return Answer(Result.OVERFLOW)
    if command.subscriber_id == NO_ID:
        return Answer(Result.UNKNOWN_MEMBER)
    earned_ns = command.number("earned", command.event_ns)
    until_ns = command.number("expires") or None
    member = state.member(command.subscriber_id)
    lot = _new_lot(state, command, "migrate", earned_ns, until_ns)
    kind, issued = EntryKind.MIGRATE_OPEN, state.issued_account()
    grant(state, member, lot, kind, issued, command.points, earned_ns)
    return Answer(OK, (_close(state, command, member.subscriber_id),))


def _freeze(state: LedgerState, command: Command) -> Answer:
    if command.subscriber_id == NO_ID:
        return Answer(Result.UNKNOWN_MEMBER)
    member = state.member(command.subscriber_id)
    frozen = command.kind == "freeze"
    member.freezes.append((command.event_ns, frozen))
    state.freezes.append((command.command_id, member.subscriber_id, command.event_ns, frozen))
    state.changed_members.add(member.subscriber_id)
    return Answer(OK)


def _decide(state: LedgerState, command: Command) -> Answer:
    """`approve` and `reject`: a second person about what awaits one."""
    identifier = command.id("request")
    asked = state.awaiting.get(identifier)
    if asked is None:
        return Answer(Result.UNKNOWN_REQUEST)
    if asked.actor == command.actor and not _by_member(asked):
        return Answer(Result.SAME_PERSON)
    if state.requests[identifier].result != Result.AWAITING_APPROVAL:
        return Answer(Result.CLOSED_ORDER)
    answer = Answer(Result.OK)
    final = Result.CLOSED_ORDER
    if command.kind == "approve":
        answer = APPROVED[asked.kind](state, asked, command.event_ns)
        final = answer.result
    state.requests[identifier] = state.requests[identifier]._replace(result=final)
    state.decided[identifier] = final, command.command_id
    return answer


def _by_member(asked: Command) -> bool:
    """Did a member ask, so that nobody is asked twice? Whoever has a role works here."""
    return asked.kind in SPENDING and asked.role == Role.MEMBER


# Things of the programme


def _stock(state: LedgerState, command: Command) -> Answer:
    """Gifts come in, or are taken out of what is free."""
    item = command.text("item").strip()
    if not command.points or not item:
        return Answer(Result.NOT_POSITIVE)
    if _too_much(state, command.points):
        return Answer(Result.OVERFLOW)
    if command.points < 0 and orders.free_stock(state, item) < -command.points:
        return Answer(Result.OUT_OF_STOCK)
    free, supplied = (orders.stock_account(state, item, at) for at in ("free", "supplied"))
    if command.points > 0:
        state.move(EntryKind.STOCK, free, supplied, command.points)
    else:
        state.move(EntryKind.STOCK, supplied, free, -command.points)
    return Answer(OK, (_close(state, command, NO_ID),))


def _close_period(state: LedgerState, command: Command) -> Answer:
    period = command.text("period")
    if period in state.periods:
        return Answer(Result.EXISTS)
    if not _is_period(period) or period >= state.booked_period:
        return Answer(Result.PERIOD_OPEN)
    state.periods[period] = command.command_id
    return Answer(OK)


def _for_all(state: LedgerState, command: Command) -> Answer:
    """`publish` and `rerate`: never by one person alone. What is approved is no posting of its own:
    rules come into force, and a re-rating books the differences of its conversions.
    """
    if not command.text("reason").strip():
        return Answer(Result.NO_REASON)
    return Answer(Result.AWAITING_APPROVAL)


def _is_period(text: str) -> bool:
    year, _, month = text.partition("-")
    digits = len(text) == 7 and len(year) == 4 and year.isdecimal() and month.isdecimal()
    return digits and 1 <= int(month) <= 12


def _approved_adjust(state: LedgerState, asked: Command, _: int) -> Answer:
    return _adjust(state, asked, approved=True)


def _approved_order(state: LedgerState, asked: Command, at_ns: int) -> Answer:
    return orders.place(state, asked, commits=asked.kind == "order", held_from_ns=at_ns)


def _order(state: LedgerState, command: Command) -> Answer:
    return orders.place(state, command, commits=True)


def _reserve(state: LedgerState, command: Command) -> Answer:
    return orders.place(state, command, commits=False)


Post = Callable[[LedgerState, Command], Answer]
POSTED: dict[str, Post] = {
    "order": _order,
    "reserve": _reserve,
    "commit": orders.commit,
    "release": orders.release,
    "refund": orders.refund,
    "transfer": _transfer,
    "convert_out": _convert_out,
    "convert_in": _convert_in,
    "adjust": _adjust,
    "approve": _decide,
    "reject": _decide,
    "migrate": _migrate,
    "freeze": _freeze,
    "unfreeze": _freeze,
    "forfeit": _forfeit,
    "stock": _stock,
    "close_period": _close_period,
    "publish": _for_all,
    "rerate": _for_all,
}
APPROVED: dict[str, Callable[[LedgerState, Command, int], Answer]] = {
    "adjust": _approved_adjust,
    "order": _approved_order,
    "reserve": _approved_order,
    "transfer": lambda state, asked, _: _transfer(state, asked),
    "convert_out": lambda state, asked, _: _convert_out(state, asked),
    "publish": lambda *_: Answer(OK),
    "rerate": lambda *_: Answer(OK),
}
