"""Wireshark, driven by pyshark, reads forged captures as we do: same hosts, same servers."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from tests.bench.rows import clean
from tests.corpus.reading import read
from tests.need import need
from tests.second_opinion.forged import CAPTURES, forge, forge_mixed

pytestmark = pytest.mark.slow  # a dissector started for each capture

WANTED = "tls.handshake.extensions_server_name || http.request"
PREFERENCES = {
    "tcp.reassemble_out_of_order": "TRUE",
    "tls.desegment_ssl_records": "TRUE",
    "http.desegment_headers": "TRUE",
    "http.desegment_body": "TRUE",
}
# Captures in which nobody is named.
NAMELESS = {"hello without a name", "response only", "datagrams only"}

Row = tuple[str, str, str, int]


def ours(path: Path) -> set[Row]:
    reading = read(path, "jsonl")
    assert not reading.crash, reading.crash
    return {
        (
            row["proto"],
            row["host"],
            str(ipaddress.ip_address(row["server"])),
            int(row["server_port"]),
        )
        for row in reading.rows()
    }


def values(layer: Any, name: str) -> list[str]:
    """All values of a field of a layer, which pyshark shows as one or several."""
    field = getattr(layer, name, None)
    return [] if field is None else [f.show or "" for f in field.all_fields]


def theirs(path: Path) -> set[Row]:
    need("tshark")
    need("pyshark")
    import pyshark

    capture = pyshark.FileCapture(
        str(path), display_filter=WANTED, override_prefs=PREFERENCES, keep_packets=False
    )
    rows: set[Row] = set()
    try:
        for packet in capture:
            network = [layer for layer in packet.layers if layer.layer_name in ("ip", "ipv6")][-1]
            server = str(ipaddress.ip_address(str(network.dst)))
            port = int(packet.tcp.dstport)
            for layer in packet.layers:
                if layer.layer_name == "tls":
                    names = values(layer, "handshake_extensions_server_name")
                    rows |= {("tls", clean(name), server, port) for name in names}
                elif layer.layer_name == "http":
                    rows |= {("http", clean(h), server, port) for h in values(layer, "host")}
    finally:
        capture.close()
    return {row for row in rows if row[1]}


@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_one_conversation_reads_the_same(name: str, tmp_path: Path) -> None:
    path = forge(name, tmp_path)
    expected = theirs(path)
    assert ours(path) == expected
    assert bool(expected) == (name not in NAMELESS), "the capture shows what it is named for"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_conversations_read_the_same(seed: int, tmp_path: Path) -> None:
    path = forge_mixed(seed, tmp_path)
    expected = theirs(path)
    assert ours(path) == expected
    assert len(expected) == 24
