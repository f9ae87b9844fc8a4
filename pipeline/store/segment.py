"""One segment of a stream: a file of frames, written once from its first row to its seal.

    HEAD   plain: Arrow schema of the plain columns, with stream and segment number in its metadata;
           sealed: Arrow schema of the sealed columns (not itself a secret)
    ROWS   plain: Arrow record batch of the plain columns, with two more: `_row_hash` and, where
           there are sealed columns, `_sealed_hash`; sealed: the encrypted record batch of those
    SEAL   plain: rows, xor and sum of all row hashes (three u64); nothing follows it

The rows' digest is the xor of their row hashes, their sum modulo 2^64 and their count: whoever has
the row hashes in any order can compute it again, ClickHouse too (`groupBitXor`, `sum`, `count`).
Frames cut a segment wherever rows happened to arrive together; nothing that counts depends on that.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from pipeline.kernels.rowhash import row_hashes, sealed_hashes
from pipeline.model.batches import STREAMS
from pipeline.model.columns import Batch, stored_columns
from pipeline.store.arrow import ArrowError, arrow_schema, from_arrow, numbers, to_arrow
from pipeline.store.crash import crash_point
from pipeline.store.frames import (
    HEADER_BYTES,
    Frame,
    FrameError,
    FrameKind,
    encode_frame,
    read_frame,
    walk_frames,
    write_all,
)
from pipeline.store.sealing import Place, SealingError, SegmentKey, SegmentKeys
from pipeline.store.synced import sync_folder

SEGMENT_ROWS = 65_536
FORMAT = "1"
SEAL_BODY = struct.Struct("<QQQ")
SEAL_BYTES = HEADER_BYTES + SEAL_BODY.size
U64 = np.dtype(np.uint64)
NOTHING = pa.py_buffer(b"")


class JournalError(RuntimeError):
    """The journal cannot be used, or not that way; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `first_row` up to `first_row + rows` of a stream. Bounds and digest are final once
    `sealed`.

    `hash_xor` and `hash_sum` (modulo 2^64) are over the row hashes.
    """

    stream: str
    number: int
    first_row: int
    rows: int
    hash_xor: int
    hash_sum: int
    sealed: bool

    @property
    def end(self) -> int:
        """The offset behind the last row."""
        return self.first_row + self.rows


def segment_path(folder: Path, stream: str, number: int) -> Path:
    """Where a segment of the journal in `folder` is kept."""
    return folder / stream / f"{number:012d}.segment"


def segment_count(folder: Path, stream: str) -> int:
    """One more than the highest segment number of a stream."""
    found = [int(p.stem) for p in (folder / stream).glob("*.segment") if p.stem.isdecimal()]
    return max(found, default=-1) + 1


def has_sealed(batch_class: type) -> bool:
    """Does a class have columns that are stored sealed?"""
    return any(c.sealed for c in stored_columns(batch_class))


def frame_schema(batch_class: type) -> pa.Schema:
    """The schema of the plain part of a ROWS frame."""
    return _frame_schema(batch_class)


@functools.cache
def _frame_schema(batch_class: type) -> pa.Schema:
    schema = arrow_schema(batch_class).append(pa.field("_row_hash", pa.uint64()))
    if has_sealed(batch_class):
        schema = schema.append(pa.field("_sealed_hash", pa.uint64()))
    return schema


def read_segment_end(path: Path, stream: str, number: int) -> Segment | None:
    """A segment by what its seal says; None where the file does not end with one."""
    size = path.stat().st_size
    if size < SEAL_BYTES:
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        frame = read_frame(descriptor, size - SEAL_BYTES, size)
    except FrameError:
        return None
    finally:
        os.close(descriptor)
    if frame.kind != FrameKind.SEAL or frame.end != size or frame.plain.size != SEAL_BODY.size:
        return None
    rows, hash_xor, hash_sum = SEAL_BODY.unpack(frame.plain)
    return Segment(stream, number, frame.first_row, rows, hash_xor, hash_sum, sealed=True)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """A ROWS frame with its plain columns decoded."""

    frame: Frame
    plain: pa.RecordBatch
    place: Place
    batch_class: type[Batch]

    @property
    def row_hash(self) -> np.ndarray:
        """The row hashes as they were written (uint64)."""
        return numbers(self.plain.column("_row_hash"), U64)

    @property
    def sealed_hash(self) -> np.ndarray | None:
        """The hashes of the sealed columns as they were written (uint64), where there are any."""
        if not has_sealed(self.batch_class):
            return None
        return numbers(self.plain.column("_sealed_hash"), U64)

    def batch(self, key: SegmentKey | None = None) -> Batch:
        """The rows; sealed columns are zeros and empty texts unless there is a key to read them.

        Raises JournalError where the key does not open them.
        """
        sealed = None
        if key is not None and has_sealed(self.batch_class):
            try:
                raw = key.unseal(self.frame.sealed, self.place)
            except SealingError as error:
                where = self.place
                raise JournalError(
                    f"{where.stream}: segment {where.segment}, frame {where.frame}: {error}"
                ) from None
            sealed = _record_batch(pa.py_buffer(raw), arrow_schema(self.batch_class, sealed=True))
        return from_arrow(self.batch_class, self.plain, sealed)

    def computed_hash(self, audit_key: bytes) -> np.ndarray:
        """The row hashes that the plain columns and the stored sealed hashes give."""
        return row_hashes(self.batch(), audit_key, self.sealed_hash)


class SegmentReader:
    """A segment file, open for reading. Raises JournalError where bytes are not as written."""

    def __init__(self, folder: Path, stream: str, number: int) -> None:
        self.path = segment_path(folder, stream, number)
        self.stream, self.number = stream, number
        self.batch_class = STREAMS[stream]
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise JournalError(f"{self.path}: this segment is missing") from None
        self.size = os.fstat(self._descriptor).st_size

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def read(self, start: int, stop: int) -> Iterator[StoredRows]:
        """The frames that hold rows `start` up to `stop` of the stream, whole, in their order."""
        at = self._head(self._frame(0)).end
        while start < stop:
            header = self._frame(at, body=False)
            if header.kind != FrameKind.ROWS:
                raise self._wrong(header, f"no row {start}")
            if header.first_row + header.rows > start:
                yield self.decode(self._frame(at))
                start = header.first_row + header.rows
            at = header.end

    def frames(self) -> Iterator[Frame]:
        """All frames, each checked against those before. Raises FrameError at a broken one."""
        first_row = rows = 0
        sealed = False
        for number, frame in enumerate(walk_frames(self._descriptor, self.size)):
            if number == 0:
                self._head(frame)
                first_row = frame.first_row
            elif sealed or frame.kind == FrameKind.HEAD:
                raise self._wrong(frame, "a frame that does not belong there")
            expected = first_row if frame.kind == FrameKind.SEAL else first_row + rows
            if frame.number != number or frame.first_row != expected:
                raise self._wrong(frame, f"frame {frame.number} of row {frame.first_row}")
            rows += frame.rows
            sealed = frame.kind == FrameKind.SEAL
            yield frame

    def decode(self, frame: Frame) -> StoredRows:
        """The plain columns of a ROWS frame."""
        try:
            plain = _record_batch(frame.plain, frame_schema(self.batch_class))
        except ArrowError as error:
            raise self._wrong(frame, str(error)) from None
        if plain.num_rows != frame.rows:
            raise self._wrong(frame, f"{plain.num_rows} rows where {frame.rows} are announced")
        place = Place(self.stream, self.number, frame.number, frame.first_row, frame.rows)
        return StoredRows(frame, plain, place, self.batch_class)

    def _frame(self, at: int, *, body: bool = True) -> Frame:
        try:
            return read_frame(self._descriptor, at, self.size, body=body)
        except FrameError as error:
            raise JournalError(f"{self.path}: {error}") from None

    def _head(self, frame: Frame) -> Frame:
        """Check that a file is of this stream and segment, with the columns we know."""
        if frame.kind != FrameKind.HEAD or frame.rows:
            raise self._wrong(frame, "no head")
        try:
            plain = pa.ipc.read_schema(frame.plain)
            sealed = pa.ipc.read_schema(frame.sealed)
        except (pa.ArrowInvalid, OSError) as error:
            raise self._wrong(frame, str(error)) from None
        words = {k.decode(): v.decode() for k, v in (plain.metadata or {}).items()}
        if words != _words(self.stream, self.number):
            raise self._wrong(frame, f"a head that says {words}")
        if not plain.equals(frame_schema(self.batch_class)) or not sealed.equals(
            arrow_schema(self.batch_class, sealed=True)
        ):
            raise self._wrong(frame, "written with other columns than this version knows")
        return frame

    def _wrong(self, frame: Frame, why: str) -> JournalError:
        return JournalError(f"{self.path}: byte {frame.at}: {why}")


class SegmentWriter:
    """The open segment of a stream. After an OSError the file's end is unknown: open it anew."""

    def __init__(
        self,
        folder: Path,
        stream: str,
        number: int,
        first_row: int,
        keys: SegmentKeys,
        audit: bytes,
    ) -> None:
        """Begin a new segment file."""
        self._start(folder, stream, number, first_row, audit)
        self._key = keys.create(stream, number) if has_sealed(self._class) else None
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        sync_folder(self.path.parent)
        head = frame_schema(self._class).with_metadata(_words(stream, number)).serialize()
        sealed = arrow_schema(self._class, sealed=True).serialize()
        self._write(FrameKind.HEAD, first_row, 0, head, sealed)

    @classmethod
    def reopen(cls, folder: Path, scan: Scan, keys: SegmentKeys, audit: bytes) -> SegmentWriter:
        """Go on behind the last whole frame of an open segment; what follows is cut off."""
        self = cls.__new__(cls)
        found = scan.segment
        self._start(folder, found.stream, found.number, found.first_row, audit)
        self._key = keys.load(found.stream, found.number) if has_sealed(self._class) else None
        if self._key is None and has_sealed(self._class):
            raise JournalError(f"{self.path}: the key of this open segment was destroyed")
        self.size, self._frames, self._rows = scan.end, scan.frames, found.rows
        self._xor, self._sum = found.hash_xor, found.hash_sum
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.ftruncate(self._descriptor, scan.end)
        os.fsync(self._descriptor)
        sync_folder(self.path.parent)
        return self

    def _start(self, folder: Path, stream: str, number: int, first_row: int, audit: bytes) -> None:
        self.path = segment_path(folder, stream, number)
        self._stream, self._number, self._first_row = stream, number, first_row
        self._class, self._audit = STREAMS[stream], audit
        self.size = self._frames = self._rows = self._xor = self._sum = 0
        self._sealed = self._dirty = False

    @property
    def segment(self) -> Segment:
        """What is in the file now."""
        return Segment(
            self._stream,
            self._number,
            self._first_row,
            self._rows,
            self._xor,
            self._sum,
            self._sealed,
        )

    @property
    def room(self) -> int:
        """How many rows still fit."""
        return SEGMENT_ROWS - self._rows

    def append(self, batch: Batch) -> None:
        """Write the rows as one frame; they are safe after `sync`. There must be room for them."""
        assert not self._sealed
        assert 0 < len(batch) <= self.room
        sealed_hash = sealed_hashes(batch, self._audit) if self._key is not None else None
        row_hash = row_hashes(batch, self._audit, sealed_hash)
        plain = to_arrow(batch)
        arrays = [*plain.columns, pa.array(row_hash)]
        arrays += [pa.array(sealed_hash)] if sealed_hash is not None else []
        body = pa.RecordBatch.from_arrays(arrays, schema=frame_schema(self._class)).serialize()
        first_row, sealed = self._first_row + self._rows, NOTHING
        if self._key is not None:
            place = Place(self._stream, self._number, self._frames, first_row, len(batch))
            secret = to_arrow(batch, sealed=True).serialize()
            sealed = pa.py_buffer(self._key.seal(secret, place))
        self._write(FrameKind.ROWS, first_row, len(batch), body, sealed)
        self._rows += len(batch)
        self._xor ^= int(np.bitwise_xor.reduce(row_hash))
        self._sum = (self._sum + int(np.add.reduce(row_hash))) % (1 << 64)

    def sync(self) -> None:
        """Make durable what was appended."""
        if self._dirty:
            crash_point("journal.before_fsync")
            os.fsync(self._descriptor)
            self._dirty = False
            crash_point("journal.after_fsync")

    def seal(self) -> None:
        """Fix the bounds: nothing is appended after this. Durable when it returns."""
        crash_point("journal.before_seal")
        body = SEAL_BODY.pack(self._rows, self._xor, self._sum)
        self._write(FrameKind.SEAL, self._first_row, 0, pa.py_buffer(body), NOTHING)
        self.sync()
        self._sealed = True
        crash_point("journal.after_seal")

    def close(self) -> None:
        """Give back the file."""
        os.close(self._descriptor)

    def _write(
        self, kind: FrameKind, first_row: int, rows: int, plain: pa.Buffer, sealed: pa.Buffer
    ) -> None:
        parts = encode_frame(kind, self._frames, first_row, rows, plain, sealed)
        crash_point("journal.before_write")
        crash_point("journal.half_frame", half=lambda: self._write_half(parts))
        self._dirty = True
        write_all(self._descriptor, parts)
        self._frames += 1
        self.size += sum(part.size for part in parts)

    def _write_half(self, parts: list[pa.Buffer]) -> None:
        whole = b"".join(part.to_pybytes() for part in parts)
        os.write(self._descriptor, whole[: len(whole) // 2])


@dataclass(frozen=True, slots=True)
class Scan:
    """What is whole in a segment file: `end` bytes of `size`; `broken` says why the rest is not."""

    segment: Segment
    frames: int
    end: int
    size: int
    broken: str


def scan_segment(folder: Path, stream: str, number: int) -> Scan:
    """Read a segment file up to its end or the first frame that is not whole and intact."""
    end = frames = first_row = rows = hash_xor = hash_sum = 0
    sealed, broken = False, ""
    with SegmentReader(folder, stream, number) as reader:
        try:
            for frame in reader.frames():
                if frame.kind == FrameKind.HEAD:
                    first_row = frame.first_row
                elif frame.kind == FrameKind.ROWS:
                    row_hash = reader.decode(frame).row_hash
                    hash_xor ^= int(np.bitwise_xor.reduce(row_hash, initial=0))
                    hash_sum = (hash_sum + int(np.add.reduce(row_hash))) % (1 << 64)
                sealed = frame.kind == FrameKind.SEAL
                end, frames, rows = frame.end, frames + 1, rows + frame.rows
        except FrameError as error:
            broken = f"{reader.path}: {error}"
        segment = Segment(stream, number, first_row, rows, hash_xor, hash_sum, sealed)
        return Scan(segment, frames, end, reader.size, broken)


def unseal_key(keys: SegmentKeys, stream: str, number: int) -> SegmentKey | None:
    """A segment's key; None where it was destroyed or nothing is sealed. Raises JournalError."""
    if not has_sealed(STREAMS[stream]):
        return None
    try:
        return keys.load(stream, number)
    except SealingError as error:
        raise JournalError(str(error)) from None


def _words(stream: str, number: int) -> dict[str, str]:
    return {"format": FORMAT, "segment": str(number), "stream": stream}


def _record_batch(raw: pa.Buffer, schema: pa.Schema) -> pa.RecordBatch:
    try:
        found = pa.ipc.read_record_batch(raw, schema)
        found.validate()
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise ArrowError(f"not a record batch: {error}") from None
    return found
