"""The amounts on paper, from messages in any order."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from tests.bench import by_hand

COLUMNS = (
    *("event_ns", "received_ns", "partner", "conversion_id", "status", "amount", "amount_mode"),
    *("status_ns", "sequence", "message_id"),
)
HEADER = "# mirrorpoint purchases v1\n" + "\t".join(COLUMNS) + "\n"


def purchases(folder: Path, *rows: str) -> Path:
    file = folder / "purchases.tsv"
    file.write_text(
        HEADER + "".join("\t".join(row.split()).replace("-", "") + "\n" for row in rows)
    )
    return file


def test_the_last_message_by_sender_time_counts(tmp_path: Path) -> None:
    file = purchases(
        tmp_path,
        "10 900 acme c1 approved 20.00 - 300 - -",
        "10 901 acme c1 pending 10.00 - 100 - -",
        "10 902 other c1 approved 99.00 - 400 - -",
        "10 903 acme c2 pending 5.00 - - - -",
    )
    assert by_hand.last_amounts(file, "acme") == {"c1": Decimal("20.00"), "c2": Decimal("5.00")}


def test_a_delta_adds_to_what_was_said_before(tmp_path: Path) -> None:
    file = purchases(
        tmp_path,
        "10 900 acme c1 approved 20.00 absolute 100 - -",
        "10 901 acme c1 adjusted 2.50 delta 200 - -",
        "10 902 acme c1 declined - - 300 - -",
    )
    assert by_hand.last_amounts(file, "acme") == {"c1": Decimal("22.50")}


def test_times_may_be_written_as_dates_or_nanoseconds() -> None:
    assert by_hand.moment("2026-03-01T00:00:00Z") == 1_772_323_200 * 10**9
    assert by_hand.moment("1772323200000000000") == 1_772_323_200 * 10**9
    assert by_hand.moment("2026-03-01T00:00:00.000001+00:00") % 10**9 == 1000


def test_a_message_sent_twice_counts_once(tmp_path: Path) -> None:
    file = purchases(
        tmp_path,
        "10 900 acme c1 approved 20.00 absolute 100 - m1",
        "10 901 acme c1 adjusted 2.50 delta 200 - m2",
        "10 901 acme c1 adjusted 2.50 delta 200 - m2",
    )
    assert by_hand.last_amounts(file, "acme") == {"c1": Decimal("22.50")}


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    file = purchases(
        tmp_path,
        "10 900 acme c1 approved 20,00 - 100 - -",
        "10 900 acme c2 approved 20.00 - yesterday - -",
        "10 900 acme c3 approved 20.00 - 100 - -",
    )
    assert by_hand.last_amounts(file, "acme") == {"c3": Decimal("20.00")}


def test_sequence_orders_where_times_are_equal(tmp_path: Path) -> None:
    file = purchases(
        tmp_path, "10 900 acme c1 approved 2.00 - 100 2 -", "10 901 acme c1 approved 1.00 - 100 1 -"
    )
    assert by_hand.last_amounts(file, "acme") == {"c1": Decimal("2.00")}


@pytest.mark.parametrize(
    ("amount", "percent", "expected"), [("26.09", 5, 130), ("26.09", 7, 182), ("0.19", 5, 0)]
)
def test_points_are_rounded_down(amount: str, percent: int, expected: int) -> None:
    assert by_hand.points(Decimal(amount), percent, Fraction(1, 100)) == expected


def test_only_what_is_worth_points_and_changes_differs() -> None:
    amounts = {"a": Decimal("100"), "b": Decimal("100"), "c": Decimal("0.10")}
    assert by_hand.difference(amounts, {"a", "c"}, 5, 7, Fraction(1, 100)) == {"a": 200}
