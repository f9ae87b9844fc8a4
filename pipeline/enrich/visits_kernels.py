"""The fold of sessions into visits, one row after the other, with everything that time brings.

What lies between two sessions happens in the order of its time, whatever the batches are: a visit
closes when the watermark has passed its deadline (last session + gap + lateness), a fact about an
address counts from when it was received. Where both fall together the fact is first; visits with
the same deadline close in the order in which they opened.

A session costs its visit, one node and one circle lookup. Measured on one core of a virtual EPYC,
batches of 4,096 and 2,000 subscribers: 1.3 microseconds for a session with a partner (every third
opens a visit), 0.15 for a tracker, 0.07 for a name of nobody, all from the batch of sessions to the
batch of visits.

Output may run out: then `fold` returns with COUNT_ROW and COUNT_FACT where it stopped and is called
again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.enrich.state_kernels import (
    AMBIGUOUS,
    ARRIVAL,
    BASIS,
    BUCKET_NEXT,
    CHANGED,
    COUNT_FACT,
    COUNT_NEEDED,
    COUNT_NODES,
    COUNT_OPEN,
    COUNT_OPENED,
    COUNT_OUT,
    COUNT_ROW,
    COUNT_VISITS,
    COUNT_WATERMARK,
    DOCUMENT_FLOW_0,
    DOCUMENT_FLOW_1,
    DOCUMENT_NS,
    DOCUMENT_PACKET,
    DOCUMENTS,
    END_OF_TIME,
    FIELDS,
    FIRST_NS,
    FLOW_0,
    FLOW_1,
    FREE_VISIT,
    HTTP,
    ID_0,
    ID_1,
    LAST_NS,
    MARK,
    NEXT,
    NODE,
    NODE_VISIT,
    OPENED_AS,
    OPENED_NS,
    PACKET,
    PARTNER,
    QUIC,
    SERVER_PORT,
    SESSIONS,
    SOURCE,
    SUBSCRIBER,
    TLS,
    TRACKER,
    TRACKER_NS,
    add_node,
    before,
    bucket_of,
    drop_nodes,
    heap_push,
    heap_sink,
    link,
    next_deadline,
    next_opened,
    recall_pass,
    remember_pass,
    write,
)
from pipeline.kernels.circle import fact_at, find_prefix, holder_at, mask_high, mask_low
from pipeline.kernels.compile import kernel, primitive, routine
from pipeline.kernels.hashing import siphash128_words
from pipeline.model.faults import Skip
from pipeline.model.words import Arrival, Protocol, SessionFlag, VisitTrigger

U64 = np.uint64
IS_HTTP, IS_TLS, IS_QUIC = int(Protocol.HTTP), int(Protocol.TLS), int(Protocol.QUIC)
IS_DOCUMENT, IS_UNRELIABLE = int(SessionFlag.DOCUMENT), int(SessionFlag.UNRELIABLE)
OPENED, DOCUMENT = int(VisitTrigger.OPENED), int(VisitTrigger.DOCUMENT)
MARKED, CLOSED = int(VisitTrigger.MARKED), int(VisitTrigger.CLOSED)
UNSEEN, DIRECT = int(Arrival.UNSEEN), int(Arrival.DIRECT)
REFERRED, AFFILIATE = int(Arrival.REFERRED), int(Arrival.AFFILIATE)
SKIP_TRACKER, SKIP_JOINED = int(Skip.TRACKER), int(Skip.NOT_OPENED)
FIRST_TRACKER = -2


class Sessions(NamedTuple):
    """Sessions of somebody with a partner or a tracker, without their names; and those of nobody
    that tell that their flow cannot be relied upon."""

    code: np.ndarray  # int32: a partner's number, FIRST_TRACKER - number of the class, or NOBODY
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
    words: np.ndarray  # uint64 (1, 7): what a visit's id is hashed from
    hashed: np.ndarray  # uint64 (1, 2)
    hashed_signed: np.ndarray  # int64, the same bytes


@routine
def _close_first(v, out):
    """Close the visit whose deadline is the first of the heap."""
    rows, counts, visit_head = v.rows, v.counts, v.visit_head
    heap_ns, heap_visit = v.heap_ns, v.heap_visit
    visit = np.int64(heap_visit[0])
    write(v, visit, CLOSED, out)
    drop_nodes(v, visit)
    size = counts[COUNT_OPEN] - 1
    counts[COUNT_OPEN] = size
    if size > 0:
        heap_sink(rows, heap_ns, heap_visit, size, heap_ns[size], heap_visit[size])
    subscriber = rows[visit, SUBSCRIBER]
    before = np.int64(-1)
    at = np.int64(visit_head[subscriber])
    while at != visit:
        before = at
        at = rows[at, NEXT]
    if before < 0:
        visit_head[subscriber] = rows[visit, NEXT]
    else:
        rows[before, NEXT] = rows[visit, NEXT]
    rows[visit, OPENED_AS] = -1
    rows[visit, NEXT] = counts[FREE_VISIT]
    counts[FREE_VISIT] = visit


@primitive
def _concerns(v, circle, facts, fact, node, known_ns, terms):
    """Does this fact make the visit of this session ambiguous?"""
    held = v.node_links[node, NODE_VISIT]
    visit = max(held, 0)
    ambiguous, subscriber = v.rows[visit, AMBIGUOUS], v.rows[visit, SUBSCRIBER]
    hi, lo, ns = v.node_hi[node], v.node_lo[node], v.node_ns[node]
    length, other = facts.length[fact], facts.subscriber[fact]
    apart = (hi ^ facts.hi[fact]) & mask_high(length) | (lo ^ facts.lo[fact]) & mask_low(length)
    near = abs(ns - facts.event_ns[fact]) <= terms.guard_ns
    near = near or holder_at(circle, hi, lo, ns, known_ns) != subscriber
    return near and held >= 0 and ambiguous == 0 and subscriber != other and apart == U64(0)


@primitive
def _collect(v, circle, facts, fact, terms, flipped):
    """Mark (with 2) and list the visits that a fact makes ambiguous; how many they are."""
    rows, links, counts, buckets = v.rows, v.node_links, v.counts, v.buckets
    found = 0
    known_ns = max(facts.received_ns[fact], counts[COUNT_WATERMARK])
    hi, lo, length = facts.hi[fact], facts.lo[fact], facts.length[fact]
    v4 = hi == U64(0) and (lo >> U64(32)) == U64(0xFFFF)
    chained = length >= (128 if v4 else 64)
    node = np.int64(buckets[bucket_of(buckets, hi, lo)]) if chained else np.int64(0)
    while 0 <= node < counts[COUNT_NODES]:
        if _concerns(v, circle, facts, fact, node, known_ns, terms):
            visit = links[node, NODE_VISIT]
            rows[visit, AMBIGUOUS] = 2
            at = found
            while at > 0 and rows[flipped[at - 1], OPENED_AS] > rows[visit, OPENED_AS]:
                flipped[at] = flipped[at - 1]
                at -= 1
            flipped[at] = visit
            found += 1
        node = np.int64(links[node, BUCKET_NEXT]) if chained else node + 1
    return found


@routine
def _apply_fact(v, circle, facts, fact, terms, flipped, out):
    """Let a fact mark the visits it concerns, in opening order; False where out has no room."""
    rows, counts = v.rows, v.counts
    found = _collect(v, circle, facts, fact, terms, flipped)
    enough = len(out) - counts[COUNT_OUT] >= found
    for i in range(found):
        rows[flipped[i], AMBIGUOUS] = 1 if enough else 0
        if enough:
            write(v, flipped[i], MARKED, out)
    counts[COUNT_NEEDED] = 0 if enough else found
    return enough


@routine
def _pass_time(v, circle, facts, until_ns, terms, flipped, out):
    """All that happens until a watermark, in its order; False where out has no room."""
    counts, received = v.counts, facts.received_ns
    going, room = True, True
    while going:
        due_ns = next_deadline(v, terms)
        fact = counts[COUNT_FACT]
        waits = fact < len(received) and received[fact] <= until_ns
        if due_ns < until_ns and not (waits and received[fact] <= due_ns):
            room = counts[COUNT_OUT] < len(out)
            if room:
                _close_first(v, out)
            else:
                counts[COUNT_NEEDED] = 1
        elif waits:
            room = _apply_fact(v, circle, facts, fact, terms, flipped, out)
            counts[COUNT_FACT] = fact + 1 if room else fact
        else:
            going = False
        going = going and room
    return room


@primitive
def _other_holder(circle, hi, lo, ns, known_ns, subscriber, guard_ns):
    """Was the address somebody else's near this time, or at it, by all that is known?"""
    prefixes, facts = circle.prefixes, circle.facts
    lengths4, lengths6 = circle.lengths4, circle.lengths6
    v4 = hi == U64(0) and (lo >> U64(32)) == U64(0xFFFF)
    other, found = False, np.int64(-1)
    i, count = 0, len(lengths4) if v4 else len(lengths6)
    while i < count:
        length = lengths4[i] if v4 else lengths6[i]
        at = find_prefix(circle, hi & mask_high(length), lo & mask_low(length), length)
        near = np.int64(prefixes[at].newest) - 1
        while near >= 0 and facts[near].event_ns >= ns - guard_ns:
            fact = facts[near]
            known = fact.event_ns <= ns + guard_ns and fact.received_ns <= known_ns
            other = other or (known and fact.holder != subscriber)
            near = np.int64(fact.older) - 1
        held = fact_at(facts, prefixes[at].newest, ns, known_ns)
        if found < 0 and held >= 0:
            found = np.int64(facts[held].holder)
        i += 1
    return other or found != subscriber


@routine
def _tracker(v, s, i, terms, out):
    """A tracker was passed: remember it, tell the open visits that it led to. False: no room."""
    rows, counts = v.rows, v.counts
    subscriber, ns = np.int64(s.subscriber[i]), s.first_ns[i]
    number = np.int64(FIRST_TRACKER) - np.int64(s.code[i])
    window_ns = terms.tracker_window_ns
    needed = 0
    visit = np.int64(v.visit_head[subscriber])
    while visit >= 0:
        led = ns <= rows[visit, FIRST_NS] <= ns + window_ns
        needed += led and rows[visit, TRACKER_NS] == 0
        visit = rows[visit, NEXT]
    room = len(out) - counts[COUNT_OUT] >= needed
    counts[COUNT_NEEDED] = 0 if room else needed
    if room:
        remember_pass(v, subscriber, ns, number, terms)
        visit = next_opened(v, subscriber, np.int64(-1))
        while visit >= 0:
            led = ns <= rows[visit, FIRST_NS] <= ns + window_ns
            known_ns = rows[visit, TRACKER_NS]
            if led and ns > known_ns:
                rows[visit, TRACKER_NS] = ns
                rows[visit, TRACKER] = number
                rows[visit, CHANGED] = 1
                if known_ns == 0:
                    write(v, visit, MARKED, out)
            visit = next_opened(v, subscriber, rows[visit, OPENED_AS])
    return room


@primitive
def _find_visit(v, s, i, terms):
    """The earliest open visit that this session belongs to; -1 where it opens one."""
    rows, gap_ns = v.rows, terms.gap_ns
    best, best_ns = np.int64(-1), END_OF_TIME
    ns, partner = s.first_ns[i], s.code[i]
    visit = np.int64(v.visit_head[s.subscriber[i]])
    while visit >= 0:
        first_ns = rows[visit, FIRST_NS]
        near = ns > first_ns - gap_ns and ns < rows[visit, LAST_NS] + gap_ns
        if (
            near
            and rows[visit, PARTNER] == partner
            and before(rows, first_ns, visit, best_ns, max(best, 0))
        ):
            best, best_ns = visit, first_ns
        visit = rows[visit, NEXT]
    return best


@primitive
def _hash_id(s, i, terms):
    """The id of a visit that this session opens, into `terms.hashed`."""
    flow, known, partners = s.flow_words, s.subscriber_words, terms.partner_words
    key, words, partner = terms.key, terms.words, s.code[i]
    words[0, 6] = U64(s.first_ns[i])
    for word in range(2):
        words[0, word] = flow[i, word]
        words[0, 2 + word] = known[i, word]
        words[0, 4 + word] = partners[partner, word]
    siphash128_words(key[0], key[1], words, terms.hashed)


@routine
def _open(v, s, i, terms):
    """Begin a visit with this session; what the session counts for is added by `_join`."""
    rows, counts, visit_head = v.rows, v.counts, v.visit_head
    fixed, signed, wait_ns = s.fixed, terms.hashed_signed, terms.gap_ns + terms.lateness_ns
    subscriber, partner, ns = np.int64(s.subscriber[i]), s.code[i], s.first_ns[i]
    _hash_id(s, i, terms)
    visit = counts[FREE_VISIT]
    if visit >= 0:
        counts[FREE_VISIT] = rows[visit, NEXT]
    else:
        visit = counts[COUNT_VISITS]
        counts[COUNT_VISITS] = visit + 1
    for word in range(FIELDS):
        rows[visit, word] = 0
    rows[visit, ID_0] = signed[0, 0]
    rows[visit, ID_1] = signed[0, 1]
    rows[visit, SUBSCRIBER] = subscriber
    rows[visit, PARTNER] = partner
    rows[visit, OPENED_NS] = ns
    rows[visit, FIRST_NS] = ns
    rows[visit, LAST_NS] = ns
    for word in range(SERVER_PORT - SOURCE + 1):
        rows[visit, SOURCE + word] = fixed[i, word]
    rows[visit, TRACKER] = -1
    rows[visit, MARK] = -1
    rows[visit, NODE] = -1
    rows[visit, OPENED_AS] = counts[COUNT_OPENED]
    counts[COUNT_OPENED] += 1
    rows[visit, NEXT] = visit_head[subscriber]
    visit_head[subscriber] = visit
    heap_push(v, ns + wait_ns, visit)
    counts[COUNT_OPEN] += 1
    return visit


@primitive
def _count(v, s, i, visit):
    """Count a session for its visit; was it the first document?"""
    rows, fixed = v.rows, s.fixed
    ns, protocol, mark = s.first_ns[i], s.protocol[i], s.mark[i]
    flags, referred, basis = s.flags[i], s.referred[i], s.basis[i]
    rows[visit, SESSIONS] += 1
    rows[visit, HTTP] += protocol == IS_HTTP
    rows[visit, TLS] += protocol == IS_TLS
    rows[visit, QUIC] += protocol == IS_QUIC
    rows[visit, BASIS] = basis
    rows[visit, CHANGED] = 1
    rows[visit, LAST_NS] = max(rows[visit, LAST_NS], ns)
    rows[visit, FIRST_NS] = min(rows[visit, FIRST_NS], ns)
    document = protocol == IS_HTTP and (flags & np.uint32(IS_DOCUMENT)) != 0
    first = document and rows[visit, DOCUMENTS] == 0
    rows[visit, DOCUMENTS] += document
    if first:
        rows[visit, DOCUMENT_NS] = ns
        rows[visit, DOCUMENT_PACKET] = fixed[i, PACKET - SOURCE]
        rows[visit, DOCUMENT_FLOW_0] = fixed[i, FLOW_0 - SOURCE]
        rows[visit, DOCUMENT_FLOW_1] = fixed[i, FLOW_1 - SOURCE]
    if mark >= 0 and rows[visit, MARK] < 0:
        rows[visit, ARRIVAL] = AFFILIATE
    elif rows[visit, MARK] < 0 and (first or rows[visit, SESSIONS] == 1):
        seen = (REFERRED if referred else DIRECT) if protocol == IS_HTTP else UNSEEN
        rows[visit, ARRIVAL] = seen
    return first


@primitive
def _join(v, circle, s, i, visit, terms):
    """Count a session for its visit; what became known by it, as a trigger, or 0."""
    rows, known_ns, guard_ns = v.rows, v.counts[COUNT_WATERMARK], terms.guard_ns
    ns, hi, lo, mark = s.first_ns[i], s.client_hi[i], s.client_lo[i], s.mark[i]
    document = _count(v, s, i, visit)
    news = recall_pass(v, visit, terms)
    if mark >= 0 and rows[visit, MARK] < 0:
        rows[visit, MARK] = mark
        news = True
    subscriber = rows[visit, SUBSCRIBER]
    doubtful = (s.flags[i] & np.uint32(IS_UNRELIABLE)) != 0
    if doubtful or _other_holder(circle, hi, lo, ns, known_ns, subscriber, guard_ns):
        news = news or rows[visit, AMBIGUOUS] == 0
        rows[visit, AMBIGUOUS] = 1
    link(v, add_node(v, visit, hi, lo, ns))
    return DOCUMENT if document else MARKED if news else 0


@routine
def _visit(v, circle, s, i, terms, out):
    """Take a session with a partner; is it one more of an open visit? There is room."""
    visit = _find_visit(v, s, i, terms)
    joins = visit >= 0
    if not joins:
        visit = _open(v, s, i, terms)
    trigger = _join(v, circle, s, i, visit, terms)
    write(v, visit, trigger if joins else OPENED, out)
    return joins


@primitive
def _is_doubted(v, s, i, visit):
    """Does the flow of this session cast doubt on the visit, which it opened?"""
    rows, fixed = v.rows, s.fixed
    flow_0, flow_1 = fixed[i, FLOW_0 - SOURCE], fixed[i, FLOW_1 - SOURCE]
    opened = rows[visit, FLOW_0] == flow_0 and rows[visit, FLOW_1] == flow_1
    shown = rows[visit, DOCUMENT_FLOW_0] == flow_0 and rows[visit, DOCUMENT_FLOW_1] == flow_1
    return rows[visit, AMBIGUOUS] == 0 and (opened or (rows[visit, DOCUMENTS] > 0 and shown))


@primitive
def _count_doubted(v, s, i):
    """How many visits a session casts doubt on."""
    found, visit = 0, np.int64(v.visit_head[s.subscriber[i]])
    while visit >= 0:
        found += _is_doubted(v, s, i, visit)
        visit = v.rows[visit, NEXT]
    return found


@routine
def _doubt(v, s, i, out):
    """Mark what a flow opened that now says something that cannot be relied upon. False: no room,
    and to be called again, which marks nothing twice.
    """
    needed = _count_doubted(v, s, i)
    room = len(out) - v.counts[COUNT_OUT] >= needed
    v.counts[COUNT_NEEDED] = 0 if room else needed
    subscriber = np.int64(s.subscriber[i])
    visit = next_opened(v, subscriber, np.int64(-1)) if room and needed > 0 else np.int64(-1)
    while visit >= 0:
        if _is_doubted(v, s, i, visit):
            v.rows[visit, AMBIGUOUS] = 1
            write(v, visit, MARKED, out)
        visit = next_opened(v, subscriber, v.rows[visit, OPENED_AS])
    return room


@kernel
def fold(v, circle, s, facts, until_ns, terms, flipped, skips, out):
    """Take the sessions from COUNT_ROW on, then let time pass until `until_ns`.

    Versions of visits go to `out` from COUNT_OUT on. Ends early, with COUNT_NEEDED rows asked for,
    when there is no room for them; the caller makes room and calls again. `flipped` (int32) has a
    place for each open visit.

    Touches 150 bytes a session: less than 1 % of the memory's bandwidth.
    """
    counts, heap_ns, received_ns = v.counts, v.heap_ns, facts.received_ns
    code, watermark_ns = s.code, s.watermark_ns
    rows = len(code)
    room = True
    while room and counts[COUNT_ROW] <= rows:
        i = counts[COUNT_ROW]
        now_ns = max(watermark_ns[i] if i < rows else until_ns, counts[COUNT_WATERMARK])
        fact = counts[COUNT_FACT]
        due = counts[COUNT_OPEN] > 0 and heap_ns[0] < now_ns
        due = due or (fact < len(received_ns) and received_ns[fact] <= now_ns)
        if due:
            room = _pass_time(v, circle, facts, now_ns, terms, flipped, out)
        if room:
            counts[COUNT_WATERMARK] = now_ns
            if i < rows and (s.flags[i] & np.uint32(IS_UNRELIABLE)) != 0:
                room = _doubt(v, s, i, out)
            if room and i < rows and code[i] <= FIRST_TRACKER:
                room = _tracker(v, s, i, terms, out)
                skips[SKIP_TRACKER] += room
            elif room and i < rows and code[i] >= 0:
                room = counts[COUNT_OUT] < len(out)
                counts[COUNT_NEEDED] = 0 if room else 1
                if room:
                    skips[SKIP_JOINED] += _visit(v, circle, s, i, terms, out)
        counts[COUNT_ROW] += room
