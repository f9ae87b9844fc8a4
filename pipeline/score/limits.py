"""Caps and budgets: what a conversion gets of what its rules give, after what others got.

Given the slots of conversions (`stacking.py`), their members and what other conversions hold
(`UsageBatch`), `limited` says how many points each slot keeps. The conversions of one call are
taken in the order of purchase time, then conversion key, whatever order they come in; only those
whose points are pending or available take part, and none of them may be among the others.

- A **cap** (`member`, `member_day`, `member_month`, `day`, `month`) gives what is left of it. Days
  and months are those of the purchase, in the programme's zone.
- A **budget** does so too (`truncate`), or gives a slot all or nothing of what its caps left it
  (`reject`), or all or nothing to a member (`all_or_nothing`): all that the member's conversions of
  this call ask of it, before caps, has to fit into what is left when the first of them comes.
- A multiplier multiplies what its base rule keeps.

A budget of 100 and two awards of 60: `truncate` gives 60 and 40, `reject` 60 and 0.

Counting is a kernel over flat columns, about 30 nanoseconds a slot; making the columns is a sort
per rule and kind of cap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.model.batches import FoldBatch, UsageBatch
from pipeline.model.columns import TextColumn
from pipeline.rulebook.model import BUDGET_POLICIES, Accrual, Caps
from pipeline.score.calendar import local_days, months_of
from pipeline.score.limits_kernels import ALL_OR_NOTHING, BUDGET, BY_BASE, COUNTERS, give_points
from pipeline.score.stacking import Slots

CAPS = Caps.__slots__
# What a slot may be cut by, by the number that the kernel gives.
CUT_BY = ("", *CAPS, "budget", "base rule")
PERIOD_SPAN = 1 << 31
assert (len(CAPS), CUT_BY[BY_BASE]) == (BUDGET, "base rule")


class Limited(NamedTuple):
    """Columns by slot: points that are kept (int64), and what cut them (uint8 into CUT_BY)."""

    points: np.ndarray
    cut_by: np.ndarray


def limited(
    slots: Slots,
    accruals: list[Accrual],
    folds: FoldBatch,
    subscriber_id: np.ndarray,
    takes_part: np.ndarray,
    used: UsageBatch | None,
    timezone: str,
) -> Limited:
    """What each slot keeps; slots of conversions that take no part keep nothing.

    `takes_part` (bool) and `subscriber_id` are by conversion.
    """
    row = slots.row
    points = np.where(takes_part[row], slots.points, 0)
    cut_by = np.zeros(len(points), np.uint8)
    capped = np.array([accrual.is_limited for accrual in accruals] or [False])
    touched = np.zeros(len(folds), np.bool_)
    touched[row[capped[slots.rule] & (points > 0)]] = True
    conversions = _in_order(folds, np.flatnonzero(touched))
    if len(conversions):
        counts = np.diff(slots.start)[conversions]
        chosen = np.repeat(slots.start[conversions], counts) + _upward(counts)
        table = _Table(len(chosen), slots.rule[chosen], points[chosen], row[chosen], accruals)
        table.count(folds.event_ns, subscriber_id, used or UsageBatch.empty(), timezone)
        points[chosen], cut_by[chosen] = table.give(counts)
    return Limited(points, cut_by)


def given(
    slots: Slots, kept: Limited, accruals: list[Accrual], folds: FoldBatch, who: np.ndarray
) -> tuple[UsageBatch, np.ndarray]:
    """What rules with limits gave, and the row number of the conversion of each of it."""
    capped = np.array([accrual.is_limited for accrual in accruals] or [False])
    found = np.flatnonzero(capped[slots.rule] & (kept.points > 0))
    row = slots.row[found]
    names = TextColumn.of([accrual.id for accrual in accruals]).take(slots.rule[found])
    return UsageBatch(names, who[row], folds.event_ns[row], kept.points[found]), row


def _in_order(folds: FoldBatch, rows: np.ndarray) -> np.ndarray:
    keys = np.ascontiguousarray(folds.conversion_key[rows]).view("S16").reshape(-1)
    return np.asarray(rows[np.lexsort((keys, folds.event_ns[rows]))])


def _upward(counts: np.ndarray) -> np.ndarray:
    """0, 1, 2 ... for each count."""
    ends = np.cumsum(counts)
    return np.asarray(np.arange(int(counts.sum())) - np.repeat(ends - counts, counts))


class _Table:
    """Slots as the kernel takes them."""

    def __init__(
        self,
        size: int,
        rule: np.ndarray,
        points: np.ndarray,
        row: np.ndarray,
        accruals: list[Accrual],
    ) -> None:
        self.rule, self.asked, self.row, self.accruals = rule, points, row, accruals
        self.counter = np.full((size, COUNTERS), -1, np.int64)
        self.party = np.full(size, -1, np.int64)
        self.left: list[np.ndarray] = [np.zeros(0, np.int64)]
        self.wanted: list[np.ndarray] = [np.zeros(0, np.int64)]
        self._counters = self._parties = 0

    def count(self, event_ns: np.ndarray, who: np.ndarray, used: UsageBatch, timezone: str) -> None:
        """Number the counters, and take from each what others used."""
        self._mine, self._others = _numbered(who[self.row], used.subscriber_id)
        day = local_days(event_ns[self.row], timezone), local_days(used.event_ns, timezone)
        month = months_of(day[0]), months_of(day[1])
        never = np.zeros_like(day[0]), np.zeros_like(day[1])
        self._used, self._names = used, np.array(used.rule_id.to_list(), np.str_)
        periods = {"member_day": day, "member_month": month, "day": day, "month": month}
        for number in np.unique(self.rule).tolist():
            accrual = self.accruals[number]
            slots = np.flatnonzero((self.rule == number) & (self.asked > 0))
            if not len(slots):
                continue
            for place, name in enumerate(CAPS):
                if cap := getattr(accrual.caps, name):
                    period = periods.get(name, never)
                    self._add(accrual, slots, place, cap, period, name.startswith("member"))
            if accrual.budget:
                self._add(accrual, slots, BUDGET, accrual.budget, never, of_member=False)
                if accrual.budget_policy == BUDGET_POLICIES[ALL_OR_NOTHING - 1]:
                    self._add_parties(slots)

    def _add(
        self,
        accrual: Accrual,
        slots: np.ndarray,
        place: int,
        limit: int,
        period: tuple[np.ndarray, np.ndarray],
        of_member: bool,
    ) -> None:
        """Counters of one rule and kind: one for each member and period that occurs."""
        code = period[0][slots] + PERIOD_SPAN // 2
        rows = np.flatnonzero(self._names == accrual.id)
        other = period[1][rows] + PERIOD_SPAN // 2
        if of_member:
            code = code + self._mine[slots] * PERIOD_SPAN
            other = other + self._others[rows] * PERIOD_SPAN
        codes, which = np.unique(code, return_inverse=True)
        left = np.full(len(codes), limit, np.int64)
        at = np.searchsorted(codes, other)
        hit = (at < len(codes)) & (codes[np.minimum(at, len(codes) - 1)] == other)
        np.subtract.at(left, at[hit], self._used.points[rows[hit]])
        self.left.append(np.maximum(left, 0))
        self.counter[slots, place] = which.reshape(-1) + self._counters
        self._counters += len(codes)

    def _add_parties(self, slots: np.ndarray) -> None:
        """The members of an all-or-nothing budget, and what each of them asks."""
        members, which = np.unique(self._mine[slots], return_inverse=True)
        wanted = np.zeros(len(members), np.int64)
        few = np.iinfo(np.int64).max // (len(slots) + 1)  # more than any budget
        np.add.at(wanted, which.reshape(-1), np.minimum(self.asked[slots], few))
        self.party[slots] = which.reshape(-1) + self._parties
        self._parties += len(members)
        self.wanted.append(wanted)

    def give(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the kernel: points kept and what cut them."""
        stop = np.cumsum(counts)
        parts = [accrual.factor - 1 for accrual in self.accruals]
        over, under, most, policy = (
            np.array(values, np.int64)[self.rule]
            for values in (
                [
                    part.numerator if a.multiplies else 0
                    for part, a in zip(parts, self.accruals, strict=True)
                ],
                [part.denominator for part in parts],
                [accrual.max_points for accrual in self.accruals],
                [(*BUDGET_POLICIES, "").index(a.budget_policy) + 1 for a in self.accruals],
            )
        )
        granted, cut_by = np.zeros_like(self.asked), np.zeros(len(self.asked), np.uint8)
        wanted = np.concatenate(self.wanted)
        give_points(
            stop - counts, stop, self.asked, over, under, most, self.counter,
            np.concatenate(self.left), policy, self.party, wanted,
            np.zeros(len(wanted), np.uint8), granted, cut_by,
        )  # fmt: skip
        return granted, cut_by


def _numbered(some: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dense numbers of members, the same for the same id (int64)."""
    both = np.concatenate([some, others]).view("S16").reshape(-1)
    _, number = np.unique(both, return_inverse=True)
    number = number.reshape(-1).astype(np.int64)
    return number[: len(some)], number[len(some) :]
