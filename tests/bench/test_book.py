"""The bench of the book measures every stage, and compares with a writer of the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.store.book_schema import metadata
from tests.bench import book as bench


def test_a_small_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "RUNS", 1)
    found, timed, transfers = bench.measure(40, tmp_path)
    stages = bench.names()
    assert list(found) == [*stages, *(f"bare: {name}" for name in stages), "plain"]
    assert all(figure.seconds > 0 for figure in found.values())
    assert transfers == bench.Day(40).transfers == (1 + 3 + 3) * 40 + 2 * 40 // bench.PER_MEMBER
    assert set(timed.seconds) == set(stages)
    told = bench.Measured(found, timed.seconds, transfers)
    assert told.rate > 0
    assert told.p99_ms() > 0
    lines = "\n".join(bench._lines(told, 40))
    assert "durable transfers" in lines
    assert max(map(len, lines.splitlines())) <= 90


def test_the_bare_writes_are_the_books_own(tmp_path: Path) -> None:
    day = bench.Day(40)
    writes, _ = bench.record(day, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    bare, timed = bench.Bare(writes, tmp_path), bench.Timed(day, bench.in_folder(other))
    for name in bench.names():
        bare.stage(name)
        timed.stage(name)
    assert bare.connection is not None
    assert timed.book is not None
    with timed.book._read() as connection:
        for name, table in metadata.tables.items():
            if name == "meta":
                continue
            ours = sorted(tuple(row) for row in connection.execute(table.select()))
            theirs = sorted(bare.connection.execute(f"SELECT * FROM {name}").fetchall())
            assert len(ours) == len(theirs), name
            assert ours == theirs, name


def test_balances_are_read_out_of_many(tmp_path: Path) -> None:
    reads = bench.balance_reads(tmp_path, members=300)
    assert len(reads) == bench.READS
