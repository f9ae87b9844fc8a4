"""What may stand in a text column that other people wrote.

A partner's reference (of an order, a line, a conversion, a coupon) has to be found again, and most
are numbers. But partners write what they like, and some write whose order it was. So a reference
stands in clear where it is one word of ASCII that holds no address, no mail address or login with
`@`, and no host name; anything else is stored as its keyed hash. Asking for the same text makes the
same hash, so it is found all the same. What looks like a number may still be somebody's: no rule
on a text can tell a telephone number from an order's.
"""

from __future__ import annotations

import re
import unicodedata

from pipeline.model.identifiers import digest

# Control characters, lone surrogates, and what ends a line in some programs and not in others.
REFUSED = ("Cc", "Cs", "Zl", "Zp")

NUMBERED = re.compile(r"[A-Za-z0-9_#-]*\Z", re.ASCII)  # nearly all; nothing else can hide in it
WORD = re.compile(r"[!-?A-~]*\Z", re.ASCII)  # printable, no blank, no @
TELLING = re.compile(
    r"(?:\d{1,3}\.){3}\d{1,3}"  # IPv4
    r"|::|(?:[0-9a-f]{1,4}:){5}"  # IPv6, and the address of a network card
    r"|[a-z0-9_-]\.[a-z][a-z0-9-]*[a-z0-9](?![a-z0-9-])",  # the last two labels of a host
    re.ASCII | re.IGNORECASE,
)
HASHED = "hash:"


def is_plain(text: str) -> bool:
    """Is this one line of text without control characters?"""
    if text.isprintable():
        return True
    return not any(unicodedata.category(c) in REFUSED for c in text)


def tells_nobody(text: str) -> bool:
    """May this reference stand in clear: is it one word without address, login or host?"""
    if NUMBERED.match(text):
        return True
    return WORD.match(text) is not None and TELLING.search(text) is None


def hashed_reference(text: str, key: bytes) -> str:
    """What stands for a text that may not be shown: equal for equal texts under one key."""
    return HASHED + digest(key, "reference", text).hex()


def kept_reference(text: str, key: bytes) -> str:
    """A reference as it may be stored, and as it is looked up."""
    return text if tells_nobody(text) else hashed_reference(text, key)
