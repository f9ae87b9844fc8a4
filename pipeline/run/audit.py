"""`job audit`: journal against bytes, book against rules, ClickHouse against both.

And the heads of the book's three chains: what somebody keeps elsewhere, a line of JSON for each,
shows later whether anything before it was changed (`store/book_trail.py`).
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.run.failures import RequestError
from pipeline.run.state import State
from pipeline.store.book_trail import Head

WRONG = 2


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


def head_lines(state: State) -> str:
    """Where the chains stand, a line of JSON for each."""
    return "".join(json.dumps(head._asdict()) + "\n" for head in state.book.heads())


def compare_heads(state: State, kept: Any, as_json: bool) -> bytes:
    """Do the chains run through what was kept of them? Raises RequestError where one does not."""
    heads = [_head(said) for said in kept] if isinstance(kept, list) else []
    if not heads:
        raise RequestError("--against FILE: it has no heads", WRONG)
    told = [head._asdict() | {"holds": state.book.is_at(head)} for head in heads]
    if as_json:
        text = json.dumps(told, indent=2)
    else:
        text = "\n".join(
            f"{'ok  ' if row['holds'] else 'FAIL'}  {row['chain']} {row['number']}" for row in told
        )
    if not all(row["holds"] for row in told):
        if not as_json:
            text += (
                "\n  - a chain does not run through what was kept of it: rows up to there "
                "were\n    changed or lost, or it was kept of another book"
            )
        raise RequestError(text)
    return text.encode() + b"\n"


def _head(said: Any) -> Head:
    try:
        return Head(str(said["chain"]), int(said["number"]), str(said["link"]))
    except (KeyError, TypeError, ValueError):
        raise RequestError("a head has a chain, a number and a link", WRONG) from None
