"""HTTP/2 in clear with prior knowledge, as far as the first request (RFC 9113).

    preface     "PRI * HTTP/2.0" CRLF CRLF "SM" CRLF CRLF                            (3.4)
    frame       length 3, type 1, flags 1, stream 4 (its first bit reserved), payload  (4.1)
    HEADERS     [padding length 1] [stream 4, weight 1] fragment [padding]             (6.2)

What a client sends before its first request (settings, windows, priorities, types nobody knows) is
passed over by its length, and so never held. The first HEADERS frame, with the CONTINUATION frames
that its block goes on in, is held until it is whole. Until a client has heard from the server no
frame of it may be longer than 16,384 bytes (4.2), and its streams have odd numbers (5.1.1). A flow
whose first frames break the grammar is not looked at again: nothing later in it could be told from
a body.

What stands in the block is opened in Python (`http2.py`), and judged here as HTTP/1 is.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify import http_kernels as http
from pipeline.classify.names_kernels import name_hash
from pipeline.classify.tls_kernels import BAD, NOT_YET, TOO_LONG, WHOLE
from pipeline.kernels.bytes import be24, be32, copy_bytes
from pipeline.kernels.compile import kernel, primitive, routine
from pipeline.model.words import Protocol

U64 = np.uint64
I64 = np.int64
PREFACE = np.frombuffer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", np.uint8)
FRAME_BYTES, PAYLOAD_BYTES_MAX = 9, 1 << 14
DATA, HEADERS, PUSH_PROMISE, CONTINUATION = 0, 1, 5, 9
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
PRIORITY_BYTES = 5
STREAM_MASK = 0x7FFFFFFF
NO_BLOCK = -1
NO_HEAD = -1
HTTP = int(Protocol.HTTP)


@routine
def starts_preface(data, start, stop):
    """Could the preface start here? True also while too few bytes are there to tell."""
    for k in range(min(stop - start, len(PREFACE))):
        if data[start + k] != PREFACE[k]:
            return False
    return stop > start


@primitive
def _fragment(data, at):
    """Where the fragment of a header block starts and stops in a frame that is whole; where its
    padding does not fit it stops before it starts (RFC 9113, 6.2).
    """
    kind, flags = data[at + 3], data[at + 4]
    start, stop = at + FRAME_BYTES, at + FRAME_BYTES + be24(data, at)
    if kind == HEADERS:
        if flags & PADDED:
            if start == stop:
                return start, start - 1
            stop -= I64(data[start])
            start += 1
        if flags & PRIORITY:
            start += PRIORITY_BYTES
    return start, stop


@routine
def read_frame(data, start, stop, longest, head):
    """Read the frame at `start`: WHOLE, NOT_YET, BAD, or TOO_LONG for a block beyond `longest`.

    `head.stop` gets where it ends, which may be beyond `stop` for one that is passed over, and
    `head.body_length` how long the header block is that begins in it, or NO_BLOCK. The frame of a
    block ends where the last that continues it does.
    """
    head.body_length = NO_BLOCK
    if start + FRAME_BYTES > stop:
        return NOT_YET
    kind = data[start + 3]
    if be24(data, start) > PAYLOAD_BYTES_MAX:
        return BAD
    if kind == DATA or kind == PUSH_PROMISE or kind == CONTINUATION:
        return BAD
    head.stop = start + FRAME_BYTES + be24(data, start)
    if kind != HEADERS:
        return WHOLE
    stream = be32(data, start + 5) & STREAM_MASK
    if stream & 1 == 0:
        return BAD
    size = I64(0)
    at = start
    while True:
        if at + FRAME_BYTES > stop:
            return NOT_YET
        length = be24(data, at)
        if length > PAYLOAD_BYTES_MAX:
            return BAD
        if at > start and data[at + 3] != CONTINUATION:
            return BAD
        if be32(data, at + 5) & STREAM_MASK != stream:
            return BAD
        if at + FRAME_BYTES + length > stop:
            return NOT_YET
        first, last = _fragment(data, at)
        if last < first:
            return BAD
        size += last - first
        if size > longest:
            return TOO_LONG
        flags = data[at + 4]
        at += FRAME_BYTES + length
        if flags & END_HEADERS:
            break
    head.stop = at
    head.body_length = size
    return WHOLE


@routine
def copy_block(data, start, head, target, at):
    """Copy the header block of the frames `data[start : head.stop]` that `read_frame` found whole
    to `target[at:]`; returns where it stops.
    """
    while start < head.stop:
        first, last = _fragment(data, start)
        copy_bytes(data, first, last, target, at)
        at += last - first
        start += FRAME_BYTES + be24(data, start)
    return at


@kernel
def read_request(data, key0, key1, found):
    """Read `data` (uint8), a request in the form of HTTP/1: (what its host is, the host's hash).

    What it is, is one of the HOST_ words of `names_kernels`, or NO_HEAD where `data` is no head.
    `found` (HEAD, of length 1) gets where host, target and Referer are, whether two hosts are named
    (`disagrees`), method and `document`. The hash is that of a name that HTTP gives.

    Touches some 40 bytes a head: less than 1 % of the memory's bandwidth.
    """
    head = found[0]
    if http.read_head(data, 0, len(data), head) != WHOLE:
        return NO_HEAD, U64(0)
    kind, start, stop, differ = http.choose_host(data, head)
    head.host_at, head.host_stop = start, stop
    head.disagrees = 1 if differ else 0
    return kind, name_hash(key0, key1, HTTP, data, start, stop)
