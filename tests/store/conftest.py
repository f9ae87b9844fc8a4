"""An embedded store for tests: one in memory for a module, a database for each who asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pipeline.store.clickhouse import ClickHouse
from tests.store.stores import making_stores


@pytest.fixture(scope="module")
def new_store() -> Iterator[Callable[[], ClickHouse]]:
    """Makes empty stores."""
    yield from making_stores()


@pytest.fixture
def store(new_store: Callable[[], ClickHouse]) -> ClickHouse:
    """An empty store."""
    return new_store()
