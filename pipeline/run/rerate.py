"""Re-rating: what was bought before, by the rules that are in force now.

Conversions keep the rules they were first rated by. Where that shall not be so, `job rerate` rates
those that are chosen (by the time of purchase, by partner) as of the last cut that is done, shows
what would be different for whom, and asks for it under a digest of every row. Another person
approves it. At the cut that hears of that, the same rows are made again from the same cut; if their
digest is the one that was approved, they are booked: each as it was approved, and only if nothing
that is known of it has changed since. What has is left out, keeps its rules and is told.

Entries of a re-rating have a kind of their own, and the one who approved it as their actor.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from pipeline.model.batches import FoldBatch, TargetBatch
from pipeline.model.columns import concat
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.rulebook.model import Rulebook
from pipeline.run.rating import AccrualError, Members, Rating
from pipeline.store.book import Book
from pipeline.store.book_rules import Rerate
from pipeline.store.clickhouse import ClickHouse

Progress = Callable[[str], None]
NO_TIME = 0


class Choice(NamedTuple):
    """Which conversions: of those known at a cut the ones of a partner (all where it is empty), and
    bought from `since_ns` on and before `until_ns` (0 for no bound); and by which rules.
    """

    cut: int
    rulebook_hash: bytes
    partner: str
    since_ns: int
    until_ns: int

    def rows(self, folds: FoldBatch) -> np.ndarray:
        """The rows that are chosen (int64)."""
        there = np.ones(len(folds), np.bool_)
        if self.partner:
            there &= np.array([name == self.partner for name in folds.partner.to_list()], np.bool_)
        if self.since_ns:
            there &= folds.event_ns >= self.since_ns
        if self.until_ns:
            there &= folds.event_ns < self.until_ns
        return np.flatnonzero(there)

    def body(self) -> dict[str, Any]:
        """The choice as the body of a command has it."""
        return {
            "cut": self.cut,
            "rulebook": id_text(self.rulebook_hash),
            "partner": self.partner,
            "since": self.since_ns,
            "until": self.until_ns,
        }


@dataclass(frozen=True, slots=True)
class Worths:
    """What conversions are worth: columns of one length, in the order of purchase."""

    conversion_key: np.ndarray  # ID
    facts_hash: np.ndarray  # u64, of all messages
    subscriber_id: np.ndarray  # ID
    points: np.ndarray  # i64
    partner: list[str]
    currency: list[str]
    receivable_minor: np.ndarray  # i64
    cost_minor: np.ndarray  # i64
    margin_minor: np.ndarray  # i64
    state: np.ndarray  # u8 of TargetState

    def __len__(self) -> int:
        return len(self.conversion_key)

    def digest(self, choice: Choice) -> str:
        """A digest of the choice and of every row, in hex digits."""
        found = hashlib.blake2b(digest_size=16, person=b"rerate")
        found.update(json.dumps(choice.body(), sort_keys=True).encode())
        for column in (
            self.conversion_key,
            self.facts_hash,
            self.subscriber_id,
            self.points,
            self.receivable_minor,
            self.cost_minor,
            self.margin_minor,
            self.state,
        ):
            found.update(np.ascontiguousarray(column).tobytes())
        found.update(json.dumps([self.partner, self.currency]).encode())
        return found.hexdigest()


def worths_at(
    clickhouse: ClickHouse,
    rulebooks: Mapping[bytes, Rulebook],
    choice: Choice,
    members: Members | None = None,
    progress: Progress | None = None,
) -> Worths:
    """What the chosen conversions are worth by the chosen rules, as of the chosen cut.

    Raises AccrualError where the store has no such cut.
    """
    position, now_ns, fold = _cut(clickhouse, choice.cut)
    rating = Rating(clickhouse, rulebooks, position, now_ns, fold, members)
    rulebook = rating.rulebook(choice.rulebook_hash, "a re-rating")
    if progress:
        progress("folding purchase messages as of then")
    folds = clickhouse.folds(position, None, now_ns, fold)
    folds = folds.take(choice.rows(folds))
    used = clickhouse.usage_of_others(folds.conversion_key, fold + 1, rating.limits)
    found = [worths_of(TargetBatch.empty())]
    for start, stop in rating.blocks(len(folds)):
        if progress:
            progress(f"rating {start + 1:,} of {len(folds):,} conversions as of then")
        block = folds.slice(start, stop)
        found.append(worths_of(rating.rated(block, rulebook, rating.evidence(block), used).targets))
    columns: dict[str, Any] = {
        name: list(itertools.chain.from_iterable(getattr(part, name) for part in found))
        if name in TEXTS
        else np.concatenate([getattr(part, name) for part in found])
        for name in COLUMNS
    }
    return Worths(**columns)


COLUMNS = tuple(each.name for each in fields(Worths))
TEXTS = ("partner", "currency")


def worths_of(targets: TargetBatch) -> Worths:
    """What targets say, without why."""
    columns: dict[str, Any] = {name: getattr(targets, name) for name in COLUMNS}
    columns |= {name: columns[name].to_list() for name in TEXTS}
    return Worths(**columns)


def _cut(clickhouse: ClickHouse, number: int) -> tuple[dict[str, int], int, int]:
    """Position, `now` and the number under which a cut sent targets."""
    found = clickhouse.rows(
        "SELECT position, toUnixTimestamp64Nano(now_at), repeat_of FROM cuts_log"
        f" WHERE number = {int(number)}"
    )
    if not found:
        raise AccrualError(f"there is no cut {number}")
    position, now_ns, repeat_of = found[0]
    return json.loads(position), int(now_ns), int(repeat_of) or int(number)


# At the cut that hears of an approval


@dataclass(slots=True)
class Approved:
    """A re-rating that was approved, as the job at a cut carries it out."""

    asked: Rerate
    choice: Choice
    rows: Worths | None  # None where they read otherwise than when they were proposed
    at: dict[bytes, int] = field(default_factory=dict)  # the row of each conversion
    booked: int = 0
    left_out: int = 0
    points: int = 0

    def told(self) -> dict[str, Any]:
        """What came of it."""
        told: dict[str, Any] = {"request": id_text(self.asked.request_id)}
        if self.rows is None:
            return told | {"refused": "it reads otherwise than when it was proposed"}
        return told | {"booked": self.booked, "left_out": self.left_out}

    def agrees(self, targets: TargetBatch) -> np.ndarray:
        """Which of these targets are what was approved (bool)."""
        assert self.rows is not None
        rows = np.array([self.at[bytes(key)] for key in targets.conversion_key], np.int64)
        same = np.ones(len(targets), np.bool_)
        for name in ("facts_hash", "subscriber_id", "points"):
            same &= getattr(self.rows, name)[rows] == getattr(targets, name)
        return same


def approved(
    clickhouse: ClickHouse,
    book: Book,
    rulebooks: Mapping[bytes, Rulebook],
    request_ids: Sequence[bytes],
    members: Members | None = None,
    progress: Progress | None = None,
) -> list[Approved]:
    """The re-ratings among requests that were just approved, with their rows made again."""
    found = []
    for asked in book.rerates(request_ids):
        choice = choice_of(asked)
        rows = None
        if choice is not None:
            rows = worths_at(clickhouse, rulebooks, choice, members, progress)
            if rows.digest(choice) != asked.command.said.get("digest"):
                rows = None
        one = Approved(asked, choice or Choice(0, NO_ID, "", NO_TIME, NO_TIME), rows)
        if rows is not None:
            one.at = {bytes(key): row for row, key in enumerate(rows.conversion_key)}
        found.append(one)
    return found


def choice_of(asked: Rerate) -> Choice | None:
    """What a command to re-rate chose; None where its body does not say it."""
    command = asked.command
    cut, rulebook_hash = command.number("cut"), command.id("rulebook")
    if not cut or rulebook_hash == NO_ID:
        return None
    since_ns, until_ns = command.number("since"), command.number("until")
    return Choice(cut, rulebook_hash, command.text("partner"), since_ns, until_ns)


def in_order(parts: Sequence[tuple[np.ndarray, TargetBatch, np.ndarray]]) -> tuple[
    TargetBatch, np.ndarray
]:  # fmt: skip
    """Targets and answers of several sets of rows, by their rows."""
    rows = np.concatenate([part[0] for part in parts])
    order = np.argsort(rows, kind="stable")
    targets = concat([part[1] for part in parts]).take(order)
    return targets, np.concatenate([part[2] for part in parts])[order]
