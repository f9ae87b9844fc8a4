"""The whole path: crashes come, the twin's arithmetic is that of accrual, and mistakes are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from pipeline.model.stage import END_OF_TIME
from pipeline.run import accrue, rerate, state
from pipeline.run.simulate import Stage
from pipeline.run.simulation.path import PathDriver, PathTwin, Proposal
from pipeline.run.simulation.path_maker import POINTS, make_path_story
from pipeline.run.simulation.story import Story
from pipeline.store.book_rules import Publication, in_force

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as made:
        yield made


def crashing_everywhere(seed: int) -> Story:
    """A story in which every cut is interrupted, each at another place."""
    story = [step for step in make_path_story(seed, 50) if step["do"] != "crash"]
    found: Story = []
    for step in story:
        if step["do"] == "cut":
            point = POINTS[(seed + len(found)) % len(POINTS)]
            found.append({**step, "do": "crash", "point": point, "nth": 1})
        found.append(step)
    return found


def test_a_seed_is_a_story() -> None:
    assert make_path_story(3, 40) == make_path_story(3, 40)
    story = make_path_story(3, 60)
    assert story[-1]["do"] == "cut"
    kinds = Counter(step["do"] for step in story)
    assert kinds["buy"] >= 8 < kinds["command"] + 4
    assert 2 <= kinds["cut"] <= 5


def test_stories_publish_and_re_rate() -> None:
    """Rules come into force, and what was bought before is rated again by them."""
    found: Counter[str] = Counter()
    for seed in range(30):
        story = make_path_story(seed, 60)
        twin = PathTwin(story[0], "simulated")
        kinds: set[str] = set()
        command = twin.command

        def note(now_ns: int, command: Any = command) -> list[Proposal]:
            again: list[Proposal] = command(now_ns)
            found["re-rated"] += sum(len(each.worth) for each in again)
            return again

        twin.command = note  # type: ignore[method-assign]
        number = 0
        for step in story[1:]:
            if step["do"] in ("buy", "command"):
                twin.hear(step)
                kinds.add(step.get("kind", ""))
            elif step["do"] == "cut":
                number += 1
                twin.cut(step["now"], number)
        found["changed"] += twin.number != 0
        found["approved"] += len(twin.approved)
    assert found["re-rated"] > 60, found
    assert found["changed"] > 8 < found["approved"], found


def test_crashes_leave_no_trace(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    places: set[str] = set()
    before = PathDriver.crashed

    def note(driver: PathDriver, point: str) -> None:
        places.add(point)
        before(driver, point)

    monkeypatch.setattr(PathDriver, "crashed", note)
    for seed in range(100, 104):
        story = crashing_everywhere(seed)
        failure = stage.run(story)
        assert failure is None, f"seed {seed}: {failure}"
    assert len(places) >= 6, places


def test_a_job_that_forgets_the_due_is_noticed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accrue._Job, "_post_due", lambda _: accrue.Due(0, 0))
    assert any(stage.run(make_path_story(seed, 50)) is not None for seed in range(6))


def test_a_re_rating_that_books_what_changed_meanwhile_is_noticed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        rerate.Approved, "agrees", lambda _, targets: np.ones(len(targets), np.bool_)
    )
    assert any(stage.run(make_path_story(seed, 60)) is not None for seed in range(12))


def test_rules_that_come_before_their_time_are_noticed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(found: Iterable[Publication], _: int) -> Publication | None:
        return in_force(found, END_OF_TIME)

    monkeypatch.setattr(state, "in_force", at_once)
    assert any(stage.run(make_path_story(seed, 60)) is not None for seed in range(12))
