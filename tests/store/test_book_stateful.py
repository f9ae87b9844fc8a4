"""A book against the ledger of coins, step by step: any story, on either database.

Every story is drawn by its seed (`pipeline/run/simulation/maker.py`). After each batch the book is
asked for its answers, its balances, its lots, and whether what was issued is what was granted;
every few batches, and at the end, it audits itself. A failure shows the smallest story that fails.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.run.simulation.drive import Shelf, run_story
from pipeline.run.simulation.maker import make_story
from pipeline.run.simulation.shrink import explained
from tests.postgresql import Server

STEPS = 200
STORIES = 5  # of each part: ten parts are 10,000 steps
PARTS = 10
FIRST_SEED = 1_000_000  # other ones than `mirrorpoint simulate` has by itself


@pytest.fixture(scope="module")
def shelf() -> Iterator[Shelf]:
    """Books in memory."""
    made = Shelf()
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_book_and_coins_agree_after_every_step(shelf: Shelf, part: int) -> None:
    taken = 0
    for seed in range(FIRST_SEED + part * STORIES, FIRST_SEED + (part + 1) * STORIES):
        story = make_story(seed, STEPS)
        taken += len(story) - 1
        if shelf.run(story) is not None:
            pytest.fail(f"seed {seed}: {explained(story, shelf.run)}")
    assert taken == STORIES * STEPS


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 6))
def test_so_they_do_on_postgresql(postgresql: Server, seed: int) -> None:
    story = make_story(seed, 60)
    failure = run_story(story, postgresql.new_database())
    assert failure is None, f"seed {seed}: {failure}"


def test_a_book_in_memory_is_a_book_too() -> None:
    """`sqlite://` is on one connection, which is another way through the store."""
    story = [step for step in make_story(FIRST_SEED, 120) if step["do"] != "reopen"]
    assert run_story(story, "sqlite://") is None
