"""Does a segment begin like something that is read, and who would send it?"""

from __future__ import annotations

import numpy as np

from pipeline.classify import tls_kernels as tls
from pipeline.classify.http_kernels import starts_head
from pipeline.classify.proxy_kernels import is_signed
from pipeline.kernels.compile import routine

I64 = np.int64

UNIT_BYTES_MIN = 6  # fewer do not tell a hello or a head from anything else
CHANGE_CIPHER_SPEC, CHANGE_CIPHER_SPEC_BYTES = 20, 6
LINE_FEED, HTTP_1 = 10, np.frombuffer(b" HTTP/1.", np.uint8)


@routine
def starts_unit(data, start, stop):
    """Does a segment begin like a hello or a head, with enough bytes to tell?"""
    if stop - start < UNIT_BYTES_MIN:
        return False
    if data[start] == tls.HANDSHAKE:
        return tls.starts_hello(data, start, stop)
    if is_signed(data, start, stop):
        return True
    if not 65 <= data[start] <= 90 or not starts_head(data, start, stop):
        return False
    for at in range(start, stop):
        if data[at] == 32:
            return True
    return False


@routine
def hello_behind(data, start, stop):
    """How many bytes come before a hello that begins a segment (a ChangeCipherSpec, or none); -1
    where none does.
    """
    before = I64(0)
    if (
        stop - start > CHANGE_CIPHER_SPEC_BYTES
        and data[start] == CHANGE_CIPHER_SPEC
        and data[start + 1] == 3
    ):
        before = I64(CHANGE_CIPHER_SPEC_BYTES)
    enough = stop - start - before >= UNIT_BYTES_MIN
    return before if enough and tls.starts_hello(data, start + before, stop) else I64(-1)


@routine
def asks(data, start, stop):
    """Is it a hello, or has it a whole request line of HTTP/1: what no server says?"""
    if not starts_unit(data, start, stop):
        return False
    if data[start] == tls.HANDSHAKE:
        return True
    word = False
    for at in range(start, stop):
        if data[at] == LINE_FEED:
            return word
        if at + len(HTTP_1) <= stop and data[at] == HTTP_1[0]:
            same = True
            for k in range(len(HTTP_1)):
                same = same and data[at + k] == HTTP_1[k]
            word = word or same
    return False


@routine
def is_from_server(data, start, stop):
    """Does a segment begin like a server's hello or an HTTP response?"""
    if stop - start > 5 and data[start] == tls.HANDSHAKE and data[start + 1] == 3:
        return data[start + 5] == tls.SERVER_HELLO
    return (
        stop - start >= 9
        and data[start] == 72
        and data[start + 1] == 84
        and data[start + 2] == 84
        and data[start + 3] == 80
        and data[start + 4] == 47
        and data[start + 8] == 32
    )
