"""The judge: points that fall short fail the run, and so does what could not be measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import check_main_path as check
from tests.bench import judge, wire
from tests.bench import traffic as made
from tests.bench.figures import Figure, Spent
from tests.bench.judge import FellShort, Point
from tests.bench.traffic import Traffic


def one(good: bool) -> Iterator[Point]:
    yield Point("speed", ">= 3 M/s", "2.99 M/s", good)


def broken() -> Iterator[Point]:
    yield Point("first", "x", "x", True)
    raise FellShort("exit 1: it broke")


def test_a_part_that_breaks_is_a_point_that_falls_short() -> None:
    points = list(judge.points_of("part", broken))
    assert [p.good for p in points] == [True, False]
    assert points[1].reached == "exit 1: it broke"


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), OSError("x")])
def test_a_surprise_is_a_point_that_falls_short(error: Exception) -> None:
    def surprised() -> Iterator[Point]:
        raise error
        yield

    (point,) = judge.points_of("part", surprised)
    assert not point.good
    assert type(error).__name__ in point.reached


def test_a_command_that_fails_is_told_by_its_last_line() -> None:
    with pytest.raises(FellShort, match="exit 3: because"):
        check.run(
            sys.executable, "-c", "import sys; print('because', file=sys.stderr); sys.exit(3)"
        )


def test_a_command_that_hangs_is_stopped() -> None:
    with pytest.raises(FellShort, match="took more than"):
        check.run(sys.executable, "-c", "import time; time.sleep(60)", seconds=0.5)


@pytest.mark.parametrize("good", [True, False])
def test_the_exit_code_is_the_verdict(
    good: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check.Check, "start", lambda self: one(good))
    assert check.main(["--only", "start"]) == (0 if good else 1)
    printed = capsys.readouterr().out
    assert ("ok    speed" if good else "SHORT speed") in printed
    assert f"1 points, {0 if good else 1} short" in printed


def test_a_rate_taken_on_a_busy_machine_says_so() -> None:
    quiet = Figure("x", 9_000_000, (Spent(2.0, 2.0),))
    busy = Figure("x", 9_000_000, (Spent(4.0, 2.0),))
    assert judge.fast("x", quiet, 3_000_000) == Point("x", ">= 3 M/s", "4.50 M/s", True)
    assert not judge.fast("x", busy, 3_000_000).good
    assert "busy" in judge.fast("x", busy, 3_000_000).reached


def test_inspect_is_judged_by_what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start-up that somebody disturbed must not make the reading look faster."""

    def measured(own: int) -> Point:
        report = wire.Report(Traffic(), made.Truth(**dict.fromkeys(made.Truth.__slots__, 0)))
        for name in (wire.GENERATE, wire.PRODUCT_ONE, wire.PRODUCT_ALL, wire.JOURNAL_ALL):
            report.figures[name] = Figure(name, 9_000_000, (Spent(1.0, 1.0),))
        report.figures[wire.INSPECT] = Figure("", 4_000_000, (Spent(3.0, 3.0),))
        report.figures[f"{wire.INSPECT}, a quarter"] = Figure("", 1_000_000, (Spent(3.0, 3.0),))
        report.counts = [{"packets_per_second": n} for n in (own, own - 1, 10 * own)]
        monkeypatch.setattr(wire, "measure_round", lambda *_: report)
        points = list(check.Check(Path(), 4_000_000, 3).wire())
        (found,) = [p for p in points if p.what.startswith("inspect")]
        assert len(points) == 6
        return found

    assert measured(3_000_000).good
    short = measured(2_990_000)
    assert not short.good
    assert short.reached.startswith("2.99 M/s; slope 1.33 after 0.0 s, whole 1.33")


@pytest.mark.parametrize(("passed", "visits", "good"), [(39, 100_000, True), (38, 100_000, False)])
def test_a_crash_that_was_not_tried_falls_short(
    monkeypatch: pytest.MonkeyPatch, passed: int, visits: int, good: bool
) -> None:
    asked: list[dict[str, str]] = []

    def run(*command: str, env: dict[str, str]) -> str:
        asked.append(env)
        return f"{passed if 'test_crash' in command[3] else 2} passed, 1 skipped in 9.00s"

    monkeypatch.setattr(check, "run", run)
    crash, order = check.Check(Path(), 0, 0, visits).crash()
    assert crash.good == good
    assert order.good
    assert asked == [{"DAY_VISITS": str(visits)}] * 2


def test_a_small_day_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "run", lambda *_, **__: "39 passed")
    assert not any(point.good for point in check.Check(Path(), 0, 0, 2000).crash())


@pytest.mark.parametrize(("seconds", "good"), [(110.0, True), (130.0, False)])
def test_the_two_minute_subset_is_judged_by_the_clock(
    monkeypatch: pytest.MonkeyPatch, seconds: float, good: bool
) -> None:
    clock = [0.0]

    def run(*command: str) -> str:
        clock[0] += {"test": 900.0, "test-fast": seconds}[command[1]]
        return "12 passed"

    monkeypatch.setattr(check, "run", run)
    monkeypatch.setattr(check.time, "perf_counter", lambda: clock[0])
    whole, skipped, fast = check.Check(Path(), 0, 0).tests()
    assert whole.good
    assert skipped.good
    assert fast == Point("make test-fast", "<= 120 s", f"exit 0, {seconds:.0f} s", good)


def test_skipped_tests_are_told_with_their_reasons() -> None:
    tail = "SKIPPED [2] tests/second_opinion/test_tshark.py:24: needs tshark, which is no program"
    other = "SKIPPED [1] tests/corpus/test_corpus.py:9: the corpus is not here"
    assert check.skipped_tests("12 passed").good
    assert check.skipped_tests("12 passed").reached == "0"
    found = check.skipped_tests(f"== summary ==\n{other}\n9 passed, 1 skipped")
    assert (found.good, found.reached) == (True, "1; 1 x the corpus is not here")
    found = check.skipped_tests(f"{tail}\n{other}\n")
    assert not found.good
    assert found.reached.startswith("3; 2 x needs tshark")


def test_json_holds_every_point(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check.Check, "start", lambda self: one(True))
    assert check.main(["--only", "start", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["points"] == [
        {"what": "speed", "asked": ">= 3 M/s", "reached": "2.99 M/s", "good": True}
    ]


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--only", "speeed"]) == 2
    assert "no part speeed" in capsys.readouterr().err
