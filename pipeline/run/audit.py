"""`job audit`: journal against bytes, book against rules, ClickHouse against both."""

from __future__ import annotations

from pipeline.run.state import State


def audit(state: State) -> list[tuple[str, list[str]]]:
    """Every check with its findings; an empty list of findings means that it holds."""
    from pipeline.run.accrue import compare_with_book

    state.deliver()
    return [
        ("journal: every frame, seal and row hash", state.journal.verify()),
        ("store: every segment as in the journal", state.clickhouse.differences(state.journal)),
        ("book: every invariant and the hash chain", state.book.audit()),
        ("book: statements and liability as its balances", state.book.money.problems()),
        ("store: entries as in the book", compare_with_book(state.clickhouse, state.book)),
    ]
