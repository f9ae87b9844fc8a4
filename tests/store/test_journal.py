from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.rowhash import row_hashes
from pipeline.model.batches import STREAMS, BindingBatch, CutBatch, RulebookBatch, VisitBatch
from pipeline.model.columns import TEXT, Batch, TextColumn, columns_of, concat
from pipeline.model.identifiers import Keys
from pipeline.store import journal as journal_module
from pipeline.store import segment as segment_module
from pipeline.store.journal import SEGMENT_ROWS, Journal, JournalError
from pipeline.store.lock import LockError
from tests.store.making import (
    KEYS,
    cuts_of,
    digest_of,
    frames_of,
    journal_hash,
    same_rows,
    some_rows,
)

SECRETS = ("bindings", "basis", "purchases")
EVERY_STREAM = {name: some_rows(kind, 40) for name, kind in STREAMS.items()}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def journal(folder):
    with Journal(folder, KEYS) as opened:
        yield opened


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(segment_module, "SEGMENT_ROWS", 10)


def plain_names(stream: str) -> tuple[str, ...]:
    return tuple(c.name for c in columns_of(STREAMS[stream]) if not (c.local or c.sealed))


def stored_names(stream: str) -> tuple[str, ...]:
    return tuple(c.name for c in columns_of(STREAMS[stream]) if not c.local)


def whole(journal: Journal, stream: str, **asked):
    return concat([STREAMS[stream].empty(), *journal.read(stream, **asked)])


def fill(journal: Journal) -> None:
    for stream, batch in EVERY_STREAM.items():
        journal.append(stream, batch)


# What goes in comes out


@pytest.mark.parametrize("stream", STREAMS)
def test_rows_come_back(journal, folder, stream):
    journal.append(stream, EVERY_STREAM[stream])
    journal.close()
    with Journal(folder, KEYS, writable=False) as reader:
        found = whole(reader, stream, unseal=True)
        assert same_rows(found, EVERY_STREAM[stream], stored_names(stream))
        closed = whole(reader, stream)
        assert same_rows(closed, EVERY_STREAM[stream], plain_names(stream))
        assert reader.rows(stream) == 40
        assert reader.position() == {name: 40 if name == stream else 0 for name in STREAMS}


@given(start=st.integers(-3, 45), stop=st.none() | st.integers(0, 45), cut=st.integers(0, 40))
def test_ranges(tmp_path_factory, start, stop, cut):
    batch = EVERY_STREAM["visits"]
    with Journal(tmp_path_factory.mktemp("ranges"), KEYS) as journal:
        for part in cuts_of(batch, [cut, 11]):
            journal.append("visits", part)
            journal.seal()
        found = whole(journal, "visits", start=start, stop=stop)
        first, last = max(start, 0), min(40 if stop is None else stop, 40)
        assert same_rows(found, batch.slice(first, max(first, last)))


def test_local_columns_come_back_unknown(journal):
    journal.append("bindings", EVERY_STREAM["bindings"])
    assert set(whole(journal, "bindings", unseal=True).subscriber.tolist()) == {-1}


def test_rows_are_read_before_they_are_synced(journal):
    journal.append("visits", EVERY_STREAM["visits"])
    assert len(whole(journal, "visits")) == 40
    journal.append("visits", EVERY_STREAM["visits"])
    assert sum(s.rows for s in journal.segments("visits")) == 80
    assert journal.rows("visits") == 80


def test_a_reader_sees_what_was_there_when_it_opened(journal, folder):
    journal.append("visits", EVERY_STREAM["visits"])
    journal.sync()
    with Journal(folder, KEYS, writable=False) as reader:
        before = reader.hash()
        journal.append("visits", EVERY_STREAM["visits"])
        journal.seal()
        assert reader.rows("visits") == 40
        assert len(whole(reader, "visits")) == 40
        assert [s.rows for s in reader.segments("visits")] == [40]
        assert reader.hash() == before
        assert len(whole(journal, "visits")) == 80


def test_wrong_calls(journal, folder):
    with pytest.raises(TypeError, match="VisitBatch"):
        journal.append("visits", EVERY_STREAM["clicks"])
    with pytest.raises(KeyError):
        journal.append("sessions", EVERY_STREAM["clicks"])
    journal.append("visits", VisitBatch.empty())
    journal.sync()
    assert not (folder / "visits").exists()
    with Journal(folder, KEYS, writable=False) as reader:
        for call in (reader.sync, reader.seal, reader.resume):
            with pytest.raises(JournalError, match="for reading"):
                call()
        with pytest.raises(JournalError, match="for reading"):
            reader.append("visits", EVERY_STREAM["visits"])
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append("visits", EVERY_STREAM["visits"])


def test_no_journal(tmp_path):
    with pytest.raises(JournalError, match="there is no journal"):
        Journal(tmp_path / "nowhere", KEYS, writable=False)
    with pytest.raises(JournalError, match="there is no journal"):
        Journal(tmp_path, KEYS, writable=False)
    assert list(tmp_path.iterdir()) == []


# Segments


def test_a_segment_ends_when_it_is_full(journal, small_segments):
    journal.append("visits", EVERY_STREAM["visits"].slice(0, 7))
    journal.append("visits", EVERY_STREAM["visits"].slice(7, 34))
    found = journal.segments("visits")
    assert [(s.number, s.first_row, s.rows, s.sealed) for s in found] == [
        (0, 0, 10, True),
        (1, 10, 10, True),
        (2, 20, 10, True),
        (3, 30, 4, False),
    ]
    assert same_rows(whole(journal, "visits"), EVERY_STREAM["visits"].slice(0, 34))


def test_a_large_batch_is_split_at_the_bound(journal, folder):
    batch = some_rows(CutBatch, SEGMENT_ROWS + 10)
    journal.append("cuts", batch)
    journal.append("cuts", batch.slice(0, SEGMENT_ROWS - 10))
    journal.close()
    with Journal(folder, KEYS) as again:
        found = again.segments("cuts")
        assert [(s.first_row, s.rows, s.sealed) for s in found] == [
            (0, SEGMENT_ROWS, True),
            (SEGMENT_ROWS, SEGMENT_ROWS, True),
        ]
        rows = again.read_segment(found[1])
        assert same_rows(rows.batch.slice(0, 10), batch.slice(SEGMENT_ROWS, SEGMENT_ROWS + 10))
        assert same_rows(rows.batch.slice(10, 20), batch.slice(0, 10))
        assert again.verify() == []


def test_seal_fixes_the_bounds(journal, folder):
    journal.append("visits", EVERY_STREAM["visits"].slice(0, 15))
    journal.append("clicks", EVERY_STREAM["clicks"].slice(0, 3))
    journal.seal()
    fixed = journal.segments("visits")
    size = (folder / "visits" / "000000000000.segment").stat().st_size
    journal.seal()
    journal.append("visits", EVERY_STREAM["visits"].slice(15, 40))
    journal.sync()
    assert journal.segments("visits")[:1] == fixed
    assert (folder / "visits" / "000000000000.segment").stat().st_size == size
    assert [(s.first_row, s.rows, s.sealed) for s in journal.segments("visits")] == [
        (0, 15, True),
        (15, 25, False),
    ]
    assert [s.sealed for s in journal.segments("clicks")] == [True]
    assert journal.segments("cuts") == []


@pytest.mark.parametrize("stream", ["visits", "bindings"])
def test_a_segment_digest_is_that_of_its_row_hashes(journal, folder, stream):
    batch = EVERY_STREAM[stream]
    for part in cuts_of(batch, [3, 17]):
        journal.append(stream, part)
        journal.sync()
    journal.seal()
    journal.append(stream, batch)
    expected = digest_of(row_hashes(batch, KEYS.audit))
    journal.close()
    for writable in (False, True):
        with Journal(folder, KEYS, writable=writable) as again:
            for segment in again.segments(stream):
                assert (segment.rows, segment.hash_xor, segment.hash_sum) == expected
                rows = again.read_segment(segment)
                assert digest_of(rows.row_hash) == expected
                assert same_rows(rows.batch, batch, plain_names(stream))
                opened = again.read_segment(segment, unseal=True)
                assert same_rows(opened.batch, batch, stored_names(stream))


def test_appending_goes_on_in_the_open_segment(journal, folder):
    for n in range(4):
        with Journal(folder, KEYS) if n else journal as opened:
            opened.append("visits", EVERY_STREAM["visits"].slice(n * 10, n * 10 + 10))
    with Journal(folder, KEYS) as opened:
        assert [(s.rows, s.sealed) for s in opened.segments("visits")] == [(40, False)]
        assert same_rows(whole(opened, "visits"), EVERY_STREAM["visits"])


def test_much_text_becomes_several_frames(journal, folder, monkeypatch):
    monkeypatch.setattr(journal_module, "FRAME_TEXT_BYTES", 1000)
    texts = ["x" * n for n in (400, 400, 400, 3000, 1, 900)]
    batch = some_rows(RulebookBatch, len(texts)).with_columns(text=TextColumn.of(texts))
    journal.append("rulebooks", batch)
    journal.seal()
    [path] = (folder / "rulebooks").iterdir()
    rows = [f["rows"] for f in frames_of(path.read_bytes()) if f["kind"] == "ROWS"]
    assert sum(rows) == 6
    assert len(rows) > 3
    assert same_rows(whole(journal, "rulebooks"), batch)


def test_many_small_appends_become_few_frames(journal, folder):
    batch = some_rows(CutBatch, 300)
    for row in range(300):
        journal.append("cuts", batch.slice(row, row + 1))
    journal.sync()
    [path] = (folder / "cuts").iterdir()
    assert len(frames_of(path.read_bytes())) == 2


# The journal hash

STEPS = st.lists(st.sampled_from(["sync", "seal", "reopen", "hash"]), max_size=6)


@pytest.mark.slow
@settings(max_examples=40)
@given(data=st.data(), streams=st.sets(st.sampled_from(list(STREAMS)), min_size=1, max_size=3))
def test_any_cut_gives_the_same_hash(tmp_path_factory, data, streams):
    """Batches, frames, segments, restarts and the order between streams change nothing."""
    folder = tmp_path_factory.mktemp("cuts")
    journal = Journal(folder, KEYS)
    waiting = [
        (stream, part)
        for stream in streams
        for part in cuts_of(EVERY_STREAM[stream], data.draw(st.lists(st.integers(0, 40))))
    ]
    order = data.draw(st.permutations([stream for stream, _ in waiting]))
    for stream in order:
        at = next(i for i, (name, _) in enumerate(waiting) if name == stream)
        journal.append(*waiting.pop(at))
        for step in data.draw(STEPS):
            if step == "reopen":
                journal.close()
                journal = Journal(folder, KEYS)
            else:
                getattr(journal, step)()
    expected = {name: EVERY_STREAM[name] for name in STREAMS if name in streams}
    assert journal.hash() == journal_hash(expected)
    assert journal.verify() == []
    journal.close()
    with Journal(folder, KEYS, writable=False) as reader:
        assert reader.hash() == journal_hash(expected)


def test_the_hash_is_the_same_although_segment_keys_are_random(tmp_path):
    found, files = set(), set()
    for name in "ab":
        with Journal(tmp_path / name, KEYS) as journal:
            fill(journal)
            journal.seal()
            found.add(journal.hash())
        files.add((tmp_path / name / "bindings" / "000000000000.segment").read_bytes())
    assert len(found) == 1
    assert len(files) == 2


def test_the_hash_tells_streams_and_order_apart(tmp_path):
    one, two = (some_rows(CutBatch, 1, seed) for seed in (1, 2))
    found = set()
    for number, rows in enumerate(([one, two], [two, one], [one], [two], [])):
        with Journal(tmp_path / str(number), KEYS) as journal:
            for batch in rows:
                journal.append("cuts", batch)
            found.add(journal.hash())
    assert len(found) == 5


# Sealed columns


def test_no_file_shows_what_is_sealed(journal, folder):
    login, address = "canary-login@mail.example", 0x2001_0DB8_CA4A_4911
    batch = EVERY_STREAM["bindings"].with_columns(
        login=TextColumn.repeat(login, 40), address_hi=np.full(40, address, np.uint64)
    )
    journal.append("bindings", batch)
    journal.seal()
    journal.append("bindings", batch)
    journal.close()
    wanted = (login.encode(), b"canary", address.to_bytes(8, "little"), address.to_bytes(8, "big"))
    for path in folder.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            assert not [w for w in wanted if w in raw], path
    with Journal(folder, KEYS, writable=False) as reader:
        assert whole(reader, "bindings", unseal=True).login.to_list() == [login] * 80


@pytest.mark.parametrize("stream", SECRETS)
def test_without_the_key_sealed_columns_cannot_be_read(journal, folder, stream):
    journal.append(stream, EVERY_STREAM[stream])
    journal.seal()
    journal.close()
    other = Keys.from_seed("somebody else")
    with Journal(folder, other, writable=False) as reader:
        assert same_rows(whole(reader, stream), EVERY_STREAM[stream], plain_names(stream))
        with pytest.raises(JournalError, match="seal key"):
            whole(reader, stream, unseal=True)


@pytest.mark.parametrize("stream", SECRETS)
def test_a_destroyed_key_ends_the_sealed_columns_and_nothing_else(journal, folder, stream):
    batch = EVERY_STREAM[stream]
    journal.append(stream, batch.slice(0, 25))
    journal.seal()
    journal.append(stream, batch.slice(25, 40))
    before, segments = journal.hash(), journal.segments(stream)
    with pytest.raises(JournalError, match="not sealed"):
        journal.destroy_key(segments[1])
    journal.destroy_key(segments[0])
    for _ in range(2):
        found = whole(journal, stream, unseal=True)
        assert same_rows(found, batch, plain_names(stream))
        assert same_rows(found.slice(25, 40), batch.slice(25, 40), stored_names(stream))
        for column in columns_of(STREAMS[stream]):
            values = getattr(found.slice(0, 25), column.name)
            if column.sealed:
                assert not (values.data if column.dtype is None else values).any()
        assert journal.hash() == before
        assert journal.verify() == []
        assert journal.segments(stream) == segments
        journal.close()
        journal = Journal(folder, KEYS)
    journal.close()


def test_destroying_where_nothing_is_sealed_does_nothing(journal):
    journal.append("visits", EVERY_STREAM["visits"])
    journal.seal()
    journal.destroy_key(journal.segments("visits")[0])
    assert journal.verify() == []


def test_other_columns_than_the_files_have_are_refused(journal, folder, monkeypatch):
    journal.append("rulebooks", EVERY_STREAM["rulebooks"])
    journal.close()

    @dataclass(frozen=True, slots=True)
    class Later(Batch):
        text: TEXT

    monkeypatch.setitem(STREAMS, "rulebooks", Later)
    with pytest.raises(JournalError, match="other columns"):
        Journal(folder, KEYS)


# One writer, many readers


def test_a_second_writer_is_refused(journal, folder):
    with pytest.raises(LockError, match=f"process {os.getpid()}"):
        Journal(folder, KEYS)
    script = (
        "import sys; from pathlib import Path; from pipeline.store.journal import Journal;"
        "from tests.store.making import KEYS; Journal(Path(sys.argv[1]), KEYS)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"LockError: {folder} is in use by process {os.getpid()}" in done.stderr, done.stderr
    journal.close()
    with Journal(folder, KEYS) as second:
        second.append("cuts", EVERY_STREAM["cuts"])


def test_threads_may_share_a_journal(journal):
    batch = some_rows(VisitBatch, 50)
    failures: list[BaseException] = []

    def write() -> None:
        for _ in range(40):
            journal.append("visits", batch)
            journal.sync()

    def read() -> None:
        try:
            while writer.is_alive():
                rows = journal.rows("visits")
                assert len(whole(journal, "visits")) >= rows
                assert journal.verify() == []
        except BaseException as error:
            failures.append(error)

    writer, reader = threading.Thread(target=write), threading.Thread(target=read)
    writer.start()
    reader.start()
    writer.join()
    reader.join()
    assert not failures, failures
    assert journal.rows("visits") == 2000


def test_files_are_for_their_owner_alone(journal, folder):
    old = os.umask(0)
    try:
        fill(journal)
        journal.seal()
    finally:
        os.umask(old)
    for path in (folder / "keys", *(folder / name for name in STREAMS)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        for inner in path.iterdir():
            assert stat.S_IMODE(inner.stat().st_mode) == 0o600, inner
    assert stat.S_IMODE((folder / "synced").stat().st_mode) == 0o600


# Durability


@pytest.fixture
def synced_files(monkeypatch):
    """The paths whose descriptors were fsynced, in order."""
    found: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_sync_is_an_fsync(journal, folder, synced_files):
    journal.append("visits", EVERY_STREAM["visits"])
    assert not synced_files
    journal.sync()
    segment = str(folder / "visits" / "000000000000.segment")
    assert synced_files == [str(folder), str(folder / "visits"), segment]
    synced_files.clear()
    journal.sync()
    assert not synced_files
    journal.append("visits", EVERY_STREAM["visits"])
    journal.sync()
    assert synced_files == [segment]


def test_opening_makes_durable_what_it_takes_up(journal, folder, monkeypatch, synced_files):
    """A process that was killed may have left rows, or a seal, that only memory has."""
    monkeypatch.setattr(journal, "_write_mark", lambda **_: None)
    journal.append("visits", EVERY_STREAM["visits"])
    journal.append("cuts", EVERY_STREAM["cuts"])
    journal.seal()
    journal.append("cuts", EVERY_STREAM["cuts"])
    journal.close()
    synced_files.clear()
    with Journal(folder, KEYS):
        for name in ("visits/000000000000", "cuts/000000000001"):
            assert str(folder / f"{name}.segment") in synced_files
        assert synced_files[-1] == str(folder / "synced")
    synced_files.clear()
    with Journal(folder, KEYS) as again:
        assert str(folder / "visits" / "000000000000.segment") not in synced_files
        assert again.rows("visits") == 40


def test_a_key_is_durable_before_what_it_seals(journal, folder, synced_files):
    journal.append("bindings", EVERY_STREAM["bindings"])
    journal.sync()
    key, segment = "bindings-000000000000.key", "000000000000.segment"
    names = [os.path.basename(path) for path in synced_files]
    assert names == ["journal", key, "keys", "bindings", segment]


@pytest.mark.parametrize("call", ["writev", "fsync"])
def test_after_a_failed_write_nothing_more_is_written(journal, folder, monkeypatch, call):
    journal.append("visits", EVERY_STREAM["visits"])
    journal.sync()

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    journal.append("visits", EVERY_STREAM["visits"])
    journal.append("cuts", EVERY_STREAM["cuts"])
    with pytest.raises(OSError, match="No space left"):
        journal.sync()
    monkeypatch.undo()
    assert journal.segments("cuts") == []
    for step in (journal.sync, journal.seal):
        with pytest.raises(JournalError, match="No space left on device"):
            step()
    with pytest.raises(JournalError, match="after a failed write"):
        journal.append("visits", EVERY_STREAM["visits"])
    journal.close()
    with Journal(folder, KEYS) as again:
        found = whole(again, "visits")
        assert same_rows(found.slice(0, 40), EVERY_STREAM["visits"])
        assert len(found) == (40 if call == "writev" else 80)
        assert again.verify() == []


@pytest.mark.parametrize("step", ["sync", "seal"])
def test_an_interruption_counts_as_a_failed_write(journal, folder, monkeypatch, step):
    """It may have come between a seal and the note that there is one; nothing follows a seal."""

    def interrupt(*_arguments):
        raise KeyboardInterrupt

    journal.append("visits", EVERY_STREAM["visits"])
    journal.segments("visits")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        getattr(journal, step)()
    monkeypatch.undo()
    with pytest.raises(JournalError, match="KeyboardInterrupt"):
        journal.append("visits", EVERY_STREAM["visits"])
    journal.close()
    with Journal(folder, KEYS) as again:
        assert again.rows("visits") == 40
        assert again.verify() == []


def test_half_a_write_is_cut_off(journal, folder, monkeypatch):
    journal.append("visits", EVERY_STREAM["visits"])
    journal.sync()
    real = os.writev
    calls: list[int] = []

    def half(descriptor, parts):
        if calls:
            raise OSError(28, "No space left on device")
        calls.append(real(descriptor, [bytes(parts[0]), bytes(parts[1][:100])]))
        return calls[0]

    monkeypatch.setattr(os, "writev", half)
    journal.append("visits", EVERY_STREAM["visits"])
    with pytest.raises(OSError, match="No space left"):
        journal.seal()
    monkeypatch.undo()
    journal.close()
    with Journal(folder, KEYS) as again:
        again.append("visits", EVERY_STREAM["visits"])
        assert len(whole(again, "visits")) == 80
        assert again.verify() == []


def test_nothing_is_written_when_a_batch_is_wrong(journal):
    text = TextColumn(np.zeros(1, np.uint8), np.array([0, 9], np.int64))
    journal.append("rulebooks", some_rows(RulebookBatch, 1).with_columns(text=text))
    with pytest.raises(AssertionError, match="offsets"):
        journal.sync()
    with pytest.raises(JournalError, match="AssertionError"):
        journal.sync()


def test_bindings_of_members_only_are_what_the_names_say():
    """The streams that seal columns are the ones this file tests as such."""
    sealed = {n for n, kind in STREAMS.items() if any(c.sealed for c in columns_of(kind))}
    assert sealed == set(SECRETS)
    assert STREAMS["bindings"] is BindingBatch
