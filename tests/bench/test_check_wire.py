"""The wire's judge: what falls short, or falls behind another reader, fails the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import check_wire as check
from tests.bench import traffic as made
from tests.bench import wire
from tests.bench.figures import Figure, Spent
from tests.bench.judge import FellShort, Point
from tests.bench.traffic import Traffic
from tests.second_opinion.forged import SERVER4, forge

pytestmark = pytest.mark.slow  # whole readers over captures


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One capture, and what is in it."""
    folder = tmp_path / "corpus"
    for name in ("packets", "truth"):
        (folder / name).mkdir(parents=True)
    capture = forge("hello", folder / "packets")
    answer = (
        f'{{"proto": "tls", "host": "tls.example", "server_ip": "{SERVER4}",'
        ' "server_port": 443, "flows": 1, "layers": "eth:ethertype:ip:tcp"}\n'
    )
    (folder / "truth" / f"{capture.name}.jsonl").write_text(answer)
    monkeypatch.setattr(check.recall, "find_corpus", lambda: folder)
    return folder


def judge(tmp_path: Path) -> check.Check:
    return check.Check(tmp_path, 4, 8, 1)


def points(found: list[Point]) -> dict[str, bool]:
    return {point.what: point.good for point in found}


@pytest.mark.parametrize("theirs", [1.0, 0.0])
def test_recall_is_judged_beside_others(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: float
) -> None:
    truth = {("tls", "tls.example", SERVER4, 443)}
    monkeypatch.setattr(check.readers, "peers", lambda _: {"other 1": lambda _: truth})
    if theirs:
        monkeypatch.setattr(check.side_by_side, "ours", lambda _: set())
    found = points(list(judge(tmp_path).recall()))
    ours_reads = not theirs
    assert found == {
        "recall of http": True,
        "recall of tls": ours_reads,
        "recall of quic": True,
        "precision": True,
        "beside other 1": ours_reads,
    }


def test_the_corpus_is_read_whole_and_timed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert points(list(judge(tmp_path).corpus())) == {"1 captures": True, "all of them": True}
    monkeypatch.setattr(check, "CORPUS_CPU_SECONDS", 0.0)
    assert not points(list(judge(tmp_path).corpus()))["all of them"]


def test_without_a_corpus_nothing_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check.recall, "find_corpus", lambda: None)
    with pytest.raises(FellShort, match="no corpus"):
        list(judge(tmp_path).corpus())


RATES = {
    wire.EVERYBODY: 5.0,
    wire.ALONE: 5.0,
    wire.WALK: 10.0,
    wire.ONE: 8.4,
    wire.WALK_ALONE: 10.0,
    wire.ONE_ALONE: 8.4,
}


@pytest.mark.parametrize("slow", [None, *RATES])
def test_speed_is_judged_at_few_and_at_many_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str | None
) -> None:
    def measured(traffic: Traffic, *_: object) -> wire.Report:
        report = wire.Report(traffic, made.Truth(**dict.fromkeys(made.Truth.__slots__, 0)))
        for name, rate in RATES.items():
            seconds = 1 / rate * (1.5 if name == slow and traffic.live == 10_000 else 1)
            report.figures[name] = Figure(name, 1_000_000, (Spent(seconds, seconds),))
        return report

    monkeypatch.setattr(wire, "measure_round", measured)
    found = list(judge(tmp_path).speed())
    assert len(found) == 10
    short = [point.what for point in found if not point.good]
    everybody = slow in (wire.EVERYBODY, wire.ALONE)
    assert short == [f"10,000 flows: {slow}" if everybody else slow] * (slow is not None)


def test_two_processes_are_judged_beside_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured once, and judged by what little is asked and by what nothing reaches."""
    measure, heard = check._inspect_on, []

    def hear(captures: list[tuple[Path, int]]) -> tuple[float, float]:
        heard.append(measure(captures))
        return heard[-1]

    def judged(least: float) -> bool:
        monkeypatch.setattr(check, "TIMES_ALONE", least)
        (found,) = check.Check(tmp_path, 4, 2_000, 1).two()
        assert found.what == "two processes"
        return found.good

    monkeypatch.setattr(check.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(check.os, "sched_setaffinity", lambda *_: None)  # on any machine
    monkeypatch.setattr(check, "_inspect_on", hear)
    assert judged(0.0)
    again = iter(heard.copy())
    monkeypatch.setattr(check, "_inspect_on", lambda _: next(again))
    assert not judged(99.0)
    assert next(again, None) is None


def test_on_one_core_two_processes_are_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check.os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(FellShort, match="one core only"):
        list(check.Check(tmp_path, 4, 2_000, 1).two())
