"""The memory of classify: what kernels share, laid out as records, allocated once.

Records and not loose arrays, because a kernel's call hands over every array by seven fields, and
because a flow then is one cache line that is passed on as one reference. Where an index may be
none, 1 + the index is stored, and 0 is none, so that zeroed memory is empty memory.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels.compile import primitive

SLOT = np.dtype(
    {
        "names": [
            "fingerprint", "seen_ns", "first_ns", "name", "next_sequence", "first_sequence", "turn",
            "held", "more_names", "subscriber", "state", "bits", "tries", "names", "transport",
            "mark",
        ],
        "formats": [
            "u8", "i8", "i8", "u8", "u4", "u4", "u4", "i4", "i4", "i4",
            "u1", "u2", "u1", "u1", "u1", "u2",
        ],
        "itemsize": 64,
    }
)  # fmt: skip
"""A flow. `fingerprint` 0: empty. `first_sequence` is of its first byte, then of its last hello or
head; of UDP a mark of the connection id of that. What `mark` and, after a hello, `next_sequence`
remember of that hello or head is in `repeats_kernels.py`.
"""

QUEUED = np.dtype([("fingerprint", "u8"), ("queued_ns", "i8"), ("turn", "u4"), ("pad", "u4")])
"""A flow's turn in the queue of those that may have to leave."""

NAME = np.dtype([("name", "u8"), ("next", "i4"), ("pad", "u4")])
"""A further name of a flow, as a hash; free ones are linked too."""

HOLDING = np.dtype(
    [
        ("fingerprint", "u8"), ("deadline_ns", "i8"), ("client_hi", "u8"), ("client_lo", "u8"),
        ("server_hi", "u8"), ("server_lo", "u8"), ("origin", "u4"), ("older", "i4"),
        ("younger", "i4"),
        ("rows", "i4"), ("pieces", "i4"), ("client_port", "u2"), ("server_port", "u2"),
        ("disagrees", "u1"), ("named", "u1"), ("basis", "u1"), ("pad", "u1"), ("realm", "u4"),
        ("remembered", "u4"),
    ]
)  # fmt: skip
"""Held bytes of a flow, from sequence number `origin` on; `rows` packets count as held in it. Where
they stand in the place of a hello that was read, `remembered` is what the flow knew of that."""

PIECE = np.dtype([("start", "i8"), ("stop", "i8"), ("time_ns", "i8"), ("number", "i8")])
"""Bytes `start` up to `stop` of a window, and the packet that brought them."""

ROW = np.dtype(
    [
        ("first_ns", "i8"), ("watermark_ns", "i8"), ("packet_number", "i8"), ("client_hi", "u8"),
        ("client_lo", "u8"), ("server_hi", "u8"), ("server_lo", "u8"), ("flow_hi", "u8"),
        ("flow_lo", "u8"), ("host_stop", "i8"), ("target_stop", "i8"), ("referer_stop", "i8"),
        ("alpn_stop", "i8"), ("subscriber", "i4"), ("marks", "u4"), ("client_port", "u2"),
        ("server_port", "u2"), ("protocol", "u1"), ("basis", "u1"), ("method", "u1"),
        ("packed", "u1"), ("realm", "u4"), ("first_name", "u4"), ("source", "u4"), ("pad", "u4"),
    ]
)  # fmt: skip
"""A session; its texts end at `*_stop` in memory, and begin where those of the row before end.

Where it is `packed` it has no host yet, its target is a header block of HTTP/2 as it was sent, and
`first_name` is half of the hash of the first name that its flow gave, 0 for none.
"""

COUNTS = np.dtype(
    [
        ("watermark_ns", "i8"), ("flows", "i8"), ("queue_head", "i8"), ("queued", "i8"),
        ("turn", "i8"), ("free_name", "i8"), ("free_holding", "i8"), ("oldest", "i8"),
        ("youngest", "i8"), ("held_rows", "i8"), ("rows", "i8"), ("host", "i8"), ("target", "i8"),
        ("referer", "i8"), ("alpn", "i8"), ("packed", "i8"), ("packets", "i8"),
        ("block_due", "i8"),
    ]
)  # fmt: skip
"""How far each of the parts is filled, and where its lists begin; `packets` before those that are
in `tallied`, and the number of packets up to which header blocks of HTTP/2 are paid for."""

NOW = np.dtype(
    [
        ("time_ns", "i8"), ("number", "i8"), ("watermark_ns", "i8"), ("sequence", "i8"),
        ("client_hi", "u8"), ("client_lo", "u8"), ("server_hi", "u8"), ("server_lo", "u8"),
        ("client_port", "i8"), ("server_port", "i8"), ("basis", "i8"), ("fault", "i8"),
        ("skip", "i8"), ("named", "i8"), ("marks", "i8"), ("kept", "i8"), ("realm", "i8"),
        ("source", "i8"),
    ]
)  # fmt: skip
"""The packet being worked on, or the holding whose time is up, and what became of it; `kept` says
whether any of a datagram was opened, and whether any is held."""

LIMITS = np.dtype(
    [
        ("key0", "u8"), ("key1", "u8"), ("flows", "i8"), ("idle_ns", "i8"), ("hold_ns", "i8"),
        ("tries", "i8"), ("repeats", "i8"), ("unit_bytes", "i8"), ("pieces", "i8"),
        ("text_bytes", "i8"), ("answer_ns", "i8"), ("block_bytes", "i8"),
    ]
)  # fmt: skip
"""The secret and the limits."""

HELLO = np.dtype(
    [
        ("body_at", "i8"), ("body_stop", "i8"), ("in_scratch", "i8"), ("records_stop", "i8"),
        ("name_at", "i8"), ("name_stop", "i8"), ("alpn_at", "i8"), ("alpn_stop", "i8"),
    ]
)  # fmt: skip
"""Where in the bytes a client hello has what."""

HEAD = np.dtype(
    [
        ("stop", "i8"), ("method", "i8"), ("document", "i8"), ("disagrees", "i8"),
        ("target_at", "i8"), ("target_stop", "i8"), ("host_at", "i8"), ("host_stop", "i8"),
        ("host_kind", "i8"), ("clean_at", "i8"), ("clean_stop", "i8"),
        ("authority_at", "i8"), ("authority_stop", "i8"), ("referer_at", "i8"),
        ("referer_stop", "i8"),
        ("body_length", "i8"), ("chunked", "i8"), ("accepts", "i8"), ("not_document", "i8"),
        ("upgrades", "i8"),
    ]
)  # fmt: skip
"""Where in the bytes a request head has what, what its Host names, and what it says of its body."""

LONG = np.dtype(
    [
        ("version", "i8"), ("salt", "i8"), ("ids_at", "i8"), ("ids_length", "i8"),
        ("number_at", "i8"), ("stop", "i8"), ("offset", "i8"), ("data_at", "i8"),
        ("data_stop", "i8"),
    ]
)  # fmt: skip
"""Where a QUIC packet with a long header has its destination connection id, its number and its end;
and of the CRYPTO frame being read in it, the offset and where its data are."""

TALLIED_COLUMNS = 64  # more than there will be faults or skips
DESK = np.dtype(
    [
        ("counts", COUNTS), ("limits", LIMITS), ("now", NOW), ("hello", HELLO), ("head", HEAD),
        ("long", LONG), ("tallied", "i8", (4, TALLIED_COLUMNS)), ("hashed", "u8", (1, 6)),
        ("digested", "u8", (1, 2)),
    ]
)  # fmt: skip
"""All that there is one of."""

# What is known of a flow's client direction: nothing; that it is neither; where the next request
# head, chunk or trailer line begins; that its hello was seen; that nothing more is to come; where
# the next frame of HTTP/2 begins.
NEW, OTHER, AT_HEAD, AT_CHUNK, AT_TRAILER, HELLO_SEEN, DONE, AT_FRAME = range(8)

# How memory is divided: a hello put together from records, then host, target, referer and ALPN of
# rows, then the windows of holdings. Scratch and each window have `unit_bytes`.
HOST_TEXT, TARGET_TEXT, REFERER_TEXT, ALPN_TEXT, TEXTS = range(5)

# Behind each window are the keys that opened what is in it, where that was sealed: key, vector and
# header key (44 bytes), salt, length of the connection id, the id.
SEAL_SALT, SEAL_LENGTH, SEAL_ID, SEAL_BYTES = 44, 45, 46, 72

# What a flow's `bits` say.
HAS_SEQUENCE, CLIENT_KNOWN, CLIENT_SIDE, MIDSTREAM, HELLO_NAMED, ANSWERED = 1, 2, 4, 8, 16, 32
UPGRADES = 64  # its last request asked for another protocol
WEAKLY_NAMED = 512  # it got a name from DNS, and gets no other of these
# It has no name yet: for a gap, for what the capture cut off, for want of room.
LOST_GAP, LOST_CUT, LOST_ROOM = 128, 256, 1024
LOST = LOST_GAP | LOST_CUT | LOST_ROOM
TUNNEL = 2048  # what its client says is for others than the address it says it to
REPEATED = 4096  # what is held stands in the place of a hello that was read
DISPUTED = 8192  # what is to be read stands in the place of what was read
ENDED = 16384  # with a FIN or a RST

# Rows of `tallied`: what became of packets, what befell flows and holdings later, and sums.
ROW_FAULTS, ROW_SKIPS, EVENTS, SUMS = range(4)
# In the row of sums; after SUM_SESSIONS one place for each protocol. A session is a name that its
# flow had not given before, the others are repeats; it is hidden where others hide behind it. A
# weak name makes none, and is counted by itself. A flow without a name is given up when its tries
# end.
(
    SUM_PACKETS, SUM_BYTES, SUM_TCP_FLOWS, SUM_UDP_FLOWS, SUM_NAMED, SUM_REPEATS, SUM_HIDDEN,
    SUM_WEAK, SUM_LOST_GAP, SUM_LOST_CUT, SUM_LOST_ROOM, SUM_GIVEN_UP, SUM_SESSIONS,
) = range(13)  # fmt: skip


class Track(NamedTuple):
    """All that classify knows. Arrays of the records above, and bytes."""

    slots: np.ndarray  # a power of two
    queue: np.ndarray  # as many as slots
    names: np.ndarray
    holdings: np.ndarray
    pieces: np.ndarray  # `limits.pieces` for each holding
    rows: np.ndarray
    memory: np.ndarray  # uint8, see `Limits` of the stage for how it is divided
    desk: np.ndarray  # the one DESK: an array of it outside kernels, the record inside
    cipher: np.ndarray  # the one CIPHER, likewise; it and `plain` are no state
    plain: np.ndarray  # uint8, what a sealed packet had in it
    answers: np.ndarray  # ANSWERs
    told: np.ndarray  # uint8, the names in them


@primitive
def text_start(limits, text):
    """Where in memory the texts of this kind begin."""
    return limits.unit_bytes + text * limits.text_bytes


@primitive
def window_start(limits, h):
    """Where in memory the window of a holding begins."""
    return limits.unit_bytes + TEXTS * limits.text_bytes + h * (limits.unit_bytes + SEAL_BYTES)


@primitive
def seal_start(limits, h):
    """Where in memory the keys behind the window of a holding begin."""
    return window_start(limits, h) + limits.unit_bytes
