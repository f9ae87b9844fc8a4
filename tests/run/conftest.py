"""What tests of the runs share: stores of a process, and a world to accrue in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.store.clickhouse import ClickHouse
from tests.run.accruing import World
from tests.store.conftest import new_store

__all__ = ["new_store", "world"]


@pytest.fixture
def world(new_store: Callable[[], ClickHouse], tmp_path: Path) -> Iterator[World]:
    """A folder with subscribers, partners and purchases, and a store of its own."""
    found = World(tmp_path, new_store())
    yield found
    found.close()
