"""The whole path in one process: messages and commands through journal, store, accrual and book.

Purchase messages come out of order and more than once, through intake into the journal; so do
commands and rulebooks. At a cut the journal is delivered to ClickHouse, purchases are folded and
rated, the book is asked, entries flow back. On the way the process crashes at a named point
(`store/crash.py`): what is on the disk at that moment is copied, opened again, and gone on with, as
after the end of a process; senders repeat what was not durable, the open cut is completed. Now and
then a cut is delivered once more.

The twin knows nothing of all this. It has a list of messages; at a cut it walks them conversion by
conversion, with fractions on paper, and tells the ledger of coins what each is worth.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.ledger.lots import lot_id
from pipeline.ledger.targets import Target
from pipeline.model.batches import CutBatch, MessageBatch, VisitBatch
from pipeline.model.columns import ID_DTYPE, Batch, TextColumn, columns_of, ids
from pipeline.model.identifiers import NO_ID, digest
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, Result, TargetReason, TargetState
from pipeline.rulebook.model import Rulebook
from pipeline.run.accrue import compare_with_book
from pipeline.run.simulation.drive import KEYS, Comparison, command_batch
from pipeline.run.simulation.story import (
    PARTNER,
    SECOND_NS,
    Failure,
    Step,
    Story,
    Twin,
    asked_of,
    name_id,
    rulebook,
)
from pipeline.run.state import State
from pipeline.score.intake import Intake
from pipeline.store.clickhouse import ClickHouse
from pipeline.store.crash import Crash, crashing

ACTOR = "simulation"
IN_MEMORY = "chdb://:memory:"
PENDING, DECLINED = "pending", "declined"
DAY_NS = 86_400 * SECOND_NS


def conversion_key(what: str) -> bytes:
    """The key that intake gives to a conversion."""
    return digest(KEYS.visit, "conversion", PARTNER, what, "")


class PathTwin(Twin):
    """The ledger of coins, and the messages and commands that it has not been told of yet."""

    def __init__(self, begin: Step, programme: str) -> None:
        super().__init__(
            begin, lambda cause, member, at: lot_id(KEYS.audit, programme, cause, member, at)
        )
        self.messages: dict[str, dict[str, Step]] = {}  # by conversion and the sender's id
        self.asked: list[Step] = []
        self.pinned: dict[str, int] = {}  # the rulebook a conversion was first rated by

    def hear(self, step: Step) -> None:
        """A message or a command."""
        if step["do"] == "buy":
            self.messages.setdefault(step["what"], {}).setdefault(step["id"], step)
        else:
            self.asked.append(step)

    def cut(self, now: int, number: int) -> tuple[int, int]:
        """Tell the ledger of coins all that came before a cut; what then was due."""
        now_ns = now * SECOND_NS
        for step in self.asked:
            self.ledger.command(asked_of(step), now_ns)
        self.asked = []
        rated = [self.rate(what, now_ns, number, self.number) for what in self.messages]
        rated.sort(key=lambda target: (target.event_ns, target.conversion_key))
        refused = [t for t in rated if self.ledger.target(t) == Result.RULE_VERSION_PINNED]
        again = [
            self.rate(t.conversion_id, now_ns, number, self.pinned[t.conversion_id])
            for t in refused
        ]
        for target in sorted(again, key=lambda t: t.rulebook_hash):
            self.ledger.target(target)
        for what in self.messages:
            if conversion_key(what) in self.ledger.pins:
                self.pinned.setdefault(what, self.number)
        return self.ledger.due(now_ns)

    def rate(self, what: str, now_ns: int, number: int, by: int) -> Target:
        """What a conversion is worth at a cut by a rulebook."""
        rules = self.said[by]
        rows = sorted(self.messages[what].values(), key=lambda step: step["told"])
        amount, status, firm = 0, "", ""
        for row in rows:
            if row["status"] == PENDING and firm not in ("", DECLINED):
                continue
            status = row["status"]
            firm = status if status != PENDING else firm
            if row["amount"] is not None:
                amount = row["amount"] + (amount if row["mode"] == "delta" else 0)
        at_ns = min(row["at"] for row in rows) * SECOND_NS
        euros = Fraction(amount, 100)
        points = math.floor(max(euros, Fraction(0)) * Fraction(rules["rate"], 100))
        counts = status != DECLINED and points > 0
        is_free = status not in (PENDING, DECLINED) and (now_ns >= at_ns + rules["window"] * DAY_NS)
        money = (0, 0, 0)
        if counts and is_free:
            receivable = math.floor(Fraction(amount) / 10)
            cost = math.floor(points * Fraction(rules["price"]) * 100)
            money = receivable, cost, receivable - cost
        state = TargetState.NONE
        if counts:
            state = TargetState.AVAILABLE if is_free else TargetState.PENDING
        return Target(
            conversion_key(what), number, len(rows), 0, name_id("member", rows[-1]["member"]),
            PARTNER, what, state, TargetReason.AWARDED, points if counts else 0, *money,
            "EUR" if any(money) else "", NO_ID, NO_ID, at_ns, 0, f"{PARTNER}/sale",
            name_id("rule", str(rules["rate"])), "shop-2020", self.rulebooks[by].hash,
            name_id("terms", f"{rules['window']} {Fraction(rules['price'])}"), "",
        )  # fmt: skip

    def publish(self, step: Step) -> None:
        """Use other rules."""
        super().publish(step)
        self.number = step["number"]


class Shoppers:
    """Members whose token is their name."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    @property
    def subscriber_ids(self) -> np.ndarray:
        """Their ids."""
        return ids([name_id("member", name) for name in self._names])

    def by_token(self, partner: str, token: str) -> int:
        """The member with this token."""
        return self._names.index(token) if partner == PARTNER and token in self._names else -1


class PathDriver(Comparison):
    """State, intake and twin on their way through a story."""

    def __init__(self, begin: Step, folder: Path, database: str) -> None:
        self.begin, self.folder, self.database = begin, folder, database
        self.lives = 0
        self.sent: dict[str, list[Batch]] = {}
        rules = rulebook(begin["zone"], begin["rules"])
        self.shoppers = Shoppers(begin["members"])
        self.twin: PathTwin = PathTwin(begin, rules.programme.id)
        super().__init__()
        self.cuts: list[tuple[int, int]] = []  # number, now
        self.crash: tuple[str, int] | None = None
        self.open(rules)

    # A life, and its end

    def open(self, rules: Rulebook) -> None:
        """Open what the folder has."""
        life = self.folder / f"life{self.lives}"
        life.mkdir(exist_ok=True)
        self.state = State(
            life, KEYS, rules, clickhouse_url=IN_MEMORY, database=self.database,
            book_url=f"sqlite:///{life / 'book.sqlite'}",
        )  # fmt: skip
        self.book = self.state.book
        self.intake = Intake(rules, KEYS, self.shoppers)
        for batch in self.state.journal.read("purchases"):
            self.intake.remember(batch)  # type: ignore[arg-type]
        self.state.use_rulebook(rules, 0)
        for stream, batches in self.sent.items():
            for batch in batches[self.state.journal.rows(stream) :]:
                self.state.journal.append(stream, batch)

    def crashed(self, point: str) -> None:
        """The process is no more, since it came to `point`: go on with what the disk has."""
        assert point
        before = self.folder / f"life{self.lives}"
        self.lives += 1
        shutil.copytree(before, self.folder / f"life{self.lives}")
        with contextlib.suppress(Exception):
            self.state.close()
        shutil.rmtree(before)
        self.open(self.twin.rulebook)

    def close(self) -> None:
        """Give everything back."""
        with contextlib.suppress(Exception):
            self.state.clickhouse.execute(f"DROP DATABASE IF EXISTS {self.database}")
        self.state.close()

    @contextlib.contextmanager
    def dangerous(self) -> Iterator[None]:
        """Where the crash that was asked for may come."""
        if self.crash is None:
            yield
            return
        with crashing(*self.crash):
            yield

    # Steps

    def take(self, step: Step) -> None:
        """Take one step with both. Raises Difference."""
        if step["do"] == "buy":
            self.twin.hear(step)
            self.send("visits", visit_batch(step))
            self.send("purchases", self.intake.push(message_batch(step), Tally()))
        elif step["do"] == "command":
            self.twin.hear(step)
            self.send("commands", command_batch([step]))
        elif step["do"] == "publish":
            self.twin.publish(step)
            self.intake = Intake(self.twin.rulebook, KEYS, self.shoppers)
            for batch in self.sent.get("purchases", ()):
                self.intake.remember(batch)  # type: ignore[arg-type]
            self.state.use_rulebook(self.twin.rulebook, step["now"] * SECOND_NS)
        elif step["do"] == "crash":
            self.crash = (step["point"], step["nth"])
        elif step["do"] == "cut":
            self.cut(step)

    def send(self, stream: str, batch: Batch) -> None:
        """Append a row, and keep it as its sender does, who sends it again if it got lost."""
        self.sent.setdefault(stream, []).append(batch)
        self.state.journal.append(stream, batch)

    def cut(self, step: Step) -> None:
        """Make a cut and run its job, whatever comes between; then compare."""
        number = self.state.journal.rows("cuts") + 1
        for _ in range(3):
            try:
                with self.dangerous():
                    self.state.accrue(self.made(number, step), ACTOR)
                break
            except Crash as crash:
                self.crash = None
                self.crashed(str(crash))
        self.crash = None
        self.twin.cut(step["now"], number)
        self.cuts.append((number, step["now"]))
        if step.get("again"):
            self.state.accrue(self.state.cuts()[-1], ACTOR)
            self.twin.ledger.due(step["now"] * SECOND_NS)
        self.compare_all()

    def made(self, number: int, step: Step) -> CutBatch:
        """The cut of a step: made now, or found where a crash came after it was made."""
        found = [cut for cut in self.state.cuts() if int(cut.number[0]) == number]
        if found:
            return found[0]
        return self.state.make_cut(number, f"cut-{number}", step["now"] * SECOND_NS, None)

    def compare_all(self) -> None:
        """Compare answers and all that is held, and the store with the book."""
        self.compare()
        for command, (_, expected) in self.twin.ledger.answers.items():
            got = self.book.request(command)
            self.same("an answer", got.name if got is not None else None, expected.name)
        self.same("the store", compare_with_book(self.state.clickhouse, self.book), [])
        self.same("audit", self.book.audit(), [])


def stay_open() -> ClickHouse:
    """A connection that keeps the store in memory alive between stories; starting it takes long."""
    return ClickHouse(IN_MEMORY, database="simulation", keys=KEYS)


def run_path(story: Story, folder: Path, database: str) -> Failure | None:
    """Take a whole state, a new one in `folder`, through a story; what went wrong, if anything."""
    driver = PathDriver(story[0], folder, database)
    taken = 0
    try:
        for taken, step in enumerate(story[1:], 1):  # noqa: B007 - told with a failure
            driver.take(step)
    except Exception as error:
        return Failure(taken, f"{type(error).__name__}: {error}")
    finally:
        driver.close()
    return None


# Rows


def message_batch(step: Step) -> MessageBatch:
    """A message as a shop sends it."""
    amount = step["amount"]
    return _row(  # type: ignore[return-value]
        MessageBatch,
        {
            "row": 1,
            "input": "simulation",
            "event_ns": step["at"] * SECOND_NS,
            "received_ns": step["now"] * SECOND_NS,
            "status_ns": step["told"] * SECOND_NS,
            "partner": PARTNER,
            "conversion_id": step["what"],
            "member": step["member"],
            "kind": "sale",
            "status": step["status"],
            "amount_mode": step["mode"],
            "amount": "" if amount is None else _euros(amount),
            "currency": "EUR",
            "message_id": step["id"],
            "raw": repr(sorted(step.items())),
        },
    )


def _euros(cents: int) -> str:
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def visit_batch(step: Step) -> VisitBatch:
    """The visit that led to a purchase."""
    what = f"{step['what']} {step['member']} {step['at']}"
    return _row(  # type: ignore[return-value]
        VisitBatch,
        {
            "visit_id": name_id("visit", what),
            "version": 1,
            "trigger": 1,
            "subscriber_id": name_id("member", step["member"]),
            "partner": PARTNER,
            "basis": Basis.CONSENTED,
            "opened_ns": (step["at"] - 600) * SECOND_NS,
        },
    )


def _row(batch_class: type[Batch], said: dict[str, Any]) -> Batch:
    """A batch of one row; what is not said is nothing."""
    columns: dict[str, Any] = {}
    for column in columns_of(batch_class):
        value = said.get(column.name)
        if column.dtype is None:
            columns[column.name] = TextColumn.of([value or ""])
        elif column.dtype == ID_DTYPE:
            columns[column.name] = ids([value or NO_ID])
        else:
            columns[column.name] = np.array([value or 0], column.dtype)
    return batch_class(**columns)
