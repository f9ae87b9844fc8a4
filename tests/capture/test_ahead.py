"""A generator that a thread goes on with: the same items, the same error, nobody left waiting."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.capture.ahead import THREAD, Ahead
from pipeline.capture.reader import CaptureReader
from pipeline.model.tally import Tally
from tests.capture.test_reader import PACKETS, classic

BLOCK_BYTES = 64  # the capture of PACKETS has a score of these


def threads() -> int:
    """How much is being read ahead now."""
    return sum(thread.name == THREAD for thread in threading.enumerate())


def wait_until(true) -> None:
    """Wait for another thread's doing; five seconds are forever."""
    until = time.monotonic() + 5
    while not true() and time.monotonic() < until:
        time.sleep(0.001)
    assert true()


def reader(file) -> CaptureReader:
    return CaptureReader(
        file, source="file", source_id=0, tally=Tally(), rows=8, block_bytes=BLOCK_BYTES
    )


def packets(batch) -> list[bytes]:
    """The packets of a batch, out of its buffer as it is now."""
    ends = zip(batch.offset.tolist(), batch.captured_length.tolist(), strict=True)
    return [batch.data[at : at + length].tobytes() for at, length in ends]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A long capture, for a process that has two cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    path = tmp_path / "file.pcap"
    path.write_bytes(classic(PACKETS))
    return path


def test_the_rest_of_an_iterator_comes_in_its_order_and_the_end_stays_the_end():
    items, ended = iter(range(100)), []
    assert [next(items), next(items)] == [0, 1]
    ahead = Ahead(items, lambda: ended.append(threading.current_thread().name))
    assert list(ahead) == list(range(2, 100))
    assert list(ahead) == []
    assert ended == [THREAD]
    wait_until(lambda: threads() == 0)


def test_what_the_iterator_raises_is_raised_to_whoever_asks_each_time():
    def breaking() -> Iterator[int]:
        yield 1
        raise OSError(5, "Input/output error")

    ahead = Ahead(breaking(), lambda: None)
    assert next(ahead) == 1
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            next(ahead)
    wait_until(lambda: threads() == 0)


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_whatever_ends_the_iterator_or_its_end_is_raised(failure):
    def breaking() -> Iterator[int]:
        yield 1
        raise failure

    def breaks() -> None:
        raise failure

    for ahead in (Ahead(breaking(), lambda: None), Ahead(iter([1]), breaks)):
        assert next(ahead) == 1
        with pytest.raises(type(failure)):
            next(ahead)
    wait_until(lambda: threads() == 0)


def test_where_no_thread_can_be_had_all_is_done_in_turn(path, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with path.open("rb") as file:
        assert [p for batch in reader(file) for p in packets(batch)] == PACKETS
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_is_left_open(path):
    before = len(os.listdir("/proc/self/fd"))
    for stop in (3, None):
        with path.open("rb") as file:
            batches = iter(reader(file))
            for _ in itertools.islice(batches, stop):
                pass
            batches.close()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) == before)


def test_a_long_file_is_read_ahead_and_a_batch_stays_until_the_next_is_asked_for(path):
    found, ahead = [], 0
    with path.open("rb") as file:
        for batch in reader(file):
            before = packets(batch)
            time.sleep(0.002)  # long enough for a thread to fill a buffer that it must not
            ahead = max(ahead, threads())
            assert packets(batch) == before
            found += before
    assert found == PACKETS
    assert ahead == 1
    wait_until(lambda: threads() == 0)


def test_a_short_file_is_not_read_ahead(tmp_path):
    path = tmp_path / "file.pcap"
    path.write_bytes(classic([b"one"]))
    with path.open("rb") as file:
        for _ in reader(file):
            assert threads() == 0


def test_on_one_core_there_is_nothing_to_win(path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
    with path.open("rb") as file:
        found = []
        for batch in reader(file):
            assert threads() == 0
            found += packets(batch)
    assert found == PACKETS


def test_a_pipe_is_never_read_ahead():
    source, sink = os.pipe()
    with os.fdopen(source, "rb", buffering=0) as file, os.fdopen(sink, "wb", buffering=0) as out:
        out.write(classic(PACKETS))
        out.close()
        found = []
        for batch in reader(file):
            assert threads() == 0
            found += packets(batch)
    assert found == PACKETS


def test_whoever_leaves_early_leaves_no_thread_behind(path):
    with path.open("rb") as file:
        batches = iter(reader(file))
        for _ in range(3):
            next(batches)
        assert threads() == 1
        batches.close()
        wait_until(lambda: threads() == 0)


def test_a_file_that_is_closed_meanwhile_is_not_missed(path):
    file = path.open("rb")
    batches = iter(reader(file))
    found = [p for _ in range(3) for p in packets(next(batches))]
    file.close()
    assert found + [p for batch in batches for p in packets(batch)] == PACKETS
    wait_until(lambda: threads() == 0)


def test_what_the_system_says_is_said_to_the_caller(path, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    with path.open("rb") as file:
        batches = iter(reader(file))
        next(batches)
        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(OSError, match="Input/output error"):
            list(batches)
    wait_until(lambda: threads() == 0)
