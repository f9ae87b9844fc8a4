"""Validity and periods: the worked dates, time zones, and nothing lapses before it was earned."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.terms import expires_ns, period_of, terms_of
from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import FIRST_NS, LAST_NS
from tests.ledger.stories import DAY_NS, ns, rulebook

ZONES = ("UTC", "Europe/Berlin", "Asia/Shanghai", "America/New_York")


@pytest.mark.parametrize(
    ("policy", "earned", "zone", "expires"),
    [
        ("calendar_year_plus(2)", "2024-03-05", "UTC", "2027-01-01"),
        ("calendar_year_plus(2)", "2025-02-01", "UTC", "2028-01-01"),
        ("calendar_year_plus(0)", "2025-12-31T23:59:59", "UTC", "2026-01-01"),
        # Half an hour before midnight in Greenwich it is next year in Berlin.
        ("calendar_year_plus(0)", "2025-12-31T23:30", "Europe/Berlin", "2026-12-31T23:00"),
        ("calendar_year_plus(0)", "2025-12-31T23:30", "UTC", "2026-01-01"),
        ("rolling_months(36)", "2024-03-05T10:00", "UTC", "2027-03-06"),
        ("rolling_months(1)", "2024-01-31", "UTC", "2024-03-01"),
        ("rolling_months(1)", "2023-01-31", "UTC", "2023-03-01"),
        ("rolling_months(12)", "2024-02-29", "UTC", "2025-03-01"),
        ("rolling_months(0)", "2024-02-29", "UTC", "2024-03-01"),
        # Summer time: midnight in Berlin is 22:00 in Greenwich.
        ("rolling_months(6)", "2026-01-10", "Europe/Berlin", "2026-07-10T22:00"),
    ],
)
def test_points_last_until_the_end_of_a_local_day(
    policy: str, earned: str, zone: str, expires: str
) -> None:
    assert expires_ns(policy, ns(earned), zone) == ns(expires)


def test_never_is_the_end_of_time() -> None:
    assert expires_ns("never", ns("2026-01-01"), "UTC") == END_OF_TIME
    assert expires_ns("calendar_year_plus(9999)", ns("2026-01-01"), "UTC") == END_OF_TIME
    assert expires_ns("rolling_months(9999)", ns("2026-01-01"), "UTC") == END_OF_TIME


@pytest.mark.parametrize("policy", ["", "calendar_year_plus", "rolling_months(-1)", "never(1)"])
def test_unknown_policies_are_refused(policy: str) -> None:
    with pytest.raises(ValueError, match="expiry"):
        expires_ns(policy, 0, "UTC")
    with pytest.raises(ValueError, match="expiry"):
        terms_of(rulebook(expiry=policy).programme)


times = st.integers(FIRST_NS, LAST_NS)


@given(times, st.integers(0, 60), st.sampled_from(ZONES))
def test_nothing_lapses_before_it_was_earned(earned: int, count: int, zone: str) -> None:
    for policy in (f"calendar_year_plus({count})", f"rolling_months({count})"):
        expires = expires_ns(policy, earned, zone)
        assert (
            earned
            < expires
            <= expires_ns(policy.replace(f"({count}", f"({count + 1}"), earned, zone)
        )


@given(times, st.integers(0, 40 * DAY_NS), st.sampled_from(ZONES))
def test_what_is_earned_later_never_lapses_earlier(earned: int, later: int, zone: str) -> None:
    for policy in ("calendar_year_plus(2)", "rolling_months(36)", "never"):
        assert expires_ns(policy, earned, zone) <= expires_ns(policy, earned + later, zone)


def test_the_period_is_the_local_month() -> None:
    assert period_of(ns("2026-01-31T23:30"), "Europe/Berlin") == "2026-02"
    assert period_of(ns("2026-01-31T23:30"), "UTC") == "2026-01"
    assert period_of(ns("2026-01-31T23:30"), "America/New_York") == "2026-01"


def test_terms_are_exact() -> None:
    terms = terms_of(rulebook(issue_price=Fraction(1, 3)).programme)
    assert (terms.issue_price, terms.settlement_price) == ("1/3", "1/200")
    assert (terms.programme, terms.commodity, terms.funder) == ("club", "PTS", "operator")
