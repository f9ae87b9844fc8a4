"""A process that delivers a journal and entries to a store, to be killed: FOLDER, with a journal.

`python -m tests.store.deliver_rows FOLDER` projects FOLDER/journal into FOLDER/clickhouse, delivers
the entries of `some_entries` and compares. The journal is made first if there is none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pipeline.model.batches import STREAMS, EntryBatch
from pipeline.store.clickhouse import ClickHouse
from pipeline.store.journal import Journal
from tests.store.making import KEYS, some_rows
from tests.store.test_clickhouse_rows import storable_rows

ROWS = 700
ENTRIES = 900


def make_journal(folder: Path) -> None:
    """A journal with rows in every stream, in two segments each."""
    with Journal(folder / "journal", KEYS) as journal:
        for part in range(2):
            for stream in STREAMS:
                journal.append(stream, storable_rows(stream, ROWS + part, seed=part))
            journal.seal()


def some_entries(rows: int = ENTRIES) -> EntryBatch:
    """Entries numbered from 1."""
    return some_rows(EntryBatch, rows).with_columns(sequence=np.arange(1, rows + 1))


def deliver(folder: Path) -> None:
    """Bring the store up to the journal and the entries."""
    store = ClickHouse(f"chdb://{folder}/clickhouse")
    with Journal(folder / "journal", KEYS) as journal:
        store.project(journal)
        entries = some_entries()
        for start in range(0, ENTRIES, 400):
            store.deliver_entries(entries.slice(start, start + 400))
        store.verify_against(journal)
    assert store.entries_delivered() == ENTRIES
    store.close()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if not (target / "journal").exists():
        make_journal(target)
    deliver(target)
