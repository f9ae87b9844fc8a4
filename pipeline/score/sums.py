"""The arithmetic of one rule as people would write it, with places for what differs by row."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pipeline.rulebook.model import Accrual
from pipeline.score.shown import shown_fraction, shown_shares
from pipeline.score.templates import Place, escaped


def sum_of(rule: Accrual, slot: int, currency: str, steps_reached: int, partly: bool) -> Place:
    """The sum of a rule in a slot.

    `partly`: it counts another amount than was sent; `steps_reached`: of its ladder.
    """
    name = f"{escaped(rule.id)}: "
    points, exact = f"points.{slot}", f"exact.{slot}"
    end = f", at most {rule.max_points}" if rule.max_points else ""
    if rule.kind == "fixed":
        return Place(f"{name}fixed %s{end}", points)
    if rule.multiplies:
        form = f"{name}%s x {rule.factor - 1} = %s -> %s{end}"
        return Place(form, "base", exact, points)
    amount = [f"amount.{slot}", "sent"] if partly else [f"amount.{slot}"]
    name += f"%s of %s {currency}" if partly else f"%s {currency}"
    if rule.kind == "percent":
        form = f"{name} x {rule.rate} / {rule.per_point} = %s -> %s{end}"
        return Place(form, *amount, exact, points)
    if rule.ladder == "slices":
        return Place(f"{name} in slices -> %s{end}", *amount, points)
    if not steps_reached:
        return Place(f"{name}, below {shown_fraction(rule.steps[0].start)} -> %s", *amount, points)
    step = rule.steps[steps_reached - 1]
    name += f", from {shown_fraction(step.start)} on"
    if step.points:
        return Place(f"{name} -> %s{end}", *amount, points)
    form = f"{name} x {step.rate} / {rule.per_point} = %s -> %s{end}"
    return Place(form, *amount, exact, points)


def exact_of(
    rule: Accrual, amount: np.ndarray, base: np.ndarray, scale: int, points_scale: int, reached: int
) -> list[str]:
    """What the sum comes to before it is rounded down: points, cut off after four decimals."""
    if rule.multiplies:
        return shown_shares(base, (rule.factor - 1) / 10**points_scale)
    rate = rule.rate if rule.kind == "percent" else rule.steps[reached - 1].rate
    return shown_shares(np.maximum(amount, 0), Fraction(rate / rule.per_point) / 10**scale)
