"""Columns as text against the same value by value."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.columns import ids
from pipeline.model.identifiers import id_text
from pipeline.model.money import INT64_MAX, show_amount
from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import show_time
from pipeline.score.shown import shown_amounts, shown_fraction, shown_ids, shown_shares, shown_times

amounts = st.lists(st.integers(-(10**12), 10**12), max_size=6)


@given(st.lists(st.binary(min_size=16, max_size=16) | st.just(bytes(16)), max_size=6))
def test_ids(values: list[bytes]) -> None:
    assert shown_ids(ids(values)) == [id_text(value) for value in values]


@given(st.lists(st.integers(0, END_OF_TIME) | st.integers(0, 10**10).map(lambda s: s * 10**9)))
def test_times(values: list[int]) -> None:
    values = [min(value, END_OF_TIME) for value in values]
    expected = [show_time(v) if 0 < v < END_OF_TIME else "never" for v in values]
    assert shown_times(np.array(values, np.int64)) == expected


@given(amounts, st.integers(0, 6), st.booleans())
def test_amounts(values: list[int], scale: int, positive: bool) -> None:
    values = [abs(value) for value in values] if positive else values
    assert shown_amounts(np.array(values, np.int64), scale) == [
        show_amount(value, scale) for value in values
    ]


@given(st.lists(st.integers(0, 10**9) | st.integers(0, INT64_MAX)), st.fractions(0, 99))
def test_shares(values: list[int], part: Fraction) -> None:
    expected = [shown_fraction(value * part) for value in values]
    assert shown_shares(np.array(values, np.int64), part) == expected


def test_a_fraction_is_cut_off_and_says_so() -> None:
    found = [shown_fraction(Fraction(n, 30_000)) for n in (0, 1, 30, 15_000, 29_999)]
    assert found == ["0", "0...", "0.001", "0.5", "0.9999..."]
