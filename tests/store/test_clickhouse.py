"""The store itself: schema, words, opening, asking, inserting once, threads."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest

from pipeline.model import words
from pipeline.model.batches import STREAMS
from pipeline.model.columns import stored_columns
from pipeline.store import clickhouse_schema as schema
from pipeline.store import connections
from pipeline.store.clickhouse import ClickHouse, QueryError, SinkError
from pipeline.store.clickhouse_schema import (
    FLAGS,
    TABLES,
    VIEWS,
    WORDS,
    changes,
    enum_type,
    fingerprint,
    schema_page,
)
from tests.need import REPOSITORY
from tests.score.making import NOON, an_id
from tests.store.store_rows import Filled
from tests.store.test_clickhouse_rows import delivered, storable_rows

NUMBERS = {
    ("bindings", "prefix_length"), ("visits", "version"), ("entries", "leg"),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(new_store):
    return new_store()


# The schema


def test_every_stream_has_a_table_and_the_issue_has_its_views():
    assert set(STREAMS) <= set(TABLES)
    wanted = {"visits", "decisions", "clicks", "conversions", "entries", "runs", "cuts"}
    assert set(VIEWS) == wanted


def test_every_small_number_is_a_word_a_flag_or_listed_as_a_number():
    for name, table in TABLES.items():
        for column in stored_columns(table.batch):
            if column.dtype == np.uint8 and not column.sealed:
                known = column.name in WORDS.get(name, {})
                known |= (name, column.name) in FLAGS | NUMBERS
                assert known, f"{name}.{column.name}"


def test_closed_lists_cannot_drift_from_their_words():
    assert enum_type(words.BindingKind) == "Enum8('' = 0, 'bind' = 1, 'end' = 2)"
    for name, columns in WORDS.items():
        types = {c.name: c.type for c in TABLES[name].columns}
        for column, closed in columns.items():
            assert types[column] == enum_type(closed)


def test_the_page_about_the_schema_is_fresh():
    page = REPOSITORY / "docs" / "schema.md"
    assert page.read_text() == schema_page(), "`make docs` rewrites it"


def test_the_page_names_every_column_and_nothing_sealed():
    page = schema_page()
    for table in TABLES.values():
        for column in table.columns:
            assert f"| {column.name} |" in page
    assert "login" not in page.replace("logins", "")


def test_every_view_has_id_cause_rule_and_run(shared):
    for view in VIEWS:
        columns = {
            name
            for (name,) in shared.rows(
                "SELECT name FROM system.columns"
                f" WHERE database = '{shared.database}' AND table = '{view}'"
            )
        }
        assert {"id", "cause_id", "run_id", "stream_offset", "segment", "row_hash"} <= columns
        assert columns & {"rule_version", "rulebook_hash"}, view


def test_columns_are_as_the_schema_says(shared):
    assert changes(shared._columns(), shared.database) == ([], [])


def test_a_list_that_grew_is_widened_and_nothing_else_is_touched():
    found = [(t.log, c.name, c.type) for t in TABLES.values() for c in t.columns]
    found += [
        (t.log, c.name[:-3] + "_ns", "Int64")
        for t in TABLES.values()
        for c in t.columns
        if c.type.startswith("DateTime64")
    ]
    assert changes(found, "x") == ([], [])
    full = enum_type(words.Basis)
    short = full.replace(", 'left' = 4", "")
    alter, problems = changes([(t, n, short if k == full else k) for t, n, k in found], "x")
    assert not problems
    assert len(alter) == 2
    assert all(line.endswith(full) for line in alter)
    renamed = full.replace("'left'", "'gone'")
    alter, problems = changes([(t, n, renamed if k == full else k) for t, n, k in found], "x")
    assert (alter, len(problems)) == ([], 2)
    assert changes(found[1:], "x")[1] == [f"{found[0][0]}.{found[0][1]} is missing"]
    assert changes([*found, ("visits_log", "odd", "String")], "x")[1] == [
        "visits_log.odd is not known"
    ]


# Views


def test_a_view_shows_the_newest_version(new_store):
    filled = Filled(new_store())
    filled.add("visits", {"version": 1}, {"version": 1, "visit_id": "other"}, {"version": 2})
    found = filled.store.rows("SELECT id, version, basis, opened_at FROM visits ORDER BY version")
    assert [row[1] for row in found] == [1, 2]
    assert {row[2] for row in found} == {"consented"}
    assert found[0][3].startswith("2026-03-01 11:00:00")


def test_times_are_for_people_and_sort_as_numbers(new_store):
    filled = Filled(new_store())
    filled.add("visits", *({"opened_ns": NOON + n, "visit_id": f"v{n}"} for n in (3, 1, 2)))
    found = filled.store.rows(f"SELECT opened_ns - {NOON} FROM visits_log ORDER BY opened_at")
    assert found == [(1,), (2,), (3,)]


def test_a_server_shows_as_an_address(new_store):
    filled = Filled(new_store())
    filled.add("visits", {"server_lo": 0xFFFF_CB00_7105})
    assert filled.store.rows("SELECT server FROM visits") == [("::ffff:203.0.113.5",)]


# Asking


def test_rows_and_dicts_are_python_values(shared):
    sql = "SELECT toUInt64(-1) AS big, {id:UUID} AS id, {n:Int64} AS n, 'x\"' AS t"
    text = "00112233-4455-6677-8899-aabbccddeeff"
    assert shared.dicts(sql, id=text, n="-5") == [
        {"big": 2**64 - 1, "id": text, "n": -5, "t": 'x"'}
    ]
    assert shared.rows("SELECT 1, 'a' UNION ALL SELECT 2, 'b'") == [(1, "a"), (2, "b")]


def test_parameters_are_values_whatever_is_in_them(shared):
    text = "' OR 1 -- \\\t\n\\n {x:String}"
    assert shared.dicts("SELECT {t:String} AS t", t=text) == [{"t": text}]


def test_an_answer_for_people_is_in_the_asked_format(shared):
    assert shared.ask("SELECT 1 AS a", "TSV") == b"1\n"
    assert json.loads(shared.ask("SELECT 1 AS a"))["data"] == [{"a": 1}]
    with pytest.raises(QueryError, match="not a format"):
        shared.ask("SELECT 1", "TSV; DROP")


def test_a_wrong_question_says_what_is_wrong_in_one_line(shared):
    with pytest.raises(QueryError) as wrong:
        shared.ask("SELECT nope FROM visits")
    assert "nope" in str(wrong.value)
    assert "DB::Exception" not in str(wrong.value)
    assert "Stack trace" not in str(wrong.value)


@pytest.mark.parametrize("way", ["query", "rows", "dicts"])
@pytest.mark.parametrize(
    "sql", ["DROP TABLE visits_log", "TRUNCATE TABLE visits_log", "SET readonly = 0"]
)
def test_reading_cannot_write(shared, way, sql):
    with pytest.raises(SinkError):
        getattr(shared, way)(sql)


@pytest.mark.parametrize(
    ("asked", "given", "sql"),
    [
        (connections.QUESTION_SECONDS_MAX, 1, "SELECT count() FROM numbers(1000000000000000000)"
                                             " WHERE number % 7 = 3"),
        (connections.QUESTION_BYTES_MAX, 50_000_000, "SELECT length(groupArray(number))"
                                                    " FROM numbers(1000000000)"),
    ],
)  # fmt: skip
def test_a_question_has_bounds(new_store, monkeypatch, asked, given, sql):
    """The tightest there are, so that the test does not wait for those of every day."""
    questions = connections.SETTINGS["questions"]
    changed = tuple(s.replace(f"= {asked}", f"= {given}") for s in questions)
    assert changed != questions
    monkeypatch.setitem(connections.SETTINGS, "questions", changed)
    store = new_store()
    with pytest.raises(QueryError, match=r"TIMEOUT_EXCEEDED|MEMORY_LIMIT_EXCEEDED"):
        store.ask(sql)
    assert b"1" in store.ask("SELECT 1", "CSV")
    with pytest.raises(QueryError):
        store.ask(f"{sql} SETTINGS max_execution_time = 0, max_memory_usage = 0")


def test_steps_are_kept_only_meanwhile(shared):
    steps = {"one": "SELECT 1 AS x", "two": "SELECT x + 1 AS x FROM one"}
    for _ in range(2):
        found = shared.staged(steps, "SELECT one.x AS a, two.x AS b FROM one, two")
        assert found.to_pylist() == [{"a": 1, "b": 2}]
    with pytest.raises(SinkError):
        shared.staged({}, "SELECT * FROM one")
    with pytest.raises(SinkError, match="nope"):
        shared.staged({"one": "SELECT nope"}, "SELECT 1")
    assert shared.staged(steps, "SELECT x FROM two").num_rows == 1


# Inserting


def rows_of(name: str, count: int, segment: int = 0, seed: int = 1) -> pa.RecordBatch:
    from pipeline.store.clickhouse_rows import arrow_rows

    return arrow_rows(
        TABLES[name],
        storable_rows(name, count, seed),
        offsets=np.arange(segment, segment + count),
        segment=segment,
        hashes=np.arange(count, dtype=np.uint64),
        run_id=an_id("run"),
    )


def count(store: ClickHouse, where: str = "1") -> int:
    return int(store.rows(f"SELECT count() FROM decisions_log WHERE {where}")[0][0])


def test_the_same_insert_twice_is_one(store):
    for _ in range(2):
        store.insert(TABLES["decisions"], rows_of("decisions", 50), "t", "segment = 0")
    assert count(store) == 50


def test_a_token_without_its_rows_does_not_lose_them(store):
    """A kill may fall between the token's writing and that of its rows."""
    store.insert(TABLES["decisions"], rows_of("decisions", 5, 100), "t", "segment = 100")
    store.insert(TABLES["decisions"], rows_of("decisions", 50), "t", "segment = 0")
    assert count(store, "segment = 0") == 50


def test_an_insert_that_is_there_in_part_is_completed(store):
    whole = rows_of("decisions", 50)
    store.insert(TABLES["decisions"], whole, "t", "segment = 0")
    store.execute(
        "ALTER TABLE decisions_log DELETE WHERE stream_offset >= 20 SETTINGS mutations_sync = 2"
    )
    assert count(store) == 20
    store.insert(TABLES["decisions"], whole, "t", "segment = 0")
    assert count(store) == 50
    assert store.rows("SELECT uniqExact(stream_offset) FROM decisions_log") == [(50,)]


def test_rows_that_do_not_belong_are_noticed(store):
    store.insert(TABLES["decisions"], rows_of("decisions", 60), "other", "segment = 0")
    with pytest.raises(SinkError, match="decisions_log, segment = 0: 60 rows are there"):
        store.insert(TABLES["decisions"], rows_of("decisions", 50), "t", "segment = 0")


def test_an_unknown_word_is_refused_with_its_table(store):
    batch = storable_rows("decisions", 3).with_columns(kind=np.full(3, 99, np.uint8))
    with pytest.raises(SinkError, match="kind: 99 is not in Enum8"):
        delivered(store, "decisions", batch)
    assert count(store) == 0


# Opening


@pytest.mark.parametrize("url", ["", "chdb:relative", "sqlite:///x", "chdb://relative/x"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(SinkError, match="expected chdb"):
        ClickHouse(url)


@pytest.mark.parametrize("name", ["", "x; DROP", "X", "a" * 65])
def test_a_database_name_is_a_plain_word(name):
    with pytest.raises(SinkError, match="expected"):
        ClickHouse("chdb://:memory:", name)


def test_threads_ask_and_insert_side_by_side(shared):
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(5):
                first = number * 1000 + n * 100
                delivered(shared, "clicks", storable_rows("clicks", 10), first)
                assert shared.rows("SELECT count() >= 10 FROM clicks_log") == [(1,)]
                assert shared.ask("SELECT 1", "TSV") == b"1\n"
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert shared.rows("SELECT count(), uniqExact(stream_offset) FROM clicks_log") == [(200, 200)]


OPEN = """
import sys
from pipeline.store.clickhouse import ClickHouse, SinkError
try:
    store = ClickHouse(sys.argv[1])
except SinkError as error:
    sys.exit(f"{error.retryable} {error}")
store.execute(sys.argv[2]) if sys.argv[2:] else None
print(store.rows("SELECT count() FROM system.tables WHERE database = 'mirrorpoint'")[0][0])
store.close()
"""


def opened(url: str, *statement: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OPEN, url, *statement],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_store_is_kept_has_one_owner_and_knows_its_version(tmp_path):
    url = f"chdb://{tmp_path}/clickhouse"
    first = opened(url)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "clickhouse").stat().st_mode & 0o777 == 0o700
    again = opened(url, "ALTER TABLE visits_log DROP COLUMN mark")
    assert again.stdout == first.stdout, again.stderr
    assert opened(url).returncode == 0, "made by these statements, as its mark says"
    assert opened(url, "DROP VIEW made_by").returncode == 0
    other = opened(url)
    assert other.returncode == 1
    assert "another version made this store" in other.stderr
    assert "visits_log.mark is missing" in other.stderr


@pytest.mark.slow
def test_a_second_process_is_told_to_try_again(tmp_path):
    url = f"chdb://{tmp_path}/clickhouse"
    waits = OPEN.replace("store.close()", "sys.stdout.flush(); sys.stdin.read()")
    holder = subprocess.Popen(
        [sys.executable, "-c", waits, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        second = opened(url)
        assert second.returncode == 1
        assert "True " in second.stderr
        assert "another process" in second.stderr
    finally:
        holder.communicate(timeout=60)


def test_the_mark_changes_with_the_statements(monkeypatch):
    marked = fingerprint.__wrapped__  # the mark is kept for the life of a process
    mark = marked()
    assert mark == marked() == fingerprint()
    with monkeypatch.context() as patch:
        clicks = schema.TABLES["clicks"]
        wider = [*clicks.columns, schema.TableColumn("more", "UInt8", ())]
        patch.setitem(schema.TABLES, "clicks", dataclasses.replace(clicks, columns=tuple(wider)))
        column = marked()
    with monkeypatch.context() as patch:
        one_view_less = {name: about for name, about in schema.VIEWS.items() if name != "cuts"}
        patch.setattr(schema, "VIEWS", one_view_less)
        view = marked()
    assert len({mark, column, view}) == 3
    assert mark == marked()
