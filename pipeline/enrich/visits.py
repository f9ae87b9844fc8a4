"""The arrays of open visits: room for them, their snapshot, and versions as a batch.

Arrays double before a push that could fill them, so kernels never meet a full one. A snapshot holds
what is in use and nothing of the room; the chains of addresses are built anew when it is restored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.enrich import state_kernels as k
from pipeline.enrich.state_kernels import FIELDS, Visits, relink
from pipeline.model.batches import VisitBatch
from pipeline.model.columns import ID_DTYPE, TextColumn
from pipeline.model.stage import Snapshot
from pipeline.model.words import VisitTrigger

TRIMMED = {
    "rows": k.COUNT_VISITS,
    "heap_ns": k.COUNT_OPEN,
    "heap_visit": k.COUNT_OPEN,
    "node_hi": k.COUNT_NODES,
    "node_lo": k.COUNT_NODES,
    "node_ns": k.COUNT_NODES,
    "node_links": k.COUNT_NODES,
    "pass_ns": k.COUNT_PASSES,
    "pass_class": k.COUNT_PASSES,
    "pass_next": k.COUNT_PASSES,
}
VISIT_ARRAYS = ("rows", "heap_ns", "heap_visit")
NODE_ARRAYS = ("node_hi", "node_lo", "node_ns", "node_links")
PASS_ARRAYS = ("pass_ns", "pass_class", "pass_next")
HEADS = ("visit_head", "pass_head")
NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Limits:
    """How much room there is at first; powers of two."""

    visits: int = 1 << 10
    sessions: int = 1 << 12
    passes: int = 1 << 10
    subscribers: int = 1 << 10
    versions: int = 1 << 12  # written down in one go


@dataclass(frozen=True, slots=True)
class Renumbered:
    """What the numbers of a snapshot mean now: by old number the new one, -1 for what is gone."""

    partners: np.ndarray
    trackers: np.ndarray
    marks: np.ndarray


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers of a visit stand for."""

    partners: TextColumn
    trackers: TextColumn  # the last one is empty: none
    marks: TextColumn  # the last one is empty: none
    versions: np.ndarray  # ID, by partner
    rulebook_hash: bytes


class VisitState:
    """Owns the arrays of the fold."""

    def __init__(self, limits: Limits) -> None:
        counts = np.zeros(k.COUNTS, np.int64)
        counts[k.COUNT_WATERMARK] = NO_TIME
        counts[[k.FREE_VISIT, k.FREE_NODE, k.FREE_PASS]] = -1
        self.arrays = Visits(
            rows=np.zeros((limits.visits, FIELDS), np.int64),
            heap_ns=np.zeros(limits.visits, np.int64),
            heap_visit=np.zeros(limits.visits, np.int32),
            node_hi=np.zeros(limits.sessions, np.uint64),
            node_lo=np.zeros(limits.sessions, np.uint64),
            node_ns=np.zeros(limits.sessions, np.int64),
            node_links=np.full((limits.sessions, 4), -1, np.int32),
            buckets=np.full(limits.sessions, -1, np.int32),
            pass_ns=np.zeros(limits.passes, np.int64),
            pass_class=np.zeros(limits.passes, np.int32),
            pass_next=np.full(limits.passes, -1, np.int32),
            visit_head=np.full(limits.subscribers, -1, np.int32),
            pass_head=np.full(limits.subscribers, -1, np.int32),
            counts=counts,
        )

    @property
    def counts(self) -> np.ndarray:
        """The counters (int64)."""
        return self.arrays.counts

    def make_room(self, rows: int, subscribers: int) -> None:
        """Room for so many more sessions, of subscribers numbered below `subscribers`."""
        counts = self.arrays.counts
        self._grow(VISIT_ARRAYS, int(counts[k.COUNT_OPEN]) + rows)
        self._grow(PASS_ARRAYS, int(counts[k.HELD_PASSES]) + rows)
        self._grow(HEADS, subscribers)
        if self._grow(NODE_ARRAYS, int(counts[k.HELD_NODES]) + rows):
            self._link_nodes()

    def _grow(self, names: tuple[str, ...], needed: int) -> bool:
        capacity = len(getattr(self.arrays, names[0]))
        if needed <= capacity:
            return False
        while capacity < needed:
            capacity *= 2
        grown = {name: _enlarged(getattr(self.arrays, name), capacity) for name in names}
        self.arrays = self.arrays._replace(**grown)
        return True

    def _link_nodes(self) -> None:
        buckets = np.full(len(self.arrays.node_ns), -1, np.int32)
        self.arrays = self.arrays._replace(buckets=buckets)
        relink(self.arrays)

    def pause(self) -> np.ndarray:
        """PAUSED versions of the open visits that changed since their last one, as they opened.

        The next unit of input may be of an earlier time, and begins with a watermark of its own.
        """
        rows = self.arrays.rows[: self.counts[k.COUNT_VISITS]]
        changed = np.flatnonzero((rows[:, k.OPENED_AS] >= 0) & (rows[:, k.CHANGED] > 0))
        changed = changed[np.argsort(rows[changed, k.OPENED_AS], kind="stable")]
        rows[changed, k.VERSION] += 1
        rows[changed, k.TRIGGER] = VisitTrigger.PAUSED
        rows[changed, k.CHANGED] = 0
        self.counts[k.COUNT_WATERMARK] = NO_TIME
        return rows[changed]

    def snapshot(self) -> dict[str, np.ndarray]:
        """What is in use, by the names of the arrays."""
        state = {"counts": self.counts.copy()}
        for name, count in TRIMMED.items():
            state[name] = getattr(self.arrays, name)[: self.counts[count]].copy()
        for name in HEADS:
            head = getattr(self.arrays, name)
            state[name] = head[: 1 + int(np.flatnonzero(head >= 0).max(initial=-1))].copy()
        return state

    def restore(self, snapshot: Snapshot, now: Renumbered) -> None:
        """Take the content of a snapshot, but for open visits of a partner that is gone.

        Their last version was written when the unit ended and stands; there is no CLOSED one, since
        nothing is left to be decided about them.
        """
        empty = VisitState(Limits())
        for group in (VISIT_ARRAYS, NODE_ARRAYS, PASS_ARRAYS, HEADS):
            empty._grow(group, max(len(snapshot[name]) for name in group))
        for name in (*TRIMMED, *HEADS, "counts"):
            getattr(empty.arrays, name)[: len(snapshot[name])] = snapshot[name]
        self.arrays = empty.arrays
        rows = self.arrays.rows[: self.counts[k.COUNT_VISITS]]
        passed = self.arrays.pass_class[: self.counts[k.COUNT_PASSES]]
        rows[:, k.PARTNER] = _renumbered(rows[:, k.PARTNER], now.partners)
        rows[:, k.TRACKER] = _renumbered(rows[:, k.TRACKER], now.trackers)
        rows[:, k.MARK] = _renumbered(rows[:, k.MARK], now.marks)
        passed[:] = _renumbered(passed, now.trackers)
        self._drop(np.flatnonzero((rows[:, k.OPENED_AS] >= 0) & (rows[:, k.PARTNER] < 0)))
        self._link_nodes()

    def _drop(self, visits: np.ndarray) -> None:
        """Forget open visits; the chains of addresses are built anew by the caller."""
        rows, counts, links = self.arrays.rows, self.counts, self.arrays.node_links
        for visit in visits.tolist():
            head, at = self.arrays.visit_head, int(rows[visit, k.SUBSCRIBER])
            if head[at] == visit:
                head[at] = rows[visit, k.NEXT]
            else:
                at = int(head[at])
                while rows[at, k.NEXT] != visit:
                    at = int(rows[at, k.NEXT])
                rows[at, k.NEXT] = rows[visit, k.NEXT]
            node = int(rows[visit, k.NODE])
            while node >= 0:
                following = int(links[node, k.NODE_NEXT])
                links[node, [k.NODE_VISIT, k.NODE_NEXT]] = -1, counts[k.FREE_NODE]
                counts[k.FREE_NODE] = node
                counts[k.HELD_NODES] -= 1
                node = following
            rows[visit, [k.OPENED_AS, k.NEXT]] = -1, counts[k.FREE_VISIT]
            counts[k.FREE_VISIT] = visit
        held = self.arrays.heap_visit[: counts[k.COUNT_OPEN]]
        held = held[~np.isin(held, visits)]
        # A last session is no later than the deadline, whatever the policy is now; the fold puts
        # the right one in its place. What is in order is a heap.
        held = held[np.lexsort((rows[held, k.OPENED_AS], rows[held, k.LAST_NS]))]
        counts[k.COUNT_OPEN] = len(held)
        self.arrays.heap_visit[: len(held)] = held
        self.arrays.heap_ns[: len(held)] = rows[held, k.LAST_NS]


def _renumbered(old: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The new numbers for old ones; -1, for none, stays."""
    found: np.ndarray = np.append(numbers, -1)[old]
    return found


def _enlarged(old: np.ndarray, capacity: int) -> np.ndarray:
    new = np.full((capacity, *old.shape[1:]), -1 if old.dtype == np.int32 else 0, old.dtype)
    new[: len(old)] = old
    return new


def visit_batch(rows: np.ndarray, subscriber_ids: np.ndarray, names: Names) -> VisitBatch:
    """Versions as a batch, from copies of visit rows (int64, FIELDS a row)."""
    count = len(rows)
    partner = rows[:, k.PARTNER]
    rulebook_hash = np.zeros(count, ID_DTYPE)
    rulebook_hash[:] = np.frombuffer(names.rulebook_hash, ID_DTYPE)
    return VisitBatch(
        visit_id=_id(rows, k.ID_0),
        version=_as(rows, k.VERSION, np.uint32),
        trigger=_as(rows, k.TRIGGER, np.uint8),
        subscriber_id=subscriber_ids[rows[:, k.SUBSCRIBER]],
        partner=names.partners.take(partner),
        basis=_as(rows, k.BASIS, np.uint8),
        ambiguous=_as(rows, k.AMBIGUOUS, np.uint8),
        arrival=_as(rows, k.ARRIVAL, np.uint8),
        opened_ns=_as(rows, k.OPENED_NS, np.int64),
        first_ns=_as(rows, k.FIRST_NS, np.int64),
        last_ns=_as(rows, k.LAST_NS, np.int64),
        sessions=_as(rows, k.SESSIONS, np.uint32),
        http=_as(rows, k.HTTP, np.uint32),
        tls=_as(rows, k.TLS, np.uint32),
        quic=_as(rows, k.QUIC, np.uint32),
        documents=_as(rows, k.DOCUMENTS, np.uint32),
        source_id=_as(rows, k.SOURCE, np.uint16),
        flow_id=_id(rows, k.FLOW_0),
        packet_number=_as(rows, k.PACKET, np.int64),
        server_hi=_as(rows, k.SERVER_HI, np.int64).view(np.uint64),
        server_lo=_as(rows, k.SERVER_LO, np.int64).view(np.uint64),
        server_port=_as(rows, k.SERVER_PORT, np.uint16),
        document_ns=_as(rows, k.DOCUMENT_NS, np.int64),
        document_flow_id=_id(rows, k.DOCUMENT_FLOW_0),
        document_packet=_as(rows, k.DOCUMENT_PACKET, np.int64),
        tracker_ns=_as(rows, k.TRACKER_NS, np.int64),
        tracker=_text(names.trackers, rows[:, k.TRACKER]),
        mark=_text(names.marks, rows[:, k.MARK]),
        rule_version=names.versions[partner],
        rulebook_hash=rulebook_hash,
    )


def _as(rows: np.ndarray, word: int, dtype: type[np.generic]) -> np.ndarray:
    return rows[:, word].astype(dtype)


def _id(rows: np.ndarray, word: int) -> np.ndarray:
    """An ID column from two words next to each other."""
    return np.ascontiguousarray(rows[:, word : word + 2]).view(ID_DTYPE).reshape(-1)


def _text(column: TextColumn, numbers: np.ndarray) -> TextColumn:
    """Texts by number, -1 for the last one."""
    return column.take(np.where(numbers < 0, len(column) - 1, numbers))
