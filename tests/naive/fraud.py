"""Codes, score and outcome of one conversion, in plain Python."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from pipeline.model.words import FraudOutcome, Verdict
from pipeline.rulebook.model import Contract, Partner
from pipeline.rulebook.policies import FraudPolicy

HOUR_NS = 3_600 * 10**9
Row = dict[str, Any]


def codes_of(
    fold: Row, known: Row, policy: FraudPolicy, partner: Partner, contract: Contract
) -> list[str]:
    """The codes that hold; `fold` tells member, by_click, clicked_ns and event_ns."""
    bounds = {code.code: code.bounds for code in policy.codes}
    found = []
    delay = fold["event_ns"] - fold["clicked_ns"]
    since = fold["clicked_ns"] if fold["by_click"] else fold["event_ns"] - HOUR_NS
    fits = [c for c in contract.coupons if _fits(c, known["coupon"])]
    if fold["member"] in partner.insiders:
        found.append("SELF_REF")
    if fold["by_click"]:
        after = known["traffic_ns"] - fold["clicked_ns"]
        if not known["traffic_ns"] or after < bounds["NO_SESSION"]["after_ns"]:
            found.append("NO_SESSION")
        if delay < bounds["FAST"]["under_ns"]:
            found.append("FAST")
    if known["clicks_hour"] > bounds["FLOOD"]["over"]:
        found.append("FLOOD")
    if known["members_at_address"] > bounds["MULTI_ACC"]["over"]:
        found.append("MULTI_ACC")
    if known["claimed_before"]:
        found.append("DUP_ORDER")
    orders, declined = known["orders_before"], known["reversed_before"]
    enough = orders and orders >= bounds["RETURNER"]["orders"]
    if enough and Fraction(declined, orders) > bounds["RETURNER"]["over"]:
        found.append("RETURNER")
    if known["coupon"] and contract.other_coupons != "pay" and not fits:
        found.append("COUPON")
    if known["idle_ns"] > bounds["DORMANT"]["over_ns"]:
        found.append("DORMANT")
    if known["address_foreign"] and known["traffic_ns"] < since:
        found.append("GEO_IP")
    on = {code.code for code in policy.codes if code.weight}
    return [code for code in found if code in on]


def _fits(coupon: Any, code: str) -> bool:
    if coupon.prefix:
        return code.upper()[: len(coupon.code)] == coupon.code
    return code.upper() == coupon.code


def outcome_of(
    codes: list[str], verdict: int, policy: FraudPolicy, contract: Contract
) -> tuple[int, FraudOutcome]:
    """Score and outcome."""
    of = {code.code: code for code in policy.codes}
    score = sum(of[code].weight for code in codes)
    worst = FraudOutcome.NONE
    for code in codes:
        outcome = of[code].outcome
        if code == "COUPON":
            outcome = FraudOutcome[contract.other_coupons.upper()]
        worst = max(worst, outcome)
    if score < policy.limit:
        worst = FraudOutcome.NONE
    if verdict == Verdict.RELEASE:
        worst = FraudOutcome.NONE
    if verdict == Verdict.DECLINE:
        worst = FraudOutcome.DECLINE
    return score, worst
