"""The row hash, one row and one value at a time, in plain Python.

SipHash-2-4 after Aumasson and Bernstein (2012), with the reference code's 128-bit output.
"""

from __future__ import annotations

import numpy as np

from pipeline.model.columns import Batch, TextColumn, stored_columns
from pipeline.model.identifiers import digest

MASK = (1 << 64) - 1


def rotate(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & MASK


def sip_rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        v[0] = (v[0] + v[1]) & MASK
        v[1] = rotate(v[1], 13) ^ v[0]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[3]) & MASK
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & MASK
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & MASK
        v[1] = rotate(v[1], 17) ^ v[2]
        v[2] = rotate(v[2], 32)


def siphash(key: bytes, message: bytes) -> bytes:
    """SipHash-2-4-128 of a message under a key of 16 bytes."""
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE]
    v += [k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        sip_rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xEE
    sip_rounds(v, 4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    sip_rounds(v, 4)
    return b"".join(w.to_bytes(8, "little") for w in (first, v[0] ^ v[1] ^ v[2] ^ v[3]))


def siphash128_words(key: bytes, lines: list[list[int]]) -> list[list[int]]:
    """SipHash-2-4-128 of each line of words, as the two words of its output."""
    found = (siphash(key, b"".join(w.to_bytes(8, "little") for w in line)) for line in lines)
    return [[int.from_bytes(h[i : i + 8], "little") for i in (0, 8)] for h in found]


def text_words(key: bytes, values: list[bytes]) -> list[int]:
    """The first word of the SipHash of each text."""
    return [int.from_bytes(siphash(key, value)[:8], "little") for value in values]


def row_hashes(batch: Batch, key: bytes) -> list[int]:
    """What `pipeline.kernels.rowhash.row_hashes` promises, by its words."""
    columns = stored_columns(type(batch))
    schema = "\n".join(
        f"{c.name} {'text' if c.dtype is None else c.dtype.str} {'sealed' if c.sealed else ''}"
        for c in columns
    )
    plain = [c for c in columns if not c.sealed]
    sealed = [c for c in columns if c.sealed]
    found = []
    for row in range(len(batch)):
        line = [cell(batch, c.name, row, digest(key, "row-text", schema)) for c in plain]
        if sealed:
            text_key = digest(key, "sealed-text", schema)
            secret = b"".join(cell(batch, c.name, row, text_key) for c in sealed)
            line.append(siphash(digest(key, "sealed-line", schema), secret)[:8])
        whole = siphash(digest(key, "row-line", schema), b"".join(line))
        found.append(int.from_bytes(whole[:8], "little"))
    return found


def cell(batch: Batch, name: str, row: int, text_key: bytes) -> bytes:
    """The bytes of a value's words."""
    values = getattr(batch, name)
    if isinstance(values, TextColumn):
        return siphash(text_key, values[row])[:8]
    value = values[row]
    if isinstance(value, np.void):
        return bytes(value)
    return (int(value) & MASK).to_bytes(8, "little")
