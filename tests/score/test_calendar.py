"""Local days against the standard library."""

from __future__ import annotations

from datetime import date

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import FIRST_NS, LAST_NS, parse_time
from pipeline.score.calendar import DAY_NS, local_days, months_of
from tests.naive.rules import local

ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]
EPOCH = date(1970, 1, 1)


@given(st.lists(st.integers(FIRST_NS, LAST_NS), max_size=9), st.sampled_from(ZONES))
def test_equals_the_standard_library(moments: list[int], zone: str) -> None:
    days = local_days(np.array(moments, np.int64), zone)
    expected = [local(at, zone).date() for at in moments]
    assert days.tolist() == [(day - EPOCH).days for day in expected]
    months = [12 * (day.year - 1970) + day.month - 1 for day in expected]
    assert months_of(days).tolist() == months


def test_a_clock_that_is_put_forward_begins_no_day_twice() -> None:
    texts = ("2026-03-28T22:59:59Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")
    moments = np.array([parse_time(text) for text in texts], np.int64)
    first = local_days(moments, "Europe/Berlin")
    assert np.diff(first).tolist() == [1, 1]


def test_the_ends_of_time_have_a_day() -> None:
    ends = np.array([0, END_OF_TIME], np.int64)
    assert local_days(ends, "Asia/Kolkata").tolist() == [0, END_OF_TIME // DAY_NS + 1]
