"""What `flows.py` keeps: rows, pieces, holdings, flows; and what begins a unit."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.classify.stage import Limits
from pipeline.model.faults import Fault, Skip
from tests.naive import http, tls
from tests.naive.proxy import is_signed

End = tuple[str, int]


def distance(a: int, b: int) -> int:
    """How far sequence number a is ahead of b."""
    ahead = (a - b) & 0xFFFFFFFF
    return ahead - (1 << 32) if ahead >= 1 << 31 else ahead


@dataclass
class Row:
    """A session."""

    first_ns: int
    number: int
    watermark_ns: int
    protocol: str
    host: str
    client: End
    server: End
    flags: int
    realm: tuple[int, ...] = ()
    method: int = 0
    target: bytes = b""
    referer: bytes = b""
    alpn: bytes = b""


@dataclass
class Piece:
    """Bytes of a window from `start` on, and the packet that brought them."""

    start: int
    raw: bytes
    time_ns: int
    number: int

    @property
    def stop(self) -> int:
        return self.start + len(self.raw)


@dataclass
class Holding:
    """What is held of a flow."""

    base: int
    deadline_ns: int
    client: End
    server: End
    pieces: list[Piece] = field(default_factory=list)
    disagrees: bool = False
    named: bool = False
    rows: int = 0
    seal: tuple[str, bytes] | None = None  # QUIC: salt and connection id of the keys
    realm: tuple[int, ...] = ()

    def add(self, raw: bytes, position: int, now: Now, limits: Limits) -> str:
        """Fill gaps, the first of two overlapping segments wins: stored, nothing new, or no room."""
        stored = False
        at = max(position, 0)
        stop = min(position + len(raw), limits.unit_bytes)
        while at < stop:
            there = next((p for p in self.pieces if p.start <= at < p.stop), None)
            if there:
                until = min(stop, there.stop)
                known = there.raw[at - there.start : until - there.start]
                self.disagrees |= known != raw[at - position : until - position]
            else:
                until = min([stop, *(p.start for p in self.pieces if p.start > at)])
                if len(self.pieces) == limits.pieces:
                    self.join()
                if len(self.pieces) == limits.pieces:
                    return "no room"
                new = Piece(at, raw[at - position : until - position], now.time_ns, now.number)
                self.pieces = sorted([*self.pieces, new], key=lambda p: p.start)
                stored = True
            at = until
        return "stored" if stored else "nothing new"

    def join(self) -> None:
        """Make one of pieces that touch."""
        joined: list[Piece] = []
        for piece in self.pieces:
            if joined and joined[-1].stop == piece.start:
                last = joined.pop()
                piece = Piece(last.start, last.raw + piece.raw, last.time_ns, last.number)
            joined.append(piece)
        self.pieces = joined

    def runs(self) -> list[tuple[int, bytes]]:
        """Bytes without a gap between them, and where they start."""
        runs: list[tuple[int, bytes]] = []
        for piece in self.pieces:
            if runs and runs[-1][0] + len(runs[-1][1]) == piece.start:
                runs[-1] = (runs[-1][0], runs[-1][1] + piece.raw)
            else:
                runs.append((piece.start, piece.raw))
        return runs

    def front(self) -> bytes:
        """What is there from the window's first byte on."""
        runs = self.runs()
        return runs[0][1] if runs and runs[0][0] == 0 else b""

    def drop(self, length: int) -> None:
        """Let the window begin later."""
        kept = []
        for piece in self.pieces:
            if piece.stop > length:
                raw = piece.raw[max(length - piece.start, 0) :]
                kept.append(Piece(max(piece.start - length, 0), raw, piece.time_ns, piece.number))
        self.pieces = kept
        self.base = (self.base + length) & 0xFFFFFFFF


@dataclass
class Flow:
    """What is known of a flow."""

    transport: str
    first_ns: int
    seen_ns: int
    turn: int = 0
    state: str = "new"
    place: int | None = None  # sequence number of the next unit
    first_sequence: int | None = None
    client: End | None = None
    midstream: bool = False
    tries: int = 0
    hello_named: bool = False
    answered: bool = False  # one end has spoken as servers do
    hello_id: bytes = b""  # QUIC: the connection id whose keys opened the last hello
    weakly_named: bool = False  # by a DNS answer
    upgrades: bool = False  # the last request asked for another protocol
    tunnel: bool = False  # the address it goes to is a proxy's
    sent: bytes = b""  # the last hello or head, as it came
    front: bytes | None = None  # of that hello, where it came in a segment of its own
    tail: bytes | None = None  # likewise its end
    repeated: bool = False  # what is held stands in the place of a hello that was read
    disputed: bool = False  # another head stood in the place of one
    ended: bool = False  # by a FIN or a RST
    lost: str = ""  # why it has no name yet: gap, cut or room
    names: list[tuple[str, str]] = field(default_factory=list)
    holding: Holding | None = None


@dataclass
class Now:
    """The packet at hand."""

    time_ns: int
    number: int
    watermark_ns: int
    client: End
    server: End
    sequence: int = 0
    flags: int = 0
    fault: Fault | None = None
    skip: Skip | None = None
    named: int = 0
    realm: tuple[int, ...] = ()


def hello_behind(raw: bytes) -> int | None:
    """Where in a segment a hello begins: at once, or behind a ChangeCipherSpec."""
    before = 6 if raw[:2] == b"\x14\x03" and len(raw) > 6 else 0
    hello = raw[before:]
    return before if len(hello) >= 6 and tls.starts_hello(hello) else None


def starts_unit(raw: bytes) -> bool:
    """Does a segment begin like a hello or a head, with enough bytes to tell?"""
    if len(raw) < 6:
        return False
    if raw[0] == 0x16:
        return tls.starts_hello(raw)
    if is_signed(raw):
        return True
    return raw[:1].isupper() and http.starts_head(raw) and b" " in raw


def asks(raw: bytes) -> bool:
    """Is it a hello or has it a whole request line: what no server says?"""
    if not starts_unit(raw):
        return False
    line, end, _ = raw.lstrip(b"\r\n").partition(b"\n")
    return raw[0] == 0x16 or (bool(end) and b" HTTP/1." in line)


def is_from_server(raw: bytes) -> bool:
    """Does a segment begin like a server's hello or an HTTP response?"""
    if len(raw) > 5 and raw[:2] == b"\x16\x03":
        return raw[5] == 2
    return len(raw) >= 9 and raw[:5] == b"HTTP/" and raw[8:9] == b" "
