"""Inputs in one order: facts and messages by (received, kind, file, row), packets by packet time.

Text inputs are small beside packets and are held whole; captures are read by blocks. Packets are
ordered by the running maximum of their times, so a capture whose clock stumbles keeps its own
order. At equal times facts come before messages and messages before packets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.capture.facts import (
    RowFault,
    read_circle,
    read_members,
    read_orders,
    read_purchases,
    read_signins,
)
from pipeline.capture.reader import BLOCK_BYTES, CaptureReader
from pipeline.capture.recognise import CAPTURES, COMPRESSED, InputKind, recognise
from pipeline.model.batches import PacketBatch
from pipeline.model.columns import Batch, concat
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, ParseFor, outside
from pipeline.run.strays import cut_packets, without_strays

# The order of kinds at equal times; the numbers are ranks.
READERS = {
    InputKind.CIRCLE: read_circle,
    InputKind.SIGNINS: read_signins,
    InputKind.MEMBERS: read_members,
    InputKind.PURCHASES: read_purchases,
    InputKind.ORDERS: read_orders,
}
KINDS = tuple(READERS)
BLOCKS_BYTES = 64 << 20  # of all captures together; many of them are read in smaller blocks


class InputError(ValueError):
    """Files that cannot be read at all; one sentence per problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Facts:
    """All text inputs, merged. `rank[i]`, `file[i]` and `row[i]` say which row comes i-th."""

    batches: dict[int, Batch]  # by rank, each sorted as merged
    received_ns: np.ndarray
    rank: np.ndarray
    file: np.ndarray  # index into `files`
    row: np.ndarray  # data row in its file, from 1
    before: np.ndarray  # (kinds, rows + 1): how many rows of a kind come before a place
    files: tuple[Path, ...]
    faults: tuple[RowFault, ...]

    def __len__(self) -> int:
        return len(self.received_ns)

    def index_after(self, file: Path, row: int) -> int | None:
        """The place just behind data row `row` of `file` in the merged order, or None."""
        if file not in self.files:
            return None
        here = (self.file == self.files.index(file)) & (self.row == row)
        found = np.flatnonzero(here)
        return int(found[0]) + 1 if len(found) else None

    def withdrawals(self, parse_for: ParseFor, known: Callable[[str], bool]) -> np.ndarray:
        """The places of rows by which somebody leaves the parse set.

        Whoever is listed where consent is asked for leaves it only if they may have been in it: by
        any earlier row, since rows may come late and the last one need not be the latest, or
        because they were `known` before these inputs. A circle that is brought
        in for the first time is thousands of such rows, and packets need not be cut at each.
        """
        rank = KINDS.index(InputKind.CIRCLE)
        if rank not in self.batches:
            return np.zeros(0, np.int64)
        circle: Any = self.batches[rank]
        inside: dict[str, bool] = {}
        leaves = []
        for login, state in zip(circle.login.to_list(), circle.state.tolist(), strict=True):
            gone = state in outside(parse_for)
            if state == Basis.LISTED:
                leaves.append(gone and (inside.get(login) or known(login)))
            else:
                leaves.append(gone)
            inside[login] = inside.get(login, False) or not gone
        return np.flatnonzero(self.rank == rank)[np.array(leaves, np.bool_)]

    def runs(self, start: int, stop: int) -> Iterator[tuple[InputKind, Batch]]:
        """Rows `start` to `stop` of the merged order as batches of one kind each.

        Everything may depend on a change of the circle, so nothing moves across one. Between two of
        them all other kinds do not depend on each other and come as one batch a kind.
        """
        changes = self.rank[start:stop] == 0
        edges = np.flatnonzero(changes[1:] & ~changes[:-1]) + 1
        for a, b in pairwise([start, *(start + edges).tolist(), stop]):
            for number, kind in enumerate(KINDS):
                first, last = int(self.before[number, a]), int(self.before[number, b])
                if last > first:
                    yield kind, self.batches[number].slice(first, last)


def read_facts(paths: Sequence[tuple[Path, InputKind]], tally: Tally) -> Facts:
    """Read and merge text inputs; rows that cannot be read are counted and listed in `faults`."""
    batches: dict[int, Batch] = {}
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    faults: list[RowFault] = []
    files = tuple(path for path, _ in paths)
    for rank, kind in enumerate(KINDS):
        read = []
        for number, (path, its_kind) in enumerate(paths):
            if its_kind is kind:
                batch, bad = READERS[kind](path, tally)
                faults += bad
                read.append((batch, np.full(len(batch), number)))
        if not read:
            continue
        whole: Any = concat([batch for batch, _ in read])  # each has `row` and `received_ns`
        file = np.concatenate([number for _, number in read])
        order = np.lexsort((whole.row, file, whole.received_ns))
        batches[rank] = whole.take(order)
        received, row = whole.received_ns[order], whole.row[order]
        parts.append((received, np.full(len(order), rank), file[order], row))
    if not parts:
        none = np.zeros(0, np.int64)
        before = np.zeros((len(KINDS), 1), np.int64)
        return Facts({}, none, none, none, none, before, files, tuple(faults))
    received, ranks, file, row = (np.concatenate(p) for p in zip(*parts, strict=True))
    order = np.lexsort((np.arange(len(received)), ranks, received))
    before = np.zeros((len(KINDS), len(order) + 1), np.int64)
    for rank in range(len(KINDS)):
        np.cumsum(ranks[order] == rank, out=before[rank, 1:])
    return Facts(
        batches,
        received[order],
        ranks[order],
        file[order],
        row[order],
        before,
        files,
        tuple(faults),
    )


class PacketFeed:
    """Captures read together, in the order of their (never falling) packet times.

    One packet from the future would close every visit and let nothing of today in. So a packet that
    is a day ahead of all before it in its file is left out and counted, until eight in a row agree.
    """

    def __init__(self, paths: Sequence[Path], tally: Tally, rows: int = 4096) -> None:
        block_bytes = min(BLOCK_BYTES, max(BLOCKS_BYTES // max(len(paths), 1), BLOCK_BYTES // 16))
        self._lanes = [
            _Lane(path.open("rb"), path.name, number, tally, rows, block_bytes)
            for number, path in enumerate(paths)
        ]

    def take_before(self, limit_ns: int) -> tuple[PacketBatch, int] | None:
        """The next packets whose key is below `limit_ns`, and the last key; None if none."""
        if not self._lanes:
            return None
        keys = [lane.next_key() for lane in self._lanes]
        first = min(range(len(keys)), key=keys.__getitem__)
        others = [(key, number) for number, key in enumerate(keys) if number != first]
        if others:
            key, number = min(others)
            limit_ns = min(limit_ns, key if number < first else key + 1)
        return self._lanes[first].take_before(limit_ns)

    def close(self) -> None:
        """Close all captures."""
        for lane in self._lanes:
            lane.file.close()


class _Lane:
    """One capture: its current batch, how far it was given out, and the running maximum time."""

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        number: int,
        tally: Tally,
        rows: int,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.file = file
        reader = CaptureReader(
            file,
            source=name,
            source_id=number,
            tally=tally,
            rows=rows,
            block_bytes=block_bytes,
        )
        self._batches = without_strays(reader, tally)
        self._batch: PacketBatch | None = None
        self._keys = np.zeros(0, np.int64)
        self._at = 0
        self._highest = np.iinfo(np.int64).min

    def next_key(self) -> int:
        while self._batch is None or self._at >= len(self._keys):
            batch = next(self._batches, None)
            if batch is None:
                return int(END_OF_TIME)
            if len(batch) == 0:
                continue
            self._keys = np.maximum(np.maximum.accumulate(batch.time_ns), self._highest)
            self._highest = self._keys[-1]
            self._batch, self._at = batch, 0
        return int(self._keys[self._at])

    def take_before(self, limit_ns: int) -> tuple[PacketBatch, int] | None:
        if self.next_key() >= limit_ns or self._batch is None:
            return None
        stop = int(np.searchsorted(self._keys, limit_ns, "left"))
        start, self._at = self._at, stop
        return cut_packets(self._batch, start, stop), int(self._keys[stop - 1])


@dataclass(frozen=True, slots=True)
class InputFiles:
    """What was found at the given paths, in the given order."""

    captures: tuple[Path, ...]
    texts: tuple[tuple[Path, InputKind], ...]

    def fingerprint(self) -> list[tuple[str, str]]:
        """File name and SHA-256 of each file, in order."""
        paths = [*self.captures, *(path for path, _ in self.texts)]
        return [(path.name, _sha256(path)) for path in paths]


def sort_files(paths: Sequence[Path]) -> InputFiles:
    """Tell captures, packed or not, from text inputs by content.

    Raises InputError naming every unknown file.
    """
    captures: list[Path] = []
    texts: list[tuple[Path, InputKind]] = []
    problems: list[str] = []
    for path in paths:
        try:
            kind = recognise(path)
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
            continue
        if kind in CAPTURES or (kind in COMPRESSED and _holds_capture(path)):
            captures.append(path)
        elif kind in READERS:
            texts.append((path, kind))
        else:
            problems.append(
                f"{path}: {'compressed, and ' * (kind in COMPRESSED)}"
                "not a capture and not one of our text inputs "
                "(their first line is '# mirrorpoint sign-ins v1', '# mirrorpoint circle v1', "
                "'# mirrorpoint members v1', '# mirrorpoint purchases v1' or "
                "'# mirrorpoint orders v1')"
            )
    if problems:
        raise InputError(problems)
    return InputFiles(tuple(captures), tuple(texts))


def first_time(path: Path) -> int:
    """The time of a capture's first packet, the end of time where it has none. Raises OSError."""
    batch = _first_packet(path)[0]
    return END_OF_TIME if batch is None else int(batch.time_ns[0])


def _holds_capture(path: Path) -> bool:
    return _first_packet(path)[1].is_capture


def _first_packet(path: Path) -> tuple[PacketBatch | None, CaptureReader]:
    """A batch of one packet, if there is one, and what its reader found the file to be."""
    with path.open("rb") as file:
        reader = CaptureReader(
            file, source=path.name, source_id=0, tally=Tally(), rows=1, block_bytes=1 << 12
        )
        with closing(iter(reader)) as batches:
            return next(batches, None), reader


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
