"""The header walk: every packet of a batch, from its link header down to its innermost payload.

How much payload there is, IP says and not the frame: Ethernet pads, and check sums may trail. A
total length of 0 is a segment that the sender's card was still to cut (TSO): there the frame is
believed. What the capture cut off is known by the two lengths, and never read as whole.

Nearly every packet is Ethernet, some tags, IP, and TCP or UDP: `_walk_plain` reads these, built
into the loop. Whatever else there may be (other links, tunnels, extension headers, fragments,
faults) goes through `descend`, which begins again at the front and knows every layer. Both say the
same of a plain packet; a test compares them.

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
from pipeline.kernels.compile import kernel, primitive, routine

I64 = np.int64


@primitive
def _walk_plain(data, at, stop, whole, head):
    """Read a plain packet into its row; False where it is not plain, or not all there."""
    if at + 34 > stop:
        return False
    ethertype = be16(data, at + 12)
    at += 14
    realm = I64(head.realm)
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


@kernel
def walk_headers(data, offset, captured, wire, link_type, stripped_vlan, heads):
    """Walk every packet of a batch; each row gets a fault, a skip, or a payload's place and length.

    The columns are those of a PacketBatch; `heads` are HEADERs. A tag that was stripped is the
    outermost of the realm. Gives the number of fragments, which are yet to be put together.
    """
    fragments = 0
    for i in range(len(offset)):
        head = heads[i]
        at = offset[i]
        stop = at + I64(captured[i])
        whole = at + max(I64(wire[i]), I64(captured[i]))
        head.fault = 0
        head.skip = 0
        head.realm = add_tag(I64(0), I64(stripped_vlan[i])) if stripped_vlan[i] >= 0 else I64(0)
        if link_type[i] == ETHERNET and _walk_plain(data, at, stop, whole, head):
            continue
        verdict = _walk_any(data, at, stop, whole, I64(link_type[i]), head)
        if verdict == PIECE:
            fragments += 1
        elif verdict != GOOD:
            head.fault = verdict if verdict < SKIPPED else 0
            head.skip = verdict - SKIPPED if verdict > SKIPPED else 0
    return fragments
