"""Killed anywhere, run again with the same words: the hashes of a run that nobody disturbed.

In the suite on a generated day of a few thousand visits; `DAY_VISITS` in the environment makes it
larger, `CRASH_SEED` draws other random points. A failure prints the crash point, which is all that
is needed to repeat it.
"""

import json
import os
import random
import signal

import pytest

from pipeline.store.crash import CRASH_POINTS
from tests.commands import hashes, mirrorpoint, replayed
from tests.forge.generated_day import write_day

pytestmark = pytest.mark.slow

VISITS = int(os.environ.get("DAY_VISITS", "2000"))
SEED = int(os.environ.get("CRASH_SEED", "7"))
RANDOM_POINTS = 20


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    return write_day(tmp_path_factory.mktemp("day") / "case", visits=VISITS)


@pytest.fixture(scope="module")
def undisturbed(day, tmp_path_factory):
    """The report of a run that nobody disturbs, and how often it passes each crash point."""
    folder = tmp_path_factory.mktemp("undisturbed")
    passes = folder / "passes.json"
    report = replayed(
        day, state=folder / "state", env={"MIRRORPOINT_CRASH": f"count:{passes}"}, rows=512
    )
    return report, json.loads(passes.read_text())


def crash_and_go_on(day, state, point):
    env = {"MIRRORPOINT_CRASH": point}
    words = ("replay", day, "--state", state, "--json", "--rows", "512")
    killed = mirrorpoint(*words, env=env)
    assert killed.returncode == -signal.SIGKILL, (point, killed.returncode, killed.stderr[-2000:])
    return replayed(day, state=state, rows=512)


def test_the_day_passes_every_point(undisturbed):
    report, passes = undisturbed
    assert set(CRASH_POINTS) == set(passes)
    assert report["visits"] >= VISITS
    assert report["entries"] > 0


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_named_points(day, undisturbed, tmp_path, point):
    report, passes = undisturbed
    middle = max(passes[point] // 2, 1)
    again = crash_and_go_on(day, tmp_path / "state", f"{point}:{middle}")
    assert hashes(again) == hashes(report)
    assert again["entries"] == report["entries"]


@pytest.mark.parametrize("number", range(RANDOM_POINTS))
def test_random_steps(day, undisturbed, tmp_path, number):
    report, passes = undisturbed
    step = random.Random(SEED * 1000 + number).randint(1, sum(passes.values()))
    again = crash_and_go_on(day, tmp_path / "state", f"step:{step}")
    assert hashes(again) == hashes(report), f"step:{step}"
    assert again["entries"] == report["entries"]
