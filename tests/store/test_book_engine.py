"""Either database, opened so that nothing is lost, nothing is done twice, and no wait is endless."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, make_url, text
from sqlalchemy.exc import DBAPIError

from pipeline.store import book_schema as tables
from pipeline.store.book import Book, BookError
from pipeline.store.book_engine import open_engine, wipe_deleted
from pipeline.store.book_schema import metadata
from tests.ledger.stories import KEYS, booking, rulebook, target, target_batch
from tests.postgresql import Server

MOMENT_S = 0.3  # what a writer waits here
SOON_S = 10.0  # far less than without an end, far more than a busy machine needs


@pytest.fixture
def database(postgresql: Server) -> Iterator[str]:
    """The URL of a new database of PostgreSQL's."""
    made = postgresql.new_database()
    yield made
    postgresql.drop(made)


def put(engine: Engine, name: str) -> None:
    """Write a row in a transaction."""
    with engine.connect().execution_options(writes=True) as writer, writer.begin():
        writer.execute(tables.meta.insert(), {"name": name, "value": ""})


def names(engine: Engine) -> set[str]:
    with engine.connect() as reader:
        return set(reader.execute(tables.meta.select()).scalars())


def post(book: Book, name: str, cut: int = 1) -> None:
    book.post_targets(target_batch([target(name, 40, "available")]), **booking(cut))


def test_a_file_and_a_book_in_memory(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'b.sqlite'}", "sqlite://", "sqlite:///:memory:"):
        engine = open_engine(url)
        metadata.create_all(engine)
        assert sorted(inspect(engine).get_table_names()) == sorted(metadata.tables)
        assert wipe_deleted(engine)
        engine.dispose()


def test_a_log_in_use_cannot_be_wiped(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'b.sqlite'}", wait_seconds=0.1)
    metadata.create_all(engine)
    with engine.connect() as reader:
        reader.execute(tables.meta.select()).all()
        with engine.connect().execution_options(writes=True) as writer, writer.begin():
            writer.execute(tables.meta.insert(), {"name": "a", "value": "b"})
        assert not wipe_deleted(engine)
    assert wipe_deleted(engine)
    engine.dispose()


def test_nobody_waits_for_a_writer_for_ever(url: str) -> None:
    busy, hasty = open_engine(url), open_engine(url, wait_seconds=MOMENT_S)
    metadata.create_all(busy)
    with busy.connect().execution_options(writes=True) as writer, writer.begin():
        began = time.monotonic()
        with pytest.raises(BookError, match=r"another program .* for 0\.3 seconds"):
            put(hasty, "a")
        assert time.monotonic() - began < SOON_S
    put(hasty, "b")
    assert names(busy) == {"b"}
    for engine in (busy, hasty):
        engine.dispose()


def test_a_writer_that_says_nothing_loses_the_lock(database: str) -> None:
    """As a program does that was stopped, or whose line is cut, in the middle of a transaction."""
    silent, other = open_engine(database, wait_seconds=MOMENT_S), open_engine(database)
    metadata.create_all(silent)

    def write_and_say_nothing() -> None:
        with silent.connect().execution_options(writes=True) as writer, writer.begin():
            writer.execute(tables.meta.insert(), {"name": "silent", "value": ""})
            began = time.monotonic()
            put(other, "other")  # which waits longer than the silence is borne
            assert time.monotonic() - began < SOON_S

    with pytest.raises(DBAPIError):
        write_and_say_nothing()
    assert names(silent) == {"other"}, "the connection is replaced, what it wrote is not there"
    for engine in (silent, other):
        engine.dispose()


def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        engine = open_engine(f"postgresql://book@127.0.0.1:{port}/book", wait_seconds=MOMENT_S)
        began = time.monotonic()
        with pytest.raises(BookError, match=r"the book's database cannot be opened: .*timeout"):
            engine.connect()
        assert time.monotonic() - began < SOON_S
        engine.dispose()


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    for url in (f"postgresql://book@/book?host={tmp_path}", f"sqlite:///{tmp_path / 'no' / 'b'}"):
        with pytest.raises(BookError, match="the book's database cannot be opened: "):
            Book(url, KEYS, rulebook())


def test_the_line_is_watched_as_the_url_says(database: str) -> None:
    def said(url: str) -> dict[str, str]:
        engine = open_engine(url)
        with engine.connect() as connection:
            found = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
        engine.dispose()
        return dict(found)

    usual = said(database)
    assert usual["keepalives_idle"] == "10"
    assert usual["target_session_attrs"] == "read-write"
    told = said(f"{database}&keepalives_idle=77&connect_timeout=5&application_name=ours")
    assert told == {
        **usual,
        "keepalives_idle": "77",
        "connect_timeout": "5",
        "application_name": "ours",
    }


def test_another_driver_is_refused() -> None:
    with pytest.raises(BookError, match=r"by psycopg, not by 'postgresql\+psycopg2'"):
        open_engine("postgresql+psycopg2://book@/book")


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ("off", "on"),
        ("local", "on"),
        ("remote_write", "on"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ],
)
def test_no_commit_waits_for_less_than_the_disk(
    postgresql: Server, database: str, said: str, used: str
) -> None:
    name = make_url(database).database
    postgresql.say(f"ALTER DATABASE {name} SET synchronous_commit = {said}")
    engine = open_engine(database)
    with engine.connect() as reader:
        assert reader.execute(text("SHOW synchronous_commit")).scalar_one() == said
    with engine.connect().execution_options(writes=True) as writer, writer.begin():
        assert writer.execute(text("SHOW synchronous_commit")).scalar_one() == used
    engine.dispose()


@pytest.fixture
def forgetful(postgresql: Server) -> Iterator[None]:
    """The server without fsync, which an operator may set while it runs."""

    def reload(change: str, becomes: str) -> None:
        postgresql.say(f"ALTER SYSTEM {change}")
        postgresql.say("SELECT pg_reload_conf()")
        engine, until = open_engine(postgresql.url("postgres")), time.monotonic() + SOON_S
        found = ""
        while found != becomes and time.monotonic() < until:
            with engine.connect() as connection:
                found = connection.execute(text("SHOW fsync")).scalar_one()
        engine.dispose()
        assert found == becomes

    reload("SET fsync = off", "off")
    try:
        yield
    finally:
        reload("RESET fsync", "on")


def test_a_server_that_may_forget_is_refused(database: str, forgetful: None) -> None:
    with pytest.raises(BookError, match="fsync = off: it would say that points are booked"):
        Book(database, KEYS, rulebook())


def test_a_server_may_not_begin_to_forget(database: str, request: pytest.FixtureRequest) -> None:
    book = Book(database, KEYS, rulebook())
    post(book, "a")
    request.getfixturevalue("forgetful")
    with pytest.raises(BookError, match="fsync = off"):
        post(book, "b")
    assert len(book.entries(0)) == 2
    book.close()


def test_a_database_without_all_letters_is_refused(postgresql: Server) -> None:
    postgresql.say("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(BookError, match=r"keeps text as LATIN1.* ENCODING 'UTF8'"):
        Book(postgresql.url("latin"), KEYS, rulebook())
    postgresql.drop(postgresql.url("latin"))


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_may_be_restarted_between_two_postings(
    postgresql: Server, database: str, how: str
) -> None:
    book = Book(database, KEYS, rulebook())
    post(book, "a")
    postgresql.stop(how)
    try:
        with pytest.raises(BookError, match="cannot be opened"):
            post(book, "b", 2)
    finally:
        postgresql.start()
    post(book, "b", 2)
    assert len(book.entries(0)) == 4
    assert book.audit() == []
    book.close()


@pytest.mark.parametrize("by", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_writer_that_is_ended_has_booked_nothing(
    postgresql: Server, database: str, by: str
) -> None:
    """An operator's hand, or a server that goes down: the whole transaction or none of it."""
    book = Book(database, KEYS, rulebook())
    post(book, "a")

    def work_until_ended() -> None:
        with book._write() as connection:
            connection.execute(tables.meta.insert(), {"name": "half", "value": ""})
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            threading.Timer(MOMENT_S, postgresql.say, [f"SELECT {by}({pid})"]).start()
            connection.execute(text("SELECT pg_sleep(60)"))

    with pytest.raises(DBAPIError):
        work_until_ended()
    assert "half" not in names(book._engine)
    post(book, "b", 2)
    assert len(book.entries(0)) == 4
    assert book.audit() == []
    book.close()
