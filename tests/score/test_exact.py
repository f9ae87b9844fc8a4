"""Shares and weighed sums against fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.money import INT64_MAX
from pipeline.score.exact import plus, share, weighed

small, any_size = st.integers(-(10**6), 10**6), st.integers(-INT64_MAX, INT64_MAX)
parts = st.fractions(0, 100, max_denominator=10**6) | st.fractions(0, 2**40)


def ended(value: int) -> int:
    return min(max(value, -INT64_MAX), INT64_MAX)


@given(st.lists(small | any_size, max_size=6), parts)
def test_a_share_is_exact_and_rounded_down(values: list[int], part: Fraction) -> None:
    found = share(np.array(values, np.int64), part)
    assert found.tolist() == [ended(math.floor(v * part)) for v in values]


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, INT64_MAX)), max_size=6), parts, parts
)
def test_a_weighed_sum_is_rounded_once(rows, one: Fraction, other: Fraction) -> None:
    slices = [np.array([row[n] for row in rows], np.int64) for n in range(2)]
    found = weighed(slices, [one, other])
    assert found.tolist() == [ended(math.floor(a * one + b * other)) for a, b in rows]


def test_sums_stop_at_the_end() -> None:
    values = np.array([0, 5, INT64_MAX - 1, INT64_MAX], np.int64)
    assert plus(values, np.int64(2)).tolist() == [2, 7, INT64_MAX, INT64_MAX]
