"""gzip and zstd: all that is inside and no more, to the byte before a cut or mistake, in little
memory.
"""

from __future__ import annotations

import gzip
import io
import os
import resource
import threading
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture import unpack
from pipeline.capture.blocks import FileBytes
from pipeline.capture.recognise import InputKind, recognise_bytes
from pipeline.capture.unpack import BLOCK_BYTES_MAX, PIECE_BYTES, Unpacked
from pipeline.model.faults import Fault
from tests.naive import unpack as naive

TWINS = {InputKind.GZIP: naive.gunzip, InputKind.ZSTD: naive.unzstd}
CONTENTS = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda part, times: part * times, st.binary(min_size=1, max_size=40), st.integers(1, 90)
    ),
)


def gzipped(raw: bytes, level: int = 6) -> bytes:
    """One member; at level 0 its bytes are stored, at 1 with another code than at 9."""
    return gzip.compress(raw, level, mtime=0)


def zstded(raw: bytes, level: int = 3, check: bool = True, size: bool = True) -> bytes:
    """One frame."""
    return zstandard.ZstdCompressor(level, write_checksum=check, write_content_size=size).compress(
        raw
    )


def skippable(raw: bytes) -> bytes:
    """A zstd frame that means nothing to us."""
    return b"\x53\x2a\x4d\x18" + len(raw).to_bytes(4, "little") + raw


def zstd_blocks(*blocks: tuple[int, int, bytes]) -> bytes:
    """A frame made by hand, looking 128 KiB back: type, size and bytes of each block."""
    raw = bytearray(b"\x28\xb5\x2f\xfd\x00\x38")
    for number, (kind, size, held) in enumerate(blocks, start=1):
        raw += (size << 3 | kind << 1 | (number == len(blocks))).to_bytes(3, "little") + held
    return bytes(raw)


MEMBERS = st.builds(gzipped, CONTENTS, st.sampled_from([0, 1, 6, 9]))
FRAMES = st.one_of(
    st.builds(zstded, CONTENTS, st.sampled_from([1, 3, 19]), st.booleans(), st.booleans()),
    st.binary(max_size=20).map(skippable),
)
PACKED = st.one_of(
    st.tuples(st.lists(MEMBERS, min_size=1, max_size=3).map(b"".join), st.binary(max_size=0)),
    st.tuples(st.lists(MEMBERS, min_size=1, max_size=3).map(b"".join), st.just(bytes(7))),
    st.tuples(st.lists(FRAMES, min_size=1, max_size=4).map(b"".join), st.just(b"")),
).map(b"".join)


class Dribble(io.RawIOBase):
    """Gives at most so many bytes a read, as a pipe does."""

    def __init__(self, raw: bytes, most: int) -> None:
        self.raw, self.most, self.at = raw, most, 0

    def readinto(self, room) -> int:
        piece = self.raw[self.at : self.at + min(self.most, len(room))]
        room[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


def unpacked(raw: bytes, most: int = 1 << 16, room_bytes: int = 1 << 12) -> tuple[bytes, str]:
    """What comes out, and the fault (empty: none)."""
    kind = recognise_bytes(raw[:4])
    source = Unpacked(FileBytes(Dribble(raw[4:], most)), kind, raw[:4])
    room, found = bytearray(room_bytes), []
    while count := source.readinto(memoryview(room)):
        found.append(bytes(room[:count]))
    assert source.readinto(memoryview(room)) == 0
    assert bool(source.problem) == (source.fault is not Fault.NONE)
    return b"".join(found), source.fault.name.lower() if source.fault else ""


@given(PACKED, st.integers(1, 70), st.integers(1, 700))
def test_it_equals_the_twin_however_it_comes(raw, most, room_bytes):
    found = unpacked(raw, most, room_bytes)
    assert found == TWINS[recognise_bytes(raw[:4])](raw)
    assert found[1] == ""


@given(PACKED, st.integers(1, 70), st.data())
def test_it_gives_what_came_before_a_cut_or_mistake(raw, most, data):
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = bytes(changed[: data.draw(st.integers(4, len(raw)))])
    found = unpacked(raw, most)
    assert found == TWINS[recognise_bytes(raw[:4])](raw)


@given(st.sampled_from([b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=60))
def test_any_bytes_are_unpacked_to_their_end(magic, raw):
    assert unpacked(magic + raw, 3) == TWINS[recognise_bytes(magic)](magic + raw)


@pytest.mark.parametrize("pack", [gzipped, zstded])
def test_members_and_frames_behind_each_other_are_one_stream(pack):
    long = bytes(range(256)) * 4096 + os.urandom(300_000)
    raw = pack(b"first ") + pack(b"") + pack(long) + pack(b" last")
    assert unpacked(raw) == (b"first " + long + b" last", "")


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 4 * PIECE_BYTES])
def test_a_member_of_many_pieces_ends_where_the_next_begins(size):
    """Of its last call the library says twice what it did not need."""
    raw = gzipped(bytes(size), 9) + gzipped(b"between") + gzipped(bytes(size), 1)
    for most in (1, 50, 1 << 16):
        assert unpacked(raw, most) == (bytes(size) + b"between" + bytes(size), "")


def test_what_the_library_holds_back_comes_out_before_a_mistake(monkeypatch):
    """A piece that is full leaves some of what was taken in for the next call, and that may fail."""
    monkeypatch.setattr(unpack, "PIECE_BYTES", 2)
    monkeypatch.setattr(unpack, "FIRST_BYTES", 8)
    wrong = bytes.fromhex("1f8b0800000000000203cbcf4b1ac7810095a5dc701b000000")
    assert unpacked(wrong) == naive.gunzip(wrong) == (b"onb", "compression_bad")


@pytest.mark.parametrize("more", [1, 100, 1000])
def test_what_the_library_holds_back_comes_out_at_a_cut(more):
    """A piece ends where it is full, and all that was read may have been taken in by then."""
    raw = gzipped(bytes(PIECE_BYTES + more))
    for cut in range(1, 30):
        assert unpacked(raw[:-cut]) == naive.gunzip(raw[:-cut])
    assert len(unpacked(raw[:-8])[0]) == PIECE_BYTES + more


def test_skippable_frames_are_skipped():
    raw = skippable(b"before") + zstded(b"one") + skippable(bytes(600_000)) + zstded(b" two")
    assert unpacked(raw) == (b"one two", "")


def test_what_follows_is_said():
    assert unpacked(gzipped(b"one") + b"more") == (b"one", "compression_bad")
    assert unpacked(zstded(b"one") + b"more") == (b"one", "compression_bad")
    assert unpacked(gzipped(b"one") + bytes(1000)) == (b"one", "")
    assert unpacked(gzipped(b"one") + bytes(9) + gzipped(b" two")) == (b"one two", "")


def test_a_check_sum_that_is_wrong_takes_nothing_back():
    long = os.urandom(200_000)
    for raw in (gzipped(long), zstded(long)):
        end = len(raw) - 5 if raw[0] == 0x1F else len(raw) - 1
        wrong = raw[:end] + bytes([raw[end] ^ 1]) + raw[end + 1 :]
        assert unpacked(wrong) == (long, "compression_bad")


def test_blocks_of_every_kind():
    packed = zstded(b"x" * 1000 + b"y" * 500, check=False)
    assert unpacked(zstd_blocks((0, 3, b"abc"), (1, 1000, b"d"), (0, 0, b""))) == (
        b"abc" + b"d" * 1000,
        "",
    )
    assert unpacked(packed) == (b"x" * 1000 + b"y" * 500, "")
    assert unpacked(zstd_blocks((0, 3, b"abc"), (3, 1, b"d"))) == (b"abc", "compression_bad")
    too_long = (0, BLOCK_BYTES_MAX + 1, bytes(BLOCK_BYTES_MAX + 1))
    assert unpacked(zstd_blocks((0, 3, b"abc"), too_long)) == (b"abc", "compression_bad")


def test_a_content_size_that_is_wrong_takes_only_the_last_byte_of_what_is_stored():
    block = (7 << 3 | 1).to_bytes(3, "little") + b"content"
    for size, found in ((6, b""), (7, b"content"), (8, b"conten"), (60, b"conten")):
        raw = b"\x28\xb5\x2f\xfd\x20" + bytes([size]) + block
        assert unpacked(raw) == (found, "" if size == 7 else "compression_bad")
        assert unpacked(raw) == naive.unzstd(raw)


def test_a_window_larger_than_ours_is_refused():
    for log, expected in ((27, (bytes(1000), "")), (28, (b"", "compression_bad"))):
        parameters = zstandard.ZstdCompressionParameters(window_log=log)
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        assert unpacked(packer.compress(bytes(1000)) + packer.flush()) == expected


@pytest.mark.parametrize("size", [10 << 30, 2**63])
def test_a_size_that_is_claimed_takes_no_memory(size):
    """A frame in a single segment looks back at all of its content, so its size is its window."""
    block = (3 << 3 | 1).to_bytes(3, "little") + b"abc"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    single = b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + block
    assert unpacked(single) == (b"", "compression_bad")
    windowed = b"\x28\xb5\x2f\xfd\xc0\x88" + size.to_bytes(8, "little") + block
    assert unpacked(windowed) == (b"ab", "compression_bad")
    skipped = b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + bytes(100)
    assert unpacked(skipped) == (b"", "file_truncated")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB


def test_a_dictionary_is_not_ours():
    assert unpacked(b"\x28\xb5\x2f\xfd\x21\x07\x03" + bytes(20)) == (b"", "compression_bad")


def bomb(kind: InputKind, size: int) -> bytes:
    """Zeros, packed as small as can be."""
    if kind is InputKind.GZIP:
        return gzipped(bytes(size), 9)
    return zstd_blocks(*[(1, BLOCK_BYTES_MAX, b"\0")] * (size // BLOCK_BYTES_MAX))


@pytest.mark.parametrize("kind", TWINS)
def test_a_bomb_takes_no_memory(kind):
    size = 200 << 20
    raw = bomb(kind, size)
    assert len(raw) < size // 900
    source = Unpacked(FileBytes(Dribble(raw[4:], 1 << 20)), kind, raw[:4])
    room, total = memoryview(bytearray(1 << 16)), 0
    tracemalloc.start()
    while count := source.readinto(room):
        total += count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == size
    assert source.fault is Fault.NONE
    assert peak < 8 * PIECE_BYTES


@pytest.mark.parametrize("held", [b"", b"x"])
def test_a_flood_of_small_members_is_not_copied_for_each(held, monkeypatch):
    """What zlib is given beyond a member's end, it copies: that must not be all that was read."""
    given = []

    class Told:
        """zlib's own, which tells how much it is given."""

        def __init__(self, member) -> None:
            self._member = member

        def __getattr__(self, name):
            return getattr(self._member, name)

        def copy(self) -> Told:
            return Told(self._member.copy())

        def decompress(self, data, *rest) -> bytes:
            given.append(len(data))
            return self._member.decompress(data, *rest)

    make = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", lambda wbits: Told(make(wbits=wbits)))
    raw = gzipped(held) * 20_000
    assert unpacked(raw) == (held * 20_000, "")
    assert sum(given) < 5 * len(raw)


def test_a_flood_of_small_frames_is_unpacked_by_one_decompressor(monkeypatch):
    """Each is made of hundreds of kilobytes, which cost more than the frame."""
    made, make = [], zstandard.ZstdDecompressor
    monkeypatch.setattr(
        zstandard, "ZstdDecompressor", lambda **more: made.append(1) or make(**more)
    )
    raw = (zstded(b"") + skippable(b"") + zstded(b"x", size=False)) * 5000
    assert unpacked(raw) == (b"x" * 5000, "")
    assert len(made) == 1


@pytest.mark.parametrize("kind", TWINS)
def test_what_was_sent_through_a_pipe_comes_out_before_more_is_sent(kind):
    if kind is InputKind.GZIP:
        packer, flush = zlib.compressobj(wbits=31), zlib.Z_SYNC_FLUSH
    else:
        packer = zstandard.ZstdCompressor().compressobj()
        flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    reading, writing = os.pipe()
    room, found = memoryview(bytearray(1000)), []
    with (
        os.fdopen(reading, "rb", buffering=0) as file,
        os.fdopen(writing, "wb", buffering=0) as out,
    ):
        source = Unpacked(FileBytes(file), kind, b"")
        # Would a read wait for what nobody sends, the sender would give up.
        alarm = threading.Timer(20, out.close)
        alarm.start()
        for said in (b"first", b"second", b"third"):
            out.write(packer.compress(said) + packer.flush(flush))
            count = source.readinto(room)
            found.append(bytes(room[:count]))
        alarm.cancel()
    assert found == [b"first", b"second", b"third"]
