"""Accrual: at a cut, purchases become points.

Given a cut (a position of the journal and a `now`), the job delivers the journal to ClickHouse,
compares the two, folds what is known of each conversion at that position, rates the folds by the
cut's rulebook and sends the book absolute targets. Everything it reads is below the position, every
time it uses is the cut's, so the same cut gives the same targets, and the book answers a repeated
one with EXISTS: the job may be killed anywhere and run again, and a finished one may be run again,
too.

**Commands come before targets.** A member who asked before the cut asked for points that were
booked then; what this cut grants is for later orders. Commands (orders and all else that the book
knows) go to it in the order of their stream, by the cut's rulebook; spending that the policy's
codes doubt (`store/doubts.py`) waits there for a person.

**What is due comes last.** Reservations whose time is over at the cut's `now` are released, and
lots whose date is past lapse.

**Rules.** A conversion stays with the rulebook it was first rated by. A later one in which its
rule, its contract's terms and the price of a point are the same says the same of it. Where they are
not, or are not there any more, the book says so (RULE_VERSION_PINNED), and the conversion is rated
again by the rulebook of that time.

**Caps and budgets.** What conversions that this cut does not touch hold of them is asked of the
store (`store/usage.py`); those that it does touch are counted in the order of purchase, and behind
them, in the same way, those that are rated by another rulebook.

**Re-rating.** What a second person approved at this cut is booked behind all others; see
`rerate.py`.

**In blocks.** Conversions are rated, sent and written down some tens of thousands at a time, in
the order of purchase; where a rule has a cap or a budget, all at once. Measured by hand on two busy
cores: 600,000 new conversions in 123 s holding at most 2.3 GB, at once in 116 s holding 4.4 GB.

**Which conversions** is told by what happened since the cut before (see `store/folds.py`). That
needs the outcomes of the cuts before; where the store lost or never had them, all conversions are
folded.

A cut that repeats an earlier one carries that one's position and `now` and sends targets under its
number.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.rowhash import row_hashes
from pipeline.ledger.accounts import ISSUED
from pipeline.ledger.commands import commands_of
from pipeline.model.batches import CommandBatch, CutBatch, FoldBatch, TargetBatch, UsageBatch
from pipeline.model.columns import TextColumn, concat, ids
from pipeline.model.evidence import Evidence
from pipeline.model.identifiers import id_text
from pipeline.model.words import BOOK_COMMANDS, RECORDED_COMMANDS, Result, TargetReason
from pipeline.rulebook.model import Rulebook
from pipeline.run.answers import answer_rows, answers_to, doubts_told
from pipeline.run.rating import AccrualError, Members, Rating
from pipeline.run.rerate import Approved, approved, in_order
from pipeline.score.rate import kinds_of
from pipeline.store.book import Book
from pipeline.store.book_entries import Due
from pipeline.store.book_register import Run
from pipeline.store.clickhouse import ClickHouse
from pipeline.store.clickhouse_schema import ConversionBatch, RunBatch, RunState
from pipeline.store.crash import crash_point
from pipeline.store.doubts import doubts
from pipeline.store.journal import Journal
from pipeline.store.projection import BLOCK_ROWS, OPEN_KEY

JOB = "accrue"
POST_ROWS = 1000
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AccrualReport:
    """What the job at a cut came to. Counts are by the words of `Result` and `TargetReason`."""

    cut: int
    name: str
    now_ns: int
    conversions: int
    whole: bool
    results: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    orders: dict[str, int] = field(default_factory=dict)
    released: int = 0
    lapsed: int = 0
    rerated: int = 0
    reratings: list[dict[str, Any]] = field(default_factory=list)
    segments: int = 0
    entries: int = 0


class _Posted(NamedTuple):
    """What was sent in the end, the answers, how many were rated by an earlier rulebook, and what
    caps and budgets have given then.
    """

    targets: TargetBatch
    answers: np.ndarray
    rerated: int
    used: UsageBatch


def accrue(
    journal: Journal,
    clickhouse: ClickHouse,
    book: Book,
    rulebooks: Mapping[bytes, Rulebook],
    cut: CutBatch,
    run_id: bytes,
    actor: str,
    progress: Progress | None = None,
    clock: Callable[[], int] = time.time_ns,
    members: Members | None = None,
) -> AccrualReport:
    """Run the job at a cut (a batch of one row). Doing it again is harmless.

    `rulebooks`: by hash, every one that a conversion may be pinned to. `members` answers rules that
    ask for tenure, level or products; without it the journal does, below the cut's position.
    Raises SinkError where the store and the journal disagree, AccrualError where a rulebook is
    missing.
    """
    job = _Job(
        journal, clickhouse, book, rulebooks, cut, run_id, actor, progress or _quietly, members
    )
    return job.run(clock)


def _quietly(_: str) -> None:
    """No progress."""


class _Job:
    """One run of accrual at one cut."""

    def __init__(
        self,
        journal: Journal,
        clickhouse: ClickHouse,
        book: Book,
        rulebooks: Mapping[bytes, Rulebook],
        cut: CutBatch,
        run_id: bytes,
        actor: str,
        progress: Progress,
        members: Members | None,
    ) -> None:
        assert len(cut) == 1, "one cut at a time"
        self.members = members
        self.journal, self.clickhouse, self.book = journal, clickhouse, book
        self.rulebooks, self.cut, self.run_id, self.actor = rulebooks, cut, run_id, actor
        self.progress = progress
        self.number, self.now_ns = int(cut.number[0]), int(cut.now_ns[0])
        self.fold = int(cut.repeat_of[0]) or self.number
        self.position: dict[str, int] = json.loads(cut.position.text(0))
        self.rating = Rating(clickhouse, rulebooks, self.position, self.now_ns, self.fold, members)
        self.rulebook = self.rating.rulebook(bytes(cut.rulebook_hash[0]), f"cut {self.number}")
        self.again: list[Approved] = []  # re-ratings that were approved at this cut

    def run(self, clock: Callable[[], int]) -> AccrualReport:
        """Everything, in its order."""
        started_ns = clock()
        self.book.use(self.rulebook)
        self._note(RunState.STARTED, started_ns)
        segments = self._deliver_journal()
        previous = self._previous()
        answers = self._post_commands((previous or {}).get("commands", 0))
        if self.again:
            previous = None  # they may be about any conversion
        self.progress("folding purchase messages")
        folds = self.clickhouse.folds(self.position, previous, self.now_ns, self.fold)
        results, reasons, rerated = self._post_all(folds, self._used(previous))
        due = self._post_due()
        report = AccrualReport(
            cut=self.number,
            name=self.cut.name.text(0),
            now_ns=self.now_ns,
            conversions=len(folds),
            whole=previous is None,
            results=_words(Result, results),
            reasons=_words(TargetReason, reasons),
            orders=answers,
            released=due.released,
            lapsed=due.lapsed,
            rerated=rerated,
            reratings=[each.told() for each in self.again],
            segments=segments,
            entries=deliver_outbox(self.clickhouse, self.book),
        )
        self._note(RunState.DONE, started_ns, clock(), report)
        crash_point("accrue.before_done")
        self.book.finish_cut(self.cut, self.run_id)
        return report

    def _deliver_journal(self) -> int:
        """Bring the store up to the journal and make sure that it is as the journal."""
        self.progress("delivering the journal")
        if not self._is_sealed():
            self.journal.seal()
        segments = self.clickhouse.project(self.journal)
        if not self._is_sealed():
            raise AccrualError(f"cut {self.number} is ahead of the journal")
        self.clickhouse.verify_against(self.journal)
        return segments

    def _is_sealed(self) -> bool:
        """Is every row below the cut's position in a sealed segment?"""
        for stream, rows in self.position.items():
            sealed = [s.end for s in self.journal.segments(stream) if s.sealed]
            if max(sealed, default=0) < rows:
                return False
        return True

    def _previous(self) -> dict[str, int] | None:
        """The position of the cut before; None where all conversions have to be folded.

        That is so at the first cut, under another rulebook than before, and where the store lacks
        outcomes: it needs those of one cut that folded all, and of every cut since.
        """
        earlier = self.clickhouse.dicts(
            "SELECT number, position, rulebook_hash FROM cuts_log"
            f" WHERE repeat_of = 0 AND number < {self.fold} ORDER BY number DESC"
        )
        kept = dict(
            self.clickhouse.rows(
                "SELECT r.cut, r.whole FROM (SELECT cut, any(conversions) AS sent,"
                f" any(whole) AS whole FROM runs_log WHERE state = 'done' AND job = '{JOB}'"
                " GROUP BY cut) AS r LEFT JOIN (SELECT cut, count() AS kept FROM conversions_log"
                " GROUP BY cut) AS k ON k.cut = r.cut WHERE r.sent = k.kept"
            )
        )
        for row in earlier:
            if row["number"] not in kept:
                return None
            if kept[row["number"]]:
                break
        if not earlier or earlier[0]["rulebook_hash"] != id_text(self.rulebook.hash):
            return None
        position: dict[str, int] = json.loads(earlier[0]["position"])
        return position

    def _post_commands(self, start: int) -> dict[str, int]:
        """Send the commands that came since the cut before; how many were answered what."""
        stop = self.position.get("commands", 0)
        commands, places = self.clickhouse.commands(BOOK_COMMANDS, start, stop)
        doubtful = doubts(self.clickhouse, self.position, start, self.rulebook.policy.fraud)
        self.book.post_commands(commands, places=places, doubts=doubtful, **self._booking())
        self.book.put_on_record(
            *self.clickhouse.commands(RECORDED_COMMANDS, start, stop), **self._booking()
        )
        answers = answers_to(self.book, commands, self.number)
        if self.fold == self.number:  # a repeat was answered at the cut that it repeats
            self.again = self._approved(commands, answers)
            told = doubts_told(self.book, commands)
            rows = answer_rows(commands, places, answers, self.number, told)
            self.clickhouse.deliver_answers(rows, self.number, self.run_id)
        return _words(Result, answers)

    def _approved(self, commands: CommandBatch, answers: np.ndarray) -> list[Approved]:
        """The re-ratings that somebody approved among these commands."""
        decided = [
            row.id("request")
            for row, answer in zip(commands_of(commands), answers.tolist(), strict=True)
            if row.kind == "approve" and answer == Result.OK
        ]
        return approved(
            self.clickhouse, self.book, self.rulebooks, decided, self.members, self.progress
        )

    def _post_due(self) -> Due:
        """Let end what is due at the cut."""
        self.progress("ending what is due")
        return self.book.post_due(**self._booking())

    def _booking(self) -> dict[str, Any]:
        """What everything booked by this job has in common."""
        return {
            "cut": self.number, "now_ns": self.now_ns, "run_id": self.run_id, "actor": self.actor,
        }  # fmt: skip

    def _used(self, previous: dict[str, int] | None) -> UsageBatch:
        """What conversions that are not folded hold of caps and budgets."""
        limits = self.rating.limits
        return self.clickhouse.usage(self.position, previous, self.now_ns, self.fold, limits)

    def _post_all(self, folds: FoldBatch, used: UsageBatch) -> tuple[np.ndarray, np.ndarray, int]:
        """Rate, send and write down all folds, block by block; the answers, the reasons, how many
        were rated by an earlier rulebook.
        """
        known = self.rating.evidence(folds)
        results, reasons = np.zeros(len(folds), np.uint8), np.zeros(len(folds), np.uint8)
        rerated = 0
        for start, stop in self.rating.blocks(len(folds)):
            block = folds.slice(start, stop)
            posted = self._post(block, known.take(np.arange(start, stop)), used)
            results[start:stop], reasons[start:stop] = posted.answers, posted.targets.reason
            rerated += posted.rerated
            block = block.with_columns(kind=kinds_of(block, self.rulebook))
            found = outcomes(self.cut, block, posted.targets, posted.answers)
            self.clickhouse.deliver_conversions(found, self.number, self.run_id, start)
        return results, reasons, rerated

    def _post(self, folds: FoldBatch, known: Evidence, used: UsageBatch) -> _Posted:
        """Rate and send a block. What was approved to be rated again comes behind all others."""
        whose = self._whose(folds)
        if not (whose >= 0).any():
            return self._post_usual(folds, known, used)
        usual = np.flatnonzero(whose < 0)
        posted = self._post_usual(folds.take(usual), known.take(usual), used)
        parts = [(usual, posted.targets, posted.answers)]
        rerated = posted.rerated
        for number, each in enumerate(self.again):
            rows = np.flatnonzero(whose == number)
            rulebook = self.rating.rulebook(each.choice.rulebook_hash, "a re-rating")
            found = self.rating.rated(folds.take(rows), rulebook, known.take(rows), posted.used)
            agrees = each.agrees(found.targets)
            given = found.given.take(agrees[found.given_row])
            targets = found.targets.take(agrees)
            answers = self._send(targets, each)
            each.booked += len(targets)
            each.left_out += int((~agrees).sum())
            parts.append((rows[agrees], targets, answers))
            others = rows[~agrees]
            posted = self._post_usual(
                folds.take(others), known.take(others), concat([posted.used, given])
            )
            parts.append((others, posted.targets, posted.answers))
            rerated += posted.rerated
        return _Posted(*in_order(parts), rerated, posted.used)

    def _whose(self, folds: FoldBatch) -> np.ndarray:
        """By which of the approved re-ratings each of these is rated again, -1 for none (int64).

        That is one which the book has rated before; what it has not is rated as ever.
        """
        whose = np.full(len(folds), -1, np.int64)
        if not self.again:
            return whose
        keys = [bytes(key) for key in folds.conversion_key]
        pinned = self.book.pinned(keys)
        for number, each in enumerate(self.again):
            for row, key in enumerate(keys):
                if key in each.at and key in pinned:
                    whose[row] = number
        return whose

    def _post_usual(self, folds: FoldBatch, known: Evidence, used: UsageBatch) -> _Posted:
        """Rate and send; those refused for their rule again, rated as the first time.

        What the others were given comes before those that are rated again.
        """
        found = self.rating.rated(folds, self.rulebook, known, used)
        targets = found.targets
        results = self._send(targets)
        refused = np.flatnonzero(results == Result.RULE_VERSION_PINNED)
        used = concat([used, found.given.take(~np.isin(found.given_row, refused))])
        pins = self.book.pinned(targets.conversion_key[refused])
        by_rulebook: dict[bytes, list[int]] = {}
        for row in refused.tolist():
            pin = pins[bytes(targets.conversion_key[row])]
            by_rulebook.setdefault(bytes(pin.rulebook_hash), []).append(row)
        for rulebook_hash, chosen in sorted(by_rulebook.items()):
            rows = np.array(chosen, np.int64)
            rulebook = self.rating.rulebook(rulebook_hash, f"{len(rows)} conversions")
            again = self.rating.rated(folds.take(rows), rulebook, known.take(rows), used)
            used = concat([used, again.given])
            results[rows] = self._send(again.targets)
            targets = _exchanged(targets, rows, again.targets)
        return _Posted(targets, results, len(refused), used)

    def _send(self, targets: TargetBatch, again: Approved | None = None) -> np.ndarray:
        """Send targets in batches of a transaction each; the answers (uint8). `again`: they are of
        this re-rating, and booked in the name of who approved it.
        """
        booking = self._booking()
        if again is not None:
            who = again.asked
            booking |= {"actor": who.approved_by, "role": who.role, "scope": who.scope}
            booking["re_rates"] = True
        answers = [np.zeros(0, np.uint8)]
        for start in range(0, len(targets), POST_ROWS):
            self.progress(f"booking {start + 1:,} of {len(targets):,} conversions")
            crash_point("accrue.before_post")
            answers.append(
                self.book.post_targets(targets.slice(start, start + POST_ROWS), **booking)
            )
        return np.concatenate(answers)

    def _note(
        self,
        state: RunState,
        started_ns: int,
        finished_ns: int = 0,
        report: AccrualReport | None = None,
    ) -> None:
        """Write down, in the book and in the store, that the run began or that it is done."""
        counts = ""
        if report is not None:
            told = {name: getattr(report, name) for name in ("results", "reasons", "orders")}
            told |= {"reratings": report.reratings} if report.reratings else {}
            numbers = ("rerated", "released", "lapsed", "segments", "entries")
            told |= {name: getattr(report, name) for name in numbers}
            counts = json.dumps(told, sort_keys=True)
        self.clickhouse.deliver_run(
            RunBatch(
                run_id=ids([self.run_id]),
                state=np.array([state], np.uint8),
                job=TextColumn.of([JOB]),
                actor=TextColumn.of([self.actor]),
                cut=self.cut.number,
                cut_id=self.cut.cut_id,
                now_ns=self.cut.now_ns,
                rulebook_hash=self.cut.rulebook_hash,
                conversions=np.array([report.conversions if report else 0], np.int64),
                whole=np.array([report.whole if report else 0], np.uint8),
                counts=TextColumn.of([counts]),
                started_ns=np.array([started_ns], np.int64),
                finished_ns=np.array([finished_ns], np.int64),
            )
        )
        outcome = "done" if state == RunState.DONE else ""
        rulebook_hash = self.rulebook.hash
        self.book.put_run(
            Run(
                self.run_id,
                JOB,
                self.actor,
                rulebook_hash,
                started_ns,
                finished_ns,
                outcome,
                counts,
            )
        )


def _exchanged(targets: TargetBatch, rows: np.ndarray, others: TargetBatch) -> TargetBatch:
    """The targets with these rows in place of those at the row numbers `rows`."""
    order = np.arange(len(targets))
    order[rows] = len(targets) + np.arange(len(rows))
    return concat([targets, others]).take(order)


def outcomes(
    cut: CutBatch, folds: FoldBatch, targets: TargetBatch, results: np.ndarray
) -> ConversionBatch:
    """One row per conversion: what was known, what was sent, what the book answered."""
    rows = len(targets)
    return ConversionBatch(
        conversion_key=targets.conversion_key,
        cut=np.repeat(cut.number, rows),
        cut_id=np.repeat(cut.cut_id, rows),
        fold=targets.fold,
        result=results,
        state=targets.state,
        reason=targets.reason,
        points=targets.points,
        partner=targets.partner,
        conversion_id=targets.conversion_id,
        kind=folds.kind,
        status=folds.status,
        amount_minor=folds.amount_minor,
        commission_minor=folds.commission_minor,
        currency=targets.currency,
        receivable_minor=targets.receivable_minor,
        cost_minor=targets.cost_minor,
        margin_minor=targets.margin_minor,
        subscriber_id=targets.subscriber_id,
        click_id=targets.click_id,
        visit_id=targets.visit_id,
        facts=targets.facts,
        facts_hash=targets.facts_hash,
        event_ns=targets.event_ns,
        release_ns=targets.release_ns,
        rule_id=targets.rule_id,
        rule_version=targets.rule_version,
        contract_version=targets.contract_version,
        rulebook_hash=targets.rulebook_hash,
        explanation=targets.explanation,
    )


def deliver_outbox(clickhouse: ClickHouse, book: Book) -> int:
    """Deliver every entry of the book that the store does not have yet; how many there were.

    Where delivery goes on is asked of the store, not of the outbox: what the store has is what
    counts.
    """
    delivered = 0
    last = clickhouse.entries_delivered()
    while len(entries := book.entries(last, BLOCK_ROWS)):
        delivered += clickhouse.deliver_entries(entries)
        last = int(entries.sequence[-1])
    book.mark_delivered(last)
    return delivered


def compare_with_book(clickhouse: ClickHouse, book: Book) -> list[str]:
    """A line for each thing in which the store is not as the book; empty where they agree."""
    problems = _compare_entries(clickhouse, book)
    found = clickhouse.rows(
        "SELECT account, commodity, sum(amount) AS balance FROM entries_log"
        " GROUP BY account, commodity HAVING balance != 0"
    )
    there = {(str(account), str(commodity)): int(balance) for account, commodity, balance in found}
    ours = book.balances()
    problems += [
        f"balance of {account} in {commodity}: {ours.get((account, commodity), 0)} in the book, "
        f"{there.get((account, commodity), 0)} by the entries in the store"
        for account, commodity in sorted(ours.keys() | there.keys())
        if ours.get((account, commodity), 0) != there.get((account, commodity), 0)
    ]
    return problems + _compare_conversions(clickhouse)


def _compare_entries(clickhouse: ClickHouse, book: Book) -> list[str]:
    """Every column of every entry, block by block."""
    problems: list[str] = []
    last = 0
    while True:
        ours, theirs = book.entries(last, BLOCK_ROWS), clickhouse.entries(last, BLOCK_ROWS)
        if not len(ours) and not len(theirs):
            return problems
        bounds = f"entries {last + 1} to {last + BLOCK_ROWS}"
        if len(ours) != len(theirs):
            problems.append(f"{bounds}: {len(ours)} in the book, {len(theirs)} in the store")
        else:
            wrong = row_hashes(ours, OPEN_KEY) != row_hashes(theirs, OPEN_KEY)
            if wrong.any():
                number = int(ours.sequence[np.argmax(wrong)])
                problems.append(f"{bounds}: the store has another entry {number} than the book")
        last += BLOCK_ROWS


def _compare_conversions(clickhouse: ClickHouse) -> list[str]:
    """The points last accepted for each conversion against the sum of its entries."""
    accepted = ", ".join(f"'{r.name.lower()}'" for r in (Result.OK, Result.EXISTS))
    found = clickhouse.rows(
        "SELECT greatest(c.conversion_key, e.conversion_key), c.points, e.points FROM ("
        "  SELECT conversion_key, argMax(points, tuple(fold, cut)) AS points FROM conversions_log"
        f" WHERE result IN ({accepted}) GROUP BY conversion_key) AS c FULL OUTER JOIN ("
        "  SELECT conversion_key, sum(amount) AS points FROM entries_log"
        f" WHERE account = '{ISSUED}' AND cause_kind = 'conversion' GROUP BY conversion_key"
        ") AS e ON e.conversion_key = c.conversion_key WHERE c.points != e.points"
        " ORDER BY 1 LIMIT 100"
    )
    return [
        f"conversion {key}: accrual sent {sent} points, its entries come to {booked}"
        for key, sent, booked in found
    ]


def _words(words: type[IntEnum], column: np.ndarray) -> dict[str, int]:
    counts = Counter(column.tolist())
    return {words(number).name.lower(): counts[number] for number in sorted(counts)}
