"""Fill a block with packets of classic pcap: what the traffic generator does per packet.

A *slot* is a live flow: its number, its position and what of its opening went out, and the next
sequence numbers of both sides. Each packet takes a slot at random, as on a mirror port where
flows are thoroughly mixed, except that the packets of a handshake come within a round trip of
each other, and the second segment of an opening within a few packets of the first. When a flow
has sent its last packet the slot goes to the next flow number. Everything a flow is (its
protocol, addresses, template, length) is a function of seed and flow number, so it is computed
again for each packet and not kept: 32 bytes a slot, one cache line touched. A capture begins in
the middle of most flows, but never between the first packet and the end of the opening, so that
what can be found is exactly what `truth` counts.

TCP and UDP checksums are wrong, as in a capture with checksum offload; IPv4 header checksums are
right. Sketch: one cache miss for the slot, about 800 bytes copied; 2.7 million packets/s into
memory at 10,000 live flows and 2.1 million at a million on one core of a small cloud machine (1.0
to 1.5 with the file).
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.compile import kernel
from pipeline.kernels.hashing import GOLDEN, mix64

U64 = np.uint64
TLS_CLASSIC, TLS_HYBRID, QUIC, HTTP, OTHER_TCP, OTHER_UDP = range(6)
ROOM = 2048  # no packet with its headers is longer
RECORD = 16  # bytes of a pcap record header
FOLLOW = 1 << 15  # a follow-up comes within so many packets
# The largest distances, in packets, of an answer and of the next segment.
ROUND_TRIP, TRAIN = 0x3FFF, 31
OPENS = 3  # position of the first packet of the opening
FIN, SYN, PSH, ACK = 1, 2, 8, 16

# What a slot has done, in the upper half of its second word.
EMITTED, MIDSTREAM = 1 << 32, 1 << 33
POSITION = 0xFFFFFFFF

# Rows of `state` and of `truth`.
NEXT_PACKET, PACKETS, NEXT_FLOW, RANDOM = range(4)
BYTES, FLOWS, TLS, HTTP_REQUESTS, HTTP_FLOWS, QUIC_FLOWS = range(6)
MEMBER_TLS, MEMBER_HTTP, MEMBER_QUIC = 6, 7, 8
IPV6_PACKETS, VLAN_PACKETS, LATE_PACKETS, MEMBER_PACKETS = 9, 10, 11, 12
SPLIT, SWAPPED, RETRANSMITTED, SPLIT_INITIALS = 13, 14, 15, 16
TRUTH = 17

# Rows of `step`: what the next packet of a flow is.
UP, FLAGS, SOURCE, OFFSET, SIZE, SEQ, ACKED, DONE = range(8)
NO_PAYLOAD, TEMPLATE, NOISE, SERVER, ANSWER, INITIAL, SHORT = range(7)


# Rows of `knob`, the parameters: shares are of 65,536, KIND_BELOW has five cumulative ones, *_AT
# are places in `data` (templates, what servers say, header prototypes, noise) and in `table`
# (where templates start, how long they are, packets of a flow). Three arrays and no tuple of
# many: a tuple is copied word by word into every function that is not inlined, which took most of
# the time.
SEED, POOL, SUBSCRIBERS, STRIDE, MEMBERS, IPV6, VLAN, SWAPPED_SHARE = range(8)
AGAIN, SECOND, LATE, DOWN, START_NS, GAP_NS, TICK_NS, KIND_BELOW = range(8, 16)
LENGTH_AT, PACKETS_AT, NOISE_AT, SERVER_AT = range(20, 24)
SERVER_BYTES, ANSWER_AT, ANSWER_BYTES, HEADERS_AT = range(24, 28)
KNOBS = 28
HEADER_ROW = 128  # bytes of a header prototype


@kernel
def spread(seed, number, salt):
    """64 bits that belong to a flow number (or any other number) and a salt."""
    return mix64(U64(seed) ^ mix64(U64(number) * GOLDEN + U64(salt)))


@kernel
def spread16(seed, number, salt):
    """Sixteen of these bits."""
    return np.int64(spread(seed, number, salt) & U64(0xFFFF))


@kernel
def spread32(seed, number, salt):
    """Thirty-two of these bits."""
    return np.int64(spread(seed, number, salt) & U64(0xFFFFFFFF))


@kernel
def kind_of(knob, flow):
    """What the flow speaks."""
    roll = spread16(knob[SEED], flow, 1)
    for kind in range(5):
        if roll < knob[KIND_BELOW + kind]:
            return kind
    return OTHER_UDP


@kernel
def template_of(knob, flow, kind):
    """The template of the flow's opening; -1 where it has none."""
    pick = np.int64(spread(knob[SEED], flow, 2) % U64(knob[POOL]))
    if kind == TLS_CLASSIC:
        return pick
    if kind == TLS_HYBRID:
        return knob[POOL] + pick
    if kind == HTTP:
        return 2 * knob[POOL] + pick
    if kind == QUIC:  # as many of them are post-quantum as of TLS
        classic, all_tls = knob[KIND_BELOW + TLS_CLASSIC], knob[KIND_BELOW + TLS_HYBRID]
        few = spread16(knob[SEED], flow, 9) * all_tls < classic * 65536
        return (3 if few else 4) * knob[POOL] + pick
    return -1


@kernel
def flow_bits(knob, flow):
    """Is it IPv6, how many tags, and is its opening swapped, sent twice, asked twice?"""
    bits = spread(knob[SEED], flow, 3)
    v6 = np.int64(bits & U64(0xFFFF)) < knob[IPV6]
    roll = np.int64((bits >> U64(16)) & U64(0xFFFF))
    tags = 0 if roll >= knob[VLAN] else (2 if roll * 10 < knob[VLAN] else 1)
    swapped = np.int64((bits >> U64(32)) & U64(0xFFFF)) < knob[SWAPPED_SHARE]
    again = np.int64(bits >> U64(48)) < knob[AGAIN]
    second = spread16(knob[SEED], flow, 4) < knob[SECOND]
    return v6, tags, swapped, again, second


@kernel
def flow_packets(knob, table, flow):
    """How many packets the flow has."""
    return table[knob[PACKETS_AT] + np.int64(spread(knob[SEED], flow, 5) & U64(4095))]


@kernel
def subscriber_of(knob, flow):
    """Whose flow it is; (subscriber, port) never comes twice for different flows."""
    return (flow * knob[STRIDE]) % knob[SUBSCRIBERS]


@kernel
def port_of(knob, flow):
    """The client's port."""
    nth, subscriber = flow // knob[SUBSCRIBERS], subscriber_of(knob, flow)
    return 1024 + (nth + subscriber * 7919) % 64000


@kernel
def put16(out, at, value):
    """Two bytes, network order."""
    out[at] = (value >> 8) & 0xFF
    out[at + 1] = value & 0xFF


@kernel
def put32(out, at, value):
    """Four bytes, network order."""
    put16(out, at, (value >> 16) & 0xFFFF)
    put16(out, at + 2, value & 0xFFFF)


@kernel
def put32_little(out, at, value):
    """Four bytes, least first."""
    for i in range(4):
        out[at + i] = (value >> (8 * i)) & 0xFF


@kernel
def copy(out, at, data, start, size):
    """`size` bytes of `data` from `start` to `out` at `at`.

    Unsigned indices cannot be negative, so the loop becomes a memcpy: 26 ns for 800 bytes, not 530.
    """
    into, source = U64(at), U64(start)
    for i in range(U64(size)):
        out[into + i] = data[source + i]


@kernel
def mss_of(v6):
    """The largest TCP payload of a packet."""
    return 1428 if v6 else 1448


@kernel
def tcp_opening(knob, table, slot, flow, kind, template, part, v6, step):
    """Part 0 or 1 of what the client says first."""
    base = spread32(knob[SEED], flow, 6) + 1
    step[UP], step[FLAGS], step[SEQ] = 1, PSH | ACK, base
    if template < 0:
        step[SOURCE], step[SIZE] = NOISE, 180
        step[OFFSET] = spread16(knob[SEED], flow, 7)
        slot[2] = base + 180
        return
    whole, mss = table[knob[LENGTH_AT] + template], mss_of(v6)
    first = min(whole, mss)
    step[SOURCE] = TEMPLATE
    if part == 0:
        step[OFFSET], step[SIZE] = table[template], first
    else:
        step[OFFSET], step[SIZE], step[SEQ] = table[template] + mss, whole - mss, base + mss
    slot[2] = base + whole


@kernel
def tcp_step(knob, table, slot, flow, kind, packets, step):
    """What the next packet of a TCP flow is, into `step`; positions as listed in the README."""
    v6, _, swapped, again, second = flow_bits(knob, flow)
    template = template_of(knob, flow, kind)
    position = slot[1] & POSITION
    parts = 2 if template >= 0 and table[knob[LENGTH_AT] + template] > mss_of(v6) else 1
    opening = parts + (1 if again and template >= 0 else 0)
    step[SOURCE], step[SIZE], step[FLAGS] = NO_PAYLOAD, 0, ACK
    step[UP], step[SEQ], step[ACKED], step[DONE] = 1, slot[2], slot[3], 0
    if position < OPENS:
        isn = spread32(knob[SEED], flow, 6)
        if position == 0:
            step[SEQ], step[ACKED], step[FLAGS] = isn, 0, SYN
            slot[2] = isn + 1
            slot[3] = spread32(knob[SEED], flow, 8) + 1
        elif position == 1:
            step[UP], step[SEQ], step[ACKED], step[FLAGS] = 0, slot[3] - 1, slot[2], SYN | ACK
    elif position < OPENS + opening:
        part = position - OPENS
        if part == parts:
            part = 0  # the first segment once more
        elif parts == 2 and swapped:
            part = 1 - part
        tcp_opening(knob, table, slot, flow, kind, template, part, v6, step)
        step[DONE] = 1 if position == OPENS + parts - 1 else 0
    elif position == OPENS + opening:
        step[UP], step[SEQ], step[ACKED] = 0, slot[3], slot[2]
    elif position == packets - 1:
        step[FLAGS] = FIN | ACK
    else:
        after = position - OPENS - opening
        tcp_later(knob, table, slot, flow, kind, v6, second, after, packets, step)


@kernel
def tcp_later(knob, table, slot, flow, kind, v6, second, after, packets, step):
    """A packet after the opening: mostly data from the server and its acknowledgement."""
    position = slot[1] & POSITION
    roll = spread(knob[SEED], flow, 16 + position)
    opened = after > 1 and not slot[1] & MIDSTREAM
    if kind == HTTP and second and opened and position == packets // 2 + 4:
        template = template_of(knob, flow, kind)
        step[FLAGS], step[SOURCE], step[OFFSET] = PSH | ACK, TEMPLATE, table[template]
        step[SIZE] = table[knob[LENGTH_AT] + template]
        step[DONE] = 2
    elif after == 1 or np.int64(roll & U64(0xFFFF)) < knob[DOWN]:
        size = mss_of(v6)
        if after > 1 and not (roll >> U64(16)) & U64(7):
            size = 1 + np.int64((roll >> U64(20)) % U64(size))
        step[UP], step[SEQ], step[ACKED] = 0, slot[3], slot[2]
        step[SOURCE], step[SIZE] = NOISE, size
        step[OFFSET] = np.int64((roll >> U64(40)) & U64(0xFFFF))
        if after == 1 and kind <= TLS_HYBRID:
            step[SOURCE] = SERVER
        elif after == 1 and kind == HTTP:
            step[SOURCE] = ANSWER
        slot[3] += size
        return
    elif kind != HTTP and ((roll >> U64(16)) & U64(7)) == U64(0):
        step[FLAGS], step[SOURCE] = PSH | ACK, NOISE
        step[OFFSET] = np.int64((roll >> U64(40)) & U64(0xFFFF))
        step[SIZE] = 20 + np.int64((roll >> U64(20)) & U64(127))
    slot[2] += step[SIZE]


@kernel
def udp_step(knob, table, slot, flow, kind, step):
    """What the next datagram of a UDP flow is, into `step`."""
    position = slot[1] & POSITION
    roll = spread(knob[SEED], flow, 16 + position)
    step[UP], step[FLAGS], step[SEQ], step[ACKED], step[DONE] = 1, 0, 0, 0, 0
    step[OFFSET] = np.int64((roll >> U64(40)) & U64(0xFFFF))
    upward = np.int64(roll & U64(0xFFFF)) >= knob[DOWN]
    if kind == OTHER_UDP:
        step[SOURCE] = NOISE
        step[UP] = 1 if position == 0 or upward else 0
        step[SIZE] = 60 + np.int64((roll >> U64(20)) & U64(127)) if step[UP] else 1180
        return
    # Two Initials of a client whose hello is post-quantum, then the server's, then short headers.
    template = template_of(knob, flow, kind)
    firsts = table[knob[LENGTH_AT] + template] // 1200
    if position < firsts:
        _, _, swapped, _, _ = flow_bits(knob, flow)
        part = firsts - 1 - position if swapped else position
        step[SOURCE], step[OFFSET], step[SIZE] = TEMPLATE, table[template] + 1200 * part, 1200
        step[DONE] = 3 if position == firsts - 1 else 0
    elif position < firsts + 2:
        step[UP], step[SOURCE], step[SIZE] = 0, INITIAL, 1200
    else:
        step[SOURCE] = SHORT
        step[UP] = 1 if upward else 0
        step[SIZE] = 28 + np.int64((roll >> U64(20)) & U64(31)) if upward else 1250


@kernel
def put_payload(knob, data, out, at, flow, kind, step):
    """The payload of a step."""
    source, size = step[SOURCE], step[SIZE]
    if source == TEMPLATE:
        copy(out, at, data, step[OFFSET], size)
        return
    if source == NO_PAYLOAD:
        return
    copy(out, at, data, knob[NOISE_AT] + step[OFFSET], size)
    if source == SERVER:
        copy(out, at, data, knob[SERVER_AT], knob[SERVER_BYTES])
    elif source == ANSWER:
        copy(out, at, data, knob[ANSWER_AT], knob[ANSWER_BYTES])
    elif source == INITIAL:
        # What the server says first; RFC 9000, 17.2.2: long header, version 1, two connection ids,
        # no token, length of the rest.
        put32(out, at, 0xC3000000)
        put32(out, at + 4, 0x01080000 | (flow & 0xFFFF))
        out[at + 14], out[at + 15] = 0, 0
        put16(out, at + 16, 0x4000 | (size - 18))
    elif source == SHORT:
        out[at] = 0x40 | (out[at] & 0x3F)


@kernel
def put_ipv4(out, at, size, identification, client, server, up):
    """Lengths, addresses and checksum of an IPv4 header of which the rest is there."""
    put16(out, at + 2, size)
    put16(out, at + 4, identification & 0xFFFF)
    inside, outside = (at + 12, at + 16) if up else (at + 16, at + 12)
    put32(out, inside, (100 << 24) + (64 << 16) + client)
    network = server % 3
    base = 0xC0000200 if network == 0 else (0xC6336400 if network == 1 else 0xCB007100)
    put32(out, outside, base + 1 + (server // 3) % 254)
    put16(out, at + 10, 0)
    total = 0
    for i in range(10):
        total += (np.int64(out[at + 2 * i]) << 8) + np.int64(out[at + 2 * i + 1])
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    put16(out, at + 10, 0xFFFF - total)


@kernel
def put_ipv6(out, at, size, client, server, up):
    """Length and addresses of an IPv6 header of which the rest is there."""
    put16(out, at + 4, size)
    inside, outside = (at + 8, at + 24) if up else (at + 24, at + 8)
    put32(out, inside, 0x20010DB8)
    put32(out, inside + 4, client)
    put32(out, inside + 8, 0x02000000 + client)
    put32(out, inside + 12, 0xFE000001)
    put32(out, outside, 0x20010DB8)
    put32(out, outside + 4, 0xFFFF0000)
    put32(out, outside + 8, 0)
    put32(out, outside + 12, 1 + server)


@kernel
def header_row(v6, udp, tags, up):
    """Which prototype of the headers a packet copies."""
    return ((v6 * 2 + udp) * 3 + tags) * 2 + up


@kernel
def put_packet(knob, data, out, at, flow, kind, number, time_ns, step):
    """One pcap record with its packet at `at`; returns where the next one goes."""
    v6, tags, _, _, _ = flow_bits(knob, flow)
    udp = kind in (QUIC, OTHER_UDP)
    up, size = step[UP], step[SIZE]
    client, port = subscriber_of(knob, flow), port_of(knob, flow)
    server = np.int64(spread(knob[SEED], flow, 10) % U64(762))
    link, network = 14 + 4 * tags, 40 if v6 else 20
    transport = 8 if udp else 32
    frame = link + network + transport + size
    ticks = time_ns // knob[TICK_NS]
    per_second = 1_000_000_000 // knob[TICK_NS]
    put32_little(out, at, ticks // per_second)
    put32_little(out, at + 4, ticks % per_second)
    put32_little(out, at + 8, frame)
    put32_little(out, at + 12, frame)
    at += RECORD
    prototype = knob[HEADERS_AT] + HEADER_ROW * header_row(v6, udp, tags, up)
    copy(out, at, data, prototype, link + network + transport)
    if v6:
        put_ipv6(out, at + link, transport + size, client, server, up)
    else:
        put_ipv4(out, at + link, network + transport + size, number, client, server, up)
    there = at + link + network
    service = 443
    if kind == HTTP:
        service = 80
    elif kind == OTHER_TCP:
        service = 8883
    elif kind == OTHER_UDP:
        service = 51820
    put16(out, there, port if up else service)
    put16(out, there + 2, service if up else port)
    if udp:
        put16(out, there + 4, 8 + size)
    else:
        put32(out, there + 4, step[SEQ] & 0xFFFFFFFF)
        put32(out, there + 8, step[ACKED] & 0xFFFFFFFF)
        out[there + 13] = step[FLAGS]
        put32(out, there + 24, number & 0xFFFFFFFF)
    put_payload(knob, data, out, there + transport, flow, kind, step)
    return there + transport + size


@kernel
def count(knob, table, slot, flow, kind, step, truth, hosts, member_hosts):
    """What the packet adds to the truth: a name counts when the last byte of its message is out."""
    v6, tags, swapped, again, _ = flow_bits(knob, flow)
    member = subscriber_of(knob, flow) < knob[MEMBERS]
    truth[IPV6_PACKETS] += v6
    truth[VLAN_PACKETS] += tags > 0
    truth[MEMBER_PACKETS] += member
    if not slot[1] & EMITTED:
        slot[1] |= EMITTED
        truth[FLOWS] += 1
    if step[DONE] == 0:
        return
    template = template_of(knob, flow, kind)
    if step[DONE] == 3:
        hosts[template] += 1
        member_hosts[template] += member
        truth[QUIC_FLOWS] += 1
        truth[MEMBER_QUIC] += member
        truth[SPLIT_INITIALS] += template >= 4 * knob[POOL]
    elif template >= 0:
        hosts[template] += 1
        member_hosts[template] += member
        if kind == HTTP:
            truth[HTTP_REQUESTS] += 1
            truth[HTTP_FLOWS] += step[DONE] == 1
            truth[MEMBER_HTTP] += member
        else:
            split = table[knob[LENGTH_AT] + template] > mss_of(v6)
            truth[TLS] += 1
            truth[MEMBER_TLS] += member
            truth[SPLIT] += split
            truth[SWAPPED] += split and swapped
        truth[RETRANSMITTED] += again and step[DONE] == 1


@kernel
def begin(knob, table, slots):
    """Put a flow into each slot, most somewhere after their opening, as a capture finds them."""
    for s in range(len(slots)):
        slots[s, 0], slots[s, 1] = s, 0
        packets = flow_packets(knob, table, s)
        position = np.int64(spread(knob[SEED], s, 11) % U64(packets))
        if position > 0:
            slots[s, 1] = max(position, OPENS + 5) | MIDSTREAM
        slots[s, 2] = spread32(knob[SEED], s, 6) + 3000
        slots[s, 3] = spread32(knob[SEED], s, 8) + 3000


@kernel
def take_slot(state, follow, slots):
    """The slot that sends now: one that was told to follow, else any."""
    turn = state[NEXT_PACKET] % FOLLOW
    state[RANDOM] = np.int64(mix64(U64(state[RANDOM]) + GOLDEN))
    if follow[turn] > 0:
        s = np.int64(follow[turn] - 1)
        follow[turn] = 0
        return s
    return np.int64(((U64(state[RANDOM]) >> U64(32)) * U64(len(slots))) >> U64(32))


@kernel
def send_soon(follow, number, distance, s):
    """Let slot `s` send `distance` packets after packet `number`, or at the next free turn."""
    turn = (number + 1 + distance) % FOLLOW
    while follow[turn] > 0:
        turn = (turn + 1) % FOLLOW
    follow[turn] = s + 1


@kernel
def fill(knob, table, data, out, slots, follow, state, truth, hosts, member_hosts, step):
    """Packets into `out` until it is full or all are made; returns the bytes used."""
    at = 0
    while state[NEXT_PACKET] < state[PACKETS] and at + ROOM <= len(out):
        s = take_slot(state, follow, slots)
        slot = slots[s]
        flow, number = slot[0], state[NEXT_PACKET]
        kind, packets = kind_of(knob, flow), flow_packets(knob, table, flow)
        if kind in (QUIC, OTHER_UDP):
            udp_step(knob, table, slot, flow, kind, step)
        else:
            tcp_step(knob, table, slot, flow, kind, packets, step)
        time_ns = knob[START_NS] + number * knob[GAP_NS]
        roll = U64(state[RANDOM])
        if np.int64(roll & U64(0xFFFF)) < knob[LATE]:
            time_ns -= np.int64((roll >> U64(16)) & U64(0x7FFF))  # up to 33 us: another queue
            truth[LATE_PACKETS] += 1
        begun = at
        at = put_packet(knob, data, out, at, flow, kind, number, time_ns, step)
        truth[BYTES] += at - begun - RECORD
        count(knob, table, slot, flow, kind, step, truth, hosts, member_hosts)
        if slot[1] & POSITION < OPENS + 5 and not slot[1] & MIDSTREAM:
            within = TRAIN if step[SOURCE] == TEMPLATE else ROUND_TRIP
            send_soon(follow, number, np.int64(roll >> U64(34)) & within, s)
        slot[1] += 1
        if slot[1] & POSITION >= packets:
            slot[0], slot[1] = state[NEXT_FLOW], 0
            state[NEXT_FLOW] += 1
        state[NEXT_PACKET] += 1
    return at
