"""HTTP/2 up to the first request in plain Python: frames (RFC 9113, 4 and 6), then what it says.

Header blocks are opened by the same library as in the product; what the fields mean is written down
here for themselves, without a detour over HTTP/1.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import hpack

from pipeline.model.faults import Fault
from tests.naive import http

NOT_YET, BAD, TOO_LONG = "not yet", "bad", "too long"
PREFACE = bytes.fromhex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a")
LIST_BYTES_MAX = 32768


@dataclass
class Request:
    """The first request of a connection."""

    host: str
    target: bytes
    method: int
    referer: bytes = b""
    hosts_differ: bool = False
    document: bool = False


def read_frame(raw: bytes, longest: int) -> tuple[int, bytes | None] | str:
    """(where the frame that starts `raw` ends, the header block that begins in it), or an outcome."""
    block = b""
    first = at = 0
    while True:
        if len(raw) < at + 9:
            return NOT_YET
        high, low, kind, flags, stream = struct.unpack_from(">BHBBI", raw, at)
        size, stream = high << 16 | low, stream & 0x7FFFFFFF
        if size > 16384:
            return BAD
        if at == 0:
            first = stream
            if kind in (0, 5, 9):  # a body, a promise, or what goes on
                return BAD
            if kind != 1:
                return 9 + size, None
            if first % 2 == 0:
                return BAD
        elif kind != 9 or stream != first:
            return BAD
        payload = raw[at + 9 : at + 9 + size]
        if len(payload) < size:
            return NOT_YET
        fragment = _unpadded(payload, flags) if kind == 1 else payload
        if fragment is None:
            return BAD
        block += fragment
        if len(block) > longest:
            return TOO_LONG
        at += 9 + size
        if flags & 4:
            return at, block


def _unpadded(payload: bytes, flags: int) -> bytes | None:
    """What of a HEADERS frame is header block; None where there is not so much in it."""
    padding = 0
    if flags & 8:
        if not payload:
            return None
        padding, payload = payload[0], payload[1:]
    priority = 5 if flags & 32 else 0
    if priority + padding > len(payload):
        return None
    return payload[priority : len(payload) - padding]


def read_request(block: bytes) -> Request | Fault:
    """The request in a header block, or what is wrong with it."""
    decoder = hpack.Decoder(LIST_BYTES_MAX)
    decoder.max_allowed_table_size = 65536
    try:
        fields = [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except hpack.HPACKError:
        return Fault.HEAD_BAD
    pseudo = [name for name, _ in fields if name.startswith(b":")]
    allowed = {b":method", b":path", b":authority", b":scheme", b":protocol"}
    if len(pseudo) != len(set(pseudo)) or not allowed.issuperset(pseudo):
        return Fault.HEAD_BAD
    every = {name: [v for n, v in fields if n == name] for name, _ in fields}

    def values(*names: bytes) -> list[bytes]:
        return [value for name in names for value in every.get(name, [])]

    read = values(
        b":method", b":authority", b"host", b"accept", b"referer", b"sec-fetch-dest",
        b"x-requested-with", b"x-moz", b"purpose", b"sec-purpose",
    )  # fmt: skip
    if any(set(v) & set(b"\r\n\0") or v != v.strip(b" \t") for v in read):
        return Fault.HEAD_BAD
    method = b"".join(values(b":method"))
    connect = method == b"CONNECT"
    path = b"".join(values(b":authority" if connect else b":path"))
    if not re.fullmatch(rb"[A-Z_-]{3,20}", method):
        return Fault.HEAD_BAD
    if connect and (not path or min(path) < 32):
        return Fault.HEAD_BAD
    if not connect and path != b"*" and (path[:1] != b"/" or min(path) <= 32):
        return Fault.HEAD_BAD
    found = [http.clean_host(value) for value in values(b":authority", b"host")]
    named = [one for one in found if one[0] != "none"]
    if not named:
        return Fault.HEAD_BAD
    kind, host = named[0]
    if kind == "invalid":
        return Fault.HOST_BAD
    differ = any(one[1] != host for one in named)
    document = method == b"GET" and not values(b"x-requested-with")
    document &= all(v.lower() == b"document" for v in values(b"sec-fetch-dest"))
    ahead = values(b"purpose", b"sec-purpose", b"x-moz")
    document &= not any(re.search(rb"prefetch|prerender", v.lower()) for v in ahead)
    if accepts := values(b"accept"):
        document &= any(b"text/html" in v.lower() for v in accepts)
    else:
        document &= not http.is_part_of_page(path)
    referer = [b"", *values(b"referer")][-1]
    number = http.METHODS.get(method, 9)
    return Request(host.decode(), path, number, referer, differ, document)
