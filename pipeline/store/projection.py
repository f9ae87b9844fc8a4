"""Delivery into ClickHouse: sealed segments of the journal, entries of the book, outcomes, runs.

Delivery keeps no book of its own: what is there is asked of ClickHouse, per segment, as the count,
the xor and the sum of the row hashes, which are what the journal's seal says of a segment. A
segment that is not there is sent whole, with the token `stream:first_row`; of one that is there in
part the rest is sent; one that holds anything else is an error that names it, because adding rows
cannot mend it. Bounds of segments are fixed by the journal and those of entries by their sequence,
so no retry can cut rows otherwise. Doing any of this twice is doing it once.

Measured on one core: see `tests/bench/clickhouse.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.kernels.rowhash import row_hashes
from pipeline.model.batches import STREAMS, EntryBatch
from pipeline.model.columns import TextColumn, stored_columns
from pipeline.store.clickhouse_rows import arrow_rows, batch_of, select_of
from pipeline.store.clickhouse_schema import TABLES, AnswerBatch, ConversionBatch, RunBatch, Table
from pipeline.store.crash import crash_point
from pipeline.store.runs import JOB as INGEST
from pipeline.store.runs import Runs
from pipeline.store.sink import Sink, SinkError

if TYPE_CHECKING:
    from pipeline.store.journal import Journal, Segment

NO_RUN = bytes(16)
# Entries and outcomes are sent in blocks that never cross a multiple of this.
BLOCK_ROWS = 65_536
# These rows hold nothing sealed, so their hash needs no secret; it only has to be the same each
# time.
OPEN_KEY = bytes(32)

Digest = tuple[int, int, int]


def project(
    sink: Sink,
    journal: Journal,
    runs: Runs | None = None,
    complete: dict[str, int] | None = None,
) -> int:
    """Deliver every sealed segment that is not there yet; how many were. Raises SinkError.

    `runs` says which run made a row, and is delivered as well. `complete` remembers, by stream,
    below which row everything was found there before, so that a long-lived owner does not ask for
    all of it each time; `verify_against` always does.
    """
    complete = {} if complete is None else complete
    runs = Runs() if runs is None else runs
    runs.read(journal)
    delivered = 0
    for stream in STREAMS:
        first = complete.get(stream, 0)
        segments = [s for s in _sealed(journal, stream) if s.first_row >= first]
        there = _delivered(sink, stream, first) if segments else {}
        for segment in segments:
            found = there.get(segment.first_row, (0, 0, 0))
            if found != _digest(segment):
                if found[0] >= segment.rows:
                    raise SinkError(_finding(segment, found))
                _deliver(sink, journal, segment, runs)
                delivered += 1
            complete[stream] = segment.end
    _deliver_ingests(sink, journal, runs)
    return delivered


def _deliver(sink: Sink, journal: Journal, segment: Segment, runs: Runs) -> None:
    rows = journal.read_segment(segment)
    table = TABLES[segment.stream]
    block = arrow_rows(
        table,
        rows.batch,
        offsets=np.arange(segment.first_row, segment.end),
        segment=segment.first_row,
        hashes=rows.row_hash,
        run_id=runs.run_ids(segment.stream, segment.first_row, rows.batch),
    )
    crash_point("project.before_insert")
    sink.insert(
        table, block, f"{segment.stream}:{segment.first_row}", f"segment = {segment.first_row}"
    )
    crash_point("project.after_insert")


def _deliver_ingests(sink: Sink, journal: Journal, runs: Runs) -> None:
    """Deliver that an ingest began, or how it ended, where the store does not know it."""
    if runs.states() <= runs.delivered:
        return
    log = TABLES["runs"].log
    found = sink.rows(f"SELECT run_id, toUInt8(state) FROM {log} WHERE job = '{INGEST}'")
    there = {(str(run_id), int(state)) for run_id, state in found}
    for row in runs.untold(journal, there):
        deliver_run(sink, row)
    runs.delivered = runs.states()


def verify_against(sink: Sink, journal: Journal) -> None:
    """Raise SinkError, naming the segments, unless all are there by count, xor and sum."""
    problems = [said for _, said in _by_digest(sink, journal)]
    if problems:
        raise SinkError("the store is not as the journal:\n" + "\n".join(problems))


def differences(sink: Sink, journal: Journal) -> list[str]:
    """A line for each segment that is not there as in the journal, down to every column.

    For audits: it reads all there is, where `verify_against` trusts the row hashes that stand
    beside the rows.
    """
    found = _by_digest(sink, journal)
    wrong = {segment for segment, _ in found}
    problems = [said for _, said in found]
    for stream in STREAMS:
        for segment in _sealed(journal, stream):
            if segment not in wrong:
                problems += _by_column(sink, journal, segment)
    return problems


def _by_digest(sink: Sink, journal: Journal) -> list[tuple[Segment | None, str]]:
    """The segments that are not there by count, xor and sum, and what is of no segment."""
    problems: list[tuple[Segment | None, str]] = []
    for stream in STREAMS:
        there = _delivered(sink, stream)
        for segment in _sealed(journal, stream):
            found = there.pop(segment.first_row, (0, 0, 0))
            if found != _digest(segment):
                problems.append((segment, _finding(segment, found)))
        for first, found in sorted(there.items()):
            strange = f"{found[0]} rows of a segment at row {first}"
            problems.append((None, f"{stream}: {strange} that the journal does not have"))
    return problems


def _by_column(sink: Sink, journal: Journal, segment: Segment) -> list[str]:
    """Compare a segment column by column; for each that differs its first row."""
    table, (batch, hashes) = TABLES[segment.stream], journal.read_segment(segment)
    where = f"FROM {table.log} WHERE segment = {segment.first_row} ORDER BY stream_offset"
    there = batch_of(table.batch, sink.query(f"SELECT {select_of(table)} {where}"))
    found = sink.query(f"SELECT row_hash {where}").column(0)
    wrong = [("row_hash", np.asarray(found, dtype=np.uint64) != hashes)]
    for column in stored_columns(table.batch):
        if not column.sealed:
            ours, theirs = (getattr(b, column.name) for b in (batch, there))
            wrong.append((column.name, _differs(ours, theirs)))
    return [
        f"{segment.stream}: row {segment.first_row + int(np.argmax(rows))}: {name} is another in "
        "the store than in the journal"
        for name, rows in wrong
        if rows.any()
    ]


def _differs(ours: np.ndarray | TextColumn, theirs: np.ndarray | TextColumn) -> np.ndarray:
    """In which rows two columns differ (bool)."""
    if isinstance(ours, np.ndarray):
        return np.asarray(ours != theirs)
    assert isinstance(theirs, TextColumn)
    if np.array_equal(ours.offsets, theirs.offsets) and np.array_equal(ours.data, theirs.data):
        return np.zeros(len(ours), bool)
    return np.array([ours[row] != theirs[row] for row in range(len(ours))])


def _sealed(journal: Journal, stream: str) -> list[Segment]:
    return [segment for segment in journal.segments(stream) if segment.sealed]


def _digest(segment: Segment) -> Digest:
    return segment.rows, segment.hash_xor, segment.hash_sum


def _delivered(sink: Sink, stream: str, first: int = 0) -> dict[int, Digest]:
    """What is there of each segment from row `first` on. A row out of bounds spoils a digest."""
    found = sink.rows(
        "SELECT segment, count(), groupBitXor(row_hash), sum(row_hash),"
        " max(stream_offset) - segment"
        f" FROM {TABLES[stream].log} WHERE stream_offset >= {int(first)} GROUP BY segment"
    )
    return {
        int(first): (int(rows), int(xor), int(total)) if last < rows else (int(rows), -1, -1)
        for first, rows, xor, total, last in found
    }


def _finding(segment: Segment, found: Digest) -> str:
    bounds = f"rows {segment.first_row} to {segment.end - 1}"
    what = f"{segment.stream}: segment {segment.number} ({bounds})"
    if found[0] != segment.rows:
        return f"{what} has {segment.rows} rows in the journal and {found[0]} in the store"
    return f"{what} holds other rows in the store than in the journal"


def entries_delivered(sink: Sink) -> int:
    """The sequence of the last entry that is there. Raises SinkError where one before it is not."""
    log = TABLES["entries"].log
    # Asked before every block: counting distinct numbers as well would cost what the book has grown
    # to each time. That none stands twice for one that lacks is for `audit`, which reads them all.
    ((rows, last),) = sink.rows(f"SELECT count(), max(sequence) FROM {log}")
    if int(rows) != int(last):
        raise SinkError(f"{log}: {rows} rows up to number {last}; each should be there once")
    return int(last)


def deliver_entries(sink: Sink, entries: EntryBatch) -> int:
    """Deliver entries in the order of their sequence (from 1, without gaps); how many were new.

    Those that are there already are left out. The first new one must follow the last that is there.
    """
    last = entries_delivered(sink)
    entries = entries.take(entries.sequence > last)
    table = TABLES["entries"]
    start = 0
    while start < len(entries):
        first = int(entries.sequence[start])
        stop = min(start + BLOCK_ROWS - (first - 1) % BLOCK_ROWS, len(entries))
        block = entries.slice(start, stop)
        assert np.array_equal(block.sequence, np.arange(last + 1, last + 1 + len(block)))
        last += len(block)
        crash_point("outbox.before_insert")
        sink.insert(
            table,
            arrow_rows(
                table,
                block,
                offsets=block.sequence,
                segment=first,
                hashes=row_hashes(block, OPEN_KEY),
                run_id=NO_RUN,
            ),
            f"entries:{first}:{last}",
            f"segment = {first}",
        )
        crash_point("outbox.after_insert")
        start = stop
    return len(entries)


def deliver_conversions(
    sink: Sink, outcomes: ConversionBatch, cut: int, run_id: bytes, first: int = 0
) -> None:
    """Deliver what accrual sent at a cut and what was answered. Raises SinkError.

    `first` is the place of the first row among those of the cut, a multiple of BLOCK_ROWS.
    The rows of a cut are delivered once: where they are there already, with the same conversions,
    nothing is added, so the answers of the first time stay.
    """
    assert (outcomes.cut == cut).all()
    assert first % BLOCK_ROWS == 0, "blocks are found again by where they begin"
    # Without the answer: that depends on whether it was the first time.
    sent = outcomes.with_columns(result=np.zeros(len(outcomes), np.uint8))
    _deliver_of_cut(sink, "conversions", outcomes, row_hashes(sent, OPEN_KEY), cut, run_id, first)


def deliver_answers(sink: Sink, answers: AnswerBatch, cut: int, run_id: bytes) -> None:
    """Deliver what was answered to the commands of a cut, once. Raises SinkError."""
    assert (answers.cut == cut).all()
    # What waited for a second person may have been decided since.
    asked = answers.with_columns(result=np.zeros(len(answers), np.uint8))
    _deliver_of_cut(sink, "answers", answers, row_hashes(asked, OPEN_KEY), cut, run_id)


def _deliver_of_cut(
    sink: Sink,
    name: str,
    batch: ConversionBatch | AnswerBatch,
    hashes: np.ndarray,
    cut: int,
    run_id: bytes,
    first: int = 0,
) -> None:
    """Deliver the rows of a cut that are not there yet."""
    table = TABLES[name]
    for begin in range(0, len(batch), BLOCK_ROWS):
        block, start = batch.slice(begin, begin + BLOCK_ROWS), first + begin
        rows = arrow_rows(
            table,
            block,
            offsets=np.arange(start, start + len(block)),
            segment=start,
            hashes=hashes[begin : begin + BLOCK_ROWS],
            run_id=run_id,
        )
        where = f"cut = {int(cut)} AND segment = {start}"
        if not _is_there(sink, table, rows, where):
            sink.insert(table, rows, f"{name}:{int(cut)}:{start}", where)


def _is_there(sink: Sink, table: Table, rows: pa.RecordBatch, where: str) -> bool:
    hashes = np.asarray(rows.column(rows.schema.get_field_index("row_hash")))
    ((count, xor),) = sink.rows(
        f"SELECT count(), groupBitXor(row_hash) FROM {table.log} WHERE {where}"
    )
    if int(count) < rows.num_rows:
        return False
    if int(count) > rows.num_rows or int(xor) != int(np.bitwise_xor.reduce(hashes)):
        raise SinkError(
            f"{table.log}, {where}: {count} other rows are there than the"
            f" {rows.num_rows} that were computed now"
        )
    return True


def deliver_run(sink: Sink, run: RunBatch) -> None:
    """Deliver one row of a run: that it started, or that it is done. The first time counts."""
    assert len(run) == 1
    table = TABLES["runs"]
    run_id, state = bytes(run.run_id[0]), int(run.state[0])
    where = f"run_id = toUUID('{run_id.hex()}') AND state = {state}"
    ((there,),) = sink.rows(f"SELECT count() FROM {table.log} WHERE {where}")
    if not int(there):
        rows = arrow_rows(
            table,
            run,
            offsets=np.zeros(1, np.int64),
            segment=0,
            hashes=row_hashes(run, OPEN_KEY),
            run_id=run_id,
        )
        sink.insert(table, rows, f"runs:{run_id.hex()}:{state}", where)
