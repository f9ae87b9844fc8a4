"""Targets, one conversion at a time, with decimals on paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from pipeline.model.batches import FoldBatch
from pipeline.model.money import CURRENCY_SCALE
from pipeline.model.words import Basis, Status, TargetReason, TargetState
from pipeline.rulebook.model import Contract, Rulebook
from tests.naive.rules import asked, limits, member_at, parts

NOTHING = bytes(16)


def rate(
    folds: FoldBatch,
    rulebook: Rulebook,
    now_ns: int,
    members: Sequence[dict[str, Any]] = (),
    used: Sequence[tuple[str, bytes, int, int]] = (),
) -> list[dict[str, Any]]:
    """State, reason, parts, points, money, member, rule and release time of each conversion.

    `members`: dicts of a `MemberBatch`'s columns. `used`: rule id, member, purchase time, points.
    """
    found = [_one(folds, row, rulebook, now_ns, members) for row in range(len(folds))]
    limits(found, rulebook, used)
    for row, answer in enumerate(found):
        if answer["state"] != TargetState.NONE:
            _settle(folds, row, answer, rulebook, now_ns)
    return found


def _one(
    folds: FoldBatch,
    row: int,
    rulebook: Rulebook,
    now_ns: int,
    members: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    event = int(folds.event_ns[row])
    partner = rulebook.partner(folds.partner.text(row))
    contract = partner.contract_at(event) if partner else None
    answer: dict[str, Any] = {
        "state": TargetState.NONE,
        "points": 0,
        "parts": {},
        "receivable": 0,
        "cost": 0,
        "margin": 0,
        "subscriber": NOTHING,
        "release": 0,
        "event": event,
        "key": bytes(folds.conversion_key[row]),
        "rules": [],
    }
    if partner is None or contract is None:
        return answer | {"reason": TargetReason.NO_RULE}
    lost, member = _member(folds, row, contract)
    if lost:
        return answer | {"reason": lost}
    answer["subscriber"] = member
    rewarded = {accrual.action for accrual in partner.accruals}
    usual = next(iter(rewarded)) if len(rewarded) == 1 and rewarded != {"any"} else "sale"
    rules = asked(partner, folds.kind.text(row) or usual, event)
    if all(rule.kind == "multiplier" for rule in rules):
        return answer | {"reason": TargetReason.NO_RULE}
    if folds.status[row] == Status.DECLINED:
        return answer | {"reason": TargetReason.DECLINED}
    known = member_at(members, member, event, rulebook.programme.timezone)
    small = 10**rulebook.programme.points_scale
    answer["parts"] = parts(folds, row, rules, known, CURRENCY_SCALE[contract.currency], small)
    answer["rules"] = rules
    if not answer["parts"]:
        return answer | {"reason": TargetReason.NO_POINTS}
    answer |= {"state": TargetState.PENDING, "contract": contract}
    return answer | {"reason": TargetReason.PENDING}


def _settle(
    folds: FoldBatch, row: int, answer: dict[str, Any], rulebook: Rulebook, now_ns: int
) -> None:
    """State, reason and money once it is known what caps and budgets left."""
    contract, points = answer["contract"], sum(answer["parts"].values())
    if not points:
        answer |= {"state": TargetState.NONE, "reason": TargetReason.NO_POINTS}
        return
    answer["points"] = points
    if folds.status[row] in (Status.PENDING, Status.APPROVED_HOLD):
        return
    answer["release"] = answer["event"] + contract.return_window_ns
    if now_ns < answer["release"]:
        answer["reason"] = TargetReason.HELD
        return
    unit = 10 ** CURRENCY_SCALE[contract.currency]
    small = 10**rulebook.programme.points_scale
    money = Fraction(int(folds.amount_minor[row]), unit)
    stated = int(folds.commission_minor[row])
    agreed = money * contract.commission + contract.commission_fixed
    receivable = stated or math.floor(agreed * unit)
    cost = math.floor(Fraction(points, small) * rulebook.programme.issue_price * unit)
    answer |= {"receivable": receivable, "cost": cost, "margin": receivable - cost}
    answer |= {"state": TargetState.AVAILABLE, "reason": TargetReason.AWARDED}


def _member(folds: FoldBatch, row: int, contract: Contract) -> tuple[TargetReason | None, bytes]:
    event = int(folds.event_ns[row])
    if bytes(folds.click_id[row]) != NOTHING:
        if not folds.click_found[row]:
            return TargetReason.ORPHAN, NOTHING
        if folds.click_partner[row] != folds.partner[row]:
            return TargetReason.WRONG_PARTNER, NOTHING
        if not 0 <= event - int(folds.clicked_ns[row]) <= contract.attribution_window_ns:
            return TargetReason.OUTSIDE_WINDOW, NOTHING
        if folds.visit_ambiguous[row]:
            return TargetReason.AMBIGUOUS, NOTHING
        return None, bytes(folds.click_subscriber[row])
    if contract.click_delivery != "match":
        return TargetReason.ORPHAN, NOTHING
    member, visit = bytes(folds.match_subscriber[row]), bytes(folds.match_visit[row])
    if NOTHING in (member, visit):
        return TargetReason.ORPHAN, NOTHING
    if not 0 <= event - int(folds.match_visit_ns[row]) <= contract.attribution_window_ns:
        return TargetReason.OUTSIDE_WINDOW, NOTHING
    if folds.match_basis[row] != Basis.CONSENTED:
        return TargetReason.NOT_A_MEMBER, NOTHING
    if folds.match_ambiguous[row]:
        return TargetReason.AMBIGUOUS, NOTHING
    if folds.match_marked[row]:
        return TargetReason.STOOD_DOWN, NOTHING
    return None, member
