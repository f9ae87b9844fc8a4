"""TCP segments of the client's direction, put in order until the unit they carry is whole.

Most units come whole in one segment and are read where they lie. Otherwise what is there is held,
from the unit's first byte on, until the gaps close: segments may come in any order, twice, or
overlap. What is held is bounded in bytes (the window), in pieces and in time; when a bound is met
the missing bytes are taken for lost, and what was held behind the gap is looked through for units
that begin where a run of bytes begins. After that any segment may begin one (RFC 9293, 3.4 for the
numbers).
"""

from __future__ import annotations

import numpy as np

from pipeline.classify import tls_kernels as tls
from pipeline.classify.beginnings_kernels import hello_behind, is_from_server, starts_unit
from pipeline.classify.held_kernels import (
    NO_ROOM,
    NOTHING_NEW,
    STORED,
    drop_front,
    hold,
    join_pieces,
    release_holding,
    renew_holding,
    sequence_difference,
    take_holding,
    whole_from,
)
from pipeline.classify.layers_kernels import UDP
from pipeline.classify.repeats_kernels import (
    HELLO_BYTES_MAX,
    head_mark,
    hello_bytes,
    is_same_piece,
    remember_front,
    remember_tail,
)
from pipeline.classify.state_kernels import (
    AT_CHUNK,
    AT_FRAME,
    AT_HEAD,
    AT_TRAILER,
    DISPUTED,
    DONE,
    EVENTS,
    HAS_SEQUENCE,
    HELLO_SEEN,
    LOST,
    LOST_CUT,
    LOST_GAP,
    LOST_ROOM,
    NEW,
    OTHER,
    REPEATED,
    ROW_SKIPS,
    SUM_GIVEN_UP,
    SUM_NAMED,
    SUMS,
    window_start,
)
from pipeline.classify.units_kernels import (
    NEVER,
    NOT_A_CLIENT,
    NOT_YET,
    PASSED,
    QUIC,
    TLS,
    UNRELIABLE,
    WHOLE,
    begin_other,
    lose_name,
    name_weakly,
    note_fault,
    take_unit,
)
from pipeline.kernels.compile import primitive, routine
from pipeline.model.faults import Fault, Skip

I64 = np.int64
HELLO_TOO_LONG, HELLO_INCOMPLETE = int(Fault.HELLO_TOO_LONG), int(Fault.HELLO_INCOMPLETE)
HEAD_TOO_LONG, HEAD_INCOMPLETE = int(Fault.HEAD_TOO_LONG), int(Fault.HEAD_INCOMPLETE)
SEGMENTS_EXHAUSTED, PAYLOAD_CUT = int(Fault.SEGMENTS_EXHAUSTED), int(Fault.PAYLOAD_CUT)
OVERLAP_DISAGREES, STREAM_GAP = int(Fault.OVERLAP_DISAGREES), int(Fault.STREAM_GAP)
HELD, FLOW_DONE, OTHER_PROTOCOL = int(Skip.HELD), int(Skip.FLOW_DONE), int(Skip.OTHER_PROTOCOL)
SEQUENCE_MASK = 0xFFFFFFFF


@routine
def release(track, flow):
    """Give back what a flow holds, if anything; its packets led to a name, or to nothing."""
    h = I64(flow.held) - 1
    if h < 0:
        return
    flow.held = 0
    flow.bits = I64(flow.bits) & ~REPEATED
    named = track.holdings[h].named
    track.desk.tallied[EVENTS, OVERLAP_DISAGREES] += I64(track.holdings[h].disagrees)
    rows = release_holding(track.holdings, track.pieces, track.memory, track.desk, h)
    if named:
        track.desk.tallied[SUMS, SUM_NAMED] += rows
    else:
        track.desk.tallied[ROW_SKIPS, HELD] += rows


@routine
def take_segment(track, flow, data, place, captured, length, sequence):
    """Take `data[place : place + captured]`, `length` bytes by the IP header, of a flow's client.

    `track.now` says whose; there it is written what became of the packet: `named`, else `fault`,
    else `skip`, which is HELD for one that is held.
    """
    now = track.desk.now
    while True:
        if flow.state == DONE:  # by what was held
            now.skip = FLOW_DONE
            return
        if I64(flow.bits) & REPEATED and _is_by_itself(
            track, flow, data, place, place + captured, sequence
        ):
            _go_back(track, flow)
        if flow.state == HELLO_SEEN:
            before = _take_repeat(track, flow, data, place, place + captured, sequence)
            if before < 0:
                return
            place, captured = place + before, captured - before
            length, sequence = length - before, (sequence + before) & SEQUENCE_MASK
        elif flow.state == OTHER or I64(flow.bits) & HAS_SEQUENCE == 0:
            if not _begin_anywhere(track, flow, data, place, place + captured, sequence):
                return
        elif _is_disputed(track, flow, data, place, place + captured, sequence):
            release(track, flow)
            flow.state = NEW
            flow.next_sequence = sequence
            flow.bits = I64(flow.bits) | DISPUTED
        ahead = sequence_difference(sequence, I64(flow.next_sequence))
        if ahead + length <= 0:
            now.skip = PASSED
            return
        if ahead < track.desk.limits.unit_bytes:
            break
        if flow.held > 0:  # then it is judged again, by what that leaves
            give_up_holding(track, flow)
        else:
            track.desk.tallied[EVENTS, STREAM_GAP] += 1
            lose_name(track, flow, LOST_GAP)
            begin_other(flow, True)
    if ahead > 0 or flow.held > 0:
        _take_held(track, flow, data, place, captured, length, ahead)
    else:
        _take_in_order(track, flow, data, place - ahead, place, captured, length, sequence)


@routine
def _begin_anywhere(track, flow, data, start, stop, sequence):
    """In a flow without a known place: does this segment begin a unit? Else it counts as a try."""
    if flow.state == NEW:  # the first that is seen of it
        begin_other(flow, True)
    if flow.state == OTHER and starts_unit(data, start, stop):
        flow.state = NEW
        flow.next_sequence = flow.first_sequence = sequence
        flow.bits = I64(flow.bits) | HAS_SEQUENCE
        return True
    from_server = is_from_server(data, start, stop)
    track.desk.now.skip = NOT_A_CLIENT if from_server else OTHER_PROTOCOL
    lose_try(track, flow)
    return False


@routine
def lose_try(track, flow):
    """One segment or datagram less in which something may begin; with the last the flow is done."""
    flow.tries = max(I64(flow.tries) - 1, 0)
    if flow.tries == 0:
        if flow.names == 0 and flow.state != HELLO_SEEN and I64(flow.bits) & LOST == 0:
            track.desk.tallied[SUMS, SUM_GIVEN_UP] += 1
        flow.state = DONE


@primitive
def _is_disputed(track, flow, data, start, stop, sequence):
    """Does another head, or a hello, begin in the place of the last head that was read?"""
    if sequence != I64(flow.first_sequence) or flow.mark == 0:
        return False
    if flow.state != AT_HEAD and flow.state != AT_CHUNK and flow.state != AT_TRAILER:
        return False
    mark = head_mark(track.desk.limits, data, start, stop)
    return mark != 0 and mark != I64(flow.mark) and starts_unit(data, start, stop)


@routine
def _take_repeat(track, flow, data, start, stop, sequence):
    """After a hello: another one (after a retry request, or in its place), the same again, or
    nothing more to see. How many bytes come before what is to be read, or -1.
    """
    offset = sequence_difference(sequence, I64(flow.first_sequence))
    before = max(-offset, I64(0))
    if 0 < hello_bytes(flow) and offset < hello_bytes(flow) and before < stop - start:
        return _take_its_place(track, flow, data, start + before, stop, offset + before, before)
    before = hello_behind(data, start, stop)
    if before < 0:
        track.desk.now.skip = FLOW_DONE
        lose_try(track, flow)
        return I64(-1)
    flow.state = NEW
    flow.bits = I64(flow.bits) | HAS_SEQUENCE
    flow.next_sequence = (sequence + before) & SEQUENCE_MASK
    return before


@routine
def _take_its_place(track, flow, data, start, stop, offset, before):
    """What a segment has in the place of the hello that was read, behind `before` other bytes: that
    many if it is to be read, else -1.

    One that is whole is read once more. Another piece is held, unless it brought that hello: what
    else belongs to it may come later, and the one that was read may have been sent to mislead.
    """
    limits, hello = track.desk.limits, track.desk.hello
    remembered = flow.next_sequence
    whole = offset == 0 and (
        tls.gather_hello(data, start, stop, track.memory, limits.unit_bytes, hello) == tls.WHOLE
    )
    if not whole and is_same_piece(flow, limits, data, start, stop, offset):
        track.desk.now.skip = PASSED
        return I64(-1)
    flow.next_sequence = flow.first_sequence
    if not whole:
        if not begin_holding(track, flow):
            flow.next_sequence = remembered
            return I64(-1)
        track.holdings[I64(flow.held) - 1].remembered = remembered
        flow.bits = I64(flow.bits) | REPEATED | (DISPUTED if flow.names > 0 else 0)
    flow.state = NEW
    flow.bits = I64(flow.bits) | HAS_SEQUENCE
    return before


@routine
def _is_by_itself(track, flow, data, start, stop, sequence):
    """Is it a hello of its own, whole in the place of the one that was read, or behind that, while
    something else is held there?
    """
    limits, hello = track.desk.limits, track.desk.hello
    offset = sequence_difference(sequence, I64(flow.first_sequence))
    length = I64(track.holdings[I64(flow.held) - 1].remembered) & HELLO_BYTES_MAX
    if offset >= length:
        return hello_behind(data, start, stop) >= 0
    return offset == 0 and (
        tls.gather_hello(data, start, stop, track.memory, limits.unit_bytes, hello) == tls.WHOLE
    )


@routine
def _go_back(track, flow):
    """What stood in the place of a hello came to nothing: all is as it was after that."""
    remembered = track.holdings[I64(flow.held) - 1].remembered
    release(track, flow)
    flow.state = HELLO_SEEN
    flow.next_sequence = remembered
    flow.bits = I64(flow.bits) & ~DISPUTED


@routine
def _after_never(track, flow):
    """What was to be a unit is none: forget the place, and whatever is held."""
    if track.desk.now.skip == 0:
        track.desk.now.skip = OTHER_PROTOCOL
    if I64(flow.bits) & REPEATED:
        _go_back(track, flow)
        return
    release(track, flow)
    begin_other(flow, False)
    lose_try(track, flow)


@primitive
def _is_hello(flow, first_byte):
    """Is what begins with this byte, where the flow is now, a hello? Else it is part of a head."""
    if flow.state == AT_CHUNK or flow.state == AT_TRAILER or flow.state == AT_FRAME:
        return False
    return first_byte == tls.HANDSHAKE


@routine
def _too_long(track, flow, first_byte):
    """A unit that does not fit the window is given up."""
    hello = _is_hello(flow, first_byte)
    note_fault(track, HELLO_TOO_LONG if hello else HEAD_TOO_LONG)
    if I64(flow.bits) & REPEATED:
        _go_back(track, flow)
        return
    lose_name(track, flow, LOST_ROOM)
    if hello:
        name_weakly(track, flow, TLS)
    release(track, flow)
    begin_other(flow, True)


@routine
def _cut_off(track, flow, first_byte):
    """The capture kept only a part of what is a unit, or not even its first byte (0)."""
    note_fault(track, PAYLOAD_CUT)
    lose_name(track, flow, LOST_CUT)
    if _is_hello(flow, first_byte):
        name_weakly(track, flow, TLS)
    begin_other(flow, True)


@routine
def _take_in_order(track, flow, data, start, place, captured, length, sequence):
    """The next bytes in order, nothing held: read units where they lie, hold what is left."""
    now = track.desk.now
    stop = place + captured
    while True:
        now.sequence = (sequence + start - place) & SEQUENCE_MASK
        if start >= place + length:
            flow.next_sequence = now.sequence
            if now.skip == 0:
                now.skip = PASSED
            return
        if start >= stop:
            _cut_off(track, flow, 0)
            return
        outcome, after = take_unit(track, flow, data, start, stop)
        if outcome == NEVER:
            _after_never(track, flow)
            return
        if outcome == NOT_YET:
            break
        start = after
        if flow.state == HELLO_SEEN or flow.state == DONE:
            return
    flow.next_sequence = now.sequence
    if captured < length:
        _cut_off(track, flow, data[start])
    elif stop - start >= track.desk.limits.unit_bytes:
        _too_long(track, flow, data[start])
    elif begin_holding(track, flow):
        store(track, flow, data, start, stop - start, I64(0))
        count_held(track, flow)
    else:
        begin_other(flow, True)


@routine
def begin_holding(track, flow):
    """A holding for a flow, from its next sequence number on; False where all are taken."""
    now, counts = track.desk.now, track.desk.counts
    deadline_ns = counts.watermark_ns + track.desk.limits.hold_ns
    h = take_holding(track.holdings, counts, flow.fingerprint, I64(flow.next_sequence), deadline_ns)
    if h < 0:
        note_fault(track, SEGMENTS_EXHAUSTED)
        lose_name(track, flow, LOST_ROOM)
        return False
    flow.held = h + 1
    holding = track.holdings[h]
    holding.client_hi, holding.client_lo = now.client_hi, now.client_lo
    holding.server_hi, holding.server_lo = now.server_hi, now.server_lo
    holding.client_port, holding.server_port = now.client_port, now.server_port
    holding.basis, holding.realm = now.basis, now.realm
    return True


@routine
def store(track, flow, data, place, captured, position):
    """Put bytes into the window of a flow that has one; what `hold` says.

    Where no piece is left those that touch are joined: a hello may come in a hundred segments. Of a
    second unit that begins in joined ones then only the packet of the first is known.
    """
    now, limits = track.desk.now, track.desk.limits
    h = I64(flow.held) - 1
    holding, first, joined = track.holdings[h], h * limits.pieces, False
    while True:
        stored = hold(
            holding, track.pieces, first, track.memory, window_start(limits, h), limits,
            data, place, captured, position, now.time_ns, now.number,
        )  # fmt: skip
        if stored != NO_ROOM:
            return STORED if joined else stored
        pieces = I64(holding.pieces)
        join_pieces(holding, track.pieces, first)
        if holding.pieces == pieces:
            return stored
        joined = True


@routine
def count_held(track, flow):
    """Count the packet as held, unless it already led to something."""
    now = track.desk.now
    if now.named == 0 and now.fault == 0:
        now.skip = HELD
        track.holdings[I64(flow.held) - 1].rows += 1
        track.desk.counts.held_rows += 1


@routine
def _take_held(track, flow, data, place, captured, length, ahead):
    """Bytes ahead of a gap, or of a flow that holds some, whose window begins at its place.

    What the capture cut off is a gap that nobody will close, unless it is sent again.
    """
    now = track.desk.now
    if captured < length:
        lose_name(track, flow, LOST_CUT)
        if captured == 0:
            note_fault(track, PAYLOAD_CUT)
            return
    if flow.held == 0 and not begin_holding(track, flow):
        begin_other(flow, True)
        return
    held = I64(flow.held)
    stored = store(track, flow, data, place, captured, ahead)
    if stored == NOTHING_NEW:
        now.skip = PASSED
    elif stored == NO_ROOM:
        note_fault(track, SEGMENTS_EXHAUSTED)
        lose_name(track, flow, LOST_ROOM)
        _salvage(track, flow, held - 1)
    else:
        _drain(track, flow, held - 1)
        if I64(flow.held) == held:
            count_held(track, flow)
        elif now.skip == 0:
            now.skip = PASSED


@routine
def _take_held_unit(track, flow, h, start, stop):
    """Take a unit out of a window, in the name of the packet that brought its first byte."""
    now, limits, holding = track.desk.now, track.desk.limits, track.holdings[h]
    own_ns, own_number, named = now.time_ns, now.number, now.named
    first, window = h * limits.pieces, window_start(limits, h)
    for k in range(first, first + I64(holding.pieces)):
        if track.pieces[k].start <= start < track.pieces[k].stop:
            now.time_ns, now.number = track.pieces[k].time_ns, track.pieces[k].number
    now.sequence = (I64(holding.origin) + start) & SEQUENCE_MASK
    now.marks = UNRELIABLE if holding.disagrees == 1 else 0
    outcome, after = take_unit(track, flow, track.memory, window + start, window + stop)
    now.marks = 0
    now.time_ns, now.number = own_ns, own_number
    if now.named > named:
        holding.named = 1
    after -= window
    if flow.state == HELLO_SEEN:
        for k in range(first, first + I64(holding.pieces)):
            begins, ends = track.pieces[k].start, track.pieces[k].stop
            if begins <= start < ends < after:
                remember_front(flow, limits, track.memory, window + start, window + ends)
            if start < begins < after <= ends:
                remember_tail(flow, limits, track.memory, window + begins, window + after)
    return outcome, after


@routine
def _drain(track, flow, h):
    """Take what units became whole at the front of a window.

    They leave it all at once: to move what is left for each would take the square of their number,
    and a window has room for eight hundred.
    """
    counts, limits, holding = track.desk.counts, track.desk.limits, track.holdings[h]
    first, window = h * limits.pieces, window_start(limits, h)
    start = I64(0)
    while True:
        stop = whole_from(track.pieces, first, I64(holding.pieces), start)
        if stop == start:
            break
        outcome, after = _take_held_unit(track, flow, h, start, stop)
        if outcome == NEVER:
            _after_never(track, flow)
            return
        if outcome == NOT_YET:
            if stop - start >= limits.unit_bytes:
                _too_long(track, flow, track.memory[window + start])
                return
            break
        if flow.state != NEW:
            flow.bits = I64(flow.bits) & ~REPEATED
        if flow.state == HELLO_SEEN or flow.state == DONE:
            release(track, flow)
            return
        start = after
    if start == 0:
        return
    empty = drop_front(holding, track.pieces, first, track.memory, window, start)
    flow.next_sequence = holding.origin
    if empty:
        release(track, flow)
        return
    renew_holding(track.holdings, counts, h, counts.watermark_ns + limits.hold_ns)


@routine
def _salvage(track, flow, h):
    """The gap will not close: take the units that begin runs behind it, and release the holding."""
    if I64(flow.bits) & REPEATED:
        _go_back(track, flow)
        return
    holding, pieces = track.holdings[h], track.pieces
    window = window_start(track.desk.limits, h)
    begin_other(flow, True)
    k = h * track.desk.limits.pieces
    last = k + I64(holding.pieces)
    after = I64(0)  # where the next unit begins, if that is `known`
    stop = I64(0)
    known = False
    while k < last and flow.state != HELLO_SEEN and flow.state != DONE:
        start, stop = pieces[k].start, pieces[k].stop
        k += 1
        while k < last and pieces[k].start == stop:
            stop = pieces[k].stop
            k += 1
        if start == 0:
            continue  # it was tried, and it is not whole
        known = known and start <= after
        start = after if known else start
        while start < stop and flow.state != HELLO_SEEN and flow.state != DONE:
            if not known:
                if not starts_unit(track.memory, window + start, window + stop):
                    break
                flow.state = NEW
            outcome, start = _take_held_unit(track, flow, h, start, stop)
            known = outcome == WHOLE
            after = start
            if not known:
                break
    if flow.state != HELLO_SEEN and flow.state != DONE:
        if known and after >= stop:
            flow.next_sequence = (I64(holding.origin) + after) & SEQUENCE_MASK
            flow.bits = I64(flow.bits) | HAS_SEQUENCE
        else:
            begin_other(flow, True)
    release(track, flow)


@routine
def give_up_holding(track, flow):
    """The time of a flow's holding is up, or its gap too wide: count what was not whole, and
    salvage.
    """
    h = I64(flow.held) - 1
    if flow.transport == UDP:
        track.desk.tallied[EVENTS, HELLO_INCOMPLETE] += 1
        lose_name(track, flow, LOST_GAP)
        _name_held(track, flow, h, QUIC)
        release(track, flow)
        return
    if I64(flow.bits) & REPEATED:
        _go_back(track, flow)
        return
    fault = STREAM_GAP
    limits = track.desk.limits
    if track.pieces[h * limits.pieces].start == 0:
        hello = _is_hello(flow, track.memory[window_start(limits, h)])
        fault = HELLO_INCOMPLETE if hello else HEAD_INCOMPLETE
    track.desk.tallied[EVENTS, fault] += 1
    lose_name(track, flow, LOST_GAP)
    if fault == HELLO_INCOMPLETE:
        _name_held(track, flow, h, TLS)
    _salvage(track, flow, h)


@routine
def _name_held(track, flow, h, protocol):
    """Name a hello that never came whole weakly, in the name of its first packet."""
    now, first = track.desk.now, track.pieces[h * track.desk.limits.pieces]
    own_ns, own_number = now.time_ns, now.number
    now.time_ns, now.number = first.time_ns, first.number
    name_weakly(track, flow, protocol)
    now.time_ns, now.number = own_ns, own_number


@routine
def expire_oldest(track, flow):
    """Give up the holding at the head of the queue, which is that of `flow`."""
    now, counts = track.desk.now, track.desk.counts
    holding = track.holdings[counts.oldest - 1]
    now.watermark_ns = min(holding.deadline_ns, counts.watermark_ns)
    now.client_hi, now.client_lo = holding.client_hi, holding.client_lo
    now.server_hi, now.server_lo = holding.server_hi, holding.server_lo
    now.client_port, now.server_port = I64(holding.client_port), I64(holding.server_port)
    now.basis, now.realm = I64(holding.basis), I64(holding.realm)
    now.fault = now.skip = now.named = now.marks = 0
    give_up_holding(track, flow)
    if now.fault != 0:
        track.desk.tallied[EVENTS, now.fault] += 1
