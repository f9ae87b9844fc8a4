"""Does anything speak against a conversion? Codes, their score, and what follows.

Given folds, whose they are, what else is known of them and the rulebook, `screen` gives for each
conversion the codes that hold, the sum of their weights and the outcome. Pure: thresholds and
weights come from the policy, figures from `FraudFeatures`, nothing is remembered.

Where the score reaches the policy's limit, the hardest outcome among the codes that hold counts:

    hold      waits `hold` longer than the return window, then counts
    review    waits until a person decides
    block     is refused; a person may release it
    decline   is refused

What a person decided goes before all of it: `release` means that the codes lead to nothing, also
those that hold only later, and `decline` refuses. Nothing is silent: the codes, the score and the
decision stand in the explanation of the row, whatever they led to.

Codes (loyalty-facts 10):

    SELF_REF    the member is among the partner's insiders
    NO_SESSION  the shop saw no traffic of the member from the click (or `after` later) to the order
    FAST        the order came under `under` after the click
    FLOOD       over `over` clicks of the member within the hour
    MULTI_ACC   over `over` members bought from this address within a day
    DUP_ORDER   the same order was claimed before, by another member or by way of another partner
    RETURNER    over `over` of at least `orders` orders before were declined
    COUPON      a code that was not issued to the programme, where the contract does not take it
    DORMANT     the member had not been seen for over `over`
    GEO_IP      the order's address was not the member's, and there was no traffic either
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from pipeline.model.batches import FoldBatch
from pipeline.model.evidence import Evidence, FraudFeatures
from pipeline.model.money import show_amount
from pipeline.model.times import show_time
from pipeline.model.words import FraudOutcome, TargetReason, Verdict
from pipeline.rulebook.model import Contract, Partner
from pipeline.rulebook.policies import FraudPolicy
from pipeline.score.attribute import ATTRIBUTED, Attribution

HOUR_NS = 3_600 * 10**9
OF_CONTRACT = {"review": FraudOutcome.REVIEW, "decline": FraudOutcome.DECLINE}
OPEN = (TargetReason.AWARDED, TargetReason.HELD, TargetReason.PENDING)
WAITING = (TargetReason.FRAUD_HOLD, TargetReason.FRAUD_REVIEW)
QUEUED = (*WAITING, TargetReason.FRAUD_BLOCKED)

Bounds = Mapping[str, Any]


class Screening(NamedTuple):
    """Columns, one row per conversion; `told` is what the explanation says of it."""

    score: np.ndarray  # int64
    outcome: np.ndarray  # uint8, FraudOutcome; NONE where a person released it
    verdict: np.ndarray  # uint8, Verdict
    longer_ns: np.ndarray  # int64: how much longer it waits
    told: list[dict[str, Any]]

    def applied(self, reason: np.ndarray) -> np.ndarray:
        """The reasons (uint8) with what the outcomes make of those that would wait or count."""
        found = reason.copy()
        open_ = np.isin(reason, OPEN)
        held = (reason == TargetReason.HELD) & (self.outcome == FraudOutcome.HOLD)
        ladder = [
            (held, TargetReason.FRAUD_HOLD),
            (open_ & (self.outcome == FraudOutcome.REVIEW), TargetReason.FRAUD_REVIEW),
            (open_ & (self.outcome == FraudOutcome.BLOCK), TargetReason.FRAUD_BLOCKED),
            (open_ & (self.outcome == FraudOutcome.DECLINE), TargetReason.FRAUD_DECLINED),
        ]
        for holds, why in ladder:
            found[holds] = why
        return found


class Case(NamedTuple):
    """What the codes are asked about; the lists are by row."""

    folds: FoldBatch
    found: Attribution
    features: FraudFeatures
    insiders: np.ndarray  # bool: is the member one of the partner's?
    foreign_coupon: np.ndarray  # bool: a code that the contract does not take
    contracts: Sequence[Contract | None]


def screen(
    folds: FoldBatch,
    found: Attribution,
    evidence: Evidence,
    policy: FraudPolicy,
    partners: Sequence[Partner | None],
    contracts: Sequence[Contract | None],
) -> Screening:
    """Codes, score and outcome of each conversion; partner and contract by row."""
    rows = len(folds)
    asked = found.reason == ATTRIBUTED
    score, outcome = np.zeros(rows, np.int64), np.zeros(rows, np.uint8)
    held: list[list[list[Any]]] = [[] for _ in range(rows)]
    case = Case(
        folds,
        found,
        evidence.features,
        _insiders(found, partners),
        _foreign_coupons(evidence.features, contracts),
        contracts,
    )
    for code in policy.codes:
        if not code.weight:
            continue
        holds, says = CODES[code.code](case, code.bounds)
        for row in np.flatnonzero(holds & asked).tolist():
            weighs = code.outcome or _by_contract(contracts[row])
            score[row] += code.weight
            outcome[row] = max(int(outcome[row]), int(weighs))
            held[row].append([code.code, says(row), code.weight])
    outcome[score < policy.limit] = FraudOutcome.NONE
    told = [_told(codes, score[n], policy, outcome[n]) for n, codes in enumerate(held)]
    verdict = evidence.reviews.verdict.copy()
    for row in np.flatnonzero(verdict).tolist():
        told[row]["review"] = _decided(evidence, row)
    outcome[verdict == Verdict.RELEASE] = FraudOutcome.NONE
    outcome[verdict == Verdict.DECLINE] = FraudOutcome.DECLINE
    longer_ns = np.where(outcome == FraudOutcome.HOLD, policy.hold_ns, 0).astype(np.int64)
    return Screening(score, outcome, verdict, longer_ns, told)


def _told(codes: list[list[Any]], score: int, policy: FraudPolicy, outcome: int) -> dict[str, Any]:
    if not codes:
        return {}
    word = FraudOutcome(int(outcome)).name.lower()
    return {"fraud": {"codes": codes, "score": int(score), "limit": policy.limit, "outcome": word}}


def _decided(evidence: Evidence, row: int) -> dict[str, str]:
    reviews = evidence.reviews
    return {
        "verdict": Verdict(int(reviews.verdict[row])).name.lower(),
        "actor": reviews.actor.text(row),
        "reason": reviews.reason.text(row),
        "at": show_time(int(reviews.decided_ns[row])),
    }


def _by_contract(contract: Contract | None) -> FraudOutcome:
    """What a code leads to whose outcome the contract tells."""
    word = contract.other_coupons if contract else ""
    return OF_CONTRACT.get(word, FraudOutcome.NONE)


def _insiders(found: Attribution, partners: Sequence[Partner | None]) -> np.ndarray:
    listed = {p.id: frozenset(p.insiders) for p in partners if p is not None and p.insiders}
    if not listed:
        return np.zeros(len(partners), np.bool_)
    return np.array(
        [
            p is not None and found.subscriber_id[row].tobytes() in listed.get(p.id, ())
            for row, p in enumerate(partners)
        ],
        np.bool_,
    )


def _foreign_coupons(features: FraudFeatures, contracts: Sequence[Contract | None]) -> np.ndarray:
    """Was a code used that was not issued to the programme, where the contract minds? (bool)"""
    found = np.zeros(len(contracts), np.bool_)
    for row in np.flatnonzero(np.diff(features.coupon.offsets)).tolist():
        contract, code = contracts[row], features.coupon.text(row)
        if contract is not None and contract.other_coupons in OF_CONTRACT:
            found[row] = not any(coupon.fits(code) for coupon in contract.coupons)
    return found


# The codes. Each gives where it holds (bool) and what to say of a row.

Says = Callable[[int], str]
Held = tuple[np.ndarray, Says]


def _self_ref(case: Case, _: Bounds) -> Held:
    return case.insiders, lambda _: "the member is staff, payer or agent of the partner"


def _no_session(case: Case, bounds: Bounds) -> Held:
    seen_ns, clicked_ns = case.features.traffic_ns, case.folds.clicked_ns
    silent = (seen_ns == 0) | (seen_ns - clicked_ns < bounds["after_ns"])
    said = "no traffic of the member to the shop was seen after the click"
    return case.found.by_click & silent, lambda _: said


def _fast(case: Case, bounds: Bounds) -> Held:
    delay = case.folds.event_ns - case.folds.clicked_ns
    under = bounds["under_ns"]

    def says(row: int) -> str:
        return f"ordered {_seconds(delay[row])} after the click, under {_seconds(under)}"

    return case.found.by_click & (delay < under), says


def _flood(case: Case, bounds: Bounds) -> Held:
    clicks, over = case.features.clicks_hour, bounds["over"]
    return clicks > over, lambda row: f"{clicks[row]} clicks within an hour, over {over}"


def _multi_acc(case: Case, bounds: Bounds) -> Held:
    members, over = case.features.members_at_address, bounds["over"]

    def says(row: int) -> str:
        return f"{members[row]} members bought from this address within a day, over {over}"

    return members > over, says


def _dup_order(case: Case, _: Bounds) -> Held:
    claims = case.features.claimed_before
    return claims > 0, lambda row: f"the order was claimed before, {claims[row]} times"


def _returner(case: Case, bounds: Bounds) -> Held:
    orders = case.features.orders_before.astype(np.int64)
    declined = case.features.reversed_before.astype(np.int64)
    share = Fraction(bounds["over"])
    often = declined * share.denominator > orders * share.numerator

    def says(row: int) -> str:
        return f"{declined[row]} of {orders[row]} orders before were declined, over {share}"

    return often & (orders >= bounds["orders"]), says


def _coupon(case: Case, _: Bounds) -> Held:
    return case.foreign_coupon, lambda _: "the coupon was not issued to the programme"


def _dormant(case: Case, bounds: Bounds) -> Held:
    idle, over = case.features.idle_ns, bounds["over_ns"]

    def says(row: int) -> str:
        return f"the member had not been seen for {int(idle[row]) // (24 * HOUR_NS)} days"

    return idle > over, says


def _geo_ip(case: Case, _: Bounds) -> Held:
    since_ns = np.where(case.found.by_click, case.folds.clicked_ns, case.folds.event_ns - HOUR_NS)
    said = "the address was not the member's, and no traffic to the shop was seen"
    silent = case.features.traffic_ns < since_ns
    return (case.features.address_foreign > 0) & silent, lambda _: said


CODES: Mapping[str, Callable[[Case, Bounds], Held]] = {
    "SELF_REF": _self_ref,
    "NO_SESSION": _no_session,
    "FAST": _fast,
    "FLOOD": _flood,
    "MULTI_ACC": _multi_acc,
    "DUP_ORDER": _dup_order,
    "RETURNER": _returner,
    "COUPON": _coupon,
    "DORMANT": _dormant,
    "GEO_IP": _geo_ip,
}


def _seconds(span_ns: int) -> str:
    return f"{show_amount(int(span_ns) // 10**6, 3)} s"
