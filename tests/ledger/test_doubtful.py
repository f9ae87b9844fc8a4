"""Spending that has to wait for a person: what waits, what an approval does, what it cannot do.

Every story runs against the logic alone and against a book in SQLite.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pipeline.model.batches import CommandBatch
from pipeline.model.columns import concat
from pipeline.model.words import Result
from pipeline.rulebook.model import Exchange, Location
from tests.ledger.asking import ask, say
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    BookDesk,
    Desk,
    PureDesk,
    name_id,
    rulebook,
    target,
)

CODES = '[["VELOCITY","6 requests to spend within an hour, over 5",100]]'
HOUR_NS = 3600 * 10**9
MILES = Exchange("miles", "MILES", Fraction(1, 2), Fraction(2), Location("p.toml", 1, "exchange"))


@pytest.fixture(params=[PureDesk, BookDesk])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    made = request.param(book=rulebook(manual_limit=10**6, exchanges=(MILES,)))
    made.post([target("a", 100, "available")])
    yield made
    if isinstance(made, BookDesk):
        assert made.book.audit() == []
        assert made.book.money.problems() == []


def doubt(desk: Desk, *batches: CommandBatch, cut: int = 0) -> list[str]:
    """What commands are answered, all of them doubtful."""
    batch = concat(list(batches))
    told = {bytes(who): CODES for who in batch.command_id}
    return [result.name.lower() for result in desk.command(batch, cut, told)]


@pytest.mark.parametrize(
    ("kind", "body", "left"),
    [
        ("order", {}, (0, 60, 0, 0)),
        ("reserve", {}, (0, 60, 40, 0)),
        ("transfer", {"to": "bob"}, (0, 60, 0, 0)),
        ("convert_out", {"programme": "miles"}, (0, 60, 0, 0)),
    ],
)
def test_it_waits_and_is_booked_when_somebody_approves(
    desk: Desk, kind: str, body: dict[str, Any], left: tuple[int, ...]
) -> None:
    asked = ask(kind, "o", "ann", 40, **body)
    assert doubt(desk, asked) == ["awaiting_approval"]
    assert desk.points("ann") == (0, 100, 0, 0)
    assert doubt(desk, asked) == ["awaiting_approval"], "the same again"
    assert say(desk, "approve", "yes", actor="eve", request="o") == "ok"
    assert desk.points("ann") == left
    assert say(desk, kind, "o", "ann", 40, **body) == "exists"
    assert say(desk, "approve", "no", actor="eve", request="o") == "closed_order"
    if kind == "transfer":
        assert desk.points("bob") == (0, 40, 0, 0)


def test_who_rejects_leaves_the_points_where_they_are(desk: Desk) -> None:
    assert doubt(desk, ask("order", "o", "ann", 40)) == ["awaiting_approval"]
    assert say(desk, "reject", "no", actor="eve", request="o") == "ok"
    assert desk.points("ann") == (0, 100, 0, 0)
    assert say(desk, "order", "o", "ann", 40) == "closed_order"


def test_what_would_be_refused_is_refused_at_once(desk: Desk) -> None:
    assert doubt(desk, ask("order", "1", "ann", 101)) == ["insufficient_points"]
    assert doubt(desk, ask("order", "2", "bob", 1)) == ["unknown_member"]
    assert doubt(desk, ask("transfer", "3", "ann", 1, to="ann")) == ["unknown_member"]
    assert doubt(desk, ask("reserve", "4", "ann", 0)) == ["not_positive"]
    assert say(desk, "freeze", "f", "ann") == "ok"
    assert doubt(desk, ask("convert_out", "5", "ann", 9, programme="miles")) == ["frozen"]


def test_only_spending_can_be_doubtful(desk: Desk) -> None:
    assert doubt(desk, ask("adjust", "1", "ann", 5, reason="late")) == ["ok"]
    assert doubt(desk, ask("reserve", "r", "ann", 5)) == ["awaiting_approval"]
    assert doubt(desk, ask("commit", "c", order="r")) == ["unknown_order"]


def test_points_may_be_gone_by_then(desk: Desk) -> None:
    assert doubt(desk, ask("order", "o", "ann", 80)) == ["awaiting_approval"]
    assert say(desk, "order", "other", "ann", 30) == "ok"
    assert say(desk, "approve", "yes", actor="eve", request="o") == "insufficient_points"
    assert say(desk, "order", "o", "ann", 80) == "insufficient_points"
    assert desk.points("ann") == (0, 70, 0, 0)


def test_a_member_is_no_second_person_but_an_employee_is_one(desk: Desk) -> None:
    """A member's order may bear the name of whoever posts it; one by a role bears its own."""
    asked = ask("order", "o", "ann", 40, actor="eve", role="member")
    assert doubt(desk, asked) == ["awaiting_approval"]
    assert say(desk, "approve", "yes", actor="eve", request="o") == "ok"
    asked = ask("order", "p", "ann", 40, actor="eve", role="call_centre")
    assert doubt(desk, asked) == ["awaiting_approval"]
    assert say(desk, "approve", "mine", actor="eve", request="p") == "same_person"
    assert say(desk, "approve", "his", actor="dan", request="p") == "ok"


def test_a_reservation_lasts_from_its_approval_on(desk: Desk) -> None:
    held = 2 * 3600
    assert doubt(desk, ask("reserve", "r", "ann", 40, EVENT_NS, hold_seconds=held)) == [
        "awaiting_approval"
    ]
    approved = EVENT_NS + DAY_NS
    assert say(desk, "approve", "yes", at=approved, actor="eve", request="r") == "ok"
    assert say(desk, "order", "o", "ann", 1, approved + 2 * HOUR_NS - 1) == "ok"
    assert desk.points("ann") == (0, 59, 40, 0), "it stands"
    assert say(desk, "order", "p", "ann", 1, approved + 2 * HOUR_NS) == "ok"
    assert desk.points("ann") == (0, 98, 0, 0), "it is over"


def test_asked_approved_spent_and_refunded_in_one_batch(desk: Desk) -> None:
    asked = ask("reserve", "r", "ann", 40, hold_seconds=3600)
    rest = [
        ask("approve", "yes", actor="eve", request="r"),
        ask("commit", "c", order="r"),
        ask("refund", "back", points=15, order="r"),
    ]
    told = {name_id("order", "r"): CODES}
    answers = desk.command(concat([asked, *rest]), 1, told)
    assert answers == [Result.AWAITING_APPROVAL, Result.OK, Result.OK, Result.OK]
    assert desk.points("ann") == (0, 75, 0, 0)


def test_approved_and_spent_in_a_later_batch(desk: Desk) -> None:
    doubt(desk, ask("reserve", "r", "ann", 40, hold_seconds=3600))
    batch = [ask("approve", "yes", actor="eve", request="r"), ask("release", "c", order="r")]
    assert desk.command(concat(batch), 2) == [Result.OK, Result.OK]
    assert desk.points("ann") == (0, 100, 0, 0)


def test_a_gift_of_which_none_is_left(desk: Desk) -> None:
    say(desk, "stock", "s", "", 1, item="mug")
    assert doubt(desk, ask("order", "o", "ann", 40, item="mug")) == ["awaiting_approval"]
    assert say(desk, "order", "p", "ann", 10, item="mug") == "ok"
    assert say(desk, "approve", "yes", actor="eve", request="o") == "out_of_stock"
    say(desk, "stock", "t", "", 1, item="mug")
    assert doubt(desk, ask("order", "q", "ann", 40, item="mug")) == ["awaiting_approval"]
    assert say(desk, "approve", "again", actor="eve", request="q") == "ok"


@pytest.mark.parametrize("kind", ["order", "reserve", "transfer", "convert_out"])
def test_who_owes_has_nothing_to_spend(desk: Desk, kind: str) -> None:
    """LATE_REFUND: a reversal after the points were spent. Cash, too, is refused until it is
    paid.
    """
    say(desk, "order", "first", "ann", 80, redemption="cash")
    desk.post([target("a", 0, "none", fold=2)], 2)
    assert desk.points("ann") == (0, 0, 0, 80)
    body = {"to": "bob"} if kind == "transfer" else {"programme": "miles", "redemption": "cash"}
    assert say(desk, kind, "o", "ann", 2, **body) == "insufficient_points"
    desk.post([target("b", 79, "available", fold=3)], 3)
    assert say(desk, kind, "p", "ann", 2, **body) == "insufficient_points"
    desk.post([target("c", 11, "available", fold=4)], 4)
    assert desk.points("ann") == (0, 10, 0, 0)
    assert say(desk, kind, "q", "ann", 10, **body) == "ok"


def test_the_book_keeps_why() -> None:
    desk = BookDesk(book=rulebook())
    desk.post([target("a", 100, "available")])
    doubt(desk, ask("order", "o", "ann", 40))
    say(desk, "adjust", "j", "ann", 7, reason="late")
    burn, adjusted = sorted(desk.book.awaiting(), key=lambda row: row.kind, reverse=True)
    assert (burn.kind, burn.ref, burn.points, burn.doubt) == ("order", "o", 40, CODES)
    assert (adjusted.kind, adjusted.doubt) == ("adjust", "")
    say(desk, "approve", "yes", actor="eve", request="o")
    found = desk.book.settled([name_id("order", "o"), name_id("order", "j")])
    assert [found[name_id("order", ref)].doubt for ref in "oj"] == [CODES, ""]
    assert desk.book.order(name_id("order", "o")).points == 40  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM doubts", "waits, or did, for no reason"),
        ("UPDATE doubts SET codes = ''", "waits, or did, for no reason"),
        ("UPDATE doubts SET request_number = 2", "was doubtful, but waited for nobody"),
        ("UPDATE doubts SET request_number = 99", "command number 99 was doubtful, but was never"),
        ("UPDATE requests SET decided_by = 0, result = 4", "was doubtful, but waited for nobody"),
    ],
)
def test_the_audit_sees_a_doubt_that_is_not_so(tmp_path: Path, damage: str, said: str) -> None:
    path = tmp_path / "book.sqlite"
    desk = BookDesk(f"sqlite:///{path}", book=rulebook())
    desk.post([target("a", 100, "available")])
    doubt(desk, ask("order", "o", "ann", 40))
    say(desk, "order", "p", "ann", 10)
    assert desk.book.audit() == []
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    assert [problem for problem in desk.book.audit() if said in problem]
    desk.book.close()
