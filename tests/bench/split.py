"""A classic capture cut in two by address pair, so that two processes can share the work.

A flow is whole in one of the halves, so together they hold the sessions of the whole.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pipeline.capture.pcap import FILE_HEADER_BYTES
from pipeline.classify.headers import walk
from pipeline.model.tally import Tally
from tests.bench.paths import reader
from tests.bench.split_kernels import copy_half

RECORD_HEADER_BYTES = 16


def split(path: Path, folder: Path) -> tuple[Path, Path]:
    """Write the halves of a capture with headers of 16 bytes a record; where they are."""
    halves = folder / "first.pcap", folder / "second.pcap"
    out = np.zeros(1 << 16, np.uint8)
    with ExitStack() as stack:
        files = [stack.enter_context(half.open("wb")) for half in halves]
        for file in files:
            with path.open("rb") as whole:
                file.write(whole.read(FILE_HEADER_BYTES))
        for packets in stack.enter_context(reader(path, Tally())):
            heads, _ = walk(packets)
            room = int(packets.captured_length.sum()) + RECORD_HEADER_BYTES * len(packets)
            out = out if len(out) >= room else np.zeros(2 * room, np.uint8)
            for number, file in enumerate(files):
                columns = packets.data, packets.offset, packets.captured_length
                used = copy_half(*columns, RECORD_HEADER_BYTES, heads, number, out)
                file.write(out[:used].data)
        for file in files:  # on the disk, so that nobody writes them there while they are read
            file.flush()
            os.fsync(file.fileno())
    return halves
