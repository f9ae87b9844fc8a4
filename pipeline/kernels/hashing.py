"""Keyed hashing for kernels.

`mix64` spreads 64 bits (the finaliser of SplitMix64, Steele et al. 2014); `address_hash` keys it
for tables that a hostile sender must not be able to fill with collisions. `siphash128` is
SipHash-2-4 with 128-bit output (Aumasson and Bernstein 2012, and the reference's 2-word extension):
ids that are stored.

Without JIT numpy scalars warn when uint64 wraps; that wrapping is meant.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.compile import kernel, primitive

U64 = np.uint64
M1, M2, GOLDEN = U64(0xBF58476D1CE4E5B9), U64(0x94D049BB133111EB), U64(0x9E3779B97F4A7C15)
V0, V1 = U64(0x736F6D6570736575), U64(0x646F72616E646F6D)
V2, V3 = U64(0x6C7967656E657261), U64(0x7465646279746573)


@primitive
def mix64(x):
    """A bijection of uint64 in which every input bit moves about half the output bits."""
    x = (x ^ (x >> U64(30))) * M1
    x = (x ^ (x >> U64(27))) * M2
    return x ^ (x >> U64(31))


@primitive
def address_hash(k0, k1, hi, lo):
    """A keyed 64-bit hash of two words."""
    return mix64(mix64(hi ^ k0) + (lo ^ k1) * GOLDEN)


@primitive
def _rotl(x, bits):
    return (x << U64(bits)) | (x >> U64(64 - bits))


@primitive
def _round(v0, v1, v2, v3):
    v0 = v0 + v1
    v1 = _rotl(v1, 13) ^ v0
    v0 = _rotl(v0, 32)
    v2 = v2 + v3
    v3 = _rotl(v3, 16) ^ v2
    v0 = v0 + v3
    v3 = _rotl(v3, 21) ^ v0
    v2 = v2 + v1
    v1 = _rotl(v1, 17) ^ v2
    v2 = _rotl(v2, 32)
    return v0, v1, v2, v3


@kernel
def siphash128(k0, k1, data, start, length):
    """SipHash-2-4-128 of `data[start : start + length]`: two uint64 words.

    Touches some 20 bytes a text: 2 % of the memory's bandwidth.
    """
    v0, v1, v2, v3 = k0 ^ V0, k1 ^ V1 ^ U64(0xEE), k0 ^ V2, k1 ^ V3
    whole = length // 8
    for i in range(whole):
        m = U64(0)
        for j in range(8):
            m |= U64(data[start + i * 8 + j]) << U64(8 * j)
        v3 ^= m
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= m
    m = U64(length & 0xFF) << U64(56)
    for j in range(length - whole * 8):
        m |= U64(data[start + whole * 8 + j]) << U64(8 * j)
    v3 ^= m
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= m
    v2 ^= U64(0xEE)
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    first = v0 ^ v1 ^ v2 ^ v3
    v1 ^= U64(0xDD)
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return first, v0 ^ v1 ^ v2 ^ v3


@kernel
def siphash128_words(k0, k1, words, out):
    """SipHash-2-4-128 of each row of `words` (rows, n) uint64, as little-endian bytes, into `out`
    (rows, 2).

    Touches 262 bytes a row of 30 words: 7 % of the memory's bandwidth.
    """
    rows, n = words.shape
    for r in range(rows):
        v0, v1, v2, v3 = k0 ^ V0, k1 ^ V1 ^ U64(0xEE), k0 ^ V2, k1 ^ V3
        for i in range(n):
            m = words[r, i]
            v3 ^= m
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
            v0 ^= m
        m = U64((n * 8) & 0xFF) << U64(56)
        v3 ^= m
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= m
        v2 ^= U64(0xEE)
        for _ in range(4):
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        out[r, 0] = v0 ^ v1 ^ v2 ^ v3
        v1 ^= U64(0xDD)
        for _ in range(4):
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        out[r, 1] = v0 ^ v1 ^ v2 ^ v3
