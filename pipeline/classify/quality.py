"""How good the mirror is, counted beside what is read of it.

Nothing here changes what becomes of a packet. What is counted stands in `quality_kernels.py`; of
packets that the gate stops there is only whether the capture cut them off. Behind a gate one
direction is looked at, so nobody can tell whether flows are shown both ways.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.quality_kernels import (
    HALF,
    RECENT,
    SHOWN,
    SUMS,
    WATCHED,
    thin_out,
    watch_packets,
)
from pipeline.kernels.compile import records
from pipeline.model.batches import PacketBatch
from pipeline.model.stage import Snapshot
from pipeline.model.tally import Tally

STAGE = "mirror"
WORDS = {
    "truncated": "packets_truncated",
    "counted": "flows_watched",
    "both_ways": "flows_both_ways",
    "segments": "segments_watched",
    "twice": "segments_twice",
    "holes": "holes",
    "filled": "holes_filled",
}
BOTH_SIDES = ("counted", "both_ways")  # need both directions


class MirrorQuality:
    """Watches up to `flows` TCP flows at a time; in a `directed` table only what clients send."""

    def __init__(self, flows: int, directed: bool) -> None:
        assert flows >= 2
        self._capacity = flows
        self._words = {n: w for n, w in WORDS.items() if not (directed and n in BOTH_SIDES)}
        self._sums = records(SUMS, 1)
        self._told = np.zeros(1, SUMS)
        self._tables = self._empty()

    def _empty(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = 2 << (self._capacity - 1).bit_length()
        return records(WATCHED, size), records(HALF, 2 * size), records(SHOWN, 2 * RECENT * size)

    def watch(
        self, batch: PacketBatch, heads: np.ndarray, fingerprint: np.ndarray, side: np.ndarray
    ) -> None:
        """Take the packets of a batch with their headers, and the flow table's columns of them."""
        start = 0
        while True:
            start = watch_packets(
                *self._tables,
                self._sums,
                self._capacity,
                heads,
                batch.captured_length,
                batch.wire_length,
                batch.time_ns,
                fingerprint,
                side,
                start,
            )
            if start >= len(batch):
                return
            self.thin_out(int(batch.time_ns[start]))

    def thin_out(self, now_ns: int) -> None:
        """Make room, at this packet time."""
        other = self._empty()
        thin_out(*self._tables, self._sums, self._capacity, now_ns, *other)
        self._tables = other

    def forget(self) -> None:
        """Somebody left: the sample begins anew, with nothing of whoever it was."""
        self._tables = self._empty()
        self._sums["flows"] = 0

    def snapshot(self) -> dict[str, np.ndarray]:
        """All of it as arrays."""
        parts = (*self._tables, self._sums, self._told)
        return {
            f"mirror.{n}": np.asarray(part).view(np.uint8).copy() for n, part in enumerate(parts)
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Take a snapshot of one of the same size in place of one's own."""
        self._tables = self._empty()
        for number, part in enumerate((*self._tables, self._sums, self._told)):
            part.view(np.uint8)[:] = snapshot[f"mirror.{number}"]

    def settle(self, tally: Tally) -> None:
        """Hand on what was counted since the last time."""
        sums = np.asarray(self._sums)
        for name, word in self._words.items():
            tally.add(STAGE, f"mirror:{word}", int(sums[name][0] - self._told[name][0]))
        self._told[:] = sums
