"""The comparison looks at everything that it says it does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.run.simulation.drive import Difference, Driver, Shelf, run_story
from pipeline.run.simulation.maker import make_story
from pipeline.run.simulation.story import Story, batches


@pytest.fixture(scope="module")
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    made.close()


@pytest.fixture
def story() -> Story:
    return [step for step in make_story(5, 40) if step["do"] != "due"]


@pytest.fixture
def driver(shelf: Shelf, story: Story) -> Iterator[Driver]:
    made = Driver(story[0], shelf.new_url())
    for steps in batches(story[1:]):
        made.take(steps)
    made.compare()
    yield made
    made.close()


def test_a_coin_less_is_noticed(driver: Driver) -> None:
    lot = next(
        lot for purse in driver.twin.ledger.purses.values() for lot in purse.lots
        if lot.at("available")
    )  # fmt: skip
    lot.coins.remove(lot.at("available")[0])
    with pytest.raises(Difference, match="points are issued"):
        driver.compare()


def test_a_coin_elsewhere_is_noticed(driver: Driver) -> None:
    lot = next(
        lot for purse in driver.twin.ledger.purses.values() for lot in purse.lots
        if lot.at("available")
    )  # fmt: skip
    lot.at("available")[0].put("forfeited")
    with pytest.raises(Difference, match="lots of"):
        driver.compare(everybody=False)
    driver.lots[lot.member.member] = driver.twin.ledger.lot_rows(lot.member.member)
    with pytest.raises(Difference, match="balances"):
        driver.compare(everybody=False)


def test_a_date_is_noticed(driver: Driver) -> None:
    lot = next(
        lot for purse in driver.twin.ledger.purses.values() for lot in purse.lots
        if lot.at("available")
    )  # fmt: skip
    lot.expires_ns -= 1
    with pytest.raises(Difference, match="lots of"):
        driver.compare()


def test_money_is_noticed(driver: Driver) -> None:
    key, target = next((k, t) for k, t in driver.twin.ledger.taken.items() if t.cost_minor)
    driver.twin.ledger.taken[key] = target._replace(cost_minor=target.cost_minor + 1)
    with pytest.raises(Difference, match="balances"):
        driver.compare()


def test_an_answer_is_noticed(shelf: Shelf, story: Story) -> None:
    driver = Driver(story[0], shelf.new_url())
    driver.twin.ledger.target(driver.twin.target(story[1]))
    with pytest.raises(Difference, match="the answer to c1: the book has ok, the coins exists"):
        driver.take([story[1]])
    driver.close()


def test_an_exception_is_a_failure_and_tells_where(shelf: Shelf, story: Story) -> None:
    story[4] = {**story[4], "do": "target", "cut": 99, "state": "nonsense"}
    failure = run_story(story[:5], shelf.new_url())
    assert failure is not None
    assert (failure.step, failure.way) == (4, "KeyError")


def test_books_are_thrown_away(shelf: Shelf) -> None:
    first, second = shelf.new_url(), shelf.new_url()
    assert first != second
    assert run_story(make_story(1, 10), second) is None
