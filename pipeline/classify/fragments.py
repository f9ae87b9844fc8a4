"""Fragments of IP packets become packets; the memory behind it, of a stated size.

`join` is asked after the header walk and the gate. Rows of fragments become the rows of whole
packets, or get a skip or a fault; payloads of whole packets lie in `joined` until the next `join`.
Nothing is kept of a fragment that the gate stops, see `fragments_kernels`.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.fragments_kernels import (
    BLOCK,
    BLOCK_BYTES,
    DESK,
    SET,
    forget_fragments,
    give_up_fragments,
    join_fragments,
)
from pipeline.classify.fragments_kernels import Fragments as Arrays
from pipeline.classify.layers_kernels import PACKET_BYTES_MAX
from pipeline.kernels.circle import Circle
from pipeline.kernels.compile import records
from pipeline.model.batches import PacketBatch
from pipeline.model.stage import Snapshot

NO_TIME = -(1 << 62)
JOINED_BYTES_AT_FIRST = 1 << 18
SAVED = ("sets", "buckets", "blocks", "memory", "desk")


class Fragments:
    """At most `sets` packets in `blocks` blocks of 2 KiB, each for `hold_ns` of packet time."""

    def __init__(self, sets: int, blocks: int, hold_ns: int, key: np.ndarray) -> None:
        self._arrays = Arrays(
            sets=records(SET, sets),
            buckets=np.zeros(1 << (2 * sets - 1).bit_length(), np.int32),
            blocks=records(BLOCK, blocks),
            memory=np.zeros(blocks * BLOCK_BYTES, np.uint8),
            desk=records(DESK, 1),
        )
        self.joined = np.zeros(0, np.uint8)
        self._open = Circle(key)  # of nobody: asked when there is no gate
        self._desk = self._arrays.desk[0]
        desk = self._desk
        desk["watermark_ns"], desk["hold_ns"] = NO_TIME, hold_ns
        desk["key0"], desk["key1"] = key[0], key[1]
        desk["free_set"] = desk["free_block"] = 1
        desk["blocks_left"] = blocks
        self._arrays.sets["subscriber"] = -1
        # Free sets and blocks are linked: each to the one behind it, the last to none.
        self._arrays.sets["next"][:-1] = np.arange(2, sets + 1)
        self._arrays.blocks["next"][:-1] = np.arange(2, blocks + 1)

    @property
    def busy(self) -> bool:
        """Is anything kept?"""
        return bool(self._desk["oldest"])

    def join(
        self,
        packets: PacketBatch,
        heads: np.ndarray,
        watermark_ns: int,
        circle: Circle | None,
        parse_for: int,
        own: np.ndarray,
        subscriber: np.ndarray,
        basis: np.ndarray,
    ) -> None:
        """Put together what fragments there are among `heads` (HEADER records of `packets`).

        `watermark_ns` is the largest packet time before this batch; the rest is the gate's, which
        was asked for all rows and filled `subscriber` (int32) and `basis` (uint8).
        """
        self._wipe()
        if self.busy:
            self.advance(watermark_ns)
        self._desk["watermark_ns"] = max(int(self._desk["watermark_ns"]), watermark_ns)
        gate = (self._open if circle is None else circle).arrays
        start = 0
        while True:
            start = join_fragments(
                *self._arrays,
                *gate,
                parse_for,
                own,
                circle is not None,
                heads,
                packets.data,
                packets.time_ns,
                subscriber,
                basis,
                self.joined,
                start,
            )
            if start >= len(packets):
                return
            wider = np.zeros(max(2 * len(self.joined), JOINED_BYTES_AT_FIRST), np.uint8)
            wider[: len(self.joined)] = self.joined
            self.joined = wider

    def advance(self, watermark_ns: int) -> None:
        """Give up packets whose time is up at `watermark_ns`."""
        give_up_fragments(*self._arrays, watermark_ns)

    def forget(self, gone: np.ndarray) -> None:
        """Drop what is kept for the subscribers whose place in `gone` (uint8) is set."""
        forget_fragments(*self._arrays, gone)
        self._wipe()

    def _wipe(self) -> None:
        """Forget what was put together; some of it may lie behind the last whole packet."""
        self.joined[: int(self._desk["joined"]) + PACKET_BYTES_MAX] = 0
        self._desk["joined"] = 0

    def settle(self, events: np.ndarray) -> None:
        """Add what befell packets that never became whole to `events` (int64, by Fault)."""
        own = self._desk["events"]
        events += own
        own[:] = 0

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that is kept, as arrays."""
        return {
            f"fragments_{name}": np.asarray(getattr(self._arrays, name)).view(np.uint8).copy()
            for name in SAVED
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Take a snapshot's state, made with the same key and limits, in place of one's own."""
        for name in SAVED:
            values = np.asarray(getattr(self._arrays, name)).view(np.uint8)
            saved = snapshot[f"fragments_{name}"]
            assert values.shape == saved.shape, "made with other limits"
            values[:] = saved
