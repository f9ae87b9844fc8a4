"""The tables of open visits: rows, the heap of their deadlines, chains of sessions and of passes.

A visit is a row of int64 words (FIELDS of them), so that writing a version down is one copy. Open
visits of a subscriber are a chain, and so are the tracker passes of a subscriber, newest first. The
heap of deadlines holds one entry for each open visit, which may be too early and is then put back:
deadlines only grow. Each session of an open visit is a node that says from which address it came
and when; nodes of one address (of one /64 for IPv6) share a chain, so that a fact finds whom it
concerns. Sketch: 280 bytes a visit, 48 a session, 16 a pass.

The caller provides room: as many free visits, nodes and passes as there are sessions to come.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels.compile import kernel, primitive
from pipeline.kernels.hashing import mix64

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


@primitive
def before(rows, one_ns, one, other_ns, other):
    """Does one visit with its time come before another, ties in the order of opening?"""
    return one_ns < other_ns or (
        one_ns == other_ns and rows[one, OPENED_AS] < rows[other, OPENED_AS]
    )


@primitive
def heap_push(v, ns, visit):
    """Enter a visit into the heap of deadlines; the caller counts it as open afterwards."""
    rows, heap_ns, heap_visit, counts = v.rows, v.heap_ns, v.heap_visit, v.counts
    at = counts[COUNT_OPEN]
    up = (at - 1) // 2
    while at > 0 and before(rows, ns, visit, heap_ns[up], heap_visit[up]):
        heap_ns[at], heap_visit[at] = heap_ns[up], heap_visit[up]
        at = up
        up = (at - 1) // 2
    heap_ns[at], heap_visit[at] = ns, visit


@primitive
def heap_sink(rows, heap_ns, heap_visit, size, ns, visit):
    """Put an entry in place of the first one."""
    at = np.int64(0)
    sinking = True
    while sinking:
        down = 2 * at + 1
        if down + 1 < size and before(
            rows, heap_ns[down + 1], heap_visit[down + 1], heap_ns[down], heap_visit[down]
        ):
            down += 1
        sinking = down < size and before(rows, heap_ns[down], heap_visit[down], ns, visit)
        if sinking:
            heap_ns[at], heap_visit[at] = heap_ns[down], heap_visit[down]
            at = down
    heap_ns[at], heap_visit[at] = ns, visit


@primitive
def next_deadline(v, terms):
    """The earliest deadline of an open visit, which is then the first of the heap."""
    rows, heap_ns, heap_visit = v.rows, v.heap_ns, v.heap_visit
    wait_ns = terms.gap_ns + terms.lateness_ns
    size = v.counts[COUNT_OPEN]
    while size > 0 and rows[heap_visit[0], LAST_NS] + wait_ns != heap_ns[0]:
        visit = heap_visit[0]
        heap_sink(rows, heap_ns, heap_visit, size, rows[visit, LAST_NS] + wait_ns, visit)
    return heap_ns[0] if size > 0 else END_OF_TIME


@primitive
def write(v, visit, trigger, out):
    """Write a version of the visit down, if there is a trigger; there is room."""
    rows, counts = v.rows, v.counts
    row = counts[COUNT_OUT]
    if trigger > 0:
        rows[visit, VERSION] += 1
        rows[visit, TRIGGER] = trigger
        rows[visit, CHANGED] = 0
        for word in range(FIELDS):
            out[row, word] = rows[visit, word]
        counts[COUNT_OUT] = row + 1


@primitive
def bucket_of(buckets, hi, lo):
    """The chain in which the sessions of an address are: by IPv4 address, or by IPv6 /64."""
    v4 = hi == U64(0) and (lo >> U64(32)) == U64(0xFFFF)
    return np.int64(mix64(lo if v4 else hi) & U64(len(buckets) - 1))


@primitive
def link(v, node):
    """Put a node at the head of its address's chain."""
    buckets, links = v.buckets, v.node_links
    hi, lo = v.node_hi[node], v.node_lo[node]
    bucket = bucket_of(buckets, hi, lo)
    head = buckets[bucket]
    links[node, BUCKET_NEXT] = head
    links[node, BUCKET_PREVIOUS] = -1
    if head >= 0:
        links[head, BUCKET_PREVIOUS] = node
    buckets[bucket] = node


@primitive
def add_node(v, visit, hi, lo, ns):
    """Remember from which address a session of the visit came; the node, not yet linked."""
    rows, counts, links = v.rows, v.counts, v.node_links
    node_hi, node_lo, node_ns = v.node_hi, v.node_lo, v.node_ns
    node = counts[FREE_NODE]
    if node >= 0:
        counts[FREE_NODE] = links[node, NODE_NEXT]
    else:
        node = counts[COUNT_NODES]
        counts[COUNT_NODES] = node + 1
    counts[HELD_NODES] += 1
    node_hi[node] = hi
    node_lo[node] = lo
    node_ns[node] = ns
    links[node, NODE_VISIT] = visit
    links[node, NODE_NEXT] = rows[visit, NODE]
    rows[visit, NODE] = node
    return node


@primitive
def drop_nodes(v, visit):
    """Take the sessions of a visit out of the chains of their addresses and give them back."""
    counts, links, buckets = v.counts, v.node_links, v.buckets
    node_hi, node_lo = v.node_hi, v.node_lo
    node = v.rows[visit, NODE]
    while node >= 0:
        after, before = links[node, BUCKET_NEXT], links[node, BUCKET_PREVIOUS]
        if before >= 0:
            links[before, BUCKET_NEXT] = after
        else:
            buckets[bucket_of(buckets, node_hi[node], node_lo[node])] = after
        if after >= 0:
            links[after, BUCKET_PREVIOUS] = before
        following = np.int64(links[node, NODE_NEXT])
        links[node, NODE_VISIT] = -1
        links[node, NODE_NEXT] = counts[FREE_NODE]
        counts[FREE_NODE] = node
        counts[HELD_NODES] -= 1
        node = following


@primitive
def next_opened(v, subscriber, after):
    """The subscriber's open visit that was opened next after number `after`; -1 for none."""
    rows = v.rows
    best, best_number = np.int64(-1), END_OF_TIME
    visit = np.int64(v.visit_head[subscriber])
    while visit >= 0:
        number = rows[visit, OPENED_AS]
        if after < number < best_number:
            best, best_number = visit, number
        visit = rows[visit, NEXT]
    return best


@primitive
def put_pass(v, subscriber, ns, number):
    """Enter a tracker pass into the subscriber's chain, newest first; where it is."""
    counts, pass_ns, pass_next = v.counts, v.pass_ns, v.pass_next
    pass_class, pass_head = v.pass_class, v.pass_head
    here = counts[FREE_PASS]
    if here >= 0:
        counts[FREE_PASS] = pass_next[here]
    else:
        here = counts[COUNT_PASSES]
        counts[COUNT_PASSES] = here + 1
    counts[HELD_PASSES] += 1
    pass_ns[here] = ns
    pass_class[here] = number
    before = np.int64(-1)
    at = np.int64(pass_head[subscriber])
    while at >= 0 and pass_ns[at] > ns:
        before = at
        at = np.int64(pass_next[at])
    pass_next[here] = at
    if before >= 0:
        pass_next[before] = here
    else:
        pass_head[subscriber] = here
    return here


@primitive
def remember_pass(v, subscriber, ns, number, terms):
    """Keep a tracker pass.

    What no session within the lateness can look back to is dropped, or not even kept.
    """
    counts, pass_ns, pass_next = v.counts, v.pass_ns, v.pass_next
    oldest = counts[COUNT_WATERMARK] - terms.lateness_ns - terms.tracker_window_ns
    if ns >= oldest:
        here = put_pass(v, subscriber, ns, number)
        at = np.int64(pass_next[here])
        while at >= 0 and pass_ns[at] >= oldest:
            here = at
            at = np.int64(pass_next[at])
        pass_next[here] = -1
        while at >= 0:
            following = np.int64(pass_next[at])
            pass_next[at] = counts[FREE_PASS]
            counts[FREE_PASS] = at
            counts[HELD_PASSES] -= 1
            at = following


@primitive
def recall_pass(v, visit, terms):
    """Note the last tracker passed shortly before the visit; is it the first that is known?"""
    pass_ns, pass_next, pass_class, rows = v.pass_ns, v.pass_next, v.pass_class, v.rows
    first_ns, window_ns = rows[visit, FIRST_NS], terms.tracker_window_ns
    asked = rows[visit, TRACKER_NS] == 0
    at = np.int64(v.pass_head[rows[visit, SUBSCRIBER]])
    while at >= 0 and pass_ns[at] > first_ns:
        at = np.int64(pass_next[at])
    found = asked and at >= 0 and first_ns - pass_ns[at] <= window_ns
    if found:
        rows[visit, TRACKER_NS] = pass_ns[at]
        rows[visit, TRACKER] = pass_class[at]
    return found


@kernel
def relink(v):
    """Enter all held nodes into empty buckets, after these were enlarged.

    Touches 40 bytes a node: 25 % of the memory's bandwidth.
    """
    for node in range(v.counts[COUNT_NODES]):
        if v.node_links[node, NODE_VISIT] >= 0:
            link(v, node)
