"""The TLS client hello: gathered from records, its server name and protocols read (RFC 8446, 6066,
7301).

    record      0 type 22, 1 version 0x03 0x00-0x04, 3 length
    handshake   0 type 1, 1 length, 4 body; may be cut over several records
    body        version 2, random 32, session id <1>, ciphers <2>, compression <1>, extensions <2>
    extension   type 2, length 2; 0 server name: list <2> of type 1, name <2>; 16 ALPN: <2> of <1>

(<n>: a vector after its length in n bytes.) There are three outcomes: the whole hello, not yet, and
never. The outer name of an encrypted hello is all there is to see. Values that exist to be ignored
(GREASE, RFC 8701) are of types we pass over anyway. A hello whose lengths do not add up is bad as a
whole, even when a name stood before the mistake.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.bytes import be16, be24, copy_bytes
from pipeline.kernels.compile import routine

I64 = np.int64
RECORD_BYTES_MAX = (1 << 14) + 256
HANDSHAKE, CLIENT_HELLO, SERVER_HELLO = 22, 1, 2
SERVER_NAME, ALPN = 0, 16

# Outcomes of gathering and of reading.
WHOLE, NOT_YET, NEVER, BAD, TOO_LONG, FROM_SERVER = 1, 2, 3, 4, 5, 6


@routine
def starts_hello(data, start, stop):
    """Could a client hello start here? True also while too few bytes are there to tell."""
    length = stop - start
    if length <= 0 or data[start] != HANDSHAKE:
        return False
    if length > 1 and data[start + 1] != 3:
        return False
    if length > 2 and data[start + 2] > 4:
        return False
    if length > 4:
        record = be16(data, start + 3)
        if record == 0 or record > RECORD_BYTES_MAX:
            return False
    return length <= 5 or data[start + 5] == CLIENT_HELLO


@routine
def gather_hello(data, start, stop, scratch, longest, hello):
    """Find the handshake body of a hello that starts at `start`; the outcome.

    A body within one record stays where it is; one that is cut over records is put together at the
    front of `scratch`. A hello of more than `longest` bytes is not taken. `hello` gets body and end
    of the records.
    """
    if stop - start > 5 and data[start] == HANDSHAKE and data[start + 5] == SERVER_HELLO:
        return FROM_SERVER
    if not starts_hello(data, start, stop):
        return NEVER
    hello.in_scratch = 0
    if stop - start >= 9 and be16(data, start + 3) >= 4:
        record, handshake = be16(data, start + 3), be24(data, start + 6)
        if handshake + 4 > longest:
            return TOO_LONG
        if handshake + 4 <= record:
            hello.body_at = start + 9
            hello.body_stop = start + 9 + handshake
            hello.records_stop = min(start + 5 + record, stop)
            return WHOLE if start + 9 + handshake <= stop else NOT_YET
    at = start
    gathered = 0
    needed = I64(4)
    while at + 5 <= stop:
        if data[at] != HANDSHAKE or data[at + 1] != 3:
            return BAD
        record = be16(data, at + 3)
        if record == 0 or record > RECORD_BYTES_MAX:
            return BAD
        there = min(record, stop - at - 5)
        take = min(there, longest - gathered)
        copy_bytes(data, at + 5, at + 5 + take, scratch, gathered)
        gathered += take
        if gathered >= 4:
            needed = 4 + be24(scratch, 1)
            if scratch[0] != CLIENT_HELLO:
                return NEVER
            if needed > longest:
                return TOO_LONG
            if gathered >= needed:
                hello.body_at = 4
                hello.body_stop = needed
                hello.in_scratch = 1
                hello.records_stop = at + 5 + there
                return WHOLE
        if there < record:
            return NOT_YET
        at += 5 + record
    return NOT_YET


@routine
def read_hello(data, start, stop, hello):
    """Read the body of a hello, `data[start:stop]`, for its name and protocols: WHOLE or BAD.

    The first host name counts. `hello` gets the places of name and protocol list, empty where the
    hello has none.
    """
    hello.name_at = hello.name_stop = hello.alpn_at = hello.alpn_stop = 0
    at = start + 34
    if at + 1 > stop or data[start] != 3:
        return BAD
    at += 1 + I64(data[at])
    if at + 2 > stop:
        return BAD
    at += 2 + be16(data, at)
    if at + 1 > stop:
        return BAD
    at += 1 + I64(data[at])
    if at == stop:  # no extensions: before TLS 1.0's, and allowed ever since
        return WHOLE
    if at + 2 > stop or at + 2 + be16(data, at) != stop:
        return BAD
    at += 2
    while at < stop:
        if at + 4 > stop:
            return BAD
        kind, length = be16(data, at), be16(data, at + 2)
        at += 4
        if at + length > stop:
            return BAD
        if kind == SERVER_NAME and length > 0 and hello.name_stop == 0:
            if not _read_names(data, at, at + length, hello):
                return BAD
        elif kind == ALPN and length >= 2 and be16(data, at) == length - 2:
            hello.alpn_at = at + 2
            hello.alpn_stop = at + length
        at += length
    return WHOLE


@routine
def _read_names(data, at, stop, hello):
    """Read a server name list; False where its lengths do not add up."""
    if at + 2 > stop or at + 2 + be16(data, at) > stop:
        return False
    stop = at + 2 + be16(data, at)
    at += 2
    while at + 3 <= stop:
        length = be16(data, at + 1)
        if at + 3 + length > stop:
            return False
        if data[at] == 0 and hello.name_stop == 0:
            hello.name_at = at + 3
            hello.name_stop = at + 3 + length
        at += 3 + length
    return at == stop


@routine
def copy_alpn(source, start, stop, target, at):
    """Copy a protocol list as text with commas to `target[at:]`; returns where it stops.

    Names with bytes that are not printable (GREASE has 0x?A twice) and commas are left out.
    """
    first = at
    while start < stop:
        name = start + 1
        start = min(name + I64(source[start]), stop)
        printable = start > name
        for i in range(name, start):
            if source[i] <= 32 or source[i] >= 127 or source[i] == 44:
                printable = False
        if printable:
            if at > first:
                target[at] = 44
                at += 1
            copy_bytes(source, name, start, target, at)
            at += start - name
    return at
