"""The whole path: crashes come, the twin's arithmetic is that of accrual, and mistakes are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from pipeline.run import accrue
from pipeline.run.simulate import Stage
from pipeline.run.simulation.path import PathDriver
from pipeline.run.simulation.path_maker import POINTS, make_path_story
from pipeline.run.simulation.story import Story

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
    assert kinds["buy"] >= 8 < kinds["command"] + kinds["publish"] + 4
    assert 2 <= kinds["cut"] <= 5


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
