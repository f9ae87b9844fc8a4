"""Validity and periods: the worked dates, time zones, and nothing lapses before it was earned."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.ledger import terms as ledger_terms
from pipeline.ledger.terms import (
    DAY_NS,
    QUARTERS_SINCE_NS,
    expires_ns,
    grace_days,
    grace_ns,
    idle_since,
    inactive_ns,
    next_period,
    period_of,
    period_start_ns,
    terms_of,
)
from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import FIRST_NS, LAST_NS
from tests.ledger.stories import ns, rulebook

# Summer time, none, a quarter of an hour off, half an hour of summer, midnight that is left out.
ZONES = (
    "UTC", "Europe/Berlin", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu",
    "Australia/Lord_Howe", "Pacific/Chatham", "America/Sao_Paulo", "Africa/Cairo",
)  # fmt: skip
MINUTE_NS = DAY_NS // 1440


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
        # The end of the month, when that day is none.
        ("rolling_months(6)", "2025-08-31", "UTC", "2026-03-01"),
        # Midnight of 2017-10-15 was left out in Brazil: that day began at one o'clock.
        ("rolling_months(0)", "2017-10-14T12:00", "America/Sao_Paulo", "2017-10-15T03:00"),
        ("fixed_date(2026-06-30)", "2026-01-10", "Europe/Berlin", "2026-06-30T22:00"),
        ("fixed_date(2026-06-30)", "2027-01-10", "Europe/Berlin", "2026-06-30T22:00"),
        ("fixed_date(2026-12-31)", "2026-01-10", "America/New_York", "2027-01-01T05:00"),
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
    assert expires_ns("fixed_date(9999-12-31)", ns("2026-01-01"), "UTC") == END_OF_TIME
    assert expires_ns("rolling_months(9999)", ns("2250-01-01"), "UTC") == END_OF_TIME
    assert expires_ns("inactivity(12)", ns("2026-01-01"), "UTC") == END_OF_TIME, "it has no date"
    assert inactive_ns("inactivity(9999)", ns("2026-01-01"), "UTC") == END_OF_TIME
    assert inactive_ns("inactivity(9999)", ns("2250-01-01"), "UTC") == END_OF_TIME


@pytest.mark.parametrize(
    "policy",
    ["", "calendar_year_plus", "rolling_months(-1)", "never(1)", "inactivity()", "inactivity(x)",
     "fixed_date(2026-6-30)", "fixed_date(20260630)", "never\n", "rolling_months(٢)"],
)  # fmt: skip
def test_unknown_policies_are_refused(policy: str) -> None:
    with pytest.raises(ValueError, match="expiry"):
        expires_ns(policy, 0, "UTC")
    with pytest.raises(ValueError, match="expiry"):
        terms_of(rulebook(expiry=policy).programme)


@pytest.mark.parametrize("policy", ["fixed_date(2026-02-30)", "fixed_date(2026-13-01)"])
def test_days_that_are_none_are_refused(policy: str) -> None:
    with pytest.raises(ValueError, match=r"day|month"):
        expires_ns(policy, 0, "UTC")


times = st.integers(FIRST_NS, LAST_NS)
zones = st.sampled_from(ZONES)


@given(times, st.integers(0, 60), zones)
def test_nothing_lapses_before_it_was_earned(earned: int, count: int, zone: str) -> None:
    for policy in (f"calendar_year_plus({count})", f"rolling_months({count})"):
        expires = expires_ns(policy, earned, zone)
        assert (
            earned
            < expires
            <= expires_ns(policy.replace(f"({count}", f"({count + 1}"), earned, zone)
        )


@given(times, st.integers(0, 40 * DAY_NS), zones)
def test_what_is_earned_later_never_lapses_earlier(earned: int, later: int, zone: str) -> None:
    for policy in (
        "calendar_year_plus(2)",
        "rolling_months(36)",
        "never",
        "fixed_date(2030-01-31)",
    ):
        assert expires_ns(policy, earned, zone) <= expires_ns(policy, earned + later, zone)


# Activity


@pytest.mark.parametrize(
    ("months", "active", "zone", "expires"),
    [
        (12, "2026-02-01", "UTC", "2027-02-02"),
        (12, "2026-02-01T23:30", "Europe/Berlin", "2027-02-02T23:00"),
        (18, "2026-08-31", "UTC", "2028-03-01"),
        (0, "2026-08-31", "UTC", "2026-09-01"),
    ],
)
def test_the_date_follows_the_last_activity(
    months: int, active: str, zone: str, expires: str
) -> None:
    assert inactive_ns(f"inactivity({months})", ns(active), zone) == ns(expires)


@given(times, st.integers(0, 60), zones)
def test_activity_dates_as_rolling_months_do(active: int, count: int, zone: str) -> None:
    rolling = expires_ns(f"rolling_months({count})", active, zone)
    assert inactive_ns(f"inactivity({count})", active, zone) == rolling


@given(st.integers(ns("1973-01-01"), LAST_NS), st.integers(0, 24), zones)
@example(ns("2026-03-29T01:00"), 1, "Europe/Berlin")
@example(ns("2018-02-18T03:00"), 3, "America/Sao_Paulo")
def test_who_was_idle_since_has_lapsed_by_now(now: int, count: int, zone: str) -> None:
    """The latest activity whose date is past: one nanosecond later is not past yet."""
    policy = f"inactivity({count})"
    since = idle_since(policy, now, zone)
    assert since > 0
    assert inactive_ns(policy, since, zone) <= now < inactive_ns(policy, since + 1, zone)


@pytest.mark.parametrize("now", [-DAY_NS, 0, 1, 20 * DAY_NS])
def test_nobody_was_idle_before_time_began(now: int) -> None:
    assert idle_since("inactivity(1)", now, "UTC") == 0
    assert inactive_ns("inactivity(1)", 1, "UTC") > now


# Refunds


@pytest.mark.parametrize(
    ("at", "days", "zone", "until"),
    [
        ("2027-02-01", 30, "UTC", "2027-03-04"),
        ("2027-02-01", 30, "Europe/Berlin", "2027-03-03T23:00"),
        ("2027-02-01T23:30", 30, "Europe/Berlin", "2027-03-04T23:00"),
        ("2026-03-20", 14, "Europe/Berlin", "2026-04-03T22:00"),
        ("2026-03-20", 0, "UTC", "2026-03-21"),
    ],
)
def test_grace_is_whole_local_days(at: str, days: int, zone: str, until: str) -> None:
    assert grace_ns(ns(at), days, zone) == ns(until)


def test_policies_of_refunds() -> None:
    assert [grace_days(p) for p in ("grace(30d)", "grace(0d)", "original", "fresh")] == [
        30, 0, None, None,
    ]  # fmt: skip
    for policy in ("", "grace", "grace(30)", "grace(-1d)", "Fresh", "grace(1d) "):
        with pytest.raises(ValueError, match="refund"):
            grace_days(policy)


# Periods, and the local day beneath all of this


def test_the_period_is_the_local_month() -> None:
    assert period_of(ns("2026-01-31T23:30"), "Europe/Berlin") == "2026-02"
    assert period_of(ns("2026-01-31T23:30"), "UTC") == "2026-01"
    assert period_of(ns("2026-01-31T23:30"), "America/New_York") == "2026-01"


def test_periods_follow_each_other() -> None:
    assert [next_period(p) for p in ("2026-01", "2026-11", "2026-12", "0999-12")] == [
        "2026-02", "2026-12", "2027-01", "1000-01",
    ]  # fmt: skip


def naive_day(time_ns: int, zone: str) -> date:
    """The local day as `datetime` says it, of this very second."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)).astimezone(
        ZoneInfo(zone)
    ).date()  # fmt: skip


def naive_end(day: date, zone: str) -> int:
    """The first second that is of another day, by looking at every minute."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    at_ns = int(noon.timestamp()) * 10**9
    while naive_day(at_ns, zone) == day:
        at_ns += MINUTE_NS
    return at_ns


# When some zone set its clocks near midnight: back at a minute past it, forward over it, by half an
# hour, across the date line, and back at midnight.
CHANGES = (
    ("America/St_Johns", "2010-11-07T02:31"), ("America/Moncton", "2006-10-29T03:01"),
    ("America/Sao_Paulo", "2017-10-15T03:00"), ("America/Sao_Paulo", "2018-02-18T02:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"), ("Pacific/Apia", "2011-12-30T10:00"),
    ("Europe/Berlin", "2026-03-29T01:00"), ("Europe/Berlin", "2026-10-25T01:00"),
    ("Pacific/Kiritimati", "1979-10-01T10:40"), ("America/Havana", "2026-11-01T05:00"),
    ("Africa/Cairo", "2026-10-29T21:00"), ("Asia/Beirut", "2026-10-24T21:00"),
)  # fmt: skip


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_the_day_is_right_around_every_change_of_clocks(zone: str, change: str) -> None:
    """Each minute of two hours, first backward, so that a cache is filled from either end."""
    minutes = range(ns(change) - 120 * MINUTE_NS, ns(change) + 121 * MINUTE_NS, MINUTE_NS)
    for order in (reversed(minutes), minutes):
        for at_ns in order:
            for time_ns in (at_ns, at_ns - 1):
                assert _day(time_ns, zone) == naive_day(time_ns, zone), time_ns


def _day(time_ns: int, zone: str) -> date:
    """The local day as the ledger has it."""
    return ledger_terms._local(time_ns, zone)


@given(times, st.sampled_from(sorted(available_timezones())))
def test_the_local_day_is_that_of_the_second_in_every_zone(at: int, zone: str) -> None:
    assert _day(at, zone) == naive_day(at, zone)
    assert period_of(at, zone) == f"{naive_day(at, zone):%Y-%m}"


@given(
    st.integers(QUARTERS_SINCE_NS // (900 * 10**9), ns("2038-01-01") // (900 * 10**9)),
    st.sampled_from(sorted(available_timezones())),
)
def test_a_quarter_of_an_hour_is_within_one_day(quarter: int, zone: str) -> None:
    first = quarter * 900 * 10**9
    assert len({naive_day(first + n * MINUTE_NS, zone) for n in range(15)}) == 1


@given(st.integers(ns("2012-01-01"), ns("2037-01-01")), zones)
@example(ns("2018-02-17T12:00"), "America/Sao_Paulo")
@example(ns("2017-10-14T12:00"), "America/Sao_Paulo")
def test_a_day_ends_when_another_begins(at: int, zone: str) -> None:
    assert expires_ns("rolling_months(0)", at, zone) == naive_end(naive_day(at, zone), zone)


def test_terms_are_exact() -> None:
    terms = terms_of(rulebook(issue_price=Fraction(1, 3)).programme)
    assert (terms.issue_price, terms.settlement_price) == ("1/3", "1/200")
    assert (terms.programme, terms.commodity, terms.funder) == ("club", "PTS", "operator")
    assert (terms.source, terms.campaign) == ("conversion", "")
    manual = terms_of(rulebook().programme, "manual", "spring")
    assert (manual.source, manual.campaign) == ("manual", "spring")


@pytest.mark.parametrize(
    ("period", "zone", "begins"),
    [
        ("2026-03", "UTC", "2026-03-01"),
        ("2026-03", "Europe/Berlin", "2026-02-28T23:00"),
        ("2026-01", "Europe/Berlin", "2025-12-31T23:00"),
        ("2026-07", "Europe/Berlin", "2026-06-30T22:00"),
    ],
)
def test_a_period_begins_at_local_midnight(period: str, zone: str, begins: str) -> None:
    found = period_start_ns(period, zone)
    assert found == ns(begins)
    assert (period_of(found, zone), period_of(found - 1, zone) < period) == (period, True)
