"""Targets over files: framers of captures, what unpacks them, and the text inputs.

pcap, pcapng and unpacking are compared with their twins, in blocks and batches of a few bytes and
rows. A text input may be refused as a whole with sentences, or row by row with a count; rows that
are good and rows that are counted are all rows there are.
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from unittest.mock import patch

import zstandard

from pipeline.capture import unpack
from pipeline.capture.facts import OPTIONAL, REQUIRED, FactsError
from pipeline.capture.recognise import GZIP_MAGIC, PCAPNG_MAGIC, ZSTD_MAGIC
from pipeline.model.tally import Tally
from tests.capture.test_facts import GOOD, KINDS, READERS
from tests.capture.test_pcap import capture
from tests.capture.test_pcap import same_as_twin as pcap_as_twin
from tests.capture.test_pcapng import same_as_twin as pcapng_as_twin
from tests.capture.test_unpack import unpacked
from tests.classify import frames
from tests.forge import pcapng
from tests.fuzz.target import Tape, Target, same
from tests.naive import unpack as naive

PACKET = frames.tcp(frames.get("shop.example"))
MAGICS = tuple(capture([], order, tick)[:4] for order in "<>" for tick in (1000, 1, 0))


def check_pcap(raw: bytes) -> None:
    """A magic number by its place, then the rest of the file."""
    tape = Tape(raw)
    rows, block_bytes = 1 + tape.byte() % 5, 1 + tape.byte()
    pcap_as_twin(MAGICS[tape.byte() % len(MAGICS)] + tape.rest(), rows, block_bytes)


def pcap_seeds() -> list[bytes]:
    """Files in both byte orders and all units of time."""
    records = [(5, 7, 0, b"x" * 20), (6, 2**31, 9, PACKET[:40]), (7, 0, -3, b"")]
    files = [capture(records, order, tick) for order in "<>" for tick in (1000, 1, 0)]
    return [b"\3\x20" + bytes([MAGICS.index(file[:4])]) + file[4:] for file in files]


def check_pcapng(raw: bytes) -> None:
    """The rest of a file that begins as pcapng."""
    tape = Tape(raw)
    rows, block_bytes = 1 + tape.byte() % 5, 1 + tape.byte()
    pcapng_as_twin(PCAPNG_MAGIC + tape.rest(), rows, block_bytes)


def pcapng_seeds() -> list[bytes]:
    """Sections with every kind of block, honest and not."""
    found = []
    for order in "<>":
        comment = pcapng.option(order, pcapng.COMMENT, b"hello")
        file = b"".join(
            (
                pcapng.section(order, options=comment),
                pcapng.interface(order, 1, 64, 6, 5, comment),
                pcapng.interface(order, 101, 0, 137),
                pcapng.packet(order, b"x" * 21, 10**15, options=comment),
                pcapng.packet(order, b"y" * 3, 2**64 - 1, 1, captured=70),
                pcapng.old_packet(order, b"zz", 4, 1),
                pcapng.simple(order, b"w" * 5, 90),
                pcapng.block(order, 10, b"secrets"),
                pcapng.block(order, 2989, b"", trailer=4),
            )
        )
        found += [file, pcapng.section(order, 2) + file[:180]]
    return [b"\2\x60" + file[len(PCAPNG_MAGIC) :] for file in found]


def check_gzip(raw: bytes) -> None:
    """Anything that begins like gzip, given out in pieces so small that a member has many."""
    tape = Tape(raw)
    most, piece, first = 1 + tape.byte(), 1 + tape.byte(), 1 + tape.byte()
    raw = (GZIP_MAGIC + tape.rest()).ljust(4, b"\0")
    with patch.multiple(unpack, PIECE_BYTES=piece, FIRST_BYTES=first):
        same(unpacked(raw, most), naive.gunzip(raw))


def gzip_seeds() -> list[bytes]:
    """Members stored and packed, with names, padding and others behind them."""
    one, other = gzip.compress(b"one" * 9, 9, mtime=0), gzip.compress(b"two", 0, mtime=0)
    named = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\4\0abcdname\0comment\0\0\0" + one[10:]
    files = [one, other, one + bytes(3) + other, named, gzip.compress(b"", mtime=0) * 3, one[:-3]]
    return [
        sizes + file[len(GZIP_MAGIC) :] for sizes in (b"\5\xff\x3f", b"\xff\1\7") for file in files
    ]


def check_zstd(raw: bytes) -> None:
    """Anything that begins like zstd."""
    most, raw = 1 + (raw[0] if raw else 0), ZSTD_MAGIC + raw[1:]
    same(unpacked(raw, most), naive.unzstd(raw))


def zstd_seeds() -> list[bytes]:
    """Frames with and without sizes and check sums, blocks of all kinds, and skippable ones."""
    plain = zstandard.ZstdCompressor(write_content_size=False).compress(b"one" * 9)
    summed = zstandard.ZstdCompressor(19, write_checksum=True).compress(b"two, two, three" * 4)
    repeated = ZSTD_MAGIC + b"\0\x38" + (900 << 3 | 3).to_bytes(3, "little") + b"x"
    skipped = b"\x53\x2a\x4d\x18\3\0\0\0abc"
    more = ZSTD_MAGIC + b"\x80\0" + (5).to_bytes(4, "little") + (9 << 3).to_bytes(3, "little")
    files = [plain, summed, repeated, plain + skipped + summed, plain + repeated, summed[:-2]]
    files.append(more + b"more than 5")  # a block that is longer than the content's size
    return [b"\5" + file[len(ZSTD_MAGIC) :] for file in files]


def check_facts(raw: bytes) -> None:
    """A file of any kind: bytes behind a good header, or all of it."""
    tape = Tape(raw)
    choice = tape.byte()
    kind, optional = KINDS[choice & 3], bool(choice & 4)
    columns = REQUIRED[kind] + (OPTIONAL[kind] if optional else ())
    head = f"# mirrorpoint {kind} v1\n" + ("" if choice & 8 else "\t".join(columns) + "\n")
    tally = Tally()
    with tempfile.NamedTemporaryFile() as file:
        file.write(head.encode() + tape.rest())
        file.flush()
        try:
            batch, faults = READERS[kind](Path(file.name), tally)
        except FactsError as error:
            same(bool(error.problems), True)
            return
    counted = sum(tally.starting("fault").values())
    assert len(faults) <= counted
    if not choice & 8:
        lines = [line for line in raw[1:].split(b"\n") if line.strip() and line[:1] != b"#"]
        kept = 0 if kind == "purchases" else counted  # bad purchases go on with their fault
        same(len(batch) + kept, len(lines))


def facts_seeds() -> list[bytes]:
    """Good rows and bad ones of each kind."""
    found = []
    for number, kind in enumerate(KINDS):
        good = "\t".join(GOOD[kind]).encode()
        bad = good.replace(b"2026", b"20x6"), good + b"\tmore", b"\xff\xfe", b"# told", b""
        found.append(bytes([number]) + b"\n".join((good, *bad, good)) + b"\n")
        row = [*GOOD[kind], *("" for _ in OPTIONAL[kind])]
        found.append(bytes([number | 4]) + "\t".join(row).encode())
        found.append(bytes([number | 8]) + "\t".join(REQUIRED[kind]).encode() + b"\n" + good)
    return found


WORDS = (b"\t", b"\r\n", b"1772352000000000000", b"2026-03-01T08:00:00.5Z", b"2001:db8::/56",
         b"192.0.2.0/24", b"stop", b"interim", b"consented", b"confirmed", b"-", b"0.10", b"\xc2\xa0")  # fmt: skip
CONTAINERS = (
    Target("pcap", check_pcap, pcap_seeds, words=(b"\0\0\4\0", b"\0\4\0\0", b"\x7f\xff\xff\xff")),
    Target("pcapng", check_pcapng, pcapng_seeds, 900),
    Target("gzip", check_gzip, gzip_seeds, 300, runs=15_000),
    Target("zstd", check_zstd, zstd_seeds, 200, runs=15_000),
    Target("facts", check_facts, facts_seeds, words=WORDS),
)
