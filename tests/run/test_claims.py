"""Claims: put on record once, matched when the message comes, closed by points or by a person."""

from __future__ import annotations

import json

import pytest

from pipeline.model.identifiers import id_text
from pipeline.model.words import ParkReason, Status
from pipeline.run.claims import claims
from pipeline.run.failures import RequestError
from pipeline.run.requests import answer
from tests.run.accruing import HOLD_DAYS, RULES
from tests.run.test_review import Desk
from tests.score.making import NOON, an_id
from tests.store.store_rows import SECOND

HELD = HOLD_DAYS + 1
USUAL = {
    "member": id_text(an_id("ann")),
    "partner": "acme-shop",
    "order": "R-1001",
    "at": "2026-03-01T12:00:00Z",
    "amount": "10.00",
}


@pytest.fixture
def desk(tmp_path):
    found = Desk(tmp_path, RULES)
    found.add("basis", {}, {"subscriber_id": "bob"})
    found.add("visits", {"last_ns": NOON - 60 * SECOND})
    found.state.deliver()
    yield found
    found.state.close()


def claim(desk: Desk, **changes) -> dict:
    said = {"do": "job", "name": "claim", "actor": "eve", "json": True, **USUAL, **changes}
    return json.loads(answer(desk.state, said))


def stands(desk: Desk) -> tuple[str, str]:
    desk.state.deliver()
    (item,) = claims(desk.state)
    return item["state"], item["said"]


def test_a_claim_is_open_until_a_message_tells_of_its_order(desk):
    made = claim(desk)
    assert stands(desk) == ("open", "no message of the partner tells of it")
    desk.buy("elsewhere", partner="bolt-mobile", order_ref="R-1001")
    desk.buy("another", order_ref="R-1002")
    assert stands(desk)[0] == "open"
    desk.buy("parked", order_ref="R-1001", parked=ParkReason.BAD_AMOUNT)
    assert stands(desk) == ("open", "its message is parked: bad_amount")
    desk.buy(order_ref="R-1001")
    assert stands(desk) == ("answered", "its message came; the next cut will rate it")
    desk.cut(1)
    assert stands(desk) == ("answered", "held, 50 points")
    text = desk.ask()
    assert "acme-shop order R-1001: 10.00 EUR" in text
    assert "claim answered since 2" in text
    assert made["claim"] in text
    assert all(len(line) <= 80 for line in text.splitlines())
    desk.cut(HELD)
    assert stands(desk) == ("closed", "awarded, 50 points")
    assert desk.ask() == "nothing waits for a person\n"
    assert json.loads(desk.ask(json=True)) == []


def test_a_message_that_came_before_answers_at_once(desk):
    desk.buy(order_ref="R-1001", status=Status.DECLINED)
    desk.cut(1)
    assert claim(desk)["said"] == "declined, 0 points"


def test_an_order_may_be_named_by_the_conversions_id(desk):
    desk.buy()
    desk.cut(HELD)
    made = claim(desk, order="C-1")
    assert (made["state"], made["conversions"]) == ("closed", [id_text(an_id("C-1"))])


def test_what_is_another_members_does_not_close_a_claim(desk):
    desk.buy(click={"subscriber_id": "bob"}, order_ref="R-1001")
    desk.cut(HELD)
    assert claim(desk)["said"] == "it is another member's: awarded"
    assert stands(desk)[0] == "answered"


def test_the_same_order_claimed_again_is_one_claim(desk):
    first, again = claim(desk), claim(desk, amount="12.00")
    assert first == again
    assert claim(desk, member=id_text(an_id("bob")))["claim"] != first["claim"]
    assert desk.state.journal.rows("commands") == 2


def test_a_person_closes_a_claim_and_says_why(desk):
    made = claim(desk)
    closed = desk.ask(verdict="close", claim=made["claim"], reason="the shop cancelled it")
    assert closed == f"claim {made['claim']}: closed: the shop cancelled it\n"
    assert desk.ask() == "nothing waits for a person\n"
    with pytest.raises(RequestError, match="is closed: the shop cancelled it"):
        desk.ask(verdict="close", claim=made["claim"], reason="again")
    with pytest.raises(RequestError, match="no claim has the id"):
        desk.ask(verdict="close", claim=id_text(an_id("none")), reason="so")


def test_a_reference_that_tells_of_a_person_is_kept_as_a_hash(desk):
    made = claim(desk, order="order of ann@shop.example")
    assert made["order"].startswith("hash:")
    (row,) = desk.state.clickhouse.dicts("SELECT body, actor, event_ns FROM commands_log")
    assert "ann@" not in row["body"]
    assert (row["actor"], int(row["event_ns"])) == ("eve", NOON)


WRONG = {
    "--member": {"member": id_text(an_id("stranger"))},
    "--member 'ann'": {"member": "ann"},
    "--partner": {"partner": "no-shop"},
    "--at": {"at": "yesterday"},
    "ahead of the clock": {"at": "2199-01-01T00:00:00Z"},
    "--amount": {"amount": "10.001"},
    "--amount '0'": {"amount": "0"},
    "--order": {"order": "a\nb"},
}


def test_a_claim_that_cannot_be_is_refused(desk):
    for said, change in WRONG.items():
        with pytest.raises(RequestError, match=said):
            claim(desk, **change)
    with pytest.raises(RequestError, match="put on record"):
        answer(desk.state, {"do": "job", "name": "claim", "actor": "eve", **USUAL}, True)
    assert desk.state.journal.rows("commands") == 0
