"""Columns of times as local days and months: caps and tenure are counted in the programme's zone.

A zone's offset from UTC changes at most at a full quarter of an hour, so it is asked once for each
quarter that occurs. The time zone database is the only thing here that knows dates.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from pipeline.model.times import EPOCH

QUARTER_NS = 900 * 10**9
DAY_NS = 86_400 * 10**9
LAST_QUARTER = (datetime(9999, 12, 30, tzinfo=UTC) - EPOCH) // timedelta(minutes=15)
DAYS, MONTHS = "datetime64[D]", "datetime64[M]"


def local_days(when_ns: np.ndarray, timezone: str) -> np.ndarray:
    """Days since 1970-01-01 in the zone (int64)."""
    if timezone == "UTC":  # known even where no database of time zones is installed
        return np.asarray(when_ns // DAY_NS)
    zone = ZoneInfo(timezone)
    quarters, which = np.unique(when_ns // QUARTER_NS, return_inverse=True)
    seconds = [_offset(zone, quarter) for quarter in quarters.tolist()]
    days = (quarters * 900 + np.array(seconds, np.int64)) // 86_400
    return np.asarray(days[which.reshape(-1)])


def _offset(zone: ZoneInfo, quarter: int) -> int:
    at = EPOCH + timedelta(minutes=15) * min(quarter, LAST_QUARTER)
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) // 900 * 900


def months_of(days: np.ndarray) -> np.ndarray:
    """Months since January 1970 of days since 1970-01-01 (int64)."""
    return days.astype(DAYS).astype(MONTHS).astype(np.int64)


def whole_months(from_days: np.ndarray, to_days: np.ndarray) -> np.ndarray:
    """Whole months from one day to another (int64); -1 where the second comes first.

    A month is over on the same day of the next one, or on that one's last day where it is shorter.
    """
    first, last = months_of(from_days), months_of(to_days)
    ends = (last + 1).astype(MONTHS).astype(DAYS).astype(np.int64) - 1
    begins = last.astype(MONTHS).astype(DAYS).astype(np.int64)
    day_from = from_days - first.astype(MONTHS).astype(DAYS).astype(np.int64)
    over = (to_days - begins >= day_from) | (to_days == ends)
    return np.where(to_days < from_days, -1, last - first - ~over)
