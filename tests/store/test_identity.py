"""The identity table: sealed, found by id with the key, and gone for good once erased."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.store import book_engine
from pipeline.store.book import Book, BookError
from pipeline.store.identity import Identities, IdentityError
from tests.ledger.stories import KEYS, name_id, rulebook
from tests.postgresql import Server

ANN, BOB = name_id("member", "ann"), name_id("member", "bob")
LOGIN = "ann@access.example"


@pytest.fixture
def book(url: str) -> Iterator[Book]:
    made = Book(url, KEYS, rulebook())
    yield made
    made.close()


def everything(book: Book) -> bytes:
    """All bytes of the book's files; of PostgreSQL those of its own database."""
    if book._engine.dialect.name == "sqlite":
        file = Path(str(book._engine.url.database))
        return b"".join(p.read_bytes() for p in sorted(file.parent.iterdir()) if p.is_file())
    with book._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CHECKPOINT")
        data = connection.exec_driver_sql("SHOW data_directory").scalar_one()
        ours = "SELECT oid FROM pg_database WHERE datname = current_database()"
        folder = Path(data, "base", str(connection.exec_driver_sql(ours).scalar_one()))
    return b"".join(p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file())


def sealed_rows(book: Book) -> list[tuple]:
    with book._read() as connection:
        rows = connection.execute(text("SELECT * FROM identities ORDER BY subscriber_id"))
        return [tuple(row) for row in rows]


def test_a_login_is_found_by_its_id_only(book: Book) -> None:
    book.put_identity(ANN, LOGIN)
    assert book.identity(ANN) == LOGIN
    assert book.identity(BOB) is None
    assert LOGIN.encode() not in everything(book)
    assert b"access.example" not in everything(book)


def test_many_at_once_and_again(book: Book) -> None:
    logins = {name_id("member", str(n)): f"{n}@access.example" for n in range(1200)}
    assert book.put_identities(logins) == 1200
    before = sealed_rows(book)
    assert book.put_identities(logins) == 0
    assert sealed_rows(book) == before, "what is there is left alone"
    assert all(book.identity(key) == login for key, login in list(logins.items())[::97])
    assert book.put_identities({ANN: "", BOB: "ünïcödé"}) == 2
    assert (book.identity(ANN), book.identity(BOB)) == ("", "ünïcödé")


def test_a_login_may_change(book: Book) -> None:
    book.put_identity(ANN, LOGIN)
    book.put_identity(ANN, "ann.new@access.example")
    assert book.identity(ANN) == "ann.new@access.example"


def test_the_same_login_never_looks_the_same(book: Book) -> None:
    book.put_identities({ANN: LOGIN, BOB: LOGIN})
    (_, one, sealed_one, *_), (_, two, sealed_two, *_) = sealed_rows(book)
    assert one != two
    assert sealed_one != sealed_two


def test_erasing_is_for_good(book: Book) -> None:
    book.put_identities({ANN: LOGIN, BOB: "bob@access.example"}, 5)
    sealed = {row[0]: row[2] for row in sealed_rows(book)}
    assert sealed[ANN] in everything(book)
    assert book.erase(ANN, 9) is True
    assert sealed[ANN] not in everything(book), "the sealed bytes are overwritten too"
    assert sealed[BOB] in everything(book)
    assert book.identity(ANN) is None
    assert book.identity(BOB) == "bob@access.example"
    assert book.erase(ANN, 11) is False
    book.put_identity(ANN, LOGIN)
    assert book.identity(ANN) is None, "a replayed journal does not bring it back"
    assert [row[3:] for row in sealed_rows(book) if row[0] == ANN] == [(5, 9)]


def test_somebody_unknown_can_be_erased_beforehand(book: Book) -> None:
    assert book.erase(ANN, 9) is False
    book.put_identity(ANN, LOGIN)
    assert book.identity(ANN) is None


def test_a_reader_in_the_way_is_told(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    book.put_identity(ANN, LOGIN)
    monkeypatch.setattr("pipeline.store.book.wipe_deleted", lambda engine: False)
    with pytest.raises(BookError, match="erase once more"):
        book.erase(ANN)
    assert book.identity(ANN) is None


HOLDERS = ["reader", "hidden reader", "prepared transaction"]


@pytest.fixture
def held(postgresql: Server) -> Iterator[Book]:
    """A book of PostgreSQL's with a login."""
    database = postgresql.new_database()
    book = Book(database, KEYS, rulebook())
    book.put_identity(ANN, LOGIN)
    yield book
    book.close()
    postgresql.drop(database)


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_somebody_still_sees_is_not_said_to_be_gone(
    held: Book, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is dead to us and not to others is copied when its table is written anew."""
    monkeypatch.setattr(book_engine, "WIPE_SECONDS", 0.3)
    if holder == "hidden reader":  # as those of other users are
        monkeypatch.setattr(book_engine, "_readers_are_gone", lambda *_: True)
    ((*_, sealed, _put, _erased),) = sealed_rows(held)
    before = held._engine.connect()
    if holder == "prepared transaction":
        before.execute(text("UPDATE heads SET link = link"))
        before.execute(text("PREPARE TRANSACTION 'forgotten'"))
    else:
        before.execute(text("SELECT * FROM heads"))
    with pytest.raises(BookError, match="erase once more"):
        held.erase(ANN, 9)
    assert sealed in everything(held), "or there was nothing to tell"
    assert held.identity(ANN) is None
    before.close()
    if holder == "prepared transaction":
        with held._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as after:
            after.execute(text("ROLLBACK PREPARED 'forgotten'"))
    assert held.erase(ANN, 9) is False
    assert sealed not in everything(held)


def test_a_reader_of_a_moment_is_waited_for(held: Book) -> None:
    before = held._engine.connect()
    before.execute(text("SELECT * FROM identities"))
    threading.Timer(0.3, before.close).start()
    assert held.erase(ANN, 9) is True


def test_an_idle_reader_does_not_stop_the_writers(
    held: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the whole table keeps all others waiting who come later."""
    monkeypatch.setattr(book_engine, "WIPE_SECONDS", 0.3)
    with held._engine.connect().execution_options(isolation_level="READ COMMITTED") as idle:
        idle.execute(text("SELECT * FROM identities"))
        began = time.monotonic()
        with pytest.raises(BookError, match="erase once more"):
            held.erase(ANN, 9)
        held.put_identity(BOB, LOGIN)
        assert time.monotonic() - began < 10
    assert held.erase(ANN, 9) is False


def test_a_table_of_somebody_elses_is_not_said_to_be_clean(
    held: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL only warns a user who may not vacuum, and says that it is done."""
    with held._write() as connection:
        for statement in (
            "DROP ROLE IF EXISTS clerk",
            "CREATE ROLE clerk LOGIN",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk",
        ):
            connection.execute(text(statement))
    clerk = Book(held._engine.url.set(username="clerk").render_as_string(), KEYS, rulebook())
    with pytest.raises(BookError, match="erase once more"):
        clerk.erase(ANN, 9)
    clerk.close()
    assert held.erase(ANN, 9) is False


def test_another_key_opens_nothing(book: Book) -> None:
    book.put_identity(ANN, LOGIN)
    others = Identities(book._read, book._write, os.urandom(32))
    with pytest.raises(IdentityError, match="another identity key"):
        others.login(ANN)
    assert len(others.problems()) == 1
    assert Identities(book._read, book._write, KEYS.identity).problems() == []


def test_a_sealed_login_belongs_to_its_row(book: Book) -> None:
    """Two rows that exchange what they hold do not open: nobody gets another's name."""
    book.put_identities({ANN: LOGIN, BOB: "bob@access.example"})
    (a, nonce_a, sealed_a, *_), (b, nonce_b, sealed_b, *_) = sealed_rows(book)
    with book._write() as connection:
        for key, nonce, sealed in ((a, nonce_b, sealed_b), (b, nonce_a, sealed_a)):
            connection.execute(
                text("UPDATE identities SET nonce = :n, sealed = :s WHERE subscriber_id = :k"),
                {"n": nonce, "s": sealed, "k": key},
            )
    for key in (ANN, BOB):
        with pytest.raises(IdentityError):
            book.identity(key)
    assert len(book.audit()) == 2


def test_an_erased_row_that_holds_something_is_named(book: Book) -> None:
    book.put_identity(ANN, LOGIN)
    with book._write() as connection:
        connection.execute(text("UPDATE identities SET erased_ns = 1"))
    assert "is erased but has a sealed login" in book.audit()[0]
