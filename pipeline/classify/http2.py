"""The first request of an HTTP/2 connection, out of its header block (RFC 9113, 8.3; RFC 7541).

Kernels find the block and leave it packed in a row; there are few of these, so they are opened in
Python, by the `hpack` library, which is loaded when the first one comes. The first block refers to
nothing before it, so each is opened alone. What a block can become is bounded: a list of 32 KiB as
RFC 9113, 6.5.2 counts it, or the block is bad.

A request is then written out as HTTP/1 would have it and read by the kernel that reads those, so
that host, document and Referer mean the same in both: `:authority` is its Host, and a `host` field
beside it a second one (RFC 9113, 8.3.1). Only the fields that are read there are written out;
cookies are not among them. A request must name its authority: one without is as bad as one whose
fields break the grammar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pipeline.classify import state_kernels as state
from pipeline.classify.http2_kernels import NO_HEAD, read_request
from pipeline.classify.names_kernels import HOST_INVALID, HOST_NONE
from pipeline.kernels.compile import records
from pipeline.model.batches import SessionBatch
from pipeline.model.columns import TextColumn
from pipeline.model.faults import Fault
from pipeline.model.words import Protocol, SessionFlag

# A block begins with two changes of the table's size at most (RFC 7541, 4.2), of some bytes each.
SIZE_UPDATES, UPDATES_MAX = bytes(range(0x20, 0x40)), 16
LIST_BYTES_MAX = 1 << 15
TABLE_BYTES_MAX = 1 << 16  # what servers allow; before they are heard it is 4,096
PSEUDO = {b":method", b":scheme", b":authority", b":path", b":protocol"}
FIELDS = {
    b"host", b"accept", b"referer", b"sec-fetch-dest", b"x-requested-with", b"purpose",
    b"sec-purpose", b"x-moz",
}  # fmt: skip
# Neither a line end, nor white space at either end (RFC 9113, 8.2.1).
VALUE = re.compile(rb"(?![ \t])[^\x00\r\n]*(?<![ \t])", re.DOTALL)
PATH = re.compile(rb"/[^\x00-\x20]*|\*")


@dataclass(frozen=True, slots=True)
class Request:
    """What the row of a request has of its own; `name` is the lower half of its host's hash."""

    host: bytes
    target: bytes
    referer: bytes
    method: int
    flags: int
    name: int


def open_blocks(
    sessions: SessionBatch, rows: np.ndarray, key: tuple[np.uint64, np.uint64], tallied: np.ndarray
) -> SessionBatch:
    """The sessions of `rows` (ROW), those that are packed opened, or left out where they are bad.

    The packet that ended a block is counted already, as one that led to a name. So what is wrong
    with a block is counted in `tallied` (of the DESK) as an event.
    """
    texts = {
        name: [column[i] for i in range(len(sessions))]
        for name, column in (
            ("host", sessions.host), ("target", sessions.target), ("referer", sessions.referer)
        )
    }  # fmt: skip
    method, flags = sessions.method.copy(), sessions.flags.copy()
    keep = np.ones(len(sessions), np.bool_)
    for at in np.flatnonzero(rows["packed"]).tolist():
        request = open_block(texts["target"][at], key)
        if isinstance(request, Fault):
            tallied[state.EVENTS, request] += 1
            keep[at] = False
            continue
        texts["host"][at], texts["target"][at] = request.host, request.target
        texts["referer"][at] = request.referer
        method[at] = request.method
        flags[at] |= request.flags
        if request.name == int(rows["first_name"][at]):
            flags[at] |= SessionFlag.REPEAT
            tallied[state.SUMS, state.SUM_REPEATS] += 1
        else:
            tallied[state.SUMS, state.SUM_SESSIONS + Protocol.HTTP] += 1
    columns = {name: TextColumn.of(values) for name, values in texts.items()}
    return sessions.with_columns(method=method, flags=flags, **columns).take(keep)


def open_block(block: bytes, key: tuple[np.uint64, np.uint64]) -> Request | Fault:
    """The request in a header block, or what is wrong with it: HEAD_BAD or HOST_BAD.

    `key` is the secret of the flow table, under which names are hashed.
    """
    import hpack  # here, for a start waits for everything that is loaded

    updates = len(block) - len(block.lstrip(SIZE_UPDATES))
    if updates > UPDATES_MAX:
        return Fault.HEAD_BAD
    decoder = hpack.Decoder(LIST_BYTES_MAX)
    decoder.max_allowed_table_size = TABLE_BYTES_MAX
    try:
        fields = [(bytes(f[0]), bytes(f[1])) for f in decoder.decode(block, raw=True)]
    except (hpack.HPACKError, ValueError, IndexError):
        return Fault.HEAD_BAD
    head = _write_head(fields)
    if head is None:
        return Fault.HEAD_BAD
    found = records(state.HEAD, 1)
    kind, name = read_request(np.frombuffer(head, np.uint8), *key, found)
    if kind in (NO_HEAD, HOST_NONE):
        return Fault.HEAD_BAD
    if kind == HOST_INVALID:
        return Fault.HOST_BAD
    row = found[0]
    flags = SessionFlag.UNRELIABLE if row["disagrees"] else SessionFlag(0)
    if row["document"]:
        flags |= SessionFlag.DOCUMENT
    return Request(
        host=head[row["host_at"] : row["host_stop"]].lower(),
        target=head[row["target_at"] : row["target_stop"]],
        referer=head[row["referer_at"] : row["referer_stop"]],
        method=int(row["method"]),
        flags=int(flags),
        name=int(name) & 0xFFFFFFFF,
    )


def _write_head(fields: list[tuple[bytes, bytes]]) -> bytes | None:
    """The request of these fields as HTTP/1 would have it; None where they make none."""
    pseudo: dict[bytes, bytes] = {}
    kept: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        if name[:1] == b":":
            if name not in PSEUDO or name in pseudo:
                return None
            pseudo[name] = value
        elif name in FIELDS and (value or name != b"host"):
            kept.append((name, value))
    method, authority = pseudo.get(b":method", b""), pseudo.get(b":authority", b"")
    values = [method, authority, *(value for _, value in kept)]
    if not all(VALUE.fullmatch(value) for value in values) or b" " in method:
        return None
    # CONNECT asks for an authority and has no path, or one of what is to be spoken (RFC 8441, 4).
    target = authority if method == b"CONNECT" else pseudo.get(b":path", b"")
    if method != b"CONNECT" and not PATH.fullmatch(target):
        return None
    if authority:
        kept.insert(0, (b"host", authority))
    lines = [method + b" " + target + b" HTTP/1.1", *(n + b": " + v for n, v in kept), b"", b""]
    return b"\r\n".join(lines)
