"""The fold of sessions into visits, one row after the other, with everything that time brings.

What lies between two sessions happens in the order of its time, whatever the batches are: a visit
closes when the watermark has passed its deadline (last session + gap + lateness), a fact about an
address counts from when it was received. Where both fall together the fact is first; visits with
the same deadline close in the order in which they opened. The heap of deadlines holds one entry for
each open visit, which may be too early and is then put back: deadlines only grow.

A visit is a row of int64 words (FIELDS of them), so that writing a version down is one copy. Open
visits of a subscriber are a chain, and so are the tracker passes of a subscriber, newest first.
Each session of an open visit is a node that says from which address it came and when; nodes of one
address (of one /64 for IPv6) share a chain, so that a fact finds whom it concerns. Sketch: 280
bytes a visit, 48 a session, 16 a pass; a session costs its visit, one node and one circle lookup.

The caller provides room: as many free visits, nodes and passes as there are rows. Output may run
out: then the kernel returns with COUNT_ROW and COUNT_FACT where it stopped and is called again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels.circle import find_slot, holder_at, mask_high, mask_low
from pipeline.kernels.compile import kernel, primitive
from pipeline.kernels.hashing import mix64, siphash128_words
from pipeline.model.faults import Skip
from pipeline.model.words import Arrival, Protocol, SessionFlag, VisitTrigger

U64 = np.uint64
END_OF_TIME = np.iinfo(np.int64).max

# Words of a visit's row.
(
    SUBSCRIBER, PARTNER, ID_0, ID_1, VERSION, BASIS, AMBIGUOUS, ARRIVAL, OPENED_NS, FIRST_NS,
    LAST_NS, SESSIONS, HTTP, TLS, QUIC, DOCUMENTS, SOURCE, FLOW_0, FLOW_1, PACKET, SERVER_HI,
    SERVER_LO, SERVER_PORT, DOCUMENT_NS, DOCUMENT_FLOW_0, DOCUMENT_FLOW_1, DOCUMENT_PACKET,
    TRACKER_NS, TRACKER, MARK, TRIGGER, OPENED_AS, CHANGED, NEXT, NODE,
) = range(35)  # fmt: skip
FIELDS = 35
# OPENED_AS numbers visits as they open, -1 for a free row; NEXT chains a subscriber's visits, or
# free rows; NODE is the visit's newest session.

# Counters.
(
    COUNT_WATERMARK, COUNT_OUT, COUNT_ROW, COUNT_FACT, COUNT_NEEDED, COUNT_OPENED, COUNT_OPEN,
    COUNT_VISITS, FREE_VISIT, COUNT_NODES, FREE_NODE, COUNT_PASSES, FREE_PASS, HELD_NODES,
    HELD_PASSES,
) = range(15)  # fmt: skip
COUNTS = 15

# Words of a node's links.
NODE_VISIT, NODE_NEXT, BUCKET_NEXT, BUCKET_PREVIOUS = range(4)

IS_HTTP, IS_TLS, IS_QUIC = int(Protocol.HTTP), int(Protocol.TLS), int(Protocol.QUIC)
IS_DOCUMENT = int(SessionFlag.DOCUMENT)
OPENED, DOCUMENT = int(VisitTrigger.OPENED), int(VisitTrigger.DOCUMENT)
MARKED, CLOSED = int(VisitTrigger.MARKED), int(VisitTrigger.CLOSED)
UNSEEN, DIRECT = int(Arrival.UNSEEN), int(Arrival.DIRECT)
REFERRED, AFFILIATE = int(Arrival.REFERRED), int(Arrival.AFFILIATE)
SKIP_UNBOUND, SKIP_NOBODY = int(Skip.UNBOUND), int(Skip.NAME_OF_NOBODY)
SKIP_TRACKER, SKIP_JOINED = int(Skip.TRACKER), int(Skip.NOT_OPENED)
SKIP_NOT_LIVE = int(Skip.PARTNER_NOT_LIVE)
NOBODY, FIRST_TRACKER = -1, -2


class Visits(NamedTuple):
    """All state of the fold."""

    rows: np.ndarray  # int64 (capacity, FIELDS)
    heap_ns: np.ndarray  # int64, a deadline no later than the visit's
    heap_visit: np.ndarray  # int32
    node_hi: np.ndarray  # uint64
    node_lo: np.ndarray
    node_ns: np.ndarray  # int64
    node_links: np.ndarray  # int32 (capacity, 4)
    buckets: np.ndarray  # int32, a power of two
    pass_ns: np.ndarray  # int64
    pass_class: np.ndarray  # int32
    pass_next: np.ndarray  # int32
    visit_head: np.ndarray  # int32, by subscriber
    pass_head: np.ndarray  # int32, by subscriber
    counts: np.ndarray  # int64 (COUNTS,)


class Sessions(NamedTuple):
    """A batch of sessions without their names; `code` says whose the name was."""

    code: np.ndarray  # int32: a partner's number, NOBODY, or FIRST_TRACKER - class
    mark: np.ndarray  # int32, or -1
    referred: np.ndarray  # uint8
    subscriber: np.ndarray  # int32
    subscriber_words: np.ndarray  # uint64 (rows, 2)
    basis: np.ndarray  # uint8
    first_ns: np.ndarray  # int64
    watermark_ns: np.ndarray  # int64
    protocol: np.ndarray  # uint8
    flags: np.ndarray  # uint32
    client_hi: np.ndarray  # uint64
    client_lo: np.ndarray
    flow_words: np.ndarray  # uint64 (rows, 2)
    fixed: np.ndarray  # int64 (rows, 7): the words SOURCE to SERVER_PORT of a visit it opens


class Facts(NamedTuple):
    """Facts about addresses in the order in which they were received; -1 is an END."""

    hi: np.ndarray  # uint64
    lo: np.ndarray
    length: np.ndarray  # int64
    subscriber: np.ndarray  # int32
    event_ns: np.ndarray  # int64
    received_ns: np.ndarray


class Terms(NamedTuple):
    """Numbers of the policy and of the rulebook."""

    gap_ns: int
    lateness_ns: int
    guard_ns: int
    tracker_window_ns: int
    key: np.ndarray  # uint64 (2,)
    partner_words: np.ndarray  # uint64 (partners, 2)
    draft: np.ndarray  # uint8, by partner
    words: np.ndarray  # uint64 (1, 7): what a visit's id is hashed from
    hashed: np.ndarray  # uint64 (1, 2)
    hashed_signed: np.ndarray  # int64, the same bytes


@primitive
def _deadline(v, visit, terms):
    return v.rows[visit, LAST_NS] + terms.gap_ns + terms.lateness_ns


@primitive
def _before(v, one_ns, one, other_ns, other):
    """Does one visit with its time come before another, ties in the order of opening?"""
    if one_ns != other_ns:
        return one_ns < other_ns
    return v.rows[one, OPENED_AS] < v.rows[other, OPENED_AS]


@primitive
def _heap_push(v, ns, visit):
    at = v.counts[COUNT_OPEN]
    while at > 0:
        up = (at - 1) // 2
        if not _before(v, ns, visit, v.heap_ns[up], v.heap_visit[up]):
            break
        v.heap_ns[at], v.heap_visit[at] = v.heap_ns[up], v.heap_visit[up]
        at = up
    v.heap_ns[at], v.heap_visit[at] = ns, visit


@primitive
def _heap_sink(v, size, ns, visit):
    """Put an entry in place of the first one."""
    at = 0
    while True:
        down = 2 * at + 1
        if down >= size:
            break
        if down + 1 < size and _before(
            v, v.heap_ns[down + 1], v.heap_visit[down + 1], v.heap_ns[down], v.heap_visit[down]
        ):
            down += 1
        if not _before(v, v.heap_ns[down], v.heap_visit[down], ns, visit):
            break
        v.heap_ns[at], v.heap_visit[at] = v.heap_ns[down], v.heap_visit[down]
        at = down
    v.heap_ns[at], v.heap_visit[at] = ns, visit


@primitive
def _next_deadline(v, terms):
    """The earliest deadline of an open visit, which is then the first of the heap."""
    size = v.counts[COUNT_OPEN]
    while size > 0:
        visit = v.heap_visit[0]
        due = _deadline(v, visit, terms)
        if due == v.heap_ns[0]:
            return due
        _heap_sink(v, size, due, visit)
    return END_OF_TIME


@primitive
def _write(v, visit, trigger, out):
    """Write a version of the visit down; there is room."""
    row = v.counts[COUNT_OUT]
    v.rows[visit, VERSION] += 1
    v.rows[visit, TRIGGER] = trigger
    v.rows[visit, CHANGED] = 0
    for word in range(FIELDS):
        out[row, word] = v.rows[visit, word]
    v.counts[COUNT_OUT] = row + 1


@primitive
def _bucket_of(v, hi, lo):
    v4 = hi == U64(0) and (lo >> U64(32)) == U64(0xFFFF)
    return np.int64(mix64(lo if v4 else hi) & U64(len(v.buckets) - 1))


@primitive
def _link(v, node):
    """Put a node at the head of its address's chain."""
    bucket = _bucket_of(v, v.node_hi[node], v.node_lo[node])
    head = v.buckets[bucket]
    v.node_links[node, BUCKET_NEXT] = head
    v.node_links[node, BUCKET_PREVIOUS] = -1
    if head >= 0:
        v.node_links[head, BUCKET_PREVIOUS] = node
    v.buckets[bucket] = node


@primitive
def _add_node(v, visit, hi, lo, ns):
    """Remember from which address a session of the visit came."""
    node = v.counts[FREE_NODE]
    if node >= 0:
        v.counts[FREE_NODE] = v.node_links[node, NODE_NEXT]
    else:
        node = v.counts[COUNT_NODES]
        v.counts[COUNT_NODES] = node + 1
    v.counts[HELD_NODES] += 1
    v.node_hi[node], v.node_lo[node], v.node_ns[node] = hi, lo, ns
    v.node_links[node, NODE_VISIT] = visit
    v.node_links[node, NODE_NEXT] = v.rows[visit, NODE]
    v.rows[visit, NODE] = node
    _link(v, node)


@primitive
def _drop_nodes(v, visit):
    node = v.rows[visit, NODE]
    while node >= 0:
        after, before = v.node_links[node, BUCKET_NEXT], v.node_links[node, BUCKET_PREVIOUS]
        if before >= 0:
            v.node_links[before, BUCKET_NEXT] = after
        else:
            v.buckets[_bucket_of(v, v.node_hi[node], v.node_lo[node])] = after
        if after >= 0:
            v.node_links[after, BUCKET_PREVIOUS] = before
        following = v.node_links[node, NODE_NEXT]
        v.node_links[node, NODE_VISIT] = -1
        v.node_links[node, NODE_NEXT] = v.counts[FREE_NODE]
        v.counts[FREE_NODE] = node
        v.counts[HELD_NODES] -= 1
        node = following


@primitive
def _close_first(v, out):
    """Close the visit whose deadline is the first of the heap."""
    visit = v.heap_visit[0]
    _write(v, visit, CLOSED, out)
    size = v.counts[COUNT_OPEN] - 1
    v.counts[COUNT_OPEN] = size
    if size > 0:
        _heap_sink(v, size, v.heap_ns[size], v.heap_visit[size])
    _drop_nodes(v, visit)
    subscriber = v.rows[visit, SUBSCRIBER]
    at = np.int64(v.visit_head[subscriber])
    if at == visit:
        v.visit_head[subscriber] = v.rows[visit, NEXT]
    else:
        while v.rows[at, NEXT] != visit:
            at = v.rows[at, NEXT]
        v.rows[at, NEXT] = v.rows[visit, NEXT]
    v.rows[visit, OPENED_AS] = -1
    v.rows[visit, NEXT] = v.counts[FREE_VISIT]
    v.counts[FREE_VISIT] = visit


@primitive
def _concerns(v, circle, facts, fact, node, known_ns, terms):
    """Does this fact make the visit of this session ambiguous?"""
    visit = v.node_links[node, NODE_VISIT]
    if visit < 0 or v.rows[visit, AMBIGUOUS] != 0:
        return False
    length = facts.length[fact]
    hi, lo, ns = v.node_hi[node], v.node_lo[node], v.node_ns[node]
    subscriber = v.rows[visit, SUBSCRIBER]
    if subscriber == facts.subscriber[fact]:
        return False
    if (hi ^ facts.hi[fact]) & mask_high(length) or (lo ^ facts.lo[fact]) & mask_low(length):
        return False
    if abs(ns - facts.event_ns[fact]) <= terms.guard_ns:
        return True
    return holder_at(circle, hi, lo, ns, known_ns) != subscriber


@primitive
def _collect(v, circle, facts, fact, terms, flipped):
    """Mark (with 2) and list the visits that a fact makes ambiguous; how many they are."""
    found = 0
    known_ns = max(facts.received_ns[fact], v.counts[COUNT_WATERMARK])
    hi, lo, length = facts.hi[fact], facts.lo[fact], facts.length[fact]
    v4 = hi == U64(0) and (lo >> U64(32)) == U64(0xFFFF)
    chained = length >= (128 if v4 else 64)
    node = np.int64(v.buckets[_bucket_of(v, hi, lo)]) if chained else np.int64(0)
    while node >= 0 and node < v.counts[COUNT_NODES]:
        if _concerns(v, circle, facts, fact, node, known_ns, terms):
            visit = v.node_links[node, NODE_VISIT]
            v.rows[visit, AMBIGUOUS] = 2
            at = found
            while at > 0 and v.rows[flipped[at - 1], OPENED_AS] > v.rows[visit, OPENED_AS]:
                flipped[at] = flipped[at - 1]
                at -= 1
            flipped[at] = visit
            found += 1
        node = np.int64(v.node_links[node, BUCKET_NEXT]) if chained else node + 1
    return found


@primitive
def _apply_fact(v, circle, facts, fact, terms, flipped, out):
    """Let a fact mark the visits it concerns, in opening order; False where out has no room."""
    found = _collect(v, circle, facts, fact, terms, flipped)
    enough = len(out) - v.counts[COUNT_OUT] >= found
    for i in range(found):
        v.rows[flipped[i], AMBIGUOUS] = 1 if enough else 0
        if enough:
            _write(v, flipped[i], MARKED, out)
    if not enough:
        v.counts[COUNT_NEEDED] = found
    return enough


@primitive
def _pass_time(v, circle, facts, until_ns, terms, flipped, out):
    """All that happens until a watermark, in its order; False where out has no room."""
    while True:
        due = _next_deadline(v, terms)
        fact = v.counts[COUNT_FACT]
        received_ns = facts.received_ns[fact] if fact < len(facts.received_ns) else END_OF_TIME
        if due < until_ns and due < received_ns:
            if v.counts[COUNT_OUT] == len(out):
                v.counts[COUNT_NEEDED] = 1
                return False
            _close_first(v, out)
        elif fact < len(facts.received_ns) and received_ns <= until_ns:
            if not _apply_fact(v, circle, facts, fact, terms, flipped, out):
                return False
            v.counts[COUNT_FACT] = fact + 1
        else:
            return True


@primitive
def _other_holder(circle, hi, lo, ns, known_ns, subscriber, guard_ns):
    """Was the address somebody else's near this time, or at it, by all that is known?"""
    v4 = hi == U64(0) and (lo >> U64(32)) == U64(0xFFFF)
    lengths = circle.lengths4 if v4 else circle.lengths6
    for i in range(len(lengths)):
        length = lengths[i]
        fact = circle.head[find_slot(circle, hi & mask_high(length), lo & mask_low(length), length)]
        while fact >= 0 and circle.event_ns[fact] >= ns - guard_ns:
            if (
                circle.event_ns[fact] <= ns + guard_ns
                and circle.received_ns[fact] <= known_ns
                and circle.subscriber[fact] != subscriber
            ):
                return True
            fact = circle.next_fact[fact]
    return holder_at(circle, hi, lo, ns, known_ns) != subscriber


@primitive
def _next_opened(v, subscriber, after):
    """The subscriber's open visit that was opened next after number `after`; -1 for none."""
    best = np.int64(-1)
    visit = np.int64(v.visit_head[subscriber])
    while visit >= 0:
        number = v.rows[visit, OPENED_AS]
        if number > after and (best < 0 or number < v.rows[best, OPENED_AS]):
            best = visit
        visit = v.rows[visit, NEXT]
    return best


@primitive
def _remember_pass(v, subscriber, ns, number, terms):
    """Put a tracker pass into the subscriber's chain, newest first.

    What no session within the lateness can look back to is dropped, or not even put there.
    """
    oldest = v.counts[COUNT_WATERMARK] - terms.lateness_ns - terms.tracker_window_ns
    if ns < oldest:
        return
    here = v.counts[FREE_PASS]
    if here >= 0:
        v.counts[FREE_PASS] = v.pass_next[here]
    else:
        here = v.counts[COUNT_PASSES]
        v.counts[COUNT_PASSES] = here + 1
    v.counts[HELD_PASSES] += 1
    v.pass_ns[here], v.pass_class[here] = ns, number
    before = np.int64(-1)
    at = np.int64(v.pass_head[subscriber])
    while at >= 0 and v.pass_ns[at] > ns:
        before, at = at, np.int64(v.pass_next[at])
    v.pass_next[here] = at
    if before >= 0:
        v.pass_next[before] = here
    else:
        v.pass_head[subscriber] = here
    while at >= 0 and v.pass_ns[at] >= oldest:
        here, at = at, np.int64(v.pass_next[at])
    v.pass_next[here] = -1
    while at >= 0:
        following = np.int64(v.pass_next[at])
        v.pass_next[at] = v.counts[FREE_PASS]
        v.counts[FREE_PASS] = at
        v.counts[HELD_PASSES] -= 1
        at = following


@primitive
def _precedes(v, visit, ns, terms):
    """Was a tracker passed at this time shortly before the visit?"""
    return ns <= v.rows[visit, FIRST_NS] <= ns + terms.tracker_window_ns


@primitive
def _recall_pass(v, visit, terms):
    """Note the last tracker passed shortly before the visit; is it the first that is known?"""
    at = np.int64(v.pass_head[v.rows[visit, SUBSCRIBER]])
    while at >= 0 and v.pass_ns[at] > v.rows[visit, FIRST_NS]:
        at = np.int64(v.pass_next[at])
    if at < 0 or not _precedes(v, visit, v.pass_ns[at], terms):
        return False
    v.rows[visit, TRACKER_NS] = v.pass_ns[at]
    v.rows[visit, TRACKER] = v.pass_class[at]
    return True


@primitive
def _tracker(v, s, i, terms, out):
    """A tracker was passed: remember it, tell the open visits that it led to. False: no room."""
    subscriber, ns = np.int64(s.subscriber[i]), s.first_ns[i]
    needed = 0
    visit = np.int64(v.visit_head[subscriber])
    while visit >= 0:
        needed += v.rows[visit, TRACKER_NS] == 0 and _precedes(v, visit, ns, terms)
        visit = v.rows[visit, NEXT]
    if len(out) - v.counts[COUNT_OUT] < needed:
        v.counts[COUNT_NEEDED] = needed
        return False
    number = np.int64(FIRST_TRACKER) - np.int64(s.code[i])
    _remember_pass(v, subscriber, ns, number, terms)
    visit = _next_opened(v, subscriber, np.int64(-1))
    while visit >= 0:
        if _precedes(v, visit, ns, terms) and ns > v.rows[visit, TRACKER_NS]:
            first = v.rows[visit, TRACKER_NS] == 0
            v.rows[visit, TRACKER_NS], v.rows[visit, TRACKER] = ns, number
            v.rows[visit, CHANGED] = 1
            if first:
                _write(v, visit, MARKED, out)
        visit = _next_opened(v, subscriber, v.rows[visit, OPENED_AS])
    return True


@primitive
def _find_visit(v, s, i, terms):
    """The earliest open visit that this session belongs to; -1 where it opens one."""
    best, best_ns = np.int64(-1), END_OF_TIME
    ns = s.first_ns[i]
    visit = np.int64(v.visit_head[s.subscriber[i]])
    while visit >= 0:
        first_ns = v.rows[visit, FIRST_NS]
        near = ns > first_ns - terms.gap_ns and ns < v.rows[visit, LAST_NS] + terms.gap_ns
        if (
            near
            and v.rows[visit, PARTNER] == s.code[i]
            and _before(v, first_ns, visit, best_ns, max(best, 0))
        ):
            best, best_ns = visit, first_ns
        visit = v.rows[visit, NEXT]
    return best


@primitive
def _open(v, s, i, terms):
    """Begin a visit with this session; what the session counts for is added by `_join`."""
    visit = v.counts[FREE_VISIT]
    if visit >= 0:
        v.counts[FREE_VISIT] = v.rows[visit, NEXT]
    else:
        visit = v.counts[COUNT_VISITS]
        v.counts[COUNT_VISITS] = visit + 1
    for word in range(FIELDS):
        v.rows[visit, word] = 0
    subscriber = np.int64(s.subscriber[i])
    terms.words[0, 0], terms.words[0, 1] = s.flow_words[i, 0], s.flow_words[i, 1]
    terms.words[0, 2], terms.words[0, 3] = s.subscriber_words[i, 0], s.subscriber_words[i, 1]
    terms.words[0, 4] = terms.partner_words[s.code[i], 0]
    terms.words[0, 5] = terms.partner_words[s.code[i], 1]
    terms.words[0, 6] = U64(s.first_ns[i])
    siphash128_words(terms.key[0], terms.key[1], terms.words, terms.hashed)
    v.rows[visit, ID_0], v.rows[visit, ID_1] = terms.hashed_signed[0, 0], terms.hashed_signed[0, 1]
    v.rows[visit, SUBSCRIBER], v.rows[visit, PARTNER] = subscriber, s.code[i]
    v.rows[visit, OPENED_NS] = v.rows[visit, FIRST_NS] = v.rows[visit, LAST_NS] = s.first_ns[i]
    for word in range(7):
        v.rows[visit, SOURCE + word] = s.fixed[i, word]
    v.rows[visit, TRACKER] = v.rows[visit, MARK] = v.rows[visit, NODE] = -1
    v.rows[visit, OPENED_AS] = v.counts[COUNT_OPENED]
    v.counts[COUNT_OPENED] += 1
    v.rows[visit, NEXT] = v.visit_head[subscriber]
    v.visit_head[subscriber] = visit
    _heap_push(v, _deadline(v, visit, terms), visit)
    v.counts[COUNT_OPEN] += 1
    return visit


@primitive
def _join(v, circle, s, i, visit, terms):
    """Count a session for its visit; what became known by it, as a trigger, or 0."""
    trigger = 0
    row = v.rows[visit]
    ns, protocol = s.first_ns[i], s.protocol[i]
    row[SESSIONS] += 1
    row[HTTP] += protocol == IS_HTTP
    row[TLS] += protocol == IS_TLS
    row[QUIC] += protocol == IS_QUIC
    row[BASIS] = s.basis[i]
    row[CHANGED] = 1
    row[LAST_NS] = max(row[LAST_NS], ns)
    row[FIRST_NS] = min(row[FIRST_NS], ns)
    if row[TRACKER_NS] == 0 and row[FIRST_NS] == ns and _recall_pass(v, visit, terms):
        trigger = MARKED
    subscriber = row[SUBSCRIBER]
    hi, lo, known_ns = s.client_hi[i], s.client_lo[i], v.counts[COUNT_WATERMARK]
    if row[AMBIGUOUS] == 0 and _other_holder(
        circle, hi, lo, ns, known_ns, subscriber, terms.guard_ns
    ):
        row[AMBIGUOUS] = 1
        trigger = MARKED
    if s.mark[i] >= 0 and row[MARK] < 0:
        row[MARK], row[ARRIVAL] = s.mark[i], AFFILIATE
        trigger = MARKED
    seen = (REFERRED if s.referred[i] else DIRECT) if protocol == IS_HTTP else UNSEEN
    document = protocol == IS_HTTP and (s.flags[i] & np.uint32(IS_DOCUMENT)) != 0
    if row[MARK] < 0 and (row[SESSIONS] == 1 or (document and row[DOCUMENTS] == 0)):
        row[ARRIVAL] = seen
    if document:
        if row[DOCUMENTS] == 0:
            row[DOCUMENT_NS], row[DOCUMENT_PACKET] = ns, s.fixed[i, PACKET - SOURCE]
            row[DOCUMENT_FLOW_0] = s.fixed[i, FLOW_0 - SOURCE]
            row[DOCUMENT_FLOW_1] = s.fixed[i, FLOW_1 - SOURCE]
            trigger = DOCUMENT
        row[DOCUMENTS] += 1
    _add_node(v, visit, hi, lo, ns)
    return trigger


@primitive
def _session(v, circle, s, i, terms, skips, out):
    """Take one session; False where out has no room (and nothing has been done)."""
    code = s.code[i]
    if s.subscriber[i] < 0:
        skips[SKIP_UNBOUND] += 1
        return True
    if code == NOBODY:
        skips[SKIP_NOBODY] += 1
        return True
    if code <= FIRST_TRACKER:
        done = _tracker(v, s, i, terms, out)
        skips[SKIP_TRACKER] += done
        return done
    if terms.draft[code]:
        skips[SKIP_NOT_LIVE] += 1
        return True
    if v.counts[COUNT_OUT] == len(out):
        v.counts[COUNT_NEEDED] = 1
        return False
    visit = _find_visit(v, s, i, terms)
    opens = visit < 0
    if opens:
        visit = _open(v, s, i, terms)
    else:
        skips[SKIP_JOINED] += 1
    trigger = _join(v, circle, s, i, visit, terms)
    if opens:
        trigger = OPENED
    if trigger:
        _write(v, visit, trigger, out)
    return True


@kernel
def fold(v, circle, s, facts, until_ns, terms, flipped, skips, out):
    """Take the sessions from COUNT_ROW on, then let time pass until `until_ns`.

    Versions of visits go to `out` from COUNT_OUT on. Ends early, with COUNT_NEEDED rows asked for,
    when there is no room for them; the caller makes room and calls again. `flipped` (int32) has a
    place for each open visit.
    """
    v.counts[COUNT_NEEDED] = 0
    rows = len(s.code)
    while v.counts[COUNT_ROW] <= rows:
        i = v.counts[COUNT_ROW]
        watermark_ns = max(s.watermark_ns[i] if i < rows else until_ns, v.counts[COUNT_WATERMARK])
        if not _pass_time(v, circle, facts, watermark_ns, terms, flipped, out):
            return
        v.counts[COUNT_WATERMARK] = watermark_ns
        if i < rows and not _session(v, circle, s, i, terms, skips, out):
            return
        v.counts[COUNT_ROW] = i + 1


@kernel
def relink(v):
    """Enter all held nodes into empty buckets, after these were enlarged."""
    for node in range(v.counts[COUNT_NODES]):
        if v.node_links[node, NODE_VISIT] >= 0:
            _link(v, node)
