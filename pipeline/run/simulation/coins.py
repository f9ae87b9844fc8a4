"""Coins, the lots they lie in, and whose they are.

Every single point is an object. A coin lies in the lot it was minted into (or was brought back to)
and in one place:

    pending     waits for the partner's word; in no lot yet
    available   may be spent
    held        reserved by `order`
    redeemed    spent by `order`
    exchanged   became another programme's points
    lapsed      ran out at `lapsed_ns`; `idle` where that was for want of activity
    forfeited   lost

A coin that went back to where it was issued from, or that paid a debt, is melted: it is no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

from pipeline.model.identifiers import NO_ID
from pipeline.model.stage import END_OF_TIME
from pipeline.run.simulation import dates


class Exchange(NamedTuple):
    """Another programme: its unit, its points for one of ours, ours for one of its; 0 is shut."""

    unit: str
    rate_out: Fraction
    rate_in: Fraction


NONE: Mapping[str, Exchange] = MappingProxyType({})


class NaiveRules(NamedTuple):
    """What a programme says of points."""

    expiry: str = "calendar_year_plus(2)"
    timezone: str = "UTC"
    hold_ns: int = 15 * 60 * 10**9
    waiting_ns: int = 0
    refund: str = "grace(30d)"
    manual_limit: int = 0
    exchanges: Mapping[str, Exchange] = NONE


class Coin:
    """One point."""

    __slots__ = ("idle", "lapsed_ns", "lot", "order", "place")

    def __init__(self, lot: Lot | None, place: str) -> None:
        self.lot, self.place, self.order = lot, place, NO_ID
        self.lapsed_ns, self.idle = 0, False

    def put(self, place: str, order: bytes = NO_ID) -> None:
        """Lay the coin somewhere else."""
        self.place, self.order = place, order


class Lot:
    """Coins of one member from one cause, with one date.

    `amount` is what was granted: what of it is not there any more was spent, owed or given away.
    """

    def __init__(
        self,
        lot_id: bytes,
        cause: bytes,
        conversion: bytes,
        member: Purse,
        policy: str,
        parent: bytes = NO_ID,
    ) -> None:
        self.lot_id, self.cause, self.conversion = lot_id, cause, conversion
        self.member, self.policy, self.parent = member, policy, parent
        self.earned_ns = self.spendable_ns = self.expires_ns = 0
        self.amount = 0
        self.coins: list[Coin] = []

    def at(self, place: str, order: bytes = NO_ID) -> list[Coin]:
        """The coins that lie in a place (for an order, if one is named)."""
        return [c for c in self.coins if c.place == place and order in (NO_ID, c.order)]

    @property
    def room(self) -> int:
        """How many coins may come back into the lot."""
        there = sum(coin.place in ("available", "held", "lapsed") for coin in self.coins)
        return max(self.amount - there, 0)

    def mint(self, points: int) -> list[Coin]:
        """New coins."""
        made = [Coin(self, "available") for _ in range(points)]
        self.coins += made
        return made

    def adopt(self, coin: Coin) -> None:
        """Take a coin over from where it lay."""
        if coin.lot is not None:
            coin.lot.coins.remove(coin)
        coin.lot = self
        self.coins.append(coin)

    def date_anew(self, earned_ns: int, timezone: str) -> None:
        """Let the lot count from another time."""
        self.earned_ns = self.spendable_ns = earned_ns
        self.expires_ns = dates.lapse_ns(self.policy, earned_ns, timezone)

    def runs_out_ns(self, timezone: str) -> int:
        """When what remains lapses, as far as is known."""
        if self.expires_ns != END_OF_TIME:
            return self.expires_ns
        return self.idle_ns(timezone)

    def idle_ns(self, timezone: str) -> int:
        """When it lapses for want of activity: so long after the last thing the member did."""
        months = dates.months_of_inactivity(self.policy)
        if not months:
            return END_OF_TIME
        since_ns = max(self.earned_ns, self.member.active_ns)
        return dates.months_later_ns(since_ns, months, timezone)


class Purse:
    """All that one member has."""

    def __init__(self, member: bytes) -> None:
        self.member = member
        self.lots: list[Lot] = []
        self.debt = 0
        self.since_ns = END_OF_TIME
        self.active_ns = 0
        self.freezes: list[tuple[int, int, bool]] = []  # from, order of coming, frozen
        self.known = False

    def frozen_at(self, at_ns: int) -> bool:
        """The last word about the time before counts; of two about one moment the later one."""
        words = [word for word in self.freezes if word[0] <= at_ns]
        return bool(words) and max(words)[2]

    def in_order(self, timezone: str) -> list[Lot]:
        """The lots, the one to be spent first in front."""
        return sorted(
            self.lots, key=lambda lot: (lot.runs_out_ns(timezone), lot.earned_ns, lot.lot_id)
        )

    def count(self) -> Counter[str]:
        """How many coins lie in which place."""
        return Counter(coin.place for lot in self.lots for coin in lot.coins)


class Order:
    """A reservation, or what came of it."""

    def __init__(
        self,
        order_id: bytes,
        purse: Purse,
        points: int,
        hold_until_ns: int,
        redemption: str,
        item: str,
        quantity: int,
    ) -> None:
        self.order_id, self.purse, self.points = order_id, purse, points
        self.hold_until_ns, self.redemption = hold_until_ns, redemption
        self.item, self.quantity = item, quantity
        self.is_open, self.committed, self.refunded = True, 0, 0

    def coins(self, place: str, timezone: str) -> list[tuple[Lot, list[Coin]]]:
        """Its coins in a place by lot, in spending order."""
        found = [(lot, lot.at(place, self.order_id)) for lot in self.purse.in_order(timezone)]
        return [(lot, coins) for lot, coins in found if coins]


def melt(coins: Iterable[Coin]) -> int:
    """Let coins be no more; how many they were."""
    gone = list(coins)
    for coin in gone:
        assert coin.lot is not None
        coin.lot.coins.remove(coin)
    return len(gone)
