"""Revisions make the tables that the program knows, out of nothing and out of older books."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from pipeline.store import book_migrate, book_schema
from pipeline.store.book import Book, BookError
from pipeline.store.book_engine import open_engine
from pipeline.store.book_migrate import FIRST_VERSION, HEAD, migrate, revision_of
from tests.ledger.stories import KEYS, booking, rulebook, target, target_batch
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


def test_a_book_from_before_there_were_revisions_goes_on(url: str) -> None:
    before = Book(url, KEYS, rulebook())
    before.post_targets(target_batch([target("a", 40, "pending")]), **booking(1))
    before.close()
    engine = open_engine(url)
    with writing(engine) as connection, connection.begin():
        connection.execute(text("DROP TABLE alembic_version"))
        row = {"name": "schema_version", "value": FIRST_VERSION}
        connection.execute(book_schema.meta.insert(), row)
    book = Book(url, KEYS, rulebook())
    book.post_targets(target_batch([target("a", 40, "available", fold=2)]), **booking(2))
    assert len(book.entries(0)) == 4
    assert book.audit() == []
    book.close()
    with engine.connect() as connection:
        assert revision_of(connection) == HEAD
    engine.dispose()
    assert differences(url) == []


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
        assert inspect(connection).has_table("entries")
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
