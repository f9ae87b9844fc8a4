"""The TLS client hello in plain Python: RFC 8446 sections 4 and 5.1 read off byte by byte."""

from __future__ import annotations

from dataclasses import dataclass, field

NOT_YET, NEVER, BAD, TOO_LONG, FROM_SERVER = "not yet", "never", "bad", "too long", "from server"
RECORD_BYTES_MAX = (1 << 14) + 256


@dataclass(frozen=True)
class Hello:
    """What a client hello says."""

    name: bytes = b""
    alpn: list[bytes] = field(default_factory=list)


def starts_hello(raw: bytes) -> bool:
    """Could a client hello start so? Yes while there is nothing against it."""
    checks = [
        raw[:1] == b"\x16",
        raw[1:2] in (b"", b"\x03"),
        raw[2:3] <= b"\x04",
        len(raw) < 5 or 0 < int.from_bytes(raw[3:5], "big") <= RECORD_BYTES_MAX,
        raw[5:6] in (b"", b"\x01"),
    ]
    return all(checks)


def gather_hello(raw: bytes, longest: int) -> tuple[bytes, int] | str:
    """The body of the hello that starts `raw` and where its records end, or one of the outcomes."""
    if raw[:1] == b"\x16" and raw[5:6] == b"\x02":
        return FROM_SERVER
    if not starts_hello(raw):
        return NEVER
    handshake, at = b"", 0
    while True:
        header = raw[at : at + 5]
        if len(header) < 5:
            return NOT_YET
        length = int.from_bytes(header[3:], "big")
        if header[:2] != b"\x16\x03" or not 0 < length <= RECORD_BYTES_MAX:
            return BAD
        handshake += raw[at + 5 : at + 5 + length]
        if len(handshake) >= 4:
            if handshake[0] != 1:
                return NEVER
            needed = 4 + int.from_bytes(handshake[1:4], "big")
            if needed > longest:
                return TOO_LONG
            if len(handshake) >= needed:
                return handshake[4:needed], min(at + 5 + length, len(raw))
        if len(raw) < at + 5 + length:
            return NOT_YET
        at += 5 + length


class Cursor:
    """Takes bytes from the front; more than there are is a ValueError."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def take(self, count: int) -> bytes:
        if len(self.raw) < count:
            raise ValueError
        taken, self.raw = self.raw[:count], self.raw[count:]
        return taken

    def vector(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "big"))


def read_hello(body: bytes) -> Hello | None:
    """What a hello's body says; None where its lengths do not add up."""
    try:
        return _read(Cursor(body))
    except ValueError:
        return None


def _read(cursor: Cursor) -> Hello:
    if cursor.take(2)[:1] != b"\x03":
        raise ValueError
    cursor.take(32)
    for width in (1, 2, 1):
        cursor.vector(width)
    if not cursor.raw:
        return Hello()
    extensions = Cursor(cursor.vector(2))
    if cursor.raw:
        raise ValueError
    name, alpn = None, []
    while extensions.raw:
        kind = int.from_bytes(extensions.take(2), "big")
        content = extensions.vector(2)
        if kind == 0 and content and name is None:
            names = Cursor(Cursor(content).vector(2))
            while names.raw:
                name_type, host = names.take(1), names.vector(2)
                if name_type == b"\0" and name is None:
                    name = host
        elif (
            kind == 16 and len(content) >= 2 and content[:2] == len(content[2:]).to_bytes(2, "big")
        ):
            alpn, offered = [], content[2:]
            while offered:
                alpn.append(offered[1 : 1 + offered[0]])
                offered = offered[1 + offered[0] :]
    return Hello(name or b"", alpn)


def alpn_text(alpn: list[bytes]) -> bytes:
    """Names with commas between; what is not printable (GREASE) is left out."""
    return b",".join(n for n in alpn if n and all(32 < c < 127 and c != 44 for c in n))
