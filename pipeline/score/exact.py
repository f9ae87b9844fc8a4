"""Whole numbers in columns: shares and sums of int64 that are exact, or stop at its ends.

Where a product could leave int64 the row is done in Python's integers.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import lcm

import numpy as np

from pipeline.model.money import INT64_MAX


def share(amount: np.ndarray, part: Fraction) -> np.ndarray:
    """`amount * part`, rounded towards minus infinity; what does not fit int64 stops at its
    ends.
    """
    over, under = part.numerator, part.denominator
    largest = max((abs(int(amount.min())), abs(int(amount.max()))) if len(amount) else (0,))
    if max(largest, 1) * abs(over) <= INT64_MAX and under <= INT64_MAX:
        return np.asarray((amount * np.int64(over)) // np.int64(under))
    return ending(value * over // under for value in amount.tolist())


def weighed(slices: list[np.ndarray], weights: list[Fraction]) -> np.ndarray:
    """The sum of `slices` (0 or above), each times its weight, rounded down once."""
    under = lcm(*(weight.denominator for weight in weights))
    over = [int(weight * under) for weight in weights]
    largest = sum(
        (int(part.max(initial=0)) * number for part, number in zip(slices, over, strict=True)), 0
    )
    if max(largest, under, *over) <= INT64_MAX:
        total = sum(part * np.int64(number) for part, number in zip(slices, over, strict=True))
        return np.asarray(total // np.int64(under))
    rows = zip(*(part.tolist() for part in slices), strict=True)
    return ending(sum(v * n for v, n in zip(row, over, strict=True)) // under for row in rows)


def plus(values: np.ndarray, more: np.ndarray | np.int64) -> np.ndarray:
    """`values + more` (0 or above), stopping at the end of int64."""
    return np.where(values > INT64_MAX - more, INT64_MAX, values + more)


def ending(values: Iterable[int]) -> np.ndarray:
    """Python's integers as int64; what does not fit stops at its ends."""
    return np.array([min(max(v, -INT64_MAX), INT64_MAX) for v in values], np.int64)
