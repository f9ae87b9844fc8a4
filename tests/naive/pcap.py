"""Classic captures, one record at a time, by the text of pcap-savefile(5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

MAGICS = {0xA1B2C3D4: (16, 1000), 0xA1B23C4D: (16, 1), 0xA1B2CD34: (24, 1000)}
LONGEST = 1 << 18


@dataclass
class Capture:
    """What is in a file: (time_ns, wire length, bytes) of each packet, and what is wrong with it."""

    link_type: int = 0
    packets: list[tuple[int, int, bytes]] = field(default_factory=list)
    fault: str = ""
    strange: int = 0  # fractions that are more than a second


def frame_pcap(raw: bytes) -> Capture:
    """Read a whole file."""
    for order in "<>":
        magic = struct.unpack(order + "I", raw[:4])[0] if len(raw) >= 4 else 0
        if magic in MAGICS:
            break
    else:
        return Capture(fault="file_not_recognised")
    header_bytes, tick_ns = MAGICS[magic]
    if len(raw) < 24:
        return Capture(fault="file_truncated")
    capture = Capture(link_type=struct.unpack(order + "I", raw[20:24])[0] & 0xFFFF)
    at = 24
    while at < len(raw):
        header = raw[at : at + header_bytes]
        if len(header) < header_bytes:
            capture.fault = "file_truncated"
            break
        seconds, fraction, captured, wire = struct.unpack(order + "IIII", header[:16])
        if captured > LONGEST:
            capture.fault = "record_header_bad"
            break
        packet = raw[at + header_bytes : at + header_bytes + captured]
        if len(packet) < captured:
            capture.fault = "file_truncated"
            break
        time_ns = seconds * 10**9 + min(fraction * tick_ns, 10**9 - 1)
        capture.strange += fraction * tick_ns >= 10**9
        capture.packets.append((time_ns, wire, packet))
        at += header_bytes + captured
    return capture
