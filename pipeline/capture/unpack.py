"""What is inside gzip (RFC 1952) and zstd (RFC 8878), as a stream in bounded memory.

A file may be several gzip members, or several zstd frames with skippable ones between, one behind
the other. Whatever can be unpacked before a cut or a mistake is given out, to the byte in gzip and
to the block in zstd, and the same however the compressed bytes arrive:

    FILE_TRUNCATED   the compressed bytes end in the middle
    COMPRESSION_BAD  a code, length or check sum that is wrong, bytes of another kind behind the
                     end, a window larger than ours, or a dictionary

Memory: gzip gives PIECE_BYTES at a time and looks 32 KiB back. A zstd frame is handed to the
library block by block, at most 128 KiB each, packed and unpacked, because the library would give
all that some input leads to, and four bytes can lead to 128 KiB. A frame may ask for 128 MiB to
look back at, as much as the `zstd` tool gives unless told otherwise, and gets it as it fills. So a
bomb takes time by what comes out of it and no memory, and a flood of empty members or frames time
by its own bytes: 2 microseconds a member, 5 a frame.

A sender's pieces come through as they are sent: what can be unpacked of a pipe is given out before
it is asked for more.

Measured on a 2.6 GHz server, of 820 bytes a packet (tests/bench/containers.py): gzip packed to two
thirds gives 400 MB/s, zstd that repeats itself 1,900, both as much as their libraries do on the
whole at once. Sessions take 0.37 microseconds of processor a packet from a plain file, 2.6 from
gzip and 1.1 from zstd. What is more is the work of the thread that reads ahead (ahead.py): zlib
and zstandard release the interpreter's lock.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

from pipeline.capture.blocks import Source
from pipeline.capture.recognise import GZIP_MAGIC, ZSTD_MAGIC, InputKind, is_skippable
from pipeline.model.faults import Fault

READ_BYTES = 1 << 18  # compressed bytes asked for at a time
PIECE_BYTES = 1 << 18  # at most so many unpacked ones at a time
FIRST_BYTES = 1 << 6  # of a gzip member that are given to the library at first
PADDING = re.compile(rb"\0*")
BLOCK_BYTES_MAX = 1 << 17  # of a zstd block (RFC 8878, 3.1.1.2.4)
WINDOW_BYTES_MAX = 1 << 27
GZIP_WRAPPER = 31  # zlib's way of saying gzip, with the largest window
RAW_BLOCK, RLE_BLOCK, COMPRESSED_BLOCK = range(3)

Pieces = Iterator[bytes]  # an empty piece stands before every read that may have to wait


class _Broken(Exception):
    """The compressed bytes end or are wrong here."""

    def __init__(self, fault: Fault, problem: str) -> None:
        super().__init__(problem)
        self.fault, self.problem = fault, problem


class Unpacked:
    """A Source over another one, of which `head` was read already.

    `fault` and `problem` say what was wrong, from the moment on when `readinto` gives nothing.
    """

    def __init__(self, source: Source, kind: InputKind, head: bytes) -> None:
        self._source, self._head = source, head
        self._buffer = bytearray(READ_BYTES)
        self.regular = source.regular
        unpack = {InputKind.GZIP: _gunzip, InputKind.ZSTD: _unzstd}[kind]
        self._pieces: Pieces = unpack(self._read)
        self._piece = memoryview(b"")
        self.fault = Fault.NONE
        self.problem = ""

    def readinto(self, room: memoryview) -> int:
        """Fill `room`; of a pipe, with what is there, but something."""
        filled = 0
        while filled < len(room):
            if not len(self._piece):
                try:
                    piece = next(self._pieces, None)
                except _Broken as broken:
                    self.fault, self.problem = broken.fault, broken.problem
                    break
                if piece is None or (not piece and filled and not self.regular):
                    break
                self._piece = memoryview(piece)
            count = min(len(room) - filled, len(self._piece))
            room[filled : filled + count] = self._piece[:count]
            self._piece = self._piece[count:]
            filled += count
        return filled

    def apart(self) -> Source:
        """The same stream, whose compressed bytes come from a descriptor of its own."""
        self._source = self._source.apart()
        return self

    def close(self) -> None:
        """Give up that descriptor."""
        self._source.close()

    def _read(self) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        count = self._source.readinto(memoryview(self._buffer))
        return bytes(self._buffer[:count])


def _gunzip(read: Callable[[], bytes]) -> Pieces:
    """Member by member; zero bytes behind the last are padding, as for the gzip tool."""
    data, at = b"", 0
    while True:
        at = _behind_padding(data, at)
        while len(data) - at < len(GZIP_MAGIC):
            yield b""
            more = read()
            if not more:
                break
            data = data[at:] + more
            at = _behind_padding(data, 0)
        if at == len(data):
            return
        if not data.startswith(GZIP_MAGIC, at):
            if GZIP_MAGIC.startswith(data[at:]):
                raise _Broken(Fault.FILE_TRUNCATED, "the gzip file was cut short")
            raise _Broken(Fault.COMPRESSION_BAD, "something else follows the gzip file")
        data, at = yield from _member(read, data, at)


def _behind_padding(data: bytes, at: int) -> int:
    found = PADDING.match(data, at)
    assert found is not None
    return found.end()


def _member(
    read: Callable[[], bytes], data: bytes, at: int
) -> Generator[bytes, None, tuple[bytes, int]]:
    """One member, which begins at `data[at]`; what was read, and where in it the next begins.

    zlib copies what it was given and did not need, so it is given little at first: a flood of empty
    members would copy all that is left of a read for each.
    """
    member = zlib.decompressobj(wbits=GZIP_WRAPPER)
    most = FIRST_BYTES
    while not member.eof:
        given = memoryview(data)[at : at + most]
        before = member.copy()  # of a call that fails, zlib keeps what it had unpacked to itself
        try:
            piece = member.decompress(given, PIECE_BYTES)
        except zlib.error as error:
            yield _up_to_mistake(before, bytes(given))
            raise _Broken(Fault.COMPRESSION_BAD, f"gzip: {_reason(error)}") from error
        # What is behind the end may stand in both.
        at += len(given) - len(member.unused_data if member.eof else member.unconsumed_tail)
        most = min(2 * most, READ_BYTES)
        if piece:
            yield piece
        if at == len(data) and len(piece) < PIECE_BYTES and not member.eof:
            yield b""
            data, at = read(), 0
            if not data:
                raise _Broken(Fault.FILE_TRUNCATED, "the gzip file was cut short")
    return data, at


def _up_to_mistake(member: Any, data: bytes) -> bytes:
    """Whatever is left of the piece before, and comes of `data` before the byte that is wrong."""
    pieces = []
    for byte in (b"", *(data[at : at + 1] for at in range(len(data)))):
        try:
            pieces.append(member.decompress(byte))
        except zlib.error:
            break
    return b"".join(pieces)


class _Intake:
    """Compressed bytes, of which the next few can be looked at."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._held = bytearray()
        self._at = 0

    def has(self, count: int) -> Generator[bytes, None, bool]:
        """Have so many bytes at hand; False if there are fewer until the end."""
        while len(self._held) - self._at < count:
            yield b""
            more = self._read()
            if not more:
                return False
            del self._held[: self._at]
            self._held += more
            self._at = 0
        return True

    def look(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        return bytes(memoryview(self._held)[self._at : self._at + count])

    def take(self, count: int) -> bytes:
        """The next bytes, and on."""
        found = self.look(count)
        self._at += len(found)
        return found


def _unzstd(read: Callable[[], bytes]) -> Pieces:
    """Frame by frame."""
    import zstandard  # only compressed captures pay for loading it

    intake = _Intake(read)
    # One for all frames: what a frame costs that holds nothing is mostly what this is made of.
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    cut = _Broken(Fault.FILE_TRUNCATED, "the zstd file was cut short")
    while True:
        if not (yield from intake.has(len(ZSTD_MAGIC))):
            if intake.look(1):
                raise cut
            return
        magic = intake.look(len(ZSTD_MAGIC))
        if is_skippable(magic):
            if not (yield from intake.has(8)):
                raise cut
            left = int.from_bytes(intake.take(8)[4:], "little")
            while left:
                if not (yield from intake.has(1)):
                    raise cut
                left -= len(intake.take(min(left, READ_BYTES)))
        elif magic == ZSTD_MAGIC:
            yield from _frame(intake, decompressor, cut)
        else:
            raise _Broken(Fault.COMPRESSION_BAD, "something else follows the zstd file")


def _frame(intake: _Intake, decompressor: Any, cut: _Broken) -> Generator[bytes, None, None]:
    """One frame: a header, blocks of which each says its length, perhaps a check sum.

    Header: magic (4), descriptor (1), unless it is a single segment a window (1), 0, 1, 2
    or 4 bytes of a dictionary's number, 0, 1, 2, 4 or 8 of the content's size. Block header, in 24
    bits: last (1), type (2), size (21); a block of type RLE holds one byte, however long.
    """
    import zstandard  # only compressed captures pay for loading it

    decoder = decompressor.decompressobj()
    given = 0

    def unpack(data: bytes) -> bytes:
        nonlocal given
        try:
            unpacked: bytes = decoder.decompress(data)
        except zstandard.ZstdError as error:
            raise _Broken(Fault.COMPRESSION_BAD, f"zstd: {_reason(error)}") from error
        given += len(unpacked)
        return unpacked

    if not (yield from intake.has(5)):
        raise cut
    descriptor = intake.look(5)[4]
    single = descriptor >> 5 & 1
    size_bytes = (single, 2, 4, 8)[descriptor >> 6]
    header_bytes = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_bytes
    if not (yield from intake.has(header_bytes)):
        raise cut
    size_field = intake.look(header_bytes)[header_bytes - size_bytes :]
    # The size in two bytes begins at 256; without any, the content is as long as its blocks are.
    content = int.from_bytes(size_field, "little") + 256 * (size_bytes == 2)
    yield unpack(intake.take(header_bytes))
    last = 0
    while not last:
        if not (yield from intake.has(3)):
            raise cut
        header = int.from_bytes(intake.look(3), "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        size = 1 if kind == RLE_BLOCK else size
        if kind > COMPRESSED_BLOCK or size > BLOCK_BYTES_MAX:
            raise _Broken(Fault.COMPRESSION_BAD, "zstd: no such block")
        held = 3 + size
        whole = yield from intake.has(held)
        if kind == RAW_BLOCK:  # its bytes are good until one is more than the content's size
            fit = min(size, content - given) if size_bytes else size
            good = 3 + fit - (last and fit == size)  # at its last byte the sizes may not add up
            yield unpack(intake.take(good))
            held -= good
        yield unpack(intake.take(held))
        if not whole:
            raise cut
    if descriptor & 4:
        if not (yield from intake.has(4)):
            raise cut
        unpack(intake.take(4))


def _reason(error: Exception) -> str:
    """The library's words for it, without its name and numbers."""
    return str(error).rpartition(": ")[2]
