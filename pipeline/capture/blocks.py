"""A source's bytes in blocks; those of a long regular file are fetched ahead, by a thread of its
own.

Copying 800 bytes out of the page cache costs as much as walking the packet that they are, and
unpacking them several times that. So while one block is worked on, the next is fetched, and
unpacked where it is compressed, into another buffer on another core. What comes out is the same
either way: the thread is never asked what to read, only whether it is there.

The first blocks are read where they are asked for: short files, pipes (whose blocks are seldom
full) and whatever is no file of the system's are never read ahead, and nobody waits for bytes that
have not been sent yet. The thread reads from a descriptor of its own by offset, so that neither end
has to know when the other is done.
"""

from __future__ import annotations

import os
import stat
from queue import SimpleQueue
from threading import Thread
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
        self.regular = _is_regular(file)

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
        self._block_bytes, self._room = block_bytes, room
        self._buffers = [np.zeros(room + block_bytes, np.uint8) for _ in range(BUFFERS)]
        self._in_use = self._buffers[0]
        self._full = False  # was the last block, read here, a full one?
        self._ahead: _Ahead | None = None

    def next(self, left: np.ndarray) -> tuple[np.ndarray, int, int]:
        """A buffer, where in it `left` begins, and where the new bytes behind it end.

        The new ones begin at `room`; at the end of the file there are none. The buffer that was
        given before may be written over from now on.
        """
        if self._ahead is None and self._full and self._source.regular:
            free = [buffer for buffer in self._buffers if buffer is not self._in_use]
            self._ahead = _Ahead(self._source.apart(), free, self._room)
        buffer, count = self._read() if self._ahead is None else self._ahead.next()
        start = self._room - len(left)
        buffer[start : self._room] = left
        if self._ahead is not None and buffer is not self._in_use:
            self._ahead.give_back(self._in_use)
        self._in_use = buffer
        return buffer, start, self._room + count

    def _read(self) -> tuple[np.ndarray, int]:
        """The next block, read here, into the other one of two buffers."""
        buffer = self._buffers[1 if self._in_use is self._buffers[0] else 0]
        count = self._source.readinto(buffer[self._room :].data)
        self._full = count == self._block_bytes
        return buffer, count

    def close(self) -> None:
        """Stop reading ahead; the file stays open."""
        if self._ahead is not None:
            self._ahead.close()


class _Ahead:
    """The thread, what it may fill and what it filled; the thread closes its source."""

    def __init__(self, source: Source, free: list[np.ndarray], room: int) -> None:
        self._free: SimpleQueue[np.ndarray | None] = SimpleQueue()
        self._filled: SimpleQueue[tuple[np.ndarray, int] | OSError] = SimpleQueue()
        self._end: tuple[np.ndarray, int] | None = None
        for buffer in free:
            self.give_back(buffer)
        arguments = (source, room, self._free, self._filled)
        Thread(target=_fetch, args=arguments, name="read-ahead", daemon=True).start()

    def next(self) -> tuple[np.ndarray, int]:
        """A filled buffer, and how many bytes it got; raises what the system said of the file."""
        if self._end is not None:
            return self._end
        found = self._filled.get()
        if isinstance(found, OSError):
            raise found
        if found[1] == 0:
            self._end = found
        return found

    def give_back(self, buffer: np.ndarray) -> None:
        """This one may be filled again."""
        self._free.put(buffer)

    def close(self) -> None:
        """Let the thread end."""
        self._free.put(None)


def _fetch(
    source: Source,
    room: int,
    free: SimpleQueue[np.ndarray | None],
    filled: SimpleQueue[tuple[np.ndarray, int] | OSError],
) -> None:
    """Fill buffers until the file ends or nobody wants more."""
    try:
        while (buffer := free.get()) is not None:
            count = source.readinto(buffer[room:].data)
            filled.put((buffer, count))
            if count == 0:
                break
    except OSError as error:
        filled.put(error)
    finally:
        source.close()


def _is_regular(file: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):  # bytes in memory have no descriptor
        return False
