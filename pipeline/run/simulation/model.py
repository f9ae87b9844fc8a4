"""The ledger of coins: what a book must answer and hold, slow and obvious.

It takes the same targets and commands as the book and must give the same answers. Balances are
counts of coins, lots are the coins that lie in them; nobody computes a difference of balances here:
coins are minted, moved and melted one by one. Of `pipeline.ledger` it imports the row that a target
is, and nothing that posts; ids of lots, which break ties of the spending order, come from whoever
makes it.

It lies here, not beside the other naive twins in `tests/naive`, because `mirrorpoint simulate`
compares a book with it, and commands ship in the wheel, where there are no tests.
`tests/naive/ledger.py` gives it the name that tests look for.

    coins.py      coins, lots, purses, orders: what there is
    dates.py      when points lapse
    model.py      targets, what time brings, and what it all comes to
    commands.py   what members, systems and people ask
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable

from pipeline.ledger.targets import Target
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.stage import END_OF_TIME
from pipeline.model.words import Result, TargetState
from pipeline.run.simulation import commands, dates
from pipeline.run.simulation.coins import Coin, Exchange, Lot, NaiveRules, Order, Purse, melt
from pipeline.run.simulation.commands import AMOUNT_MAX, Asked

LotIds = Callable[[bytes, bytes, int], bytes]  # cause, member, number -> lot id
PLACES = {TargetState.PENDING: "pending", TargetState.AVAILABLE: "available"}
LotRow = tuple[bytes, int, int, int, int, int, int]
Balances = dict[tuple[str, str], int]


def any_lot_id(cause: bytes, member: bytes, number: int = 0) -> bytes:
    """Ids for lots whose ids nobody compares."""
    return hashlib.blake2b(cause + member + bytes((number,)), digest_size=16).digest()


class NaiveLedger:
    """Takes targets, commands and the time; answers as the book must."""

    def __init__(self, rules: NaiveRules | None = None, lot_id: LotIds = any_lot_id) -> None:
        self.rules, self.lot_id = rules or NaiveRules(), lot_id
        self.expiry_by_rulebook: dict[bytes, str] = {}
        self.taken: dict[bytes, Target] = {}
        self.pins: dict[bytes, tuple[bytes, bytes, bytes]] = {}  # rulebook, rule, terms
        self.waiting: dict[bytes, list[Coin]] = {}  # pending coins by conversion
        self.purses: dict[bytes, Purse] = {}
        self.orders: dict[bytes, Order] = {}
        self.answers: dict[bytes, tuple[tuple[object, ...], Result]] = {}
        self.requests: dict[bytes, Asked] = {}
        self.stock: dict[str, Counter[str]] = defaultdict(Counter)
        self.exchanged: Counter[tuple[str, str]] = Counter()  # account, unit
        self.closed: set[str] = set()
        self.words = 0  # freezes and unfreezes so far
        self.granted_by_hand = 0  # adjusted, migrated and converted in
        self.now_ns = 0

    # Requests

    def use(self, rules: NaiveRules, rulebook_hash: bytes = NO_ID) -> None:
        """These rules are in force from now on."""
        self.rules = rules
        self.expiry_by_rulebook[rulebook_hash] = rules.expiry

    def target(self, t: Target, re_rates: bool = False) -> Result:
        """Put one target; what the book must answer. `re_rates`: it is an approved re-rating."""
        old = self.taken.get(t.conversion_key)
        if old is not None:
            if t.fold < old.fold:
                return Result.STALE
            book, *rule = self.pins.get(t.conversion_key, (NO_ID,))
            elsewhere = book != t.rulebook_hash and NO_ID not in (book, t.rulebook_hash)
            if not re_rates and elsewhere and rule != [t.rule_version, t.terms_hash]:
                return Result.RULE_VERSION_PINNED
            if _same(old, t):
                if t.fold > old.fold:
                    self._take(t, re_rates)
                    if _place(t) == "available":
                        self._date(self.own_lot(t), t)
                return Result.EXISTS
            if t.fold == old.fold and not re_rates:
                return Result.EXISTS_WITH_DIFFERENT_POINTS
        if t.points < 0:
            return Result.NOT_POSITIVE
        if (
            max(t.points, *map(abs, (t.receivable_minor, t.cost_minor, t.margin_minor)))
            > AMOUNT_MAX
        ):
            return Result.OVERFLOW
        if t.points and t.subscriber_id == NO_ID:
            return Result.UNKNOWN_MEMBER
        self._take(t, re_rates)
        self._move(old, t)
        return Result.OK

    def command(self, asked: Asked, now_ns: int | None = None) -> Result:
        """Put one command; what the book must answer."""
        self.now_ns = self.now_ns if now_ns is None else now_ns
        return commands.answer(self, asked)

    def order(self, order_id: bytes, member: bytes, points: int, at_ns: int) -> Result:
        """Put one order of a member; what the book must answer."""
        return self.command(Asked(order_id, "order", member, points, at_ns, "", "member", {}))

    def due(self, now_ns: int) -> tuple[int, int]:
        """Let end what is due; how many reservations, and how many lots."""
        self.now_ns = now_ns
        late = [o for o in self.orders.values() if o.is_open and o.hold_until_ns <= now_ns]
        for order in sorted(late, key=lambda o: (o.hold_until_ns, o.order_id)):
            self.let_go(order)
        lapsed = 0
        for purse in self.purses.values():
            for lot in purse.in_order(self.rules.timezone):
                if lot.runs_out_ns(self.rules.timezone) <= now_ns:
                    lapsed += self.lapse(lot)
        return len(late), lapsed

    # What it comes to

    def points(self, member: bytes) -> tuple[int, int, int, int]:
        """Pending, available, reserved, debt."""
        purse = self.purse(member)
        there = purse.count()
        waiting = sum(
            len(coins) for key, coins in self.waiting.items()
            if self.taken[key].subscriber_id == member
        )  # fmt: skip
        return waiting, there["available"], there["held"], purse.debt

    def lots(self, member: bytes) -> dict[bytes, int]:
        """Available coins by conversion."""
        found = {lot.conversion: len(lot.at("available")) for lot in self.purse(member).lots}
        return {conversion: count for conversion, count in found.items() if count}

    def lot_rows(self, member: bytes) -> list[LotRow]:
        """Of every lot with points: id, amount, remaining, held, lapsed, earned, its own date."""
        rows = []
        for lot in self.purse(member).in_order(self.rules.timezone):
            numbers = [len(lot.at(place)) for place in ("available", "held", "lapsed")]
            if any(numbers):
                rows.append((lot.lot_id, lot.amount, *numbers, lot.earned_ns, lot.expires_ns))
        return rows  # type: ignore[return-value]

    def issued(self) -> int:
        """Coins that exist, wherever they went, less those that are owed."""
        coins = sum(len(lot.coins) for purse in self.purses.values() for lot in purse.lots)
        waiting = sum(map(len, self.waiting.values()))
        return coins + waiting - sum(purse.debt for purse in self.purses.values())

    def granted(self) -> int:
        """What must have been issued: what conversions are worth, and what people granted."""
        worth = sum(t.points for t in self.taken.values() if _place(t))
        return worth + self.granted_by_hand

    def money(self) -> Balances:
        """Balances of money, from the targets that stand."""
        sums: Counter[tuple[str, str]] = Counter()
        for t in self.taken.values():
            if t.state == TargetState.AVAILABLE and t.currency:
                sums[f"partner:{t.partner}:receivable", t.currency] += t.receivable_minor
                sums["programme:cost_of_points", t.currency] -= t.cost_minor
                sums[f"margin:{t.partner}", t.currency] -= t.margin_minor
        return {account: amount for account, amount in sums.items() if amount}

    def balances(self, commodity: str) -> Balances:
        """Every balance that is not zero, debits positive; `commodity` is the name of points."""
        sums: Counter[tuple[str, str]] = Counter()
        for member, purse in self.purses.items():
            names = ("pending", "available", "reserved", "debt")
            for name, points in zip(names, self.points(member), strict=True):
                sign = 1 if name == "debt" else -1
                sums[f"member:{id_text(member)}:{name}", commodity] += sign * points
            for lot in purse.lots:
                for coin in lot.coins:
                    sums[self._beyond(coin), commodity] -= 1
        sums.pop(("", commodity), None)
        sums["programme:issued", commodity] += self.issued()
        for item, where in self.stock.items():
            for place, count in where.items():
                sign = -1 if place == "supplied" else 1
                sums[f"stock:{item}:{place}", f"stock:{item}"] += sign * count
        sums.update(self.exchanged)
        sums.update(self.money())
        return {account: amount for account, amount in sums.items() if amount}

    def _beyond(self, coin: Coin) -> str:
        """The programme's account that a coin lies in; none while it is a member's."""
        if coin.place == "redeemed":
            return f"programme:redeemed:{self.orders[coin.order].redemption}"
        beyond = {
            "exchanged": "programme:redeemed:exchange",
            "lapsed": "programme:lapsed",
            "forfeited": "programme:forfeited",
        }
        return beyond.get(coin.place, "")

    def problems(self) -> list[str]:
        """What the ledger of coins itself has got wrong; empty where it is sound."""
        found = []
        if self.issued() != self.granted():
            found.append(f"{self.issued()} points are issued, {self.granted()} were granted")
        for member, purse in self.purses.items():
            who = id_text(member)
            if purse.debt < 0 or (purse.debt and purse.count()["available"]):
                found.append(f"{who} owes {purse.debt} and has points")
            for lot in purse.lots:
                there = len(lot.at("available")) + len(lot.at("lapsed"))
                if there > lot.amount or lot.amount < 0:
                    found.append(f"a lot of {who} has {there} of {lot.amount}")
                if any(coin.lot is not lot for coin in lot.coins):
                    found.append(f"a coin of {who} lies in two lots")
        for key, coins in self.waiting.items():
            t = self.taken[key]
            if len(coins) != (t.points if _place(t) == "pending" else 0):
                found.append(f"{len(coins)} coins wait for {id_text(key)}")
        return found

    # Coins

    def purse(self, member: bytes) -> Purse:
        """All that a member has; nothing at first."""
        return self.purses.setdefault(member, Purse(member))

    def own_lot(self, t: Target) -> Lot:
        """The lot of a conversion and its member; made where there is none."""
        purse = self.purse(t.subscriber_id)
        for lot in purse.lots:
            if lot.cause == t.conversion_key:
                return lot
        policy = self.expiry_by_rulebook.get(t.rulebook_hash, self.rules.expiry)
        key = t.conversion_key
        made = Lot(self.lot_id(key, t.subscriber_id, 0), key, key, purse, policy)
        purse.lots.append(made)
        return made

    def recover(self, purse: Purse, credited: list[Coin]) -> None:
        """Coins just credited pay what is owed."""
        paying = credited[: purse.debt]
        purse.debt -= melt(paying)

    def be_active(self, purse: Purse, at_ns: int) -> None:
        """The member did something, after all that is known of.

        What had run out for want of it is there again; what had run out before it stays so, though
        nobody may have looked until now. A lot that a refund gave a date follows it no more.
        """
        if at_ns <= purse.active_ns:
            return
        zone = self.rules.timezone
        for lot in purse.in_order(zone):
            if not dates.months_of_inactivity(lot.policy) or lot.expires_ns != END_OF_TIME:
                continue
            if lot.runs_out_ns(zone) <= at_ns:
                self.lapse(lot)
            back = [c for c in lot.at("lapsed") if c.idle and at_ns < c.lapsed_ns]
            for coin in back:
                coin.put("available")
            self.recover(purse, back)
        purse.active_ns = at_ns

    def lapse(self, lot: Lot) -> bool:
        """What remains in a lot runs out, at its date; was there anything?"""
        coins = lot.at("available")
        for coin in coins:
            coin.put("lapsed")
            coin.lapsed_ns = lot.runs_out_ns(self.rules.timezone)
            coin.idle = lot.expires_ns > coin.lapsed_ns
        return bool(coins)

    def bring_back(self, purse: Purse, parts: list[tuple[Lot, list[Coin]]]) -> None:
        """Coins become available again, in the lots they lay in as far as these have room.

        Those that find none pay what the member owes; the rest goes to other lots with room.
        """
        for _, coins in parts:
            for coin in coins:
                coin.put("on the way")
        placed: list[Coin] = []
        homeless: list[Coin] = []
        for lot, coins in parts:
            room = lot.room
            for coin in coins:
                (placed if room > 0 else homeless).append(coin)
                if room > 0:
                    coin.put("available")
                room -= 1
        paying = homeless[: purse.debt]
        purse.debt -= melt(paying)
        for coin in homeless[len(paying) :]:
            lot = next(lot for lot in reversed(purse.in_order(self.rules.timezone)) if lot.room)
            lot.adopt(coin)
            coin.put("available")
            placed.append(coin)
        self.recover(purse, placed)

    def let_go(self, order: Order) -> None:
        """End a reservation: everything goes back."""
        order.is_open = False
        self.bring_back(order.purse, order.coins("held", self.rules.timezone))
        if order.item:
            self.stock[order.item]["held"] -= order.quantity
            self.stock[order.item]["free"] += order.quantity

    # Targets

    def _take(self, t: Target, re_rates: bool) -> None:
        self.taken[t.conversion_key] = t
        rated = (t.rulebook_hash, t.rule_version, t.terms_hash)
        if NO_ID not in rated:
            pin = self.pins.setdefault(t.conversion_key, rated)
            if re_rates or pin[0] == t.rulebook_hash:
                self.pins[t.conversion_key] = rated

    def _move(self, old: Target | None, t: Target) -> None:
        before, after = _place(old) if old else "", _place(t)
        if after:
            self.purse(t.subscriber_id).known = True
        moved = old is not None and bool(after) and old.subscriber_id != t.subscriber_id
        if after == "available" and (moved or before != "available"):
            # What the member has already may be corrected long after; that is nothing anew.
            self.be_active(self.purse(t.subscriber_id), t.event_ns)
        if old is not None and before == "pending" and (moved or not after):
            self.waiting[t.conversion_key] = []
            before = ""
        if old is not None and before == "available" and (moved or after != "available"):
            self._take_back(old, old.points)
            before = ""
        held = old.points if old is not None and before else 0
        if after == "pending":
            coins = self.waiting.setdefault(t.conversion_key, [])
            coins += [Coin(None, "pending") for _ in range(t.points - held)]
            del coins[t.points :]
        elif after == "available" and before == "pending":
            self._confirm(t)
        elif after == "available":
            if t.points >= held:
                self._grant(t, t.points - held)
            else:
                self._take_back(t, held - t.points)
                self._date(self.own_lot(t), t)

    def _confirm(self, t: Target) -> None:
        waited = self.waiting[t.conversion_key][: t.points]
        self.waiting[t.conversion_key] = []
        self._grant(t, t.points, waited)

    def _grant(self, t: Target, points: int, waited: list[Coin] | None = None) -> None:
        """Coins for the own lot: those that waited, and new ones."""
        lot, purse = self.own_lot(t), self.purse(t.subscriber_id)
        self._date(lot, t)
        if not points:
            return
        purse.since_ns = min(purse.since_ns, t.event_ns)
        coins = waited or []
        for coin in coins:
            lot.adopt(coin)
            coin.put("available")
        coins = coins + lot.mint(points - len(coins))
        lot.amount += points
        self.recover(purse, coins)

    def _take_back(self, t: Target, points: int) -> None:
        """Melt coins of a member: the own lot's, those of it that lapsed, others'; or owe them."""
        own, purse = self.own_lot(t), self.purse(t.subscriber_id)
        own.amount -= points
        there = own.at("available") + sorted(own.at("lapsed"), key=lambda coin: coin.lapsed_ns)
        for lot in purse.in_order(self.rules.timezone):
            there += lot.at("available") if lot is not own else []
        purse.debt += points - melt(there[:points])

    def _date(self, lot: Lot, t: Target) -> None:
        """A lot is dated by the newest word about the time of its conversion."""
        if lot.earned_ns != t.event_ns:
            lot.date_anew(t.event_ns, self.rules.timezone)


def _place(t: Target) -> str:
    return PLACES.get(TargetState(t.state), "") if t.points else ""


def _same(old: Target, t: Target) -> bool:
    """Is a conversion worth the same?"""
    money = ("receivable_minor", "cost_minor", "margin_minor")
    alike = all(getattr(old, n) == getattr(t, n) for n in (*money, "state", "points", "partner"))
    whose = not t.points or old.subscriber_id == t.subscriber_id
    currency = old.currency == t.currency or not any(getattr(t, n) for n in money)
    return alike and whose and currency


__all__ = ["Asked", "Exchange", "NaiveLedger", "NaiveRules"]
