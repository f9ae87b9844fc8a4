"""Who the member was at the time of a purchase: tenure, level and products, as columns.

Given what is known of members (`MemberBatch`, each row from its own time on) and the members of
some conversions, `Standing` has the row that held at each purchase. Of somebody of whom nothing is
known no condition holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from pipeline.model.batches import MemberBatch
from pipeline.model.columns import TextColumn
from pipeline.score.calendar import local_days, whole_months


class Standing:
    """What was known of the member of each row; `row` is -1 for nothing."""

    def __init__(
        self,
        members: MemberBatch | None,
        subscriber_id: np.ndarray,
        event_ns: np.ndarray,
        timezone: str,
    ) -> None:
        members = MemberBatch.empty() if members is None else members
        self._levels = [level.lower() for level in members.level.to_list()]
        self._products = [text.lower() for text in members.products.to_list()]
        self.row = holding(members, subscriber_id, event_ns)
        self.tenure_months = np.full(len(event_ns), -1, np.int64)
        known = np.flatnonzero(self.row >= 0)
        joined = members.joined_ns[self.row[known]]
        known, joined = known[joined > 0], joined[joined > 0]
        self.tenure_months[known] = whole_months(
            local_days(joined, timezone), local_days(event_ns[known], timezone)
        )

    def in_levels(self, levels: Iterable[str]) -> np.ndarray:
        """Is the member's level one of these (bool)?"""
        wanted = {*levels}
        return self._spread([level in wanted for level in self._levels])

    def has_products(self, products: Iterable[str]) -> np.ndarray:
        """Has the member one of these products (bool)?"""
        wanted = {*products}
        return self._spread([not wanted.isdisjoint(text.split()) for text in self._products])

    @cached_property
    def level(self) -> TextColumn:
        """The level at each row; empty where none is known."""
        return TextColumn.of([*self._levels, ""]).take(self.row % (len(self._levels) + 1))

    @cached_property
    def products(self) -> TextColumn:
        """The products at each row."""
        return TextColumn.of([*self._products, ""]).take(self.row % (len(self._products) + 1))

    def _spread(self, of_members: list[bool]) -> np.ndarray:
        return np.asarray(np.array([*of_members, False], np.bool_)[self.row])


def holding(members: MemberBatch, subscriber_id: np.ndarray, when_ns: np.ndarray) -> np.ndarray:
    """The row of `members` that held for each of these at its time (int64), -1 for none.

    Of two rows of a member from the same time on the later one counts.
    """
    known = len(members)
    if not known or not len(subscriber_id):
        return np.full(len(subscriber_id), -1, np.int64)
    whose = np.concatenate([members.subscriber_id, subscriber_id]).view("S16").reshape(-1)
    _, person = np.unique(whose, return_inverse=True)
    person = person.reshape(-1)
    when = np.concatenate([members.since_ns, when_ns])
    asked = np.arange(len(when)) >= known
    order = np.lexsort((asked, when, person))
    place = np.where(asked[order], -1, np.arange(len(order)))
    before = np.maximum.accumulate(place)
    row = order[np.maximum(before, 0)]
    same = (before >= 0) & (person[row] == person[order])
    found = np.full(len(when), -1, np.int64)
    found[order] = np.where(same, row, -1)
    return found[known:]
