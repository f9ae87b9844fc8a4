"""What a container costs: the same made packets as pcap and pcapng, as they are, in gzip and zstd.

    python -m tests.bench.containers [--packets N] [--runs R] [--json]

Framing alone is measured on one block over and over, as it is found in the cache where it was just
read to; sessions on files, with the read-ahead thread at work beside. Figures are medians of runs
taken in turn. Packets and sessions must be the same in every container.

The payload repeats every 64 KiB: beyond the reach of gzip, within that of zstd. So gzip unpacks
what is hardly packed at all, as it would with real, encrypted traffic, and zstd copies.
"""

from __future__ import annotations

import argparse
import gzip
import json
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard

from pipeline.capture.pcap import FILE_HEADER_BYTES, PcapFramer
from pipeline.capture.pcap_kernels import FULL
from pipeline.capture.pcapng import PcapngFramer
from pipeline.capture.reader import BLOCK_BYTES
from pipeline.capture.recognise import byte_order
from tests.bench import paths
from tests.bench.figures import Figure, machine, repeat, scratch
from tests.bench.traffic import Traffic, generate
from tests.forge.pcapng import interface, section

GZIP_LEVEL, ZSTD_LEVEL = 1, 3
ROWS = 4096


def as_pcapng(raw: bytes) -> bytes:
    """A little-endian classic capture of microseconds as pcapng."""
    assert raw[:4] == struct.pack("<I", 0xA1B2C3D4)
    parts, at = [section("<"), interface("<")], 24
    while at < len(raw):
        seconds, micros, captured, wire = struct.unpack_from("<IIII", raw, at)
        packet = raw[at + 16 : at + 16 + captured]
        ticks = seconds * 1_000_000 + micros
        length = 32 + (captured + 3) // 4 * 4
        words = (6, length, 0, ticks >> 32, ticks & 0xFFFFFFFF, captured, wire)
        parts += [
            struct.pack("<7I", *words),
            packet,
            bytes(-captured % 4),
            struct.pack("<I", length),
        ]
        at += 16 + captured
    return b"".join(parts)


def contained(raw: bytes) -> dict[str, bytes]:
    """The same packets in every container, by name."""
    found = {"pcap": raw, "pcapng": as_pcapng(raw)}
    packer = zstandard.ZstdCompressor(ZSTD_LEVEL)
    for name in ("pcap", "pcapng"):
        found[f"{name} in gzip"] = gzip.compress(found[name], GZIP_LEVEL, mtime=0)
        found[f"{name} in zstd"] = packer.compress(found[name])
    return found


def framed(raw: bytes, packets: int) -> None:
    """Cut the packets of a block, which begins a file, until there were as many as asked for."""
    data = np.frombuffer(bytearray(raw[:BLOCK_BYTES]), np.uint8)
    classic = byte_order(raw[:4]) is not None
    framer = PcapFramer(raw[:FILE_HEADER_BYTES], ROWS) if classic else PcapngFramer()
    start, stop = FILE_HEADER_BYTES if classic else 0, len(data)
    while packets > 0:
        at, how = start, FULL
        while how == FULL:
            how, rows, at = framer.frame(data, at, stop, framer.columns(ROWS))
            packets -= rows
        stop = at  # the packet that the block cuts is not begun again


def measure(
    packets: int, runs: int, folder: Path, progress: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Figure], dict[str, int], list[str]]:
    """Figures, the bytes of each container, and what was not the same as in the first."""
    path = folder / "some"
    generate(path, Traffic(packets=packets))
    contents = contained(path.read_bytes())
    wrong, expected, works = [], None, []
    for name, raw in contents.items():
        file = folder / name.replace(" ", "-")
        file.write_bytes(raw)
        found = paths.classify(file, None, names=True)
        answer = (found.packets, found.tls, found.http, found.quic)
        expected = expected or answer
        if answer != expected:
            wrong.append(f"{name}: {found.packets} packets, {found.rows['sessions']} sessions")
        works.append((f"sessions, {name}", packets, lambda file=file: paths.classify(file, None)))
        if name in ("pcap", "pcapng"):
            works.append((f"framing, {name}", packets, lambda raw=raw: framed(raw, packets)))
    path.unlink()
    sizes = {name: len(raw) for name, raw in contents.items()}
    return repeat(works, runs, progress), sizes, wrong


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.containers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--packets", type=int, default=400_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=scratch(given.packets * 4_000)) as folder:
        figures, sizes, wrong = measure(given.packets, given.runs, Path(folder))
    if given.json:
        told = {name: figure.as_dict() for name, figure in figures.items()}
        sys.stdout.write(json.dumps({"figures": told, "bytes": sizes, "wrong": wrong}) + "\n")
    else:
        sys.stdout.write(f"{given.packets:,} packets; {machine()}\n")
        for name, figure in figures.items():
            nanoseconds = 1e9 * figure.seconds / figure.packets
            size = sizes[name.split(", ")[1]] / sizes["pcap"]
            sys.stdout.write(
                f"{name:32} {figure.rate / 1e6:8.2f} million/s {nanoseconds:8.1f} ns a packet "
                f"{size:6.2f} of the pcap's bytes{'  busy' * figure.disturbed}\n"
            )
        sys.stdout.write("".join(f"wrong: {line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
