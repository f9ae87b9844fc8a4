"""The header by which a proxy tells whose connection it passes on, in plain Python."""

from __future__ import annotations

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
BEGINNINGS = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNO")


def is_signed(raw: bytes) -> bool:
    """Does version 2 begin so?"""
    return raw != b"" and SIGNATURE.startswith(raw[:12])


def after_proxy(raw: bytes) -> int | None:
    """How long the header is; 0: not there yet, None: there is none."""
    if is_signed(raw) and len(raw) > 4:
        if len(raw) < 16:
            return 0
        return 16 + int.from_bytes(raw[14:16], "big") if raw[12] >> 4 == 2 else None
    line, end, _ = raw[:107].partition(b"\n")
    if end and line.endswith(b"\r") and line.startswith(BEGINNINGS):
        return len(line) + 1
    return None
