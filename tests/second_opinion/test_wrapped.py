"""Wireshark reads every encapsulation, link type and fragment as we do: same hosts, same servers.

All encapsulations go into one capture, a conversation with a name of its own for each, so that one
dissector reads them all. It is told which labels are pseudo-wires and two ports; left out is
L2TPv3, for whose cookies it has but one setting.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.classify.wrappings import FRAME, LINKS, WRAPPINGS, fragments, tagged
from tests.second_opinion.forged import Way, get, hello, whole
from tests.second_opinion.test_tshark import ours, theirs

pytestmark = pytest.mark.slow  # a dissector started for each capture

UNTOLD = {name for name in WRAPPINGS if name.startswith("l2tp 3")}
DECODE_AS = {
    "udp.port==8472": "vxlan",
    "udp.port==37008": "tzsp",
    "mpls.label==1000": "pwethnocw",
    "mpls.label==1002": "pwethcw",
}


def conversation(host: str, sport: int, v6: bool, secure: bool) -> list[bytes]:
    """The IP packets of a conversation in which `host` is named."""
    way = Way(443 if secure else 80, sport=sport, v6=v6)
    said = hello(host, sport) if secure else get(host)
    return [bytes(packet)[14:] for packet in whole(way, said)]


def wrapped(name: str, packet: bytes) -> bytes:
    """A frame with the packet in an encapsulation."""
    takes, gives, wrap = WRAPPINGS[name]
    inner = wrap(tagged(packet) if takes == FRAME else packet)
    return inner if gives == FRAME else tagged(inner)


def write(path: Path, frames: Iterable[bytes], link_type: int = 1) -> Path:
    """A classic capture."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, link_type)
    for number, raw in enumerate(frames):
        out += struct.pack("<IIII", 1_767_261_600, number, len(raw), len(raw)) + raw
    path.write_bytes(out)
    return path


def hosts(rows: set[tuple[str, str, str, int]]) -> set[str]:
    return {host for _, host, _, _ in rows}


@pytest.mark.parametrize("v6", [False, True])
def test_every_encapsulation_reads_the_same(v6: bool, tmp_path: Path) -> None:
    frames: list[bytes] = []
    names = {name: f"{name.replace(' ', '-')}.example" for name in WRAPPINGS}
    for number, (name, host) in enumerate(names.items()):
        packets = conversation(host, 20_000 + number, v6, secure=number % 2 == 0)
        frames += [wrapped(name, packet) for packet in packets]
    path = write(tmp_path / "wrapped.pcap", frames)
    found, expected = ours(path), theirs(path, DECODE_AS)
    told = {host for name, host in names.items() if name not in UNTOLD}
    assert hosts(expected) == told, "the second reader knows them"
    assert {row for row in found if row[1] in told} == expected
    assert hosts(found) == set(names.values())


def test_nested_encapsulations_read_the_same(tmp_path: Path) -> None:
    frames: list[bytes] = []
    names = [name for name in WRAPPINGS if name not in UNTOLD]
    told = set()
    for number, name in enumerate(names):
        other = names[number * 7 % len(names)]
        takes, _, _ = WRAPPINGS[other]
        for packet in conversation(f"n{number}.example", 30_000 + number, False, secure=True):
            inner = wrapped(name, packet)
            if takes != FRAME and WRAPPINGS[name][1] == FRAME:
                continue  # a frame does not go where a packet is wanted
            inner = inner if takes == FRAME else inner[14:]
            wrap, gives = WRAPPINGS[other][2], WRAPPINGS[other][1]
            frames.append(wrap(inner) if gives == FRAME else tagged(wrap(inner)))
            told.add(f"n{number}.example")
    path = write(tmp_path / "nested.pcap", frames)
    expected = theirs(path, DECODE_AS)
    assert ours(path) == expected
    assert hosts(expected) == told


@pytest.mark.parametrize("v6", [False, True])
def test_fragments_read_the_same(v6: bool, tmp_path: Path) -> None:
    frames: list[bytes] = []
    for number, name in enumerate(("plain", "gtp", "vxlan", "gre", "backwards")):
        pieces: list[bytes] = []
        for k, packet in enumerate(conversation(f"{name}.example", 40_000 + number, v6, True)):
            outer = wrapped(name, packet)[14:] if name in WRAPPINGS else packet
            pieces += fragments(outer, range(104, 2000, 104), number * 100 + k)
        frames += map(tagged, pieces[::-1] if name == "backwards" else pieces)
    path = write(tmp_path / "fragments.pcap", frames)
    expected = theirs(path, DECODE_AS)
    assert ours(path) == expected
    assert len(hosts(expected)) == 5


@pytest.mark.parametrize("link_type", sorted(LINKS.keys() - {219}))  # it knows no bare MPLS
def test_every_link_type_reads_the_same(link_type: int, tmp_path: Path) -> None:
    takes, link = LINKS[link_type]
    frames: list[bytes] = []
    for number, v6 in enumerate((False, True)):
        for packet in conversation(f"v{6 if v6 else 4}.example", 50_000 + number, v6, True):
            frames.append(link(tagged(packet) if takes == FRAME else packet))
    path = write(tmp_path / "link.pcap", frames, link_type)
    expected = theirs(path)
    assert ours(path) == expected
    assert hosts(expected) == {"v4.example", "v6.example"}
