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

from pipeline.classify.fragments_kernels import JOINED
from pipeline.classify.headers import walk
from pipeline.model.faults import Fault, Skip
from tests.classify import frames
from tests.classify.wrappings import (
    FRAME,
    LINKS,
    MACS,
    WRAPPINGS,
    l2tp3,
    piece,
    ppp,
    pppoe,
    tagged,
    udp,
)
from tests.naive.headers import Fragment, Header, walk_headers

LINK_TYPES = (*LINKS, 228, 229, 105, 147)


def address(hi: int, lo: int) -> str:
    """The text of an address held in two words."""
    if hi == 0 and lo >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(lo & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(hi << 64 | lo))


def realm(number: int) -> tuple[int, ...]:
    """The VLAN ids in a row's realm."""
    return tuple(half & 0xFFF for half in (number >> 16, number & 0xFFFF) if half & 0x1000)


def walked(
    packets: list[bytes],
    wire: list[int] | None = None,
    link_type: int = 1,
    stripped: list[int] | None = None,
):
    """What the kernels make of each packet, in the words of the twin."""
    batch = frames.batch([(0, raw) for raw in packets], link_type=link_type)
    if wire is not None:
        batch = batch.with_columns(wire_length=np.array(wire, np.uint32))
    if stripped is not None:
        batch = batch.with_columns(stripped_vlan=np.array(stripped, np.int32))
    heads, _ = walk(batch)
    return rows_of(heads, batch.data)


def rows_of(heads, data, joined=None):
    """HEADER records in the words of the twin."""
    found = np.asarray(heads).view(np.recarray)
    rows: list[Header | Fragment | Fault | Skip] = []
    for i in range(len(found)):
        if found.fault[i] or found.skip[i]:
            assert not (found.fault[i] and found.skip[i])
            rows.append(Fault(found.fault[i]) if found.fault[i] else Skip(found.skip[i]))
            continue
        at, length = int(found.payload_at[i]), int(found.payload_captured[i])
        buffer = data if at < JOINED else joined
        payload = buffer[at % JOINED : at % JOINED + length].tobytes()
        tags, is_tcp = realm(int(found.realm[i])), found.transport[i] == 6
        ends = (
            address(int(found.source_hi[i]), int(found.source_lo[i])),
            address(int(found.target_hi[i]), int(found.target_lo[i])),
        )
        if found.transport[i] == 44:
            place, head = int(found.acknowledged[i]), found[i]
            rows.append(
                Fragment(
                    *ends,
                    int(head.tcp_flags),
                    int(head.source_port),
                    int(head.sequence),
                    place & ~1,
                    bool(place & 1),
                    payload,
                    int(head.target_port),
                    tags,
                )
            )
            continue
        assert found.transport[i] in (6, 17)
        rows.append(
            Header(
                *ends,
                "tcp" if is_tcp else "udp",
                int(found.source_port[i]),
                int(found.target_port[i]),
                payload,
                int(found.payload_length[i]),
                int(found.tcp_flags[i]) if is_tcp else 0,
                int(found.sequence[i]) if is_tcp else 0,
                int(found.acknowledged[i]) if is_tcp else 0,
                tags,
            )
        )
    return rows


def mapped(row):
    """A twin's header, IPv4-mapped IPv6 addresses written as the kernels hold them."""
    if not isinstance(row, Header | Fragment):
        return row
    found = [ipaddress.ip_address(text) for text in (row.source, row.target)]
    texts = [str(getattr(a, "ipv4_mapped", None) or a) for a in found]
    return replace(row, source=texts[0], target=texts[1])


@st.composite
def segments(draw) -> bytes:
    """IP packets that are mostly well-formed, with extension headers."""
    payload = draw(st.binary(max_size=40))
    v6 = draw(st.booleans())
    ends = (frames.CLIENT6, frames.SERVER6) if v6 else (frames.CLIENT, frames.SERVER)
    if draw(st.booleans()):
        options = bytes(4 * draw(st.integers(0, 3)))
        head = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, (5 + len(options) // 4) << 4, 24, 5, 0, 0)
        protocol, inner = 6, head + options + payload
    else:
        port = draw(
            st.sampled_from([2, 2, 4789, 2152, 1701, 6081, 37008, 4790, 4341, 3544, 4754, 6635])
        )
        protocol, inner = 17, struct.pack(">HHHH", 1, port, 8 + len(payload), 0) + payload
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from([0, 43, 60, 44, 51, 135, 139, 140]))
        size = draw(st.integers(0, 2))
        length = 8 if kind == 44 else (size + 2) * 4 if kind == 51 else (size + 1) * 8
        inner = bytes([protocol, 0 if kind == 44 else size]) + bytes(length - 2) + inner
        protocol = kind
        if not v6 and kind != 51:
            break
    return frames.ip(*ends, protocol, inner)


@st.composite
def packets(draw) -> tuple[int, bytes, int]:
    """Nestings of all encapsulations: (link type, captured, length on the wire).

    Bytes are changed, ends cut off, and both lengths lie.
    """
    inner, is_frame, names = draw(segments()), False, list(WRAPPINGS)
    for _ in range(draw(st.integers(0, 4))):
        takes, gives, wrap = WRAPPINGS[draw(st.sampled_from(names))]
        if (takes == FRAME) != is_frame:
            inner = tagged(inner) if takes == FRAME else inner[14:]
            if takes != FRAME and inner[:1] and inner[0] >> 4 not in (4, 6):
                inner = draw(segments())
        inner, is_frame = wrap(inner), gives == FRAME
    link_type = draw(st.sampled_from(list(LINKS)))
    takes, link = LINKS[link_type]
    if takes == FRAME and not is_frame:
        inner = tagged(inner)
    elif takes != FRAME and is_frame:
        link_type, link = 1, LINKS[1][1]
    raw = bytearray(link(inner))
    changes = st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255))
    for at, byte in draw(st.lists(changes, max_size=2)):
        raw[at] = byte
    captured = draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    wire = draw(st.sampled_from([len(raw), captured, captured // 2, len(raw) + 60]))
    return link_type, bytes(raw[:captured]), wire


@given(st.lists(packets(), min_size=1, max_size=8), st.integers(-1, 4095))
@example([(1, frames.tcp(b"x"), 0)], -1)
def test_kernels_walk_as_the_twin_does(drawn, stripped):
    for link_type, raw, wire in drawn:
        expected = walk_headers(raw, wire, link_type, stripped)
        assert walked([raw], [wire], link_type, [stripped]) == [mapped(expected)]


@pytest.mark.parametrize("name", WRAPPINGS)
@pytest.mark.parametrize("v6", [False, True])
def test_every_wrapping_is_walked_through(name, v6):
    ends = (frames.CLIENT6, frames.SERVER6) if v6 else (frames.CLIENT, frames.SERVER)
    said = b"GET / HTTP/1.1\r\nHost: inner.example\r\n\r\n"
    head = struct.pack(">HHIIBBHHH", 40000, 80, 3, 4, 5 << 4, 24, 5, 0, 0)
    packet = frames.ip(*ends, 6, head + said)
    takes, gives, wrap = WRAPPINGS[name]
    wrapped = wrap(tagged(packet, (0x8100, 77)) if takes == FRAME else packet)
    frame = wrapped if gives == FRAME else tagged(wrapped)
    (row,) = walked([frame])
    assert isinstance(row, Header), row
    assert (row.source, row.target, row.source_port) == (*ends, 40000)
    assert row.payload == said
    assert walk_headers(frame, len(frame), 1) == row
    # Whatever is cut off, what is left is never read as whole, and never as somebody else's.
    for captured in range(len(frame)):
        (cut,) = walked([frame[:captured]], [len(frame)])
        assert mapped(walk_headers(frame[:captured], len(frame), 1)) == cut
        if isinstance(cut, Header) and cut.transport == "tcp":
            assert cut.payload_length == len(said)
            assert said.startswith(cut.payload)
            assert len(cut.payload) < len(said)


def test_a_fragment_tells_where_it_belongs():
    packet = frames.tcp(bytes(range(40)))[14:]
    frame = tagged(WRAPPINGS["gre"][2](piece(packet, 16, 40, True, 77)), (0x8100, 5))
    expected = Fragment(frames.CLIENT, frames.SERVER, 4, 6, 77, 16, True, packet[36:60], 3, (5,))
    assert walked([frame]) == [expected]
    (cut,) = walked([frame[:-1]], [len(frame)])
    assert cut == Fault.PACKET_TRUNCATED


def test_an_atomic_fragment_is_a_packet():
    packet = frames.tcp(b"x", client=frames.CLIENT6, server=frames.SERVER6)[14:]
    (row,) = walked([tagged(piece(packet, 0, 99, False, 77))])
    assert isinstance(row, Header)
    assert row.payload == b"x"


@pytest.mark.parametrize("link_type", LINKS)
@pytest.mark.parametrize("v6", [False, True])
def test_every_link_type_leads_to_its_packets(link_type, v6):
    ends = {"client": frames.CLIENT6, "server": frames.SERVER6} if v6 else {}
    frame = frames.tcp(b"x", **ends)
    takes, link = LINKS[link_type]
    (row,) = walked([link(frame if takes == FRAME else frame[14:])], None, link_type)
    assert isinstance(row, Header), row
    assert row.source == (frames.CLIENT6 if v6 else frames.CLIENT)
    assert row.payload == b"x"


@pytest.mark.parametrize("family", [2, 10, 23, 24, 28, 30])
def test_loopback_is_read_in_either_byte_order(family):
    ends = {"client": frames.CLIENT6, "server": frames.SERVER6} if family > 2 else {}
    packet = frames.tcp(b"x", **ends)[14:]
    for order in ("little", "big"):
        (row,) = walked([family.to_bytes(4, order) + packet], None, 0)
        assert isinstance(row, Header)


def test_arcnet_of_either_kind_and_what_is_no_packet_of_it():
    packet = frames.tcp(b"x")[14:]
    for start, found in (
        (b"\xbe\x50\0\0\xf0", None), (b"\xbe\x50\0\0\xd4\0\1\2", None),
        (b"\xbe\x50\0\0\xf1", Skip.NOT_IP), (b"\xbe\x50\0\0\xd5\0\1\2", Skip.NOT_IP),
        (b"\xbe\x50\0\0\xd4\3\1\2", Fault.ENCAPSULATION_UNKNOWN),
        (b"\xbe\x50\0\0\x42", Fault.ETHERTYPE_UNKNOWN),
    ):  # fmt: skip
        (row,) = walked([start + packet], None, 129)
        assert row == found if found else isinstance(row, Header)
    assert walked([b"\xbe\x50\0\0"], None, 129) == [Fault.PACKET_TRUNCATED]


@pytest.mark.parametrize("link_type", [105, 127, 147, 195, 65535])
def test_other_links_are_a_named_fault(link_type):
    assert walked([frames.tcp(b"x")], None, link_type) == [Fault.LINK_TYPE_UNKNOWN]


def test_what_is_no_tunnel_is_a_plain_datagram():
    for port in (4789, 8472, 6081, 2152, 1701, 37008, 4790, 4341, 3544, 4754, 6635):
        for payload in (b"", b"\x08", b"hello, this is no tunnel at all", b"\x08" + b"\x11" * 60):
            frame = tagged(
                WRAPPINGS["gtp"][2](b"")[:20]
                + struct.pack(">HHHH", 9, port, 8 + len(payload), 0)
                + payload
            )
            frame = frame[:16] + (len(frame) - 14).to_bytes(2, "big") + frame[18:]
            (row,) = walked([frame])
            assert isinstance(row, Header), (port, payload, row)
            assert (row.transport, row.target_port, row.payload) == ("udp", port, payload)


@pytest.mark.parametrize(("port", "before"), [(4341, bytes(8)), (3544, b""), (6635, b"\0\0\x11\0")])
@pytest.mark.parametrize("first", [0x45, 0x60])
def test_behind_a_header_that_says_little_the_lengths_of_ip_have_to_agree(port, before, first):
    """A QUIC datagram may have any bytes there, and its hello would be lost."""
    for fill in (b"\x11", b"\xff", b"\x05"):
        said = before + bytes([first]) + fill * 60
        (row,) = walked([tagged(udp(port, said))])
        assert isinstance(row, Header), row
        assert (row.target_port, row.payload) == (port, said)


def test_gre_that_a_datagram_was_cut_in_is_cut_and_no_plain_datagram():
    frame = tagged(WRAPPINGS["gre in udp"][2](frames.tcp(b"x")[14:]))
    for version, there, found in ((0, 10, True), (0, 11, True), (1, 10, False)):
        raw = bytearray(frame)
        raw[42:44] = bytes([0x37, version])
        (row,) = walked([bytes(raw[: 42 + there])], [len(raw)])
        assert (row == Fault.PACKET_TRUNCATED) is found
        assert walk_headers(bytes(raw[: 42 + there]), len(raw), 1) == row


@pytest.mark.parametrize("over_udp", [False, True])
@pytest.mark.parametrize("cookie", [0, 4, 8, 12])
def test_what_is_behind_a_cookie_is_found_or_is_a_named_fault(over_udp, cookie):
    packet = frames.tcp(b"x")[14:]

    def found(inner, captured=None):
        frame = tagged(l2tp3(inner, cookie, over_udp))
        (row,) = walked([frame[:captured]], [len(frame)])
        assert mapped(walk_headers(frame[:captured], len(frame), 1)) == row
        return row.source if isinstance(row, Header) else row

    for frame in (tagged(packet), MACS + b"\x88\x64" + pppoe(ppp(packet, control=False))):
        assert found(frame) == found(frame + b"\xde\xad\xbe\xef") == frames.CLIENT
    assert found(MACS + b"\x08\x06\0\1\x08\0\6\4" + bytes(20)) == Skip.NOT_IP
    spanning_tree = MACS + b"\0\x26\x42\x42\3" + bytes(35)
    for more in (0, 8, 4):  # filled up, and with a check sum
        assert found(spanning_tree + bytes(more)) == Skip.NOT_IP
    for control in (b"\xff\3", b""):
        assert found(control + b"\xc0\x21\x09\1\0\x08magi") == Skip.NOT_IP
    assert found(b"\xff\3\xc0\x21\x09\1\0\x09magi") == Fault.ENCAPSULATION_UNKNOWN
    assert found(b"\x55" * 60) == Fault.ENCAPSULATION_UNKNOWN
    assert found(b"\x55" * 60, 70) == Fault.PACKET_TRUNCATED


def test_a_tunnel_is_known_by_the_port_of_either_side():
    packet = frames.tcp(b"x")[14:]
    frame = bytearray(tagged(WRAPPINGS["gtp"][2](packet)))
    frame[34:38] = struct.pack(">HH", 2152, 40001)
    (row,) = walked([bytes(frame)])
    assert row.source == frames.CLIENT


def test_the_two_outermost_tags_are_the_realm():
    packet = frames.tcp(b"x")[14:]
    inside = tagged(packet, (0x8100, 30), (0x8100, 31))
    outside = WRAPPINGS["vxlan"][2](inside)
    assert walked([tagged(packet)])[0].realm == ()
    assert walked([tagged(packet, (0x8100, 0xE005))])[0].realm == (5,)
    assert walked([tagged(packet, (0x88A8, 0), (0x8100, 9), (0x8100, 8))])[0].realm == (0, 9)
    assert walked([tagged(outside)])[0].realm == (30, 31)
    assert walked([tagged(outside, (0x9100, 4))])[0].realm == (4, 30)
    assert walked([tagged(outside, (0x9100, 4))], stripped=[12])[0].realm == (12, 4)
    assert walked([tagged(packet)], stripped=[4095])[0].realm == (4095,)
    assert walked([tagged(packet)], stripped=[-1])[0].realm == ()


@pytest.mark.parametrize("name", ["ip in ip", "gre", "gtp", "l2tp", "pptp"])
def test_nesting_ends_at_a_named_fault(name):
    packet = frames.tcp(b"x")[14:]
    for _ in range(64):
        packet = WRAPPINGS[name][2](packet)
    assert walked([tagged(packet)]) == [Fault.NESTING_TOO_DEEP]


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
        (frames.ethernet(frames.ip(frames.CLIENT, frames.SERVER, 47, b"\x40" + bytes(7))), Fault.ENCAPSULATION_UNKNOWN),
        (frames.tcp()[:12] + b"\x08\x06" + bytes(28), Skip.NOT_IP),
        (frames.tcp()[:12] + b"\x88\x64" + bytes(28), Fault.ENCAPSULATION_UNKNOWN),
        (frames.ethernet(frames.ip(frames.CLIENT, frames.SERVER, 50, bytes(8))), Skip.NOT_TCP_OR_UDP),
        (frames.ethernet(frames.ip(frames.CLIENT, frames.SERVER, 200, bytes(8))), Fault.PROTOCOL_UNKNOWN),
        (frames.tcp()[:12] + b"\x12\x34" + bytes(28), Fault.ETHERTYPE_UNKNOWN),
        (frames.tcp()[:30], Fault.PACKET_TRUNCATED),
        (frames.tcp()[:14] + b"\x55" + frames.tcp()[15:], Fault.IP_HEADER_BAD),
        (frames.tcp()[:16] + b"\0\x07" + frames.tcp()[18:], Fault.IP_LENGTH_BAD),
        (frames.tcp()[:20] + b"\x20\0" + frames.tcp()[22:], Fault.IP_LENGTH_BAD),
        (frames.tcp()[:20] + b"\x1f\xff" + frames.tcp()[22:], Fault.IP_LENGTH_BAD),
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


def test_sixteen_headers_in_each_other_are_read_and_no_more():
    packet = frames.tcp(b"x")[14:]
    for _ in range(14):
        packet = frames.ip("203.0.113.1", "203.0.113.2", 4, packet)
    assert isinstance(walked([frames.ethernet(packet)])[0], Header)
    packet = frames.ip("203.0.113.1", "203.0.113.2", 4, packet)
    assert walked([frames.ethernet(packet)]) == [Fault.NESTING_TOO_DEEP]
