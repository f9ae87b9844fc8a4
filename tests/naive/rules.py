"""What rules give, one conversion and one rule at a time: stacking, items, members, limits."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.model.batches import FoldBatch
from pipeline.rulebook.model import Accrual, Partner

Known = dict[str, Any]
NOT_NET = ("tax", "shipping", "discount")
UNKNOWN: Known = {"months": -1, "level": "", "products": []}


def asked(partner: Partner, kind: str, event: int) -> list[Accrual]:
    """The rules in force, in the order in which they are asked."""
    there = [
        (rule.priority, rule.action == "any", number, rule)
        for number, rule in enumerate(partner.accruals)
        if rule.action in (kind, "any") and rule.valid_from_ns <= event < rule.valid_until_ns
    ]
    plain = [one for one in there if not one[3].stacking]
    first = min(plain, key=lambda one: (one[1], one[2]), default=None)
    chosen = [one for one in there if one[3].stacking or one is first]
    return [one[3] for one in sorted(chosen, key=lambda one: one[:3])]


def local(when_ns: int, timezone: str) -> datetime:
    """The wall clock of the zone."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=when_ns // 1000)
    return moment.astimezone(ZoneInfo(timezone))


def months_between(start: datetime, end: datetime) -> int:
    """Whole months from one day to another, -1 where it comes before."""
    if end.date() < start.date():
        return -1
    months = 12 * (end.year - start.year) + end.month - start.month
    ends_month = (end + timedelta(days=1)).day == 1
    return months if end.day >= start.day or ends_month else months - 1


def member_at(members: Sequence[dict[str, Any]], who: bytes, event: int, zone: str) -> Known:
    """What was known of a member at a time."""
    mine = [m for m in members if m["subscriber_id"] == who and m["since_ns"] <= event]
    if not mine:
        return UNKNOWN
    last = max(enumerate(mine), key=lambda one: (one[1]["since_ns"], one[0]))[1]
    joined = last["joined_ns"]
    months = months_between(local(joined, zone), local(event, zone)) if joined > 0 else -1
    return {"months": months, "level": last["level"], "products": last["products"].split()}


def counted(rule: Accrual, folds: FoldBatch, row: int, unit: int) -> int:
    """Minor units of the amount that a rule counts."""
    amount, came_with = int(folds.amount_minor[row]), int(folds.items_minor[row])
    items = json.loads(folds.items.text(row) or "[]")
    if rule.base == "sent" or came_with <= 0 or not items:
        return amount
    if not all(item.get("amount") for item in items):
        return amount
    numbers = [item.get(k, "0") for item in items for k in ("amount", *NOT_NET)]
    if any((Fraction(number) * 10**6).denominator != 1 for number in numbers):
        return amount  # finer than anybody's money
    total = Fraction(0)
    for item in items:
        category = item.get("category", "").lower()
        if (rule.only and category not in rule.only) or category in rule.exclude:
            continue
        total += Fraction(item["amount"])
        if rule.base == "net":
            total -= sum(Fraction(item.get(k, 0)) for k in NOT_NET)
    return math.floor(min(total * unit, came_with) * amount / came_with)


def holds(rule: Accrual, amount: Fraction, known: Known) -> bool:
    """Do the conditions hold?"""
    when = rule.when
    if when.tenure_months_min and known["months"] < when.tenure_months_min:
        return False
    below = when.tenure_months_below
    if below and (known["months"] < 0 or known["months"] >= below):
        return False
    if when.levels and known["level"] not in when.levels:
        return False
    if when.products and not set(when.products) & set(known["products"]):
        return False
    if when.amount_min and amount < when.amount_min:
        return False
    return not (when.amount_below and amount >= when.amount_below)


def own(rule: Accrual, amount: Fraction, small: int) -> int:
    """What a rule gives by itself."""
    amount = max(amount, Fraction(0))
    if rule.kind == "fixed":
        points = rule.points
    elif rule.kind == "percent":
        points = math.floor(amount * rule.rate / rule.per_point * small)
    elif rule.ladder == "slices":
        worth = Fraction(0)
        for number, step in enumerate(rule.steps):
            later = rule.steps[number + 1].start if number + 1 < len(rule.steps) else amount
            worth += max(min(amount, later) - step.start, Fraction(0)) * step.rate
        points = math.floor(worth / rule.per_point * small)
    else:
        reached = [step for step in rule.steps if step.start <= amount]
        if not reached:
            return 0
        step = reached[-1]
        points = step.points or math.floor(amount * step.rate / rule.per_point * small)
    return min(points, rule.max_points or points)


def multiplied(rule: Accrual, base: int) -> int:
    """What a multiplier adds."""
    points = math.floor(base * (rule.factor - 1))
    return min(points, rule.max_points or points)


def parts(
    folds: FoldBatch, row: int, rules: list[Accrual], known: Known, scale: int, small: int
) -> dict[str, int]:
    """Points by rule, before caps and budgets."""
    unit = 10**scale
    there = []
    for rule in rules:
        amount = Fraction(counted(rule, folds, row, unit), unit)
        if not holds(rule, amount, known):
            continue
        points = 0 if rule.kind == "multiplier" else own(rule, amount, small)
        there.append((rule, points))
        if rule.stacking == "exclusive" and points > 0:
            break
    left: list[tuple[Accrual, int]] = []
    for rule, points in there:
        rivals = [p for r, p in there if r.stacking == "best_of" and r.group == rule.group]
        if rule.stacking == "best_of" and (
            points < max(rivals)
            or any(r.stacking == "best_of" and r.group == rule.group and p == points
                   for r, p in left)
        ):  # fmt: skip
            continue
        left.append((rule, points))
    base = next((p for r, p in left if r.kind != "multiplier" and p > 0), 0)
    total = {r.id: multiplied(r, base) if r.kind == "multiplier" else p for r, p in left}
    return {name: points for name, points in total.items() if points > 0}


def limits(
    answers: list[dict[str, Any]],
    rulebook: Any,
    used: Sequence[tuple[str, bytes, int, int]],
) -> None:
    """Take from parts what caps and budgets do not leave, conversion after conversion."""
    zone = rulebook.programme.timezone
    spent: dict[tuple[Any, ...], int] = defaultdict(int)
    for name, who, event, points in used:
        for counter in counters(name, who, event, zone).values():
            spent[counter] += points
    waiting = sorted(
        (a for a in answers if a["parts"] and a["reason"] == 3),
        key=lambda a: (a["event"], a["key"]),
    )
    wishes: dict[tuple[str, bytes], int] = defaultdict(int)
    for answer in waiting:
        for name, points in answer["parts"].items():
            wishes[name, answer["subscriber"]] += points
    agreed: dict[tuple[str, bytes], bool] = {}
    for answer in waiting:
        by_name = {rule.id: rule for rule in answer["rules"]}
        wanted = answer["parts"]
        base = next((n for n in wanted if by_name[n].kind != "multiplier"), "")
        kept: dict[str, int] = {}
        for name in sorted(wanted, key=lambda n: by_name[n].kind == "multiplier"):
            rule, points = by_name[name], wanted[name]
            if rule.kind == "multiplier":
                points = min(points, multiplied(rule, kept[base]))
            mine = counters(name, answer["subscriber"], answer["event"], zone)
            for cap in ("member", "member_day", "member_month", "day", "month"):
                most = getattr(rule.caps, cap)
                if most:
                    points = min(points, max(most - spent[mine[cap]], 0))
            if rule.budget and points:
                points = of_budget(rule, points, answer, mine, spent, wishes, agreed)
            for cap in ("member", "member_day", "member_month", "day", "month"):
                spent[mine[cap]] += points
            kept[name] = points
        answer["parts"] = {name: kept[name] for name in wanted if kept[name]}


def of_budget(
    rule: Accrual,
    points: int,
    answer: dict[str, Any],
    mine: dict[str, tuple[Any, ...]],
    spent: dict[tuple[Any, ...], int],
    wishes: dict[tuple[str, bytes], int],
    agreed: dict[tuple[str, bytes], bool],
) -> int:
    """What a budget gives of some points."""
    left = max(rule.budget - spent[mine["budget"]], 0)
    if rule.budget_policy == "all_or_nothing":
        party = rule.id, answer["subscriber"]
        if party not in agreed:
            agreed[party] = wishes[party] <= left
            spent[mine["budget"]] += wishes[party] if agreed[party] else 0
        return points if agreed[party] else 0
    if points > left:
        points = left if rule.budget_policy == "truncate" else 0
    spent[mine["budget"]] += points
    return points


def counters(name: str, who: bytes, event: int, zone: str) -> dict[str, tuple[Any, ...]]:
    """What a part of a rule counts against."""
    day = local(event, zone).date()
    month = (day.year, day.month)
    return {
        "member": (name, who),
        "member_day": (name, who, day),
        "member_month": (name, who, month),
        "day": (name, day),
        "month": (name, month),
        "budget": (name,),
    }
