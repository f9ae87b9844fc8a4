"""The bench of the store runs, on few rows, and checks what it measures."""

from __future__ import annotations

import pytest

from tests.bench import clickhouse


@pytest.mark.slow
def test_every_figure_is_measured(tmp_path):
    figures = clickhouse.measure(3000, 600, 1, tmp_path)
    assert set(figures) == {
        clickhouse.DELIVER,
        clickhouse.PROJECT,
        clickhouse.MOVE,
        clickhouse.KNOWN,
        clickhouse.ALL,
        clickhouse.SOME,
        clickhouse.NAIVE,
    }
    assert all(figure.rate > 0 for figure in figures.values())
    shown = clickhouse.show(figures)
    assert len(shown.splitlines()) == 1 + len(figures)
    assert f"x {clickhouse.NAIVE}" in shown


def test_what_is_made_is_the_same_each_time_and_joins():
    one, other = clickhouse.Made(500), clickhouse.Made(500)
    assert one.position() == other.position()
    for stream, batch in one.streams.items():
        assert clickhouse.dicts(batch) == clickhouse.dicts(other.streams[stream])
    rows = {stream: clickhouse.dicts(batch) for stream, batch in one.streams.items()}
    found = clickhouse.fold_all(rows, one.position())
    clicked, matched = (
        sum(bool(row[n]) for row in found) for n in ("click_found", "match_visit_ns")
    )
    assert 0 < clicked < len(found)
    assert 0 < matched < len(found)
