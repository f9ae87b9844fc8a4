"""QUIC packets with a long header, the Initial's seal, and its frames (RFC 9000, 17 and 19).

    long header  0 first byte: 0x80, 0x30 type; 1 version 4; destination id <1>, source id <1>
    Initial      token <v>, length v, packet number 1-4, sealed frames and their tag
    0-RTT, Handshake   length v, and the rest;  Retry and version negotiation end a datagram
    frames       0 padding, 1 ping, 2-3 acknowledgement, 6 CRYPTO: offset v, data <v>, 0x1c-0x1d
                 close

(v: an integer of 1, 2, 4 or 8 bytes, <v> or <n> a vector after its length.) Version 2 numbers the
types anew and has another salt (RFC 9369, 3.2). Reserved versions (RFC 9000, 15) are sealed as
version 1; Facebook's follow draft 27, but for the first of them and its alias of version 1;
Google's Q050, T050 and T051 have salts and frame numbers of their own. The bits under header
protection are the low four of the first byte and the packet number (RFC 9001, 5.4).
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.bytes import be32, copy_bytes
from pipeline.kernels.compile import primitive, routine
from pipeline.kernels.sealing import (
    DRAFT_22,
    DRAFT_23,
    DRAFT_29,
    Q050,
    T050,
    T051,
    V1,
    V2,
    make_mask,
    open_sealed,
)

I64 = np.int64
NO_SALT = -1
ID_BYTES_MAX = 20
NUMBER_BYTES_MAX, SAMPLE_BYTES, TAG_BYTES = 4, 16, 16

# What `read_long` finds: an Initial; another packet, behind which one may follow; one behind which
# none can; one that says it is longer than its datagram; nonsense.
INITIAL, PASSED_OVER, LAST, TOO_SHORT, BAD_PACKET = range(5)

# What `next_crypto` finds: a CRYPTO frame, the end, nonsense.
CRYPTO, NO_MORE, BAD_FRAME = range(3)


@routine
def salt_of(version):
    """The salt a version's Initials are sealed with, NO_SALT for one we do not know."""
    if version == 1 or version & 0x0F0F0F0F == 0x0A0A0A0A:
        return V1
    if version == 0x6B3343CF:
        return V2
    if version >> 8 == 0xFF0000:
        draft = version & 0xFF
        if 23 <= draft <= 28:
            return DRAFT_23
        if 29 <= draft <= 32:
            return DRAFT_29
        if draft == 22:
            return DRAFT_22
        return V1 if 33 <= draft <= 34 else NO_SALT
    if version == 0xFACEB001:
        return DRAFT_22
    if version >> 8 == 0xFACEB0:
        return V1 if version == 0xFACEB003 else DRAFT_23
    if version == 0x51303530:
        return Q050
    if version == 0x54303530:
        return T050
    return T051 if version == 0x54303531 else NO_SALT


@routine
def _is_negotiation(data, at, stop):
    """Are there two ids and then at least one whole version (RFC 9000, 17.2.1)?"""
    for _ in range(2):
        ids = at + 5
        if ids >= stop:
            return False
        at += 1 + I64(data[ids])
    versions = stop - at - 5
    return versions > 0 and versions % 4 == 0


@primitive
def is_quic(data, at, length):
    """Does a datagram begin with a long header of a version that exists (RFC 8999, 9000, 9369), or
    negotiate one?
    """
    if length < 7 or data[at] & 0x80 == 0:
        return False
    version = be32(data, at + 1)
    if version == 0:
        return _is_negotiation(data, at, at + length)
    return (
        version == 1
        or version == 0x6B3343CF
        or version >> 8 == 0xFF0000  # drafts
        or version & 0x0F0F0F0F == 0x0A0A0A0A  # reserved, to keep servers honest
        or version >> 16 == 0x5130  # Google's own
        or version >> 16 == 0x5430
        or version >> 8 == 0xFACEB0
    )


@routine
def read_varint(data, at, stop):
    """(the integer at `at`, where it ends), -1 for one that goes beyond `stop` (RFC 9000, 16)."""
    if at >= stop:
        return I64(0), I64(-1)
    first = I64(data[at])
    length = 1 << (first >> 6)
    if at + length > stop:
        return I64(0), I64(-1)
    value = first & 0x3F
    for i in range(at + 1, at + length):
        value = (value << 8) | I64(data[i])
    return value, at + length


@routine
def read_long(data, at, stop, long):
    """Read the long header at `at`, of which `is_quic` is true; one of INITIAL to BAD_PACKET.

    `long` gets version, salt, place of the destination id, of the packet number (of an Initial) and
    the packet's end.
    """
    if at + 7 > stop:
        return TOO_SHORT
    version = be32(data, at + 1)
    long.version = version
    long.salt = salt_of(version)
    if long.salt == NO_SALT:
        return LAST
    long.ids_at = at + 6
    long.ids_length = I64(data[at + 5])
    after = long.ids_at + long.ids_length
    if long.ids_length > ID_BYTES_MAX:
        return BAD_PACKET
    if after >= stop:
        return TOO_SHORT
    if data[after] > ID_BYTES_MAX:
        return BAD_PACKET
    after += 1 + I64(data[after])
    kind = (I64(data[at]) >> 4) & 3
    if long.salt == V2:
        kind = (kind + 3) & 3
    if kind == 3:
        return LAST
    if kind == 0:
        token, after = read_varint(data, after, stop)
        if after < 0 or token > stop - after:
            return TOO_SHORT
        after += token
    length, after = read_varint(data, after, stop)
    if after < 0 or length > stop - after:
        return TOO_SHORT
    long.number_at = after
    long.stop = after + length
    if kind != 0:
        return PASSED_OVER
    return INITIAL if length >= NUMBER_BYTES_MAX + SAMPLE_BYTES else BAD_PACKET


@routine
def says_initial(data, at, stop):
    """Does a packet with a long header, perhaps cut off, say that it is an Initial of a version we
    open (RFC 9000, 17.2; RFC 9369, 3.2)?
    """
    if at + 5 > stop:
        return False
    salt = salt_of(be32(data, at + 1))
    kind = (I64(data[at]) >> 4) & 3
    return salt != NO_SALT and kind == (1 if salt == V2 else 0)


@routine
def full_number(largest, truncated, bits):
    """A packet number from its low bits, nearest to the one after `largest` (RFC 9000, A.3)."""
    expected = largest + 1
    window = I64(1) << bits
    found = (expected & ~(window - 1)) | truncated
    if found <= expected - window // 2:
        return found + window
    if found > expected + window // 2 and found >= window:
        return found - window
    return found


@routine
def open_initial(cipher, data, at, long, largest, plain):
    """Open the Initial at `at` with the keys that are set, into `plain`: (length or -1, number)."""
    make_mask(cipher, data, long.number_at + NUMBER_BYTES_MAX)
    first = I64(data[at]) ^ (I64(cipher.mask[0]) & 0x0F)
    size = (first & 3) + 1
    body = long.number_at + size
    copy_bytes(data, at, body, cipher.header, 0)
    cipher.header[0] = first
    truncated = I64(0)
    for i in range(size):
        letter = I64(data[long.number_at + i]) ^ I64(cipher.mask[1 + i])
        cipher.header[long.number_at + i - at] = letter
        truncated = (truncated << 8) | letter
    number = full_number(largest, truncated, 8 * size)
    if not open_sealed(cipher, body - at, number, data, body, long.stop, plain):
        return I64(-1), number
    return long.stop - body - TAG_BYTES, number


@routine
def next_crypto(plain, at, stop, long):
    """Go on from frame to frame to the next CRYPTO: (CRYPTO, NO_MORE or BAD_FRAME, where to go on).

    `long` gets offset and place of its data.
    """
    google = long.salt >= Q050
    while at < stop:
        kind = I64(plain[at])
        at += 1
        if kind == 0:  # seldom alone
            while at < stop and plain[at] == 0:
                at += 1
            continue
        if kind == (7 if google else 1):
            continue
        if kind == (8 if google else 6):
            offset, at = read_varint(plain, at, stop)
            if at < 0:
                return BAD_FRAME, I64(stop)
            length, at = read_varint(plain, at, stop)
            if at < 0 or length > stop - at:
                return BAD_FRAME, I64(stop)
            long.offset = offset
            long.data_at = at
            long.data_stop = at + length
            return CRYPTO, at + length
        if google:
            return BAD_FRAME, I64(stop)
        if kind == 2 or kind == 3:
            at = _after_acknowledgement(plain, at, stop, kind == 3)
        elif kind == 0x1C or kind == 0x1D:
            at = _after_close(plain, at, stop, kind == 0x1C)
        else:
            return BAD_FRAME, I64(stop)
        if at < 0:
            return BAD_FRAME, I64(stop)
    return NO_MORE, I64(stop)


@routine
def _after_acknowledgement(plain, at, stop, with_counts):
    """Where an ACK frame ends whose type was read; -1 where it does not."""
    _, at = read_varint(plain, at, stop)
    if at >= 0:
        _, at = read_varint(plain, at, stop)
    ranges = I64(0)
    if at >= 0:
        ranges, at = read_varint(plain, at, stop)
    if at < 0 or ranges > stop - at:  # each takes two bytes and more
        return I64(-1)
    for _ in range(1 + 2 * ranges + (3 if with_counts else 0)):
        if at >= 0:
            _, at = read_varint(plain, at, stop)
    return at


@routine
def _after_close(plain, at, stop, with_frame):
    """Where a CONNECTION_CLOSE frame ends whose type was read; -1 where it does not."""
    _, at = read_varint(plain, at, stop)
    if with_frame and at >= 0:
        _, at = read_varint(plain, at, stop)
    if at < 0:
        return at
    length, at = read_varint(plain, at, stop)
    if at < 0 or length > stop - at:
        return I64(-1)
    return at + length
