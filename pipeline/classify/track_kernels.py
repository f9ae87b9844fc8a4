"""The pass over a batch of headers: find the flow of each packet, and take what its client says.

Some packets ahead of the one that is taken, the ends of each that is to be looked at are hashed,
and its slot is asked for: so the misses of a large table overlap, and what came still stands in the
first cache. Almost all packets end there: no payload, from the server, or of a flow whose name is
known. Measured at 10,000 flows on a shared server: 70 ns a packet, of 165 from the file to sessions
on one core.

Every packet is counted once, as one that led to a name, as held, or as a fault or skip; what
befalls flows and holdings later (a gap that did not close, an eviction) is counted apart, as an
event.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.answers_kernels import take_answer, wipe_answers
from pipeline.classify.beginnings_kernels import asks
from pipeline.classify.datagrams_kernels import take_datagram
from pipeline.classify.flows_kernels import (
    clear_flow,
    end_hash,
    enter_flow,
    find_flow,
    home_of,
    is_idle,
    join_ends,
    next_to_leave,
    remove_flow,
)
from pipeline.classify.fragments_kernels import JOINED
from pipeline.classify.gate_kernels import NAME_ANSWER, is_answer
from pipeline.classify.held_kernels import sequence_difference
from pipeline.classify.layers_kernels import TCP
from pipeline.classify.segments_kernels import HELD, expire_oldest, release, take_segment
from pipeline.classify.state_kernels import (
    ALPN_TEXT,
    ANSWERED,
    CLIENT_KNOWN,
    CLIENT_SIDE,
    DONE,
    ENDED,
    EVENTS,
    HAS_SEQUENCE,
    HELLO_SEEN,
    HOST_TEXT,
    NEW,
    OTHER,
    REFERER_TEXT,
    ROW_FAULTS,
    ROW_SKIPS,
    SUM_BYTES,
    SUM_NAMED,
    SUM_PACKETS,
    SUM_TCP_FLOWS,
    SUM_UDP_FLOWS,
    SUMS,
    TARGET_TEXT,
    Track,
    text_start,
)
from pipeline.classify.units_kernels import NOT_A_CLIENT, PASSED, begin_other
from pipeline.kernels.compile import fetch, kernel, primitive, routine
from pipeline.model.faults import Fault, Skip

U64 = np.uint64
I64 = np.int64
FIN, SYN, RST, ACK = 1, 2, 4, 16
FLAGS_TOLD = FIN | SYN | RST
NEAR_BYTES = 1 << 20  # sequence numbers farther from each other are of two connections
AHEAD = 32  # packets whose slots are on their way from memory
FLOWS_EXHAUSTED = int(Fault.FLOWS_EXHAUSTED)
NO_PAYLOAD, FLOW_DONE = int(Skip.NO_PAYLOAD), int(Skip.FLOW_DONE)

# A card may hand over up to 64 KiB at once; what a packet has beyond that is not read. So the most
# that a packet, with what was held before it, or a holding that expires can write is 80 KiB of the
# shortest requests, of 20 bytes each.
PAYLOAD_TAKEN_MAX = 1 << 16
ROWS_A_STEP, TEXT_A_STEP = 1 << 13, 1 << 17


@primitive
def _has_room(track):
    """Is there room for whatever the next step writes?"""
    counts, limits = track.desk.counts, track.desk.limits
    left = limits.text_bytes - TEXT_A_STEP
    return (
        counts.rows + ROWS_A_STEP <= len(track.rows)
        and counts.host - text_start(limits, HOST_TEXT) <= left
        and counts.target - text_start(limits, TARGET_TEXT) <= left
        and counts.referer - text_start(limits, REFERER_TEXT) <= left
        and counts.alpn - text_start(limits, ALPN_TEXT) <= left
    )


@routine
def drop_flow(track, at):
    """Take a flow out with all that it holds."""
    release(track, track.slots[at])
    remove_flow(track.slots, track.names, track.desk.counts, at)


@routine
def _new_flow(track, fingerprint, transport, subscriber, time_ns):
    """Make room for a flow and enter it; its slot."""
    counts = track.desk.counts
    looked = 0
    while True:
        leaving, evicted, looked = next_to_leave(
            track.slots, track.queue, counts, track.desk.limits, looked
        )
        if leaving < 0:
            break
        drop_flow(track, leaving)
        if evicted:
            track.desk.tallied[EVENTS, FLOWS_EXHAUSTED] += 1
    at = enter_flow(track.slots, track.queue, counts, fingerprint)
    _begin_flow(track, track.slots[at], transport, subscriber, time_ns)
    return at


@routine
def _begin_flow(track, flow, transport, subscriber, time_ns):
    """The flow of a slot begins, with nothing known of it."""
    flow.transport = transport
    flow.subscriber = subscriber
    flow.first_ns = time_ns
    flow.tries = track.desk.limits.tries
    track.desk.tallied[SUMS, SUM_TCP_FLOWS if transport == TCP else SUM_UDP_FLOWS] += 1


@routine
def _begin_again(track, flow, transport, subscriber, time_ns):
    """The same addresses and ports, but another flow."""
    release(track, flow)
    clear_flow(track.names, track.desk.counts, flow)
    _begin_flow(track, flow, transport, subscriber, time_ns)


@primitive
def _are_near(a, b):
    """May two sequence numbers be of one connection?"""
    return abs(sequence_difference(a, b)) < NEAR_BYTES


@routine
def _take_flags(track, flow, side, tcp_flags, sequence, acknowledged, time_ns):
    """A packet with SYN, FIN or RST: who is the client, where its bytes begin, whether the ports
    are used again, and whether the flow is over.

    A SYN with another number than the one the flow began with is a new flow (RFC 9293, 3.6.1), and
    so is the answer to one that was not seen; the same once more is only that. The number that is
    kept moves on with what is read, so one somewhat behind it is the same, unless the flow is over.
    """
    bits = I64(flow.bits)
    if tcp_flags & SYN == 0:
        flow.bits = bits | ENDED
        return
    fresh = flow.state == NEW and bits & (HAS_SEQUENCE | CLIENT_KNOWN) == 0
    answers = tcp_flags & ACK != 0
    first = acknowledged if answers else (sequence + 1) & 0xFFFFFFFF
    mine = CLIENT_SIDE if side != answers else 0
    if not fresh:
        if answers and _are_near(first, I64(flow.first_sequence)):
            return
        behind = sequence_difference(I64(flow.first_sequence), first)
        same_side = bits & (CLIENT_KNOWN | CLIENT_SIDE) == CLIENT_KNOWN | mine
        if same_side and (behind == 0 or (0 < behind < NEAR_BYTES and bits & ENDED == 0)):
            return
        _begin_again(track, flow, TCP, flow.subscriber, time_ns)
        flow.seen_ns = track.desk.counts.watermark_ns
    flow.bits = HAS_SEQUENCE | CLIENT_KNOWN | mine
    flow.next_sequence = flow.first_sequence = first


@primitive
def _is_another(flow, head, data, joined):
    """Does another connection speak on the ports of this one, which is over?"""
    sequence = I64(head.sequence)
    if I64(flow.bits) & HAS_SEQUENCE and flow.state != HELLO_SEEN:
        if _are_near(sequence, I64(flow.next_sequence)):
            return False
    if _are_near(sequence, I64(flow.first_sequence)):
        return False
    at, captured = I64(head.payload_at), min(I64(head.payload_captured), PAYLOAD_TAKEN_MAX)
    if at < JOINED:
        return asks(data, at, at + captured)
    return asks(joined, at - JOINED, at - JOINED + captured)


@primitive
def _take_payload(track, flow, head, data, joined, side):
    """Hand a payload on, in the name of its sender; then count what became of it."""
    now, tallied = track.desk.now, track.desk.tallied
    now.watermark_ns = track.desk.counts.watermark_ns
    now.client_hi, now.client_lo = head.source_hi, head.source_lo
    now.server_hi, now.server_lo = head.target_hi, head.target_lo
    now.client_port, now.server_port = I64(head.source_port), I64(head.target_port)
    now.realm = I64(head.realm)
    now.fault = now.skip = now.named = now.marks = 0
    captured = min(I64(head.payload_captured), PAYLOAD_TAKEN_MAX)
    length = I64(head.payload_length)
    at = I64(head.payload_at)
    if at < JOINED:
        _take_bytes(track, flow, head, data, at, captured, length, side)
    else:
        _take_bytes(track, flow, head, joined, at - JOINED, captured, length, side)
    if now.named > 0:
        tallied[SUMS, SUM_NAMED] += 1
        if now.fault > 0:
            tallied[EVENTS, now.fault] += 1
    elif now.fault > 0:
        tallied[ROW_FAULTS, now.fault] += 1
    elif now.skip != HELD:
        tallied[ROW_SKIPS, now.skip if now.skip > 0 else PASSED] += 1


@primitive
def _take_bytes(track, flow, head, data, at, captured, length, side):
    """Hand on what is at `data[at:]`: a segment, or a datagram."""
    if flow.transport == TCP:
        sequence = (I64(head.sequence) + (1 if head.tcp_flags & SYN else 0)) & 0xFFFFFFFF
        take_segment(track, flow, data, at, captured, length, sequence)
        _know_client(flow, track.desk.now.skip == NOT_A_CLIENT, side)
    else:
        take_datagram(track, flow, data, at, captured, length, side)


@primitive
def _turns_round(flow, head, data, joined):
    """Does the one who was taken for the server ask, and nobody has before? Then it is the client:
    a proxy that is called from inside (SOCKS) passes requests against the way of its connection.
    """
    if flow.names > 0 or flow.held > 0 or head.transport != TCP:
        return False
    if I64(flow.bits) & ANSWERED:  # it has spoken as servers do
        return False
    if flow.state != NEW and flow.state != OTHER:
        return False
    at, captured = I64(head.payload_at), min(I64(head.payload_captured), PAYLOAD_TAKEN_MAX)
    if at < JOINED:
        asking = asks(data, at, at + captured)
    else:
        asking = asks(joined, at - JOINED, at - JOINED + captured)
    if not asking:
        return False
    begin_other(flow, True)
    flow.bits = I64(flow.bits) & ~(CLIENT_KNOWN | CLIENT_SIDE)
    return True


@primitive
def _know_client(flow, from_server, side):
    """Note whether it was the client who sent a segment, if that can be told."""
    bits = I64(flow.bits)
    if bits & CLIENT_KNOWN == 0:
        if from_server:
            flow.bits = bits | CLIENT_KNOWN | ANSWERED | (0 if side else CLIENT_SIDE)
        elif bits & HAS_SEQUENCE or flow.state == HELLO_SEEN:
            flow.bits = bits | CLIENT_KNOWN | (CLIENT_SIDE if side else 0)


@primitive
def _hash_row(track, head, directed, fingerprint, side, i):
    """Fingerprint and direction of a row, if it is to be looked at; its slot is asked for. Of
    others the fingerprint is 0.
    """
    fingerprint[i] = U64(0)
    if head.fault == 0 and head.skip == 0:
        slots, limits, transport = track.slots, track.desk.limits, head.transport
        key0, key1 = limits.key0, limits.key1
        source = end_hash(key0, key1, head.source_hi, head.source_lo, head.source_port, transport)
        target = end_hash(key0, key1, head.target_hi, head.target_lo, head.target_port, transport)
        fingerprint[i] = join_ends(source, target, directed)
        side[i] = source < target
        home = I64(home_of(slots, fingerprint[i]))
        fetch(slots, home)
        fetch(slots, home + 1)  # where a quarter of them are


@primitive
def _is_due(track):
    """Is the time of the oldest holding up, or at the end of time?"""
    counts = track.desk.counts
    h = counts.oldest - 1
    return h >= 0 and track.holdings[h].deadline_ns < counts.watermark_ns


@routine
def _give_up_due(track, watermark_ns):
    """Give up holdings whose time is up at `watermark_ns`, while there is room; are there more?"""
    counts = track.desk.counts
    while counts.oldest > 0:
        holding = track.holdings[counts.oldest - 1]
        if holding.deadline_ns >= watermark_ns:
            return False
        if not _has_room(track):
            return True
        at = find_flow(track.slots, holding.fingerprint)
        expire_oldest(track, track.slots[at])
    return False


@kernel
def advance_track(
    slots, queue, names, holdings, pieces, rows, memory, desk, cipher, plain,
    answers, told, watermark_ns,
):  # fmt: skip
    """Let time pass up to `watermark_ns`; True when it is to be called again with room for rows.

    Touches 84 bytes a holding: 7 % of the memory's bandwidth.
    """
    track = Track(
        slots, queue, names, holdings, pieces, rows, memory, desk[0], cipher[0], plain,
        answers, told,
    )  # fmt: skip
    return _give_up_due(track, watermark_ns)


@kernel
def track_packets(
    slots, queue, names, holdings, pieces, rows, memory, desk, cipher, plain,
    answers, told, heads, data, joined, time_ns, wire_length, first_number, subscriber, basis,
    directed, start, fingerprint, side,
):  # fmt: skip
    """Take packets `start...` of a batch; returns the one to go on with once there is room for
    rows, or for flows: the table is to be doubled when it is half full.

    The first arguments are those of Track (handed over one by one: a tuple costs a third of a
    millisecond a call). `heads` are HEADERs, their payloads in `data` or, of packets put together
    from fragments, in `joined`; `subscriber` (int32) and `basis` (uint8) the gate's; `fingerprint`
    (uint64, 0 of a row with a fault or skip) and `side` (bool) are written. With `directed` a flow
    is one direction.

    Touches 214 bytes a packet: 8 % of the memory's bandwidth.
    """
    track = Track(
        slots, queue, names, holdings, pieces, rows, memory, desk[0], cipher[0], plain,
        answers, told,
    )  # fmt: skip
    tallied, counts, now = track.desk.tallied, track.desk.counts, track.desk.now
    wire_bytes = I64(0)
    idle_ns, capacity = track.desk.limits.idle_ns, track.desk.limits.flows
    for i in range(start, min(start + AHEAD, len(time_ns))):
        _hash_row(track, heads[i], directed, fingerprint, side, i)
    room = _has_room(track)
    for i in range(len(time_ns)):  # from 0: then no index can be negative, and none is checked
        if i < start:
            continue
        if i + AHEAD < len(time_ns):
            _hash_row(track, heads[i + AHEAD], directed, fingerprint, side, i + AHEAD)
        if time_ns[i] > counts.watermark_ns:
            counts.watermark_ns = time_ns[i]
        if _is_due(track):
            _give_up_due(track, counts.watermark_ns)
            room = _has_room(track)
        if not room:
            tallied[SUMS, SUM_BYTES] += wire_bytes
            return i
        tallied[SUMS, SUM_PACKETS] += 1
        wire_bytes += I64(wire_length[i])
        head = heads[i]
        if head.fault != 0:
            tallied[ROW_FAULTS, head.fault] += 1
            continue
        if head.skip != 0:
            if head.skip == NAME_ANSWER:
                take_answer(track, head, data, joined, I64(subscriber[i]), time_ns[i])
            tallied[ROW_SKIPS, head.skip] += 1
            continue
        transport = head.transport
        if not directed and is_answer(head):
            take_answer(track, head, data, joined, I64(-1), time_ns[i])
        at = find_flow(slots, fingerprint[i])
        if slots[at].fingerprint == U64(0):
            if counts.flows * 2 >= len(slots) and counts.flows < capacity:
                tallied[SUMS, SUM_PACKETS] -= 1
                tallied[SUMS, SUM_BYTES] += wire_bytes - I64(wire_length[i])
                return i
            at = _new_flow(track, fingerprint[i], transport, subscriber[i], time_ns[i])
        elif is_idle(counts, slots[at], idle_ns) or slots[at].subscriber != subscriber[i]:
            _begin_again(track, slots[at], transport, subscriber[i], time_ns[i])
        flow = slots[at]
        flow.seen_ns = counts.watermark_ns
        ended = I64(flow.bits) & ENDED != 0
        if transport == TCP and head.tcp_flags & FLAGS_TOLD:
            _take_flags(
                track, flow, side[i], head.tcp_flags, I64(head.sequence),
                I64(head.acknowledged), time_ns[i],
            )  # fmt: skip
        bits = I64(flow.bits)
        another = ended and head.payload_length > 0 and _is_another(flow, head, data, joined)
        if head.payload_length == 0:
            tallied[ROW_SKIPS, NO_PAYLOAD] += 1
        elif (
            bits & CLIENT_KNOWN
            and (bits & CLIENT_SIDE != 0) != side[i]
            and not _turns_round(flow, head, data, joined)
        ):
            tallied[ROW_SKIPS, NOT_A_CLIENT] += 1
        elif flow.state == DONE and not another:
            tallied[ROW_SKIPS, FLOW_DONE] += 1
        else:
            if another:
                _begin_again(track, flow, transport, subscriber[i], time_ns[i])
                flow.seen_ns = counts.watermark_ns
            now.time_ns, now.number, now.basis = time_ns[i], first_number + i, I64(basis[i])
            _take_payload(track, flow, head, data, joined, side[i])
            room = _has_room(track)
    tallied[SUMS, SUM_BYTES] += wire_bytes
    return len(time_ns)


@kernel
def forget_flows(
    slots, queue, names, holdings, pieces, rows, memory, desk, cipher, plain,
    answers, told, gone,
):  # fmt: skip
    """Take out every flow of the subscribers whose place in `gone` (uint8) is set.

    Touches 64 bytes a slot: 44 % of the memory's bandwidth.
    """
    track = Track(
        slots, queue, names, holdings, pieces, rows, memory, desk[0], cipher[0], plain,
        answers, told,
    )  # fmt: skip
    wipe_answers(track, gone)
    at = 0
    while at < len(slots):
        who = slots[at].subscriber
        if slots[at].fingerprint != U64(0) and 0 <= who < len(gone) and gone[who]:
            drop_flow(track, at)  # another may move in here
        else:
            at += 1
