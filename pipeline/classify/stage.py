"""Packets to sessions: who named which host, by TLS or HTTP/1, of those who may be looked at.

The stage walks headers, asks the gate for every packet (no gate in `inspect`), finds the flow, and
takes what the client says until a hello or a request head is whole. Nothing is kept of a packet that
the gate stops: no flow entry, only a count. State has a stated capacity and is allocated once; what
does not fit is counted. Nothing depends on how packets are cut into batches: idle flows, evictions
and holdings that time out follow packet time, and happen before the packet whose time passed them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from pipeline.classify import state_kernels as state
from pipeline.classify.flows_kernels import copy_flows
from pipeline.classify.gate_kernels import pass_gate
from pipeline.classify.headers import walk
from pipeline.classify.state_kernels import Track, records
from pipeline.classify.track_kernels import (
    ROWS_A_STEP,
    TEXT_A_STEP,
    advance_track,
    forget_flows,
    track_packets,
)
from pipeline.kernels.circle import Circle
from pipeline.model.batches import PacketBatch, SessionBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, concat
from pipeline.model.faults import Fault, Skip
from pipeline.model.identifiers import Keys, words_of
from pipeline.model.stage import END_OF_TIME, Snapshot
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor, Protocol

STAGE = "classify"
SECOND_NS = 1_000_000_000
NO_TIME = -(1 << 62)
SLOTS_AT_FIRST = 1 << 13
TEXT_BYTES = 8 * TEXT_A_STEP
TEXT_NAMES = ("host", "target", "referer", "alpn")
SAVED = ("queue", "names", "holdings", "pieces", "memory", "desk")
Prefix = tuple[int, int, int]  # high word, low word, length of the 128 bits


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept, and how long. What goes beyond is counted, never an error.

    `flows`: live flows, a power of two (176 bytes of memory a flow, taken as they come).
    `holdings`: units not whole yet at one time, each of up to `unit_bytes` and `pieces`, for
    `hold_ns` of packet time. `tries`: segments of a flow that may begin a unit before it is left
    alone; `repeats`: segments after a hello that are still looked at. `names`: further names of flows.
    """

    flows: int = 1 << 20
    idle_ns: int = 300 * SECOND_NS
    holdings: int = 1 << 12
    unit_bytes: int = 1 << 14
    pieces: int = 16
    hold_ns: int = 5 * SECOND_NS
    tries: int = 24
    repeats: int = 4
    names: int = 1 << 16

    def __post_init__(self) -> None:
        assert self.flows >= 1
        assert self.flows & (self.flows - 1) == 0, "a power of two"
        assert self.holdings >= 1
        assert 64 <= self.unit_bytes <= 1 << 15
        assert self.pieces >= 1
        assert 1 <= self.tries <= 255
        assert 1 <= self.repeats <= 255


@dataclass(slots=True)
class Counts:
    """What went through, by the thousand: flows by transport, sessions by protocol."""

    packets: int = 0
    bytes: int = 0
    flows: Counter[str] = field(default_factory=Counter)
    sessions: Counter[str] = field(default_factory=Counter)


class Classify:
    """The stage. `circle` None, or everyone in `parse_for`, means that no gate is asked (inspect)."""

    def __init__(
        self,
        *,
        circle: Circle | None,
        parse_for: ParseFor,
        keys: Keys,
        limits: Limits = Limits(),  # noqa: B008  (frozen)
        subscriber_prefixes: tuple[Prefix, ...] = (),
    ) -> None:
        self.counts = Counts()
        self._circle = None if parse_for is ParseFor.EVERYONE else circle
        self._parse_for = int(parse_for)
        self._limits = limits
        self._prefixes = np.array([p[:2] for p in subscriber_prefixes], np.uint64).reshape(-1, 2)
        self._lengths = np.array([p[2] for p in subscriber_prefixes], np.int64)
        self._track = _allocate(limits, words_of(keys.address))
        self._text_starts = [limits.unit_bytes + n * TEXT_BYTES for n in range(state.TEXTS)]
        self._held_rows = 0
        self._nothing = SessionBatch.empty()

    def push(self, batch: PacketBatch, tally: Tally) -> SessionBatch:
        """Take packets in capture order; the sessions that became whole, in the order they did."""
        rows = len(batch)
        heads = walk(batch)
        subscriber = np.full(rows, -1, np.int32)
        basis = np.zeros(rows, np.uint8)
        if self._circle is not None:
            pass_gate(
                *self._circle.arrays,
                self._parse_for,
                self._prefixes,
                self._lengths,
                heads,
                batch.time_ns,
                subscriber,
                basis,
            )
        fingerprint, side = np.empty(rows, np.uint64), np.empty(rows, np.bool_)
        found: list[SessionBatch] = []
        start = 0
        while start < rows:
            start = track_packets(
                *self._track,
                heads,
                batch.data,
                batch.time_ns,
                batch.wire_length,
                batch.first_packet,
                subscriber,
                basis,
                self._circle is not None,
                start,
                fingerprint,
                side,
            )
            self._take_rows(found, batch.source_id)
            if start < rows:
                self._widen()
        self._settle(tally)
        return concat(found) if found else self._nothing

    def advance(self, watermark_ns: int, tally: Tally) -> SessionBatch:
        """Let packet time pass: holdings whose time is up are given up."""
        counts = self._track.desk["counts"]
        if watermark_ns != END_OF_TIME:
            counts["watermark_ns"] = np.maximum(counts["watermark_ns"], watermark_ns)
        found: list[SessionBatch] = []
        more = True
        while more:
            more = advance_track(*self._track, watermark_ns)
            self._take_rows(found, 0)
        self._settle(tally)
        return concat(found) if found else self._nothing

    def forget(self, subscribers: np.ndarray) -> None:
        """Drop flows and held bytes of these subscribers (dense indexes), as their basis ended."""
        if len(subscribers) == 0:
            return
        gone = np.zeros(int(subscribers.max()) + 1, np.uint8)
        gone[subscribers] = 1
        forget_flows(*self._track, gone)

    @property
    def held_rows(self) -> int:
        """Packets that are held now."""
        return int(self._track.desk["counts"]["held_rows"][0])

    def _take_rows(self, found: list[SessionBatch], source_id: int) -> None:
        """Take written rows out of the kernels' memory, if there are any."""
        counts = self._track.desk["counts"]
        size = int(counts["rows"][0])
        if size == 0:
            return
        rows = np.asarray(self._track.rows[:size])
        found.append(_sessions(rows, self._track.memory, self._text_starts, source_id))
        for protocol, count in enumerate(np.bincount(rows["protocol"])):
            if count:
                self.counts.sessions[Protocol(protocol).name.lower()] += int(count)
        _empty_rows(self._track)

    def _widen(self) -> None:
        """Double the flow table when it is half full, up to its stated capacity."""
        track = self._track
        size = len(track.slots)
        if int(track.desk["counts"]["flows"][0]) * 2 >= size and size < self._limits.flows * 2:
            slots, queue = records(state.SLOT, size * 2), records(state.QUEUED, size * 2)
            copy_flows(track.slots, track.queue, track.desk, slots, queue)
            self._track = track._replace(slots=slots, queue=queue)

    def _settle(self, tally: Tally) -> None:
        """Check that every packet is accounted for, and hand the counts on."""
        tallied = self._track.desk["tallied"][0]
        sums = tallied[state.SUMS]
        faults, skips = tallied[state.ROW_FAULTS], tallied[state.ROW_SKIPS]
        packets, named = int(sums[state.SUM_PACKETS]), int(sums[state.SUM_NAMED])
        held = self.held_rows - self._held_rows
        assert packets == named + held + int(faults.sum()) + int(skips.sum())
        assert faults[0] == 0
        assert skips[0] == 0
        self._held_rows += held
        tally.add(STAGE, "packets", packets)
        tally.add(STAGE, "named", named)
        tally.add_counts(STAGE, Fault, faults + tallied[state.EVENTS])
        tally.add_counts(STAGE, Skip, skips)
        self.counts.packets += packets
        self.counts.bytes += int(sums[state.SUM_BYTES])
        self.counts.flows["tcp"] += int(sums[state.SUM_TCP_FLOWS])
        self.counts.flows["udp"] += int(sums[state.SUM_UDP_FLOWS])
        tallied[:] = 0

    def snapshot(self) -> dict[str, np.ndarray]:
        """The whole state as arrays; held bytes are among it, so it is kept as carefully as they are."""
        track = self._track
        taken = np.flatnonzero(track.slots["fingerprint"])
        saved = {
            "taken": taken,
            "slots": np.asarray(track.slots[taken]).view(np.uint8).copy(),
            "size": np.array([len(track.slots)], np.int64),
            "held_rows": np.array([self._held_rows], np.int64),
        }
        for name in SAVED:
            values = np.asarray(getattr(track, name))
            saved[name] = values.view(np.uint8).copy() if values.dtype.names else values.copy()
        return saved

    def restore(self, snapshot: Snapshot) -> None:
        """Take a snapshot's state, made with the same key and limits, in place of one's own."""
        size = int(snapshot["size"][0])
        track = self._track = self._track._replace(
            slots=records(state.SLOT, size), queue=records(state.QUEUED, size)
        )
        track.slots[snapshot["taken"]] = snapshot["slots"].view(state.SLOT)
        for name in SAVED:
            values = np.asarray(getattr(track, name))
            if values.dtype.names:
                values = values.view(np.uint8)
            assert values.shape == snapshot[name].shape, "made with other limits"
            values[:] = snapshot[name]
        self._held_rows = int(snapshot["held_rows"][0])


def _allocate(limits: Limits, key: np.ndarray) -> Track:
    """All memory of a stage; what is never touched is never resident."""
    at_first = min(limits.flows * 2, SLOTS_AT_FIRST)
    track = Track(
        slots=records(state.SLOT, at_first),
        queue=records(state.QUEUED, at_first),
        names=records(state.NAME, limits.names),
        holdings=records(state.HOLDING, limits.holdings),
        pieces=records(state.PIECE, limits.holdings * limits.pieces),
        rows=records(state.ROW, 2 * ROWS_A_STEP),
        memory=np.zeros(
            (1 + limits.holdings) * limits.unit_bytes + state.TEXTS * TEXT_BYTES, np.uint8
        ),
        desk=records(state.DESK, 1),
    )
    stated = track.desk["limits"]
    stated["key0"], stated["key1"] = key[0], key[1]
    for name in ("flows", "idle_ns", "hold_ns", "tries", "repeats", "unit_bytes", "pieces"):
        stated[name] = getattr(limits, name)
    stated["text_bytes"] = TEXT_BYTES
    counts = track.desk["counts"]
    counts["watermark_ns"] = NO_TIME
    # Free names and free holdings are linked: each to the one behind it, the last to none.
    counts["free_name"] = counts["free_holding"] = 1
    track.names["next"][:-1] = np.arange(2, limits.names + 1)
    track.holdings["younger"][:-1] = np.arange(2, limits.holdings + 1)
    _empty_rows(track)
    return track


def _empty_rows(track: Track) -> None:
    """Let rows and their texts begin anew."""
    counts, limits = track.desk["counts"], track.desk["limits"]
    counts["rows"] = 0
    for number, name in enumerate(TEXT_NAMES):
        counts[name] = limits["unit_bytes"] + number * limits["text_bytes"]


def _sessions(rows: np.ndarray, memory: np.ndarray, starts: list[int], source_id: int) -> SessionBatch:
    """The rows that kernels wrote, copied out as a batch; `starts` of the texts in memory."""
    size = len(rows)
    texts = []
    for start, name in zip(starts, TEXT_NAMES, strict=True):
        offsets = np.zeros(size + 1, np.int64)
        np.subtract(rows[name + "_stop"], start, out=offsets[1:])
        texts.append(TextColumn(memory[start : start + offsets[-1]].copy(), offsets))
    flow = np.empty((size, 2), np.uint64)
    flow[:, 0], flow[:, 1] = rows["flow_hi"], rows["flow_lo"]
    same = {
        name: rows[name].copy()
        for name in (
            "first_ns", "watermark_ns", "packet_number", "protocol", "client_hi", "client_lo",
            "client_port", "server_hi", "server_lo", "server_port", "subscriber", "basis", "method",
            "flags",
        )
    }  # fmt: skip
    return SessionBatch(
        source_id=np.full(size, source_id, np.uint16),
        flow_id=flow.view(ID_DTYPE).reshape(-1),
        host=texts[0],
        target=texts[1],
        referer=texts[2],
        alpn=texts[3],
        **same,
    )
