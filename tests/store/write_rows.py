"""A process that writes a journal and may be killed: `python -m tests.store.write_rows FOLDER`.

It appends the same rows each time, in small batches, with syncs and seals between, and says after
each sync how many rows of each stream it was promised.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pipeline.model.batches import STREAMS
from pipeline.store import segment
from pipeline.store.journal import Journal
from tests.store.making import KEYS, some_rows

ROWS = {name: some_rows(STREAMS[name], 120) for name in ("bindings", "visits", "cuts")}
STEP = 8
SEGMENT_ROWS = 50


def write(folder: Path) -> None:
    segment.SEGMENT_ROWS = SEGMENT_ROWS
    with Journal(folder, KEYS) as journal:
        journal.resume()
        for number, start in enumerate(range(0, 120, STEP)):
            for stream, batch in ROWS.items():
                journal.append(stream, batch.slice(start, start + STEP))
            journal.sync()
            say(journal.position())
            if number % 5 == 4:
                journal.seal()


def say(position: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(position) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
