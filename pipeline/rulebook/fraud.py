"""The `[fraud]` table of a policy: what each code weighs, when it holds and what it leads to; and
what partners and policies say of coupons, insiders and shares.

A policy without the table asks for no fraud score. With it, every code has the values below unless
the file says otherwise; `weight = 0` switches one off. A code that holds adds its weight to the
conversion's score; where the score reaches `limit`, the hardest outcome among the codes that hold
counts. So a code that weighs less than the limit only counts together with others.

The table is part of the terms that a conversion is rated by the first time: a stricter one is for
later conversions and takes nothing back.
"""

from __future__ import annotations

from fractions import Fraction

from pipeline.model.identifiers import NO_ID, parse_id
from pipeline.model.words import FraudOutcome
from pipeline.rulebook.fields import Fields
from pipeline.rulebook.policies import (
    HOLD_NS,
    LIMIT,
    NO_FRAUD,
    USUAL_SHARES,
    Coupon,
    FraudCode,
    FraudPolicy,
    Shares,
)

OUTCOMES = tuple(outcome.name.lower() for outcome in FraudOutcome if outcome)
WAITS = ("hold", "review")  # of spending: a person decides, whichever it is
WEIGHT_MAX = 10_000
COUNT_MAX = 10**6
SUBSCRIBER = "a subscriber id, such as d4258106-eb53-24e7-5e97-d1ac18eee34f"
SECOND_NS, DAY_NS = 10**9, 86_400 * 10**9


# loyalty-facts 10. SLOW is no code here: an order beyond the contract's window is outside_window.
DEFAULTS = (
    FraudCode("SELF_REF", 100, FraudOutcome.BLOCK),
    FraudCode("NO_SESSION", 100, FraudOutcome.REVIEW, {"after_ns": 0}),
    FraudCode("FAST", 100, FraudOutcome.REVIEW, {"under_ns": 5 * SECOND_NS}),
    FraudCode("FLOOD", 100, FraudOutcome.HOLD, {"over": 30}),
    FraudCode("MULTI_ACC", 100, FraudOutcome.HOLD, {"over": 2}),
    FraudCode("DUP_ORDER", 100, FraudOutcome.REVIEW),
    FraudCode("RETURNER", 100, FraudOutcome.HOLD, {"over": Fraction(3, 10), "orders": 5}),
    FraudCode("COUPON", 100, FraudOutcome.NONE),
    FraudCode("DORMANT", 50, FraudOutcome.REVIEW, {"over_ns": 365 * DAY_NS}),
    FraudCode("GEO_IP", 100, FraudOutcome.REVIEW),
)
# What speaks against spending: it waits for a person. Points are in smallest units.
SPENDING = (
    FraudCode("VELOCITY", 100, FraudOutcome.HOLD, {"hour": 5, "day": 10}),
    FraudCode("DORMANT_BURN", 100, FraudOutcome.REVIEW, {"over_ns": 365 * DAY_NS, "points": 5000}),
)
# What is reported of credits by hand: hours and days of work, local; days from Monday on.
INSIDER = FraudCode(
    "INSIDER", 100, FraudOutcome.NONE,
    {"credits": 3, "within_ns": 30 * DAY_NS, "begins": 7, "ends": 20, "days": 5},
)  # fmt: skip
USUAL_OTHERS = FraudPolicy(spending=SPENDING, insider=INSIDER).of_others()
MOST = {"begins": 24, "ends": 24, "days": 7, "points": 10**15}


def read_fraud(table: Fields | None) -> FraudPolicy:
    """`[fraud]` of a policy; a policy that has none scores nothing."""
    if table is None:
        return NO_FRAUD
    limit = table.integer("limit", 1, WEIGHT_MAX) if table.has("limit") else LIMIT
    hold_ns = table.duration("hold") if table.has("hold") else HOLD_NS
    codes = tuple(_code(table.table(usual.code), usual) for usual in DEFAULTS)
    spending = tuple(_code(table.table(usual.code), usual, WAITS) for usual in SPENDING)
    insider = _code(table.table(INSIDER.code), INSIDER)
    table.done()
    return FraudPolicy(limit, hold_ns, codes, spending, insider)


def _code(
    table: Fields | None, usual: FraudCode, outcomes: tuple[str, ...] = OUTCOMES
) -> FraudCode:
    """One code as the file has it; what the file leaves out is as usual."""
    if table is None:
        return usual
    weight, outcome = usual.weight, usual.outcome
    if table.has("weight"):
        weight = table.integer("weight", 0, WEIGHT_MAX)
    if usual.outcome and table.has("outcome"):
        outcome = FraudOutcome[table.choice("outcome", outcomes).upper()]
    bounds = {name: _bound(table, name, value) for name, value in usual.bounds.items()}
    table.done()
    return FraudCode(usual.code, weight, outcome, bounds)


def _bound(table: Fields, name: str, usual: int | Fraction) -> int | Fraction:
    """A threshold: a duration, a share or a count, as the usual one is."""
    key = name.removesuffix("_ns")
    if not table.has(key):
        return usual
    if key != name:
        return table.duration(key)
    if isinstance(usual, Fraction):
        return table.share(key)
    return table.integer(key, 0, MOST.get(key, COUNT_MAX))


def read_shares(table: Fields | None) -> Shares:
    """`[position]` of a policy: what each place among the clicks is credited with."""
    if table is None:
        return USUAL_SHARES
    found = Shares(table.share("first"), table.share("middle"), table.share("last"))
    before = len(table.sheet.problems)
    table.done()
    if len(table.sheet.problems) == before and sum(found.content()) != 1:
        table.report("last", "shares of first, middle and last that come to 100%")
    return found


def read_coupons(contract: Fields) -> tuple[Coupon, ...]:
    """`[[contract.coupon]]`: codes that were issued to the programme."""
    return tuple(_coupon(table) for table in contract.tables("coupon"))


def _coupon(table: Fields) -> Coupon:
    prefix = table.has("prefix")
    if prefix and table.has("code"):
        table.report("prefix", "a code or a prefix, not both")
    code = table.text("prefix" if prefix else "code")
    member = NO_ID
    if table.has("member"):
        member = _subscriber(table.text("member")) or NO_ID
        if member == NO_ID:
            table.report("member", SUBSCRIBER)
    channel = table.text("channel", default="")
    table.done()
    return Coupon(code.upper(), prefix, member, channel)


def read_insiders(partner: Fields) -> tuple[bytes, ...]:
    """`insiders` of a partner: subscriber ids of its staff, payers and agents."""

    def clean(text: str) -> str:
        found = _subscriber(text)
        if found is None:
            raise ValueError(SUBSCRIBER)
        return found.hex()

    return tuple(bytes.fromhex(name) for name in partner.texts("insiders", clean))


def _subscriber(text: str) -> bytes | None:
    found = parse_id(text)
    return found if found != NO_ID else None
