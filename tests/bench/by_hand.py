"""What a change of a rate must come to, computed from the purchase file alone.

`whatif` replays twice and joins; here the messages of each conversion are put in order on paper,
their last amount is taken, and the percentage is applied with whole fractions. Which conversions
are worth points at all is taken from the store of the undisturbed replay: attribution does not
depend on a rate.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

Message = dict[str, str]
Place = tuple[int, int, int]


def messages(file: Path) -> list[Message]:
    """The rows of a purchase file (tab-separated, named columns, `#` lines passed over)."""
    with open(file, newline="", encoding="utf-8") as text:
        lines = [line for line in text if line.strip() and not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def moment(text: str) -> int:
    """Nanoseconds of a time given as such or as ISO 8601 (UTC), to the microsecond."""
    if text.isdigit():
        return int(text)
    past = datetime.fromisoformat(text.replace("Z", "+00:00")) - datetime(1970, 1, 1, tzinfo=UTC)
    return (past.days * 86_400 + past.seconds) * 10**9 + past.microseconds * 1000


def place(number: int, message: Message) -> Place:
    """Where a message stands among those of its conversion."""
    when = message.get("status_ns") or message["event_ns"]
    return moment(when), int(message.get("sequence") or 0), number


def last_amounts(file: Path, partner: str) -> dict[str, Decimal]:
    """The amount each conversion of a partner ends with; what cannot be read is left out."""
    told: dict[str, list[tuple[Place, Decimal, bool]]] = defaultdict(list)
    seen: set[str] = set()
    for number, message in enumerate(messages(file)):
        name = message.get("message_id") or f"row {number}"
        if message["partner"] != partner or not message["amount"] or name in seen:
            continue
        seen.add(name)
        try:
            amount, where = Decimal(message["amount"]), place(number, message)
        except (InvalidOperation, ValueError):
            continue
        told[message["conversion_id"]].append((where, amount, message["amount_mode"] == "delta"))
    amounts: dict[str, Decimal] = {}
    for conversion, said in told.items():
        total = Decimal(0)
        for _, amount, is_change in sorted(said):
            total = total + amount if is_change else amount
        amounts[conversion] = total
    return amounts


def points(amount: Decimal, percent: int, per_point: Fraction) -> int:
    """Points of an amount at a whole percentage, rounded down."""
    return int(Fraction(amount) * Fraction(percent, 100) // per_point)


def difference(
    amounts: dict[str, Decimal], worth: set[str], old: int, new: int, per_point: Fraction
) -> dict[str, int]:
    """Points more, by conversion, for those that are worth points and where it is not zero."""
    more = {
        name: points(amount, new, per_point) - points(amount, old, per_point)
        for name, amount in amounts.items()
        if name in worth
    }
    return {name: count for name, count in more.items() if count}
