"""What a file is, by its first bytes and never by its name.

Captures start with a magic number (classic pcap in either byte order with micro- or nanoseconds, or
Kuznetzov's variant; pcapng; gzip or zstd around either). Our text inputs say on their first line
what they are: `# mirrorpoint sign-ins v1`.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Literal


class InputKind(Enum):
    """The kinds of input; the value is what to call it in a message."""

    PCAP = "pcap"
    PCAPNG = "pcapng"
    GZIP = "gzip"
    ZSTD = "zstd"
    SIGNINS = "sign-ins"
    CIRCLE = "circle"
    MEMBERS = "members"
    PURCHASES = "purchases"
    ORDERS = "orders"
    UNKNOWN = "unknown"


CLASSIC_MAGICS = (0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34)
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE_MAGIC = b"\x2a\x4d\x18"  # behind a byte 0x50 to 0x5f (RFC 8878, 3.1.2)
CAPTURES = (InputKind.PCAP, InputKind.PCAPNG)
COMPRESSED = (InputKind.GZIP, InputKind.ZSTD)
TEXT_KINDS = (
    InputKind.SIGNINS, InputKind.CIRCLE, InputKind.MEMBERS, InputKind.PURCHASES, InputKind.ORDERS,
)  # fmt: skip
FIRST_LINES = {f"# mirrorpoint {kind.value} v1".encode(): kind for kind in TEXT_KINDS}
HEAD_BYTES = 64


def recognise(path: Path) -> InputKind:
    """The kind of the file at `path`. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return recognise_bytes(file.read(HEAD_BYTES))


def recognise_bytes(head: bytes) -> InputKind:
    """The kind of a file that starts with these bytes (the first 64 are enough)."""
    if byte_order(head) is not None:
        return InputKind.PCAP
    if head.startswith(PCAPNG_MAGIC):
        return InputKind.PCAPNG
    if head.startswith(GZIP_MAGIC):
        return InputKind.GZIP
    if head.startswith(ZSTD_MAGIC) or is_skippable(head):
        return InputKind.ZSTD
    first_line = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].rstrip()
    return FIRST_LINES.get(first_line, InputKind.UNKNOWN)


def byte_order(head: bytes) -> Literal["big", "little"] | None:
    """`big` or `little` where `head` starts with a classic capture's magic number, else None."""
    if int.from_bytes(head[:4], "big") in CLASSIC_MAGICS:
        return "big"
    if int.from_bytes(head[:4], "little") in CLASSIC_MAGICS:
        return "little"
    return None


def is_skippable(head: bytes) -> bool:
    """Do these bytes begin a zstd frame to be passed over? Some tools put one first."""
    return head[1:4] == SKIPPABLE_MAGIC and head[0] >> 4 == 5
