"""Seeds of the suite: two hundred, in parts that run side by side."""

from __future__ import annotations

import pytest

from pipeline.run.simulate import STEPS, Stage

SEEDS = 200
FILES = 2
PARTS = 5  # of each file


def tell(file: int, part: int) -> None:
    """Tell the stories of a part; the first that fails is shown as `mirrorpoint simulate` does."""
    each = SEEDS // FILES // PARTS
    first = (file * PARTS + part) * each
    with Stage() as stage:
        for seed in range(first, first + each):
            story = stage.story_of(seed, STEPS)
            if stage.run(story) is not None:
                pytest.fail(f"mirrorpoint simulate --seed {seed}\n\n{stage.explained(story)}")
