"""Times: what is taken, what is refused, and there and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.times import FIRST_NS, LAST_NS, parse_time, show_time

NOON_NS = 1_772_366_400_000_000_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-03-01T12:00:00Z", NOON_NS),
        ("2026-03-01 12:00:00+00:00", NOON_NS),
        (" 2026-03-01T12:00:00.5Z ", NOON_NS + 500_000_000),
        ("2026-03-01T12:00:00.000000001Z", NOON_NS + 1),
        ("1772366400000000000", NOON_NS),
        ("1772366400", None),  # seconds
        ("1772366400000", None),  # milliseconds
        ("1772366400000000", None),  # microseconds
        ("2026-03-01T12:00:00", None),  # whose noon?
        ("2026-03-01T12:00:00+03:00", None),
        ("2026-02-30T12:00:00Z", None),
        ("2026-03-01T24:00:00Z", None),
        ("2026-03-01T12:00:00.0000000001Z", None),
        ("1999-12-31T23:59:59Z", None),
        ("2200-01-01T00:00:00Z", None),
        ("٢٠٢٦-03-01T12:00:00Z", None),
        ("-1772366400000000000", None),
        ("9999999999999999999", None),
        ("", None),
        ("now", None),
    ],
)
def test_parse(text: str, value: int | None) -> None:
    assert parse_time(text) == value


@given(st.integers(FIRST_NS, LAST_NS - 1))
def test_there_and_back(value: int) -> None:
    shown = show_time(value)
    assert parse_time(shown) == value
    assert parse_time(str(value)) == value
    since = timedelta(microseconds=value // 1000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + since
    assert shown.startswith(moment.strftime("%Y-%m-%dT%H:%M:%S"))


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_none(text: str) -> None:
    value = parse_time(text)
    assert value is None or FIRST_NS <= value < LAST_NS
