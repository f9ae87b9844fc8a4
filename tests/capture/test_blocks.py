"""Blocks of a source: every byte once and in order, and no buffer is filled that somebody has."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.blocks import BUFFERS, Blocks, FileBytes

ROOM = 16
NOTHING = np.zeros(0, np.uint8)


def take(blocks: Blocks, used: list[int], handed_out: list[bool]) -> bytes:
    """Everything, when so many bytes of each block are used up before the next is asked for.

    Whoever got a block gives it back one block later, having looked at it again.
    """
    found, left, turn = b"", NOTHING, 0
    had: tuple[np.ndarray, bytes] | None = None
    given_out = False
    while True:
        buffer, start, stop = blocks.next(left, given_out)
        held = buffer[start:stop]
        if had is not None:
            assert had[0].tobytes() == had[1], "somebody had this buffer"
        if stop == ROOM:
            return found + held.tobytes()
        # Leave some, as a packet that straddles two blocks is left.
        leave = min(used[turn % len(used)], len(held), ROOM)
        found += held[: len(held) - leave].tobytes()
        left = held[len(held) - leave :]
        given_out = handed_out[turn % len(handed_out)]
        if given_out:
            if had is not None:
                blocks.give_back(had[0])
            had = (buffer, buffer.tobytes())
        turn += 1


@given(
    size=st.integers(0, 400),
    block_bytes=st.integers(1, 70),
    used=st.lists(st.integers(0, ROOM), min_size=1, max_size=5),
    handed_out=st.lists(st.booleans(), min_size=1, max_size=5),
    start=st.integers(0, 20),
)
def test_every_byte_comes_once_and_in_order(
    tmp_path_factory, size, block_bytes, used, handed_out, start
):
    raw = bytes(n % 251 for n in range(size))
    blocks = Blocks(FileBytes(io.BytesIO(raw)), block_bytes, ROOM)
    assert take(blocks, used, handed_out) == raw
    path = tmp_path_factory.mktemp("blocks") / "file"
    path.write_bytes(raw)
    for buffering in (0, -1):
        with path.open("rb", buffering=buffering) as file:
            file.seek(start)  # what was read before is not read again
            blocks = Blocks(FileBytes(file), block_bytes, ROOM)
            if size % 2:
                blocks.read_apart()
            assert take(blocks, used, handed_out) == raw[start:]
            if size % 2:
                blocks.end()


def test_a_source_is_long_when_a_block_of_a_file_was_full(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(250))
    with path.open("rb") as file:
        blocks = Blocks(FileBytes(file), 100, ROOM)
        assert not blocks.long
        for long in (True, True, False):
            blocks.next(NOTHING, False)
            assert blocks.long is long
    memory = Blocks(FileBytes(io.BytesIO(bytes(250))), 100, ROOM)
    memory.next(NOTHING, False)
    assert not memory.long, "no descriptor, no reading apart"


def test_a_descriptor_of_its_own_outlives_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * 4)
    file = path.open("rb")
    blocks = Blocks(FileBytes(file), 100, ROOM)
    blocks.next(NOTHING, False)
    blocks.read_apart()
    file.close()
    assert take(blocks, [0], [False]) == (bytes(range(250)) * 4)[100:]
    blocks.end()
    with pytest.raises(OSError, match="descriptor"):
        blocks.next(NOTHING, False)


def test_the_end_stays_the_end():
    blocks = Blocks(FileBytes(io.BytesIO(bytes(50))), 10, ROOM)
    take(blocks, [3], [False])
    left = np.arange(5, dtype=np.uint8)
    for _ in range(5):
        buffer, start, stop = blocks.next(left, False)
        assert stop == ROOM
        assert buffer[start:stop].tolist() == [0, 1, 2, 3, 4]
        left = buffer[start:stop]


def test_who_waits_for_a_buffer_gets_none_once_all_was_given_up():
    blocks = Blocks(FileBytes(io.BytesIO(bytes(1000))), 10, ROOM)
    for _ in range(BUFFERS):
        blocks.next(NOTHING, True)  # and nobody gives one back
    left = np.arange(3, dtype=np.uint8)
    found: list[tuple[np.ndarray, int, int]] = []
    waiting = threading.Thread(target=lambda: found.append(blocks.next(left, True)))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    blocks.give_up()
    waiting.join(5)
    assert not waiting.is_alive()
    for buffer, start, stop in [*found, blocks.next(left, True)]:
        assert buffer[start:stop].tolist() == [0, 1, 2], "what was left, and nothing new"


def test_nobody_waits_who_gives_up_while_another_takes_the_last_buffer():
    for _ in range(200):
        blocks = Blocks(FileBytes(io.BytesIO(bytes(1000))), 10, ROOM)
        ended = threading.Event()

        def take_all(blocks: Blocks = blocks, ended: threading.Event = ended) -> None:
            while blocks.next(NOTHING, True)[2] > ROOM:
                pass
            ended.set()

        threading.Thread(target=take_all).start()
        blocks.give_up()
        assert ended.wait(5)
        assert blocks.next(NOTHING, True)[2] <= ROOM


def test_a_strange_buffer_is_not_taken_back():
    blocks = Blocks(FileBytes(io.BytesIO(bytes(range(100)))), 10, ROOM)
    for _ in range(2 * BUFFERS):
        blocks.give_back(NOTHING)
    assert take(blocks, [0], [True]) == bytes(range(100))
