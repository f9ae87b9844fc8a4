"""What the book answered to commands, told from the store.

Every message of a command has one answer. The first under its id is what the book keeps; a later
one says the same again or something else, and moves nothing. The book tells which (`answers_to`),
so that a job that was killed and runs again writes down what was answered the first time.
"""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from pipeline.ledger.commands import Command, commands_of
from pipeline.model.batches import CommandBatch
from pipeline.model.columns import TextColumn
from pipeline.model.identifiers import NO_ID_TEXT
from pipeline.model.words import BOOK_COMMANDS, Result
from pipeline.run.explain import Asked, Row, rows_of
from pipeline.store.book import Book
from pipeline.store.book_entries import Settlement
from pipeline.store.clickhouse_schema import AnswerBatch

WAITING = "waiting"  # no cut has come since
SAID = {
    "ok": "accepted",
    "exists": "the same again, which changed nothing",
    "exists_with_different_points": "refused: this was asked for before, with other points"
    " or by another member",
    "insufficient_points": "refused: there were too few points",
    "unknown_member": "refused: nobody with points is behind it",
    "not_positive": "refused: points must be more than none",
    "overflow": "refused: no book takes so many points at once",
    "period_open": "refused: the period is not over",
    "unknown_order": "refused: no order of that id was accepted",
    "closed_order": "refused: that was over already (spent, let go, timed out or decided)",
    "not_committed": "refused: nothing of that order was spent",
    "frozen": "refused: the member's points were frozen then",
    "waiting_period": "refused: a new member earns at once and spends later",
    "out_of_stock": "refused: there were not so many left of the gift",
    "unknown_exchange": "refused: there is no exchange with that programme",
    "awaiting_approval": "waits for a second person",
    "unknown_request": "refused: nothing of that id waits for a second person",
    "same_person": "refused: the second person has to be another",
    "no_reason": "refused: it needs a reason",
    "not_allowed": "refused: who asked may not do that, or not there",
    WAITING: "not answered yet; see `job accrue`",
}
LISTED = ", ".join(f"'{kind}'" for kind in BOOK_COMMANDS)


def answers_to(book: Book, commands: CommandBatch, cut: int) -> np.ndarray:
    """The answer to each message posted at a cut (uint8 of `Result`), as it was the first time."""
    rows = commands_of(commands)
    settled = book.settled([row.command_id for row in rows])
    firsts: set[bytes] = {i for i, found in settled.items() if found.cut != cut}
    answers = np.zeros(len(rows), np.uint8)
    for number, row in enumerate(rows):
        found = settled[row.command_id]
        answers[number] = _answer(row, found, row.command_id not in firsts)
        firsts.add(row.command_id)
    return answers


def _answer(row: Command, found: Settlement, is_first: bool) -> Result:
    if is_first:
        return found.result
    if row.content != found.content:
        return Result.EXISTS_WITH_DIFFERENT_POINTS
    return Result.EXISTS if found.result == Result.OK else found.result


def doubts_told(book: Book, commands: CommandBatch) -> TextColumn:
    """Why each of these messages had to wait for a person, as the book keeps it."""
    rows = commands_of(commands)
    settled = book.settled([row.command_id for row in rows])
    return TextColumn.of([settled[row.command_id].doubt for row in rows])


def in_words(doubt: str) -> str:
    """Fraud codes as people read them."""
    return "; ".join(f"{code} ({weight}): {said}" for code, said, weight in json.loads(doubt))


def answer_rows(
    commands: CommandBatch, places: np.ndarray, answers: np.ndarray, cut: int, doubts: TextColumn
) -> AnswerBatch:
    """Answers as rows of the store; `places` are the commands' rows of their stream."""
    return AnswerBatch(
        command_id=commands.command_id,
        place=places.astype(np.int64),
        kind=commands.kind,
        subscriber_id=commands.subscriber_id,
        cut=np.full(len(commands), cut, np.int64),
        result=answers,
        doubt=doubts,
    )


def order_counts(state: Asked) -> dict[str, int]:
    """How many messages of orders came to what, by the words of `Result`."""
    counts = Counter(row["answer"] for row in answered(state) if row["kind"] == "order")
    return {word: counts[word] for word in sorted(counts)}


def answered(state: Asked, command_id: str = "") -> list[Row]:
    """All messages to the book, or those of one command, in their order, with `answer` each."""
    chosen = "AND c.command_id = {id:UUID}" if command_id else ""
    rows = rows_of(
        state,
        "SELECT c.*, a.result AS answer, a.doubt AS doubt, c.stream_offset AS place,"
        " a.command_id AS answered"
        " FROM commands_log AS c LEFT JOIN answers_log AS a"
        " ON a.place = c.stream_offset AND a.command_id = c.command_id"
        f" WHERE c.kind IN ({LISTED}) {chosen} ORDER BY c.stream_offset",
        id=command_id or NO_ID_TEXT,
    )
    for row in rows:
        if str(row["answered"]) == NO_ID_TEXT:
            row["answer"] = WAITING
    return rows
