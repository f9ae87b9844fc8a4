"""A journal's folder read with struct, a table of CRC32C and pyarrow, and its hash row by row.

Written from the description of the format, not from the code that writes it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.model.columns import Batch
from tests.naive.rowhash import row_hashes

POLYNOMIAL = 0x82F63B78


def _table() -> list[int]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return found


TABLE = _table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def frames_of(raw: bytes) -> list[dict[str, Any]]:
    """Every frame of a segment file, checked; `at` and `end` are its bounds in the file."""
    found = []
    at = 0
    while at < len(raw):
        length, crc, kind, number, first_row, rows, plain = struct.unpack_from(
            "<IIB3xIQII", raw, at
        )
        end = at + 32 + length
        assert end <= len(raw)
        assert crc == crc32c(raw[at : at + 4] + raw[at + 8 : end])
        found.append(
            {
                "kind": {1: "HEAD", 2: "ROWS", 3: "SEAL"}[kind],
                "number": number,
                "first_row": first_row,
                "rows": rows,
                "plain": raw[at + 32 : at + 32 + plain],
                "sealed": raw[at + 32 + plain : end],
                "at": at,
                "end": end,
            }
        )
        at = end
    assert [frame["number"] for frame in found] == list(range(len(found)))
    return found


def read_stream(folder: Path, stream: str) -> list[dict[str, Any]]:
    """The plain columns of a stream, a dict per row, with `_row_hash` and maybe `_sealed_hash`."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / stream).glob("*.segment")):
        head, *others = frames_of(path.read_bytes())
        assert head["kind"] == "HEAD"
        assert head["first_row"] == len(rows)
        schema = pa.ipc.read_schema(pa.py_buffer(head["plain"]))
        assert schema.metadata[b"stream"] == stream.encode()
        assert int(schema.metadata[b"segment"]) == int(path.stem)
        begun = len(rows)
        for frame in others:
            if frame["kind"] == "SEAL":
                assert frame["end"] == others[-1]["end"]
                hashes = [row["_row_hash"] for row in rows[begun:]]
                assert struct.unpack("<QQQ", frame["plain"]) == digest_of(hashes)
                continue
            assert frame["first_row"] == len(rows)
            rows += pa.ipc.read_record_batch(pa.py_buffer(frame["plain"]), schema).to_pylist()
    return rows


def digest_of(hashes: list[int]) -> tuple[int, int, int]:
    """Count, xor, and sum modulo 2^64."""
    together = 0
    for value in hashes:
        together ^= value
    return len(hashes), together, sum(hashes) % (1 << 64)


def journal_hash(streams: Mapping[str, Batch], key: bytes) -> str:
    """The journal hash of these rows; `streams` in the order of STREAMS."""
    whole = hashlib.blake2b(digest_size=32)
    for name, batch in streams.items():
        if len(batch):
            own = hashlib.blake2b(digest_size=32)
            for value in row_hashes(batch, key):
                own.update(struct.pack("<Q", value))
            whole.update(f"{name} {len(batch)} {own.hexdigest()}\n".encode())
    return whole.hexdigest()
