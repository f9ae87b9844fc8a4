"""Commands from batches: every column arrives, bodies say what they say, and content is compared."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.commands import OF_ORDERS, OF_REQUESTS, SPENDING, commands_of, made
from pipeline.ledger.requests import POSTED
from pipeline.model.columns import TextColumn
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.words import BOOK_COMMANDS
from tests.ledger.asking import ask
from tests.ledger.stories import EVENT_NS, name_id, order_batch

ANN = name_id("member", "ann")


def plain(body: str = "{}", **changed: Any) -> Any:
    """A command; `changed` are columns of it."""
    columns: dict[str, Any] = {
        "command_id": name_id("order", "o1"), "kind": "order", "ref": "o1", "subscriber_id": ANN,
        "points": 20, "event_ns": EVENT_NS, "body": body, "actor": "ann",
        "role": "member",
    }  # fmt: skip
    return made(**columns | changed)


def test_a_batch_and_its_rows_say_the_same() -> None:
    body = '{"redemption": "gift"}'
    (command,) = commands_of(order_batch([("o1", "ann", 20)], body=body))
    assert command == plain(body)
    (other,) = commands_of(ask("adjust", "j", "ann", -7, 5, "bob", "agent", "east", reason="x\0y"))
    assert (other.kind, other.points, other.event_ns) == ("adjust", -7, 5)
    assert (other.actor, other.role, other.scope) == ("bob", "agent", "east")
    assert other.text("reason") == "x\ufffdy", "no text holds what no database takes"
    assert commands_of(order_batch([])) == []


def test_only_kinds_that_the_book_knows() -> None:
    batch = order_batch([("o1", "ann", 20)]).with_columns(kind=TextColumn.of(["erase"]))
    with pytest.raises(ValueError, match="the command erase"):
        commands_of(batch)
    assert set(POSTED) == set(BOOK_COMMANDS)
    assert set(BOOK_COMMANDS) >= SPENDING | OF_ORDERS | OF_REQUESTS


def test_an_order_says_where_its_points_go() -> None:
    body = (
        '{"redemption": "gift", "region": "south", "quantity": 2, "order": "' + id_text(ANN) + '"}'
    )
    command = plain(body)
    assert (command.text("redemption"), command.text("region")) == ("gift", "south")
    assert (command.number("quantity", 1), command.id("order")) == (2, ANN)


@pytest.mark.parametrize("body", ["", "{}", "[1]", "no JSON", "7", "null", "[" * 100_000])
def test_a_body_that_says_nothing_has_the_defaults(body: str) -> None:
    command = plain(body)
    assert command.said == {}
    assert (command.text("redemption", "service"), command.text("payee")) == ("service", "")
    assert (command.number("quantity", 1), command.id("order")) == (1, NO_ID)


@pytest.mark.parametrize(
    ("value", "text", "number", "identifier"),
    [
        (None, "default", 9, NO_ID),
        (5, "5", 5, NO_ID),
        (True, "True", 9, NO_ID),
        (1.5, "1.5", 9, NO_ID),
        (2**62, str(2**62), 2**62, NO_ID),
        (2**62 + 1, str(2**62 + 1), 9, NO_ID),
        (-(2**62), str(-(2**62)), -(2**62), NO_ID),
        ("7", "7", 9, NO_ID),
        ("", "", 9, NO_ID),
        (id_text(ANN), id_text(ANN), 9, ANN),
        (["x"], "['x']", 9, NO_ID),
    ],
)
def test_values_of_another_kind_are_the_default(
    value: Any, text: str, number: int, identifier: bytes
) -> None:
    command = plain(json.dumps({"it": value}))
    assert command.text("it", "default") == text
    assert command.number("it", 9) == number
    assert command.id("it") == identifier


@pytest.mark.parametrize(
    "changed",
    [{"kind": "reserve"}, {"subscriber_id": NO_ID}, {"points": 21}, {"points": -20},
     {"body": '{"item": "cup"}'}],
)  # fmt: skip
def test_what_makes_another_command_of_it(changed: dict) -> None:
    assert plain(**changed).content != plain().content


@pytest.mark.parametrize(
    "changed",
    [{"ref": "o2"}, {"actor": "bob"}, {"role": "x"}, {"scope": "x"}, {"event_ns": 1},
     {"command_id": NO_ID}, {"body": ""}, {"body": "[]"}],
)  # fmt: skip
def test_what_may_differ_when_it_is_asked_again(changed: dict) -> None:
    """Who retries does so later, and perhaps through another desk."""
    assert plain(**changed).content == plain().content


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=4))
def test_the_order_within_a_body_does_not_count(said: dict[str, Any]) -> None:
    turned = dict(reversed(said.items()))
    one, other = plain(json.dumps(said)), plain(json.dumps(turned, ensure_ascii=False, indent=1))
    assert one.content == other.content
    assert (one.content == plain().content) == (said == {})


@given(st.binary(max_size=40))
def test_any_bytes_are_a_body(raw: bytes) -> None:
    batch = order_batch([("o1", "ann", 20)]).with_columns(body=TextColumn.of([raw]))
    (command,) = commands_of(batch)
    assert command.text("redemption", "service")
    assert isinstance(command.number("quantity"), int)
