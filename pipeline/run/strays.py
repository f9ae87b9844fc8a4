"""Packets whose time lies in a future that never comes: left out, and no other is.

One packet of the year 2096 would, believed, close every visit and let nothing after it count. A
packet more than a day ahead of all before it therefore waits, with those behind it that are ahead
as well: when the clock falls back they were strays, which are counted; when eight in a row are
ahead, or the capture ends, the clock has moved on, and they come out as they stood. The first
packets are judged alike, by the middle one of their times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np

from pipeline.model.batches import PacketBatch
from pipeline.model.faults import Fault
from pipeline.model.tally import Tally

JUMP_NS = 24 * 3_600_000_000_000
BELIEVED_AFTER = 8


def without_strays(batches: Iterable[PacketBatch], tally: Tally) -> Iterator[PacketBatch]:
    """The batches without packets from the future, which are counted (`time_bad`).

    Packets that wait are copied: a framer's buffer is its own again once the next batch is asked
    for.
    """
    source = (batch for batch in batches if len(batch))
    opening = _opening(source)
    if not opening:
        return
    times = np.sort(np.concatenate([batch.time_ns for batch in opening])[:BELIEVED_AFTER])
    highest = int(times[(len(times) - 1) // 2])
    waiting: list[PacketBatch] = []
    for batch in chain(opening, source):
        latest = int(batch.time_ns.max())
        if not waiting and latest <= highest + JUMP_NS:
            highest = max(highest, latest)
            yield batch
            continue
        start = 0  # where in this batch begins what is neither given out nor left out
        ahead = 0 if waiting else -1  # where in it the packets that wait begin, -1 for nowhere
        for row, time_ns in enumerate(batch.time_ns.tolist()):
            if time_ns > highest + JUMP_NS:
                ahead = row if ahead < 0 else ahead
                if _rows(waiting) + row + 1 - ahead == BELIEVED_AFTER:
                    yield from waiting
                    waiting, ahead, highest = [], -1, time_ns
                continue
            if ahead >= 0:
                left_out = _rows(waiting) + row - ahead
                tally.add("capture", f"fault:{Fault.TIME_BAD.name.lower()}", left_out)
                if ahead > start:
                    yield cut_packets(batch, start, ahead)
                waiting, start, ahead = [], row, -1
            highest = max(highest, time_ns)
        stop = len(batch) if ahead < 0 else ahead
        if stop > start:
            yield cut_packets(batch, start, stop)
        if ahead >= 0:
            waiting.append(_owned(cut_packets(batch, ahead, len(batch))))
    yield from waiting


def _opening(source: Iterator[PacketBatch]) -> list[PacketBatch]:
    """As many batches as have the packets that the first time is judged by."""
    opened: list[PacketBatch] = []
    for batch in source:
        if not opened and len(batch) >= BELIEVED_AFTER:
            return [batch]
        opened.append(_owned(batch))
        if _rows(opened) >= BELIEVED_AFTER:
            break
    return opened


def _rows(batches: list[PacketBatch]) -> int:
    return sum(map(len, batches))


def _owned(batch: PacketBatch) -> PacketBatch:
    """The batch over a copy of its bytes."""
    first = int(batch.offset.min())
    last = int((batch.offset + batch.captured_length).max())
    return batch.with_columns(data=batch.data[first:last].copy(), offset=batch.offset - first)


def cut_packets(batch: PacketBatch, start: int, stop: int) -> PacketBatch:
    """Rows `start` to `stop` over the same buffer, numbered as before."""
    if start == 0 and stop == len(batch):
        return batch
    return PacketBatch(
        batch.source,
        batch.source_id,
        batch.first_packet + start,
        batch.data,
        batch.offset[start:stop],
        batch.captured_length[start:stop],
        batch.wire_length[start:stop],
        batch.time_ns[start:stop],
        batch.interface[start:stop],
        batch.link_type[start:stop],
        batch.stripped_vlan[start:stop],
    )
