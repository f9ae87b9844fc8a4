"""Datagrams of a UDP flow: QUIC's client hello, from Initials in any order, to a session.

The keys come from the first destination connection id that the client used (RFC 9001, 5.2), and
stay when it takes another after the server's answer; after a Retry (RFC 9000, 17.2.5) it begins
again with keys of a new one. So an Initial is tried with the keys that opened what is held, if
anything is, and then with those of its own id; where the latter open it, what was held is given up.
An Initial that none opens is the server's, or of a connection whose first was not seen, or made up:
QUIC_SEALED.

A hello that is whole in one frame is read where it lies. Otherwise its bytes are held by their
offset, as segments of TCP are: the first of two that overlap wins, a difference makes the name
unreliable, and bytes, pieces, holdings and time are bounded. Pieces that touch are joined, so that
a hello cut into a hundred frames needs few.

Each Initial that is opened, or tried to, is a try of its flow; a flow without tries is done. After
a hello another connection may begin on the same ports: one that was begun to mislead is followed at
once by the true one. So a few datagrams more are looked at (`repeats`), and an Initial of another
connection id, long enough for a hello, that its own keys open begins anew; those of the hello's own
id are passed over unopened, however many. A second name then makes the flow unreliable. Most
datagrams of a flow come after that, unread. What an Initial costs stands in
`pipeline/kernels/sealing.py`.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify import gquic_kernels as gquic
from pipeline.classify import quic_kernels as quic
from pipeline.classify import tls_kernels as tls
from pipeline.classify.held_kernels import NO_ROOM, NOTHING_NEW, join_pieces, whole_until
from pipeline.classify.segments_kernels import (
    FLOW_DONE,
    HELLO_INCOMPLETE,
    HELLO_TOO_LONG,
    PAYLOAD_CUT,
    SEGMENTS_EXHAUSTED,
    begin_holding,
    count_held,
    lose_try,
    release,
    store,
)
from pipeline.classify.state_kernels import (
    CLIENT_KNOWN,
    CLIENT_SIDE,
    DONE,
    EVENTS,
    HELLO_SEEN,
    LOST,
    LOST_CUT,
    LOST_ROOM,
    NEW,
    SEAL_ID,
    SEAL_LENGTH,
    SEAL_SALT,
    SUM_GIVEN_UP,
    SUMS,
    seal_start,
    window_start,
)
from pipeline.classify.units_kernels import (
    PASSED,
    QUIC,
    UNRELIABLE,
    lack_hello,
    lose_name,
    name_of_hello,
    name_row,
    name_weakly,
    note_fault,
)
from pipeline.kernels.bytes import be24, copy_bytes
from pipeline.kernels.compile import primitive, routine
from pipeline.kernels.sealing import KEYS_BYTES, Q050, derive_keys
from pipeline.model.faults import Fault, Skip

I64 = np.int64
QUIC_BAD, QUIC_SEALED = int(Fault.QUIC_BAD), int(Fault.QUIC_SEALED)
QUIC_UNREAD, UDP_SKIP = int(Skip.QUIC_UNREAD), int(Skip.UDP)
SEALED = -1
OPENED, KEPT = 1, 2  # what `kept` says of a datagram
LARGEST_MAX = 0xFFFFFFFE
ANOTHER_BYTES_MIN = 200  # a shorter Initial acknowledges, and has no hello in it
MARK_PRIME, MARK_MASK = 0x01000193, 0xFFFFFFFF


@routine
def take_datagram(track, flow, data, place, captured, length, side):
    """Take `data[place : place + captured]`, `length` bytes by the UDP header, of a flow.

    What became of it is written to `track.desk.now`, as for a segment.
    """
    now = track.desk.now
    now.kept = 0
    stop = place + captured
    if flow.state == HELLO_SEEN and not _begins_another(track, flow, data, place, stop):
        now.skip = FLOW_DONE
        return
    if captured < 14:  # too short for any of them
        now.skip = UDP_SKIP
        return
    if data[place] & 0x80 == 0 or data[place + 1] == 0x51:
        at = gquic.after_header(data, place, stop)
        if at >= 0:
            _take_google(track, flow, data, at, stop, captured < length, side)
            return
    if not quic.is_quic(data, place, captured):
        now.skip = UDP_SKIP
        return
    _take_packets(track, flow, data, place, stop, captured < length, side)
    if flow.tries == 0 and flow.state != DONE:
        if flow.held > 0:
            track.desk.tallied[EVENTS, HELLO_INCOMPLETE] += 1
            lose_name(track, flow, LOST_ROOM)
        elif flow.names == 0 and I64(flow.bits) & LOST == 0:
            track.desk.tallied[SUMS, SUM_GIVEN_UP] += 1
        name_weakly(track, flow, QUIC)
        _leave_alone(track, flow)
    if now.skip == 0:
        if now.kept == KEPT and flow.held > 0:
            count_held(track, flow)
        else:
            now.skip = QUIC_UNREAD if now.kept == 0 else PASSED


@primitive
def _is_over(flow):
    """Is the hello of this flow known, or none to be had?"""
    return flow.state == DONE or flow.state == HELLO_SEEN


@routine
def _begins_another(track, flow, data, at, stop):
    """After a hello: does this datagram begin with the Initial of another connection?"""
    cipher, long = track.cipher, track.desk.long
    if quic.is_quic(data, at, stop - at) and quic.read_long(data, at, stop, long) == quic.INITIAL:
        mark = _mark_of(data, long.ids_at, long.ids_length)
        if mark == I64(flow.first_sequence):
            return False
        if long.stop - long.number_at >= ANOTHER_BYTES_MIN:
            derive_keys(cipher, long.salt, data, long.ids_at, long.ids_length)
            length, _ = quic.open_initial(cipher, data, at, long, I64(-1), track.plain)
            if length >= 0:
                flow.state = NEW
                flow.tries = track.desk.limits.tries
                return True
    lose_try(track, flow)
    return False


@primitive
def _mark_of(data, at, length):
    """32 bits by which a connection id is known again."""
    mark = length
    for i in range(at, at + length):
        mark = ((mark ^ I64(data[i])) * MARK_PRIME) & MARK_MASK
    return mark


@routine
def _leave_alone(track, flow):
    """Nothing more is to be had of this flow."""
    release(track, flow)
    flow.state = DONE


@routine
def _know_client(flow, side):
    """Whoever sent this packet is the client."""
    flow.bits = I64(flow.bits) | CLIENT_KNOWN | (CLIENT_SIDE if side else 0)


@routine
def _take_packets(track, flow, data, at, stop, cut, side):
    """Take the packets of a datagram one after the other, until the hello is whole."""
    now, long = track.desk.now, track.desk.long
    while at < stop and data[at] & 0x80 and not _is_over(flow) and flow.tries > 0:
        found = quic.read_long(data, at, stop, long)
        if found == quic.TOO_SHORT and cut and quic.says_initial(data, at, stop):
            _cut_off(track, flow)
        elif found == quic.TOO_SHORT and cut:
            note_fault(track, PAYLOAD_CUT)
        elif found == quic.TOO_SHORT or found == quic.BAD_PACKET:
            note_fault(track, QUIC_BAD)
        if found != quic.INITIAL and found != quic.PASSED_OVER:
            return
        after = I64(long.stop)
        if found == quic.INITIAL:
            length = _open(track, flow, data, at)
            if length == SEALED:
                note_fault(track, QUIC_SEALED)
            else:
                now.kept = max(now.kept, OPENED)
                _know_client(flow, side)
                _take_frames(track, flow, data, length)
        at = after


@routine
def _cut_off(track, flow):
    """The capture kept only a part of what may have a hello in it."""
    note_fault(track, PAYLOAD_CUT)
    lose_name(track, flow, LOST_CUT)
    name_weakly(track, flow, QUIC)


@routine
def _open(track, flow, data, at):
    """Open an Initial with the keys of what is held, else with those of its own connection id.

    How many bytes there are in `plain`, or SEALED. Where its own id opens it, and other keys
    opened what is held, that is given up.
    """
    cipher, long, plain = track.cipher, track.desk.long, track.plain
    if flow.held > 0:
        h = I64(flow.held) - 1
        seal = seal_start(track.desk.limits, h)
        largest = I64(track.holdings[h].origin) - 1
        copy_bytes(track.memory, seal, seal + KEYS_BYTES, cipher.keys, 0)
        flow.tries = I64(flow.tries) - 1
        length, number = quic.open_initial(cipher, data, at, long, largest, plain)
        if length >= 0:
            track.holdings[h].origin = min(max(largest, number), LARGEST_MAX) + 1
            long.salt = I64(track.memory[seal + SEAL_SALT])
            return length
        if flow.tries == 0 or _is_same_id(track, data, seal):
            return I64(SEALED)
    flow.tries = I64(flow.tries) - 1
    derive_keys(cipher, long.salt, data, long.ids_at, long.ids_length)
    length, number = quic.open_initial(cipher, data, at, long, I64(-1), plain)
    if length < 0:
        return I64(SEALED)
    release(track, flow)
    flow.next_sequence = min(number, LARGEST_MAX) + 1
    return length


@routine
def _is_same_id(track, data, seal):
    """Are the keys at `seal` those of the packet's own connection id and version?"""
    memory, long = track.memory, track.desk.long
    if I64(memory[seal + SEAL_SALT]) != long.salt:
        return False
    if I64(memory[seal + SEAL_LENGTH]) != long.ids_length:
        return False
    for i in range(long.ids_length):
        if memory[seal + SEAL_ID + i] != data[long.ids_at + i]:
            return False
    return True


@routine
def _seal_holding(track, flow, data):
    """Note with what keys, of what connection id, the packet at hand was opened."""
    long, memory = track.desk.long, track.memory
    seal = seal_start(track.desk.limits, I64(flow.held) - 1)
    copy_bytes(track.cipher.keys, 0, KEYS_BYTES, memory, seal)
    memory[seal + SEAL_SALT] = long.salt
    memory[seal + SEAL_LENGTH] = long.ids_length
    copy_bytes(data, long.ids_at, long.ids_at + long.ids_length, memory, seal + SEAL_ID)


@routine
def _take_frames(track, flow, data, length):
    """Take the CRYPTO frames of an Initial that was opened."""
    long, plain = track.desk.long, track.plain
    at = I64(0)
    while not _is_over(flow):
        found, at = quic.next_crypto(plain, at, length, long)
        if found != quic.CRYPTO:
            if found == quic.BAD_FRAME:
                note_fault(track, QUIC_BAD)
            return
        if long.data_stop == long.data_at:
            continue
        if long.offset + long.data_stop - long.data_at > track.desk.limits.unit_bytes:
            note_fault(track, HELLO_TOO_LONG)
            lose_name(track, flow, LOST_ROOM)
            name_weakly(track, flow, QUIC)
            _leave_alone(track, flow)
            return
        if flow.held == 0:
            if long.offset == 0 and _is_whole(
                track, flow, data, plain, long.data_at, long.data_stop
            ):
                return
            if flow.state == DONE or not begin_holding(track, flow):
                return
            _seal_holding(track, flow, data)
        if not _keep(track, flow, data):
            return


@routine
def _keep(track, flow, data):
    """Keep the data of a CRYPTO frame, and read the hello if it is whole now; False for no room."""
    now, long, limits = track.desk.now, track.desk.long, track.desk.limits
    length = long.data_stop - long.data_at
    stored = store(track, flow, track.plain, long.data_at, length, long.offset)
    if stored == NO_ROOM:
        note_fault(track, SEGMENTS_EXHAUSTED)
        lose_name(track, flow, LOST_ROOM)
        release(track, flow)
        now.kept = OPENED
        return False
    if stored == NOTHING_NEW:
        return True
    now.kept = KEPT
    h = I64(flow.held) - 1
    first = h * limits.pieces
    join_pieces(track.holdings[h], track.pieces, first)
    whole = whole_until(track.pieces, first, I64(track.holdings[h].pieces))
    if whole > 0:
        window = window_start(limits, h)
        _is_whole(track, flow, data, track.memory, window, window + whole)
    return True


@routine
def _is_whole(track, flow, data, source, start, stop):
    """Is the hello that begins `source[start:stop]` whole? Then its row is written; `data` has the
    packet at hand. Where it can be no hello the flow is done.
    """
    hello, long = track.desk.hello, track.desk.long
    google = long.salt == Q050
    if google:
        needed = gquic.chlo_length(source, start, stop)
    elif source[start] != tls.CLIENT_HELLO:
        needed = I64(-1)
    else:
        needed = 4 + be24(source, start + 1) if stop - start >= 4 else I64(0)
    if needed < 0:
        lack_hello(track, flow, QUIC)
    elif needed > track.desk.limits.unit_bytes:
        note_fault(track, HELLO_TOO_LONG)
        lose_name(track, flow, LOST_ROOM)
        name_weakly(track, flow, QUIC)
    elif needed == 0 or needed > stop - start:
        return False
    else:
        if not google:
            hello.body_at = start + 4
            hello.body_stop = start + needed
        _name(track, flow, source, start, start + needed, google)
        _await_another(track, flow, data)
        return True
    _leave_alone(track, flow)
    return True


@routine
def _await_another(track, flow, data):
    """Note the connection id whose keys opened the hello, and let go of what was held for it."""
    long, h = track.desk.long, I64(flow.held) - 1
    if h >= 0:
        memory, seal = track.memory, seal_start(track.desk.limits, h)
        mark = _mark_of(memory, seal + SEAL_ID, I64(memory[seal + SEAL_LENGTH]))
    else:
        mark = _mark_of(data, long.ids_at, long.ids_length)
    release(track, flow)
    flow.first_sequence = mark
    flow.state = HELLO_SEEN
    flow.tries = track.desk.limits.repeats


@routine
def _name(track, flow, source, start, stop, google):
    """Write the row of a whole hello, in the name of the packet that brought its first byte."""
    now, h = track.desk.now, I64(flow.held) - 1
    own_ns, own_number, named = now.time_ns, now.number, now.named
    if h >= 0:
        first = track.pieces[h * track.desk.limits.pieces]
        now.time_ns, now.number = first.time_ns, first.number
        now.marks = UNRELIABLE if track.holdings[h].disagrees == 1 else 0
    if not google:
        name_of_hello(track, flow, source, QUIC, False)
    elif gquic.read_chlo(source, start, stop, track.desk.hello) == tls.WHOLE:
        name_row(track, flow, source, QUIC, False)
    else:
        lack_hello(track, flow, QUIC)
    now.marks = 0
    now.time_ns, now.number = own_ns, own_number
    if h >= 0 and now.named > named:
        track.holdings[h].named = 1


@routine
def _take_google(track, flow, data, at, stop, cut, side):
    """Take a packet of Google's QUIC that is not sealed; its hello is whole or cut off."""
    at = gquic.find_chlo(data, at, stop)
    if at < 0:
        track.desk.now.skip = QUIC_UNREAD
        return
    _know_client(flow, side)
    length = gquic.chlo_length(data, at, stop)
    if cut and length >= 0 and (length == 0 or length > stop - at):
        _cut_off(track, flow)
    else:
        _name(track, flow, data, at, stop, True)
    _leave_alone(track, flow)
