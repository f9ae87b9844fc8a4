"""Embedded stores for tests: in memory, each a database of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from pipeline.store.clickhouse import ClickHouse

NUMBERS = itertools.count()


def making_stores() -> Iterator[Callable[[], ClickHouse]]:
    """Yields what makes an empty store; closes all: chDB takes one path a process at a time."""
    made: list[ClickHouse] = []

    def make() -> ClickHouse:
        made.append(ClickHouse("chdb://:memory:", f"test_{next(NUMBERS)}"))
        return made[-1]

    yield make
    for store in made:
        store.close()
