"""The naive calendar: dates that people would say by heart, and the book's own on any other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger import terms
from pipeline.model.stage import END_OF_TIME
from pipeline.run.simulation import dates
from tests.ledger.stories import ns

ZONES = ("UTC", "Europe/Berlin", "Asia/Shanghai", "America/New_York", "Pacific/Apia")
POLICIES = (
    "never", "inactivity(3)", "calendar_year_plus(0)", "calendar_year_plus(2)",
    "rolling_months(1)", "rolling_months(36)", "fixed_date(2028-02-29)",
)  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "earned", "zone", "expected"),
    [
        ("calendar_year_plus(2)", "2024-03-05", "UTC", "2027-01-01"),
        ("calendar_year_plus(0)", "2026-12-31T23:30", "UTC", "2027-01-01"),
        ("calendar_year_plus(0)", "2026-12-31T23:30", "Europe/Berlin", "2027-12-31T23:00"),
        ("rolling_months(1)", "2027-01-31", "UTC", "2027-03-01"),
        ("rolling_months(1)", "2028-01-31", "UTC", "2028-03-01"),
        ("rolling_months(12)", "2028-02-29", "UTC", "2029-03-01"),
        ("rolling_months(1)", "2027-02-27T23:30", "Europe/Berlin", "2027-03-28T22:00"),
        ("rolling_months(1)", "2026-09-25", "Europe/Berlin", "2026-10-25T23:00"),
        ("fixed_date(2027-06-30)", "2026-01-01", "UTC", "2027-07-01"),
    ],
)
def test_dates_that_people_would_say(policy: str, earned: str, zone: str, expected: str) -> None:
    assert dates.lapse_ns(policy, ns(earned), zone) == ns(expected)


def test_some_have_no_date() -> None:
    assert dates.lapse_ns("never", ns("2026-01-01"), "UTC") == END_OF_TIME
    assert dates.lapse_ns("inactivity(1)", ns("2026-01-01"), "UTC") == END_OF_TIME
    assert dates.months_of_inactivity("inactivity(12)") == 12
    assert dates.months_of_inactivity("rolling_months(12)") == 0
    assert dates.days_later_ns(ns("2027-02-01"), 30, "UTC") == ns("2027-03-04")


@given(st.sampled_from(POLICIES), st.integers(0, 4 * 10**18), st.sampled_from(ZONES))
def test_the_book_computes_the_same(policy: str, earned_ns: int, zone: str) -> None:
    assert dates.lapse_ns(policy, earned_ns, zone) == terms.expires_ns(policy, earned_ns, zone)
    assert dates.month_of(earned_ns, zone) == terms.period_of(earned_ns, zone)


@given(st.integers(0, 4 * 10**18), st.integers(0, 40), st.sampled_from(ZONES))
def test_so_do_months_and_days(from_ns: int, count: int, zone: str) -> None:
    ours = dates.days_later_ns(from_ns, count, zone)
    assert ours == terms.grace_ns(from_ns, count, zone)
    idle = terms.inactive_ns(f"inactivity({count + 1})", from_ns, zone)
    assert dates.months_later_ns(from_ns, count + 1, zone) == idle
