"""Times at the edge: text to UTC nanoseconds and back.

Two spellings are taken: an integer of nanoseconds since 1970, and ISO 8601 in UTC with up to nine
decimals (`2026-03-01T09:30:00Z`, `+00:00` for `Z`). A local offset is refused, since nobody could
tell later whether it was meant. So is everything before 2000 or after 2199: a sender that writes
seconds or milliseconds where nanoseconds are asked must be told, not believed.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)\Z", re.ASCII
)
DIGITS = re.compile(r"\d{18,19}\Z", re.ASCII)
SECOND_NS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _at(year: int) -> int:
    return int((datetime(year, 1, 1, tzinfo=UTC) - EPOCH).total_seconds()) * SECOND_NS


FIRST_NS, LAST_NS = _at(2000), _at(2200)


def parse_time(text: str) -> int | None:
    """UTC nanoseconds of either spelling; None for anything else."""
    text = text.strip()
    if DIGITS.match(text):
        value = int(text)
    elif found := ISO.match(text):
        try:
            moment = datetime(*(int(found[i]) for i in range(1, 7)), tzinfo=UTC)  # type: ignore[misc,arg-type]
        except ValueError:
            return None
        since = moment - EPOCH
        value = (since.days * 86400 + since.seconds) * SECOND_NS
        value += int((found[7] or "").ljust(9, "0"))
    else:
        return None
    return value if FIRST_NS <= value < LAST_NS else None


def show_time(value_ns: int) -> str:
    """ISO 8601 in UTC with as many decimals as it needs."""
    seconds, rest = divmod(value_ns, SECOND_NS)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    return f"{text}.{rest:09d}".rstrip("0") + "Z" if rest else f"{text}Z"
