"""Revisions make the tables that the program knows, out of nothing and out of older books."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from pipeline.ledger.transfers import FIRST_LINK
from pipeline.model.identifiers import digest
from pipeline.store import book_migrate, book_schema
from pipeline.store.book import Book, BookError
from pipeline.store.book_engine import open_engine
from pipeline.store.book_migrate import FIRST_VERSION, HEAD, migrate, revision_of
from tests.ledger.stories import KEYS, booking, name_id, rulebook, target, target_batch
from tests.need import REPOSITORY

FOLDER = Path(book_migrate.__file__).parent / "migrations"


def writing(engine: Engine) -> Connection:
    return engine.connect().execution_options(writes=True)


def differences(url: str) -> list:
    """What the database has otherwise than `book_schema` says."""
    engine = open_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, book_schema.metadata)
    engine.dispose()
    return found


def test_revisions_lead_to_the_schema(url: str) -> None:
    Book(url, KEYS, rulebook()).close()
    assert differences(url) == []


def test_there_is_one_way_and_its_end_is_known() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [HEAD]
    assert [script.revision for script in scripts.walk_revisions()][-1] == book_migrate.FIRST


# A book as the first program left it: its tables with the rows that opening one wrote.
ENTRY = (
    "INSERT INTO accounts VALUES (1, 'programme:issued', 'PTS', :none, 40)",
    "INSERT INTO transfers VALUES (1, :id, :id, :id, :id, :id, :id, :id, :id, :id, :id, 1, 1, 1, 1,"
    " 'earn_pending', '2026-03', 'conversion', 'acme-shop', 'r', '1', '', 'tests')",
    "INSERT INTO entries VALUES (1, 1, 0, 1, 40, :link)",
)


def first_book(url: str, revision: bool, *rows: str) -> Engine:
    """A book of the first revision; `revision`: Alembic's table says so, else its version does."""
    engine = open_engine(url)
    script = ScriptDirectory(str(FOLDER)).get_revision(book_migrate.FIRST)
    values = {"none": bytes(16), "id": b"i" * 16, "link": b"l" * 32}
    with writing(engine) as connection, connection.begin():
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            script.module.upgrade()
        for name, value in {
            "programme": "club", "points": "PTS", "points_scale": "0", "currency": "EUR",
            "timezone": "Europe/Berlin", "test": "yes",
            "keys": digest(KEYS.audit, "book keys").hex(),
        }.items():  # fmt: skip
            connection.execute(book_schema.meta.insert(), {"name": name, "value": value})
        head = text("INSERT INTO heads VALUES (1, 0, 0, 0, :link)")
        connection.execute(head, {"link": FIRST_LINK})
        if revision:
            context.stamp(ScriptDirectory(str(FOLDER)), book_migrate.FIRST)
        else:
            row = {"name": "schema_version", "value": FIRST_VERSION}
            connection.execute(book_schema.meta.insert(), row)
        for row_text in rows:
            named = {name: values[name] for name in values if f":{name}" in row_text}
            connection.execute(text(row_text), named)
    return engine


def everything(engine: Engine) -> dict[str, list[tuple]]:
    """All rows of all tables."""
    with engine.connect() as connection:
        return {
            name: sorted(tuple(row) for row in connection.execute(text(f"SELECT * FROM {name}")))
            for name in inspect(connection).get_table_names()
        }


@pytest.mark.parametrize("revision", [True, False])
def test_an_empty_book_of_the_first_tables_goes_on(url: str, revision: bool) -> None:
    """Whether revisions made it or it is from before there were any."""
    engine = first_book(url, revision)
    with engine.connect() as connection:
        assert revision_of(connection) == (book_migrate.FIRST if revision else None)
    book = Book(url, KEYS, rulebook())
    book.post_targets(target_batch([target("a", 40, "available")]), **booking(1))
    assert len(book.entries(0)) == 2
    assert book.audit() == []
    book.close()
    found = everything(engine)
    assert found["alembic_version"] == [(HEAD,)]
    assert "schema_version" not in dict(found["meta"])
    assert "entries" not in found
    engine.dispose()
    assert differences(url) == []
    again = Book(url, KEYS, rulebook())
    assert again.member(name_id("member", "ann")).available == 40
    again.close()


@pytest.mark.parametrize("revision", [True, False])
def test_a_book_with_entries_of_the_first_tables_is_made_again(url: str, revision: bool) -> None:
    """It says how, and the book is left as it was, for the program that wrote it."""
    engine = first_book(url, revision, *ENTRY)
    before = everything(engine)
    assert len(before["entries"]) == 1
    for _ in range(2):
        with pytest.raises(BookError, match=r"its journal makes it again, `mirrorpoint replay"):
            Book(url, KEYS, rulebook())
        assert everything(engine) == before
    engine.dispose()


def test_what_was_registered_before_is_kept(url: str) -> None:
    """Rules, runs, cuts and logins did not change."""
    engine = first_book(
        url,
        True,
        "INSERT INTO runs VALUES (:id, 'accrue', 'tests', :none, 1, 2, 'done', '')",
        "INSERT INTO cuts VALUES (1, 'one', 7, '{}', 0, :id)",
        "INSERT INTO identities VALUES (:id, NULL, NULL, 1, 2)",
    )
    book = Book(url, KEYS, rulebook())
    assert [run.run_id for run in book.runs()] == [b"i" * 16]
    assert book.cut_done(1)
    assert book.identity(b"i" * 16) is None
    assert book.audit() == []
    book.close()
    engine.dispose()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "newer program: .* '9999'"),
        ("DROP TABLE alembic_version", "version None, which nothing reads"),
    ],
)
def test_a_book_that_nothing_reads_is_left_as_it_is(url: str, change: str, sentence: str) -> None:
    Book(url, KEYS, rulebook()).close()
    engine = open_engine(url)
    with writing(engine) as connection, connection.begin():
        connection.execute(text(change))
    with pytest.raises(BookError, match=sentence):
        Book(url, KEYS, rulebook())
    engine.dispose()


def test_what_fails_halfway_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are made in the transaction that opens the book."""
    engine = open_engine(url)

    def migrate_and_fail(connection: Connection) -> None:
        migrate(connection)
        assert inspect(connection).has_table("postings")
        raise RuntimeError("power")

    monkeypatch.setattr("pipeline.store.book.migrate", migrate_and_fail)
    with pytest.raises(RuntimeError, match="power"):
        Book(url, KEYS, rulebook())
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []
    engine.dispose()


def test_a_book_that_is_up_to_date_is_opened_without_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'book.sqlite'}"
    Book(url, KEYS, rulebook()).close()
    opening = (
        "import sys; from pipeline.store.book import Book; "
        "from tests.ledger.stories import KEYS, rulebook; "
        f"Book({url!r}, KEYS, rulebook()).close(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", opening], cwd=REPOSITORY, check=True)
