"""Halves of a capture: every packet in one of them, every flow whole, all sessions found."""

from __future__ import annotations

from collections import Counter

import dpkt

from tests.bench import paths
from tests.bench.split import split
from tests.bench.traffic import Traffic, generate


def packets_of(path) -> list[tuple[float, bytes]]:
    with path.open("rb") as file:
        return list(dpkt.pcap.Reader(file))


def test_the_halves_hold_what_the_whole_holds(tmp_path):
    whole = tmp_path / "whole.pcap"
    truth = generate(whole, Traffic(packets=20_000, live=200, pool=8))
    halves = split(whole, tmp_path)
    found = [paths.classify(half, None, names=True) for half in halves]
    assert sum((f.all_names() for f in found), Counter()) == truth.all_hosts()
    assert all(f.packets > 5_000 for f in found)
    parts = [packets_of(half) for half in halves]
    assert sorted(parts[0] + parts[1]) == sorted(packets_of(whole))
