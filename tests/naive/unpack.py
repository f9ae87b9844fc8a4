"""gzip and zstd, fed byte by byte: whatever the library gives before it complains."""

from __future__ import annotations

import zlib

import zstandard


def gunzip(raw: bytes) -> tuple[bytes, str]:
    """What is inside, and the fault that ended it (empty: none)."""
    found, member = b"", None
    for at in range(len(raw)):
        byte = raw[at : at + 1]
        if member is None:
            if at and byte == b"\0":
                continue
            rest = raw[at : at + 2]
            if rest != b"\x1f\x8b":
                return found, "file_truncated" if rest == b"\x1f" else "compression_bad"
            member = zlib.decompressobj(wbits=31)
        try:
            found += member.decompress(byte)
        except zlib.error:
            return found, "compression_bad"
        if member.eof:
            member = None
    return found, "" if member is None else "file_truncated"


def unzstd(raw: bytes) -> tuple[bytes, str]:
    """What is inside, and the fault that ended it (empty: none)."""
    found, at = b"", 0
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    while at < len(raw):
        magic = raw[at : at + 4]
        if len(magic) < 4:
            return found, "file_truncated"
        if magic[0] >> 4 == 5 and magic[1:] == b"\x2a\x4d\x18":
            at += 8 + int.from_bytes(raw[at + 4 : at + 8], "little")
            if at > len(raw):
                return found, "file_truncated"
            continue
        if magic != b"\x28\xb5\x2f\xfd":
            return found, "compression_bad"
        frame = decompressor.decompressobj()
        while not frame.eof:
            if at == len(raw):
                return found, "file_truncated"
            try:
                found += frame.decompress(raw[at : at + 1])
            except zstandard.ZstdError:
                return found, "compression_bad"
            at += 1
    return found, ""
