"""What conversions are worth at a cut: what is known of them, brought together and rated.

Everything that is read lies below the cut's position, and every time is the cut's, so it is the
same whenever it is asked. `accrue.py` sends it to the book, `rerate.py` asks it of other rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from pipeline.model.batches import FoldBatch, MemberBatch, UsageBatch
from pipeline.model.columns import ID_DTYPE, ids
from pipeline.model.evidence import Evidence
from pipeline.model.identifiers import id_text
from pipeline.rulebook.model import Rulebook
from pipeline.score.models import coupon_owners
from pipeline.score.rate import Rated, rated
from pipeline.store.clickhouse import ClickHouse
from pipeline.store.features import evidence
from pipeline.store.members import ask_members
from pipeline.store.members import members as known_members
from pipeline.store.projection import BLOCK_ROWS
from pipeline.store.usage import Limits, limits_of

# What is known of the members with these ids (an ID column, each once).
Members = Callable[[np.ndarray], MemberBatch]


class AccrualError(RuntimeError):
    """The job cannot be done at this cut; the message says what is missing."""


class Rating:
    """Rates folds as of one cut. `members` answers rules that ask for tenure, level or products;
    without it the journal does, below the cut's position.
    """

    def __init__(
        self,
        clickhouse: ClickHouse,
        rulebooks: Mapping[bytes, Rulebook],
        position: Mapping[str, int],
        now_ns: int,
        fold: int,
        members: Members | None = None,
    ) -> None:
        self._clickhouse, self._rulebooks = clickhouse, rulebooks
        self.position, self.now_ns, self.fold = position, now_ns, fold
        self._members = members or self._known_members

    def rulebook(self, rulebook_hash: bytes, whose: str) -> Rulebook:
        """The rulebook with this hash. Raises AccrualError."""
        found = self._rulebooks.get(rulebook_hash)
        if found is None:
            raise AccrualError(f"the rulebook {id_text(rulebook_hash)} of {whose} is not known")
        return found

    @property
    def limits(self) -> Limits:
        """The caps and budgets of all rulebooks."""
        return limits_of(self._rulebooks.values())

    def blocks(self, rows: int) -> Iterator[tuple[int, int]]:
        """First row and end of each block that may be rated by itself.

        Explanations take much room, so there are some tens of thousands in one. Where a rule has a
        cap or a budget every conversion may depend on all others, and there is one block.
        """
        step = max(rows, 1) if self.limits.rules else BLOCK_ROWS
        for start in range(0, rows, step):
            yield start, min(start + step, rows)

    def evidence(self, folds: FoldBatch) -> Evidence:
        """What is known beside the folds, in their order."""
        owners = coupon_owners(self._rulebooks.values())
        return evidence(self._clickhouse, folds, self.position, owners)

    def rated(
        self, folds: FoldBatch, rulebook: Rulebook, known: Evidence, used: UsageBatch
    ) -> Rated:
        """What these are worth by a rulebook; `used` is what others hold of caps and budgets."""
        members = None
        if ask_members(rulebook):
            members = self._members(_members_in(folds, coupon_owners(self._rulebooks.values())))
        return rated(
            folds, rulebook, self.now_ns, fold=self.fold, members=members, used=used,
            evidence=known,
        )  # fmt: skip

    def _known_members(self, whom: np.ndarray) -> MemberBatch:
        """What the journal says of them below the cut's position."""
        return known_members(self._clickhouse, self.position, whom)


def _members_in(folds: FoldBatch, owners: Iterable[bytes]) -> np.ndarray:
    """Everybody whose purchases these may be, owners of coupons among them, each once (ID)."""
    both = np.concatenate([folds.click_subscriber, folds.match_subscriber, ids(list(owners))])
    return np.unique(both.view("S16")).astype("S16").view(ID_DTYPE)
