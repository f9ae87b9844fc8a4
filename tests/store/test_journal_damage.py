"""When bytes are not as they were written: a torn end is cut off, damage is an error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.rowhash import row_hashes
from pipeline.model.batches import STREAMS, BindingBatch, CutBatch
from pipeline.model.columns import columns_of, concat
from pipeline.store import segment as segment_module
from pipeline.store.arrow import from_arrow, numbers
from pipeline.store.frames import FrameKind, encode_frame
from pipeline.store.journal import Journal, JournalError
from pipeline.store.segment import frame_schema
from tests.store.making import KEYS, changed, frames_of, same_rows, some_rows

DURABLE, LATER = some_rows(CutBatch, 6, 1), some_rows(CutBatch, 4, 2)
FIRST = "000000000000.segment"


@pytest.fixture(scope="module")
def torn(tmp_path_factory) -> tuple[Path, int, int]:
    """A journal as a crash leaves it: rows that were synced, and one more frame that was not.

    Also where that frame begins in its file, and how long the file is.
    """
    folder = tmp_path_factory.mktemp("torn")
    with Journal(folder / "live", KEYS) as journal:
        journal.append("cuts", DURABLE)
        journal.sync()
        begin = (folder / "live" / "cuts" / FIRST).stat().st_size
        journal.append("cuts", LATER)
        journal.segments("cuts")
        shutil.copytree(folder / "live", folder / "image")
    return folder / "image", begin, (folder / "image" / "cuts" / FIRST).stat().st_size


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A closed journal with sealed and open segments in streams of both sorts."""
    folder = tmp_path_factory.mktemp("sound") / "journal"
    with Journal(folder, KEYS) as journal:
        for stream in ("bindings", "cuts", "visits"):
            journal.append(stream, some_rows(STREAMS[stream], 5))
            journal.sync()
            journal.append(stream, some_rows(STREAMS[stream], 4, 2))
        journal.seal()
        for stream in ("bindings", "cuts"):
            journal.append(stream, some_rows(STREAMS[stream], 3, 3))
        assert journal.verify() == []
    return folder


def read_all(folder: Path, stream: str = "cuts"):
    with Journal(folder, KEYS, writable=False) as reader:
        return concat([STREAMS[stream].empty(), *reader.read(stream)])


def findings(folder: Path) -> list[str]:
    """What opening or verifying a journal says of it."""
    try:
        with Journal(folder, KEYS, writable=False) as reader:
            return reader.verify()
    except JournalError as error:
        return [str(error)]


def spoiled(folder: Path, at: Path, change: Callable[[bytes], bytes]) -> list[str]:
    """What is found after a file was changed, which is then put back."""
    raw = at.read_bytes()
    at.write_bytes(change(raw))
    try:
        return findings(folder)
    finally:
        at.write_bytes(raw)


def flip(raw: bytes, at: int, mask: int = 1) -> bytes:
    return raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :]


# A torn end


def test_a_whole_frame_that_was_not_synced_is_kept(torn):
    assert same_rows(read_all(torn[0]), concat([DURABLE, LATER]))


@pytest.mark.slow
def test_a_torn_end_is_cut_off_at_every_length(torn, tmp_path):
    image, begin, size = torn
    shutil.copytree(image, tmp_path / "j")
    mark = (image / "synced").read_bytes()
    path = tmp_path / "j" / "cuts" / FIRST
    raw = path.read_bytes()
    for length in range(begin, size):
        path.write_bytes(raw[:length])
        (tmp_path / "j" / "synced").write_bytes(mark)
        with Journal(tmp_path / "j", KEYS, writable=False) as reader:
            assert reader.rows("cuts") == len(DURABLE)
            assert path.stat().st_size == length, "a reader cuts nothing off"
            if length % 50 == 0:
                assert reader.verify() == []
        with Journal(tmp_path / "j", KEYS) as journal:
            assert path.stat().st_size == begin
            if length % 50 == 0:
                journal.append("cuts", LATER)
                assert same_rows(concat(list(journal.read("cuts"))), concat([DURABLE, LATER]))
                assert journal.verify() == []
    assert path.read_bytes()[:begin] == raw[:begin]


@settings(max_examples=100)
@given(end=st.binary(min_size=1, max_size=300) | st.integers(1, 5000).map(bytes))
def test_anything_behind_the_mark_is_cut_off(torn, tmp_path_factory, end):
    """A power cut may leave zeros, or pages of something else, where a write was."""
    image, begin, _ = torn
    folder = tmp_path_factory.mktemp("end") / "j"
    shutil.copytree(image, folder)
    path = folder / "cuts" / FIRST
    path.write_bytes(path.read_bytes()[:begin] + end)
    with Journal(folder, KEYS) as journal:
        assert journal.rows("cuts") == len(DURABLE)
        assert journal.verify() == []


def test_frames_behind_a_broken_one_go_with_it(torn, tmp_path):
    image, begin, _ = torn
    shutil.copytree(image, tmp_path / "j")
    path = tmp_path / "j" / "cuts" / FIRST
    path.write_bytes(flip(path.read_bytes(), begin + 40) + b"more")
    with Journal(tmp_path / "j", KEYS) as journal:
        assert journal.rows("cuts") == len(DURABLE)


@pytest.mark.parametrize("stream", ["cuts", "bindings"])
def test_a_torn_beginning_of_a_segment(tmp_path, stream):
    """The file, and the key, may be there without a whole head in it."""
    rows = some_rows(STREAMS[stream], 5)
    with Journal(tmp_path / "live", KEYS) as journal:
        journal.append(stream, rows)
        journal.seal()
        journal.append(stream, rows)
        journal.segments(stream)
        shutil.copytree(tmp_path / "live", tmp_path / "image")
    second = f"{stream}/000000000001.segment"
    raw = (tmp_path / "image" / second).read_bytes()
    head = frames_of(raw)[0]["end"]
    for length in (0, 1, 31, 32, head // 2, head - 1, head):
        folder = tmp_path / str(length)
        shutil.copytree(tmp_path / "image", folder)
        (folder / second).write_bytes(raw[:length])
        with Journal(folder, KEYS, writable=False) as reader:
            assert reader.rows(stream) == 5
            assert reader.verify() == []
        with Journal(folder, KEYS) as journal:
            assert (folder / second).exists() == (length == head)
            journal.append(stream, rows)
            found = concat(list(journal.read(stream, unseal=True)))
            names = tuple(c.name for c in columns_of(type(rows)) if not c.local)
            assert same_rows(found, concat([rows, rows]), names)
            assert journal.verify() == []


def test_a_torn_seal_is_no_seal(tmp_path, monkeypatch):
    with Journal(tmp_path / "live", KEYS) as journal:
        journal.append("cuts", DURABLE)
        journal.sync()
        monkeypatch.setattr(journal, "_write_mark", lambda **_: None)
        journal.seal()
        shutil.copytree(tmp_path / "live", tmp_path / "image")
        monkeypatch.undo()
    raw = (tmp_path / "image" / "cuts" / FIRST).read_bytes()
    seal = frames_of(raw)[-1]
    for length in (*range(seal["at"], seal["end"]), seal["end"]):
        folder = tmp_path / str(length)
        shutil.copytree(tmp_path / "image", folder)
        (folder / "cuts" / FIRST).write_bytes(raw[:length])
        with Journal(folder, KEYS) as journal:
            assert [s.sealed for s in journal.segments("cuts")] == [length == seal["end"]]
            journal.append("cuts", LATER)
        assert same_rows(read_all(folder), concat([DURABLE, LATER]))
        assert findings(folder) == []


def test_a_seal_does_not_vouch_for_what_was_not_synced(tmp_path, monkeypatch):
    """A power cut may keep the page with the seal and lose one before it."""
    with Journal(tmp_path / "live", KEYS) as journal:
        journal.append("cuts", DURABLE)
        journal.sync()
        begin = (tmp_path / "live" / "cuts" / FIRST).stat().st_size
        monkeypatch.setattr(journal, "_write_mark", lambda **_: None)
        journal.append("cuts", LATER)
        journal.seal()
        shutil.copytree(tmp_path / "live", tmp_path / "j")
        monkeypatch.undo()
    path = tmp_path / "j" / "cuts" / FIRST
    raw = path.read_bytes()
    path.write_bytes(raw[: begin + 10] + bytes(50) + raw[begin + 60 :])
    with Journal(tmp_path / "j", KEYS, writable=False) as reader:
        assert [(s.rows, s.sealed) for s in reader.segments("cuts")] == [(len(DURABLE), False)]
    with Journal(tmp_path / "j", KEYS) as journal:
        journal.append("cuts", LATER)
        journal.seal()
        assert journal.verify() == []
    assert same_rows(read_all(tmp_path / "j"), concat([DURABLE, LATER]))


# Damage


def test_a_file_shorter_than_what_was_synced_is_an_error(torn, tmp_path):
    image, begin, _ = torn
    shutil.copytree(image, tmp_path / "j")
    path = tmp_path / "j" / "cuts" / FIRST
    raw = path.read_bytes()
    for length in range(begin):
        path.write_bytes(raw[:length])
        with pytest.raises(JournalError, match=FIRST):
            Journal(tmp_path / "j", KEYS, writable=length % 2 == 0)
        assert path.stat().st_size == length, "nothing is cut off that was promised"


def test_a_flipped_byte_before_the_mark_is_an_error(torn, tmp_path):
    image, begin, _ = torn
    shutil.copytree(image, tmp_path / "j")
    path = tmp_path / "j" / "cuts" / FIRST
    raw = path.read_bytes()
    for at in range(begin):
        path.write_bytes(flip(raw, at))
        with pytest.raises(JournalError, match=FIRST):
            Journal(tmp_path / "j", KEYS, writable=at % 2 == 0)
        assert path.stat().st_size == len(raw)


def every_file(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lock")


@pytest.mark.slow
@settings(max_examples=300)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_noticed(sound, data):
    path = data.draw(st.sampled_from(every_file(sound)))
    at = data.draw(st.integers(0, path.stat().st_size - 1))
    mask = 1 << data.draw(st.integers(0, 7))
    assert spoiled(sound, path, lambda raw: flip(raw, at, mask)), (path, at, mask)


def test_every_byte_of_headers_and_seals_is_watched(sound):
    for path in sorted((sound / "bindings").iterdir()):
        for frame in frames_of(path.read_bytes()):
            end = frame["end"] if frame["kind"] == "SEAL" else frame["at"] + 32
            for at in range(frame["at"], end):
                assert spoiled(sound, path, lambda raw, at=at: flip(raw, at)), (path, at)


@settings(max_examples=60)
@given(data=st.data())
def test_a_cut_anywhere_is_noticed(sound, data):
    path = data.draw(st.sampled_from(every_file(sound)))
    length = data.draw(st.integers(0, path.stat().st_size - 1))
    assert spoiled(sound, path, lambda raw: raw[:length]), (path, length)


def test_bytes_behind_a_seal_are_noticed(sound):
    path = sound / "visits" / FIRST
    assert spoiled(sound, path, lambda raw: raw + b"\0")
    rows = frames_of(path.read_bytes())[1]
    assert spoiled(sound, path, lambda raw: raw + raw[rows["at"] : rows["end"]])


def test_a_whole_frame_in_the_wrong_place_is_an_error(torn, tmp_path):
    """No crash repeats or moves a frame, so it is not a torn end, even behind the mark."""
    image, begin, _ = torn
    shutil.copytree(image, tmp_path / "j")
    path = tmp_path / "j" / "cuts" / FIRST
    raw = path.read_bytes()
    head = frames_of(raw)[0]["end"]
    for wrong in (raw + raw[begin:], raw + raw[:head], raw[:head] + raw[begin:] + raw[head:begin]):
        path.write_bytes(wrong)
        for writable in (False, True):
            with pytest.raises(JournalError, match="byte"):
                Journal(tmp_path / "j", KEYS, writable=writable)
        assert path.read_bytes() == wrong


def test_a_missing_file_is_noticed(sound, tmp_path):
    for path in every_file(sound):
        path.rename(tmp_path / "away")
        assert findings(sound), path
        (tmp_path / "away").rename(path)
    assert findings(sound) == []


def test_a_file_in_anothers_place_is_noticed(sound):
    for folder in ("bindings", "cuts"):
        one, two = sorted((sound / folder).iterdir())
        assert spoiled(sound, one, lambda _, two=two: two.read_bytes())
        assert spoiled(sound, two, lambda _, one=one: one.read_bytes())
    ours, theirs = sound / "cuts" / FIRST, sound / "visits" / FIRST
    assert spoiled(sound, ours, lambda _: theirs.read_bytes())


def test_a_stranger_is_noticed(sound):
    for name in ("notes.txt", "visits/000000000009.segment.bak", "keys/cuts-000000000000.key"):
        (sound / name).write_bytes(b"mine")
        assert findings(sound) == [f"{sound / name}: does not belong here"]
        (sound / name).unlink()


def test_half_a_mark_is_enough(sound):
    for at, slot in ((0, 0), (5000, 1)):
        found = spoiled(sound, sound / "synced", lambda raw, at=at: flip(raw, at))
        assert found == [f"{sound / 'synced'}: slot {slot} is damaged"]
    found = spoiled(sound, sound / "synced", lambda raw: flip(flip(raw, 0), 5000))
    assert found == [f"{sound / 'synced'}: no intact mark"]


# Rows that were changed by somebody who knows how to write frames


def rewritten(folder: Path, stream: str, change: Callable[[pa.RecordBatch], pa.RecordBatch]):
    """Change the rows of the first ROWS frame of a stream's last segment; checksums fit again."""
    path = sorted((folder / stream).iterdir())[-1]
    raw = path.read_bytes()
    frame = next(f for f in frames_of(raw) if f["kind"] == "ROWS")
    schema = frame_schema(STREAMS[stream])
    found = change(pa.ipc.read_record_batch(pa.py_buffer(frame["plain"]), schema))
    parts = encode_frame(
        FrameKind.ROWS,
        frame["number"],
        frame["first_row"],
        found.num_rows,
        found.serialize(),
        pa.py_buffer(frame["sealed"]),
    )
    fresh = b"".join(part.to_pybytes() for part in parts)
    return path, raw[: frame["at"]] + fresh + raw[frame["end"] :]


def with_column(batch: pa.RecordBatch, name: str, row: int) -> pa.RecordBatch:
    values = batch.column(name).to_pylist()
    old = values[row]
    values[row] = bytes([old[0] ^ 1, *old[1:]]) if isinstance(old, bytes) and old else 1
    if pa.types.is_large_binary(batch.schema.field(name).type):
        values[row] = old + b"x"
    elif isinstance(old, int):
        values[row] = old ^ 1
    at = batch.schema.get_field_index(name)
    return batch.set_column(at, batch.schema.field(at), pa.array(values, batch.column(at).type))


@pytest.mark.parametrize("stream", ["bindings", "cuts", "visits"])
def test_every_changed_column_is_noticed(sound, stream):
    with Journal(sound, KEYS, writable=False) as reader:
        before = reader.hash()
    first = {"bindings": 9, "cuts": 9, "visits": 0}[stream]
    for name in frame_schema(STREAMS[stream]).names:
        path, raw = rewritten(sound, stream, lambda batch, name=name: with_column(batch, name, 2))
        old = path.read_bytes()
        path.write_bytes(raw)
        found = findings(sound)
        with Journal(sound, KEYS, writable=False) as reader:
            after = reader.hash()
        path.write_bytes(old)
        assert any(f"row {first + 2}: its" in line for line in found), (name, found)
        assert (after != before) == (name != "_row_hash"), name


def test_rows_that_were_taken_out_are_noticed(sound):
    for stream in ("bindings", "cuts", "visits"):
        path, raw = rewritten(sound, stream, lambda batch: batch.slice(1))
        assert spoiled(sound, path, lambda _, raw=raw: raw)


def test_sealed_parts_of_two_frames_cannot_be_exchanged(sound):
    path = sound / "bindings" / FIRST
    raw = path.read_bytes()
    head, one, two, seal = frames_of(raw)
    assert one["kind"] == two["kind"] == "ROWS"
    swapped = b"".join(
        part.to_pybytes()
        for frame, other in ((one, two), (two, one))
        for part in encode_frame(
            FrameKind.ROWS,
            frame["number"],
            frame["first_row"],
            frame["rows"],
            pa.py_buffer(frame["plain"]),
            pa.py_buffer(other["sealed"]),
        )
    )
    found = spoiled(sound, path, lambda _: raw[: head["end"]] + swapped + raw[seal["at"] :])
    assert [line.rpartition(": the sealed part does not open: ")[0] for line in found] == [
        f"bindings: segment 0, frame {n}" for n in (1, 2)
    ]


def test_reading_damaged_rows_is_an_error(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "j")
    path = tmp_path / "j" / "visits" / FIRST
    frame = frames_of(path.read_bytes())[2]
    path.write_bytes(flip(path.read_bytes(), frame["at"] + 100))
    with Journal(tmp_path / "j", KEYS, writable=False) as reader:
        assert len(next(reader.read("visits"))) == 5
        for read in (
            lambda: list(reader.read("visits")),
            lambda: reader.read_segment(reader.segments("visits")[0]),
            reader.hash,
        ):
            with pytest.raises(JournalError, match="checksum"):
                read()
        assert reader.verify()


def test_a_seal_that_lies_is_noticed(sound):
    path = sound / "visits" / FIRST
    raw = path.read_bytes()
    seal = frames_of(raw)[-1]
    for rows, hash_xor, hash_sum in ((8, 0, 0), (9, 0, 0), (9, 1, 2)):
        body = pa.py_buffer(np.array([rows, hash_xor, hash_sum], np.uint64).tobytes())
        parts = encode_frame(FrameKind.SEAL, seal["number"], 0, 0, body, pa.py_buffer(b""))
        fresh = b"".join(part.to_pybytes() for part in parts)
        assert spoiled(sound, path, lambda _, fresh=fresh: raw[: seal["at"]] + fresh)


def test_a_sealed_hash_that_lies_is_noticed(sound):
    """Even where the row hash was made to fit it: the sealed columns say otherwise."""

    def change(batch: pa.RecordBatch) -> pa.RecordBatch:
        batch = with_column(batch, "_sealed_hash", 1)
        hashes = row_hashes(
            from_arrow(BindingBatch, batch),
            KEYS.audit,
            numbers(batch.column("_sealed_hash"), np.dtype(np.uint64)),
        )
        at = batch.schema.get_field_index("_row_hash")
        return batch.set_column(at, batch.schema.field(at), pa.array(hashes))

    path, raw = rewritten(sound, "bindings", change)
    found = spoiled(sound, path, lambda _: raw)
    assert [line.partition(": ")[2] for line in found] == [
        "row 10: its sealed hash does not fit its columns"
    ]


def test_an_older_copy_of_a_segment_is_noticed(tmp_path):
    """Whole and sealed, but with fewer rows than were durable."""
    for name, rows in (("long", DURABLE), ("short", DURABLE.slice(0, 4))):
        with Journal(tmp_path / name, KEYS) as journal:
            journal.append("cuts", rows)
            journal.seal()
    path = tmp_path / "long" / "cuts" / FIRST
    path.write_bytes((tmp_path / "short" / "cuts" / FIRST).read_bytes())
    for writable in (False, True):
        with pytest.raises(JournalError, match="6 rows were durable, 4 are left"):
            Journal(tmp_path / "long", KEYS, writable=writable)


def test_more_rows_than_a_segment_holds_are_noticed(sound, monkeypatch):
    monkeypatch.setattr("pipeline.store.verify.SEGMENT_ROWS", 8)
    assert any("more than 8 rows" in line for line in findings(sound))


def test_another_audit_key_fits_no_row(sound):
    other = type(KEYS).from_seed("somebody else")
    with Journal(sound, other, writable=False) as reader:
        assert len([f for f in reader.verify() if "row hash does not fit" in f]) >= 5
        with Journal(sound, KEYS, writable=False) as ours:
            assert reader.hash() != ours.hash()


def test_what_is_found_tells_no_secret(sound):
    secrets = [t for t in some_rows(STREAMS["bindings"], 5).login.to_list() if len(t) > 2]
    path, raw = rewritten(sound, "bindings", lambda b: with_column(b, "_sealed_hash", 0))
    shown = "\n".join(spoiled(sound, path, lambda _: raw))
    assert shown
    assert not [s for s in secrets if s in shown]


def test_changing_a_row_changes_the_hash(tmp_path):
    """The twin of the flipped column: a journal that was honestly written with another value."""
    found = set()
    batches = [LATER, *(changed(LATER, c.name, 1) for c in columns_of(CutBatch))]
    for number, batch in enumerate(batches):
        with Journal(tmp_path / str(number), KEYS) as journal:
            journal.append("cuts", batch)
            found.add(journal.hash())
    assert len(found) == len(batches)


def test_a_missing_mark_is_an_error_where_there_are_rows(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "j")
    (tmp_path / "j" / "synced").unlink()
    for writable in (False, True):
        with pytest.raises(JournalError, match="synced: missing"):
            Journal(tmp_path / "j", KEYS, writable=writable)
    assert segment_module.segment_count(tmp_path / "j", "cuts") == 2
