"""The ledger with coins: every single point is an object that lies somewhere.

Slow and obvious. A coin knows whose it is and from which conversion it came; it lies under
`pending` or `available`, or is gone. Balances are counts of coins, lots are the coins of one
conversion. Nobody computes a difference of balances here: coins are minted, moved and melted one by
one.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from pipeline.ledger.targets import Target
from pipeline.model.identifiers import NO_ID
from pipeline.model.words import Result, TargetState

INT64_MAX = 2**63 - 1


class Coin:
    """One point."""

    def __init__(self, conversion: bytes, member: bytes, place: str) -> None:
        self.conversion, self.member, self.place = conversion, member, place


class NaiveLedger:
    """Takes the same targets and orders as the book, for programmes in UTC that expire by year."""

    def __init__(self, years: int = 2) -> None:
        self.years = years
        self.coins: list[Coin] = []
        self.taken: dict[bytes, Target] = {}
        self.pins: dict[bytes, tuple[bytes, bytes, bytes]] = {}  # rulebook, rule, terms
        self.debt: Counter[bytes] = Counter()
        self.redeemed = 0
        self.orders: dict[bytes, tuple[bytes, int, Result]] = {}
        self.known: set[bytes] = set()

    # Requests

    def target(self, t: Target) -> Result:
        """Put one target; what the book must answer."""
        key = t.conversion_key
        old = self.taken.get(key)
        if old is not None:
            if t.fold < old.fold:
                return Result.STALE
            book, *rule = self.pins.get(key, (NO_ID,))
            elsewhere = book != t.rulebook_hash and NO_ID not in (book, t.rulebook_hash)
            if elsewhere and rule != [t.rule_version, t.terms_hash]:
                return Result.RULE_VERSION_PINNED
            if self._same(old, t):
                if t.fold > old.fold:
                    self._take(t)
                return Result.EXISTS
            if t.fold == old.fold:
                return Result.EXISTS_WITH_DIFFERENT_POINTS
        if t.points < 0:
            return Result.NOT_POSITIVE
        if t.points and t.subscriber_id == NO_ID:
            return Result.UNKNOWN_MEMBER
        self._take(t)
        self._move(old, t)
        return Result.OK

    def order(self, order_id: bytes, member: bytes, points: int, at_ns: int) -> Result:
        """Put one order; what the book must answer."""
        if order_id in self.orders:
            before_member, before_points, answer = self.orders[order_id]
            if (before_member, before_points) != (member, points):
                return Result.EXISTS_WITH_DIFFERENT_POINTS
            return Result.EXISTS if answer == Result.OK else answer
        answer = self._spend(member, points, at_ns)
        self.orders[order_id] = (member, points, answer)
        return answer

    # What it comes to

    def points(self, member: bytes) -> tuple[int, int, int, int]:
        """Pending, available, reserved, debt."""
        places = Counter(coin.place for coin in self.coins if coin.member == member)
        return places["pending"], places["available"], 0, self.debt[member]

    def lots(self, member: bytes) -> dict[bytes, int]:
        """Available coins by conversion."""
        mine = [c for c in self.coins if c.member == member and c.place == "available"]
        return dict(Counter(coin.conversion for coin in mine))

    def issued(self) -> int:
        """Coins that exist or were spent, less those that are owed."""
        return len(self.coins) + self.redeemed - sum(self.debt.values())

    def money(self) -> dict[tuple[str, str], int]:
        """Balances of money, from the targets that stand."""
        sums: Counter[tuple[str, str]] = Counter()
        for t in self.taken.values():
            if t.state == TargetState.AVAILABLE and t.currency:
                sums[f"partner:{t.partner}:receivable", t.currency] += t.receivable_minor
                sums["programme:cost_of_points", t.currency] -= t.cost_minor
                sums[f"margin:{t.partner}", t.currency] -= t.margin_minor
        return {account: amount for account, amount in sums.items() if amount}

    # Coins

    def _same(self, old: Target, t: Target) -> bool:
        whose = not t.points or old.subscriber_id == t.subscriber_id
        money = ("receivable_minor", "cost_minor", "margin_minor")
        alike = all(
            getattr(old, n) == getattr(t, n) for n in (*money, "state", "points", "partner")
        )
        currency = old.currency == t.currency or not any(getattr(t, n) for n in money)
        return alike and whose and currency

    def _take(self, t: Target) -> None:
        self.taken[t.conversion_key] = t
        rated = (t.rulebook_hash, t.rule_version, t.terms_hash)
        if NO_ID not in rated:
            pin = self.pins.setdefault(t.conversion_key, rated)
            if pin[0] == t.rulebook_hash:
                self.pins[t.conversion_key] = rated

    def _move(self, old: Target | None, t: Target) -> None:
        before = _place(old) if old else ""
        after = _place(t)
        if t.points:
            self.known.add(t.subscriber_id)
        if old is not None and before and old.subscriber_id != t.subscriber_id:
            self._melt(old, before, old.points)
            before = ""
        if before == "available" != after:
            self._melt(old, before, old.points)  # type: ignore[arg-type]
            before = ""
        held = old.points if old is not None and before else 0
        wanted = t.points if after else 0
        for coin in self.coins:  # what waits is confirmed, or stays where it is
            if coin.conversion == t.conversion_key and coin.place == "pending" and after:
                coin.place = after
        if wanted < held:
            self._melt(old, after or before, held - wanted)  # type: ignore[arg-type]
        confirmed = wanted if before == "pending" else wanted - held
        for _ in range(wanted - held):
            self.coins.append(Coin(t.conversion_key, t.subscriber_id, after))
        if after == "available":
            self._clear_debt(t, confirmed)

    def _melt(self, t: Target, place: str, points: int) -> None:
        own = [c for c in self._at(t.subscriber_id, place) if c.conversion == t.conversion_key]
        others = [c for c in self._at(t.subscriber_id, place) if c.conversion != t.conversion_key]
        others = sorted(others, key=self._spending_order) if place == "available" else []
        melting = (own + others)[:points]
        self.coins = [c for c in self.coins if c not in melting]
        self.debt[t.subscriber_id] += points - len(melting)

    def _clear_debt(self, t: Target, credited: int) -> None:
        for coin in [c for c in self.coins if c.conversion == t.conversion_key][-credited:]:
            if credited > 0 and self.debt[t.subscriber_id] > 0:
                self.debt[t.subscriber_id] -= 1
                self.coins.remove(coin)

    def _spend(self, member: bytes, points: int, at_ns: int) -> Result:
        if points <= 0:
            return Result.NOT_POSITIVE
        if member not in self.known:
            return Result.UNKNOWN_MEMBER
        usable = [
            c for c in self._at(member, "available")
            if self._event(c) <= at_ns and _year(at_ns) <= _year(self._event(c)) + self.years
        ]  # fmt: skip
        if len(usable) < points:
            return Result.INSUFFICIENT_POINTS
        for coin in sorted(usable, key=self._spending_order)[:points]:
            self.coins.remove(coin)
        self.redeemed += points
        return Result.OK

    def _at(self, member: bytes, place: str) -> list[Coin]:
        return [c for c in self.coins if c.member == member and c.place == place]

    def _event(self, coin: Coin) -> int:
        return self.taken[coin.conversion].event_ns

    def _spending_order(self, coin: Coin) -> tuple[int, int]:
        return _year(self._event(coin)), self._event(coin)


def _place(t: Target) -> str:
    places = {TargetState.PENDING: "pending", TargetState.AVAILABLE: "available"}
    return places.get(TargetState(t.state), "") if t.points else ""


def _year(time_ns: int) -> int:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).year
