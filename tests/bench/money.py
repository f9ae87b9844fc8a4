"""How fast money is reported: `python -m tests.bench.money [CONVERSIONS]`.

A book in SQLite is filled with conversions, most of them pending first, then available with the
partner's money, every tenth corrected a month later. Then the reports of either month are timed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.store.book import TRANSACTION_ROWS, Book
from pipeline.store.book_money import Span
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    KEYS,
    booking,
    rulebook,
    target,
    target_batch,
)

PARTNERS, PER_MEMBER, LATER = 200, 4, 40


def filled(folder: Path, conversions: int) -> Book:
    """A book with two months of so many conversions."""
    book = Book(f"sqlite:///{folder / 'book.sqlite'}", KEYS, rulebook())
    stages: tuple[tuple[int, int, str, int, str], ...] = (
        (1, 2, "pending", 40, ""), (2, 1, "available", 40, "100/40/60"),
        (LATER, 10, "available", 24, "60/24/36"),
    )  # fmt: skip
    for cut, each, state, points, money in stages:
        for first in range(0, conversions, TRANSACTION_ROWS):
            rows = [
                target(
                    f"c{n}", points, state, fold=cut, money=money, partner=f"p{n % PARTNERS}",
                    member=f"m{n // PER_MEMBER}", event_ns=EVENT_NS + n,
                )
                for n in range(first, min(first + TRANSACTION_ROWS, conversions))
                if not n % each
            ]  # fmt: skip
            book.post_targets(target_batch(rows), **booking(cut))
    return book


def measure(conversions: int, folder: Path) -> dict[str, float]:
    """Seconds of each report."""
    book = filled(folder, conversions)
    march, april = (Span.of_period(f"2026-0{month}", "Europe/Berlin") for month in (3, 4))
    end = EVENT_NS + (LATER + 1) * DAY_NS
    asked: dict[str, Callable[[], Any]] = {
        "statements of the first month": lambda: book.money.statements(march),
        "statements of the second": lambda: book.money.statements(april),
        "points by partner": lambda: book.money.points(april),
        "liability of the second month": lambda: book.money.liability(april.from_ns, end),
        "balance of all, as of then": lambda: book.liability_at(end, end),
        "audit of money": book.money.problems,
    }
    found = {}
    for name, ask in asked.items():
        began = time.perf_counter()
        answer = ask()
        found[name] = time.perf_counter() - began
        assert answer or name == "audit of money", name
    book.close()
    return found


def main() -> None:
    """Fill, measure, print."""
    conversions = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds in measure(conversions, Path(folder)).items():
            sys.stdout.write(f"{name:<32} {seconds:>8.1f} s of {conversions:,} conversions\n")


if __name__ == "__main__":
    main()
