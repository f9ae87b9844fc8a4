"""What each conversion is worth at a cut: absolute targets of points and money, with the reason.

Given folded conversions, a rulebook, the cut's `now`, what is known of members and what other
conversions hold of caps and budgets, `rate` gives one target per conversion, in the same order. It
is a pure function: the same input gives the same targets, so a run that crashed is simply run
again. The book takes differences of targets, so the sum of all differences is always the last
total (loyalty-facts 1.6).

    confirmed (approved, adjusted, locked, paid)   AVAILABLE once `now >= event_ns + return window`,
                                                   until then PENDING (HELD, with `release_ns`)
    pending, approved_hold                         PENDING
    declined, not attributed, no rule, no points   NONE, with the reason
    what a fraud code or a person holds up         PENDING or NONE, see `fraud.py`

**Points** are a sum of parts, one for each rule that counts (`stacking.py`), each rounded down once
on what its rule makes of the conversion's total, then what caps and budgets leave (`limits.py`);
where one rule counts, that is one rounding. The target's rule is the first of those that count; its
`terms_hash` covers the others that might have.

Money is in minor units of the contract's currency and only on AVAILABLE rows: what the partner
owes (the commission of the message, else the contract's: a share of the amount and what is fixed
for each conversion), what the points cost, rounded down, and the margin between the two.
`explanation` is compact JSON (`reasoning.py`).

Everything is columns; what is not known of members holds no condition, and without `used` nothing
has been used. A million rows in blocks of 65,536, by `tests/bench/accrual.py`, in microseconds of
one core a row: 5.4 for plain rules, 16 for seven that stack with line items, 19 with caps and a
budget; most of that are the explanations (of plain rules 85 %). At most 0.5 GB were held.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.model.batches import FoldBatch, MemberBatch, TargetBatch, UsageBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.evidence import Evidence
from pipeline.model.words import Status, TargetReason, TargetState
from pipeline.rulebook.model import Programme, Rulebook
from pipeline.score.attribute import ATTRIBUTED, Attribution, attribute
from pipeline.score.exact import plus, share
from pipeline.score.fraud import WAITING
from pipeline.score.judge import judge
from pipeline.score.limits import given, limited
from pipeline.score.members import Standing
from pipeline.score.reasoning import Reasoning
from pipeline.score.stacking import Slots, Why, slots_of
from pipeline.score.terms import Plays, Terms

CONFIRMED = (Status.APPROVED, Status.ADJUSTED, Status.LOCKED, Status.PAID)


class Rated(NamedTuple):
    """Targets, what rules with caps or budgets gave, and to which row of the targets."""

    targets: TargetBatch
    given: UsageBatch
    given_row: np.ndarray


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
    members: MemberBatch | None = None,
    used: UsageBatch | None = None,
    evidence: Evidence | None = None,
) -> TargetBatch:
    """One target per conversion; `fold` is the number of the cut.

    `members`: what is known of them. `used`: what conversions that are not among `folds` hold.
    Without `evidence` nothing is known that could speak against a conversion.
    """
    return rated(
        folds, rulebook, now_ns, fold=fold, members=members, used=used, evidence=evidence
    ).targets


def rated(
    folds: FoldBatch,
    rulebook: Rulebook,
    now_ns: int,
    *,
    fold: int = 0,
    members: MemberBatch | None = None,
    used: UsageBatch | None = None,
    evidence: Evidence | None = None,
) -> Rated:
    """The targets, and what has to be counted against caps and budgets for others."""
    terms, programme = Terms(rulebook.partners), rulebook.programme
    partner = terms.partner_numbers(folds.partner)
    folds = folds.with_columns(kind=terms.kinds(partner, folds.kind))
    contract = terms.contract_numbers(partner, folds.event_ns)
    plays = terms.plays(partner, folds.kind, folds.event_ns)
    found = attribute(folds, terms, contract)
    judged = judge(folds, found, evidence, rulebook, terms, partner, contract)
    found = judged.found
    standing = Standing(members, found.subscriber_id, folds.event_ns, programme.timezone)
    slots = slots_of(folds, terms, contract, plays, standing, programme.points_scale)
    rule = _rules(slots, terms, plays)
    totals = _totals(slots, slots.points)
    reason = _reasons(folds, found, rule == terms.no_accrual, totals)
    release_ns = plus(folds.event_ns, terms.hold_ns[contract] + judged.longer_ns)
    reason[(reason == TargetReason.AWARDED) & (now_ns < release_ns)] = TargetReason.HELD
    reason = judged.applied(reason, totals)
    due = judged.comes_due(reason)
    kept = limited(
        slots,
        terms.accrual_list,
        folds,
        found.subscriber_id,
        _states(reason) != TargetState.NONE,
        used,
        programme.timezone,
    )
    points = _totals(slots, kept.points)
    reason[(_states(reason) != TargetState.NONE) & (points == 0)] = TargetReason.NO_POINTS
    reasoning = Reasoning(folds, rulebook, terms, contract, plays, found, standing, slots, kept)
    state = _states(reason)
    receivable, cost = _money(folds, terms, contract, programme, points, state)
    targets = TargetBatch(
        conversion_key=folds.conversion_key,
        fold=np.full(len(folds), fold, np.int64),
        facts=folds.facts,
        facts_hash=folds.facts_hash,
        subscriber_id=found.subscriber_id,
        partner=folds.partner,
        conversion_id=folds.conversion_id,
        state=state,
        reason=reason,
        points=points,
        receivable_minor=receivable,
        cost_minor=cost,
        margin_minor=receivable - cost,
        currency=terms.currency.take(contract),
        click_id=found.click_id,
        visit_id=found.visit_id,
        event_ns=folds.event_ns,
        release_ns=np.where(due, _due(folds, state, release_ns), 0),
        rule_id=terms.rule_id.take(rule),
        rule_version=terms.rule_version[rule],
        contract_version=terms.contract_version.take(contract),
        rulebook_hash=np.repeat(ids([rulebook.hash]), len(folds)),
        terms_hash=terms.hashes(programme, contract, plays, rulebook.policy),
        explanation=reasoning.column(rule, reason, release_ns, now_ns, judged.told),
    )
    return Rated(targets, *given(slots, kept, terms.accrual_list, folds, found.subscriber_id))


def _rules(slots: Slots, terms: Terms, plays: Plays) -> np.ndarray:
    """The number of each conversion's rule: the first that counts, else the first asked (int64)."""
    multiplies = np.array([a.multiplies for a in terms.accrual_list] or [False])
    first = [
        next((number for number in rules if not multiplies[number]), terms.no_accrual)
        for rules in plays.sets
    ]
    rule: np.ndarray = np.array([*first, terms.no_accrual], np.int64)[plays.number]
    counts = np.flatnonzero((slots.why == Why.COUNTS) & ~multiplies[slots.rule])[::-1]
    rule[slots.row[counts]] = slots.rule[counts]
    return rule


def _totals(slots: Slots, points: np.ndarray) -> np.ndarray:
    """The sum of each conversion's slots (int64), stopping at the end of int64."""
    total = np.zeros(len(slots.start) - 1, np.int64)
    count = np.diff(slots.start)
    for place in range(int(count.max(initial=0))):
        rows = np.flatnonzero(count > place)
        total[rows] = plus(total[rows], points[slots.start[rows] + place])
    return total


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


def _due(folds: FoldBatch, state: np.ndarray, release_ns: np.ndarray) -> np.ndarray:
    due = np.isin(folds.status, CONFIRMED) & (state != TargetState.NONE)
    return np.asarray(np.where(due, release_ns, 0))


def _money(
    folds: FoldBatch,
    terms: Terms,
    contract: np.ndarray,
    programme: Programme,
    points: np.ndarray,
    state: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """What the partner owes and what the points cost, where they are available (int64)."""
    receivable, cost = np.zeros(len(folds), np.int64), np.zeros(len(folds), np.int64)
    paid = state == TargetState.AVAILABLE
    for which in np.unique(contract[paid]).tolist():
        rows = np.flatnonzero(paid & (contract == which))
        agreed, scale = terms.contract_list[which], terms.scale_of(which)
        price = programme.issue_price * 10**scale / 10**programme.points_scale
        cost[rows] = share(points[rows], price)
        fixed = np.int64(agreed.commission_fixed * 10**scale)
        owed = plus(share(folds.amount_minor[rows], agreed.commission), fixed)
        stated = folds.commission_minor[rows]
        receivable[rows] = np.where(stated != 0, stated, owed)
    return receivable, cost
