"""Accrual in blocks: the same as at once, also when it is killed between two of them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.words import Status
from pipeline.run import accrue, rating
from pipeline.store import projection
from tests.run.accruing import World, play, told_at
from tests.run.test_accrue_limits import bought, points, rules, sixty
from tests.score.making import an_accrual

ROWS = 100
MODULES = (accrue, projection, rating)


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES:
        monkeypatch.setattr(module, "BLOCK_ROWS", ROWS)


def played(world: World) -> list[Any]:
    reports = [world.accrue(cut) for cut in play(world)]
    return [(r.conversions, r.results, r.reasons, r.orders, r.rerated) for r in reports]


def test_blocks_come_to_the_same_as_one(
    world: World, tmp_path: Any, new_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = played(world), world.end()
    for module in MODULES:
        monkeypatch.setattr(module, "BLOCK_ROWS", ROWS)
    other = World(tmp_path / "other", new_store())
    assert (played(other), other.end()) == at_once
    ((segments,),) = other.store.rows("SELECT uniqExact(cut, segment) FROM conversions_log")
    assert segments > 12
    other.close()


@pytest.mark.usefixtures("in_blocks")
def test_a_job_that_stops_between_two_blocks_is_run_again(
    world: World, tmp_path: Any, new_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = World(tmp_path / "whole", new_store())
    played(whole)
    first, *rest = play(world)
    real, told = type(world.store).deliver_conversions, []

    def stops(self: Any, *args: Any) -> None:
        told.append(args[-1])
        if len(told) == 4:
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(type(world.store), "deliver_conversions", stops)
    with pytest.raises(KeyboardInterrupt):
        world.accrue(first)
    assert told == [0, ROWS, 2 * ROWS, 3 * ROWS]
    monkeypatch.setattr(type(world.store), "deliver_conversions", real)
    for cut in (first, *rest):
        world.accrue(cut)
    assert world.book.ledger_hash() == whole.book.ledger_hash()
    kept = "SELECT conversion_key, cut, state, points, row_hash FROM conversions_log ORDER BY ALL"
    assert world.store.rows(kept) == whole.store.rows(kept)
    whole.close()


@pytest.mark.usefixtures("in_blocks")
def test_a_budget_is_given_out_as_if_there_were_no_blocks(world: World) -> None:
    world.use(rules(sixty(budget=60 * 150, budget_policy="truncate")))
    world.arrive()
    for number in range(250):
        bought(world, f"C-{number}", number)
    world.cut(1)
    assert points(world, "C-149", "C-150") == [60, 0]
    ((total,),) = world.store.rows("SELECT sum(points) FROM conversions")
    assert int(total) == 60 * 150


@pytest.mark.usefixtures("in_blocks")
def test_what_other_rules_pinned_is_rated_again_in_its_block(world: World) -> None:
    world.arrive()
    for number in range(250):
        bought(world, f"C-{number}", number)
    world.cut(1)
    world.use(rules(an_accrual(id="other")))
    for number in range(250):
        more = {"status": Status.ADJUSTED, "amount_minor": 2000, "message_id": f"again {number}"}
        bought(world, f"C-{number}", number, **{**told_at(9), **more})
    report = world.cut(2)
    assert report.rerated == 250
    assert points(world, "C-0", "C-249") == [100, 100]
    assert world.book.audit() == []
