"""What a role and a scope do not cover is refused by name, and changes nothing."""

from __future__ import annotations

import pytest

from pipeline.model.words import BOOK_COMMANDS
from tests.ledger.asking import ask, asked, say
from tests.ledger.stories import BookDesk, Desk, PureDesk, target


@pytest.fixture(params=[PureDesk, BookDesk])
def desk(request: pytest.FixtureRequest) -> Desk:
    """Ann has 100 points, and two orders that are held: one of the north, one that a shop is paid."""
    found: Desk = request.param()
    found.post([target("a", 100, "available")])
    assert say(found, "reserve", "n", "ann", 10, region="north") == "ok"
    assert say(found, "reserve", "s", "ann", 20, payee="acme-shop") == "ok"
    return found


@pytest.mark.parametrize("kind", BOOK_COMMANDS)
def test_nobody_does_anything_without_a_role(desk: Desk, kind: str) -> None:
    before = desk.points("ann")
    wanted = ask(kind, "x", "ann", 5, role="", reason="why", order="n", request="y", item="cup")
    assert asked(desk, wanted) == ["not_allowed"]
    assert desk.points("ann") == before


def test_a_refusal_is_final_for_its_reference(desk: Desk) -> None:
    assert say(desk, "adjust", "j", "ann", 5, role="member", reason="x") == "not_allowed"
    assert say(desk, "adjust", "j", "ann", 5, role="admin", reason="x") == "not_allowed"
    assert say(desk, "adjust", "k", "ann", 5, role="call_centre", reason="x") == "awaiting_approval"


def test_reservations_do_not_end_by_what_is_denied(desk: Desk) -> None:
    late = "2027-03-01"
    assert say(desk, "order", "o", "ann", 1, late, role="analyst") == "not_allowed"
    assert desk.points("ann") == (0, 70, 30, 0)


def test_a_partner_ends_its_own_orders_and_sees_no_others(desk: Desk) -> None:
    own = {"role": "partner", "scope": "partner:acme-shop"}
    assert say(desk, "commit", "1", order="n", **own) == "unknown_order"
    assert say(desk, "commit", "2", order="none", **own) == "unknown_order"
    assert say(desk, "commit", "3", order="s", **own) == "ok"
    assert say(desk, "refund", "4", points=5, order="s", **own) == "ok"
    assert say(desk, "adjust", "5", "ann", 5, reason="x", **own) == "not_allowed"
    assert say(desk, "release", "6", order="n", role="partner") == "not_allowed"
    other = {"role": "partner", "scope": "region:north"}
    assert say(desk, "release", "7", order="n", **other) == "not_allowed"


def test_a_region_is_where_its_people_work(desk: Desk) -> None:
    north = {"role": "call_centre", "scope": "region:north"}
    assert say(desk, "order", "1", "ann", 1, region="north", **north) == "ok"
    assert say(desk, "order", "2", "ann", 1, region="south", **north) == "not_allowed"
    assert say(desk, "order", "3", "ann", 1, **north) == "not_allowed"
    assert say(desk, "release", "4", order="s", **north) == "unknown_order"
    assert say(desk, "release", "5", order="n", **north) == "ok"
    # Members belong to no region yet, so nobody of a region gives or freezes points.
    assert say(desk, "adjust", "6", "ann", 1, reason="x", **north) == "not_allowed"
    assert say(desk, "freeze", "7", "ann", **north) == "not_allowed"


@pytest.mark.parametrize("scope", ["city:x", "group:y", "planet:mars", "region:"])
def test_a_scope_that_nothing_tells_of_allows_nothing(desk: Desk, scope: str) -> None:
    assert say(desk, "order", "1", "ann", 1, scope=scope) == "not_allowed"
