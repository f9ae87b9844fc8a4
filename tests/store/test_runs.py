"""Which run made which rows, and what `runs` says of an ingest: from the journal alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.model.batches import CommandBatch, CutBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.store.journal import Journal
from pipeline.store.runs import INGESTED, Runs, accrual_run
from tests.score.making import an_id
from tests.store.making import KEYS
from tests.store.test_clickhouse_rows import storable_rows


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal", KEYS) as found:
        yield found


def command(journal, name, kind, seconds=0, **body):
    journal.append(
        "commands",
        CommandBatch(
            ids([an_id(name)]), TextColumn.of([kind]), TextColumn.of([name]),
            *(TextColumn.of([who]) for who in ("tester", "", "")), ids([NO_ID]), np.zeros(1, np.int64),
            TextColumn.of([json.dumps(body)]), *([np.array([seconds], np.int64)] * 2),
        ),
    )  # fmt: skip


def begin(journal, name, seconds=0):
    command(journal, name, "ingest_begin", seconds, position=journal.position(), rulebook="ab" * 16)


def write(journal, rows):
    for stream in ("visits", "decisions"):
        journal.append(stream, storable_rows(stream, rows))


def two_units(journal):
    """A unit of three rows, a row in between of no unit's stream, a unit of none, one of two."""
    begin(journal, "one", 1)
    write(journal, 3)
    command(journal, "an order", "order")
    command(journal, "seen", "identity_shown")
    command(journal, "end of one", "ingest_end", 2)
    command(journal, "start", "settings")
    begin(journal, "empty", 3)
    command(journal, "end of empty", "ingest_end", 4)
    begin(journal, "two", 5)
    write(journal, 2)


def made(runs, journal, stream, first_row=0):
    (batch,) = journal.read(stream, first_row)
    raw = runs.run_ids(stream, first_row, batch)
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def looked(journal, keys=KEYS):
    runs = Runs(keys)
    runs.read(journal)
    return runs


def test_a_row_is_of_the_unit_that_wrote_it(journal):
    two_units(journal)
    runs = looked(journal)
    assert made(runs, journal, "visits") == [an_id("one")] * 3 + [an_id("two")] * 2
    assert made(runs, journal, "visits", 2) == [an_id("one")] + [an_id("two")] * 2
    assert made(runs, journal, "decisions", 4) == [an_id("two")]


def test_of_the_commands_only_those_of_a_unit_are(journal):
    two_units(journal)
    one, empty, two = an_id("one"), an_id("empty"), an_id("two")
    expected = [one, one, NO_ID, one, NO_ID, empty, empty, two]
    assert made(looked(journal), journal, "commands") == expected


def test_a_cut_is_of_the_job_that_ran_at_it(journal):
    journal.append("cuts", storable_rows("cuts", 2))
    (cuts,) = journal.read("cuts")
    assert isinstance(cuts, CutBatch)
    jobs = [accrual_run(KEYS, bytes(cut)) for cut in cuts.cut_id]
    assert made(looked(journal), journal, "cuts") == jobs
    assert made(looked(journal, None), journal, "cuts") == [NO_ID] * 2


def test_without_an_ingest_there_is_no_run(journal):
    write(journal, 2)
    assert made(looked(journal), journal, "visits") == [NO_ID] * 2
    journal.append("rulebooks", storable_rows("rulebooks", 1))
    assert made(looked(journal), journal, "rulebooks") == [NO_ID]


def test_how_often_it_looked_does_not_matter(journal):
    runs = Runs(KEYS)
    begin(journal, "one", 1)
    runs.read(journal)
    write(journal, 3)
    command(journal, "end", "ingest_end", 2)
    runs.read(journal)
    runs.read(journal)
    assert runs.ingests == looked(journal).ingests


def test_runs_say_what_an_ingest_was(store, journal):
    two_units(journal)
    journal.seal()
    store.project(journal)
    asked = "SELECT state, actor, rulebook_hash, counts, finished_ns FROM runs_log"
    one = f"{asked} WHERE run_id = toUUID('{id_text(an_id('one'))}') AND job = 'ingest'"
    started, done = store.rows(f"{one} ORDER BY state")
    rulebook = id_text(bytes.fromhex("ab" * 16))
    assert started == ("started", "tester", rulebook, "", 0)
    assert done[:3] == ("done", "tester", rulebook)
    assert json.loads(done[3]) == dict.fromkeys(INGESTED, 0) | {"visits": 3, "decisions": 3}
    states = "SELECT state, id = cause_id FROM runs ORDER BY started_at"
    assert store.rows(states) == [("done", 1), ("done", 1), ("started", 1)]
    command(journal, "given up", "ingest_abandoned", 6)
    journal.seal()
    store.project(journal)
    assert store.rows(states)[-1] == ("abandoned", 1)
    names = "SELECT DISTINCT v.run_id IN (SELECT run_id FROM runs) FROM visits_log AS v"
    assert store.rows(names) == [(1,)]


def test_a_store_that_is_filled_again_says_the_same(new_store, journal):
    two_units(journal)
    journal.seal()
    first, again = new_store(), new_store()
    first.project(journal)
    command(journal, "given up", "ingest_abandoned", 6)
    journal.seal()
    for store in (first, again):
        store.project(journal)
        store.project(journal)
    for log in ("runs_log", "visits_log", "commands_log"):
        asked = f"SELECT * FROM {log} ORDER BY ALL"
        assert first.rows(asked) == again.rows(asked), log
