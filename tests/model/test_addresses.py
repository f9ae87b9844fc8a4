"""Addresses: words and lengths, what is refused, and hashes that tell prefixes apart."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.addresses import parse_prefix, prefix_hash

V4 = 0xFFFF_0000_0000


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", (0, V4 | 0xC0000201, 128)),
        (" 192.0.2.77/24 ", (0, V4 | 0xC0000200, 120)),
        ("::ffff:192.0.2.1", (0, V4 | 0xC0000201, 128)),
        ("2001:db8:1:2:3::4", (0x20010DB8_00010002, 0, 64)),
        ("2001:db8:1:2:3::4/128", (0x20010DB8_00010002, 0x0003_0000_0000_0004, 128)),
        ("2001:db8:1:2::/56", (0x20010DB8_00010000, 0, 56)),
        ("192.0.2.1/33", None),
        ("192.0.2.0/15", None),  # nobody signs in with that much
        ("0.0.0.0/0", None),
        ("::/0", None),
        ("2001:db8::/31", None),
        ("2001:db8::/129", None),
        ("2001:db8::1/64/64", None),
        ("fe80::1%eth0", None),
        ("192.0.2", None),
        ("192.0.2.1/+24", None),
        ("192.0.2.1/", None),
        ("", None),
    ],
)
def test_parse(text: str, found: tuple[int, int, int] | None) -> None:
    assert parse_prefix(text) == found


@given(st.ip_addresses(v=4), st.integers(16, 32))
def test_every_ipv4_prefix(address: ipaddress.IPv4Address, length: int) -> None:
    network = ipaddress.ip_network((address, length), strict=False)
    assert parse_prefix(f"{address}/{length}") == (
        0,
        V4 | int(network.network_address),
        length + 96,
    )


@given(st.text(max_size=50))
def test_any_text_is_a_prefix_or_none(text: str) -> None:
    found = parse_prefix(text)
    if found:
        hi, lo, length = found
        assert 32 <= length <= 128
        assert (hi << 64 | lo) % (1 << 128 - length) == 0


def test_the_default_for_ipv6_can_be_stated() -> None:
    assert parse_prefix("2001:db8:1:2::9", v6_length=56) == (0x20010DB8_00010000, 0, 56)


def test_hashes_tell_prefixes_and_keys_apart() -> None:
    prefixes = [(1, 2, 64), (2, 1, 64), (1, 2, 65), (2**64 - 1, 2**64 - 1, 128)]
    hashes = {prefix_hash(key, *prefix) for key in (b"a", b"b") for prefix in prefixes}
    assert len(hashes) == 8
    assert all(len(h) == 16 for h in hashes)
