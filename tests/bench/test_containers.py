"""The bench of containers: the same packets in each, and a figure for each."""

from __future__ import annotations

from pathlib import Path

from tests.bench import containers
from tests.bench.traffic import Traffic, generate
from tests.capture.reading import read


def test_every_container_holds_the_same_packets(tmp_path: Path) -> None:
    path = tmp_path / "small"
    generate(path, Traffic(packets=500, live=20, pool=16))
    contents = containers.contained(path.read_bytes())
    assert len(contents) == 6
    rows = {name: read(raw).rows for name, raw in contents.items()}
    assert len(rows["pcap"]) == 500
    assert all(found == rows["pcap"] for found in rows.values())


def test_there_is_a_figure_for_each(tmp_path: Path) -> None:
    figures, sizes, wrong = containers.measure(300, 1, tmp_path)
    assert not wrong
    assert len(figures) == 8
    assert set(sizes) == {name.split(", ")[1] for name in figures}
    assert all(figure.rate > 0 for figure in figures.values())
