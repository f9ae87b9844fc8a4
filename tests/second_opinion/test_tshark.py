"""Wireshark, driven by pyshark, reads forged captures as we do: same hosts, same servers."""

from __future__ import annotations

import gzip
import ipaddress
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bench.rows import clean
from tests.capture.reading import read as packets_of
from tests.corpus.reading import read
from tests.need import need
from tests.second_opinion.forged import CAPTURES, forge, forge_mixed, forge_pcapng

pytestmark = pytest.mark.slow  # a dissector started for each capture

WANTED = "tls.handshake.extensions_server_name || http.request || gquic.tag.sni"
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


def theirs(path: Path, decode_as: dict[str, str] | None = None) -> set[Row]:
    need("tshark")
    need("pyshark")
    import pyshark

    capture = pyshark.FileCapture(
        str(path),
        display_filter=WANTED,
        override_prefs=PREFERENCES,
        decode_as=decode_as,
        keep_packets=False,
    )
    rows: set[Row] = set()
    try:
        for packet in capture:
            network = [layer for layer in packet.layers if layer.layer_name in ("ip", "ipv6")][-1]
            server = str(ipaddress.ip_address(str(network.dst)))
            transport = [layer for layer in packet.layers if layer.layer_name in ("tcp", "udp")][-1]
            port = int(transport.dstport)
            for layer in packet.layers:
                if layer.layer_name == "tls":
                    names = values(layer, "handshake_extensions_server_name")
                    rows |= {("tls", clean(name), server, port) for name in names}
                elif layer.layer_name in ("quic", "gquic"):
                    names = values(layer, "tls_handshake_extensions_server_name")
                    names += values(layer, "tag_sni")
                    rows |= {("quic", clean(name), server, port) for name in names}
                elif layer.layer_name == "http":
                    rows |= {("http", clean(h), server, port) for h in values(layer, "host")}
    finally:
        try:
            capture.close()
        except pyshark.capture.capture.TSharkCrashException as crash:
            # asyncio's word for a process that ended while it was being told to: how is not known.
            if "retcode: 255" not in str(crash):
                raise
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


def frames_of(path: Path) -> list[tuple[int, int, int]]:
    """Time, length on the wire and captured length of every packet, as tshark tells them."""
    tshark = need("tshark")
    fields = ("frame.time_epoch", "frame.len", "frame.cap_len")
    command = [tshark, "-r", str(path), "-T", "fields"]
    command += [word for field in fields for word in ("-e", field)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = []
    for line in done.stdout.splitlines():
        time, wire, captured = line.split("\t")
        seconds, _, fraction = time.partition(".")
        time_ns = int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9]) if time else 0
        found.append((time_ns, int(wire), int(captured)))
    return found


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_pcapng_reads_the_same(seed: int, packed: bool, tmp_path: Path) -> None:
    """Names, and each packet's time to the nanosecond; what has no time is ours to say."""
    path = forge_pcapng(seed, tmp_path)
    if packed:
        path = path.with_suffix(".gz")
        path.write_bytes(gzip.compress(path.with_suffix(".pcapng").read_bytes()))
    expected = theirs(path)
    assert ours(path) == expected
    assert len(expected) == 24
    rows, frames = packets_of(path.read_bytes()).rows, frames_of(path)
    assert len(rows) == len(frames) > 100
    timeless = [not time_ns for time_ns, _, _ in frames]
    assert 0 < sum(timeless) < len(frames) / 4
    for row, frame in zip(rows, frames, strict=True):
        assert (row.wire, len(row.raw)) == frame[1:]
        assert row.time_ns == frame[0] or not frame[0]
