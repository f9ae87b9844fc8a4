"""What a change of a rate must come to, computed from the purchase file alone.

`whatif` replays twice and joins; here the messages of each conversion are put in order on paper,
their last amount is taken, and the percentage is applied with whole fractions. Which conversions
are worth points at all is taken from the store of the undisturbed replay: attribution does not
depend on a rate.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

# A later word outranks an earlier one where sender time and sequence are equal.
STATUSES = ("pending", "approved_hold", "approved", "adjusted", "declined", "locked", "paid")
Message = dict[str, str]


def messages(file: Path) -> list[Message]:
    """The rows of a purchase file (tab-separated, named columns, `#` lines passed over)."""
    with open(file, newline="", encoding="utf-8") as text:
        lines = [line for line in text if line.strip() and not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def place(number: int, message: Message) -> tuple[str, int, int, int]:
    """Where a message stands among those of its conversion."""
    sequence = int(message.get("sequence") or 0)
    when = message.get("status_ns") or message["event_ns"]
    return when.zfill(30), sequence, STATUSES.index(message["status"]), number


def last_amounts(file: Path, partner: str) -> dict[str, Decimal]:
    """The amount each conversion of a partner ends with."""
    told: dict[str, list[tuple[tuple[str, int, int, int], Message]]] = defaultdict(list)
    for number, message in enumerate(messages(file)):
        if message["partner"] == partner and message["status"] in STATUSES:
            told[message["conversion_id"]].append((place(number, message), message))
    amounts: dict[str, Decimal] = {}
    for conversion, said in told.items():
        amount = Decimal(0)
        for _, message in sorted(said, key=lambda pair: pair[0]):
            if not message.get("amount"):
                continue
            if message.get("amount_mode", "") == "delta":
                amount += Decimal(message["amount"])
            else:
                amount = Decimal(message["amount"])
        amounts[conversion] = amount
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
