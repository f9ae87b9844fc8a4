"""Packets to sessions: who named which host, by TLS, QUIC or HTTP, of those who may be looked at.

The stage walks headers, asks the gate for every packet (no gate in `inspect`), finds the flow, and
takes what the client says until a hello or a request head is whole. Nothing is kept of a packet
that the gate stops: no flow entry, only a count. State has a stated capacity; what does not fit is
counted. Nothing depends on how packets are cut into batches: idle flows, evictions and holdings
that time out follow packet time, and happen before the packet whose time passed them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.classify import state_kernels as state
from pipeline.classify.answers_kernels import ANSWER, NAME_BYTES, WAYS
from pipeline.classify.flows_kernels import copy_flows
from pipeline.classify.fragments import Fragments
from pipeline.classify.gate_kernels import own_prefixes, pass_gate
from pipeline.classify.headers import walk
from pipeline.classify.http2 import open_blocks
from pipeline.classify.layers_kernels import HEADER
from pipeline.classify.quality import MirrorQuality
from pipeline.classify.state_kernels import Track
from pipeline.classify.track_kernels import (
    ROWS_A_STEP,
    TEXT_A_STEP,
    advance_track,
    forget_flows,
    track_packets,
)
from pipeline.kernels.circle import Circle
from pipeline.kernels.compile import records
from pipeline.kernels.libcrypto import PLAIN_BYTES, CipherDesk
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
SESSIONS_AT_ONCE = 4096  # where nobody waits for the next
TEXT_BYTES = 8 * TEXT_A_STEP
TEXTS = ("host", "target", "referer", "alpn")
SAVED = ("queue", "names", "holdings", "pieces", "memory", "desk", "answers", "told")
SAME = (
    "first_ns", "watermark_ns", "packet_number", "protocol", "client_hi", "client_lo",
    "client_port", "server_hi", "server_lo", "server_port", "subscriber", "basis", "method",
    "realm",
)  # fmt: skip
STATED = (
    "flows", "idle_ns", "hold_ns", "tries", "repeats", "unit_bytes", "pieces", "answer_ns",
    "block_bytes",
)  # fmt: skip
SUM_WORDS = (
    "packets", "bytes", "tcp_flows", "udp_flows", "named", "repeats", "hidden", "weak", "lost_gap",
    "lost_cut", "lost_room", "given_up",
)  # fmt: skip
Prefix = tuple[int, int, int]  # high word, low word, length of the 128 bits


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept, and how long. What goes beyond is counted, never an error.

    `flows`: live flows, a power of two (176 bytes of memory a flow, taken as they come).
    `holdings`: units not whole yet at one time, each of up to `unit_bytes` and `pieces`, for
    `hold_ns` of packet time. `tries`: segments of a flow that may begin a unit, or attempts to open
    its Initials, before it is left alone; `repeats`: segments or datagrams after a hello that are
    still looked at. `names`: further names of flows. `fragment_sets`: IP packets of which
    fragments are kept, for `fragment_ns`, in `fragment_blocks` of 2 KiB. `watched`: flows that the
    mirror is judged by. `answers`: addresses that DNS answers told, a power of two, each for
    `answer_ns`. `block_bytes`: of header blocks of HTTP/2 that may be opened beyond one a packet.
    """

    flows: int = 1 << 20
    idle_ns: int = 300 * SECOND_NS
    holdings: int = 1 << 12
    unit_bytes: int = 1 << 14
    pieces: int = 16
    hold_ns: int = 10 * SECOND_NS
    tries: int = 24
    repeats: int = 4
    names: int = 1 << 16
    fragment_sets: int = 1 << 10
    fragment_blocks: int = 1 << 12
    fragment_ns: int = 30 * SECOND_NS
    watched: int = 1 << 11
    answers: int = 1 << 14
    answer_ns: int = 600 * SECOND_NS
    block_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        assert self.flows >= 1
        assert self.flows & (self.flows - 1) == 0, "a power of two"
        assert self.holdings >= 1
        assert self.names >= 1
        assert 64 <= self.unit_bytes <= 1 << 15
        assert self.pieces >= 1
        assert 1 <= self.tries <= 255
        assert 1 <= self.repeats <= 255
        assert self.fragment_sets >= 1
        assert self.fragment_blocks >= 1
        assert self.answers >= WAYS
        assert self.answers & (self.answers - 1) == 0, "a power of two"
        assert self.block_bytes >= 0


@dataclass(frozen=True, slots=True)
class Counts:
    """What went through: `bytes` on the wire, `flows` by transport, `sessions` by protocol.

    A session is counted for each name of a flow; rows that repeat a name of theirs are not.
    """

    packets: int
    bytes: int
    flows: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)


class Classify:
    """The stage. Without a `circle`, or with everyone in `parse_for`, no gate is asked.

    A batch of packets holds few sessions, and to hand on a batch of these costs the same however
    few there are: they wait until there are `at_once`, or time is told to pass. Not `native`: QUIC
    is opened by `cryptography` even where the C library is found.
    """

    def __init__(
        self,
        *,
        circle: Circle | None,
        parse_for: ParseFor,
        keys: Keys,
        limits: Limits = Limits(),
        subscriber_prefixes: tuple[Prefix, ...] = (),
        native: bool = True,
        at_once: int = 1,
    ) -> None:
        assert 1 <= at_once <= ROWS_A_STEP
        self._circle = None if parse_for is ParseFor.EVERYONE else circle
        self._parse_for = int(parse_for)
        self._limits = limits
        self._own = own_prefixes(subscriber_prefixes)
        self._cipher = CipherDesk(native)
        self._key = words_of(keys.address)
        self._track = _allocate(limits, self._key, self._cipher)
        self._fragments = Fragments(
            limits.fragment_sets,
            limits.fragment_blocks,
            limits.fragment_ns,
            self._key,
        )
        self._quality = MirrorQuality(limits.watched, directed=self._circle is not None)
        self._counts, self._now = self._track.desk["counts"][0], self._track.desk["now"][0]
        self._tallied = self._track.desk["tallied"][0]
        self._totals = np.zeros_like(self._tallied[state.SUMS])
        self._held_rows = 0
        self._at_once = at_once
        self._found: list[SessionBatch] = []
        self._scratch = _Scratch(0)
        self._nothing = SessionBatch.empty()

    def push(self, batch: PacketBatch, tally: Tally) -> SessionBatch:
        """Take packets in capture order; the sessions that became whole, in the order they did."""
        self._now["source"] = batch.source_id
        rows = len(batch)
        if rows > self._scratch.rows:
            self._scratch = _Scratch(rows)
        scratch = self._scratch
        heads, fragments = walk(batch, scratch.heads)
        if self._circle is not None:
            pass_gate(
                *self._circle.arrays,
                self._parse_for,
                self._own,
                heads,
                batch.time_ns,
                scratch.near,
                scratch.subscriber,
                scratch.basis,
            )
        if fragments:
            self._fragments.join(
                batch,
                heads,
                int(self._counts["watermark_ns"]),
                self._circle,
                self._parse_for,
                self._own,
                scratch.subscriber,
                scratch.basis,
            )
        start = 0
        while True:
            start = track_packets(
                *self._track,
                heads,
                batch.data,
                self._fragments.joined,
                batch.time_ns,
                batch.wire_length,
                batch.first_packet,
                scratch.subscriber,
                scratch.basis,
                self._circle is not None,
                start,
                scratch.fingerprint,
                scratch.side,
            )
            if start >= rows:
                break
            self._take_rows()  # they may be what there was no room for
            self._widen()
        self._quality.watch(batch, heads, scratch.fingerprint, scratch.side)
        if self._fragments.busy:
            self._fragments.advance(int(self._counts["watermark_ns"]))
        waiting = self._counts["rows"] < self._at_once and self._at_once > 1
        # Header blocks have cookies in them: they do not wait.
        if self._found or not waiting or self._counts["packed"]:
            return self.take(tally)
        return self._nothing

    def take(self, tally: Tally) -> SessionBatch:
        """The sessions that wait. Only now is what went through counted."""
        self._take_rows()
        self._settle(tally)
        found, self._found = self._found, []
        return concat(found) if found else self._nothing

    def advance(self, watermark_ns: int, tally: Tally) -> SessionBatch:
        """Let packet time pass: holdings whose time is up are given up."""
        if watermark_ns != END_OF_TIME:
            self._counts["watermark_ns"] = max(int(self._counts["watermark_ns"]), watermark_ns)
        self._fragments.advance(watermark_ns)
        more = True
        while more:
            more = advance_track(*self._track, watermark_ns)
            self._take_rows()
        return self.take(tally)

    def forget(self, subscribers: np.ndarray) -> None:
        """Drop flows and held bytes of these subscribers (dense indexes), as their basis ended."""
        if len(subscribers) == 0:
            return
        assert self._counts["rows"] == 0, "to be asked after take()"
        self._scratch = _Scratch(self._scratch.rows)  # headers of the last packets
        self._track.plain[:] = 0  # what was opened last may be theirs
        self._track.memory[: self._limits.unit_bytes + len(TEXTS) * TEXT_BYTES] = 0  # or named
        gone = np.zeros(int(subscribers.max()) + 1, np.uint8)
        gone[subscribers] = 1
        forget_flows(*self._track, gone)
        self._quality.forget()
        self._fragments.forget(gone)

    @property
    def held_rows(self) -> int:
        """Packets that are held now."""
        return int(self._counts["held_rows"])

    @property
    def counts(self) -> Counts:
        """What went through so far."""
        totals = self._totals.tolist()
        return Counts(
            packets=totals[state.SUM_PACKETS],
            bytes=totals[state.SUM_BYTES],
            flows={"tcp": totals[state.SUM_TCP_FLOWS], "udp": totals[state.SUM_UDP_FLOWS]},
            sessions={p.name.lower(): totals[state.SUM_SESSIONS + p] for p in Protocol},
        )

    def _take_rows(self) -> None:
        """Take written rows out of the kernels' memory, if there are any."""
        size = int(self._counts["rows"])
        if size:
            rows = np.asarray(self._track.rows[:size])
            memory, start = self._track.memory, self._limits.unit_bytes
            found = _sessions(rows, memory, start)
            if self._counts["packed"]:
                start += TEXTS.index("target") * TEXT_BYTES
                memory[start : int(self._counts["target"])] = 0
                found = open_blocks(found, rows, (self._key[0], self._key[1]), self._tallied)
            self._found.append(found)
            _empty_rows(self._counts, self._limits)

    def _widen(self) -> None:
        """Double the flow table when it is half full, up to its stated capacity."""
        track = self._track
        size = len(track.slots)
        if int(self._counts["flows"]) * 2 >= size and size < self._limits.flows * 2:
            slots, queue = records(state.SLOT, size * 2), records(state.QUEUED, size * 2)
            copy_flows(track.slots, track.queue, track.desk, slots, queue)
            self._track = track._replace(slots=slots, queue=queue)

    def _check(self) -> None:
        """Every packet since the counts were handed on is accounted for."""
        sums = self._tallied[state.SUMS]
        held = self.held_rows - self._held_rows
        accounted = int(sums[state.SUM_NAMED]) + held + int(self._tallied[: state.EVENTS].sum())
        assert int(sums[state.SUM_PACKETS]) == accounted

    def _settle(self, tally: Tally) -> None:
        """Hand the counts on."""
        self._check()
        tallied = self._tallied
        self._quality.settle(tally)
        self._fragments.settle(tallied[state.EVENTS])
        sums = tallied[state.SUMS]
        self._held_rows = self.held_rows
        self._totals += sums
        self._counts["packets"] += sums[state.SUM_PACKETS]
        flat = tallied.reshape(-1)
        for place in np.flatnonzero(flat).tolist():
            tally.counts[STAGE, WORDS[place]] += int(flat[place])
        tallied[:] = 0

    def snapshot(self) -> dict[str, np.ndarray]:
        """The whole state as arrays; held bytes are among it, so it is kept as carefully as they
        are.
        """
        assert self._counts["rows"] == 0, "to be asked after take()"
        track = self._track
        taken = np.flatnonzero(track.slots["fingerprint"])
        saved = {
            "taken": taken,
            "slots": np.asarray(track.slots[taken]).view(np.uint8).copy(),
            "size": np.array([len(track.slots)], np.int64),
            "held_rows": np.array([self._held_rows], np.int64),
            "totals": self._totals.copy(),
        }
        saved |= self._fragments.snapshot() | self._quality.snapshot()
        for name in SAVED:
            saved[name] = np.asarray(getattr(track, name)).view(np.uint8).copy()
        return saved

    def restore(self, snapshot: Snapshot) -> None:
        """Take a snapshot's state, made with the same key and limits, in place of one's own."""
        size = int(snapshot["size"][0])
        track = self._track = self._track._replace(
            slots=records(state.SLOT, size), queue=records(state.QUEUED, size)
        )
        track.slots[snapshot["taken"]] = snapshot["slots"].view(state.SLOT)
        for name in SAVED:
            values = np.asarray(getattr(track, name)).view(np.uint8)
            assert values.shape == snapshot[name].shape, "made with other limits"
            values[:] = snapshot[name]
        self._fragments.restore(snapshot)
        self._quality.restore(snapshot)
        self._held_rows = int(snapshot["held_rows"][0])
        self._totals[:] = snapshot["totals"]


class _Scratch:
    """Rows that live for one push; without a gate nobody is a subscriber."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.heads = records(HEADER, rows)
        self.subscriber = np.full(rows, -1, np.int32)
        self.basis = np.zeros(rows, np.uint8)
        self.near = np.zeros(rows, np.int64)
        self.fingerprint = np.zeros(rows, np.uint64)
        self.side = np.zeros(rows, np.bool_)


def _allocate(limits: Limits, key: np.ndarray, cipher: CipherDesk) -> Track:
    """All memory of a stage; what is never touched is never resident."""
    at_first = min(limits.flows * 2, SLOTS_AT_FIRST)
    windows = limits.holdings * (limits.unit_bytes + state.SEAL_BYTES)
    track = Track(
        slots=records(state.SLOT, at_first),
        queue=records(state.QUEUED, at_first),
        names=records(state.NAME, limits.names),
        holdings=records(state.HOLDING, limits.holdings),
        pieces=records(state.PIECE, limits.holdings * limits.pieces),
        rows=records(state.ROW, 2 * ROWS_A_STEP),
        memory=np.zeros(limits.unit_bytes + len(TEXTS) * TEXT_BYTES + windows, np.uint8),
        desk=records(state.DESK, 1),
        cipher=cipher.records,
        plain=np.zeros(PLAIN_BYTES, np.uint8),
        answers=records(ANSWER, limits.answers),
        told=np.zeros((limits.answers + 1) * NAME_BYTES, np.uint8),
    )
    stated = track.desk["limits"]
    stated["key0"], stated["key1"] = key[0], key[1]
    for name in STATED:
        stated[name] = getattr(limits, name)
    stated["text_bytes"] = TEXT_BYTES
    # Free names and free holdings are linked: each to the one behind it, the last to none.
    counts = track.desk["counts"][0]
    counts["watermark_ns"] = NO_TIME
    counts["free_name"] = counts["free_holding"] = 1
    track.names["next"][:-1] = np.arange(2, limits.names + 1)
    track.holdings["younger"][:-1] = np.arange(2, limits.holdings + 1)
    _empty_rows(counts, limits)
    return track


def _empty_rows(counts: np.void, limits: Limits) -> None:
    """Let rows and their texts begin anew."""
    counts["rows"] = counts["packed"] = 0
    for number, name in enumerate(TEXTS):
        counts[name] = limits.unit_bytes + number * TEXT_BYTES


def _sessions(rows: np.ndarray, memory: np.ndarray, start: int) -> SessionBatch:
    """The rows that kernels wrote as a batch; their texts begin at `start` of memory."""
    size = len(rows)
    texts: dict[str, Any] = {}
    for name in TEXTS:
        offsets = np.zeros(size + 1, np.int64)
        np.subtract(rows[name + "_stop"], start, out=offsets[1:])
        texts[name] = TextColumn(memory[start : start + offsets[-1]].copy(), offsets)
        start += TEXT_BYTES
    flow = np.empty((size, 2), np.uint64)
    flow[:, 0], flow[:, 1] = rows["flow_hi"], rows["flow_lo"]
    return SessionBatch(
        source_id=rows["source"].astype(np.uint16),
        flow_id=flow.view(ID_DTYPE).reshape(-1),
        flags=rows["marks"].copy(),
        **(texts | {name: rows[name].copy() for name in SAME}),
    )


def _words() -> list[str]:
    """What the places of the tallied array are called in a Tally."""
    words = [""] * (4 * state.TALLIED_COLUMNS)
    for row, prefix, listed in (
        (state.ROW_FAULTS, "fault", Fault),
        (state.ROW_SKIPS, "skip", Skip),
        (state.EVENTS, "fault", Fault),
    ):
        for word in listed:
            words[row * state.TALLIED_COLUMNS + word] = f"{prefix}:{word.name.lower()}"
    for place, name in enumerate(SUM_WORDS):
        words[state.SUMS * state.TALLIED_COLUMNS + place] = name
    for protocol in Protocol:
        place = state.SUM_SESSIONS + protocol
        words[state.SUMS * state.TALLIED_COLUMNS + place] = f"sessions:{protocol.name.lower()}"
    return words


WORDS = _words()
