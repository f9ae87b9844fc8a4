"""The bench itself at a small size: every path answers right, and the report can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import paths, peers, wire
from tests.bench import traffic as made
from tests.bench.figures import Figure, Spent
from tests.bench.traffic import Traffic, Truth

SMALL = Traffic(packets=12_000, live=120, subscribers=400, member_share=0.05, pool=64)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    path = tmp_path_factory.mktemp("wire") / "made.pcap"
    return path, made.generate(path, SMALL)


def test_every_path_finds_what_was_hidden(capture: tuple[Path, Truth]) -> None:
    path, truth = capture
    report = wire.Report(SMALL, truth)
    wire.verify(report, path)
    assert report.wrong == []


@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_the_answer_does_not_depend_on_the_cut(capture: tuple[Path, Truth], rows: int) -> None:
    path, truth = capture
    found = paths.classify(path, paths.circle_of(SMALL.members), names=True, rows=rows)
    assert found.all_names() == truth.member_hosts
    assert found.packets == truth.packets


def test_the_walk_sees_every_packet(capture: tuple[Path, Truth]) -> None:
    path, truth = capture
    assert paths.frame(path).packets == paths.walk(path).packets == truth.packets
    assert 0 < paths.walk(path).payloads < truth.packets


def test_dpkt_finds_what_is_in_one_segment(capture: tuple[Path, Truth]) -> None:
    path, truth = capture
    found = peers.dpkt_names(path, truth.packets)
    assert set(found) <= set(truth.tls_hosts) | set(truth.http_hosts)
    assert truth.http <= sum(found.values()) < truth.http + truth.tls


def test_limits_move_as_many_bytes_as_they_say(capture: tuple[Path, Truth]) -> None:
    path, _ = capture
    assert peers.read_blocks(path) == path.stat().st_size
    assert peers.copy_memory(1_000_000) == 1_000_000


def test_a_wrong_answer_is_told(capture: tuple[Path, Truth]) -> None:
    report = wire.Report(SMALL, capture[1])
    report.check("tls", {"a.example": 2}, {"a.example": 1})
    report.check("packets", 5, 5)
    assert report.wrong == ["tls: expected 2 names, 1 different, found 1 names, 1 different"]


def test_the_report_fits_a_terminal(capture: tuple[Path, Truth]) -> None:
    report = wire.Report(SMALL, capture[1])
    for name, seconds in ((wire.WALK, 0.01), (wire.NDPI, 1.0), (wire.INSPECT, 0.5)):
        report.figures[name] = Figure(name, 12_000, (Spent(seconds, seconds),))
    quarter = Figure("", 3_000, (Spent(0.2, 0.2),))
    report.figures[f"{wire.INSPECT}, a quarter"] = quarter
    lines = wire.show(report).splitlines()
    assert max(len(line) for line in lines[1:]) <= 80
    assert any(line.startswith("mirrorpoint inspect: starts in 0.10 s") for line in lines)
    assert report.as_dict()["slopes"][wire.INSPECT]["packets_per_second"] == pytest.approx(30_000)


def test_the_table_has_a_column_for_each_round(capture: tuple[Path, Truth]) -> None:
    reports = [wire.Report(SMALL, capture[1]), wire.Report(SMALL, capture[1])]
    for seconds, report in enumerate(reports, start=1):
        report.figures[wire.WALK] = Figure(wire.WALK, 12_000_000, (Spent(seconds, seconds),))
    reports[1].figures[wire.NDPI] = Figure(wire.NDPI, 1_000_000, (Spent(4.0, 4.0),))
    reports[1].counts.append({"packets_per_second": 7_000_000})
    lines = wire.markdown(reports).splitlines()
    assert lines[0].endswith("12,000 packets")
    assert "load" not in lines[0]
    assert lines[2:] == [
        "| million packets/s | 120 live flows | 120 live flows |",
        "|---|---|---|",
        "| header walk | 12.00 | 6.00 |",
        "| ndpiReader |  | 0.25 |",
        "| mirrorpoint inspect, once started |  | 7.00 |",
    ]
