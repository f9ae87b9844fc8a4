"""Addresses at the edge: text to the two words of a 128-bit prefix, and the hash that means it.

IPv4 is held as ::ffff:a.b.c.d, so an IPv4 host has length 128 and a /24 length 120. Access networks
hand an IPv6 subscriber a /64 (RFC 6177 allows more), so an address without a length means its /64.
"""

from __future__ import annotations

import ipaddress

from pipeline.model.identifiers import digest

V6_DEFAULT_LENGTH = 64
V4_BITS_MIN, V6_BITS_MIN = 16, 32  # nobody signs in with more; a /0 would make one member of all
MAPPED = 0xFFFF_0000_0000
WORD = 2**64 - 1


def parse_prefix(text: str, v6_length: int = V6_DEFAULT_LENGTH) -> tuple[int, int, int] | None:
    """(high word, low word, length of the 128 bits), host bits cleared; None for anything else."""
    address, slash, bits = text.strip().partition("/")
    if "%" in address or (slash and not (bits.isascii() and bits.isdigit() and len(bits) <= 3)):
        return None
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        length = (int(bits) if slash else 32) + 96
        value = int(found) | MAPPED
        least = V4_BITS_MIN + 96
    elif found.ipv4_mapped is not None:
        length, value, least = int(bits) if slash else 128, int(found), V4_BITS_MIN + 96
    else:
        length, value, least = int(bits) if slash else v6_length, int(found), V6_BITS_MIN
    if not least <= length <= 128:
        return None
    return cut_prefix(value >> 64, value & WORD, length)


def cut_prefix(hi: int, lo: int, length: int) -> tuple[int, int, int]:
    """The prefix of this many bits around an address."""
    value = (hi << 64 | lo) >> (128 - length) << (128 - length)
    return value >> 64, value & WORD, length


def prefix_hash(key: bytes, hi: int, lo: int, length: int) -> bytes:
    """The keyed hash of a prefix, by which rows are joined without the address."""
    return digest(key, "address", int(hi), int(lo), int(length))
