"""The synced mark: how far each stream was durable when its last `sync` returned.

After a crash the end of a file may be a torn write. That end may be cut off only where nobody was
told that it is safe, so the journal keeps, beside the streams, how many bytes of which segment had
been fsynced. Behind the mark a broken frame is a torn end; before it, it is damage, and so is a
file that is shorter than the mark or missing. The mark itself needs no fsync: an older one only
promises less.

The file has two slots of 4,096 bytes that are written in turn, so that a torn write leaves the
other:

     0  u32  CRC32C of the rest of the slot
     4  u32  length of the text
     8  JSON {"sequence": n, "streams": {name: [segment, bytes, rows]}}, then zero bytes
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

SLOT_BYTES = 4096
SLOTS = 2
PREFIX = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Synced:
    """The durable part of a stream: `size` bytes of segment `segment`, and `rows` rows in all."""

    segment: int = 0
    size: int = 0
    rows: int = 0

    def covers(self, segment: int, size: int) -> bool:
        """Were the first `size` bytes of a segment durable?"""
        return segment < self.segment or (segment == self.segment and size <= self.size)


class SyncedMark:
    """The file with the mark. `damaged` names the slots that could not be read."""

    def __init__(self, path: Path) -> None:
        """Read the mark. Raises FileNotFoundError, and ValueError where no slot is intact."""
        self._path = path
        self._sequence = -1
        self.streams: dict[str, Synced] = {}
        self.damaged: list[str] = []
        raw = path.read_bytes()
        for slot in range(SLOTS):
            part = raw[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES]
            found = _decode(part)
            if found is None:
                self.damaged.append(f"slot {slot} is damaged")
            elif found[0] > self._sequence:
                self._sequence, self.streams = found
        if len(raw) != SLOTS * SLOT_BYTES:
            self.damaged.append(f"{len(raw)} bytes, not {SLOTS * SLOT_BYTES}")
        if self._sequence < 0:
            raise ValueError(f"{path}: no intact mark")

    @classmethod
    def create(cls, path: Path) -> SyncedMark:
        """A new mark that promises nothing; it is there as a whole or not at all."""
        fresh = path.with_name(path.name + ".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, _encode(0, {}) + _encode(1, {}))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.rename(path)
        sync_folder(path.parent)
        return cls(path)

    def write(self, streams: dict[str, Synced], *, durable: bool = False) -> None:
        """Promise this from now on. `durable`: wait until the disk has the mark, too."""
        sequence = self._sequence + 1
        descriptor = os.open(self._path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, _encode(sequence, streams), sequence % SLOTS * SLOT_BYTES)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._sequence, self.streams = sequence, dict(streams)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    sync_file(folder)


def sync_file(path: Path) -> None:
    """Make durable what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(sequence: int, streams: dict[str, Synced]) -> bytes:
    shown = {name: [s.segment, s.size, s.rows] for name, s in streams.items()}
    text = json.dumps({"sequence": sequence, "streams": shown}, separators=(",", ":")).encode()
    rest = PREFIX.pack(0, len(text))[4:] + text
    assert len(rest) <= SLOT_BYTES - 4
    rest = rest.ljust(SLOT_BYTES - 4, b"\0")
    return struct.pack("<I", google_crc32c.value(rest)) + rest


def _decode(slot: bytes) -> tuple[int, dict[str, Synced]] | None:
    if len(slot) != SLOT_BYTES or google_crc32c.value(slot[4:]) != PREFIX.unpack(slot[:8])[0]:
        return None
    length = PREFIX.unpack(slot[:8])[1]
    found = json.loads(slot[8 : 8 + length])
    return found["sequence"], {name: Synced(*entry) for name, entry in found["streams"].items()}
