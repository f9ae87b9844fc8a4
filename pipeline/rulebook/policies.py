"""What rules say about fraud, coupons and shares, once read; they are read in `fraud.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from pipeline.model.words import FraudOutcome

LIMIT, HOLD_NS = 100, 30 * 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class FraudCode:
    """One code. `bounds` are its thresholds: counts, nanoseconds (`*_ns`) or a share.

    An `outcome` of NONE is told by the contract.
    """

    code: str
    weight: int
    outcome: FraudOutcome
    bounds: Mapping[str, int | Fraction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FraudPolicy:
    """All codes of a policy; without any there is no score. `hold_ns` is how long `hold` adds.

    `codes` are about purchases, `spending` about orders and the like, `insider` about credits by
    hand. Only the first decide what a purchase is worth.
    """

    limit: int = LIMIT
    hold_ns: int = HOLD_NS
    codes: tuple[FraudCode, ...] = ()
    spending: tuple[FraudCode, ...] = ()
    insider: FraudCode | None = None

    def content(self) -> list[Any]:
        """What decides about purchases, for hashing."""
        return [self.limit, self.hold_ns, _told(self.codes)]

    def of_others(self) -> list[Any]:
        """What decides about spending and credits by hand, for hashing."""
        return [_told(self.spending), _told((self.insider,) if self.insider else ())]


def _told(codes: tuple[FraudCode, ...]) -> list[Any]:
    return [[c.code, c.weight, int(c.outcome), sorted(c.bounds.items())] for c in codes if c.weight]


NO_FRAUD = FraudPolicy()


@dataclass(frozen=True, slots=True)
class Shares:
    """How position-based attribution shares a sale: the first click, those between, the last."""

    first: Fraction
    middle: Fraction
    last: Fraction

    def content(self) -> list[Fraction]:
        """What decides, for hashing."""
        return [self.first, self.middle, self.last]


USUAL_SHARES = Shares(Fraction(2, 5), Fraction(1, 5), Fraction(2, 5))


@dataclass(frozen=True, slots=True)
class Coupon:
    """A code issued to the programme, or all that begin with it, in capitals; perhaps to one member
    (a subscriber id, else zeros) or for a channel.
    """

    code: str
    prefix: bool
    member: bytes
    channel: str

    def content(self) -> list[Any]:
        """What it says, for hashing."""
        return [self.code, self.prefix, self.member.hex(), self.channel]

    def fits(self, code: str) -> bool:
        """Is this code one of it? Letters count alike, large or small."""
        code = code.upper()
        return code.startswith(self.code) if self.prefix else code == self.code
