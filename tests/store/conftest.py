"""An embedded store for tests: one in memory for a module, a database for each who asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.store.clickhouse import ClickHouse
from tests.postgresql import Server, serving
from tests.store.stores import making_stores


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server of one's own."""
    with serving() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new book, on either database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'book.sqlite'}"
    else:
        server: Server = request.getfixturevalue("postgresql")
        made = server.new_database()
        yield made
        server.drop(made)


@pytest.fixture(scope="module")
def new_store() -> Iterator[Callable[[], ClickHouse]]:
    """Makes empty stores."""
    yield from making_stores()


@pytest.fixture
def store(new_store: Callable[[], ClickHouse]) -> ClickHouse:
    """An empty store."""
    return new_store()
