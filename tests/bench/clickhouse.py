"""How fast visits come into the embedded store, and how long folding purchase messages takes.

    python -m tests.bench.clickhouse [--visits N] [--messages M] [--runs R] [--json]

Visits: N rows in segments of 65,536, through the product's own delivery (count, token, one block
each) into a store on disk; the clock stops when the merges that this caused are over. Beside it:
the same rows from a journal, read and compared, and the limit: the same rows moved inside
ClickHouse by INSERT SELECT.

Folds: M messages of M * 2/5 conversions, half of them with a click of ours, a third of them of own
shops by address; all of them, then the changes of a hundredth, then what they are judged by. Beside it: the naive fold in Python,
on a part.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.model.batches import VisitBatch
from pipeline.model.columns import ID_DTYPE, Batch
from pipeline.store.clickhouse import ClickHouse
from pipeline.store.clickhouse_schema import TABLES
from pipeline.store.features import evidence
from pipeline.store.journal import SEGMENT_ROWS, Journal
from tests.bench.figures import Figure, machine, repeat, scratch
from tests.naive.folds import fold_all
from tests.score.making import KEYS, NOON
from tests.store.store_rows import SECOND, Filled, batch_of_rows, dicts, put

BYTES_A_VISIT = 600
NAIVE_MESSAGES = 5_000
DELIVER, PROJECT, MOVE = "visits, delivered", "visits, from a journal", "visits, INSERT SELECT"
KNOWN = "evidence of all"
ALL, SOME, NAIVE = "fold all", "fold a hundredth", "naive fold in Python"


def repeated(stream: str, rows: int) -> Batch:
    """The same row so many times."""
    one: Batch = batch_of_rows(stream, [{}])
    return one.take(np.zeros(rows, np.int64))


class Made:
    """Rows of the four streams that folding joins, drawn from a seed."""

    def __init__(self, messages: int) -> None:
        drawn = np.random.default_rng(7)
        conversions, visits, clicks = messages * 2 // 5, messages, messages // 2
        members = max(visits // 20, 1)

        def new_ids(count: int) -> np.ndarray:
            return np.frombuffer(drawn.bytes(16 * count), ID_DTYPE).copy()

        member, address, visit, click = (new_ids(n) for n in (members, members, visits, clicks))
        whose = member[drawn.integers(0, members, visits)]
        followed = drawn.integers(0, visits, clicks)
        of = drawn.integers(0, conversions, messages)
        by_address = drawn.random(conversions) < 1 / 3
        named = click[drawn.integers(0, clicks, conversions)]
        named[by_address | (drawn.random(conversions) < 1 / 4)] = np.zeros(1, ID_DTYPE)[0]
        held = address[drawn.integers(0, members, conversions)]
        held[~by_address] = np.zeros(1, ID_DTYPE)[0]
        self.streams: dict[str, Batch] = {
            "bindings": repeated("bindings", members).with_columns(
                subscriber_id=member, address_hash=address
            ),
            "visits": repeated("visits", visits).with_columns(
                visit_id=visit,
                subscriber_id=whose,
                opened_ns=NOON - drawn.integers(0, 86_400, visits) * SECOND,
                flow_id=new_ids(visits),
                packet_number=np.arange(visits),
            ),
            "clicks": repeated("clicks", clicks).with_columns(
                click_id=click, visit_id=visit[followed], subscriber_id=whose[followed]
            ),
            "purchases": repeated("purchases", messages).with_columns(
                conversion_key=new_ids(conversions)[of],
                message_id=new_ids(messages),
                click_id=named[of],
                match_hash=held[of],
                match_ns=np.full(messages, NOON),
                status=drawn.integers(1, 8, messages).astype(np.uint8),
                amount_mode=drawn.integers(1, 3, messages).astype(np.uint8),
                amount_minor=drawn.integers(-100, 1000, messages),
                status_ns=NOON + drawn.integers(0, 3600, messages) * SECOND,
            ),
        }

    def position(self, share: float = 1.0) -> dict[str, int]:
        """So much of every stream; bindings whole."""
        found = {name: int(len(batch) * share) for name, batch in self.streams.items()}
        return found | {"bindings": len(self.streams["bindings"]), "rulebooks": 0}


class Deliveries:
    """Visits into stores on disk, each run into an empty table."""

    def __init__(self, folder: Path, visits: Batch) -> None:
        self.store = ClickHouse(f"chdb://{folder}/clickhouse")
        self.visits, self.journal = visits, Journal(folder / "journal", KEYS)
        assert isinstance(visits, VisitBatch)
        self.journal.append("visits", visits)
        self.journal.seal()
        self.store.execute("CREATE TABLE moved AS visits_log")

    def deliver(self) -> None:
        """Segment by segment, until merges are over."""
        self.store.execute("TRUNCATE TABLE visits_log")
        for first in range(0, len(self.visits), SEGMENT_ROWS):
            put(self.store, "visits", self.visits.slice(first, first + SEGMENT_ROWS), first)
        self._wait()

    def project(self) -> None:
        """The same from the journal, compared in the end."""
        self.store.execute("TRUNCATE TABLE visits_log")
        self.store._complete.clear()
        assert self.store.project(self.journal) == len(self.journal.segments("visits"))
        self.store.verify_against(self.journal)
        self._wait()

    def move(self) -> None:
        """The same rows from one table into another, until merges are over."""
        self.store.execute("TRUNCATE TABLE moved")
        self.store.execute("INSERT INTO moved SELECT * FROM visits_log")
        self._wait()

    def _wait(self) -> None:
        while self.store.rows("SELECT count() FROM system.merges")[0][0]:
            time.sleep(0.01)

    def close(self) -> None:
        """Give the folder back."""
        ((rows,),) = self.store.rows(f"SELECT count() FROM {TABLES['visits'].log}")
        assert rows == len(self.visits)
        self.journal.close()
        self.store.close()


def measure(visits: int, messages: int, runs: int, folder: Path) -> dict[str, Figure]:
    """All figures, by name."""
    deliveries = Deliveries(folder, Made(visits).streams["visits"])
    works = [(DELIVER, deliveries.deliver), (PROJECT, deliveries.project), (MOVE, deliveries.move)]
    figures = repeat([(name, visits, work) for name, work in works], runs)
    deliveries.close()
    filled, made = Filled(ClickHouse("chdb://:memory:")), Made(messages)
    for stream, batch in made.streams.items():
        for first in range(0, len(batch), SEGMENT_ROWS):
            put(filled.store, stream, batch.slice(first, first + SEGMENT_ROWS), first)
    few = Made(NAIVE_MESSAGES)
    rows = {stream: dicts(batch) for stream, batch in few.streams.items()}

    def all_of_it() -> None:
        found = filled.store.folds(made.position(), None, NOON, 1)
        assert len(found) == len(np.unique(made.streams["purchases"].conversion_key))  # type: ignore[attr-defined]

    def a_hundredth() -> None:
        assert len(filled.store.folds(made.position(), made.position(0.99), NOON, 1))

    everything = filled.store.folds(made.position(), None, NOON, 1)

    def judged_by() -> None:
        assert len(evidence(filled.store, everything, made.position()).features) == len(everything)

    works = [
        (ALL, messages, all_of_it),
        (SOME, messages, a_hundredth),
        (KNOWN, messages, judged_by),
    ]
    works.append((NAIVE, NAIVE_MESSAGES, lambda: fold_all(rows, few.position())))
    figures |= repeat(works, runs)
    filled.store.close()
    return figures


def show(figures: dict[str, Figure]) -> str:
    """The table for people."""
    peers = {DELIVER: MOVE, PROJECT: MOVE, ALL: NAIVE}
    lines = [f"{'':26}{'rows':>12}{'seconds':>9}{'rows/s':>12}{'a CPU s':>12}  beside"]
    for name, figure in figures.items():
        peer = peers.get(name)
        beside = f"{figure.rate / figures[peer].rate:.2f} x {peer}" if peer else ""
        busy = "  (busy machine)" if figure.disturbed else ""
        lines.append(
            f"{name:26}{figure.packets:>12,}{figure.seconds:>9.2f}{figure.rate:>12,.0f}"
            f"{figure.packets / figure.cpu_seconds:>12,.0f}  {beside}{busy}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visits", type=int, default=2_000_000)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    root = scratch(asked.visits * BYTES_A_VISIT)
    folder = Path(tempfile.mkdtemp(prefix="mp-bench-", dir=root))
    try:
        figures = measure(asked.visits, asked.messages, asked.runs, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if asked.json:
        told = {name: figure.as_dict() for name, figure in figures.items()}
        sys.stdout.write(json.dumps({"machine": machine(), **told}, indent=2) + "\n")
        return
    sys.stdout.write(f"{machine()}\n{show(figures)}\n")


if __name__ == "__main__":
    main()
