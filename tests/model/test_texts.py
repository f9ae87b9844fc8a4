"""What may stand in a text column that other people wrote."""

from __future__ import annotations

import pytest

from pipeline.model.texts import HASHED, is_plain, kept_reference, tells_nobody

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.mark.parametrize("text", ["", "abc", "Ä ö €", "книга", "a\u00a0b", "a\u200bb", "🎁"])
def test_plain(text: str) -> None:
    assert is_plain(text)


@pytest.mark.parametrize("text", ["a\x00", "\x1b[31m", "a\nb", "\x85", "\u2028", "\ud800", "\x7f"])
def test_not_plain(text: str) -> None:
    assert not is_plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AC-R1001",
        "R_7#2",
        "2026/03/117",
        "1.2.3",
        "4711.A",
        "a:b",
        "(12)",
        "10.000,00",
        "1.2e",
        "2026-03-01T08:20:00Z",
        "b28c806d-68bb-54d2-fb28-a0621298f6da",
        "SPRING",
        "x=1;y=2",
    ],
)
def test_a_reference_stands_as_it_was_sent(text: str) -> None:
    assert tells_nobody(text)
    assert kept_reference(text, KEY) == text


@pytest.mark.parametrize(
    "text",
    [
        "wren@isp.example",
        "@wren",
        "for Erika Muster",
        "Müller",
        "+49 1555 000 888",
        "a\u00a0b",
        "198.51.100.10",
        "ip:198.51.100.10:443",
        "[198.51.100.0/24]",
        "X198.51.100.10Y",
        "2001:db8::7",
        "::1",
        "2001:db8:1:2:3:4:5:6",
        "00:00:5e:00:53:af",
        "::ffff:198.51.100.10",
        "shop.example",
        "HTTP://SHOP.EXAMPLE/x",
        "a.b.test:80",
        "xn--bcher-kva.example.",
        "a.xn--p1ai",
    ],
)
def test_a_reference_that_tells_somebody_is_hashed(text: str) -> None:
    kept = kept_reference(text, KEY)
    assert kept.startswith(HASHED)
    assert kept == kept_reference(text, KEY)
    assert kept not in (kept_reference(text + " ", KEY), kept_reference(text, OTHER))
    assert kept_reference(kept, KEY) == kept, "what is stored is found, too"
