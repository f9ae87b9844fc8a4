"""The client hello of Google's QUIC, which came before RFC 9000 and is met in old captures.

    public header  0 flags: 0x01 version, 0x08 connection id, 0x30 size of the number (up to Q043)
                   1 connection id 8, "Q0.." 4, packet number 1, 2, 4 or 6
    Q044, Q046     long header: 0 first byte, 1 version, 5 lengths of two ids (4 bits each, 0 or 3
                   less), ids, packet number 4 (of Q046 by the low two bits of the first byte)
    both           hash 12, up to Q033 a byte of flags, frames
    STREAM frame   0x80, 0x40 last, 0x20 length is there, 0x1C size of the offset (0 or 1 more),
                   0x03 size of the stream id less 1; id, offset, length 2
    CHLO           "CHLO", number of tags 2, 2 of nothing, for each a tag of 4 and where its value
                   ends in 4 (the least byte first), values; "SNI\\0" is the server name

Nothing of it is sealed; the hash says little, and is not checked. A client hello is padded and fits
one packet. Its frame's length was written in another order up to Q038: there the hello's own says
where it ends. The hello of Q050 is such a CHLO too, in CRYPTO frames of a sealed packet.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.tls_kernels import BAD, NOT_YET, WHOLE
from pipeline.kernels.bytes import be16, be32, le32
from pipeline.kernels.compile import primitive, routine

I64 = np.int64
CHLO, SNI = 0x43484C4F, 0x534E4900
TAGS_MAX = 128
HASH_BYTES = 12
STREAM, HAS_LENGTH = 0x80, 0x20
NO_HELLO = -1


@primitive
def _number_of(data, at):
    """The number of a version "Q0..", or -1."""
    tens, ones = I64(data[at + 2]) - 48, I64(data[at + 3]) - 48
    if be16(data, at) != 0x5130 or not 0 <= tens <= 9 or not 0 <= ones <= 9:
        return I64(-1)
    return tens * 10 + ones


@routine
def after_header(data, start, stop):
    """Where the frames of a client's packet begin; NO_HELLO where it is none of these versions."""
    if stop - start < 14:
        return I64(NO_HELLO)
    first = I64(data[start])
    if first & 0x80 == 0:
        version = _number_of(data, start + 9)
        if first & 0x09 != 0x09 or not 0 <= version <= 43:
            return I64(NO_HELLO)
        size = (first >> 4) & 3
        at = start + 13 + (1 if size == 0 else 2 * size) + HASH_BYTES
        return at + 1 if version <= 33 else at
    version = _number_of(data, start + 1)
    if version != 44 and version != 46:
        return I64(NO_HELLO)
    at = I64(start + 6)
    for four in (I64(data[start + 5]) >> 4, I64(data[start + 5]) & 15):
        if four > 0:
            at += four + 3
    return at + (4 if version == 44 else (first & 3) + 1) + HASH_BYTES


@routine
def find_chlo(data, at, stop):
    """Where the CHLO in the first STREAM frame begins, or NO_HELLO; padding and pings may come
    before.
    """
    while at < stop and (data[at] == 0 or data[at] == 7):
        at += 1
    if at >= stop or data[at] & STREAM == 0:
        return I64(NO_HELLO)
    kind = I64(data[at])
    offset = (kind >> 2) & 7
    at += 2 + (kind & 3) + (offset + 1 if offset > 0 else 0)
    if kind & HAS_LENGTH:
        at += 2
    return at if at + 4 <= stop and be32(data, at) == CHLO else I64(NO_HELLO)


@routine
def chlo_length(data, at, stop):
    """How long the CHLO at `at` is: its length, 0 while that is not known, -1 for none."""
    if at + 4 <= stop and be32(data, at) != CHLO:
        return I64(-1)
    if at + 8 > stop:
        return I64(0)
    tags = I64(data[at + 4]) | (I64(data[at + 5]) << 8)
    if not 1 <= tags <= TAGS_MAX:
        return I64(-1)
    if at + 8 + 8 * tags > stop:
        return I64(0)
    return 8 + 8 * tags + le32(data, at + 4 + 8 * tags)


@routine
def read_chlo(data, at, stop, hello):
    """Find the name in the CHLO `data[at:stop]`: WHOLE, NOT_YET where bytes are missing, or BAD."""
    hello.name_at = hello.name_stop = hello.alpn_at = hello.alpn_stop = 0
    length = chlo_length(data, at, stop)
    if length < 0:
        return BAD
    if length == 0 or at + length > stop:
        return NOT_YET
    tags = I64(data[at + 4]) | (I64(data[at + 5]) << 8)
    values = at + 8 + 8 * tags
    begin = I64(0)
    for k in range(tags):
        entry = at + 8 + 8 * k
        end = le32(data, entry + 4)
        if end < begin or values + end > stop:
            return BAD
        if be32(data, entry) == SNI:
            hello.name_at = values + begin
            hello.name_stop = values + end
        begin = end
    return WHOLE
