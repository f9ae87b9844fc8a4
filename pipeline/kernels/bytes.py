"""Reading numbers and letters out of byte arrays.

All take `data` (uint8) and an index that the caller has checked; none checks bounds itself. Results
are int64, so that shifts and sums mean the same with and without JIT, except `be64`, whose upper
half does not fit. Network order everywhere.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.compile import move, primitive, wipe

U64 = np.uint64
I64 = np.int64


@primitive
def be16(data, at):
    """Two bytes in network order."""
    return (I64(data[at]) << 8) | I64(data[at + 1])


@primitive
def be24(data, at):
    """Three bytes in network order."""
    return (I64(data[at]) << 16) | (I64(data[at + 1]) << 8) | I64(data[at + 2])


@primitive
def be32(data, at):
    """Four bytes in network order."""
    return (
        (I64(data[at]) << 24)
        | (I64(data[at + 1]) << 16)
        | (I64(data[at + 2]) << 8)
        | I64(data[at + 3])
    )


@primitive
def le32(data, at):
    """Four bytes, the least significant first."""
    return (
        I64(data[at])
        | (I64(data[at + 1]) << 8)
        | (I64(data[at + 2]) << 16)
        | (I64(data[at + 3]) << 24)
    )


@primitive
def be64(data, at):
    """Eight bytes in network order, as uint64."""
    return (U64(be32(data, at)) << U64(32)) | U64(be32(data, at + 4))


@primitive
def lower(letter):
    """An ASCII letter in lower case; everything else as it is. Takes and gives int64."""
    if 65 <= letter <= 90:
        return letter + 32
    return letter


@primitive
def is_digit(letter):
    """Is this 0 to 9?"""
    return 48 <= letter <= 57


@primitive
def same_letters(data, start, stop, word):
    """Is `data[start:stop]` the lower-case bytes `word`, in any case of letters?"""
    if stop - start != len(word):
        return False
    for i in range(len(word)):  # noqa: SIM110  (kernels know no generators)
        if lower(I64(data[start + i])) != I64(word[i]):
            return False
    return True


@primitive
def holds_letters(data, start, stop, word):
    """Does `data[start:stop]` contain the lower-case bytes `word`, in any case of letters?"""
    for at in range(start, stop - len(word) + 1):
        if same_letters(data, at, at + len(word), word):
            return True
    return False


@primitive
def copy_bytes(source, start, stop, target, at):
    """Copy `source[start:stop]` to `target[at:]`, which may overlap."""
    if stop > start:
        move(source, start, target, at, stop - start)


@primitive
def clear_bytes(target, start, stop):
    """Let `target[start:stop]` be zeros."""
    if stop > start:
        wipe(target, start, stop - start)


@primitive
def same_text(data, start, stop, other_start, other_stop):
    """Are two pieces of text equal but for the case of letters?"""
    if stop - start != other_stop - other_start:
        return False
    for i in range(stop - start):
        if lower(I64(data[start + i])) != lower(I64(data[other_start + i])):
            return False
    return True
