"""An embedded store for tests: one in memory for a module, a database for each who asks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from pipeline.store.clickhouse import ClickHouse

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def new_store() -> Iterator[Callable[[], ClickHouse]]:
    """Makes empty stores. chDB takes one path a process, so all of them are closed with the module."""
    made: list[ClickHouse] = []

    def make() -> ClickHouse:
        made.append(ClickHouse("chdb://:memory:", f"test_{next(NUMBERS)}"))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: Callable[[], ClickHouse]) -> ClickHouse:
    """An empty store."""
    return new_store()
