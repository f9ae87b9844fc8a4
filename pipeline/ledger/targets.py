"""Requests to the book as plain rows: absolute targets of conversions.

A target says what a conversion is worth, not what to change; the book computes the difference. What
it compares is a target's *worth* (member, state, points, money). Everything else of a target
(facts, click, times, reason) is how it came about.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.model.batches import TargetBatch
from pipeline.model.columns import TextColumn, columns_of, id_words
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.words import TargetState


class Target(NamedTuple):
    """One row of a `TargetBatch`; `facts_hash` as a signed number, for databases know no other."""

    conversion_key: bytes
    fold: int
    facts: int
    facts_hash: int
    subscriber_id: bytes
    partner: str
    conversion_id: str
    state: int
    reason: int
    points: int
    receivable_minor: int
    cost_minor: int
    margin_minor: int
    currency: str
    click_id: bytes
    visit_id: bytes
    event_ns: int
    release_ns: int
    rule_id: str
    rule_version: bytes
    contract_version: str
    rulebook_hash: bytes
    terms_hash: bytes
    explanation: str

    @property
    def standing(self) -> TargetState:
        """Where its points stand; a target without points has none to stand anywhere."""
        return TargetState(self.state) if self.points else TargetState.NONE

    @property
    def worth(self) -> tuple[object, ...]:
        """What two targets must share to be the same to the book."""
        money = (self.receivable_minor, self.cost_minor, self.margin_minor)
        return (
            self.state,
            self.points,
            self.subscriber_id if self.points else NO_ID,
            self.partner,
            money,
            self.currency if any(money) else "",
        )


def targets_of(batch: TargetBatch) -> list[Target]:
    """The rows of a batch. Raises ValueError for a target that no accrual may send."""
    columns = [plain_column(getattr(batch, c.name)) for c in columns_of(TargetBatch)]
    targets = [Target(*row) for row in zip(*columns, strict=True)]
    for row in _doubtful(batch).tolist():
        wrong = what_is_wrong(targets[row])
        if wrong:
            key = id_text(targets[row].conversion_key)
            raise ValueError(f"the target of conversion {key} {wrong}")
    return targets


def _doubtful(batch: TargetBatch) -> np.ndarray:
    """Rows that may be a mistake: all that are, and some others (int64)."""
    money = (batch.receivable_minor != 0) | (batch.cost_minor != 0) | (batch.margin_minor != 0)
    settled = batch.receivable_minor == batch.cost_minor + batch.margin_minor
    unrated = ~id_words(batch.rule_version).any(axis=1)
    nobody = ~id_words(batch.conversion_key).any(axis=1)
    lengths = np.diff(batch.currency.offsets)
    doubtful = nobody | ~settled | (money & (batch.state != TargetState.AVAILABLE))
    doubtful |= money & (lengths == 0)
    doubtful |= (batch.points != 0) & (batch.state == TargetState.NONE)
    doubtful |= unrated & ((batch.points != 0) | money)
    return np.flatnonzero(doubtful)


def what_is_wrong(target: Target) -> str:
    """Why a target is a mistake of whoever made it; empty for a sound one."""
    money = target.receivable_minor or target.cost_minor or target.margin_minor
    if target.conversion_key == NO_ID:
        return "has no conversion"
    if target.receivable_minor != target.cost_minor + target.margin_minor:
        return "has a receivable that is not cost and margin"
    if money and target.state != TargetState.AVAILABLE:
        return "carries money before its points are available"
    if money and not target.currency:
        return "carries money without a currency"
    if target.points and target.state == TargetState.NONE:
        return "has points but no state"
    if (target.points or money) and target.rule_version == NO_ID:
        return "has points or money but no rule version"
    return ""


def plain_column(column: np.ndarray | TextColumn) -> list:
    """A column as Python values: ids as bytes, texts without NUL (which no database takes)."""
    if isinstance(column, TextColumn):
        values = column.to_list()
        if len(column.data) and not column.data.all():
            values = [value.replace("\0", "\ufffd") for value in values]
        return values
    if column.dtype.kind == "V":
        raw = column.tobytes()
        return [raw[at : at + 16] for at in range(0, len(raw), 16)]
    if column.dtype == np.uint64:
        column = column.view(np.int64)
    return list(column.tolist())
