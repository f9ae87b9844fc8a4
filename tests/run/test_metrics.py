"""Counts for Prometheus: every name is there from the start, counts add up, nobody is named."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.model.tally import Tally
from pipeline.run.metrics import WATCHED, Metrics
from tests.run.test_watch import MEMBER, SHOP, capture, drop, mirrorpoint, people, running

assert drop  # the fixture

Samples = dict[tuple[str, tuple[str, ...]], float]


def samples(path: Path) -> Samples:
    """What Prometheus' own parser reads."""
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def counted(**words: int) -> Tally:
    tally = Tally()
    for word, count in words.items():
        tally.add("classify", word, count)
    return tally


def test_every_counter_is_there_before_anything_is_counted(tmp_path):
    metrics = Metrics(tmp_path / "mirrorpoint.prom")
    metrics.begin()
    found = samples(metrics.path)
    assert set(found.values()) == {0.0}
    names = {name for name, _ in found}
    assert {f"mirrorpoint_mirror_{word}_total" for word in WATCHED} < names
    assert {"mirrorpoint_packets_total", "mirrorpoint_unreadable_flows"} < names
    causes = {labels for name, labels in found if name == "mirrorpoint_unreadable_flows"}
    assert causes == {("hidden",), ("gap",), ("truncated",), ("room",)}


def test_units_add_up_and_shares_are_of_all_of_them(tmp_path):
    metrics = Metrics(tmp_path / "mirrorpoint.prom")
    metrics.add(counted(packets=10, lost_gap=1, given_up=2, **{"sessions:tls": 3}))
    metrics.add(counted(packets=5, **{"sessions:tls": 4, "fault:hello_bad": 6, "skip:outside": 7}))
    found = samples(metrics.path)
    assert found["mirrorpoint_units_total", ()] == 2
    assert found["mirrorpoint_packets_total", ()] == 15
    assert found["mirrorpoint_sessions_total", ("tls",)] == 7
    assert found["mirrorpoint_flows_given_up_total", ()] == 2
    assert found["mirrorpoint_unreadable_flows", ("gap",)] == 1
    assert found["mirrorpoint_mirror_ratio", ("unreadable",)] == pytest.approx(1 / 8)
    assert ("mirrorpoint_mirror_ratio", ("duplicate",)) not in found  # a share of nothing
    assert found["mirrorpoint_faults_total", ("classify", "hello_bad")] == 6
    assert found["mirrorpoint_skips_total", ("classify", "outside")] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["mirrorpoint.prom"]


def test_a_file_that_cannot_be_written_stops_the_start_and_nothing_later(tmp_path, capsys):
    with pytest.raises(click.BadParameter, match="No such file"):
        Metrics(tmp_path / "none" / "mirrorpoint.prom").begin()
    folder = tmp_path / "folder"
    folder.mkdir()
    metrics = Metrics(folder / "mirrorpoint.prom")
    metrics.begin()
    metrics.path.unlink()
    folder.rmdir()
    metrics.add(counted(packets=1))
    assert "metrics not written" in capsys.readouterr().err
    folder.mkdir()
    metrics.add(counted(packets=1))
    assert samples(metrics.path)["mirrorpoint_packets_total", ()] == 2


@pytest.mark.slow
def test_run_tells_what_it_counted_and_of_whom_to_nobody(drop, tmp_path):
    people(drop)
    capture(drop, "one.pcap", 100)
    path = tmp_path / "mirrorpoint.prom"
    words = [*running(drop, tmp_path / "state"), "--once", "--metrics"]
    result = mirrorpoint(*words, path)
    assert result.returncode == 0, result.stderr
    found = samples(path)
    assert found["mirrorpoint_sessions_total", ("http",)] == 1
    assert found["mirrorpoint_packets_total", ()] == 10
    assert found["mirrorpoint_skips_total", ("classify", "no_payload")] == 5
    assert not any(word in path.read_text() for word in ("acme", "wren", MEMBER, SHOP))
    bad = mirrorpoint(*words, tmp_path / "none" / "mirrorpoint.prom")
    assert bad.returncode == 2
    assert "none/mirrorpoint.prom" in bad.stderr
    assert "Traceback" not in bad.stderr
