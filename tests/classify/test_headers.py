"""The header walk: against its naive twin, against dpkt, and layer by layer."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import replace

import dpkt
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.classify.headers import walk
from pipeline.model.faults import Fault, Skip
from tests.classify import frames
from tests.naive.headers import Header, walk_headers

LINK_TYPES = (1, 101, 12, 14, 228, 229, 0, 113)


def address(hi: int, lo: int) -> str:
    """The text of an address held in two words."""
    if hi == 0 and lo >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(lo & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(hi << 64 | lo))


def walked(packets: list[bytes], wire: list[int] | None = None, link_type: int = 1):
    """What the kernels make of each packet, in the words of the twin."""
    batch = frames.batch([(0, raw) for raw in packets], link_type=link_type)
    if wire is not None:
        batch = batch.with_columns(wire_length=np.array(wire, np.uint32))
    found = np.asarray(walk(batch)).view(np.recarray)
    rows: list[Header | Fault | Skip] = []
    for i in range(len(found)):
        if found.fault[i] or found.skip[i]:
            assert not (found.fault[i] and found.skip[i])
            rows.append(Fault(found.fault[i]) if found.fault[i] else Skip(found.skip[i]))
            continue
        at, length = int(found.payload_at[i]), int(found.payload_captured[i])
        is_tcp = found.transport[i] == 6
        rows.append(
            Header(
                address(int(found.source_hi[i]), int(found.source_lo[i])),
                address(int(found.target_hi[i]), int(found.target_lo[i])),
                "tcp" if is_tcp else "udp",
                int(found.source_port[i]),
                int(found.target_port[i]),
                batch.data[at : at + length].tobytes(),
                int(found.payload_length[i]),
                int(found.tcp_flags[i]) if is_tcp else 0,
                int(found.sequence[i]) if is_tcp else 0,
                int(found.acknowledged[i]) if is_tcp else 0,
            )
        )
    return rows


def mapped(row):
    """A twin's header, IPv4-mapped IPv6 addresses written as the kernels hold them."""
    if not isinstance(row, Header):
        return row
    found = [ipaddress.ip_address(text) for text in (row.source, row.target)]
    texts = [str(getattr(a, "ipv4_mapped", None) or a) for a in found]
    return replace(row, source=texts[0], target=texts[1])


@st.composite
def packets(draw) -> bytes:
    """Frames that are mostly well-formed, with bytes changed and ends cut off."""
    payload = draw(st.binary(max_size=40))
    v6 = draw(st.booleans())
    ends = (frames.CLIENT6, frames.SERVER6) if v6 else (frames.CLIENT, frames.SERVER)
    if draw(st.booleans()):
        options = bytes(4 * draw(st.integers(0, 3)))
        head = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, (5 + len(options) // 4) << 4, 24, 5, 0, 0)
        protocol, inner = 6, head + options + payload
    else:
        protocol, inner = 17, struct.pack(">HHHH", 1, 2, 8 + len(payload), 0) + payload
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from([0, 43, 60, 44, 51, 135]))
        size = draw(st.integers(0, 2))
        length = 8 if kind == 44 else (size + 2) * 4 if kind == 51 else (size + 1) * 8
        inner = bytes([protocol, 0 if kind == 44 else size]) + bytes(length - 2) + inner
        protocol = kind
        if not v6 and kind != 51:
            break
    packet = frames.ip(*ends, protocol, inner)
    for _ in range(draw(st.integers(0, 2))):
        tunnel = 4 if packet[0] >> 4 == 4 else 41
        packet = frames.ip("203.0.113.1", "203.0.113.2", tunnel, packet)
    raw = bytearray(frames.ethernet(packet, draw(st.lists(st.integers(0, 4095), max_size=3))))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=2)):
        if at < len(raw):
            raw[at] = byte
    return bytes(raw[: draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])


@given(
    st.lists(st.tuples(packets(), st.integers(-60, 60)), min_size=1, max_size=8),
    st.sampled_from(LINK_TYPES),
)
@example([(frames.tcp(b"x"), 0)], 1)
def test_kernels_walk_as_the_twin_does(drawn, link_type):
    raws = [raw if link_type == 1 else raw[14:] for raw, _ in drawn]
    wire = [max(0, len(raw) + more) for raw, (_, more) in zip(raws, drawn, strict=True)]
    expected = [walk_headers(r, w, link_type) for r, w in zip(raws, wire, strict=True)]
    assert walked(raws, wire, link_type) == [mapped(row) for row in expected]


@given(st.lists(st.binary(max_size=120), min_size=1, max_size=8), st.sampled_from(LINK_TYPES))
def test_any_bytes_give_a_row_a_fault_or_a_skip(raws, link_type):
    expected = [mapped(walk_headers(raw, len(raw), link_type)) for raw in raws]
    assert walked(raws, None, link_type) == expected


@given(st.binary(max_size=60), st.booleans(), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_dpkt_reads_the_same(payload, v6, port, server_port):
    ends = {"client": frames.CLIENT6, "server": frames.SERVER6} if v6 else {}
    raw = frames.tcp(payload, seq=7, ack=9, flags=24, port=port, server_port=server_port, **ends)
    (row,) = walked([raw])
    packet = dpkt.ethernet.Ethernet(raw).data
    segment = packet.data
    assert isinstance(row, Header)
    assert ipaddress.ip_address(packet.src) == ipaddress.ip_address(row.source)
    assert ipaddress.ip_address(packet.dst) == ipaddress.ip_address(row.target)
    assert (segment.sport, segment.dport) == (row.source_port, row.target_port)
    assert (segment.seq, segment.ack, segment.flags) == (
        row.sequence,
        row.acknowledged,
        row.tcp_flags,
    )
    assert bytes(segment.data) == row.payload == payload


def test_padding_is_no_payload():
    (row,) = walked([frames.tcp(b"hi") + bytes(20)])
    assert row.payload == b"hi"


def test_what_the_capture_cut_off_is_not_there_but_counted():
    raw = frames.tcp(b"a long payload")
    (row,) = walked([raw[:-4]], [len(raw)])
    assert row.payload == b"a long pay"
    assert row.payload_length == len(b"a long payload")


def test_a_segment_that_the_card_would_have_cut_has_no_length_of_its_own():
    raw = bytearray(frames.tcp(b"much"))
    raw[16:18] = b"\0\0"
    (row,) = walked([bytes(raw)])
    assert row.payload == b"much"


@pytest.mark.parametrize("tags", [(), (5,), (5, 6), (1, 2, 3, 4, 5, 6, 7, 8)])
def test_tags_are_taken_off(tags):
    (row,) = walked([frames.tcp(b"x", tags=tags)])
    assert row.payload == b"x"


@pytest.mark.parametrize("tag", [0x8100, 0x88A8, 0x9100])
def test_every_kind_of_tag_is_known(tag):
    raw = bytearray(frames.tcp(b"x", tags=(9,)))
    raw[12:14] = tag.to_bytes(2, "big")
    assert isinstance(walked([bytes(raw)])[0], Header)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (frames.tcp(tags=range(1, 10)), Fault.NESTING_TOO_DEEP),
        (frames.ethernet(frames.ip(frames.CLIENT, frames.SERVER, 1, bytes(8))), Skip.NOT_TCP_OR_UDP),
        (frames.ethernet(frames.ip(frames.CLIENT, frames.SERVER, 47, bytes(8))), Fault.ENCAPSULATION_UNKNOWN),
        (frames.tcp()[:12] + b"\x08\x06" + bytes(28), Skip.NOT_IP),
        (frames.tcp()[:12] + b"\x88\x64" + bytes(28), Fault.ENCAPSULATION_UNKNOWN),
        (frames.tcp()[:12] + b"\x12\x34" + bytes(28), Fault.ETHERTYPE_UNKNOWN),
        (frames.tcp()[:30], Fault.PACKET_TRUNCATED),
        (frames.tcp()[:14] + b"\x55" + frames.tcp()[15:], Fault.IP_HEADER_BAD),
        (frames.tcp()[:16] + b"\0\x07" + frames.tcp()[18:], Fault.IP_LENGTH_BAD),
        (frames.tcp()[:20] + b"\x20\0" + frames.tcp()[22:], Fault.FRAGMENT),
        (frames.tcp()[:46] + b"\x40" + frames.tcp()[47:], Fault.TCP_HEADER_BAD),
        (frames.udp(b"")[:38] + b"\0\x03\0\0", Fault.UDP_HEADER_BAD),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_why(raw, word):
    assert walked([raw]) == [word]


def test_ip_in_ip_counts_by_its_innermost_addresses():
    inner = frames.tcp(b"x", client=frames.CLIENT6, server=frames.SERVER6)[14:]
    (row,) = walked([frames.ethernet(frames.ip("203.0.113.1", "203.0.113.2", 41, inner))])
    assert (row.source, row.target) == (frames.CLIENT6, frames.SERVER6)


def test_ip_in_ip_without_end_is_given_up():
    packet = frames.ip(frames.CLIENT, frames.SERVER, 6, bytes(20))
    for _ in range(8):
        packet = frames.ip("203.0.113.1", "203.0.113.2", 4, packet)
    assert walked([frames.ethernet(packet)]) == [Fault.NESTING_TOO_DEEP]
