"""What may stand in a text column that other people wrote."""

from __future__ import annotations

import pytest

from pipeline.model.texts import is_plain


@pytest.mark.parametrize("text", ["", "abc", "Ä ö €", "книга", "a\u00a0b", "a\u200bb", "🎁"])
def test_plain(text: str) -> None:
    assert is_plain(text)


@pytest.mark.parametrize("text", ["a\x00", "\x1b[31m", "a\nb", "\x85", "\u2028", "\ud800", "\x7f"])
def test_not_plain(text: str) -> None:
    assert not is_plain(text)
