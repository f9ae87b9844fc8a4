"""Which rules count for each conversion, and how many points each of them gives.

The order of things is that of `rulebook/worth.py`: own points, exclusive, best of a group, base,
multipliers; here for all conversions of one contract and set of rules at a time. Every rule that a
conversion asks has a *slot*, in the order of asking; its points are rounded down once, and `why`
says what became of it. Points of slots that count add up to what the conversion is worth before
caps and budgets (`limits.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from pipeline.model.batches import FoldBatch
from pipeline.rulebook.model import Accrual
from pipeline.score.exact import share, weighed
from pipeline.score.items import Counted
from pipeline.score.members import Standing
from pipeline.score.terms import Plays, Terms


class Why(IntEnum):
    """What became of a slot."""

    COUNTS = 0
    CONDITION = 1
    SILENCED = 2
    BEATEN = 3
    WORTHLESS = 4


class Check(NamedTuple):
    """A condition of a rule: its slot within the set, its name, what it looks at, who meets it."""

    slot: int
    name: str
    asks: str
    holds: np.ndarray


class Group(NamedTuple):
    """Conversions (row numbers) of one contract and one set of rules, and conditions asked."""

    rows: np.ndarray
    contract: int
    rules: tuple[int, ...]
    checks: list[Check]


class Slots(NamedTuple):
    """One entry per conversion and rule asked: row i has `start[i]` up to `start[i + 1]`."""

    start: np.ndarray  # int64
    rule: np.ndarray  # int64: number of the accrual
    amount: np.ndarray  # int64: what it counts of the amount, in minor units
    points: np.ndarray  # int64: 0 unless it counts
    why: np.ndarray  # uint8
    groups: list[Group]

    @property
    def row(self) -> np.ndarray:
        """The conversion of each slot (int64)."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))


def slots_of(
    folds: FoldBatch,
    terms: Terms,
    contract: np.ndarray,
    plays: Plays,
    standing: Standing,
    points_scale: int,
) -> Slots:
    """The slots of all conversions; without a contract there is no rule to ask."""
    lengths = np.array([*map(len, plays.sets), 0], np.int64)
    count = np.where(contract == terms.no_contract, 0, lengths[plays.number])
    start = np.zeros(len(folds) + 1, np.int64)
    np.cumsum(count, out=start[1:])
    rule = np.zeros(start[-1], np.int64)
    points, amount, why = rule.copy(), rule.copy(), np.zeros(start[-1], np.uint8)
    counted = Counted(folds)
    groups = []
    for rows, which, numbers in _groups(count, contract, plays):
        rules = [terms.accrual_list[number] for number in numbers]
        asked = _Asked(folds, rows, rules, counted, standing, terms.scale_of(which))
        worth, became = asked.worth(points_scale)
        at = start[rows][:, None] + np.arange(len(rules))
        rule[at], points[at], why[at] = np.array(numbers), worth.T, became.T
        amount[at] = np.stack(asked.amounts, axis=1)
        groups.append(Group(rows, which, numbers, asked.checks))
    return Slots(start, rule, amount, points, why, groups)


def _groups(
    count: np.ndarray, contract: np.ndarray, plays: Plays
) -> Iterator[tuple[np.ndarray, int, tuple[int, ...]]]:
    """Rows, contract and rules of each group."""
    rows = np.flatnonzero(count)
    code = contract[rows] * (len(plays.sets) + 1) + plays.number[rows]
    order = np.argsort(code, kind="stable")
    cuts = np.flatnonzero(np.diff(code[order])) + 1
    for part in np.split(rows[order], cuts):
        if len(part):
            yield part, int(contract[part[0]]), plays.sets[plays.number[part[0]]]


class _Asked:
    """The rules of one group, asked one after the other."""

    def __init__(
        self,
        folds: FoldBatch,
        rows: np.ndarray,
        rules: list[Accrual],
        counted: Counted,
        standing: Standing,
        scale: int,
    ) -> None:
        self.rows, self.rules, self.scale = rows, rules, scale
        self.amounts = [counted.minor(rule, scale)[rows] for rule in rules]
        self._standing = standing
        self.checks = [check for slot in range(len(rules)) for check in self._checks(slot)]

    def _checks(self, slot: int) -> Iterator[Check]:
        when, amount = self.rules[slot].when, self.amounts[slot]
        months = self._standing.tenure_months[self.rows]
        unit = 10**self.scale
        if least := when.tenure_months_min:
            yield Check(slot, f"member for {least} months", "tenure", months >= least)
        if below := when.tenure_months_below:
            met = (months >= 0) & (months < below)
            yield Check(slot, f"member for less than {below} months", "tenure", met)
        if when.levels:
            met = self._standing.in_levels(when.levels)[self.rows]
            yield Check(slot, f"level {' or '.join(when.levels)}", "level", met)
        if when.products:
            met = self._standing.has_products(when.products)[self.rows]
            yield Check(slot, f"product {' or '.join(when.products)}", "products", met)
        if when.amount_min:
            met = amount >= np.int64(-(-when.amount_min * unit // 1))
            yield Check(slot, f"from {written(when.amount_min)} on", "amount", met)
        if when.amount_below:
            met = amount < np.int64(-(-when.amount_below * unit // 1))
            yield Check(slot, f"below {written(when.amount_below)}", "amount", met)

    def worth(self, points_scale: int) -> tuple[np.ndarray, np.ndarray]:
        """Points and what became of it, by rule and row."""
        shape = (len(self.rules), len(self.rows))
        points, why = np.zeros(shape, np.int64), np.zeros(shape, np.uint8)
        for check in self.checks:
            why[check.slot][~check.holds] = Why.CONDITION
        silenced = np.zeros(len(self.rows), np.bool_)
        for slot, rule in enumerate(self.rules):
            why[slot][silenced & (why[slot] == Why.COUNTS)] = Why.SILENCED
            if not rule.multiplies:
                found = own_points(rule, self.amounts[slot], self.scale, points_scale)
                points[slot] = np.where(why[slot] == Why.COUNTS, np.maximum(found, 0), 0)
            if rule.stacking == "exclusive":
                silenced |= points[slot] > 0
        self._best(points, why)
        base = np.zeros(len(self.rows), np.int64)
        for slot, rule in enumerate(self.rules):
            base = np.where(base == 0, 0 if rule.multiplies else points[slot], base)
        for slot, rule in enumerate(self.rules):
            if rule.multiplies:
                found = at_most(rule, share(base, rule.factor - 1))
                points[slot] = np.where(why[slot] == Why.COUNTS, found, 0)
        why[(why == Why.COUNTS) & (points == 0)] = Why.WORTHLESS
        return points, why

    def _best(self, points: np.ndarray, why: np.ndarray) -> None:
        """Of each group of rules only the largest stays, of equals the first."""
        grouped: dict[str, list[int]] = {}
        for slot, rule in enumerate(self.rules):
            if rule.stacking == "best_of":
                grouped.setdefault(rule.group, []).append(slot)
        for slots in grouped.values():
            best = np.array(slots)[np.argmax(points[slots], axis=0)]
            for slot in slots:
                beaten = (best != slot) & (points[slot] > 0)
                why[slot][beaten], points[slot][beaten] = Why.BEATEN, 0


def own_points(rule: Accrual, amount: np.ndarray, scale: int, points_scale: int) -> np.ndarray:
    """Points of one rule in smallest units; an amount below zero is worth none."""
    if rule.kind == "fixed":
        return at_most(rule, np.full(len(amount), rule.points, np.int64))
    amount, unit = np.maximum(amount, 0), 10**scale
    if rule.kind == "percent":
        return at_most(rule, share(amount, per_minor(rule, rule.rate, scale, points_scale)))
    starts = np.array([-(-step.start * unit // 1) for step in rule.steps], np.int64)
    rates = [per_minor(rule, step.rate, scale, points_scale) for step in rule.steps]
    if rule.ladder == "slices":
        ends = [*starts[1:].tolist(), None]
        parts = [
            np.maximum((amount if end is None else np.minimum(amount, end)) - start, 0)
            for start, end in zip(starts.tolist(), ends, strict=True)
        ]
        return at_most(rule, weighed(parts, rates))
    found = np.zeros(len(amount), np.int64)
    reached = np.searchsorted(starts, amount, side="right") - 1
    for number, step in enumerate(rule.steps):
        rows = np.flatnonzero(reached == number)
        found[rows] = step.points or share(amount[rows], rates[number])
    return at_most(rule, found)


def per_minor(rule: Accrual, rate: Fraction, scale: int, points_scale: int) -> Fraction:
    """Points in smallest units that a minor unit of money is worth at a rate."""
    return rate / rule.per_point * 10**points_scale / 10**scale if rule.per_point else Fraction(0)


def at_most(rule: Accrual, points: np.ndarray) -> np.ndarray:
    """Points, at most what the rule gives for one conversion."""
    return np.minimum(points, rule.max_points) if rule.max_points else points


def written(value: Fraction) -> str:
    """An amount of a rule as it would be written."""
    whole, rest = divmod(value.numerator * 10**6 // value.denominator, 10**6)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")
