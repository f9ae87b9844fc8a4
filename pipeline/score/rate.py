"""What each conversion is worth at a cut: absolute targets of points and money, with the reason.

Given folded conversions, a rulebook and the cut's `now`, `rate` gives one target per conversion,
in the same order. It is a pure function: the same folds, rules and `now` give the same targets,
so a run that crashed is simply run again. Targets are totals, rounded down once; the book takes
differences of them, so the sum of all differences is always the last rounded total (loyalty-facts
1.6).

    confirmed (approved, adjusted, locked, paid)   AVAILABLE once `now >= event_ns + return window`,
                                                   until then PENDING (HELD, with `release_ns`)
    pending, approved_hold                         PENDING
    declined, not attributed, no rule, no points   NONE, with the reason
    what a fraud code or a person holds up         PENDING or NONE, see `fraud.py`

Money is in minor units of the contract's currency and only on AVAILABLE rows: what the partner
owes (the commission of the message, else the contract's: a share of the amount and what is fixed
for each conversion), what the points cost, rounded down, and the margin between the two.
`explanation` is compact JSON: every condition as [name, value, holds], the arithmetic, and the
rules that were not used with why.

Amounts are columns; where `amount * rate` could leave int64 the row is done in Python's integers.
About 30 microseconds a row, nearly all of them for the explanation.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from pipeline.model.batches import FoldBatch, TargetBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.evidence import Evidence
from pipeline.model.money import INT64_MAX
from pipeline.model.words import Status, TargetReason, TargetState
from pipeline.rulebook.model import Accrual, Rulebook
from pipeline.score.attribute import ATTRIBUTED, Attribution, attribute
from pipeline.score.fraud import WAITING
from pipeline.score.judge import judge
from pipeline.score.reasoning import Reasoning
from pipeline.score.terms import Terms

CONFIRMED = (Status.APPROVED, Status.ADJUSTED, Status.LOCKED, Status.PAID)
PERCENT = "percent"


class Worth(NamedTuple):
    """Columns of int64: the points of each conversion if it counted, and the money that goes
    along.
    """

    points: np.ndarray
    receivable_minor: np.ndarray
    cost_minor: np.ndarray


def kinds_of(folds: FoldBatch, rulebook: Rulebook) -> TextColumn:
    """What was done, for each fold; where no message says it, what is usual at the partner."""
    terms = Terms(rulebook.partners)
    return terms.kinds(terms.partner_numbers(folds.partner), folds.kind)


def rate(
    folds: FoldBatch,
    rulebook: Rulebook,
    now_ns: int,
    *,
    fold: int = 0,
    evidence: Evidence | None = None,
) -> TargetBatch:
    """One target per conversion; `fold` is the number of the cut.

    Without `evidence` nothing is known that could speak against a conversion.
    """
    terms = Terms(rulebook.partners)
    partner = terms.partner_numbers(folds.partner)
    folds = folds.with_columns(kind=terms.kinds(partner, folds.kind))
    contract = terms.contract_numbers(partner, folds.event_ns)
    accrual = terms.accrual_numbers(partner, folds.kind, folds.event_ns)
    found = attribute(folds, terms, contract)
    judged = judge(folds, found, evidence, rulebook, terms, partner, contract)
    found = judged.found
    worth = _worth(folds, rulebook, terms, contract, accrual)
    confirmed = np.isin(folds.status, CONFIRMED)
    release_ns = _plus(folds.event_ns, terms.hold_ns[contract] + judged.longer_ns)
    reason = _reasons(folds, found, accrual == terms.no_accrual, worth.points)
    reason[(reason == TargetReason.AWARDED) & (now_ns < release_ns)] = TargetReason.HELD
    reason = judged.applied(reason, worth.points)
    due = confirmed & judged.comes_due(reason)
    state = _states(reason)
    paid = state == TargetState.AVAILABLE
    receivable = np.where(paid, worth.receivable_minor, 0)
    cost = np.where(paid, worth.cost_minor, 0)
    reasoning = Reasoning(folds, rulebook, terms, contract, accrual, found)
    return TargetBatch(
        conversion_key=folds.conversion_key,
        fold=np.full(len(folds), fold, np.int64),
        facts=folds.facts,
        facts_hash=folds.facts_hash,
        subscriber_id=found.subscriber_id,
        partner=folds.partner,
        conversion_id=folds.conversion_id,
        state=state,
        reason=reason,
        points=np.where(state == TargetState.NONE, 0, worth.points),
        receivable_minor=receivable,
        cost_minor=cost,
        margin_minor=receivable - cost,
        currency=terms.currency.take(contract),
        click_id=found.click_id,
        visit_id=found.visit_id,
        event_ns=folds.event_ns,
        release_ns=np.where(due & (state != TargetState.NONE), release_ns, 0),
        rule_id=terms.rule_id.take(accrual),
        rule_version=terms.rule_version[accrual],
        contract_version=terms.contract_version.take(contract),
        rulebook_hash=ids([rulebook.hash] * len(folds)),
        terms_hash=terms.hashes(rulebook.programme, rulebook.policy)[contract],
        explanation=reasoning.column(worth.points, reason, release_ns, now_ns, judged.told),
    )


def _reasons(
    folds: FoldBatch, found: Attribution, ruleless: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """The first reason that holds (uint8); AWARDED where nothing but time is in the way."""
    ladder = [
        (ruleless, TargetReason.NO_RULE),
        (folds.status == Status.DECLINED, TargetReason.DECLINED),
        (points <= 0, TargetReason.NO_POINTS),
        (~np.isin(folds.status, CONFIRMED), TargetReason.PENDING),
    ]
    reason = np.full(len(folds), TargetReason.AWARDED, np.uint8)
    for holds, why in reversed(ladder):
        reason[holds] = why
    lost = found.reason != ATTRIBUTED
    reason[lost] = found.reason[lost]
    return reason


def _states(reason: np.ndarray) -> np.ndarray:
    state = np.full(len(reason), TargetState.NONE, np.uint8)
    waiting = (TargetReason.PENDING, TargetReason.HELD, *WAITING)
    state[np.isin(reason, waiting)] = TargetState.PENDING
    state[reason == TargetReason.AWARDED] = TargetState.AVAILABLE
    return state


def _worth(
    folds: FoldBatch, rulebook: Rulebook, terms: Terms, contract: np.ndarray, accrual: np.ndarray
) -> Worth:
    """Points and money of every row as if it were confirmed and attributed."""
    points = np.zeros(len(folds), np.int64)
    receivable, cost = points.copy(), points.copy()
    programme = rulebook.programme
    both = (contract != terms.no_contract) & (accrual != terms.no_accrual)
    pairs = np.unique(np.stack([contract[both], accrual[both]], axis=1), axis=0)
    for which, rule in pairs.tolist():
        rows = np.flatnonzero((contract == which) & (accrual == rule))
        scale = terms.scale_of(which)
        amount = folds.amount_minor[rows]
        points[rows] = _points(terms.accrual_list[rule], amount, scale, programme.points_scale)
        price = programme.issue_price * 10**scale / 10**programme.points_scale
        cost[rows] = _share(points[rows], price)
        agreed = terms.contract_list[which]
        fixed = np.int64(agreed.commission_fixed * 10**scale)
        rated = _plus(_share(amount, agreed.commission), fixed)
        stated = folds.commission_minor[rows]
        receivable[rows] = np.where(stated != 0, stated, rated)
    return Worth(points, receivable, cost)


def _points(accrual: Accrual, amount: np.ndarray, scale: int, points_scale: int) -> np.ndarray:
    """Points in smallest units; an amount below zero is worth none."""
    if accrual.kind != PERCENT:
        return np.full(len(amount), accrual.points, np.int64)
    per_minor = accrual.rate / accrual.per_point * 10**points_scale / 10**scale
    return _share(np.maximum(amount, 0), per_minor)


def _share(amount: np.ndarray, share: Fraction) -> np.ndarray:
    """`amount * share`, rounded towards minus infinity; what does not fit int64 stops at its
    ends.
    """
    over, under = share.numerator, share.denominator
    largest = max((abs(int(amount.min())), abs(int(amount.max()))) if len(amount) else (0,))
    if max(largest, 1) * abs(over) <= INT64_MAX and under <= INT64_MAX:
        return (amount * np.int64(over)) // np.int64(under)
    exact = (value * over // under for value in amount.tolist())
    return np.array([min(max(v, -INT64_MAX), INT64_MAX) for v in exact], np.int64)


def _plus(values: np.ndarray, more: np.ndarray | np.int64) -> np.ndarray:
    """`values + more` (0 or above), stopping at the end of int64."""
    return np.where(values > INT64_MAX - more, INT64_MAX, values + more)
