"""Keyed hashes in Python integers; SipHash itself has its twin in `rowhash.py`."""

from __future__ import annotations

MASK = (1 << 64) - 1


def mix64(x: int) -> int:
    """The finaliser of SplitMix64."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def address_hash(k0: int, k1: int, hi: int, lo: int) -> int:
    """The keyed hash of two words."""
    return mix64((mix64(hi ^ k0) + (lo ^ k1) * 0x9E3779B97F4A7C15) & MASK)
