"""DNS answers: a name for a session that gave none, and no more than a guess.

Whoever connects to an address has mostly asked for a name just before, and the answer (RFC 1035, 4;
over UDP, from port 53) says which. So it is kept for a while who was told which address for which
name; a hello without a name, one behind whose name others hide, or one that never came whole, gets
the last such name, marked weak. An address serves many names, and an answer may be forged or meant
for something else, so a weak name never counts for anything that is worth money.

    header      2 flags: 0x8000 answer, 0x7800 kind (0), 0x000F error (0); 4 questions (1)
                6 answers
    question    name as labels, type, class (1)
    answer      name as labels or a pointer (0xC0), type, class, 4 time to live, length, data

The name that is kept is the one that was asked for, not what it is an alias of. Answers of type A
and AAAA count, up to 32 of a message. What is kept is bounded: four answers for each place in a
table of fixed size, of which the oldest leaves.

Behind the gate an answer is read only if the one whom it is sent to may be read; it is kept by
subscriber, without a gate by address.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.fragments_kernels import JOINED
from pipeline.kernels.bytes import be16, be32, be64, lower
from pipeline.kernels.compile import primitive, routine
from pipeline.kernels.hashing import address_hash, mix64

U64 = np.uint64
I64 = np.int64
HEADER_BYTES, RECORD_BYTES = 12, 10
TYPE_A, TYPE_AAAA, INTERNET = 1, 28, 1
RECORDS_MAX = 32
NAME_BYTES = 256  # room of a name; the longest has 253
WAYS = 4
MAPPED = U64(0xFFFF_0000_0000)

ANSWER = np.dtype([("key", "u8"), ("time_ns", "i8"), ("subscriber", "i4"), ("length", "u4")])
"""Who was told which address for which name; `key` 0: nothing. The name stands in `told` at the
place of the row times NAME_BYTES."""


@primitive
def _key(limits, subscriber, client_hi, client_lo, server_hi, server_lo):
    """A keyed hash, never 0, of who was told and of which address."""
    if subscriber >= 0:
        who = mix64(U64(subscriber) + limits.key0)
    else:
        who = address_hash(limits.key0, limits.key1, client_hi, client_lo)
    return address_hash(limits.key1, limits.key0, server_hi ^ who, server_lo) | U64(1)


@routine
def find_answer(answers, limits, subscriber, client_hi, client_lo, server_hi, server_lo, time_ns):
    """The answer by which somebody came to call an address at a time, or -1."""
    key = _key(limits, subscriber, client_hi, client_lo, server_hi, server_lo)
    first = I64(key >> U64(20)) % (len(answers) // WAYS) * WAYS
    for at in range(first, first + WAYS):
        since = time_ns - answers[at].time_ns
        if answers[at].key == key and 0 <= since <= limits.answer_ns:
            return I64(at)
    return I64(-1)


@routine
def _enter(answers, told, limits, key, subscriber, time_ns, length):
    """Keep the name in the last room of `told` under a key: in its own row, or the oldest."""
    first = I64(key >> U64(20)) % (len(answers) // WAYS) * WAYS
    at = first
    for k in range(first, first + WAYS):
        if answers[k].key == key:
            at = k
            break
        if answers[k].key == U64(0) or (
            answers[at].key != U64(0) and answers[k].time_ns < answers[at].time_ns
        ):
            at = k
    row = answers[at]
    row.key, row.time_ns, row.subscriber, row.length = key, time_ns, subscriber, length
    scratch = len(answers) * NAME_BYTES
    for i in range(NAME_BYTES):  # a longer name that was there may be somebody else's
        told[at * NAME_BYTES + i] = told[scratch + i] if i < length else 0


@primitive
def _is_label_letter(letter):
    return 97 <= letter <= 122 or 48 <= letter <= 57 or letter == 45 or letter == 95


@routine
def _read_question(data, at, stop, told, scratch):
    """Copy the name of a question to `told[scratch:]`, in lower case with dots.

    (its length, where the question's type is); the length is 0 for one that is no host name.
    """
    length = I64(0)
    while at < stop:
        label = I64(data[at])
        at += 1
        if label == 0:
            return max(length - 1, 0), at
        if label > 63 or at + label > stop or length + label + 1 > NAME_BYTES - 2:
            return I64(0), stop
        for i in range(at, at + label):
            letter = lower(I64(data[i]))
            if not _is_label_letter(letter):
                return I64(0), stop
            told[scratch + length] = letter
            length += 1
        told[scratch + length] = 46
        length += 1
        at += label
    return I64(0), stop


@routine
def _after_name(data, at, stop):
    """Where a name ends, of labels or a pointer; `stop` where it does not."""
    while at < stop:
        label = I64(data[at])
        if label >= 0xC0:
            return min(at + 2, stop)
        if label > 63:
            return stop
        at += 1 + label
        if label == 0:
            return min(at, stop)
    return stop


@routine
def _read_message(answers, told, limits, data, at, stop, subscriber, head, time_ns):
    """Keep what an answer in `data[at:stop]` says, if it is one."""
    if stop - at < HEADER_BYTES:
        return
    if be16(data, at + 2) & 0xF80F != 0x8000 or be16(data, at + 4) != 1:
        return
    records = min(be16(data, at + 6), RECORDS_MAX)
    length, at = _read_question(data, at + HEADER_BYTES, stop, told, len(answers) * NAME_BYTES)
    if length == 0 or at + 4 > stop or be16(data, at + 2) != INTERNET:
        return
    at += 4
    for _ in range(records):
        at = _after_name(data, at, stop)
        if at + RECORD_BYTES > stop:
            break
        kind, size = be16(data, at), be16(data, at + 8)
        internet = be16(data, at + 2) == INTERNET
        at += RECORD_BYTES
        if at + size > stop:
            break
        hi, lo = U64(0), U64(0)
        if internet and kind == TYPE_A and size == 4:
            lo = MAPPED | U64(be32(data, at))
        elif internet and kind == TYPE_AAAA and size == 16:
            hi, lo = be64(data, at), be64(data, at + 8)
        if lo != U64(0) or hi != U64(0):
            key = _key(limits, subscriber, head.target_hi, head.target_lo, hi, lo)
            _enter(answers, told, limits, key, subscriber, time_ns, length)
        at += size
    scratch = len(answers) * NAME_BYTES
    for i in range(scratch, scratch + NAME_BYTES):
        told[i] = 0


@routine
def take_answer(track, head, data, joined, subscriber, time_ns):
    """Read a packet that may be a DNS answer, to this subscriber, -1 without a gate."""
    at = I64(head.payload_at)
    captured = min(I64(head.payload_captured), I64(head.payload_length))
    answers, told, limits = track.answers, track.told, track.desk.limits
    if at < JOINED:
        _read_message(answers, told, limits, data, at, at + captured, subscriber, head, time_ns)
    else:
        at -= JOINED
        _read_message(answers, told, limits, joined, at, at + captured, subscriber, head, time_ns)


@routine
def wipe_answers(track, gone):
    """Forget what subscribers were told whose place in `gone` (uint8) is set."""
    answers, told = track.answers, track.told
    for at in range(len(answers) * NAME_BYTES, len(told)):
        told[at] = 0
    for at in range(len(answers)):
        row = answers[at]
        if row.key != U64(0) and 0 <= row.subscriber < len(gone) and gone[row.subscriber]:
            row.key, row.time_ns, row.subscriber, row.length = U64(0), 0, 0, 0
            for i in range(at * NAME_BYTES, (at + 1) * NAME_BYTES):
                told[i] = 0
