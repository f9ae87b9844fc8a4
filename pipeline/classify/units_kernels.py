"""Units of a client's stream, hellos, heads and frames, become rows of a SessionBatch.

`take_unit` reads one unit where one is expected and moves the flow's state on. A body is never
read: its length moves the place of the next unit, and of chunks only the size lines are read. A row
is written when its unit is whole, with time and packet number of its first byte. Of HTTP/2 it holds
the header block as it was sent: the stage opens that, and only then is the session counted.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify import http2_kernels as http2
from pipeline.classify import http_kernels as http
from pipeline.classify import proxy_kernels as proxy
from pipeline.classify import tls_kernels as tls
from pipeline.classify.answers_kernels import NAME_BYTES, find_answer
from pipeline.classify.flows_kernels import KNOWN, NO_ROOM_FOR_IT, give_name
from pipeline.classify.names_kernels import (
    HOST_INVALID,
    HOST_NONE,
    clean_host,
    copy_lower,
    is_outer_name,
    name_hash,
)
from pipeline.classify.repeats_kernels import head_mark, remember_hello
from pipeline.classify.state_kernels import (
    AT_CHUNK,
    AT_FRAME,
    AT_HEAD,
    AT_TRAILER,
    DISPUTED,
    DONE,
    EVENTS,
    HAS_SEQUENCE,
    HELLO_NAMED,
    HELLO_SEEN,
    LOST,
    LOST_CUT,
    LOST_GAP,
    LOST_ROOM,
    MIDSTREAM,
    NEW,
    OTHER,
    REPEATED,
    SUM_HIDDEN,
    SUM_LOST_CUT,
    SUM_LOST_GAP,
    SUM_LOST_ROOM,
    SUM_PACKETS,
    SUM_REPEATS,
    SUM_SESSIONS,
    SUM_WEAK,
    SUMS,
    TUNNEL,
    UPGRADES,
    WEAKLY_NAMED,
)
from pipeline.kernels.bytes import copy_bytes
from pipeline.kernels.compile import primitive, routine
from pipeline.kernels.hashing import siphash128_words
from pipeline.model.faults import Fault, Skip
from pipeline.model.words import Protocol, SessionFlag

U64 = np.uint64
I64 = np.int64
WHOLE, NOT_YET, NEVER = tls.WHOLE, tls.NOT_YET, tls.NEVER
BLOCK_COST = 20  # bytes that a header block of HTTP/2 counts beside its own
BODY_BYTES_MAX = 1 << 30  # a longer one would outrun what sequence numbers tell of before and after
HELLO_BAD, HELLO_TOO_LONG = int(Fault.HELLO_BAD), int(Fault.HELLO_TOO_LONG)
SNI_BAD, HOST_BAD, HEAD_BAD = int(Fault.SNI_BAD), int(Fault.HOST_BAD), int(Fault.HEAD_BAD)
HEAD_TOO_LONG, HEADS_EXHAUSTED = int(Fault.HEAD_TOO_LONG), int(Fault.HEADS_EXHAUSTED)
NAMES_EXHAUSTED = int(Fault.NAMES_EXHAUSTED)
NO_NAME, NOT_A_CLIENT, PASSED = int(Skip.NO_NAME), int(Skip.NOT_A_CLIENT), int(Skip.PASSED)
HTTP, TLS, QUIC = int(Protocol.HTTP), int(Protocol.TLS), int(Protocol.QUIC)
DOCUMENT, REPEAT = int(SessionFlag.DOCUMENT), int(SessionFlag.REPEAT)
UNRELIABLE, FLAG_MIDSTREAM = int(SessionFlag.UNRELIABLE), int(SessionFlag.MIDSTREAM)
HIDDEN, WEAK = int(SessionFlag.HIDDEN), int(SessionFlag.WEAK)


@routine
def note_fault(track, fault):
    """The first fault of a packet is the packet's; further ones are counted as events."""
    now = track.desk.now
    if now.fault == 0:
        now.fault = fault
    else:
        track.desk.tallied[EVENTS, fault] += 1


@routine
def begin_other(flow, lost):
    """From now on any segment of this flow may begin a hello or a head, while tries are left.

    `lost` says that some of what came before was not seen.
    """
    flow.state = OTHER if flow.tries > 0 else DONE
    bits = I64(flow.bits) & ~(HAS_SEQUENCE | DISPUTED)
    flow.bits = bits | MIDSTREAM if lost else bits


@routine
def take_unit(track, flow, data, start, stop):
    """Take the unit that begins `data[start:stop]`: (WHOLE, NOT_YET or NEVER, where the next
    begins).
    """
    if flow.state == AT_CHUNK or flow.state == AT_TRAILER:
        return _take_framing(track, flow, data, start, stop)
    if flow.state == AT_FRAME:
        return _take_frame(track, flow, data, start, stop)
    if data[start] == tls.HANDSHAKE:
        return _take_hello(track, flow, data, start, stop)
    if flow.state == NEW:
        after = proxy.after_proxy(data, start, stop)
        if after == proxy.UNFINISHED:
            return NOT_YET, start
        if after != proxy.NO_PROXY:
            track.desk.now.skip = PASSED
            return WHOLE, after
    if http2.starts_preface(data, start, stop):
        return _take_preface(track, flow, start, stop)
    return _take_head(track, flow, data, start, stop)


@routine
def _take_hello(track, flow, data, start, stop):
    hello, now = track.desk.hello, track.desk.now
    outcome = tls.gather_hello(data, start, stop, track.memory, track.desk.limits.unit_bytes, hello)
    if outcome == tls.NOT_YET:
        return NOT_YET, start
    if outcome == tls.FROM_SERVER:
        now.skip = NOT_A_CLIENT
        return NEVER, start
    if outcome != tls.WHOLE:
        if outcome == tls.TOO_LONG:
            note_fault(track, HELLO_TOO_LONG)
            lose_name(track, flow, LOST_ROOM)
            name_weakly(track, flow, TLS)
        elif outcome != tls.NEVER:
            lack_hello(track, flow, TLS)
        return NEVER, start
    named = I64(flow.bits) & HELLO_NAMED != 0
    again = named and now.sequence == I64(flow.first_sequence)
    flow.first_sequence = now.sequence
    flow.state = HELLO_SEEN
    flow.tries = track.desk.limits.repeats
    remember_hello(flow, track.desk.limits, hello.records_stop - start)
    if hello.in_scratch == 1:
        name_of_hello(track, flow, track.memory, TLS, again)
    else:
        name_of_hello(track, flow, data, TLS, again)
    flow.bits = I64(flow.bits) & ~DISPUTED
    return WHOLE, hello.records_stop


@routine
def name_of_hello(track, flow, data, protocol, again):
    """Write the row of a hello, unless it is `again` the one whose name is known."""
    hello = track.desk.hello
    if tls.read_hello(data, hello.body_at, hello.body_stop, hello) == tls.WHOLE:
        name_row(track, flow, data, protocol, again)
    else:
        lack_hello(track, flow, protocol)


@routine
def lack_hello(track, flow, protocol):
    """A hello contradicts itself."""
    note_fault(track, HELLO_BAD)
    name_weakly(track, flow, protocol)


@routine
def name_row(track, flow, data, protocol, again):
    """Write the row of a hello that was read, under its server name.

    An address is no server name (RFC 6066, 3), and still what some clients send: it is told as it
    stands, and is nobody's host.
    """
    hello = track.desk.hello
    kind, start, stop = clean_host(data, hello.name_at, hello.name_stop)
    if kind == HOST_NONE:
        track.desk.now.skip = NO_NAME
        name_weakly(track, flow, protocol)
    elif kind == HOST_INVALID:
        note_fault(track, SNI_BAD)
        name_weakly(track, flow, protocol)
    elif _begin_row(track, flow, data, start, stop, protocol, 0, again):
        counts = track.desk.counts
        hidden = I64(track.rows[counts.rows].marks) & HIDDEN
        counts.alpn = tls.copy_alpn(data, hello.alpn_at, hello.alpn_stop, track.memory, counts.alpn)
        _end_row(track, 0)
        if hidden:
            _tell_answer(track, flow, protocol)


@primitive
def lose_name(track, flow, why):
    """Count a flow whose name was lost, to a gap, to what the capture cut off, or for want of room,
    until it has one after all; once, and for the first reason.
    """
    if flow.names == 0 and I64(flow.bits) & (LOST | REPEATED) == 0:
        flow.bits = I64(flow.bits) | why
        _count_lost(track, why, 1)


@primitive
def _count_lost(track, bits, number):
    tallied = track.desk.tallied
    tallied[SUMS, SUM_LOST_GAP] += number if bits & LOST_GAP else 0
    tallied[SUMS, SUM_LOST_CUT] += number if bits & LOST_CUT else 0
    tallied[SUMS, SUM_LOST_ROOM] += number if bits & LOST_ROOM else 0


@primitive
def _find_name(track, flow):
    """It has one after all."""
    bits = I64(flow.bits)
    _count_lost(track, bits, -1)
    flow.bits = bits & ~LOST


@routine
def name_weakly(track, flow, protocol):
    """Write a row under a weak name, where the flow has none of its own."""
    if flow.names == 0:
        _tell_answer(track, flow, protocol)


@routine
def _tell_answer(track, flow, protocol):
    """Write a row under the name by which the client last learned of the server's address, if it
    did; in a tunnel that address is only the proxy's.
    """
    now = track.desk.now
    if I64(flow.bits) & TUNNEL:
        return
    at = find_answer(
        track.answers, track.desk.limits, flow.subscriber,
        now.client_hi, now.client_lo, now.server_hi, now.server_lo, now.time_ns,
    )  # fmt: skip
    if at >= 0:
        start = at * NAME_BYTES
        stop = start + I64(track.answers[at].length)
        if _begin_row(track, flow, track.told, start, stop, protocol, WEAK, False):
            _end_row(track, 0)


@routine
def _take_head(track, flow, data, start, stop):
    head, now = track.desk.head, track.desk.now
    outcome = http.read_head(data, start, stop, head)
    if outcome == NEVER and flow.state == AT_HEAD and I64(flow.bits) & UPGRADES:
        return _end_upgraded(track, flow, start)
    if outcome != WHOLE:
        return outcome, start
    _name_of_head(track, flow, data)
    after = head.stop
    flow.first_sequence = now.sequence
    flow.mark = head_mark(track.desk.limits, data, start, head.stop)
    flow.state = AT_HEAD
    bits = I64(flow.bits) & ~(UPGRADES | REPEATED | DISPUTED)
    flow.bits = bits | (UPGRADES if head.upgrades == 1 else 0)
    flow.tries = track.desk.limits.tries
    if head.method == http.IS_CONNECT:
        flow.state = NEW  # what is inside the tunnel begins anew
        flow.bits = I64(flow.bits) | TUNNEL
    elif head.chunked == 1:
        flow.state = AT_CHUNK
    elif head.body_length == http.BAD_LENGTH or head.body_length > BODY_BYTES_MAX:
        note_fault(track, HEAD_BAD)
        flow.state = DONE
    elif head.body_length > 0:
        after += head.body_length
    return WHOLE, after


@routine
def _name_of_head(track, flow, data):
    """Write the row of the head just read, under its host (see `choose_host`)."""
    head = track.desk.head
    kind, start, stop, differ = http.choose_host(data, head)
    flags = DOCUMENT if head.document == 1 else 0
    if differ:
        flags |= UNRELIABLE
    if kind == HOST_NONE:
        track.desk.now.skip = NO_NAME
        name_weakly(track, flow, HTTP)
    elif kind == HOST_INVALID:
        note_fault(track, HOST_BAD)
        name_weakly(track, flow, HTTP)
    elif _begin_row(track, flow, data, start, stop, HTTP, flags, False):
        counts = track.desk.counts
        start, stop = head.target_at, head.target_stop
        copy_bytes(data, start, stop, track.memory, counts.target)
        counts.target += stop - start
        start, stop = head.referer_at, head.referer_stop
        copy_bytes(data, start, stop, track.memory, counts.referer)
        counts.referer += stop - start
        _end_row(track, head.method)


@routine
def _end_upgraded(track, flow, start):
    """It speaks what its last request asked to go on with: nothing more is to come."""
    track.desk.now.skip = PASSED
    flow.state = DONE
    return WHOLE, start


@routine
def _take_preface(track, flow, start, stop):
    """The preface of HTTP/2. Behind a request it can only be what that asked to go on with, and the
    request was the first.
    """
    if stop - start < len(http2.PREFACE):
        return NOT_YET, start
    if flow.state == AT_HEAD:
        return _end_upgraded(track, flow, start)
    track.desk.now.skip = PASSED
    flow.state = AT_FRAME
    return WHOLE, start + len(http2.PREFACE)


@routine
def _take_frame(track, flow, data, start, stop):
    """A frame of HTTP/2, of which the first with a request is the last that is looked at."""
    head = track.desk.head
    outcome = http2.read_frame(data, start, stop, track.desk.limits.unit_bytes, head)
    if outcome == NOT_YET:
        return NOT_YET, start
    if outcome != WHOLE:
        if outcome == tls.TOO_LONG:
            note_fault(track, HEAD_TOO_LONG)
            lose_name(track, flow, LOST_ROOM)
        else:
            note_fault(track, HEAD_BAD)
        flow.state = DONE
        return WHOLE, start
    if head.body_length == http2.NO_BLOCK:
        track.desk.now.skip = PASSED
    elif head.body_length == 0:
        note_fault(track, HEAD_BAD)
        flow.state = DONE
    else:
        if _may_open(track, head.body_length):
            _write_block(track, flow, data, start)
        else:
            note_fault(track, HEADS_EXHAUSTED)
            lose_name(track, flow, LOST_ROOM)
        flow.state = DONE
    return WHOLE, head.stop


@routine
def _may_open(track, size):
    """May so many bytes of a header block be opened? It takes a microsecond each and some twenty
    for the block, so a byte is paid for by each packet that went through, and some are there to
    begin with.
    """
    counts = track.desk.counts
    packets = counts.packets + track.desk.tallied[SUMS, SUM_PACKETS]
    due = max(counts.block_due, packets) + size + BLOCK_COST
    if due - packets > track.desk.limits.block_bytes:
        return False
    counts.block_due = due
    return True


@routine
def _write_block(track, flow, data, start):
    """Write the row of the header block that was found, whatever it may say.

    Here it is not known what host it names, so neither is it given to the flow.
    """
    counts, marks = track.desk.counts, track.desk.now.marks
    if I64(flow.bits) & MIDSTREAM:
        marks |= FLAG_MIDSTREAM
    if I64(flow.bits) & DISPUTED:
        marks |= UNRELIABLE
    _find_name(track, flow)
    row = track.rows[counts.rows]
    _fill_row(track, flow, row, HTTP, marks)
    row.packed = 1
    row.first_name = flow.name & U64(0xFFFFFFFF)
    counts.packed += 1
    counts.target = http2.copy_block(data, start, track.desk.head, track.memory, counts.target)
    _close_row(counts, row, 0)


@routine
def _take_framing(track, flow, data, start, stop):
    """A chunk's size line, or a line after the last chunk."""
    head = track.desk.head
    if flow.state == AT_CHUNK:
        outcome = http.read_chunk_line(data, start, stop, head)
        if outcome == tls.BAD:
            note_fault(track, HEAD_BAD)
            return NEVER, start
    else:
        outcome = http.read_trailer_line(data, start, stop, head)
    if outcome == NOT_YET:
        return NOT_YET, start
    track.desk.now.skip = PASSED
    if flow.state == AT_CHUNK and head.body_length > 0:
        return WHOLE, head.stop + head.body_length + 2
    if flow.state == AT_CHUNK:
        flow.state = AT_TRAILER
    elif head.body_length == 0:
        flow.state = AT_HEAD
    return WHOLE, head.stop


@routine
def _begin_row(track, flow, data, start, stop, protocol, flags, again):
    """Write all of a row but method and further texts; False where a hello was only sent again."""
    limits, now, counts = track.desk.limits, track.desk.now, track.desk.counts
    seen = False
    if flags & WEAK == 0:
        name = name_hash(limits.key0, limits.key1, protocol, data, start, stop)
        known = give_name(track.names, counts, flow, name)
        seen = known == KNOWN
        if known == NO_ROOM_FOR_IT:
            track.desk.tallied[EVENTS, NAMES_EXHAUSTED] += 1
    elif I64(flow.bits) & WEAKLY_NAMED:  # a weak name is none that the flow gave
        return False
    else:
        flow.bits = I64(flow.bits) | WEAKLY_NAMED
    if again and seen:
        now.skip = PASSED
        return False
    flags |= now.marks
    doubts = DISPUTED if protocol == HTTP else DISPUTED | HELLO_NAMED
    if seen:
        flags |= REPEAT
    elif flags & WEAK == 0 and I64(flow.bits) & doubts:
        flags |= UNRELIABLE  # two names of one flow
    if I64(flow.bits) & MIDSTREAM:
        flags |= FLAG_MIDSTREAM
    if flags & WEAK == 0:
        _find_name(track, flow)
        if protocol != HTTP:
            flow.bits = I64(flow.bits) | HELLO_NAMED
    copy_lower(data, start, stop, track.memory, counts.host)
    host_stop = counts.host + stop - start
    own = protocol != HTTP and flags & WEAK == 0
    if own and is_outer_name(track.memory, counts.host, host_stop):
        flags |= HIDDEN
        track.desk.tallied[SUMS, SUM_HIDDEN] += 0 if seen else 1
    _fill_row(track, flow, track.rows[counts.rows], protocol, flags)
    counts.host = host_stop
    return True


@routine
def _fill_row(track, flow, row, protocol, flags):
    """Write what a row says of its flow and its packet, which it names."""
    limits, now = track.desk.limits, track.desk.now
    row.first_ns = now.time_ns
    row.watermark_ns = now.watermark_ns
    row.packet_number = now.number
    row.client_hi, row.client_lo = now.client_hi, now.client_lo
    row.server_hi, row.server_lo = now.server_hi, now.server_lo
    row.client_port, row.server_port = now.client_port, now.server_port
    row.subscriber = flow.subscriber
    row.basis = now.basis
    row.realm = now.realm
    row.source = now.source
    row.protocol = protocol
    row.marks = flags
    row.packed = 0
    hashed = track.desk.hashed
    hashed[0, 0], hashed[0, 1] = now.client_hi, now.client_lo
    hashed[0, 2], hashed[0, 3] = now.server_hi, now.server_lo
    hashed[0, 4] = U64((now.client_port << 24) | (now.server_port << 8) | I64(flow.transport))
    hashed[0, 5] = U64(flow.first_ns)
    siphash128_words(limits.key0, limits.key1, hashed, track.desk.digested)
    row.flow_hi, row.flow_lo = track.desk.digested[0, 0], track.desk.digested[0, 1]
    now.named += 1


@routine
def _end_row(track, method):
    counts = track.desk.counts
    row = track.rows[counts.rows]
    _close_row(counts, row, method)
    if I64(row.marks) & REPEAT:
        track.desk.tallied[SUMS, SUM_REPEATS] += 1
    elif I64(row.marks) & WEAK:
        track.desk.tallied[SUMS, SUM_WEAK] += 1
    else:
        track.desk.tallied[SUMS, SUM_SESSIONS + row.protocol] += 1


@primitive
def _close_row(counts, row, method):
    row.method = method
    row.host_stop, row.target_stop = counts.host, counts.target
    row.referer_stop, row.alpn_stop = counts.referer, counts.alpn
    counts.rows += 1
