"""Answer a question of a state that nobody owns and that was closed whole, without opening it all.

What `sql` and `explain` say is read from the ClickHouse store. Whoever owns a state opens its
journal and its book as well, and loads what ingests and books; after a clean end (`folder.py`) that
finds nothing new, so a process that only answers leaves it out. It holds the same locks meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.model.identifiers import NO_ID, Keys, id_text
from pipeline.run.folder import (
    JOURNAL_LOCK,
    Closed,
    StateError,
    clickhouse_of,
    read_mark,
)
from pipeline.store.connections import Connections
from pipeline.store.lock import OwnerLock
from pipeline.store.readonly import QueryError
from pipeline.store.sink import SinkError

if TYPE_CHECKING:
    from pipeline.rulebook.model import Rulebook


@dataclass(frozen=True)
class ClosedState:
    """What a question can be asked of a state that was closed; see `explain.Asked`."""

    folder: Path
    keys: Keys
    closed: Closed
    clickhouse: Connections

    @functools.cached_property
    def rulebook(self) -> Rulebook:
        """The newest rulebook of the journal."""
        found = self.rulebook_of(bytes.fromhex(self.closed.rulebook))
        if found is None:  # it was there when the state was opened
            raise StateError(f"{self.folder}: the store has lost the newest rulebook")
        return found

    def rulebook_of(self, rulebook_hash: bytes) -> Rulebook | None:
        """The rulebook with this hash; None where the journal has none."""
        # What reads rules is loaded by who wants to see one.
        from pipeline.rulebook.read import from_texts

        if rulebook_hash == NO_ID:
            return None
        raw = self.clickhouse.ask(
            "SELECT text FROM rulebooks_log"
            f" WHERE rulebook_hash = toUUID('{id_text(rulebook_hash)}')",
            "JSONEachRow",
        )
        for line in raw.splitlines()[:1]:
            return from_texts(json.loads(json.loads(line)["text"]))
        return None


@contextlib.contextmanager
def closed_state(folder: Path, keys: Keys) -> Iterator[ClosedState | None]:
    """The state in `folder`, which the caller owns; None where it has to be opened in full."""
    closed = read_mark(folder, keys)
    if closed is None or not (folder / "clickhouse").is_dir():
        yield None
        return
    with OwnerLock(folder / JOURNAL_LOCK):
        store = Connections(clickhouse_of(folder))
        try:
            found = ClosedState(folder, keys, closed, store)
            if _is_whole(found):
                yield found
                return
        finally:
            store.close()
    yield None


def _is_whole(state: ClosedState) -> bool:
    """Does the store have the tables of this version, and every rulebook of the journal?"""
    closed, store = state.closed, state.clickhouse
    try:
        if store.made_by() != closed.made_by:
            return False
        last = id_text(bytes.fromhex(closed.rulebook))
        raw = store.ask(
            f"SELECT uniqExact(rulebook_hash), countIf(rulebook_hash = toUUID('{last}'))"
            " FROM rulebooks_log",
            "JSONCompactEachRow",
        )
    except (QueryError, SinkError, RuntimeError):
        return False  # opening it in full says what is wrong
    rulebooks, newest = json.loads(raw)
    return int(rulebooks) == closed.rulebooks and int(newest) > 0
