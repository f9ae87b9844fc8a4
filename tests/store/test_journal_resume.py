"""Deriving rows again from the start: what is there is compared, what is new is added."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.batches import STREAMS, BindingBatch, VisitBatch
from pipeline.model.columns import columns_of, concat
from pipeline.store import segment as segment_module
from pipeline.store.journal import Journal, JournalError, JournalMismatch
from tests.store.making import KEYS, changed, cuts_of, same_rows, some_rows

ROWS = {name: some_rows(STREAMS[name], 30) for name in ("bindings", "visits", "cuts")}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


def write(folder, rows=ROWS, places=(), seal=False) -> str:
    """Append rows from the start in resume mode; the hash."""
    with Journal(folder, KEYS) as journal:
        journal.resume()
        for stream, batch in rows.items():
            for part in cuts_of(batch, list(places)):
                journal.append(stream, part)
            if seal:
                journal.seal()
        assert not journal.resuming
        return journal.hash()


def first(count: int) -> dict:
    return {name: batch.slice(0, count) for name, batch in ROWS.items()}


@settings(max_examples=40)
@given(
    before=st.fixed_dictionaries({name: st.integers(0, 30) for name in ROWS}),
    cut_before=st.lists(st.integers(0, 30), max_size=4),
    cut_after=st.lists(st.integers(0, 30), max_size=4),
)
def test_any_prefix_is_completed_to_the_same(tmp_path_factory, before, cut_before, cut_after):
    """Whatever was there of each stream, and however either run was cut."""
    folder = tmp_path_factory.mktemp("prefix")
    expected = write(folder / "undisturbed")
    write(folder / "j", {n: ROWS[n].slice(0, count) for n, count in before.items()}, cut_before)
    assert write(folder / "j", places=cut_after) == expected
    with Journal(folder / "j", KEYS) as journal:
        assert journal.verify() == []
        for stream, batch in ROWS.items():
            names = tuple(c.name for c in columns_of(STREAMS[stream]) if not c.local)
            assert same_rows(concat(list(journal.read(stream, unseal=True))), batch, names)


def test_nothing_is_written_while_rows_are_compared(folder):
    write(folder, seal=True)
    before = {p: p.read_bytes() for p in folder.rglob("*.segment")}
    write(folder, places=[3, 9], seal=True)
    assert {p: p.read_bytes() for p in folder.rglob("*.segment")} == before


def test_the_position_is_that_of_the_run(folder):
    """A cut holds a position: the second run has to reach the one that the first had."""
    write(folder)
    with Journal(folder, KEYS) as journal:
        assert journal.position() == {n: 30 if n in ROWS else 0 for n in STREAMS}
        journal.resume()
        assert journal.resuming
        assert journal.position() == dict.fromkeys(STREAMS, 0)
        assert journal.unmatched() == dict.fromkeys(ROWS, 30)
        journal.append("visits", ROWS["visits"].slice(0, 12))
        assert journal.rows("visits") == journal.position()["visits"] == 12
        assert journal.unmatched()["visits"] == 18
        assert sum(len(b) for b in journal.read("visits")) == 12
        assert sum(len(b) for b in journal.read("visits", stop=30)) == 30
        assert sum(len(b) for b in journal.read("cuts")) == 0
        journal.append("visits", ROWS["visits"].slice(12, 30))
        assert "visits" not in journal.unmatched()
        journal.append("visits", ROWS["visits"])
        assert journal.rows("visits") == 60
        assert journal.resuming
        for stream in ("bindings", "cuts"):
            journal.append(stream, ROWS[stream])
        assert not journal.resuming
        assert journal.unmatched() == {}


def test_an_empty_journal_has_nothing_to_compare(folder):
    with Journal(folder, KEYS) as journal:
        journal.resume()
        assert not journal.resuming
        journal.append("visits", ROWS["visits"])
        assert journal.rows("visits") == 30


@given(
    row=st.integers(0, 29),
    stream=st.sampled_from(list(ROWS)),
    cut_before=st.lists(st.integers(0, 30), max_size=4),
    cut_after=st.lists(st.integers(0, 30), max_size=4),
    data=st.data(),
)
def test_a_difference_is_told_by_stream_row_and_column(
    tmp_path_factory, row, stream, cut_before, cut_after, data
):
    folder = tmp_path_factory.mktemp("difference")
    column = data.draw(st.sampled_from([c for c in columns_of(STREAMS[stream]) if not c.local]))
    write(folder, places=cut_before)
    other = changed(ROWS[stream], column.name, row)
    with pytest.raises(JournalMismatch) as caught:
        write(folder, ROWS | {stream: other}, cut_after)
    told = caught.value
    assert (told.stream, told.row) == (stream, row)
    assert told.columns == (("a sealed column",) if column.sealed else (column.name,))
    assert f"row {row} of {stream} differs" in str(told)
    assert column.name in str(told) or column.sealed


def test_the_first_of_several_differences_is_told(folder):
    write(folder)
    other = changed(changed(ROWS["visits"], "version", 20), "http", 11)
    with pytest.raises(JournalMismatch) as caught:
        write(folder, {"visits": other}, [5, 15])
    assert (caught.value.row, caught.value.columns) == (11, ("http",))


def test_a_difference_shows_no_secret(folder):
    write(folder)
    logins = [t for t in ROWS["bindings"].login.to_list() if len(t) > 2]
    with pytest.raises(JournalMismatch) as caught:
        write(folder, {"bindings": changed(ROWS["bindings"], "login", 4)})
    assert not [t for t in logins if t in str(caught.value)]


def test_local_columns_may_differ(folder):
    expected = write(folder)
    assert (
        write(folder, ROWS | {"bindings": changed(ROWS["bindings"], "subscriber", 4)}) == expected
    )


def test_a_destroyed_key_does_not_stop_the_comparison(folder):
    expected = write(folder, seal=True)
    with Journal(folder, KEYS) as journal:
        journal.destroy_key(journal.segments("bindings")[0])
    assert write(folder) == expected
    with pytest.raises(JournalMismatch, match="a sealed column"):
        write(folder, {"bindings": changed(ROWS["bindings"], "address_lo", 4)})


def test_comparing_may_begin_later(folder):
    """Live, a unit of input is read again from where it began."""
    expected = write(folder)
    with Journal(folder, KEYS) as journal:
        journal.resume({"visits": 20, "cuts": 30, "bindings": 30})
        assert journal.position() == dict.fromkeys(STREAMS, 0) | {
            "visits": 20,
            "cuts": 30,
            "bindings": 30,
        }
        journal.append("visits", ROWS["visits"].slice(20, 25))
        journal.append("cuts", ROWS["cuts"].slice(0, 2))
        assert journal.rows("cuts") == 32
        with pytest.raises(JournalMismatch) as caught:
            journal.append("visits", changed(ROWS["visits"], "http", 27).slice(25, 30))
        assert caught.value.row == 27
        assert journal.hash() != expected


@pytest.mark.parametrize("start", [-1, 31])
def test_comparing_cannot_begin_outside(folder, start):
    write(folder)
    with Journal(folder, KEYS) as journal, pytest.raises(ValueError, match="visits has 30 rows"):
        journal.resume({"visits": start})


def test_resuming_anew_begins_anew(folder):
    write(folder)
    with Journal(folder, KEYS) as journal:
        for _ in range(2):
            journal.resume()
            journal.append("visits", ROWS["visits"].slice(0, 12))
        assert journal.rows("visits") == 12


def test_a_journal_that_is_not_resumed_just_goes_on(folder):
    write(folder)
    with Journal(folder, KEYS) as journal:
        journal.append("visits", ROWS["visits"])
        assert journal.rows("visits") == 60


def bounds(folder) -> dict[str, list[tuple[int, int, bool]]]:
    with Journal(folder, KEYS, writable=False) as reader:
        return {
            stream: [(s.first_row, s.rows, s.sealed) for s in reader.segments(stream)]
            for stream in ROWS
        }


def cut_run(folder, stop: int = 3, more: int = 0) -> None:
    """Three thirds of the rows, the bounds fixed after each; or fewer, and some rows `more`."""
    with Journal(folder, KEYS) as journal:
        journal.resume()
        for third in range(stop):
            for stream, batch in ROWS.items():
                journal.append(stream, batch.slice(third * 10, third * 10 + 10))
            journal.seal()
            for stream in ROWS:
                sealed = [s for s in journal.segments(stream) if s.sealed]
                assert sealed[-1].end >= journal.rows(stream) == third * 10 + 10
        for stream, batch in ROWS.items():
            journal.append(stream, batch.slice(stop * 10, stop * 10 + more))


@pytest.mark.parametrize("more", [0, 4, 10])
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_seals_fall_where_they_fell(tmp_path, stop, more):
    """The run that ended after some seals, and maybe some rows more, is gone through once again."""
    cut_run(tmp_path / "once")
    cut_run(tmp_path / "twice", stop, more)
    cut_run(tmp_path / "twice")
    assert bounds(tmp_path / "twice") == bounds(tmp_path / "once")


def test_a_seal_covers_the_position_though_more_rows_are_there(tmp_path):
    """The first run wrote on without the seal: the bound falls elsewhere, no row is missing."""
    write(tmp_path / "j")
    cut_run(tmp_path / "j")
    assert bounds(tmp_path / "j") == {stream: [(0, 30, True)] for stream in ROWS}


def test_comparing_goes_across_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(segment_module, "SEGMENT_ROWS", 7)
    expected = write(tmp_path / "a", places=[4])
    assert write(tmp_path / "a", places=[1, 13, 28]) == expected
    with Journal(tmp_path / "a", KEYS) as journal:
        journal.resume({"visits": 10})
        journal.append("visits", ROWS["visits"].slice(10, 30))
        assert "visits" not in journal.unmatched()


def test_a_reader_cannot_resume(folder):
    write(folder)
    with Journal(folder, KEYS, writable=False) as reader, pytest.raises(JournalError):
        reader.resume()


def test_classes_are_as_these_tests_take_them():
    assert STREAMS["visits"] is VisitBatch
    assert STREAMS["bindings"] is BindingBatch
