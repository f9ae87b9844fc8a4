"""The terms points are issued under: prices, funder, validity; lots and pending items carry them.

A lot keeps the terms it was born with: a later change of the programme shortens nothing that was
already issued. Validity is counted in the programme's time zone, in whole local days:

    calendar_year_plus(k)    until the end of 31 December of the year earned + k
    rolling_months(m)        until the end of the same day m months later (or that month's last day)
    inactivity(m)            the same, counted from the member's last activity
    fixed_date(YYYY-MM-DD)   until the end of that day
    never

`expires_ns` is the first instant at which the points may no longer be spent. Where it depends on
the member's activity a lot has no date of its own.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from pipeline.model.stage import END_OF_TIME
from pipeline.rulebook.model import Programme

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS
QUARTER_NS = 900 * SECOND_NS
QUARTERS_SINCE_NS = 14_975 * DAY_NS  # 2011
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
POLICY = re.compile(
    r"(?:(never)|(calendar_year_plus|rolling_months|inactivity)\((\d{1,4})\)"
    r"|fixed_date\((\d{4})-(\d\d)-(\d\d)\))\Z",
    re.ASCII,
)
INACTIVITY = "inactivity("
GRACE = re.compile(r"grace\((\d{1,4})d\)\Z", re.ASCII)
REFUNDS = ("original", "fresh")
POLICIES = (
    "'never' nor 'calendar_year_plus(k)' nor 'rolling_months(m)' nor 'inactivity(m)'"
    " nor 'fixed_date(YYYY-MM-DD)'"
)


class Terms(NamedTuple):
    """What lots and pending items of one programme, source and campaign share."""

    programme: str
    commodity: str
    source: str
    campaign: str
    region: str
    funder: str
    issue_price: str
    settlement_price: str
    expiry_policy: str


def terms_of(programme: Programme, source: str = "conversion", campaign: str = "") -> Terms:
    """The terms under which a programme issues points now. Raises ValueError for a bad policy."""
    if not POLICY.match(programme.expiry):
        raise ValueError(f"expiry {programme.expiry!r} is neither {POLICIES}")
    return Terms(
        programme.id,
        programme.points,
        source,
        campaign,
        programme.region,
        programme.funder,
        str(Fraction(programme.issue_price)),
        str(Fraction(programme.settlement_price)),
        programme.expiry,
    )


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """A time zone by its name; UTC needs no database."""
    return UTC if name in ("UTC", "Etc/UTC") else ZoneInfo(name)


def period_of(booked_ns: int, timezone: str) -> str:
    """The accounting period, `YYYY-MM` in the programme's time zone."""
    local = _local(booked_ns, timezone)
    return f"{local.year:04d}-{local.month:02d}"


def next_period(period: str) -> str:
    """The period after one."""
    months = int(period[:4]) * 12 + int(period[5:])
    return f"{months // 12:04d}-{months % 12 + 1:02d}"


def period_start_ns(period: str, timezone: str) -> int:
    """The first instant of an accounting period."""
    year, month = int(period[:4]), int(period[5:])
    before = date(year, month, 1) - timedelta(days=1)
    return _midnight_after(before.year, before.month, before.day, timezone)


def expires_ns(policy: str, earned_ns: int, timezone: str) -> int:
    """When points earned at `earned_ns` lapse under a validity policy (see the module's text).

    Of an activity-based one this is the end of time; `inactive_ns` has its date.
    """
    found = POLICY.match(policy)
    if not found:
        raise ValueError(f"expiry {policy!r} is unknown")
    if found[1] or found[2] == "inactivity":
        return END_OF_TIME
    if found[4]:
        return _midnight_after(int(found[4]), int(found[5]), int(found[6]), timezone)
    local, count = _local(earned_ns, timezone), int(found[3])
    if found[2] == "calendar_year_plus":
        return _midnight_after(local.year + count, 12, 31, timezone)
    return _months_later(earned_ns, count, timezone)


def inactive_ns(policy: str, active_ns: int, timezone: str) -> int:
    """When points under `inactivity(m)` lapse, if nothing happens after `active_ns`."""
    return _months_later(active_ns, int(policy[len(INACTIVITY) : -1]), timezone)


def idle_since(policy: str, now_ns: int, timezone: str) -> int:
    """The latest activity after which points under `inactivity(m)` have lapsed by `now_ns`."""
    low, high = 0, max(now_ns, 0)  # lapsed after `low`, unless nothing ever did; not after `high`
    while low < high:
        middle = (low + high + 1) // 2
        if inactive_ns(policy, middle, timezone) <= now_ns:
            low = middle
        else:
            high = middle - 1
    return low


def grace_ns(at_ns: int, days: int, timezone: str) -> int:
    """The end of the local day so many days after a time."""
    day = _local(at_ns, timezone) + timedelta(days=days)
    return _midnight_after(day.year, day.month, day.day, timezone)


def grace_days(policy: str) -> int | None:
    """The days of a refund policy `grace(Nd)`; None for `original` and `fresh`."""
    found = GRACE.match(policy)
    if found is None and policy not in REFUNDS:
        raise ValueError(f"refund {policy!r} is neither 'grace(Nd)' nor 'original' nor 'fresh'")
    return int(found[1]) if found else None


def _months_later(time_ns: int, count: int, timezone: str) -> int:
    local = _local(time_ns, timezone)
    months = local.year * 12 + local.month - 1 + count
    year, month = months // 12, months % 12 + 1
    if year > 9999:
        return END_OF_TIME
    day = min(local.day, calendar.monthrange(year, month)[1])
    return _midnight_after(year, month, day, timezone)


def _local(time_ns: int, timezone: str) -> date:
    """The local day of a time. Since 2011 every zone changes its day at a quarter of an hour;
    before, some set their clocks back at a minute past midnight.
    """
    if time_ns > QUARTERS_SINCE_NS:
        return _day_of_quarter(time_ns // QUARTER_NS, timezone)
    return _day_of(time_ns // SECOND_NS, timezone)


@lru_cache(maxsize=65536)
def _day_of_quarter(quarter: int, timezone: str) -> date:
    return _day_of(quarter * QUARTER_NS // SECOND_NS, timezone)


def _day_of(seconds: int, timezone: str) -> date:
    return (EPOCH + timedelta(seconds=seconds)).astimezone(zone_of(timezone)).date()


@lru_cache(maxsize=4096)
def _midnight_after(year: int, month: int, day: int, timezone: str) -> int:
    """The end of a local day as UTC nanoseconds; what int64 cannot hold never comes."""
    if year > 2261:
        return END_OF_TIME
    after = date(year, month, day) + timedelta(days=1)
    midnight = datetime(after.year, after.month, after.day, tzinfo=zone_of(timezone))
    since = midnight - EPOCH
    return (since.days * 86400 + since.seconds) * SECOND_NS
