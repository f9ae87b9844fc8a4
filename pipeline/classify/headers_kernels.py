"""The header walk: every packet of a batch, from its link header down to its innermost payload.

How much payload there is, IP says and not the frame: Ethernet pads, and check sums may trail. A
total length of 0 is a segment that the sender's card was still to cut (TSO): there the frame is
believed. What the capture cut off is known by the two lengths, and never read as whole.

Nearly every packet is Ethernet, some tags, IP, and TCP or UDP: `_walk_plain` reads these, built
into the loop. Whatever else there may be (other links, tunnels, extension headers, fragments,
faults) is left for a second pass over the batch, through `descend`, which begins again at the front
of the packet and knows every layer. A loop that calls it itself costs plain packets 2 ns more.

Sketch: some 20 dependent byte loads from one or two cache lines and 64 bytes written a packet: 30
ns.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.descent_kernels import descend
from pipeline.classify.layers_kernels import (
    ETHERNET,
    GOOD,
    PIECE,
    SKIPPED,
    TAGS_MAX,
    TCP,
    UDP,
    add_tag,
    is_tag,
    open_link,
    read_addresses,
    read_transport,
)
from pipeline.classify.tunnels_kernels import could_tunnel
from pipeline.kernels.bytes import be16
from pipeline.kernels.compile import LINE_BYTES, fetch, kernel, primitive, routine

I64 = np.int64
AHEAD = 16  # packets whose headers are on their way from memory
NOT_PLAIN = 255  # in `fault`, between the two passes


@primitive
def _walk_plain(data, at, stop, whole, realm, head):
    """Read a plain packet into its row; False where it is not plain, or not all there."""
    if at + 34 > stop:
        return False
    ethertype = be16(data, at + 12)
    at += 14
    tags = 0
    while is_tag(ethertype):
        if tags == TAGS_MAX or at + 24 > stop:
            return False
        realm = add_tag(realm, be16(data, at))
        ethertype = be16(data, at + 2)
        at += 4
        tags += 1
    if ethertype == 0x0800:
        length, total = (I64(data[at]) & 15) * 4, be16(data, at + 2)
        if I64(data[at]) >> 4 != 4 or length < 20 or total < length:
            return False
        if be16(data, at + 6) & 0x3FFF != 0 or at + length > stop:
            return False
        read_addresses(data, at, 4, head)
        protocol = I64(data[at + 9])
        whole = at + total
        at += length
    elif ethertype == 0x86DD:
        if at + 40 > stop or I64(data[at]) >> 4 != 6:
            return False
        total = be16(data, at + 4)
        if total == 0:
            return False
        read_addresses(data, at, 6, head)
        protocol = I64(data[at + 6])
        at += 40
        whole = at + total
    else:
        return False
    if protocol != TCP and protocol != UDP:
        return False
    if read_transport(data, at, min(stop, whole), whole, protocol, head) != GOOD:
        return False
    if protocol == UDP and (could_tunnel(head.source_port) or could_tunnel(head.target_port)):
        return False
    head.realm = realm
    return True


@routine
def _walk_any(data, at, stop, whole, link_type, head):
    """Read any packet into its row; the verdict."""
    head.transport = 0
    head.tcp_flags = 0
    verdict, layer, at, kind, whole = open_link(data, at, stop, whole, link_type)
    if verdict == GOOD:
        verdict = descend(data, at, stop, whole, layer, kind, 0, head)
    return verdict


@primitive
def _ask_for(data, at):
    """A packet's headers, before they are needed."""
    fetch(data, at)
    fetch(data, at + LINE_BYTES)


@kernel
def walk_headers(data, offset, captured, wire, link_type, stripped_vlan, heads):
    """Walk every packet of a batch; each row gets a fault, a skip, or a payload's place and length.

    The columns are those of a PacketBatch; `heads` are HEADERs of any content. A tag that was
    stripped is the outermost of the realm. Gives the number of fragments, which are yet to be put
    together.

    Touches 146 bytes a packet: 16 % of the memory's bandwidth.
    """
    others = 0
    for i in range(min(AHEAD, len(offset))):
        _ask_for(data, offset[i])
    for i in range(len(offset)):
        if i + AHEAD < len(offset):
            _ask_for(data, offset[i + AHEAD])
        head = heads[i]
        _clear(head)
        at = offset[i]
        stop = at + I64(captured[i])
        whole = at + max(I64(wire[i]), I64(captured[i]))
        realm = _stripped(stripped_vlan[i])
        if link_type[i] != ETHERNET or not _walk_plain(data, at, stop, whole, realm, head):
            head.fault = NOT_PLAIN
            others += 1
    if others == 0:
        return 0
    return _walk_others(data, offset, captured, wire, link_type, stripped_vlan, heads)


@primitive
def _clear(head):
    """Forget what stood in a row."""
    head.source_hi = head.source_lo = head.target_hi = head.target_lo = 0
    head.payload_at = head.realm = head.sequence = head.acknowledged = 0
    head.payload_captured = head.payload_length = 0
    head.source_port = head.target_port = 0
    head.transport = head.tcp_flags = head.fault = head.skip = 0


@primitive
def _stripped(tag):
    """The realm of a packet whose tag was stripped, or (-1) was not."""
    return add_tag(I64(0), I64(tag)) if tag >= 0 else I64(0)


@routine
def _walk_others(data, offset, captured, wire, link_type, stripped_vlan, heads):
    """Walk the packets that are not plain; how many are fragments."""
    fragments = 0
    for i in range(len(offset)):
        head = heads[i]
        if head.fault != NOT_PLAIN:
            continue
        at = offset[i]
        stop = at + I64(captured[i])
        whole = at + max(I64(wire[i]), I64(captured[i]))
        head.realm = _stripped(stripped_vlan[i])
        head.fault = 0
        verdict = _walk_any(data, at, stop, whole, I64(link_type[i]), head)
        if verdict == PIECE:
            fragments += 1
        elif verdict != GOOD:
            head.fault = verdict if verdict < SKIPPED else 0
            head.skip = verdict - SKIPPED if verdict > SKIPPED else 0
    return fragments
