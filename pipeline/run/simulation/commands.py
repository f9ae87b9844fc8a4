"""What members, systems and people ask of the ledger of coins; one function for each kind.

Each looks for the reasons to refuse in the order of the book's own text, and then moves coins. A
command that was answered is not looked at again.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.model.identifiers import NO_ID, parse_id
from pipeline.model.words import Result
from pipeline.run.simulation import dates
from pipeline.run.simulation.coins import Coin, Lot, Order, Purse, melt

if TYPE_CHECKING:
    from pipeline.run.simulation.model import NaiveLedger

AMOUNT_MAX = 10**14
SECOND_NS = 10**9
DESK = ("member", "system", "call_centre", "admin")
MANAGER = ("programme_manager", "admin")
SECOND = ("approver", "finance", "admin")
# Who may ask it, told from the other side than the book's own table.
WHO_MAY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("order", "reserve", "transfer", "convert_out"), DESK),
    "commit": ("system", "admin"),
    "release": DESK,
    "refund": ("system", "call_centre", "admin"),
    "convert_in": ("system", "finance", "admin"),
    "adjust": ("call_centre", *MANAGER),
    "forfeit": MANAGER,
    **dict.fromkeys(("freeze", "unfreeze"), ("call_centre", *MANAGER)),
    "migrate": ("system", *MANAGER),
    "stock": ("system", *MANAGER),
    **dict.fromkeys(("approve", "reject"), SECOND),
    "close_period": ("finance", "admin"),
    **dict.fromkeys(("publish", "rerate"), MANAGER),
}
ROLES = (
    "", "member", "system", "admin", "programme_manager", "approver", "call_centre", "finance",
    "analyst", "network_engineer", "auditor",
)  # fmt: skip
REDEMPTIONS = ("service", "gift", "cash", "partner", "exchange")


class Asked(NamedTuple):
    """One command."""

    id: bytes
    kind: str
    member: bytes
    points: int
    at_ns: int
    actor: str
    role: str
    said: dict[str, Any]

    def names(self, what: str) -> bytes:
        """An id that the command names."""
        value = self.said.get(what)
        return (parse_id(value) if isinstance(value, str) else None) or NO_ID

    def text(self, what: str, default: str = "") -> str:
        """A word that the command says."""
        return str(self.said.get(what, default))


def answer(ledger: NaiveLedger, asked: Asked) -> Result:
    """What the book must answer."""
    content = (asked.kind, asked.member, asked.points, sorted(asked.said.items()))
    if asked.id in ledger.answers:
        before, result = ledger.answers[asked.id]
        if before != content:
            return Result.EXISTS_WITH_DIFFERENT_POINTS
        return Result.EXISTS if result == Result.OK else result
    if asked.role not in WHO_MAY[asked.kind]:
        ledger.answers[asked.id] = (content, Result.NOT_ALLOWED)
        return Result.NOT_ALLOWED
    _time_out(ledger, asked)
    result = ASKED[asked.kind](ledger, asked)
    ledger.answers[asked.id] = (content, result)
    if result == Result.AWAITING_APPROVAL:
        ledger.requests[asked.id] = asked
    return result


def _time_out(ledger: NaiveLedger, asked: Asked) -> None:
    """Reservations of the member end whose time was over when this was asked."""
    who = asked.member
    if asked.kind in ("commit", "release", "refund"):
        named = ledger.orders.get(asked.names("order"))
        who = named.purse.member if named else NO_ID
    elif asked.kind in ("approve", "reject"):
        request = ledger.requests.get(asked.names("request"))
        who = request.member if request else NO_ID
    late = [
        order for order in ledger.orders.values()
        if order.purse.member == who and order.is_open and order.hold_until_ns <= asked.at_ns
    ]  # fmt: skip
    for order in sorted(late, key=lambda order: (order.hold_until_ns, order.order_id)):
        ledger.let_go(order)


def _may_not_spend(ledger: NaiveLedger, asked: Asked, takes_part: bool = True) -> Result | None:
    """Why a member may not spend, whatever there is; `takes_part`: may the other side get it?"""
    if asked.points <= 0:
        return Result.NOT_POSITIVE
    if asked.points > AMOUNT_MAX:
        return Result.OVERFLOW
    purse = ledger.purse(asked.member)
    if not purse.known or not takes_part:
        return Result.UNKNOWN_MEMBER
    if purse.frozen_at(asked.at_ns):
        return Result.FROZEN
    waits = ledger.rules.waiting_ns if purse.lots else 0
    if waits and asked.at_ns < purse.since_ns + waits:
        return Result.WAITING_PERIOD
    return None


def _usable(ledger: NaiveLedger, purse: Purse, at_ns: int) -> list[Coin]:
    """Coins that may be spent then, in spending order."""
    zone = ledger.rules.timezone
    return [
        coin for lot in purse.in_order(zone)
        if lot.spendable_ns <= at_ns < lot.runs_out_ns(zone)
        for coin in lot.at("available")
    ]  # fmt: skip


# Orders


def _order(ledger: NaiveLedger, asked: Asked) -> Result:
    result = _reserve(ledger, asked)
    if result == Result.OK:
        _spend(ledger, ledger.orders[asked.id], asked.points)
    return result


def _reserve(ledger: NaiveLedger, asked: Asked) -> Result:
    refused = _may_not_spend(ledger, asked)
    if refused is not None:
        return refused
    item, quantity = asked.text("item"), max(int(asked.said.get("quantity", 1)), 1)
    if item and ledger.stock[item]["free"] < quantity:
        return Result.OUT_OF_STOCK
    purse = ledger.purse(asked.member)
    coins = _usable(ledger, purse, asked.at_ns)[: asked.points]
    if len(coins) < asked.points:
        return Result.INSUFFICIENT_POINTS
    ledger.be_active(purse, asked.at_ns)
    seconds = int(asked.said.get("hold_seconds", 0))
    hold_ns = seconds * SECOND_NS if seconds > 0 else ledger.rules.hold_ns
    kind = asked.text("redemption", "service")
    ledger.orders[asked.id] = Order(
        asked.id, purse, asked.points, asked.at_ns + hold_ns,
        kind if kind in REDEMPTIONS else "other", item, quantity if item else 0,
    )  # fmt: skip
    for coin in coins:
        coin.put("held", asked.id)
    if item:
        ledger.stock[item]["free"] -= quantity
        ledger.stock[item]["held"] += quantity
    return Result.OK


def _spend(ledger: NaiveLedger, order: Order, points: int) -> None:
    """Of what is held so much is spent, first in spending order first; the rest goes back."""
    held = [c for _, coins in order.coins("held", ledger.rules.timezone) for c in coins]
    for coin in held[:points]:
        coin.put("redeemed", order.order_id)
    order.is_open, order.committed = False, points
    ledger.bring_back(order.purse, order.coins("held", ledger.rules.timezone))
    if order.item:
        ledger.stock[order.item]["held"] -= order.quantity
        ledger.stock[order.item]["gone"] += order.quantity


def _commit(ledger: NaiveLedger, asked: Asked) -> Result:
    order = ledger.orders.get(asked.names("order"))
    if order is None:
        return Result.UNKNOWN_ORDER
    if not order.is_open:
        return Result.CLOSED_ORDER
    if asked.points < 0:
        return Result.NOT_POSITIVE
    if asked.points > order.points:
        return Result.INSUFFICIENT_POINTS
    _spend(ledger, order, asked.points or order.points)
    return Result.OK


def _release(ledger: NaiveLedger, asked: Asked) -> Result:
    order = ledger.orders.get(asked.names("order"))
    if order is None:
        return Result.UNKNOWN_ORDER
    if not order.is_open:
        return Result.CLOSED_ORDER
    ledger.let_go(order)
    return Result.OK


def _refund(ledger: NaiveLedger, asked: Asked) -> Result:
    order = ledger.orders.get(asked.names("order"))
    if order is None:
        return Result.UNKNOWN_ORDER
    if not order.committed:
        return Result.NOT_COMMITTED
    if asked.points < 0:
        return Result.NOT_POSITIVE
    left = order.committed - order.refunded
    points = asked.points or left
    if not 0 < points <= left:
        return Result.INSUFFICIENT_POINTS
    order.refunded += points
    parts = []
    for lot, coins in reversed(order.coins("redeemed", ledger.rules.timezone)):
        if points:
            parts.append((lot, coins[:points]))
        points -= min(points, len(coins))
    for lot, _ in parts:
        _date_again(ledger, lot, asked.at_ns)
    ledger.bring_back(order.purse, parts)
    return Result.OK


def _date_again(ledger: NaiveLedger, lot: Lot, at_ns: int) -> None:
    """A lot whose date is past gets another one, as the programme says of refunds."""
    policy, zone = ledger.rules.refund, ledger.rules.timezone
    if policy == "original" or lot.runs_out_ns(zone) > at_ns:
        return
    ledger.lapse(lot)
    if policy == "fresh":
        months = dates.months_of_inactivity(lot.policy)
        lot.expires_ns = (
            dates.months_later_ns(at_ns, months, zone)
            if months else dates.lapse_ns(lot.policy, at_ns, zone)
        )  # fmt: skip
    else:
        days = int(policy[len("grace(") : -len("d)")])
        lot.expires_ns = dates.days_later_ns(at_ns, days, zone)


# Between members and programmes


def _transfer(ledger: NaiveLedger, asked: Asked) -> Result:
    to = asked.names("to")
    refused = _may_not_spend(ledger, asked, to not in (NO_ID, asked.member))
    if refused is not None:
        return refused
    giver, receiver = ledger.purse(asked.member), ledger.purse(to)
    coins = _usable(ledger, giver, asked.at_ns)[: asked.points]
    if len(coins) < asked.points:
        return Result.INSUFFICIENT_POINTS
    ledger.be_active(giver, asked.at_ns)
    receiver.known = True
    receiver.since_ns = min(receiver.since_ns, asked.at_ns)
    twins: dict[bytes, Lot] = {}
    for coin in coins:
        lot = coin.lot
        assert lot is not None
        if lot.lot_id not in twins:
            twin_id = ledger.lot_id(asked.id, to, len(twins))
            twin = Lot(twin_id, asked.id, lot.conversion, receiver, lot.policy, lot.lot_id)
            twin.earned_ns, twin.spendable_ns = lot.earned_ns, lot.spendable_ns
            twin.expires_ns = lot.expires_ns
            twins[lot.lot_id] = twin
            receiver.lots.append(twin)
        twins[lot.lot_id].adopt(coin)
        twins[lot.lot_id].amount += 1
    ledger.recover(receiver, coins)
    return Result.OK


def _convert_out(ledger: NaiveLedger, asked: Asked) -> Result:
    if asked.points <= 0:
        return Result.NOT_POSITIVE
    name = asked.text("programme")
    exchange = ledger.rules.exchanges.get(name)
    if exchange is None or not exchange.rate_out:
        return Result.UNKNOWN_EXCHANGE
    foreign = 0
    while asked.points <= AMOUNT_MAX and Fraction(foreign + 1) <= asked.points * exchange.rate_out:
        foreign += 1
    if not foreign and asked.points <= AMOUNT_MAX:
        return Result.NOT_POSITIVE
    refused = _may_not_spend(ledger, asked)
    if refused is not None:
        return refused
    used = 0
    while used * exchange.rate_out < foreign:
        used += 1
    purse = ledger.purse(asked.member)
    coins = _usable(ledger, purse, asked.at_ns)[:used]
    if len(coins) < used:
        return Result.INSUFFICIENT_POINTS
    ledger.be_active(purse, asked.at_ns)
    for coin in coins:
        coin.put("exchanged")
    ledger.exchanged[f"exchange:{name}:owed", exchange.unit] -= foreign
    ledger.exchanged[f"exchange:{name}:settled", exchange.unit] += foreign
    return Result.OK


def _convert_in(ledger: NaiveLedger, asked: Asked) -> Result:
    if asked.points <= 0:
        return Result.NOT_POSITIVE
    name = asked.text("programme")
    exchange = ledger.rules.exchanges.get(name)
    if exchange is None or not exchange.rate_in:
        return Result.UNKNOWN_EXCHANGE
    points = int(asked.points * exchange.rate_in)
    if not points:
        return Result.NOT_POSITIVE
    if max(points, asked.points) > AMOUNT_MAX:
        return Result.OVERFLOW
    if asked.member == NO_ID:
        return Result.UNKNOWN_MEMBER
    ledger.be_active(ledger.purse(asked.member), asked.at_ns)
    _credit(ledger, asked, points, asked.at_ns)
    ledger.exchanged[f"exchange:{name}:owed_to_us", exchange.unit] += asked.points
    ledger.exchanged[f"exchange:{name}:settled", exchange.unit] -= asked.points
    return Result.OK


def _credit(
    ledger: NaiveLedger, asked: Asked, points: int, earned_ns: int, expires_ns: int = 0
) -> None:
    """New coins in a lot of their own."""
    purse = ledger.purse(asked.member)
    lot_id = ledger.lot_id(asked.id, asked.member, 0)
    lot = Lot(lot_id, asked.id, NO_ID, purse, ledger.rules.expiry)
    lot.date_anew(earned_ns, ledger.rules.timezone)
    lot.expires_ns = expires_ns or lot.expires_ns
    lot.amount = points
    purse.lots.append(lot)
    purse.known = True
    purse.since_ns = min(purse.since_ns, earned_ns)
    ledger.granted_by_hand += points
    ledger.recover(purse, lot.mint(points))


# By people


def _adjust(ledger: NaiveLedger, asked: Asked, approved: bool = False) -> Result:
    purse = ledger.purse(asked.member)
    if not asked.points:
        return Result.NOT_POSITIVE
    if abs(asked.points) > AMOUNT_MAX:
        return Result.OVERFLOW
    if not asked.text("reason").strip():
        return Result.NO_REASON
    if asked.member == NO_ID or (asked.points < 0 and not purse.known):
        return Result.UNKNOWN_MEMBER
    if abs(asked.points) > ledger.rules.manual_limit and not approved:
        return Result.AWAITING_APPROVAL
    if asked.points > 0:
        _credit(ledger, asked, asked.points, asked.at_ns)
        return Result.OK
    coins = _all_coins(ledger, purse)
    if len(coins) < -asked.points:
        return Result.INSUFFICIENT_POINTS
    ledger.granted_by_hand -= melt(coins[: -asked.points])
    return Result.OK


def _all_coins(ledger: NaiveLedger, purse: Purse) -> list[Coin]:
    """Whatever is available, whatever its dates, in spending order."""
    return [c for lot in purse.in_order(ledger.rules.timezone) for c in lot.at("available")]


def _forfeit(ledger: NaiveLedger, asked: Asked) -> Result:
    purse = ledger.purse(asked.member)
    coins = _all_coins(ledger, purse)
    if not asked.text("reason").strip():
        return Result.NO_REASON
    if not purse.known:
        return Result.UNKNOWN_MEMBER
    if asked.points < 0 or (not asked.points and not coins):
        return Result.NOT_POSITIVE
    if asked.points > len(coins):
        return Result.INSUFFICIENT_POINTS
    for coin in coins[: asked.points or None]:
        coin.put("forfeited")
    return Result.OK


def _migrate(ledger: NaiveLedger, asked: Asked) -> Result:
    if asked.points <= 0:
        return Result.NOT_POSITIVE
    if asked.points > AMOUNT_MAX:
        return Result.OVERFLOW
    if asked.member == NO_ID:
        return Result.UNKNOWN_MEMBER
    earned_ns = asked.said.get("earned", asked.at_ns)
    _credit(ledger, asked, asked.points, earned_ns, asked.said.get("expires", 0))
    return Result.OK


def _freeze(ledger: NaiveLedger, asked: Asked) -> Result:
    if asked.member == NO_ID:
        return Result.UNKNOWN_MEMBER
    purse = ledger.purse(asked.member)
    purse.known = True
    ledger.words += 1
    purse.freezes.append((asked.at_ns, ledger.words, asked.kind == "freeze"))
    return Result.OK


def _approve(ledger: NaiveLedger, asked: Asked) -> Result:
    request = ledger.requests.get(asked.names("request"))
    if request is None:
        return Result.UNKNOWN_REQUEST
    if request.actor == asked.actor:
        return Result.SAME_PERSON
    content, result = ledger.answers[request.id]
    if result != Result.AWAITING_APPROVAL:
        return Result.CLOSED_ORDER
    approves, done = asked.kind == "approve", Result.OK
    if approves and request.kind == "adjust":
        done = _adjust(ledger, request, approved=True)
    decided = done if approves else Result.CLOSED_ORDER
    ledger.answers[request.id] = (content, decided)
    return done


def _for_all(_: NaiveLedger, asked: Asked) -> Result:
    return Result.AWAITING_APPROVAL if asked.text("reason").strip() else Result.NO_REASON


# Things of the programme


def _stock(ledger: NaiveLedger, asked: Asked) -> Result:
    item = asked.text("item").strip()
    if not asked.points or not item:
        return Result.NOT_POSITIVE
    if abs(asked.points) > AMOUNT_MAX:
        return Result.OVERFLOW
    if ledger.stock[item]["free"] + asked.points < 0:
        return Result.OUT_OF_STOCK
    ledger.stock[item]["free"] += asked.points
    ledger.stock[item]["supplied"] += asked.points
    return Result.OK


def _close_period(ledger: NaiveLedger, asked: Asked) -> Result:
    period = asked.text("period")
    if period in ledger.closed:
        return Result.EXISTS
    year, dash, month = period.partition("-")
    is_one = dash and len(period) == 7 and (year + month).isdecimal() and 1 <= int(month) <= 12
    if not is_one or period >= dates.month_of(ledger.now_ns, ledger.rules.timezone):
        return Result.PERIOD_OPEN
    ledger.closed.add(period)
    return Result.OK


ASKED = {
    "order": _order,
    "reserve": _reserve,
    "commit": _commit,
    "release": _release,
    "refund": _refund,
    "transfer": _transfer,
    "convert_out": _convert_out,
    "convert_in": _convert_in,
    "adjust": _adjust,
    "forfeit": _forfeit,
    "migrate": _migrate,
    "freeze": _freeze,
    "unfreeze": _freeze,
    "approve": _approve,
    "reject": _approve,
    "stock": _stock,
    "close_period": _close_period,
    "publish": _for_all,
    "rerate": _for_all,
}
