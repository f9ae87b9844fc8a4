"""A source's bytes in blocks, in a few buffers that are used again and again.

Whoever cuts a block into packets may be ahead of whoever works on these, on another thread: a
buffer is filled again only after it was given back.
"""

from __future__ import annotations

import os
import stat
from queue import SimpleQueue
from typing import Any, BinaryIO, Protocol

import numpy as np

BUFFERS = 3  # one being worked on, one waiting, one being filled


class Source(Protocol):
    """Where bytes come from. `regular` says that they are all there already: nobody sends them."""

    regular: bool

    def readinto(self, room: memoryview) -> int:
        """Fill `room` from its start; how many bytes came, 0 at the end. Raises OSError."""
        ...

    def apart(self) -> Source:
        """What a thread may read from by itself, from here on. Only of a regular one."""
        ...

    def close(self) -> None:
        """Give up what `apart` took."""
        ...


class FileBytes:
    """The bytes of any binary file with `readinto`, from where it stands; the file stays open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file: Any = file
        self.regular = is_regular(file)

    def readinto(self, room: memoryview) -> int:
        """What one read gives: of a pipe, what is there."""
        return self._file.readinto(room) or 0

    def apart(self) -> Source:
        """The same file by a descriptor and an offset of its own."""
        return _Descriptor(os.dup(self._file.fileno()), self._file.tell())

    def close(self) -> None:
        """Nothing: the file is its opener's."""


class _Descriptor:
    """A regular file by offset; whoever has it closes it."""

    regular = True

    def __init__(self, descriptor: int, offset: int) -> None:
        self._descriptor, self._offset = descriptor, offset

    def readinto(self, room: memoryview) -> int:
        count = os.preadv(self._descriptor, [room], self._offset)
        self._offset += count
        return count

    def apart(self) -> Source:
        return self

    def close(self) -> None:
        os.close(self._descriptor)


class Blocks:
    """Blocks of at most `block_bytes`; what was left of the one before stands in front of each, so
    that a packet that straddles two is whole. At most `room` bytes may be left.
    """

    def __init__(self, source: Source, block_bytes: int, room: int) -> None:
        assert block_bytes >= 1
        self._source = source
        self._room = room
        self._buffers = [np.zeros(room + block_bytes, np.uint8) for _ in range(BUFFERS)]
        self._free: SimpleQueue[np.ndarray | None] = SimpleQueue()
        for buffer in self._buffers:
            self._free.put(buffer)
        self._current: np.ndarray | None = None
        self._given_up = False
        self.long = False  # is there probably more, all of it there already?

    def next(self, left: np.ndarray, handed_out: bool) -> tuple[np.ndarray, int, int]:
        """A buffer, where in it `left` begins, and where the new bytes behind it end.

        The new ones begin at `room`; at the end of the source, or once all was given up, there are
        none. `handed_out` says that somebody has the buffer that was given before and gives it
        back; otherwise it is free now. Waits until a buffer is. Raises OSError.
        """
        buffer = self._free.get()
        if buffer is None or self._given_up:
            self._free.put(None)  # for the next who asks
            return left, 0, len(left)
        count = self._source.readinto(buffer[self._room :].data)
        self.long = self._source.regular and count == len(buffer) - self._room
        start = self._room - len(left)
        buffer[start : self._room] = left
        if not handed_out and self._current is not None:
            self._free.put(self._current)
        self._current = buffer
        return buffer, start, self._room + count

    def give_back(self, buffer: np.ndarray) -> None:
        """Nobody needs what is in this buffer any more. Others than ours are ignored."""
        if any(buffer is ours for ours in self._buffers):
            self._free.put(buffer)

    def read_apart(self) -> None:
        """Go on reading by a descriptor of one's own, which `end` closes. Of a regular source."""
        self._source = self._source.apart()

    def give_up(self) -> None:
        """Give no bytes any more, also to whoever waits for a buffer now."""
        self._given_up = True
        self._free.put(None)

    def end(self) -> None:
        """Close what `read_apart` opened."""
        self._source.close()


def is_regular(file: BinaryIO) -> bool:
    """Is it a file of the system's whose bytes are all there already?"""
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):  # bytes in memory have no descriptor
        return False
