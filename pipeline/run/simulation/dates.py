"""When points lapse, computed the slow way: by walking the calendar in local dates.

The twin of `pipeline.ledger.terms`, of which it imports nothing. A date is the first instant after
a local day; a day that the calendar does not have (31 April) is the last one that it has.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from pipeline.model.stage import END_OF_TIME

SECOND_NS = 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_YEAR = 2261  # the last one that ends within int64 nanoseconds


@lru_cache(maxsize=65536)
def lapse_ns(policy: str, earned_ns: int, timezone: str) -> int:
    """When points earned then lapse; the end of time where that is up to the member's activity."""
    word, _, rest = policy.partition("(")
    said = rest.rstrip(")")
    if word in ("never", "inactivity"):
        return END_OF_TIME
    if word == "fixed_date":
        return end_of_day(date.fromisoformat(said), timezone)
    earned = local_day(earned_ns, timezone)
    if word == "calendar_year_plus":
        year = earned.year + int(said)
        return end_of_day(date(year, 12, 31), timezone) if year <= LAST_YEAR else END_OF_TIME
    assert word == "rolling_months", policy
    return months_later_ns(earned_ns, int(said), timezone)


@lru_cache(maxsize=65536)
def months_later_ns(from_ns: int, months: int, timezone: str) -> int:
    """The end of the local day so many months later."""
    day = local_day(from_ns, timezone)
    year, month = day.year, day.month
    for _ in range(months):
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    if year > LAST_YEAR:
        return END_OF_TIME
    number = day.day
    while not _exists(year, month, number):
        number -= 1
    return end_of_day(date(year, month, number), timezone)


def days_later_ns(from_ns: int, days: int, timezone: str) -> int:
    """The end of the local day so many days later."""
    return end_of_day(local_day(from_ns, timezone) + timedelta(days=days), timezone)


def months_of_inactivity(policy: str) -> int:
    """After how many idle months points lapse; 0 where idleness does not count."""
    return int(policy[len("inactivity(") : -1]) if policy.startswith("inactivity(") else 0


def month_of(time_ns: int, timezone: str) -> str:
    """The accounting period of a time, `YYYY-MM`."""
    return local_day(time_ns, timezone).isoformat()[:7]


def local_day(time_ns: int, timezone: str) -> date:
    """The date that the clock on the wall shows."""
    moment = EPOCH + timedelta(seconds=time_ns // SECOND_NS)
    return moment.astimezone(ZoneInfo(timezone)).date()


def end_of_day(day: date, timezone: str) -> int:
    """The midnight after a local day."""
    after = day + timedelta(days=1)
    midnight = datetime(after.year, after.month, after.day, tzinfo=ZoneInfo(timezone))
    since = midnight.astimezone(UTC) - EPOCH
    return (since.days * 86400 + since.seconds) * SECOND_NS


def _exists(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
