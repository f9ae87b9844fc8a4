"""The header by which a proxy tells a server whose connection it passes on, in front of what the
client says itself (HAProxy's PROXY protocol, versions 1 and 2).

    1   "PROXY " and "TCP4 ", "TCP6 " or "UNKNOWN", then what is there up to CR LF; 107 bytes
    2   0 0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A, 12 version (upper half, 2) and command, 13 family,
        14 length of what follows

Whom it names is not asked: it is there so that what stands behind it is found.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.bytes import be16
from pipeline.kernels.compile import primitive, routine

I64 = np.int64
LINE_BYTES_MAX = 107
HEADER_BYTES = 16
NO_PROXY, UNFINISHED = -1, 0


def _word(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


SIGNATURE = _word(b"\r\n\r\n\0\r\nQUIT\n")
BEGINNINGS = _word(b"PROXY TCP4 PROXY TCP6 PROXY UNKNO")  # of lines, eleven letters each
BEGINNING_BYTES = 11


@primitive
def is_signed(data, start, stop):
    """Does version 2 begin here, as far as there are bytes?"""
    if stop == start or data[start] != SIGNATURE[0]:
        return False
    for k in range(min(stop - start, len(SIGNATURE))):
        if data[start + k] != SIGNATURE[k]:
            return False
    return True


@routine
def after_proxy(data, start, stop):
    """Where the header that stands at `start` ends, perhaps beyond `stop`; UNFINISHED where more is
    needed to tell, NO_PROXY where there is none. A line that has not ended is NO_PROXY: it could be
    a request's.
    """
    if is_signed(data, start, stop):
        if stop - start <= 4:  # empty lines before a request
            return I64(NO_PROXY)
        if stop - start < HEADER_BYTES:
            return I64(UNFINISHED)
        if I64(data[start + 12]) >> 4 != 2:
            return I64(NO_PROXY)
        return start + HEADER_BYTES + be16(data, start + 14)
    if stop - start < BEGINNING_BYTES or data[start] != BEGINNINGS[0]:
        return I64(NO_PROXY)
    for first in range(0, len(BEGINNINGS), BEGINNING_BYTES):
        same = True
        for k in range(BEGINNING_BYTES):
            same = same and data[start + k] == BEGINNINGS[first + k]
        if same:
            return _line_stop(data, start, min(stop, start + LINE_BYTES_MAX))
    return I64(NO_PROXY)


@routine
def _line_stop(data, start, stop):
    """Where the line ends, behind its line feed."""
    for at in range(start + BEGINNING_BYTES, stop):
        if data[at] == 10:
            return at + 1 if data[at - 1] == 13 else I64(NO_PROXY)
    return I64(NO_PROXY)
