from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from pipeline.store.crash import CRASH_POINTS, Plan, read_plan
from tests.need import REPOSITORY

STEPS = """
import sys
from pipeline.store.crash import crash_point, passes
for name in sys.argv[1:]:
    crash_point(name, half=lambda name=name: print("half", name, flush=True))
    print("passed", name, flush=True)
print(sorted(passes().items()))
"""
A, B = "journal.before_write", "journal.before_fsync"


def steps(crash: str | None, *names: str) -> tuple[int, list[str]]:
    """Exit code and lines of a process that passes these points."""
    environment = {k: v for k, v in os.environ.items() if k != "MIRRORPOINT_CRASH"}
    environment |= {} if crash is None else {"MIRRORPOINT_CRASH": crash}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *names],
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines() + done.stderr.splitlines()[-1:]


def test_nothing_happens_unasked():
    code, lines = steps(None, A, B, A)
    assert code == 0
    assert lines == [f"passed {A}", f"passed {B}", f"passed {A}", f"[('{B}', 1), ('{A}', 2)]"]


@pytest.mark.parametrize(
    ("crash", "passed"),
    [(A, 0), (f"{A}:1", 0), (f"{A}:2", 2), (B, 1), ("step:1", 0), ("step:3", 2)],
)
def test_dies_where_it_was_asked_to(crash, passed):
    code, lines = steps(crash, A, B, A)
    assert code == -signal.SIGKILL
    assert len([line for line in lines if line.startswith("passed")]) == passed
    assert [line for line in lines if line.startswith("half")] == [f"half {(A, B, A)[passed]}"]


@pytest.mark.parametrize("crash", [f"{A}:3", "step:4", "journal.after_seal"])
def test_lives_where_the_pass_does_not_come(crash):
    code, lines = steps(crash, A, B, A)
    assert code == 0
    assert not [line for line in lines if line.startswith("half")]


def test_counts_the_passes(tmp_path):
    code, _ = steps(f"count:{tmp_path / 'passes'}", A, B, A)
    assert code == 0
    assert json.loads((tmp_path / "passes").read_text()) == {A: 2, B: 1}


@pytest.mark.parametrize("crash", ["journal.before_lunch", "step", "step:0", f"{A}:x", "count:"])
def test_a_wrong_name_is_an_error(crash):
    code, lines = steps(crash, A)
    assert code == 1
    assert lines[-1].startswith(f"ValueError: MIRRORPOINT_CRASH={crash}: ")


def test_an_unlisted_point_is_a_bug():
    code, lines = steps(None, "journal.before_lunch")
    assert code == 1
    assert lines[-1] == "AssertionError: journal.before_lunch"


def test_plans():
    assert read_plan("") == Plan(None, 0)
    assert read_plan("step:250") == Plan(None, 250)
    assert read_plan("accrue.after_cut") == Plan("accrue.after_cut", 1)
    assert read_plan("accrue.after_cut:7") == Plan("accrue.after_cut", 7)


def test_every_listed_point_is_passed_somewhere():
    """A point that no code passes would be a crash test that never crashes."""
    text = "\n".join(path.read_text() for path in (REPOSITORY / "pipeline").rglob("*.py"))
    used = set(re.findall(r'crash_point\(\s*"([a-z_.]+)"', text))
    assert used <= set(CRASH_POINTS)
    assert len(CRASH_POINTS) == len(set(CRASH_POINTS))
    journal = {name for name in CRASH_POINTS if name.startswith("journal.")}
    assert journal <= used
