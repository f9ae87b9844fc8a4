"""Rows of the streams that the store joins, from dicts, and an embedded store to put them in."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from pipeline.model.batches import (
    STREAMS,
    BasisBatch,
    BindingBatch,
    ClickBatch,
    CommandBatch,
    PurchaseBatch,
    VisitBatch,
)
from pipeline.model.columns import Batch, TextColumn, columns_of
from pipeline.model.words import AmountMode, Basis, BindingKind, OrderBy, Status
from pipeline.store.clickhouse import ClickHouse
from pipeline.store.clickhouse_rows import arrow_rows
from pipeline.store.clickhouse_schema import TABLES
from tests.naive.folds import Position, Row, Streams
from tests.score.making import NOON, an_id, make

SECOND = 10**9
NUMBERS = itertools.count()

PURCHASE = {
    "partner": "acme-shop",
    "conversion_key": "C-1",
    "conversion_id": "C-1",
    "kind": "sale",
    "status": Status.APPROVED,
    "amount_mode": AmountMode.ABSOLUTE,
    "amount_minor": 1000,
    "currency": "EUR",
    "event_ns": NOON,
    "received_ns": NOON,
    "order_by": OrderBy.SENDER,
}
VISIT = {
    "visit_id": "visit",
    "version": 1,
    "trigger": 1,
    "subscriber_id": "ann",
    "partner": "acme-shop",
    "basis": Basis.CONSENTED,
    "opened_ns": NOON - 3600 * SECOND,
}
CLICK = {
    "click_id": "click",
    "visit_id": "visit",
    "subscriber_id": "ann",
    "partner": "acme-shop",
    "clicked_ns": NOON - 3000 * SECOND,
}
BINDING = {
    "kind": BindingKind.BIND,
    "subscriber_id": "ann",
    "address_hash": "address",
    "event_ns": NOON - 7200 * SECOND,
    "received_ns": NOON - 7200 * SECOND,
}
BASIS = {"subscriber_id": "ann", "state": Basis.CONSENTED, "event_ns": NOON - 7200 * SECOND}
ORDER = {
    "kind": "order", "actor": "orders", "role": "member", "body": "{}", "subscriber_id": "ann",
    "points": 10,
}  # fmt: skip
KINDS: dict[str, tuple[type[Batch], dict[str, Any]]] = {
    "purchases": (PurchaseBatch, PURCHASE),
    "visits": (VisitBatch, VISIT),
    "clicks": (ClickBatch, CLICK),
    "bindings": (BindingBatch, BINDING),
    "commands": (CommandBatch, ORDER),
    "basis": (BasisBatch, BASIS),
}


def batch_of_rows(stream: str, rows: list[dict[str, Any]]) -> Any:
    """A batch of a stream; ids by name or as bytes, what is left out as above.

    A purchase message that is given no id gets one of its own.
    """
    batch_class, defaults = KINDS[stream]
    if stream == "purchases":
        rows = [{"message_id": f"message {next(NUMBERS)}", **row} for row in rows]
    return make(batch_class, rows, defaults)


def dicts(batch: Batch, first_offset: int = 0) -> list[Row]:
    """The rows of a batch as dicts, with their offsets and a hash of the offset."""
    columns = {}
    for column in columns_of(type(batch)):
        values = getattr(batch, column.name)
        if isinstance(values, TextColumn):
            columns[column.name] = values.to_list()
        elif values.dtype.kind == "V":
            columns[column.name] = [bytes(v) for v in values]
        else:
            columns[column.name] = values.tolist()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    hashes = hashes_of(len(rows), first_offset).tolist()
    return [
        {**row, "offset": first_offset + n, "row_hash": hashes[n]} for n, row in enumerate(rows)
    ]


def hashes_of(rows: int, first_offset: int) -> np.ndarray:
    """Row hashes for rows that no journal hashed."""
    offsets = np.arange(first_offset, first_offset + rows, dtype=np.uint64)
    return (offsets + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)


class Filled:
    """A store filled without a journal, and the same rows as dicts for the twin."""

    def __init__(self, store: ClickHouse) -> None:
        self.store = store
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        for table in TABLES.values():
            self.store.execute(f"TRUNCATE TABLE {table.log}")
        self.streams: Streams = {name: [] for name in KINDS}

    def add(self, stream: str, *rows: dict[str, Any]) -> None:
        """Append rows to a stream."""
        if rows:
            self.add_batch(stream, batch_of_rows(stream, list(rows)))

    def add_batch(self, stream: str, batch: Batch) -> None:
        """Append a batch to a stream, as one segment."""
        first = len(self.streams[stream])
        self.streams[stream] += dicts(batch, first)
        put(self.store, stream, batch, first)

    def position(self) -> Position:
        """How far each stream reaches."""
        return {stream: len(self.streams.get(stream, ())) for stream in STREAMS}


def put(store: ClickHouse, stream: str, batch: Batch, first: int) -> None:
    """Insert a batch as the segment that begins at row `first`."""
    store.insert(
        TABLES[stream],
        arrow_rows(
            TABLES[stream],
            batch,
            offsets=np.arange(first, first + len(batch)),
            segment=first,
            hashes=hashes_of(len(batch), first),
            run_id=an_id("run"),
        ),
        f"test {next(NUMBERS)}",
        f"segment = {first}",
    )
