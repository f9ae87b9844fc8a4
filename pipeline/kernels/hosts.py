"""Whose name is this? One table of host names, asked with every name that a session carries.

Given entries (a name, a code for the name itself, a code for the names under it), a lookup finds
the longest entry that a host equals or is under, on a label boundary. Hosts are clean: lower case,
A-labels, no trailing dot; whatever else comes (an empty label, upper case) matches nothing. The
bytes of the name are compared, not only the hash, so a name of nobody is never somebody's.

A slot is one word: 32 bits of hash and the place of the entry's record, in which codes and name
stand together. An entry costs at most 16 bytes of slots and a record of 9 bytes and its name. Names
are taken in blocks and in steps (dots and hashes, slots, first line of the records, bytes), so that
a block waits for memory once a step and not once a name. The table is built from rules and never
written by traffic, so nobody can fill it with collisions from outside.

Measured on one core of a virtual EPYC whose independent reads of a 16 MB table take 6 ns each,
4,096 names of 19 to 24 bytes a call: with a million entries (17 MB of slots, 28 MB of records) 71
ns for a name of nobody, 81 for an entry itself, 99 for a name under one, 91 for a mixture; with two
thousand entries 53 to 65 ns. Building a million takes 0.9 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compile import kernel, primitive
from pipeline.kernels.hashing import GOLDEN, M1, mix64
from pipeline.model.columns import TextColumn

U64 = np.uint64
NOBODY = -1
DOT = 46
LOW_32 = U64(0xFFFFFFFF)
NAME_BYTES, LABELS = 255, 128  # of the longest name
PADDING = 32  # behind the last record, so that two lines of any record can be touched
HEAD = 9  # bytes of a record before its name: two codes of 4 bytes, little-endian, and a length


class HostTable(NamedTuple):
    """`slots`: a power of two of them; 0 is empty, else hash << 32 | place + 1 of the record."""

    slots: np.ndarray  # uint64
    records: np.ndarray  # uint8
    labels: np.ndarray  # int64 (2,): the fewest and the most labels an entry has


class Work(NamedTuple):
    """Room for the endings of a block of names."""

    hashed: np.ndarray  # uint64
    slot: np.ndarray  # uint64
    start: np.ndarray  # uint64
    place: np.ndarray  # uint64: place + 1 of a record
    row: np.ndarray  # int64: the first ending of each name
    dot: np.ndarray  # uint64: where the dots of one name are
    touched: np.ndarray  # uint8 (1,)


@primitive
def _word(data, at):
    """Eight bytes as a little-endian word: one load, since the place is unsigned."""
    return (
        U64(data[at])
        | (U64(data[at + U64(1)]) << U64(8))
        | (U64(data[at + U64(2)]) << U64(16))
        | (U64(data[at + U64(3)]) << U64(24))
        | (U64(data[at + U64(4)]) << U64(32))
        | (U64(data[at + U64(5)]) << U64(40))
        | (U64(data[at + U64(6)]) << U64(48))
        | (U64(data[at + U64(7)]) << U64(56))
    )


@primitive
def _hash(data, start, end):
    """A hash of `data[start:end]` (places uint64): words from the end; the first overlaps."""
    h = (end - start) * GOLDEN
    if end - start < U64(8):
        while start < end:
            h = (h ^ U64(data[start])) * M1
            start += U64(1)
        return mix64(h)
    while end - start > U64(8):
        end -= U64(8)
        h = (h ^ _word(data, end)) * M1
        h ^= h >> U64(32)
    return mix64((h ^ _word(data, start)) * M1)


@primitive
def _same(table, place, data, start, end):
    """Is the name of the record at `place` this one? (places uint64)"""
    length = end - start
    if U64(table.records[place + U64(8)]) != length:
        return False
    at = place + U64(HEAD)
    if length < U64(8):
        while start < end:
            if table.records[at] != data[start]:
                return False
            at += U64(1)
            start += U64(1)
        return True
    different = _word(table.records, at) ^ _word(data, start)
    done = length & U64(7)
    while done < length:
        different |= _word(table.records, at + done) ^ _word(data, start + done)
        done += U64(8)
    return different == U64(0)


@primitive
def _find(table, h, data, start, end):
    """The place + 1 of the record of `data[start:end]`, whose hash is `h`; 0 for none."""
    mask = U64(len(table.slots) - 1)
    at = h & mask
    while table.slots[at] != U64(0):
        slot = table.slots[at]
        if slot >> U64(32) == h >> U64(32) and _same(
            table, (slot & LOW_32) - U64(1), data, start, end
        ):
            return slot & LOW_32
        at = (at + U64(1)) & mask
    return U64(0)


@primitive
def _candidate(table, h, slot):
    """Place + 1 of the first record with this upper half of a hash, from a slot read; 0: none."""
    mask = U64(len(table.slots) - 1)
    at = h
    while slot != U64(0):
        if slot >> U64(32) == h >> U64(32):
            return slot & LOW_32
        at += U64(1)
        slot = table.slots[at & mask]
    return U64(0)


@primitive
def _code(table, place):
    """A code of a record: four bytes as a signed number."""
    value = np.int64(0)
    for i in range(4):
        value |= np.int64(table.records[place + U64(i)]) << np.int64(8 * i)
    return value - ((value >> np.int64(31)) << np.int64(32))


@primitive
def _endings(table, data, start, end, work, k):
    """Note hash and start of the endings that can be entries, shortest first; the next free place.

    The dots are collected without a branch on the bytes: where they are cannot be foreseen, and a
    wrong guess costs more than a store that is overwritten.
    """
    if end - start > NAME_BYTES or start >= end or data[start] == DOT or data[end - 1] == DOT:
        return k
    at, stop, dots = U64(start), U64(end), U64(0)
    while at < stop:
        work.dot[dots] = at
        dots += U64(data[at] == DOT)
        at += U64(1)
    many = np.int64(dots)
    for i in range(1, many):
        if work.dot[i] == work.dot[i - 1] + U64(1):
            return k
    for labels in range(table.labels[0], min(table.labels[1], many + 1) + 1):
        begin = U64(start) if labels > many else work.dot[many - labels] + U64(1)
        work.start[k] = begin
        work.hashed[k] = _hash(data, begin, stop)
        k += 1
    return k


@kernel
def lookup_hosts(table, data, offsets, out, work):
    """The code of each text of a column, into `out` (int32).

    A block at a time and a step at a time, so that the reads of one step wait for memory together.

    Touches 56 bytes a name: 2 % of the memory's bandwidth.
    """
    mask = U64(len(table.slots) - 1)
    span = table.labels[1] - table.labels[0] + 1
    first = 0
    while first < len(out):
        rows = k = 0
        while first + rows < len(out) and rows + 1 < len(work.row) and k + span <= len(work.start):
            work.row[rows] = k
            k = _endings(table, data, offsets[first + rows], offsets[first + rows + 1], work, k)
            rows += 1
        work.row[rows] = k
        for j in range(k):
            work.slot[j] = table.slots[work.hashed[j] & mask]
        touched = np.uint8(0)
        for j in range(k):
            work.place[j] = _candidate(table, work.hashed[j], work.slot[j])
            place = work.place[j]
            if place != U64(0):
                touched |= table.records[place] | table.records[place + U64(24)]
        work.touched[0] = touched
        for r in range(rows):
            out[first + r] = NOBODY
            start, end = U64(offsets[first + r]), U64(offsets[first + r + 1])
            for j in range(work.row[r + 1] - 1, work.row[r] - 1, -1):
                place = work.place[j]
                if place != U64(0) and not _same(table, place - U64(1), data, work.start[j], end):
                    place = _find(table, work.hashed[j], data, work.start[j], end)
                if place != U64(0):
                    skip = U64(0) if work.start[j] == start else U64(4)
                    out[first + r] = _code(table, place - U64(1) + skip)
                    break
        first += rows


@kernel
def _enter(table, places):
    """Enter the records at these places.

    Touches 41 bytes a name: less than 1 % of the memory's bandwidth.
    """
    mask = U64(len(table.slots) - 1)
    for i in range(len(places)):
        start = U64(places[i] + HEAD)
        h = _hash(table.records, start, start + U64(table.records[places[i] + 8]))
        at = h & mask
        while table.slots[at] != U64(0):
            at = (at + U64(1)) & mask
        table.slots[at] = ((h >> U64(32)) << U64(32)) | U64(places[i] + 1)


def host_table(names: TextColumn, exact: Sequence[int], under: Sequence[int]) -> HostTable:
    """A table of distinct names with the codes of the name itself and of the names under it."""
    count = len(names)
    lengths = np.diff(names.offsets)
    assert count == len(exact) == len(under)
    assert count == 0 or (lengths.min() > 0 and lengths.max() <= NAME_BYTES)
    letters = names.data[names.offsets[0] : names.offsets[-1]]
    starts = names.offsets[:-1] - names.offsets[0]
    places = starts + HEAD * np.arange(count)
    records = np.zeros(len(letters) + HEAD * count + PADDING, np.uint8)
    assert len(records) < (1 << 32) - 1
    labels = np.ones(2, np.int64)
    if count:
        codes = np.stack([np.asarray(exact, "<i4"), np.asarray(under, "<i4")], axis=1)
        heads = places[:, None] + np.arange(HEAD)
        records[heads[:, :8]] = codes.view(np.uint8).reshape(count, 8)
        records[heads[:, 8]] = lengths
        spelled = np.ones(len(records), np.bool_)
        spelled[heads.ravel()] = False
        spelled[len(records) - PADDING :] = False
        records[spelled] = letters
        dots = np.add.reduceat((letters == DOT).astype(np.int64), starts)
        labels[:] = dots.min() + 1, dots.max() + 1
    capacity = 1 << max(4, (2 * count).bit_length())
    table = HostTable(np.zeros(capacity, np.uint64), records, labels)
    _enter(table, places)
    return table


def work_for(names: int = 256) -> Work:
    """Room for blocks of so many names of usual length."""
    endings = np.zeros((4, 4 * names + LABELS), np.uint64)
    dots = np.zeros(NAME_BYTES + 1, np.uint64)
    return Work(
        hashed=endings[0],
        slot=endings[1],
        start=endings[2],
        place=endings[3],
        row=np.zeros(names + 1, np.int64),
        dot=dots,
        touched=np.zeros(1, np.uint8),
    )


def codes_of(table: HostTable, hosts: TextColumn) -> np.ndarray:
    """The code of each host, int32."""
    out = np.empty(len(hosts), np.int32)
    lookup_hosts(table, hosts.data, hosts.offsets, out, work_for())
    return out
