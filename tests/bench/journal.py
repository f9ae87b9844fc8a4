"""How fast the journal is, beside the disk it stands on: `python -m tests.bench.journal [ROWS]`.

Visits of 4,096 rows a batch are hashed, encoded, written, and fsynced every 65,536 rows. The limit
is the same bytes written by one loop in the same pieces, with as many fsyncs, to one file in the
same folder. Then the rows are read, hashed again from the disk, verified, and compared as a
resumed run compares them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from pipeline.kernels.rowhash import row_hashes
from pipeline.model.batches import VisitBatch
from pipeline.model.columns import TextColumn, columns_of
from pipeline.model.identifiers import Keys
from pipeline.store.frames import walk_frames
from pipeline.store.journal import Journal
from tests.bench.figures import Figure, machine, repeat

KEYS = Keys.from_seed("journal bench")
BATCH_ROWS = 4096
SYNC_ROWS = 65_536
RUNS = 3
HASH, APPEND, RAW = "row hash", "append and fsync", "raw write and fsync"
PARTNERS = ("acme-shop", "bolt-mobile", "corner-books", "delta-travel")


def visits(rows: int, seed: int) -> VisitBatch:
    """Visit rows with the partners and the marks of a usual day."""
    drawn = np.random.default_rng(seed)
    values: dict[str, object] = {}
    for column in columns_of(VisitBatch):
        if column.dtype is not None:
            raw = drawn.bytes(rows * column.dtype.itemsize)
            values[column.name] = np.frombuffer(raw, column.dtype).copy()
    values["partner"] = TextColumn.of([PARTNERS[n] for n in drawn.integers(0, 4, rows)])
    for name in ("tracker", "mark"):
        marked = drawn.random(rows) < 0.05
        values[name] = TextColumn.of(["affiliate" if m else "" for m in marked])
    return VisitBatch(**values)  # type: ignore[arg-type]


def write_journal(folder: Path, batches: list[VisitBatch]) -> None:
    """Append all batches, durable every SYNC_ROWS rows."""
    with Journal(folder, KEYS) as journal:
        rows = 0
        for batch in batches:
            journal.append("visits", batch)
            rows += len(batch)
            if rows % SYNC_ROWS == 0:
                journal.sync()


def pieces_of(folder: Path) -> list[list[bytes]]:
    """The bytes of the journal's frames, a list per segment."""
    found = []
    for path in sorted((folder / "visits").iterdir()):
        raw = path.read_bytes()
        with path.open("rb") as file:
            ends = [frame.end for frame in walk_frames(file.fileno(), len(raw))]
        found.append([raw[a:b] for a, b in zip([0, *ends], ends, strict=False)])
    return found


def write_raw(path: Path, segments: list[list[bytes]]) -> None:
    """The same bytes with the same fsyncs, and nothing else."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for pieces in segments:
        for piece in pieces:
            os.write(descriptor, piece)
        os.fsync(descriptor)
    os.close(descriptor)
    path.unlink()


def read_journal(folder: Path) -> None:
    with Journal(folder, KEYS, writable=False) as journal:
        assert sum(len(batch) for batch in journal.read("visits")) == journal.rows("visits")


def hash_journal(folder: Path) -> None:
    with Journal(folder, KEYS, writable=False) as journal:
        journal.hash()


def verify_journal(folder: Path) -> None:
    with Journal(folder, KEYS, writable=False) as journal:
        assert journal.verify() == []


def resume_journal(folder: Path, batches: list[VisitBatch]) -> None:
    with Journal(folder, KEYS) as journal:
        journal.resume()
        for batch in batches:
            journal.append("visits", batch)
        assert not journal.resuming


def measure(rows: int, folder: Path, runs: int) -> dict[str, Figure]:
    """Figures by what was done to `rows` visits, in a folder that is left as it was."""
    batches = [visits(BATCH_ROWS, seed) for seed in range(max(1, rows // BATCH_ROWS))]
    journal, count = folder / "journal", len(batches) * BATCH_ROWS

    def write() -> None:
        shutil.rmtree(journal, ignore_errors=True)
        write_journal(journal, batches)

    write()
    segments = pieces_of(journal)
    found = repeat(
        [
            (HASH, count, lambda: [row_hashes(batch, KEYS.audit) for batch in batches]),
            (APPEND, count, write),
            (RAW, count, lambda: write_raw(folder / "raw", segments)),
            ("read", count, lambda: read_journal(journal)),
            ("journal hash, from disk", count, lambda: hash_journal(journal)),
            ("verify", count, lambda: verify_journal(journal)),
            ("resume: hash and compare", count, lambda: resume_journal(journal, batches)),
        ],
        runs,
    )
    shutil.rmtree(journal)
    return found


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 8 * SYNC_ROWS
    with tempfile.TemporaryDirectory(prefix="journal-bench-") as folder:
        found = measure(rows, Path(folder), RUNS)
    lines = [machine(), f"{rows:,} visits, {BATCH_ROWS:,} a batch, fsync every {SYNC_ROWS:,} rows"]
    for figure in found.values():
        share = found[RAW].seconds / figure.seconds
        busy = "  busy" if figure.disturbed and figure.name not in (APPEND, RAW) else ""
        lines.append(f"  {figure.name:32}{figure.rate:14,.0f} rows/s {share:6.2f} x raw{busy}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
