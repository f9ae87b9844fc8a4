"""The contract of a stage with state.

A stage reads no clock, draws no number, logs nothing and does no I/O. It is driven by `push` with a
batch and by `advance` with a watermark: the largest event time of its input so far. Everything that
happens "after a while" happens when the watermark passes, never when a batch ends, so results do
not depend on how the input was cut. The end of the input is `advance(END_OF_TIME)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from pipeline.model.tally import Tally

END_OF_TIME = np.iinfo(np.int64).max

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)

Snapshot = Mapping[str, np.ndarray]


class Stage(Protocol[In, Out]):
    """What every stage with state offers."""

    def push(self, batch: In, tally: Tally) -> Out:
        """Take a batch, give what it led to, in canonical order."""
        ...

    def advance(self, watermark_ns: int, tally: Tally) -> Out:
        """Give what became due before `watermark_ns`."""
        ...

    def snapshot(self) -> dict[str, np.ndarray]:
        """The whole state as plain arrays."""
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Take a snapshot's state in place of one's own."""
        ...


def array_text(values: Any) -> np.ndarray:
    """JSON text as a uint8 array, for the few parts of a snapshot that are not columns."""
    return np.frombuffer(str(values).encode(), np.uint8).copy()
