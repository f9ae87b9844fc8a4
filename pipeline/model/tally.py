"""Counters of what went in, came out, was dropped and why.

`Tally` holds no names and no addresses: counts by stage and word only, so that it may be shown to
anybody. Kernels fill plain count arrays (`fault_counts[Fault]`), which are added here once a batch.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

import numpy as np

from pipeline.model.faults import Fault, Skip


class Tally:
    """Counts by (stage, what)."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, stage: str, what: str, count: int = 1) -> None:
        """Count `count` of `what` in `stage`; zero leaves no trace."""
        if count:
            self.counts[stage, what] += int(count)

    def add_counts(self, stage: str, words: type[IntEnum], counts: np.ndarray) -> None:
        """Add an array of counts that is indexed by the enum's numbers."""
        for number in np.flatnonzero(counts).tolist():
            if number:
                prefix = "fault" if words is Fault else "skip" if words is Skip else ""
                self.add(stage, f"{prefix}:{words(number).name.lower()}", int(counts[number]))

    def of(self, what: str) -> int:
        """The sum of `what` over all stages."""
        return sum(count for (_, word), count in self.counts.items() if word == what)

    def starting(self, prefix: str) -> dict[str, int]:
        """Sums by word of everything that starts with `prefix:`, without the prefix, sorted."""
        found: Counter[str] = Counter()
        for (_, word), count in self.counts.items():
            if word.startswith(prefix + ":"):
                found[word.partition(":")[2]] += count
        return dict(sorted(found.items()))

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Everything, by stage and word, sorted."""
        nested: dict[str, dict[str, int]] = {}
        for (stage, word), count in sorted(self.counts.items()):
            nested.setdefault(stage, {})[word] = count
        return nested
