"""Reading a journal again, every byte of it, and saying what is not as it was written.

Checked of each segment: the checksum, number and first row of every frame, the row hashes against
the columns, the sealed parts against their tags and their hashes (where the key was not destroyed),
the digest and bounds in the seal; of the whole: that rows have no gaps, that nothing durable is
missing, that every key file is whole, and that no file lies about that the journal does not know. A
broken frame behind the synced mark at the end of a stream is no finding: the next writer cuts it
off.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.kernels.rowhash import sealed_hashes
from pipeline.model.batches import STREAMS
from pipeline.store.arrow import ArrowError
from pipeline.store.frames import Frame, FrameError, FrameKind
from pipeline.store.sealing import SegmentKey, SegmentKeys
from pipeline.store.segment import (
    SEAL_BODY,
    SEGMENT_ROWS,
    JournalError,
    SegmentReader,
    StoredRows,
    has_sealed,
    segment_count,
    segment_path,
    unseal_key,
)
from pipeline.store.synced import Synced, SyncedMark

BESIDE = {"keys", "lock", "synced", "synced.new", *STREAMS}


def verify_journal(folder: Path, audit_key: bytes, keys: SegmentKeys) -> list[str]:
    """All that is wrong with the journal in `folder`, a line each; empty where nothing is."""
    problems = _strays(folder, keys)
    marks: dict[str, Synced] = {}
    try:
        mark = SyncedMark(folder / "synced")
        problems += [f"{folder / 'synced'}: {damage}" for damage in mark.damaged]
        marks = mark.streams
    except (OSError, ValueError) as error:
        problems.append(str(error))
    for stream in STREAMS:
        check = _StreamCheck(folder, stream, audit_key, keys, marks.get(stream, Synced()))
        check.run()
        problems += check.problems
    return problems


class _StreamCheck:
    """Goes through the segments of one stream."""

    def __init__(
        self, folder: Path, stream: str, audit_key: bytes, keys: SegmentKeys, synced: Synced
    ) -> None:
        self._folder, self._stream, self._audit = folder, stream, audit_key
        self._keys, self._synced = keys, synced
        self._row = 0
        self.problems: list[str] = []

    def run(self) -> None:
        count = segment_count(self._folder, self._stream)
        for number in range(count):
            try:
                with SegmentReader(self._folder, self._stream, number) as reader:
                    self._segment(reader, last=number == count - 1)
            except (JournalError, ArrowError) as error:
                self.problems.append(str(error))
        if self._row < self._synced.rows:
            self._say(f"{self._synced.rows} rows were durable, {self._row} could be read")

    def _say(self, problem: str) -> None:
        self.problems.append(f"{self._folder / self._stream}: {problem}")

    def _segment(self, reader: SegmentReader, *, last: bool) -> None:
        first_row, hash_xor, hash_sum, at, sealed = self._row, 0, 0, 0, False
        key = self._key(reader.number)
        try:
            for frame in reader.frames():
                if frame.kind == FrameKind.HEAD and frame.first_row != self._row:
                    self._say(
                        f"segment {reader.number} begins at {frame.first_row}, not {self._row}"
                    )
                    first_row = self._row = frame.first_row
                if frame.kind == FrameKind.ROWS:
                    row_hash = self._rows(reader.decode(frame), key)
                    hash_xor ^= int(np.bitwise_xor.reduce(row_hash, initial=0))
                    hash_sum = (hash_sum + int(np.add.reduce(row_hash))) % (1 << 64)
                    self._row = frame.first_row + frame.rows
                if frame.kind == FrameKind.SEAL:
                    self._seal(reader.number, frame, (self._row - first_row, hash_xor, hash_sum))
                    sealed = True
                at = frame.end
        except FrameError as error:
            if not last or at < self._durable(reader.number):
                self.problems.append(f"{reader.path}: {error}")
            return
        if not sealed and not last:
            self._say(f"segment {reader.number} is not sealed")
        if at < self._durable(reader.number):
            self._say(f"segment {reader.number} ends at byte {at}, before what was durable")
        if self._row - first_row > SEGMENT_ROWS:
            self._say(f"segment {reader.number} has more than {SEGMENT_ROWS} rows")

    def _durable(self, number: int) -> int:
        return self._synced.size if number == self._synced.segment else 0

    def _key(self, number: int) -> SegmentKey | None:
        try:
            return unseal_key(self._keys, self._stream, number)
        except JournalError as error:
            self.problems.append(str(error))
            return None

    def _rows(self, rows: StoredRows, key: SegmentKey | None) -> np.ndarray:
        """Check the rows of a frame; their row hashes as they ought to be."""
        frame = rows.frame
        try:
            rows.plain.validate(full=True)
        except pa.ArrowInvalid as error:
            self._say(f"rows from {frame.first_row}: {error}")
        computed = rows.computed_hash(self._audit)
        self._compare(frame, computed, rows.row_hash, "row hash does not fit its columns")
        stored = rows.sealed_hash
        if stored is None and frame.sealed.size:
            self._say(f"rows from {frame.first_row}: a sealed part where nothing is sealed")
        if stored is not None and key is not None:
            try:
                opened = sealed_hashes(rows.batch(key), self._audit)
                self._compare(frame, opened, stored, "sealed hash does not fit its columns")
            except JournalError as error:
                self.problems.append(str(error))
        return computed

    def _compare(self, frame: Frame, found: np.ndarray, stored: np.ndarray, what: str) -> None:
        for row in np.flatnonzero(found != stored)[:3].tolist():
            self._say(f"row {frame.first_row + row}: its {what}")

    def _seal(self, number: int, frame: Frame, expected: tuple[int, int, int]) -> None:
        if frame.plain.size != SEAL_BODY.size or SEAL_BODY.unpack(frame.plain) != expected:
            self._say(f"segment {number}: its seal does not fit its rows")


def _strays(folder: Path, keys: SegmentKeys) -> list[str]:
    """Files that the journal did not make, or made and has no use for."""
    known = set()
    for stream in STREAMS:
        count = segment_count(folder, stream)
        known |= {segment_path(folder, stream, number) for number in range(count)}
        if has_sealed(STREAMS[stream]):
            # One more: a crash may come between the making of a key and of its segment.
            known |= {keys.path(stream, number) for number in range(count + 1)}
    found = [path for path in folder.iterdir() if path.name not in BESIDE]
    for name in ("keys", *STREAMS):
        if (folder / name).is_dir():
            found += [path for path in (folder / name).iterdir() if path not in known]
    return [f"{path}: does not belong here" for path in sorted(found)]
