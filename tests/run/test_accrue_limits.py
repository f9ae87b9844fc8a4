"""Caps, budgets and members over several cuts: who got what before, and what a cut leaves."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pipeline.model.batches import MemberBatch
from pipeline.model.words import Status
from pipeline.rulebook.model import Accrual, Caps, Rulebook, When
from pipeline.run.accrue import compare_with_book
from tests.run.accruing import HOLD_DAYS, World, told_at
from tests.score.drawing import member_batch
from tests.score.making import DAY_NS, NOON, a_partner, a_rulebook, an_accrual, an_id

HELD = HOLD_DAYS + 1


def sixty(**more: Any) -> Accrual:
    return an_accrual(**({"kind": "fixed", "points": 60} | more))


def rules(*accruals: Accrual, **more: Any) -> Rulebook:
    return a_rulebook(a_partner(accruals=accruals, **more))


def bought(world: World, key: str, minutes: int = 0, **changes: Any) -> None:
    """One more purchase after Ann's click."""
    at = {"event_ns": NOON + minutes * 60 * 10**9, "message_id": f"{key} {minutes}"}
    world.buy(key, **at | changes)


def points(world: World, *keys: str) -> list[int]:
    return [world.outcome(key)[2] for key in keys]


@pytest.fixture
def budget(world: World) -> World:
    world.use(rules(sixty(budget=100, budget_policy="truncate")))
    world.arrive()
    return world


def test_a_budget_goes_on_from_cut_to_cut(budget: World) -> None:
    bought(budget, "C-1")
    assert budget.cut(1).reasons == {"held": 1}
    bought(budget, "C-2", 1)
    assert budget.cut(2).whole is False
    bought(budget, "C-3", 2)
    assert budget.cut(3).reasons == {"no_points": 1}
    assert points(budget, "C-1", "C-2", "C-3") == [60, 40, 0]
    assert budget.points() == (100, 0, 0)
    assert compare_with_book(budget.store, budget.book) == []


def test_points_that_are_given_back_may_be_given_again(budget: World) -> None:
    bought(budget, "C-1")
    budget.cut(1)
    bought(budget, "C-1", status=Status.DECLINED, **told_at(9))
    budget.cut(2)
    bought(budget, "C-2", 1)
    budget.cut(3)
    assert points(budget, "C-1", "C-2") == [0, 60]


def test_a_conversion_that_is_rated_again_does_not_stand_in_its_own_way(budget: World) -> None:
    bought(budget, "C-1")
    budget.cut(1)
    bought(budget, "C-1", status=Status.ADJUSTED, amount_minor=500, **told_at(9))
    assert budget.cut(2).results == {"exists": 1}
    assert budget.cut(HELD).reasons == {"awarded": 1}
    assert budget.points() == (0, 60, 0)


def test_a_cut_that_is_run_again_gives_the_same(budget: World) -> None:
    bought(budget, "C-1")
    budget.cut(1)
    bought(budget, "C-2", 1)
    second = budget.make_cut(2)
    budget.accrue(second)
    bought(budget, "C-3", 2)
    budget.cut(3)
    before = budget.end()
    assert budget.accrue(second).results == {"exists": 1}
    assert budget.cut(repeat=second).results == {"exists": 1}
    assert budget.book.ledger_hash() == before[0]


def test_caps_are_by_member_and_by_day_of_purchase(world: World) -> None:
    world.use(rules(sixty(caps=Caps(member_day=100))))
    world.arrive()
    bought(world, "C-1")
    world.cut(1)
    bought(world, "C-2", 5)
    bought(world, "C-3", 24 * 60)
    world.cut(2)
    assert points(world, "C-1", "C-2", "C-3") == [60, 40, 60]


def test_a_budget_is_one_over_all_versions_of_its_rule(world: World) -> None:
    """Ids name a budget: a rulebook that changes the rate goes on with what is left."""
    limited = {"budget": 100, "budget_policy": "truncate"}
    world.use(rules(sixty(**limited)))
    world.arrive()
    bought(world, "C-1")
    world.cut(1)
    world.use(rules(sixty(points=70, **limited)))
    bought(world, "C-2", 1)
    report = world.cut(2)
    assert (report.whole, report.rerated) == (True, 1)
    # C-1 was bought first, so 30 were left for C-2 by the new rule; C-1 keeps what it was worth.
    assert points(world, "C-1", "C-2") == [60, 30]
    assert world.points() == (90, 0, 0)


def test_a_rule_that_gets_a_budget_counts_what_it_gave_before(world: World) -> None:
    world.use(rules(sixty()))
    world.arrive()
    bought(world, "C-1")
    world.cut(1)
    assert "parts" not in explained(world, "C-1")
    world.use(rules(sixty(budget=100, budget_policy="truncate"), commission=Fraction(9, 100)))
    world.cut(2)
    bought(world, "C-2", 1)
    report = world.cut(3)
    assert (report.whole, report.conversions) == (False, 1)
    assert points(world, "C-1", "C-2") == [60, 40]


def explained(world: World, key: str) -> dict[str, Any]:
    ((text,),) = world.store.rows(
        f"SELECT explanation FROM conversions WHERE conversion_key = toUUID('{an_id(key).hex()}')"
    )
    found: dict[str, Any] = json.loads(text)
    return found


def known(who: np.ndarray) -> MemberBatch:
    """Ann has been with us for three years."""
    assert an_id("ann") in [bytes(one) for one in who]
    row = {"subscriber_id": an_id("ann"), "since_ns": 0, "joined_ns": NOON - 1100 * DAY_NS}
    return member_batch([row])


def test_members_are_asked_for(world: World) -> None:
    tenure = an_accrual(
        id="tenure",
        kind="multiplier",
        stacking="multiply",
        factor=Fraction(6, 5),
        when=When(tenure_months_min=24),
    )
    world.use(rules(an_accrual(), tenure))
    world.arrive()
    bought(world, "C-1")
    world.cut(1)
    assert points(world, "C-1") == [50]
    bought(world, "C-2")
    world.members = known
    world.cut(2)
    assert points(world, "C-2") == [60]
    assert explained(world, "C-2")["parts"] == [["sale", 50], ["tenure", 10]]


GOLD = an_accrual(
    id="gold",
    kind="multiplier",
    stacking="multiply",
    factor=Fraction(2),
    when=When(levels=("gold",)),
)


def said(world: World, level: str, days: int, who: str = "ann", received: int = 0) -> None:
    """A member's level, so many days from the purchases on."""
    body = {"joined_ns": 0, "level": level, "products": ""}
    world.add(
        "commands",
        {"kind": "member_facts", "command_id": f"{who} {level} {days} {received}", "points": 0,
         "subscriber_id": who, "event_ns": NOON + days * DAY_NS, "received_ns": NOON + received,
         "body": json.dumps(body)},
    )  # fmt: skip


@pytest.fixture
def levels(world: World) -> World:
    world.use(rules(an_accrual(), GOLD))
    world.arrive()
    return world


@pytest.mark.parametrize(("since", "given"), [(-1, 100), (0, 100), (1, 50)])
def test_a_level_counts_from_its_date_on(levels: World, since: int, given: int) -> None:
    said(levels, "gold", since)
    bought(levels, "C-1")
    levels.cut(1)
    assert points(levels, "C-1") == [given]


def test_who_is_not_known_has_no_level(levels: World) -> None:
    said(levels, "gold", -1, who="bob")
    said(levels, "silver", -1)
    bought(levels, "C-1")
    levels.cut(1)
    assert points(levels, "C-1") == [50]


def test_a_fact_that_comes_late_rates_again_what_it_is_about(levels: World) -> None:
    said(levels, "silver", -30)
    bought(levels, "C-1")
    levels.cut(1)
    assert points(levels, "C-1") == [50]
    said(levels, "gold", 3)
    report = levels.cut(2)
    assert (report.conversions, report.whole) == (0, False), "it was bought before"
    said(levels, "gold", -2)
    said(levels, "gold", -2, who="bob")
    report = levels.cut(3)
    assert (report.conversions, report.results) == (1, {"ok": 1})
    assert points(levels, "C-1") == [100]
    assert levels.points() == (100, 0, 0)
    said(levels, "silver", -1, received=9)
    assert levels.cut(HELD).conversions == 1
    assert levels.points() == (0, 50, 0), "available at the level that it had then"
    assert compare_with_book(levels.store, levels.book) == []


def test_the_same_cut_knows_the_same_of_members(levels: World) -> None:
    bought(levels, "C-1")
    cut = levels.make_cut(1)
    said(levels, "gold", -1)  # behind the cut's position
    levels.accrue(cut)
    before = levels.end()
    levels.accrue(cut)
    assert levels.end() == before
    assert points(levels, "C-1") == [50]


def test_facts_may_arrive_in_any_order(tmp_path: Any, new_store: Any) -> None:
    hashes = []
    told = [("gold", -5, 1), ("silver", -3, 2), ("gold", -3, 3), ("silver", 2, 1)]
    for number, order in enumerate(([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1])):
        world = World(tmp_path / str(number), new_store())
        world.use(rules(an_accrual(), GOLD))
        world.arrive()
        for step, at in enumerate(order):
            level, days, received = told[at]
            said(world, level, days, received=received)
            bought(world, f"C-{at}", at)
            if step == 1:
                world.cut(1)
        world.cut(2)
        hashes.append(world.book.ledger_hash())
        assert points(world, "C-0", "C-1", "C-2", "C-3") == [100] * 4
        world.close()
    assert len(set(hashes)) == 1


def test_line_items_reach_the_rules(world: World) -> None:
    world.use(rules(an_accrual(exclude=("cards",))))
    world.arrive()
    items = '[{"category":"tea","amount":"6.00","tax":"1.00"},{"category":"cards","amount":"4.00"}]'
    bought(world, "C-1", items=items)
    world.cut(1)
    assert points(world, "C-1") == [25]
