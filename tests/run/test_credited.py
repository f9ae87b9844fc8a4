"""Whose a sale is, from journal to book: other clicks, coupons, marks, and what arrives late."""

from __future__ import annotations

import json

import pytest

from pipeline.rulebook.policies import Coupon
from pipeline.run.accrue import compare_with_book
from tests.run.accruing import HOLD_DAYS
from tests.score.making import DAY_NS, NOON, a_partner, a_rulebook, an_id
from tests.store.store_rows import SECOND

HELD = HOLD_DAYS + 1
MINUTE = 60 * SECOND


def clicked(name: str, minutes: int) -> dict:
    return {"click_id": name, "visit_id": f"visit of {name}", "clicked_ns": NOON - minutes * MINUTE}


def outcome(world, key: str = "C-1") -> dict:
    (row,) = world.store.dicts(
        "SELECT click_id, subscriber_id, reason, explanation FROM conversions"
        f" WHERE conversion_key = toUUID('{an_id(key).hex()}')"
    )
    return {**row, "click_id": bytes.fromhex(row["click_id"].replace("-", ""))}


@pytest.mark.parametrize(("model", "click"), [("last", "late"), ("first", "early")])
def test_the_model_of_the_contract_names_the_click_that_is_credited(world, model, click):
    world.use(a_rulebook(a_partner(attribution=model)))
    world.add("visits", {"visit_id": "visit of click"})
    world.add("clicks", clicked("early", 90), clicked("click", 60), clicked("late", 5))
    world.buy()
    assert world.cut(HELD).reasons == {"awarded": 1}
    row = outcome(world)
    assert row["click_id"] == an_id(click)
    models = json.loads(row["explanation"])["attributions"]
    assert [parts for _, _, parts in models["shares"]] == ["2/5", "1/5", "2/5"]
    assert world.points() == (0, 50, 0)


def test_a_click_that_arrives_late_is_credited_and_moves_no_points(world):
    world.arrive()
    world.buy()
    world.cut(HELD)
    world.add("clicks", clicked("late", 5))
    assert world.cut(HELD + 1).results == {"exists": 1}
    assert outcome(world)["click_id"] == an_id("late")
    world.add(
        "clicks",
        {**clicked("after the purchase", -1)},
        {**clicked("bobs", 1), "subscriber_id": "bob"},
    )
    assert world.cut(HELD + 2).conversions == 0
    assert compare_with_book(world.store, world.book) == []


def test_a_mark_that_becomes_known_late_takes_the_claim_back(world):
    world.arrive()
    world.buy()
    world.cut(HELD)
    world.add("visits", {"version": 2, "tracker_ns": NOON - 2 * 3600 * SECOND})
    assert world.cut(HELD + 1).reasons == {"stood_down": 1}
    assert world.points() == (0, 0, 0)


def test_in_soft_mode_a_mark_after_our_click_is_enough(world):
    world.use(a_rulebook(a_partner(soft=True)))
    world.arrive()
    world.buy()
    assert world.cut(HELD).reasons == {"awarded": 1}
    later = {"visit_id": "later", "opened_ns": NOON - MINUTE, "last_ns": NOON, "mark": "awc"}
    world.add("visits", later)
    assert world.cut(HELD + 1).reasons == {"stood_down": 1}


COUPON = Coupon("ANN10", False, an_id("ann"), "")
SALE = {"click_id": "", "coupon": "ann10"}


def test_a_coupon_brings_a_sale_home_without_a_click(world):
    world.use(a_rulebook(a_partner(coupons=(COUPON,))))
    world.buy(**SALE)
    world.buy("C-2", message_id="no coupon", click_id="")
    assert world.cut(HELD).reasons == {"not_a_member": 1, "orphan": 1}
    world.add("basis", {"event_ns": NOON - DAY_NS})
    world.buy(**SALE, message_id="again")
    assert world.cut(HELD + 1).reasons == {"awarded": 1}
    assert world.points() == (0, 50, 0)
    assert outcome(world)["click_id"] == bytes(16)
    assert compare_with_book(world.store, world.book) == []


def test_an_orphan_finds_its_way_home_by_a_visit_that_arrives_late(world):
    shop = {"partner": "corner-books", "member_id": "ann", "click_id": ""}
    world.buy(**shop)
    assert world.cut(HELD).reasons == {"orphan": 1}
    assert world.cut(HELD + 1).conversions == 0
    world.add("visits", {"partner": "corner-books"})
    assert world.cut(HELD + 2).reasons == {"awarded": 1}
    assert world.points() == (0, 50, 0)
