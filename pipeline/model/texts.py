"""What may stand in a text column that other people wrote."""

from __future__ import annotations

import unicodedata

# Control characters, lone surrogates, and what ends a line in some programs and not in others.
REFUSED = ("Cc", "Cs", "Zl", "Zp")


def is_plain(text: str) -> bool:
    """Is this one line of text without control characters?"""
    if text.isprintable():
        return True
    return not any(unicodedata.category(c) in REFUSED for c in text)
