"""Which run made which rows: the journal says so itself, so a store made again says the same.

An ingest (a unit of a watched folder, or a replay) is announced by a command that holds the
position before its first row. Only an ingest writes the streams INGESTED, and one at a time: a row
of theirs is of the last ingest that began at or before it. The id of that run is the id of the
command. A cut is of the job that ran at it. Commands of people, settings and the texts of rulebooks
are of no run.

No clock, no random number, and nothing of how rows were cut: ids and rows of `runs` are the same
whenever they are delivered.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.model.batches import CommandBatch, CutBatch, RulebookBatch
from pipeline.model.columns import Batch, TextColumn, ids
from pipeline.model.identifiers import NO_ID, Keys, digest, id_text
from pipeline.store.clickhouse_schema import RunBatch, RunState

if TYPE_CHECKING:
    from pipeline.store.journal import Journal

JOB = "ingest"
BEGIN, END, ABANDONED = "ingest_begin", "ingest_end", "ingest_abandoned"
# The streams that only an ingest writes. Cuts are made by jobs, which may come in between.
INGESTED = ("basis", "bindings", "clicks", "decisions", "purchases", "visits")
# Of the commands, those that an ingest writes.
COMMANDS = (BEGIN, END, ABANDONED, "order")


def accrual_run(keys: Keys, cut_id: bytes) -> bytes:
    """The id of the run of accrual at a cut."""
    return digest(keys.visit, "run", "accrue", cut_id)


@dataclass(slots=True)
class Ingest:
    """One ingest: `command` is the place of the command that announced it."""

    run_id: bytes
    actor: str
    command: int
    position: dict[str, int]
    rulebook_hash: bytes
    started_ns: int
    state: RunState = RunState.STARTED
    finished_ns: int = 0


@dataclass(slots=True)
class Runs:
    """The ingests that a journal names, read as far as it went at the last look."""

    keys: Keys | None = None
    ingests: list[Ingest] = field(default_factory=list)
    delivered: int = 0  # how many of `states` the store is known to have
    _rows: int = 0

    def read(self, journal: Journal) -> None:
        """Read the commands that are new."""
        for batch in journal.read("commands", self._rows):
            assert isinstance(batch, CommandBatch)
            for row, kind in enumerate(batch.kind.to_list()):
                if kind == BEGIN:
                    self.ingests.append(_begun(journal, batch, row, self._rows + row))
                elif kind in (END, ABANDONED) and self.ingests:
                    last = self.ingests[-1]
                    last.state = RunState.DONE if kind == END else RunState.ABANDONED
                    last.finished_ns = int(batch.received_ns[row])
            self._rows += len(batch)

    def run_ids(self, stream: str, first_row: int, batch: Batch) -> bytes:
        """The run of each of these rows of a stream; zeros where it is of none."""
        if isinstance(batch, CutBatch):
            keys, cuts = self.keys, batch.cut_id.tolist()
            return b"".join(accrual_run(keys, cut) if keys else NO_ID for cut in cuts)
        if isinstance(batch, CommandBatch):
            begins = [ingest.command for ingest in self.ingests]
            found = self._by_place(begins, first_row, len(batch))
            kinds = batch.kind.to_list()
            return b"".join(
                run if kind in COMMANDS else NO_ID for run, kind in zip(found, kinds, strict=True)
            )
        if stream not in INGESTED:
            return NO_ID * len(batch)
        begins = [ingest.position.get(stream, 0) for ingest in self.ingests]
        return b"".join(self._by_place(begins, first_row, len(batch)))

    def _by_place(self, begins: list[int], first_row: int, rows: int) -> list[bytes]:
        """The run of each row from `first_row` on, where an ingest begins at each of `begins`."""
        found: list[bytes] = []
        at = bisect_right(begins, first_row)
        while len(found) < rows:
            row = first_row + len(found)
            while at < len(begins) and begins[at] <= row:
                at += 1
            stop = min(begins[at] - row, rows - len(found)) if at < len(begins) else rows
            run = self.ingests[at - 1].run_id if at else NO_ID
            found += [run] * min(stop, rows - len(found))
        return found

    def states(self) -> int:
        """How many rows of `runs` there are to tell."""
        return sum(1 + (ingest.state != RunState.STARTED) for ingest in self.ingests)

    def untold(self, journal: Journal, there: set[tuple[str, int]]) -> list[RunBatch]:
        """A row for each ingest that began, and one for each that ended, in their order; but for
        those, by id as text and state, that are there.
        """
        rows: list[RunBatch] = []
        for number, ingest in enumerate(self.ingests):
            name = id_text(ingest.run_id)
            if (name, RunState.STARTED) not in there:
                rows.append(_row(ingest, RunState.STARTED, ""))
            if ingest.state != RunState.STARTED and (name, ingest.state) not in there:
                after = self.ingests[number + 1 :][:1]
                end = after[0].position if after else {s: journal.rows(s) for s in INGESTED}
                counts = {s: end.get(s, 0) - ingest.position.get(s, 0) for s in INGESTED}
                rows.append(_row(ingest, ingest.state, json.dumps(counts, sort_keys=True)))
        return rows


def _begun(journal: Journal, batch: CommandBatch, row: int, place: int) -> Ingest:
    body: dict[str, Any] = json.loads(batch.body.text(row))
    rulebook = bytes.fromhex(body.get("rulebook", ""))
    return Ingest(
        run_id=bytes(batch.command_id[row]),
        actor=batch.actor.text(row),
        command=place,
        position=body.get("position", {}),
        rulebook_hash=rulebook or _first_rulebook(journal),
        started_ns=int(batch.received_ns[row]),
    )


def _first_rulebook(journal: Journal) -> bytes:
    """That of a replay: it has one, and its announcement does not name it."""
    for batch in journal.read("rulebooks", 0, 1):
        assert isinstance(batch, RulebookBatch)
        return bytes(batch.rulebook_hash[0])
    return NO_ID


def _row(ingest: Ingest, state: RunState, counts: str) -> RunBatch:
    zero = np.zeros(1, np.int64)
    finished_ns = 0 if state == RunState.STARTED else ingest.finished_ns
    return RunBatch(
        run_id=ids([ingest.run_id]),
        state=np.array([state], np.uint8),
        job=TextColumn.of([JOB]),
        actor=TextColumn.of([ingest.actor]),
        cut=zero,
        cut_id=ids([NO_ID]),
        now_ns=zero,
        rulebook_hash=ids([ingest.rulebook_hash]),
        conversions=zero,
        whole=np.zeros(1, np.uint8),
        counts=TextColumn.of([counts]),
        started_ns=np.array([ingest.started_ns], np.int64),
        finished_ns=np.array([finished_ns], np.int64),
    )
