"""Medians, slopes and the marks on figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import figures
from tests.bench.figures import Figure, Spent, measure, repeat, slope


def figure(packets: int, *seconds: float, cpu: float = 1.0) -> Figure:
    return Figure("x", packets, tuple(Spent(s, s * cpu) for s in seconds))


def test_a_figure_is_the_median_of_its_runs() -> None:
    assert figure(10, 5.0, 1.0, 2.0).seconds == 2.0
    assert figure(10, 5.0, 1.0, 2.0).rate == 5.0


def test_a_figure_says_when_the_processor_was_elsewhere() -> None:
    assert not figure(1, 1.0).disturbed
    assert figure(1, 1.0, cpu=0.5).disturbed


def test_slope_tells_start_and_rate_apart() -> None:
    start, rate = slope(figure(1_000_000, 0.9), figure(4_000_000, 1.8))
    assert rate == pytest.approx(1_000_000 / 0.3)
    assert start == pytest.approx(0.6)


@pytest.mark.parametrize("small_seconds", [1.55, 1.9, 2.0, 60.0])
def test_a_disturbed_small_run_makes_nothing_faster(small_seconds: float) -> None:
    start, rate = slope(figure(1_000_000, small_seconds), figure(4_000_000, 1.9))
    assert rate == pytest.approx(4_000_000 / 1.9)
    assert start == 0.0


def test_slope_needs_two_sizes() -> None:
    with pytest.raises(AssertionError):
        slope(figure(5, 1.0), figure(5, 2.0))


def test_repeat_takes_turns() -> None:
    seen: list[str] = []
    works = [("a", 1, lambda: seen.append("a")), ("b", 2, lambda: seen.append("b"))]
    found = repeat(works, 3)
    assert seen == ["a", "b"] * 3
    assert [len(f.runs) for f in found.values()] == [3, 3]
    assert found["b"].packets == 2


def test_measure_counts_processor_seconds_of_this_process() -> None:
    spent = measure(lambda: sum(range(2_000_000)))
    assert spent.wall > 0
    assert spent.cpu <= spent.wall * 1.5 + 0.02


def test_machine_names_processor_and_load() -> None:
    assert "cores" in figures.machine()
    assert "load" in figures.machine()


def test_scratch_falls_back_where_memory_is_short() -> None:
    assert figures.scratch(1 << 60) != Path("/dev/shm")
