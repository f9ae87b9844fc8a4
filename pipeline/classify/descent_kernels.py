"""The descent: from a layer of a packet through whatever is wrapped in it, to the last payload.

The subscriber is the innermost client, so the addresses of the innermost IP header count. IP,
Ethernet, PPP and NSH headers may stand in each other sixteen deep; what goes beyond is a fault, so
that no packet takes long.

A tunnel over UDP is believed once an IP header behind it holds, or a frame that is no IP but known.
If instead what is behind contradicts itself, the datagram was a plain one to a tunnel's port. Where
the capture cut the datagram short behind the tunnel's header, before that could be told, the packet
is cut, and not a plain one; cut inside that header, but for GRE's, it is plain. L2TPv3 over UDP,
whose header says enough, is never plain: what it carries is found, or it is a fault.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.layers_kernels import (
    AT_ETHERNET,
    AT_ETHERTYPE,
    AT_EXTENSION,
    AT_IP,
    AT_MPLS,
    AT_NSH,
    AT_PPP,
    GOOD,
    NESTING_TOO_DEEP,
    PACKET_TRUNCATED,
    PIECE,
    SKIPPED,
    TCP,
    UDP,
    open_ethernet,
    open_ethertype,
    open_extensions,
    open_ip,
    open_mpls,
    open_nsh,
    open_ppp,
    read_transport,
)
from pipeline.classify.tunnels_kernels import (
    UNTOLD,
    could_tunnel,
    open_datagram,
    open_protocol,
    untold,
)
from pipeline.kernels.compile import routine

I64 = np.int64
NESTING_MAX = 16


@routine
def descend(data, at, stop, whole, layer, kind, depth, head):
    """Walk from `layer` at `at` inwards; the row gets what the innermost header says.

    `stop` is where the captured bytes end, `whole` where the packet ends by what is around it,
    `kind` the layer's ethertype, version or protocol, `depth` how many headers lie around it. Gives
    the verdict: PIECE where a fragment ends the way, whose row says how deep it lies.
    """
    datagram_at, datagram_stop, datagram_whole = I64(-1), stop, whole
    realm = I64(head.realm)
    verdict = I64(GOOD)
    while verdict == GOOD:
        stop = min(stop, whole)
        if layer == AT_IP or layer == AT_ETHERNET or layer == AT_PPP or layer == AT_NSH:
            depth += 1
            if depth > NESTING_MAX:
                verdict = I64(NESTING_TOO_DEEP)
                break
        if layer == AT_ETHERNET:
            verdict, layer, at, kind, whole = open_ethernet(data, at, stop, whole)
        elif layer == AT_ETHERTYPE:
            verdict, layer, at, kind, whole = open_ethertype(data, at, stop, whole, kind, head)
        elif layer == AT_PPP:
            verdict, layer, at, kind, whole = open_ppp(data, at, stop, whole)
        elif layer == AT_MPLS:
            verdict, layer, at, kind, whole = open_mpls(data, at, stop, whole)
        elif layer == AT_NSH:
            verdict, layer, at, kind, whole = open_nsh(data, at, stop, whole)
        elif layer == AT_IP:
            verdict, layer, at, kind, whole = open_ip(data, at, stop, whole, kind, head)
            if verdict == GOOD or verdict == PIECE:
                datagram_at = I64(-1)  # what is around it was a tunnel
        elif layer == AT_EXTENSION:
            verdict, layer, at, kind, whole = open_extensions(data, at, stop, whole, kind, head)
        elif kind == TCP:
            verdict = I64(read_transport(data, at, stop, whole, TCP, head))
            break
        elif kind == UDP:
            verdict = I64(read_transport(data, at, stop, whole, UDP, head))
            source_port, target_port = I64(head.source_port), I64(head.target_port)
            if verdict != GOOD or not (could_tunnel(source_port) or could_tunnel(target_port)):
                break
            place = I64(head.payload_at)
            end = place + I64(head.payload_length)
            inner_layer, inner, inner_kind, inner_whole = open_datagram(
                data, place, min(stop, end), end, source_port, target_port
            )
            if inner_layer == UNTOLD:
                verdict = I64(untold(min(stop, end), end))
            if inner_layer < 0:
                break
            datagram_at, datagram_stop, datagram_whole = at, stop, whole
            realm = I64(head.realm)
            layer, at, kind, whole = inner_layer, inner, inner_kind, inner_whole
            stop = min(stop, end)
        else:
            verdict, layer, at, kind, whole = open_protocol(data, at, stop, whole, kind)
    if datagram_at >= 0 and _does_not_hold(verdict, datagram_stop < datagram_whole):
        head.realm = realm
        verdict = I64(read_transport(data, datagram_at, datagram_stop, datagram_whole, UDP, head))
    if verdict == PIECE:
        head.target_port = depth
    return verdict


@routine
def _does_not_hold(verdict, cut):
    """Does a verdict on what is behind a tunnel's header say that it is no tunnel?"""
    if verdict == GOOD or verdict >= SKIPPED or verdict == NESTING_TOO_DEEP:
        return False
    return verdict != PACKET_TRUNCATED or not cut
