"""Journal, store and book in one folder, filled by dicts, with cuts: the world of accrual.

`python -m tests.run.accruing FOLDER` plays a fixed story in a folder, to be killed and run again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.batches import CutBatch, RulebookBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.identifiers import digest
from pipeline.model.words import AmountMode, Status
from pipeline.rulebook.model import Rulebook
from pipeline.run.accrue import AccrualReport, accrue
from pipeline.run.rating import Members
from pipeline.store.book import Book
from pipeline.store.clickhouse import ClickHouse
from pipeline.store.journal import Journal
from tests.score.making import DAY_NS, KEYS, NOON, a_partner, a_rulebook, an_id
from tests.store.store_rows import SECOND, batch_of_rows

HOLD_DAYS = 14
RULES = a_rulebook(a_partner(), a_partner("corner-books", click_delivery="match"))


def told_at(minutes: int) -> dict[str, Any]:
    """A message whose sender says when its status came about."""
    return {"status_ns": NOON + minutes * 60 * SECOND, "message_id": f"m{minutes}"}


class World:
    """Everything one owner holds. Purchases name the conversion by `conversion_key`."""

    def __init__(self, folder: Path, store: ClickHouse, rulebook: Rulebook = RULES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(folder / "journal", KEYS)
        self.store = store
        self.book = Book(f"sqlite:///{folder / 'book.sqlite'}", KEYS, rulebook)
        self.rulebooks: dict[bytes, Rulebook] = {}
        self.members: Members | None = None
        self.use(rulebook)

    def close(self) -> None:
        """Give back the folder; the store belongs to whoever made it."""
        self.journal.close()
        self.book.close()

    def use(self, rulebook: Rulebook) -> None:
        """Rate by this rulebook from now on."""
        self.rulebook = rulebook
        self.rulebooks[rulebook.hash] = rulebook
        self.book.import_rulebook(rulebook)
        text = TextColumn.of([rulebook.text()])
        in_force = np.zeros(1, np.uint8)
        row = RulebookBatch(ids([rulebook.hash]), in_force, text, np.zeros(1, np.int64))
        self.journal.append("rulebooks", row)

    def add(self, stream: str, *rows: dict[str, Any]) -> None:
        """Append rows to a stream of the journal."""
        self.journal.append(stream, batch_of_rows(stream, list(rows)))

    def arrive(self) -> None:
        """Ann's visit to acme-shop an hour before noon, and her click."""
        self.add("visits", {})
        self.add("clicks", {})

    def buy(self, key: str = "C-1", **changes: Any) -> None:
        """A message about a purchase after that click; approved over 10.00 unless it says else."""
        row = {"conversion_key": key, "conversion_id": key, "click_id": "click", **told_at(1)}
        self.add("purchases", row | changes)

    def order(self, ref: str, points: int) -> None:
        """Ann asks to spend points."""
        row = {"command_id": ref, "ref": ref, "points": points, "event_ns": NOON + 60 * DAY_NS}
        self.add("commands", row)

    def make_cut(self, days: float = 0, repeat: CutBatch | None = None) -> CutBatch:
        """A cut so many days after noon of the purchases."""
        number = self.journal.rows("cuts") + 1
        position = {s: n for s, n in self.journal.position().items() if s != "cuts"}
        cut = CutBatch(
            cut_id=ids([an_id(f"cut {number}")]),
            number=np.array([number]),
            name=TextColumn.of([f"cut-{number}"]),
            now_ns=np.array([NOON + int(days * DAY_NS)]),
            position=TextColumn.of([json.dumps(position)]),
            repeat_of=np.zeros(1, np.int64),
            rulebook_hash=ids([self.rulebook.hash]),
        )
        if repeat is not None:
            cut = repeat.with_columns(
                cut_id=cut.cut_id, number=cut.number, name=cut.name, repeat_of=repeat.number
            )
        self.journal.append("cuts", cut)
        self.journal.seal()
        return cut

    def accrue(self, cut: CutBatch) -> AccrualReport:
        """Run the job at a cut."""
        return accrue(
            self.journal,
            self.store,
            self.book,
            self.rulebooks,
            cut,
            run_id=digest(KEYS.visit, "run", bytes(cut.cut_id[0])),
            actor="tests",
            clock=lambda: NOON,
            members=self.members,
        )

    def cut(self, days: float = 0, repeat: CutBatch | None = None) -> AccrualReport:
        """Make a cut and run the job at it."""
        return self.accrue(self.make_cut(days, repeat))

    def points(self, who: str = "ann") -> tuple[int, int, int]:
        """A member's pending and available points, and debt."""
        found = self.book.member(an_id(who))
        return found.pending, found.available, found.debt

    def outcome(self, key: str = "C-1") -> tuple[str, str, int]:
        """Answer, reason and points of the latest outcome of a conversion."""
        ((result, reason, points),) = self.store.rows(
            "SELECT result, reason, points FROM conversions"
            f" WHERE conversion_key = toUUID('{an_id(key).hex()}')"
        )
        return result, reason, points

    def worth(self, key: str) -> tuple[int, int, int]:
        """Points, receivable and cost of the latest outcome of a conversion."""
        ((points, receivable, cost),) = self.store.rows(
            "SELECT points, receivable_minor, cost_minor FROM conversions"
            f" WHERE conversion_key = toUUID('{an_id(key).hex()}')"
        )
        return points, receivable, cost

    def end(self) -> tuple[Any, ...]:
        """All that two runs of one story must share."""
        return (
            self.book.ledger_hash(),
            self.store.rows(
                "SELECT conversion_key, state, reason, points, fold, cut, row_hash FROM conversions"
            ),
            self.store.rows("SELECT sequence, entry_id, amount, account FROM entries ORDER BY 1"),
            self.store.rows("SELECT count(), uniqExact(conversion_key, cut) FROM conversions_log"),
            sorted(self.book.balances().items()),
        )


# A story with every kind of change; the same each time.
STATUSES = (Status.PENDING, Status.APPROVED, Status.DECLINED, Status.ADJUSTED)


def play(world: World) -> list[CutBatch]:
    """Write the story into an empty journal; its cuts. Nothing is accrued."""
    world.arrive()
    for n in range(1200):
        world.buy(f"C-{n}", status=STATUSES[n % 4], amount_minor=100 + n)
    cuts = [world.make_cut(1)]
    world.order("o1", 40)
    for n in range(0, 1200, 3):
        changes = {"status": STATUSES[(n + 1) % 4], "amount_minor": -50}
        world.buy(f"C-{n}", **changes, amount_mode=AmountMode.DELTA, **told_at(2))
    cuts.append(world.make_cut(20))
    world.order("o2", 500)
    world.order("o3", 10**9)
    cuts.append(world.make_cut(21))
    return [*cuts, world.make_cut(repeat=cuts[0])]


@contextmanager
def opened(folder: Path) -> Iterator[World]:
    """A world with a store of its own in a folder."""
    store = ClickHouse(f"chdb://{folder}/clickhouse")
    world = World(folder, store)
    try:
        yield world
    finally:
        world.close()
        store.close()


def main(folder: Path) -> None:
    """Play the story, unless it is there, and run the job at every cut that is not done."""
    with opened(folder) as world:
        cuts: list[CutBatch] = []
        for batch in world.journal.read("cuts"):
            assert isinstance(batch, CutBatch)
            cuts += [batch.slice(row, row + 1) for row in range(len(batch))]
        for cut in cuts or play(world):
            if not world.book.cut_done(int(cut.number[0])):
                world.accrue(cut)
        (folder / "end.json").write_text(json.dumps(world.end(), default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
