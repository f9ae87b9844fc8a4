"""What is delivered is there once, whatever came between; what is not as the journal is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.batches import STREAMS
from pipeline.store.clickhouse_schema import TABLES, ConversionBatch, RunBatch
from pipeline.store.journal import Journal
from pipeline.store.sink import SinkError
from tests.need import REPOSITORY
from tests.score.making import an_id, make
from tests.store.deliver_rows import make_journal, some_entries
from tests.store.making import KEYS, cuts_of
from tests.store.store_rows import Filled
from tests.store.test_clickhouse_rows import storable_rows

FEW = settings(max_examples=min(20, settings.default.max_examples))


@pytest.fixture(scope="module")
def filled(new_store):
    return Filled(new_store())


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal", KEYS) as found:
        yield found


def fill(journal: Journal, rows: int = 50, seed: int = 1) -> None:
    for stream in STREAMS:
        journal.append(stream, storable_rows(stream, rows, seed))


def counts(store) -> dict[str, int]:
    return {s: store.rows(f"SELECT count() FROM {TABLES[s].log}")[0][0] for s in STREAMS}


# The journal


def test_every_stream_is_delivered_once(store, journal):
    fill(journal)
    journal.seal()
    assert store.project(journal) == len(STREAMS)
    assert store.project(journal) == 0
    assert counts(store) == dict.fromkeys(STREAMS, 50)
    assert store.differences(journal) == []
    store.verify_against(journal)


def test_open_segments_wait(store, journal):
    fill(journal)
    assert store.project(journal) == 0
    assert store.differences(journal) == []
    journal.seal()
    fill(journal, 7, seed=2)
    assert store.project(journal) == len(STREAMS)
    assert counts(store) == dict.fromkeys(STREAMS, 50)


def test_the_row_hashes_are_those_of_the_journal(store, journal):
    fill(journal)
    journal.seal()
    store.project(journal)
    for stream in STREAMS:
        (segment,) = journal.segments(stream)
        found = store.query(f"SELECT row_hash FROM {TABLES[stream].log} ORDER BY stream_offset")
        assert found.column(0).to_pylist() == journal.read_segment(segment).row_hash.tolist()


@pytest.mark.slow
@FEW
@given(st.lists(st.integers(0, 60), max_size=5), st.lists(st.booleans(), min_size=6, max_size=6))
def test_how_rows_were_cut_and_when_they_were_delivered_does_not_matter(
    filled, tmp_path_factory, places, delivered
):
    filled.clear()
    store = filled.store
    store._complete.clear()
    batch = storable_rows("visits", 60)
    with Journal(tmp_path_factory.mktemp("cut") / "journal", KEYS) as journal:
        for piece, now in zip(cuts_of(batch, places), delivered, strict=False):
            journal.append("visits", piece)
            if now:
                journal.seal()
                store.project(journal)
        journal.seal()
        store.project(journal)
        store.verify_against(journal)
        expected = np.bitwise_xor.reduce(
            np.concatenate([journal.read_segment(s).row_hash for s in journal.segments("visits")])
        )
    assert store.rows(
        "SELECT count(), uniqExact(stream_offset), groupBitXor(row_hash) FROM visits_log"
    ) == [(60, 60, int(expected))]


def test_a_segment_that_got_lost_is_delivered_again(store, journal):
    fill(journal)
    journal.seal()
    store.project(journal)
    store.execute("TRUNCATE TABLE clicks_log")
    assert store.differences(journal) == [
        "clicks: segment 0 (rows 0 to 49) has 50 rows in the journal and 0 in the store"
    ]
    store._complete.clear()
    assert store.project(journal) == 1
    store.verify_against(journal)


def test_of_a_segment_that_is_there_in_part_the_rest_is_sent(store, journal):
    fill(journal)
    journal.seal()
    store.project(journal)
    for stream in STREAMS:
        store.execute(
            f"ALTER TABLE {TABLES[stream].log} DELETE WHERE stream_offset % 3 = 1"
            " SETTINGS mutations_sync = 2"
        )
    assert len(store.differences(journal)) == len(STREAMS)
    store._complete.clear()
    assert store.project(journal) == len(STREAMS)
    store.verify_against(journal)
    assert store.rows("SELECT uniqExact(stream_offset) FROM purchases_log") == [(50,)]


CHANGED = [
    ("row_hash", "row_hash + 1 WHERE stream_offset = 3", "holds other rows"),
    ("row_hash", "bitXor(row_hash, 1) WHERE stream_offset IN (3, 4)", "holds other rows"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("column", "change", "said"), CHANGED)
def test_rows_that_are_not_the_journals_are_an_error_that_names_the_segment(
    store, journal, column, change, said
):
    fill(journal, 10)
    journal.seal()
    fill(journal, 10, seed=2)
    journal.seal()
    store.project(journal)
    store.execute(f"ALTER TABLE visits_log UPDATE {column} = {change} SETTINGS mutations_sync = 2")
    found = store.differences(journal)
    assert found == [f"visits: segment 0 (rows 0 to 9) {said} in the store than in the journal"]
    with pytest.raises(SinkError, match=r"visits: segment 0 \(rows 0 to 9\)"):
        store.verify_against(journal)
    store._complete.clear()
    with pytest.raises(SinkError, match=r"visits: segment 0 \(rows 0 to 9\)"):
        store.project(journal)


def test_an_audit_sees_a_column_that_was_changed_behind_its_hash(store, journal):
    """Before paying, row hashes are compared; who can write here can leave them as they are."""
    fill(journal, 10)
    journal.seal()
    store.project(journal)
    for table, change in (
        ("purchases", "amount_minor = amount_minor + 1 WHERE stream_offset = 3"),
        ("visits", "mark = concat(mark, 'x') WHERE stream_offset >= 8"),
        ("clicks", "row_hash = 0 WHERE 0"),
    ):
        store.execute(f"ALTER TABLE {table}_log UPDATE {change} SETTINGS mutations_sync = 2")
    store.verify_against(journal)
    assert store.differences(journal) == [
        "visits: row 8: mark is another in the store than in the journal",
        "purchases: row 3: amount_minor is another in the store than in the journal",
    ]


def test_rows_of_no_segment_are_noticed(store, journal):
    fill(journal, 10)
    journal.seal()
    store.project(journal)
    store.execute("INSERT INTO decisions_log (stream_offset, segment, row_hash) VALUES (77, 77, 1)")
    assert store.differences(journal) == [
        "decisions: 1 rows of a segment at row 77 that the journal does not have"
    ]
    store.execute("INSERT INTO decisions_log (stream_offset, segment) VALUES (99, 0)")
    assert "decisions: segment 0" in store.differences(journal)[0]


def test_a_missing_row_is_not_made_up_for_by_a_strange_one(store, journal):
    fill(journal, 10)
    journal.seal()
    store.execute("INSERT INTO clicks_log (stream_offset, segment) VALUES (99, 0)")
    with pytest.raises(SinkError, match="clicks_log, segment = 0"):
        store.project(journal)


def test_the_journal_of_another_case_is_not_mixed_in(store, tmp_path):
    for name in ("one", "two"):
        with Journal(tmp_path / name, KEYS) as journal:
            fill(journal, 10, seed=len(name) + (name == "two"))
            journal.seal()
            if name == "one":
                store.project(journal)
            else:
                store._complete.clear()
                with pytest.raises(SinkError, match="holds other rows"):
                    store.project(journal)


# Entries, outcomes, runs


def test_entries_are_delivered_once_in_any_pieces(store):
    entries = some_entries(90)
    assert store.entries_delivered() == 0
    assert store.deliver_entries(entries.slice(0, 40)) == 40
    assert store.deliver_entries(entries.slice(10, 60)) == 20
    assert store.deliver_entries(entries) == 30
    assert store.deliver_entries(entries) == 0
    assert store.deliver_entries(entries.slice(0, 0)) == 0
    assert store.entries_delivered() == 90
    assert store.rows("SELECT count(), uniqExact(entry_id) FROM entries") == [(90, 90)]


def test_blocks_of_entries_end_at_fixed_numbers(store, monkeypatch):
    monkeypatch.setattr("pipeline.store.projection.BLOCK_ROWS", 32)
    entries = some_entries(100)
    store.deliver_entries(entries.slice(0, 10))
    store.deliver_entries(entries)
    found = store.rows("SELECT segment, count() FROM entries_log GROUP BY 1 ORDER BY 1")
    assert found == [(1, 10), (11, 22), (33, 32), (65, 32), (97, 4)]


def test_a_gap_in_the_entries_is_an_error(store):
    entries = some_entries(50)
    with pytest.raises(AssertionError):
        store.deliver_entries(entries.slice(10, 20))
    store.deliver_entries(entries)
    store.execute("ALTER TABLE entries_log DELETE WHERE sequence = 7 SETTINGS mutations_sync = 2")
    with pytest.raises(SinkError, match="49 rows up to number 50"):
        store.entries_delivered()


def test_what_is_there_already_is_not_counted_through_for_every_block(store, monkeypatch):
    monkeypatch.setattr("pipeline.store.projection.BLOCK_ROWS", 16)
    entries, asked = some_entries(64), []
    ask = store.rows
    monkeypatch.setattr(store, "rows", lambda sql: asked.append(sql) or ask(sql))
    for start in range(0, 64, 16):
        store.deliver_entries(entries.slice(start, start + 16))
    assert asked
    assert not [sql for sql in asked if "uniq" in sql.lower() or "DISTINCT" in sql]


def outcomes(count: int, cut: int = 1, **more) -> ConversionBatch:
    rows = [{"conversion_key": f"c{n}", "points": n, "cut": cut, "fold": cut} for n in range(count)]
    return make(ConversionBatch, [{**row, **more} for row in rows], {"result": 0, "state": 2})


def test_the_answers_of_the_first_time_stay(store):
    store.deliver_conversions(outcomes(5), 1, an_id("run"))
    store.deliver_conversions(outcomes(5, result=1), 1, an_id("again"))
    assert store.rows("SELECT DISTINCT result FROM conversions") == [("ok",)]
    assert store.rows("SELECT count() FROM conversions_log") == [(5,)]


@pytest.mark.parametrize("other", [outcomes(4), outcomes(5, points=77)], ids=["fewer", "others"])
def test_other_outcomes_of_one_cut_are_an_error(store, other):
    store.deliver_conversions(outcomes(5), 1, an_id("run"))
    with pytest.raises(SinkError, match="cut = 1"):
        store.deliver_conversions(other, 1, an_id("run"))


def test_the_latest_fold_shows_and_a_repeat_does_not_hide_it(store):
    store.deliver_conversions(outcomes(1, points=5), 1, an_id("run"))
    store.deliver_conversions(outcomes(1, cut=2, points=7), 2, an_id("run"))
    store.deliver_conversions(outcomes(1, cut=3, fold=1, points=5, result=3), 3, an_id("run"))
    store.deliver_conversions(outcomes(1, cut=4, fold=2, points=7, result=1), 4, an_id("run"))
    assert store.rows("SELECT points, cut, fold, result FROM conversions") == [(7, 2, 2, "ok")]


def test_a_run_is_there_from_its_start_and_shows_its_end(store):
    for state in (1, 2, 2):
        row = {"run_id": "run", "state": state, "job": "accrue", "counts": str(state)}
        store.deliver_run(make(RunBatch, [row], {}))
    assert store.rows("SELECT state, counts FROM runs") == [("done", "2")]
    assert store.rows("SELECT count() FROM runs_log") == [(2,)]


# kill -9


def run(folder: Path, crash: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "tests.store.deliver_rows", str(folder)],
        env=os.environ | {"MIRRORPOINT_CRASH": crash, "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
        timeout=240,
    ).returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, dict[str, int]]:
    """A journal to deliver, and how often an undisturbed delivery passes each crash point."""
    folder = tmp_path_factory.mktemp("undisturbed")
    make_journal(folder)
    assert run(folder, f"count:{folder / 'passes'}") == 0
    return folder / "journal", json.loads((folder / "passes").read_text())


KILLED = [
    ("project.before_insert", "last"),
    ("project.half_insert", "first"),
    ("project.half_insert", "last"),
    ("project.after_insert", "first"),
    ("outbox.before_insert", "first"),
    ("outbox.after_insert", "last"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "place"), KILLED)
def test_killed_anywhere_delivery_goes_on_to_the_same_end(undisturbed, tmp_path, point, place):
    journal, passes = undisturbed
    assert passes[point] >= 2
    shutil.copytree(journal, tmp_path / "journal")
    nth = 1 if place == "first" else passes[point]
    assert run(tmp_path, f"{point}:{nth}") == -signal.SIGKILL
    # It compares everything with the journal and counts the entries before it ends.
    assert run(tmp_path, "") == 0
