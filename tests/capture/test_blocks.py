"""Blocks of files: every byte once and in order, read ahead or not, and nobody left waiting."""

from __future__ import annotations

import io
import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.blocks import Blocks, FileBytes

ROOM = 16
READ_AHEAD = "read-ahead"


def take(blocks: Blocks, used: list[int]) -> bytes:
    """Everything, when so many bytes of each block are used up before the next is asked for."""
    found, left, turn = b"", np.zeros(0, np.uint8), 0
    while True:
        buffer, start, stop = blocks.next(left)
        held = buffer[start:stop]
        if stop == ROOM:
            return found + held.tobytes()
        # Leave some, as a packet that straddles two blocks is left.
        leave = min(used[turn % len(used)], len(held), ROOM)
        found += held[: len(held) - leave].tobytes()
        left, turn = held[len(held) - leave :], turn + 1


def threads() -> int:
    """How many files are being read ahead now."""
    return sum(thread.name == READ_AHEAD for thread in threading.enumerate())


def wait_until(true) -> None:
    """Wait for another thread's doing; five seconds are forever."""
    until = time.monotonic() + 5
    while not true() and time.monotonic() < until:
        time.sleep(0.001)
    assert true()


@given(
    size=st.integers(0, 400),
    block_bytes=st.integers(1, 70),
    used=st.lists(st.integers(0, ROOM), min_size=1, max_size=5),
    start=st.integers(0, 20),
)
def test_every_byte_comes_once_and_in_order(tmp_path_factory, size, block_bytes, used, start):
    raw = bytes(n % 251 for n in range(size))
    assert take(Blocks(FileBytes(io.BytesIO(raw)), block_bytes, ROOM), used) == raw
    path = tmp_path_factory.mktemp("blocks") / "file"
    path.write_bytes(raw)
    for buffering in (0, -1):
        with path.open("rb", buffering=buffering) as file:
            file.seek(start)  # what was read before is not read again
            blocks = Blocks(FileBytes(file), block_bytes, ROOM)
            assert take(blocks, used) == raw[start:]
            blocks.close()
    wait_until(lambda: threads() == 0)


def test_a_long_file_is_read_ahead_and_a_short_one_is_not(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    nothing = np.zeros(0, np.uint8)
    for block_bytes, expected in ((2000, 0), (100, 1)):
        with path.open("rb") as file:
            blocks = Blocks(FileBytes(file), block_bytes, ROOM)
            blocks.next(nothing)
            blocks.next(nothing)
            assert threads() == expected
            blocks.close()
        wait_until(lambda: threads() == 0)


def test_a_pipe_is_never_read_ahead():
    source, sink = os.pipe()
    with os.fdopen(source, "rb", buffering=0) as file, os.fdopen(sink, "wb", buffering=0) as out:
        blocks = Blocks(FileBytes(file), 10, ROOM)
        for _ in range(3):
            out.write(bytes(10))
            buffer, start, stop = blocks.next(np.zeros(0, np.uint8))
            assert stop - start == 10
            assert buffer[start:stop].tobytes() == bytes(10)
        assert threads() == 0


def test_a_descriptor_that_is_closed_meanwhile_is_not_missed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * 4)
    file = path.open("rb")
    blocks = Blocks(FileBytes(file), 100, ROOM)
    found = [blocks.next(np.zeros(0, np.uint8)) for _ in range(2)]
    file.close()
    assert [stop - start for _, start, stop in found] == [100, 100]
    assert take(blocks, [0]) == (bytes(range(250)) * 4)[200:]


def test_the_end_stays_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(50))
    with path.open("rb") as file:
        blocks = Blocks(FileBytes(file), 10, ROOM)
        take(blocks, [3])
        left = np.arange(5, dtype=np.uint8)
        for _ in range(3):
            buffer, start, stop = blocks.next(left)
            assert stop == ROOM
            assert buffer[start:stop].tolist() == [0, 1, 2, 3, 4]
            left = buffer[start:stop]


def test_what_the_system_says_is_said_to_the_caller(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(bytes(100))

    def broken(*_):
        raise OSError(5, "Input/output error")

    with path.open("rb") as file:
        blocks = Blocks(FileBytes(file), 10, ROOM)
        blocks.next(np.zeros(0, np.uint8))
        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(OSError, match="Input/output error"):
            blocks.next(np.zeros(0, np.uint8))
    wait_until(lambda: threads() == 0)
