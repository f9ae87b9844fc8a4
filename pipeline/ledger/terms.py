"""The terms points are issued under: prices, funder, validity; lots and pending items carry them.

A lot keeps the terms it was born with: a later change of the programme shortens nothing that was
already issued. Validity is counted in the programme's time zone, in whole local days:

    calendar_year_plus(k)   until the end of 31 December of the year earned + k
    rolling_months(m)       until the end of the same day m months later (or that month's last day)
    never

`expires_ns` is the first instant at which the points may no longer be spent.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta, tzinfo
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from pipeline.model.stage import END_OF_TIME
from pipeline.rulebook.model import Programme

SECOND_NS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
POLICY = re.compile(r"(?:(never)|(calendar_year_plus|rolling_months)\((\d{1,4})\))\Z", re.ASCII)


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
        raise ValueError(
            f"expiry {programme.expiry!r} is neither 'never' nor 'calendar_year_plus(k)' "
            "nor 'rolling_months(m)'"
        )
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


def expires_ns(policy: str, earned_ns: int, timezone: str) -> int:
    """When points earned at `earned_ns` lapse under a validity policy (see the module's text)."""
    found = POLICY.match(policy)
    if not found:
        raise ValueError(f"expiry {policy!r} is unknown")
    if found[1]:
        return END_OF_TIME
    local, count = _local(earned_ns, timezone), int(found[3])
    if found[2] == "calendar_year_plus":
        return _midnight_after(local.year + count, 12, 31, timezone)
    months = local.year * 12 + local.month - 1 + count
    year, month = months // 12, months % 12 + 1
    if year > 9999:
        return END_OF_TIME
    day = min(local.day, calendar.monthrange(year, month)[1])
    return _midnight_after(year, month, day, timezone)


def _local(time_ns: int, timezone: str) -> datetime:
    return (EPOCH + timedelta(seconds=time_ns // SECOND_NS)).astimezone(zone_of(timezone))


@lru_cache(maxsize=4096)
def _midnight_after(year: int, month: int, day: int, timezone: str) -> int:
    """The end of a local day as UTC nanoseconds; what int64 cannot hold never comes."""
    if year > 2261:
        return END_OF_TIME
    date = datetime(year, month, day) + timedelta(days=1)
    since = date.replace(tzinfo=zone_of(timezone)) - EPOCH
    return (since.days * 86400 + since.seconds) * SECOND_NS
