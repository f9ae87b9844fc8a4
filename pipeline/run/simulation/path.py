"""The whole path in one process: messages and commands through journal, store, accrual and book.

Purchase messages come out of order and more than once, through intake into the journal; so do
commands. Some of these ask for other rules, or for what was bought before to be rated by those in
force; what another approved comes into force, or is booked, as in a state that people run. At a cut
the journal is delivered to ClickHouse, purchases are folded and rated, the book is asked, entries
flow back. On the way the process crashes at a named point (`store/crash.py`): what is on the disk
at that moment is copied, opened again, and gone on with, as after the end of a process; senders
repeat what was not durable, the open cut is completed. Now and then a cut is delivered once more.

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
from typing import Any, NamedTuple

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
from pipeline.run.rerate import Choice, worths_at
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


Messages = dict[str, dict[str, Step]]  # by conversion and the sender's id


class Proposal(NamedTuple):
    """A re-rating as it was proposed: by which rules, and of each conversion its messages, its
    member and what it would be worth.
    """

    rules: int
    worth: dict[str, tuple[frozenset[str], bytes, int]]


class PathTwin(Twin):
    """The ledger of coins, and the messages and commands that it has not been told of yet."""

    def __init__(self, begin: Step, programme: str) -> None:
        super().__init__(
            begin, lambda cause, member, at: lot_id(KEYS.audit, programme, cause, member, at)
        )
        self.messages: Messages = {}
        self.asked: list[Step] = []
        self.number = 0  # the rulebook in force
        self.pinned: dict[str, int] = {}  # the rulebook a conversion was first rated by
        self.cuts: list[tuple[int, Messages]] = []  # when each was, and what was known then
        self.asked_for: dict[bytes, tuple[int, int]] = {}  # rules to publish, and not before when
        self.approved: list[tuple[int, int, int]] = []  # when rules come, in which order, and which
        self.proposals: dict[bytes, Proposal] = {}

    def hear(self, step: Step) -> None:
        """A message or a command."""
        if step["do"] == "buy":
            self.messages.setdefault(step["what"], {}).setdefault(step["id"], step)
            return
        self.asked.append(step)
        name = name_id("command", step["id"])
        if step["kind"] == "publish":
            self.know(step)
            self.asked_for.setdefault(name, (step["number"], step["said"].get("from", 0)))
        elif step["kind"] == "rerate" and self.cuts:
            self.proposals.setdefault(name, self.propose(step))

    def know(self, step: Step) -> None:
        """Rules that are not in force."""
        self.rulebooks[step["number"]] = rulebook(self.zone, step["rules"])
        self.said[step["number"]] = step["rules"]

    def propose(self, step: Step) -> Proposal:
        """What the rules in force make of what was known at the last cut."""
        now, known = self.cuts[-1]
        worth = {}
        for what in known:
            t = self.rate(what, now * SECOND_NS, len(self.cuts), self.number, known)
            if t.event_ns >= step["since"] * SECOND_NS:
                worth[what] = (frozenset(known[what]), t.subscriber_id, t.points)
        return Proposal(self.number, worth)

    def cut(self, now: int, number: int) -> tuple[int, int]:
        """Tell the ledger of coins all that came before a cut; what then was due."""
        now_ns = now * SECOND_NS
        self.take_due(now_ns)
        again = self.command(now_ns)
        whose = {
            what: proposal
            for proposal in again
            for what in proposal.worth
            if conversion_key(what) in self.ledger.pins
        }
        self.usual([w for w in self.messages if w not in whose], now_ns, number)
        for proposal in again:
            agreed: list[tuple[str, Target]] = []
            others: list[tuple[str, Target]] = []
            for what in [w for w, by in whose.items() if by is proposal]:
                t = self.rate(what, now_ns, number, proposal.rules)
                said = (frozenset(self.messages[what]), t.subscriber_id, t.points)
                (agreed if said == proposal.worth[what] else others).append((what, t))
            for what, t in sorted(agreed, key=lambda pair: _purchase(pair[1])):
                self.ledger.target(t, re_rates=True)
                self.pinned[what] = proposal.rules
            self.usual([what for what, _ in others], now_ns, number)
        for what in self.messages:
            if conversion_key(what) in self.ledger.pins:
                self.pinned.setdefault(what, self.number)
        self.cuts.append((now, {what: dict(rows) for what, rows in self.messages.items()}))
        return self.ledger.due(now_ns)

    def take_due(self, now_ns: int) -> None:
        """Use the rules whose time has come last."""
        came = [each for each in self.approved if each[0] <= now_ns]
        if came and max(came)[2] != self.number:
            self.number = max(came)[2]
            self.publish({"number": self.number, "rules": self.said[self.number]})

    def command(self, now_ns: int) -> list[Proposal]:
        """Tell the ledger of coins what was asked; the re-ratings that were approved."""
        again = []
        for step in self.asked:
            asked = asked_of(step)
            result = self.ledger.command(asked, now_ns)
            if asked.kind != "approve" or result != Result.OK:
                continue
            request = asked.names("request")
            if request in self.asked_for:
                rules, from_ns = self.asked_for[request]
                comes_ns = max(from_ns, asked.at_ns)
                self.approved.append((comes_ns, len(self.approved), rules))
            elif request in self.proposals:
                again.append(self.proposals[request])
        self.asked = []
        return again

    def usual(self, whats: list[str], now_ns: int, number: int) -> None:
        """Put conversions by the rules in force; those that are pinned to others by these."""
        rated = [self.rate(what, now_ns, number, self.number) for what in whats]
        rated.sort(key=_purchase)
        refused = [t for t in rated if self.ledger.target(t) == Result.RULE_VERSION_PINNED]
        again = [
            self.rate(t.conversion_id, now_ns, number, self.pinned[t.conversion_id])
            for t in refused
        ]
        for target in sorted(again, key=lambda t: t.rulebook_hash):
            self.ledger.target(target)

    def rate(
        self, what: str, now_ns: int, number: int, by: int, known: Messages | None = None
    ) -> Target:
        """What a conversion is worth at a cut by a rulebook, by all messages or those known."""
        rules, messages = self.said[by], self.messages if known is None else known
        rows = sorted(messages[what].values(), key=lambda step: step["told"])
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


def _purchase(target: Target) -> tuple[int, bytes]:
    return target.event_ns, target.conversion_key


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
        self.proposed: dict[str, dict[str, Any]] = {}  # bodies of re-ratings, by their command
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
        if not self.state.use_last_rulebook():
            self.state.use_rulebook(rules, 0)
        self.take_in([*self.state.journal.read("purchases")])
        for known in self.twin.rulebooks.values():
            self.propose(known)
        for stream, batches in self.sent.items():
            for batch in batches[self.state.journal.rows(stream) :]:
                self.state.journal.append(stream, batch)

    def take_in(self, before: list[Batch]) -> None:
        """Take messages in by the rules in force; these came before."""
        self.rules = self.state.rulebook
        self.intake = Intake(self.rules, KEYS, self.shoppers)
        for batch in before:
            self.intake.remember(batch)  # type: ignore[arg-type]

    def propose(self, known: Rulebook) -> None:
        """Keep the text of rules that are not known yet."""
        if known.hash not in self.state.rulebooks:
            self.state.propose_rulebook(known, 0)

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
            if step["kind"] == "publish":
                self.propose(self.twin.rulebooks[step["number"]])
            elif step["kind"] == "rerate":
                step = self.rerate(step)
            self.send("commands", command_batch([step]))
        elif step["do"] == "crash":
            self.crash = (step["point"], step["nth"])
        elif step["do"] == "cut":
            self.cut(step)

    def rerate(self, step: Step) -> Step:
        """The command with what was proposed in it, the same when it comes again."""
        if step["id"] not in self.proposed:
            last = self.book.last_cut()
            self.proposed[step["id"]] = {}
            if last is not None:
                since_ns = step["since"] * SECOND_NS
                choice = Choice(last.number, self.state.rulebook.hash, "", since_ns, 0)
                rows = worths_at(self.state.clickhouse, self.state.rulebooks, choice)
                found = choice.body() | {"digest": rows.digest(choice)}
                self.proposed[step["id"]] = found
        return {**step, "said": step["said"] | self.proposed[step["id"]]}

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
        self.same("the rules in force", self.state.rulebook.hash, self.twin.rulebook.hash)
        if self.rules is not self.state.rulebook:
            self.take_in(self.sent.get("purchases", []))
        if step.get("again"):
            self.state.accrue(self.state.cuts()[-1], ACTOR)
            self.twin.ledger.due(step["now"] * SECOND_NS)
        self.compare_all()

    def made(self, number: int, step: Step) -> CutBatch:
        """The cut of a step: made now, or found where a crash came after it was made."""
        found = [cut for cut in self.state.cuts() if int(cut.number[0]) == number]
        if found:
            return found[0]
        self.state.take_due_rulebook(step["now"] * SECOND_NS)
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
