"""Connections: opened when they are needed, one for each use and thread, and what each may do."""

from __future__ import annotations

import json
import threading

import pytest

from pipeline.store.clickhouse import ClickHouse
from pipeline.store.clickhouse_schema import fingerprint
from pipeline.store.connections import Connections, said
from pipeline.store.readonly import QueryError
from pipeline.store.sink import SinkError


class Counting(Connections):
    """Counts what is opened."""

    opened = 0

    def _connect(self):
        self.opened += 1
        return super()._connect()


@pytest.fixture
def connections(store):
    """To a store that somebody else has made."""
    found = Counting("chdb://:memory:", store.database)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("sqlite:///x", "mirrorpoint"),
        ("chdb://relative", "mirrorpoint"),
        ("chdb:///x", "a b"),
        ("chdb:///x", "x; DROP"),
    ],
)
def test_what_is_no_store_is_refused(url, database):
    with pytest.raises(SinkError, match="expected chdb:///folder"):
        Connections(url, database)


def test_nothing_is_opened_or_made_before_it_is_needed(tmp_path):
    found = Connections(f"chdb://{tmp_path}/none")
    found.close()
    assert not (tmp_path / "none").exists()


def test_one_connection_answers(connections):
    """Whose tables these are, which functions there are, and the question: each asks the store."""
    assert connections.made_by() == fingerprint()
    for _ in range(2):
        assert connections.ask("SELECT count() AS n FROM visits", "TSV") == b"0\n"
    assert connections.opened == 1


def test_a_store_without_a_mark(store):
    empty = Connections("chdb://:memory:", "nobody_made_this")
    try:
        assert empty.made_by() == ""
    finally:
        empty.close()


def test_a_thread_has_connections_of_its_own(connections):
    connections.ask("SELECT 1")
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(connections.ask("SELECT 1", "TSV")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"1\n"] * 3
    assert connections.opened == 4


def test_a_question_writes_nothing(connections):
    for question in ("INSERT INTO visits_log SELECT * FROM visits_log", "DROP TABLE visits_log",
                     "SELECT * FROM file('/etc/passwd')", "SELECT 1; SELECT 2",
                     "SELECT 1 SETTINGS readonly = 0", "SELECT nothing"):  # fmt: skip
        with pytest.raises(QueryError):
            connections.ask(question)
    with pytest.raises(QueryError, match="not a format"):
        connections.ask("SELECT 1", "JSON INTO OUTFILE 'x'")


def test_every_use_but_the_owners_is_read_only(connections):
    """Whatever was asked over a connection before it got its use."""
    connections.made_by()
    for use, expected in (("questions", "1"), ("reading", "1"), ("writing", "0")):
        raw = connections._ask("SELECT getSetting('readonly') AS r", "JSON", use=use)
        assert str(json.loads(raw)["data"][0]["r"]) == expected, use


def test_after_close_nothing_is_answered(connections):
    connections.ask("SELECT 1")
    connections.close()
    with pytest.raises(QueryError, match="closed"):
        connections.ask("SELECT 1")
    with pytest.raises(SinkError, match="closed"):
        connections.made_by()


def test_making_a_store_leaves_its_uses_apart(store):
    """The connection that tables are made over is not one that gets a use."""
    assert isinstance(store, ClickHouse)
    assert store.made_by() == fingerprint()
    assert store.rows("SELECT getSetting('readonly')") == [(1,)]
    store.execute("CREATE TABLE made_later (n UInt8) ENGINE = Memory")
    assert store.ask("SELECT count() FROM made_later", "TSV") == b"0\n"


def test_messages_come_without_codes_and_stacks():
    error = RuntimeError("Code: 60. DB::Exception: No such table. Stack trace:\n0. x")
    assert said(error) == "No such table."
