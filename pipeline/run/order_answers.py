"""What the book answered to each message of an order, told from the store.

The store has every order that was asked for and every entry that was booked, but no answers: the
book gives those, and it may not be open. They follow from what is there, by the rules of
`ledger/orders.py`. The first message of an order decides: it was accepted where entries have it as
their cause; else what it asked for was not positive, or its member had no account before the cut at
which it was posted, or too few points. A later message under the same id says the same again or
something else, and moves nothing. Before a cut's job was done there is no answer.

A message is answered once here, however often a job was killed and sent it again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass

from pipeline.model.identifiers import NO_ID_TEXT
from pipeline.model.words import Result
from pipeline.run.explain import Asked, Row, rows_of

ORDER = "order"
WAITING = "waiting"  # no cut has come since
SAID = {
    "ok": "accepted",
    "exists": "the same order again, which changed nothing",
    "exists_with_different_points": "refused: this order was asked for before, with other points"
    " or by another member",
    "insufficient_points": "refused: the member had too few points to spend",
    "unknown_member": "refused: nobody with points is behind its login",
    "not_positive": "refused: points must be more than none",
    WAITING: "not answered yet; see `job accrue`",
}


@dataclass(frozen=True, slots=True)
class _Known:
    """What answers follow from."""

    positions: list[int]  # of the cuts in their order: how many commands were known
    numbers: list[int]
    done: int  # the last cut whose job was done
    accepted: frozenset[str]
    since: dict[str, int]  # the cut at which a member got an account


def order_counts(state: Asked) -> dict[str, int]:
    """How many messages of orders came to what, by the words of `Result`."""
    counts = Counter(row["answer"] for row in answered(state))
    return {word: counts[word] for word in sorted(counts)}


def answered(state: Asked, command_id: str = "") -> list[Row]:
    """All messages of orders, or those of one, in their order, each with its `answer`."""
    chosen = "AND command_id = {id:UUID}" if command_id else ""
    rows = rows_of(
        state,
        f"SELECT * FROM commands_log WHERE kind = '{ORDER}' {chosen} ORDER BY stream_offset",
        id=command_id or NO_ID_TEXT,
    )
    known = _known(state) if rows else None
    firsts: dict[str, Row] = {}
    for row in rows:
        assert known is not None
        first = firsts.setdefault(str(row["command_id"]), row)
        row["answer"] = _answer(row, first, known)
    return rows


def _known(state: Asked) -> _Known:
    cuts = rows_of(
        state,
        "SELECT number, JSONExtractInt(position, 'commands') AS commands FROM cuts_log"
        " WHERE repeat_of = 0 ORDER BY number",
    )
    (done,) = rows_of(
        state, "SELECT max(cut) AS cut FROM runs_log WHERE job = 'accrue' AND state = 'done'"
    )
    accepted = rows_of(
        state, f"SELECT DISTINCT cause_id FROM entries_log WHERE cause_kind = '{ORDER}'"
    )
    since = rows_of(
        state,
        "SELECT subscriber_id, min(cut) AS cut FROM entries_log"
        " WHERE startsWith(account, 'member:') GROUP BY subscriber_id",
    )
    return _Known(
        [int(row["commands"]) for row in cuts],
        [int(row["number"]) for row in cuts],
        int(done["cut"]),
        frozenset(str(row["cause_id"]) for row in accepted),
        {str(row["subscriber_id"]): int(row["cut"]) for row in since},
    )


def _answer(row: Row, first: Row, known: _Known) -> str:
    """The book's word for one message."""
    place = bisect_right(known.positions, int(row["stream_offset"]))
    if place == len(known.numbers) or known.numbers[place] > known.done:
        return WAITING
    if row is first:
        return _first_answer(row, known.numbers[place], known).name.lower()
    if any(row[name] != first[name] for name in ("subscriber_id", "points")):
        return Result.EXISTS_WITH_DIFFERENT_POINTS.name.lower()
    word = str(first["answer"])
    return Result.EXISTS.name.lower() if word == Result.OK.name.lower() else word


def _first_answer(row: Row, cut: int, known: _Known) -> Result:
    if str(row["command_id"]) in known.accepted:
        return Result.OK
    if int(row["points"]) <= 0:
        return Result.NOT_POSITIVE
    if known.since.get(str(row["subscriber_id"]), cut) >= cut:
        return Result.UNKNOWN_MEMBER
    return Result.INSUFFICIENT_POINTS
