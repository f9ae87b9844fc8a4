"""The bench of money asks for every report."""

from __future__ import annotations

from pathlib import Path

from tests.bench import money as bench


def test_every_report_is_timed(tmp_path: Path) -> None:
    found = bench.measure(60, tmp_path)
    assert len(found) == 6
    assert all(seconds > 0 for seconds in found.values())
