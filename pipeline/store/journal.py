"""The journal: everything the money side rests on, append-only, in a folder.

    JOURNAL/STREAM/000000000000.segment    frames (`frames.py`) of one segment (`segment.py`)
    JOURNAL/keys/STREAM-000000000000.key   a segment's key, wrapped (`sealing.py`)
    JOURNAL/synced                         how far each stream is durable (`synced.py`)
    JOURNAL/lock                           held by the one writer

A stream is rows in one order, counted from 0. Rows wait in memory until there are enough for a
frame; they are safe when `sync` has returned, and not before. `seal` fixes the bounds of the open
segments, which is what makes them fit for delivery. How rows were cut into batches, frames and
segments changes neither what is read nor `hash`.

On opening, a broken frame at the end of a stream is cut off (a reader passes over it) where it lies
behind the synced mark: nobody was told that it is safe. Before the mark it is damage, and an error.

`resume` makes the journal compare before it appends: whoever derives its rows again from the start
is held to what was written before, row by row, and goes on where that ends.

Sketch: a visit is 244 bytes on disk; hashing it is 250 ns, encoding, checksum and copies 200 ns, an
fsync of 65,536 rows the rest. Measured with `tests/bench/journal.py`: 1.7 million visits/s.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from pipeline.kernels.rowhash import row_hashes
from pipeline.model.batches import STREAMS
from pipeline.model.columns import Batch, TextColumn, columns_of, concat, stored_columns
from pipeline.model.identifiers import Keys
from pipeline.store.lock import OwnerLock
from pipeline.store.sealing import SegmentKey, SegmentKeys
from pipeline.store.segment import (
    SEGMENT_ROWS,
    JournalError,
    Segment,
    SegmentReader,
    SegmentWriter,
    StoredRows,
    has_sealed,
    read_segment_end,
    scan_segment,
    segment_count,
    segment_path,
    unseal_key,
)
from pipeline.store.synced import Synced, SyncedMark, sync_file, sync_folder
from pipeline.store.verify import verify_journal

__all__ = [
    "SEGMENT_ROWS",
    "Journal",
    "JournalError",
    "JournalMismatch",
    "Segment",
    "SegmentRows",
]

FRAME_ROWS = 4096  # rows that wait in memory before they become a frame
FRAME_TEXT_BYTES = 32 << 20  # text that waits in memory, and that one frame may hold


class JournalMismatch(JournalError):
    """While resuming, a row came out other than the one the journal has at that offset."""

    def __init__(self, stream: str, row: int, columns: tuple[str, ...]) -> None:
        what = f" in {', '.join(columns)}" if columns else ""
        super().__init__(
            f"row {row} of {stream} differs from what the journal has{what}: input, rules, keys or "
            "program are not those of the first time"
        )
        self.stream, self.row, self.columns = stream, row, columns


class SegmentRows(NamedTuple):
    """The rows of a segment and their row hashes (uint64)."""

    batch: Batch
    row_hash: np.ndarray


class _Stream:
    """What the journal keeps in memory of one stream."""

    def __init__(self, name: str) -> None:
        self.name, self.batch_class = name, STREAMS[name]
        self.closed: list[Segment] = []
        self.writer: SegmentWriter | None = None
        self.tail: Segment | None = None  # a reader's open segment
        self.pending: list[Batch] = []
        self.pending_rows = 0
        self.pending_text = 0
        self.prefix: Iterator[np.ndarray] | None = None  # row hashes still to be compared
        self.prefix_left = np.zeros(0, np.uint64)
        self.compared = 0
        self.synced = Synced()
        self.digest = hashlib.blake2b(digest_size=32)
        self.digested = 0

    @property
    def stored(self) -> int:
        """Rows in files."""
        if self.writer is not None:
            return self.writer.segment.end
        last = self.tail or (self.closed[-1] if self.closed else None)
        return last.end if last is not None else 0

    def segments(self) -> list[Segment]:
        """All segments that hold rows."""
        tail = self.writer.segment if self.writer is not None else self.tail
        return [*self.closed, tail] if tail is not None and tail.rows else list(self.closed)

    @property
    def rows(self) -> int:
        """Rows in the stream: those that were compared while it is resuming, else all."""
        return self.compared if self.prefix is not None else self.stored + self.pending_rows


class Journal:
    """The journal in `folder`, for one writer or any number of readers.

    A reader sees what was there when it opened. Several threads may share a Journal. Raises
    JournalError where it is damaged, LockError where another process writes it.
    """

    def __init__(self, folder: Path, keys: Keys, *, writable: bool = True) -> None:
        self.folder = Path(folder)
        self._audit = keys.audit
        self._segment_keys = SegmentKeys(self.folder / "keys", keys.seal)
        self._writable, self._closed = writable, False
        self._failure: str | None = None
        self._mutex = threading.RLock()
        self._lock: OwnerLock | None = None
        self._streams = {name: _Stream(name) for name in STREAMS}
        if writable:
            for needed in (self.folder, self.folder / "keys"):
                if not needed.is_dir():
                    needed.mkdir(parents=True, exist_ok=True, mode=0o700)
                    sync_folder(needed.parent)
            self._lock = OwnerLock(self.folder / "lock")
            self._lock.acquire()
        elif not self.folder.is_dir():
            raise JournalError(f"{self.folder}: there is no journal")
        try:
            self._mark = self._open_mark()
            for stream in self._streams.values():
                self._open_stream(stream)
            if writable:
                self._write_mark(durable=True)
        except BaseException:
            self._give_back()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, stream: str, batch: Batch) -> None:
        """Add rows at the end of a stream; they are safe after `sync`.

        The arrays of the batch must not change until then. While resuming, rows that the stream has
        already are compared and not added; the first that differs raises JournalMismatch.
        """
        with self._mutex:
            self._check_writable()
            into = self._streams[stream]
            if type(batch) is not into.batch_class:
                raise TypeError(f"stream {stream} takes {into.batch_class.__name__}")
            known = self._compare(into, batch) if into.prefix is not None and len(batch) else 0
            if known == len(batch):
                return
            batch = batch.slice(known, len(batch)) if known else batch
            into.pending.append(batch)
            into.pending_rows += len(batch)
            into.pending_text += _text_bytes(batch)
            if into.pending_rows >= FRAME_ROWS or into.pending_text >= FRAME_TEXT_BYTES:
                self._flush(into)

    def sync(self) -> None:
        """Make every appended row durable."""
        with self._mutex:
            self._check_writable()
            dirty = False
            for stream in self._streams.values():
                self._flush(stream)
                dirty |= self._sync_stream(stream)
            if dirty:
                self._write_mark()

    def seal(self) -> None:
        """Fix bounds so that every row of `position()` is in a sealed segment. Durable."""
        with self._mutex:
            self._check_writable()
            for stream in self._streams.values():
                self._flush(stream)
                writer = stream.writer
                # While resuming, an open segment may hold only rows that are still to be compared.
                if writer is not None and stream.rows > writer.segment.first_row:
                    self._seal_stream(stream)
            self._write_mark()

    def close(self) -> None:
        """Make everything durable and give the journal back."""
        with self._mutex:
            if self._closed:
                return
            try:
                if self._writable and self._failure is None:
                    self.sync()
                    self._write_mark(durable=True)
            finally:
                self._give_back()

    def rows(self, stream: str) -> int:
        """How many rows a stream has; while resuming, how many were compared or added."""
        return self._streams[stream].rows

    def position(self) -> dict[str, int]:
        """The rows of every stream."""
        with self._mutex:
            return {name: stream.rows for name, stream in self._streams.items()}

    def resume(self, start: Mapping[str, int] | None = None) -> None:
        """Compare what is appended with the rows from `start` on (a position), skip what is equal.

        `start` is 0 in every stream by default. Each stream goes on where its rows are used up.
        """
        with self._mutex:
            self._check_writable()
            for name, stream in self._streams.items():
                self._flush(stream)
                first = (start or {}).get(name, 0)
                if not 0 <= first <= stream.stored:
                    raise ValueError(f"{name} has {stream.stored} rows, cannot resume at {first}")
                stream.compared, stream.prefix_left = first, np.zeros(0, np.uint64)
                stream.prefix = None
                if first < stream.stored:
                    stream.prefix = self._stored_hashes(stream, first)

    @property
    def resuming(self) -> bool:
        """Are there rows that were not compared yet?"""
        return any(stream.prefix is not None for stream in self._streams.values())

    @property
    def whole(self) -> bool:
        """Did every write succeed? After one that failed nobody knows where its file ends."""
        return self._failure is None

    def unmatched(self) -> dict[str, int]:
        """While resuming, how many rows are still to be compared, by stream; 0 is left out."""
        found = {n: s.stored - s.compared for n, s in self._streams.items() if s.prefix is not None}
        return {name: rows for name, rows in found.items() if rows}

    def read(
        self, stream: str, start: int = 0, stop: int | None = None, unseal: bool = False
    ) -> Iterator[Batch]:
        """The rows `start` up to `stop` (by default `rows(stream)`), in batches of whatever size.

        Sealed columns are empty unless `unseal`, and stay so where the segment's key was destroyed.
        """
        with self._mutex:
            source = self._streams[stream]
            self._flush(source)
            stop = source.rows if stop is None else min(stop, source.stored)
            segments = source.segments()
        return self._read(segments, max(start, 0), stop, unseal)

    def segments(self, stream: str) -> list[Segment]:
        """The segments of a stream that hold rows, in order; only the last may be open."""
        with self._mutex:
            self._flush(self._streams[stream])
            return self._streams[stream].segments()

    def read_segment(self, segment: Segment, unseal: bool = False) -> SegmentRows:
        """All rows of a segment, with their row hashes."""
        key = self._key(segment) if unseal else None
        batches, hashes = [], []
        for rows in self._frames(segment, segment.first_row, segment.end):
            batches.append(rows.batch(key))
            hashes.append(rows.row_hash)
        found = SegmentRows(concat(batches), np.concatenate(hashes))
        if len(found.batch) != segment.rows:
            raise JournalError(f"{segment.stream}: segment {segment.number} lacks rows")
        return found

    def destroy_key(self, segment: Segment) -> None:
        """End a sealed segment's key: its sealed columns are never read again, all else is."""
        with self._mutex:
            self._check_writable()
            if segment not in self._streams[segment.stream].closed:
                raise JournalError(f"{segment.stream}: segment {segment.number} is not sealed")
            if has_sealed(STREAMS[segment.stream]):
                self._segment_keys.destroy(segment.stream, segment.number)

    def hash(self) -> str:
        """The journal hash: 64 hex digits over all rows, recomputed from the columns on disk.

        A stream without rows adds nothing, so a new kind of stream leaves old hashes as they are.
        """
        with self._mutex:
            whole = hashlib.blake2b(digest_size=32)
            for name, stream in self._streams.items():
                self._flush(stream)
                for segment in stream.segments():
                    for rows in self._frames(segment, stream.digested, segment.end):
                        fresh = rows.computed_hash(self._audit)
                        stream.digest.update(
                            fresh[stream.digested - rows.frame.first_row :].tobytes()
                        )
                        stream.digested = rows.frame.first_row + rows.frame.rows
                if stream.digested:
                    whole.update(f"{name} {stream.digested} {stream.digest.hexdigest()}\n".encode())
            return whole.hexdigest()

    def verify(self) -> list[str]:
        """Read every byte again; a line for each thing that is not as it was written."""
        with self._mutex:
            if self._writable and not self._closed:
                for stream in self._streams.values():
                    self._flush(stream)
            return verify_journal(self.folder, self._audit, self._segment_keys)

    # Opening

    def _open_mark(self) -> SyncedMark:
        path = self.folder / "synced"
        if not path.exists():
            if any((self.folder / name).exists() for name in STREAMS):
                raise JournalError(f"{path}: missing; without it lost rows would not be noticed")
            if not self._writable:
                raise JournalError(f"{self.folder}: there is no journal")
            return SyncedMark.create(path)
        try:
            return SyncedMark(path)
        except ValueError as error:
            raise JournalError(str(error)) from None

    def _open_stream(self, stream: _Stream) -> None:
        """Find the segments of a stream; cut off a torn end, or pass over it."""
        stream.synced = self._mark.streams.get(stream.name, Synced())
        count = segment_count(self.folder, stream.name)
        if count <= stream.synced.segment and stream.synced.size:
            raise JournalError(
                f"{self.folder / stream.name}: segment {stream.synced.segment} is missing"
            )
        for number in range(count):
            path = segment_path(self.folder, stream.name, number)
            if not path.exists():
                raise JournalError(f"{path}: this segment is missing")
            found = read_segment_end(path, stream.name, number)
            if found is None or not stream.synced.covers(number, path.stat().st_size):
                self._open_tail(stream, number, found, last=number == count - 1)
            elif found.first_row != stream.stored:
                raise JournalError(f"{path}: begins at row {found.first_row}, not {stream.stored}")
            else:
                stream.closed.append(found)
        if stream.stored < stream.synced.rows:
            raise JournalError(
                f"{self.folder / stream.name}: {stream.synced.rows} rows were durable, "
                f"{stream.stored} are left"
            )
        if self._writable and stream.writer is None and stream.closed:
            self._confirm(stream)

    def _open_tail(self, stream: _Stream, number: int, seal: Segment | None, *, last: bool) -> None:
        """Take up a segment behind the mark. Only the last one may lack its seal, or be torn.

        That a seal is there does not say that everything before it reached the disk.
        """
        scan = scan_segment(self.folder, stream.name, number)
        path = segment_path(self.folder, stream.name, number)
        if seal is not None and scan.segment == seal and seal.first_row == stream.stored:
            stream.closed.append(seal)
            return
        durable = stream.synced.size if number == stream.synced.segment else 0
        if not last or number < stream.synced.segment or scan.end < durable or scan.segment.sealed:
            raise JournalError(
                scan.broken
                or f"{path}: {scan.end} bytes, {durable} of a sealed segment are expected"
            )
        if scan.frames and scan.segment.first_row != stream.stored:
            raise JournalError(
                f"{path}: begins at row {scan.segment.first_row}, not {stream.stored}"
            )
        if not self._writable:
            stream.tail = scan.segment if scan.frames else None
        elif scan.frames:
            stream.writer = SegmentWriter.reopen(self.folder, scan, self._segment_keys, self._audit)
        else:  # not even its head was written
            path.unlink()
            sync_folder(path.parent)

    def _confirm(self, stream: _Stream) -> None:
        """Make a seal durable that was written right before a crash."""
        last = stream.closed[-1]
        path = segment_path(self.folder, stream.name, last.number)
        found = Synced(last.number, path.stat().st_size, last.end)
        if found != stream.synced:
            sync_file(path)
            sync_folder(path.parent)
            stream.synced = found

    # Writing

    def _check_writable(self) -> None:
        if self._closed:
            raise JournalError(f"{self.folder}: the journal was closed")
        if not self._writable:
            raise JournalError(f"{self.folder}: the journal was opened for reading")
        if self._failure is not None:
            raise JournalError(
                f"{self.folder}: nothing is written after a failed write ({self._failure}); "
                "mend the cause and start again"
            )

    def _flush(self, stream: _Stream) -> None:
        """Write what waits in memory as frames, into as many segments as it takes."""
        if not stream.pending or self._failure is not None:
            return
        waiting = concat(stream.pending)
        stream.pending, stream.pending_rows, stream.pending_text = [], 0, 0
        try:
            at = 0
            while at < len(waiting):
                writer = self._writer(stream)
                stop = min(at + writer.room, len(waiting))
                part = waiting if stop - at == len(waiting) else waiting.slice(at, stop)
                while _text_bytes(part) > FRAME_TEXT_BYTES and len(part) > 1:
                    part = part.slice(0, len(part) // 2)
                writer.append(part)
                at += len(part)
                if writer.room == 0:
                    self._seal_stream(stream)
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """Write no more until the journal is opened again, which finds out what is there.

        The end of a file is unknown, or an fsync dropped pages that a second one would not miss.
        """
        self._failure = f"{type(error).__name__}: {error}"

    def _writer(self, stream: _Stream) -> SegmentWriter:
        if stream.writer is None:
            folder = self.folder / stream.name
            if not folder.exists():
                folder.mkdir(mode=0o700)
                sync_folder(self.folder)
            stream.writer = SegmentWriter(
                self.folder,
                stream.name,
                len(stream.closed),
                stream.stored,
                self._segment_keys,
                self._audit,
            )
        return stream.writer

    def _sync_stream(self, stream: _Stream) -> bool:
        """Make a stream's file durable; was there anything to do?"""
        if stream.writer is None:
            return False
        try:
            stream.writer.sync()
        except BaseException as error:
            self._fail(error)
            raise
        found, before = stream.writer.segment, stream.synced
        stream.synced = Synced(found.number, stream.writer.size, found.end)
        return before != stream.synced

    def _seal_stream(self, stream: _Stream) -> None:
        assert stream.writer is not None
        try:
            stream.writer.seal()
        except BaseException as error:
            self._fail(error)
            raise
        self._sync_stream(stream)
        stream.closed.append(stream.writer.segment)
        stream.writer.close()
        stream.writer = None

    def _write_mark(self, *, durable: bool = False) -> None:
        found = {}
        for name, stream in self._streams.items():
            self._sync_stream(stream)
            if stream.synced.size:
                found[name] = stream.synced
        if durable or found != self._mark.streams:
            self._mark.write(found, durable=durable)

    def _give_back(self) -> None:
        self._closed = True
        for stream in self._streams.values():
            if stream.writer is not None:
                stream.writer.close()
                stream.tail, stream.writer = stream.writer.segment, None
        if self._lock is not None:
            self._lock.release()

    # Resuming

    def _compare(self, stream: _Stream, batch: Batch) -> int:
        """Hold rows against the stored ones; how many of them were stored already."""
        count = min(len(batch), stream.stored - stream.compared)
        stored = self._next_hashes(stream, count)
        given = row_hashes(batch, self._audit)[:count]
        different = np.flatnonzero(given != stored)
        if len(different):
            row = int(different[0])
            offset = stream.compared + row
            raise JournalMismatch(stream.name, offset, self._differing(stream, offset, batch, row))
        stream.compared += count
        if stream.compared == stream.stored:
            stream.prefix = None
        return count

    def _next_hashes(self, stream: _Stream, count: int) -> np.ndarray:
        assert stream.prefix is not None
        parts, left = [], count
        while left:
            if not len(stream.prefix_left):
                stream.prefix_left = next(stream.prefix)
            part = stream.prefix_left[:left]
            stream.prefix_left = stream.prefix_left[len(part) :]
            parts.append(part)
            left -= len(part)
        return np.concatenate(parts) if parts else np.zeros(0, np.uint64)

    def _stored_hashes(self, stream: _Stream, start: int) -> Iterator[np.ndarray]:
        for segment in stream.segments():
            for rows in self._frames(segment, start, segment.end):
                yield rows.row_hash[max(start - rows.frame.first_row, 0) :]

    def _differing(self, stream: _Stream, offset: int, batch: Batch, row: int) -> tuple[str, ...]:
        """The columns in which a row differs from the stored one; names, never what is in them."""
        found = next(self._read(stream.segments(), offset, offset + 1, False))
        plain = [c.name for c in stored_columns(type(batch)) if not c.sealed]
        names = [n for n in plain if _cell(found, n, 0) != _cell(batch, n, row)]
        return tuple(names) or ("a sealed column",)

    # Reading

    def _read(
        self, segments: list[Segment], start: int, stop: int, unseal: bool
    ) -> Iterator[Batch]:
        for segment in segments:
            if segment.end <= start or segment.first_row >= stop:
                continue
            key = self._key(segment) if unseal else None
            for rows in self._frames(segment, start, min(stop, segment.end)):
                batch, first = rows.batch(key), rows.frame.first_row
                if first < start or rows.frame.rows > stop - first:
                    batch = batch.slice(start - first, stop - first)
                yield batch

    def _frames(self, segment: Segment, start: int, stop: int) -> Iterator[StoredRows]:
        if start >= stop:
            return
        with SegmentReader(self.folder, segment.stream, segment.number) as reader:
            yield from reader.read(max(start, segment.first_row), stop)

    def _key(self, segment: Segment) -> SegmentKey | None:
        return unseal_key(self._segment_keys, segment.stream, segment.number)


def _text_bytes(batch: Batch) -> int:
    found = 0
    for column in columns_of(type(batch)):
        if column.dtype is None:
            text: TextColumn = getattr(batch, column.name)
            found += int(text.offsets[-1] - text.offsets[0])
    return found


def _cell(batch: Batch, name: str, row: int) -> bytes:
    values = getattr(batch, name)
    return values[row] if isinstance(values, TextColumn) else values[row : row + 1].tobytes()
