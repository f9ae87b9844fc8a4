"""Whatever compares a kernel with its naive twin also holds bounds-checked, and without JIT.

Compiled code reads past an array's end without a word, and promotes integers in other ways than
numpy does; each of the two modes shows what the other hides. Outside of CI the examples are others
each time (`tests/conftest.py` says how many).

Each mode is a setting of the compiler's that holds for a whole process, so the tests run again in
one of their own. A mode has two parts, and each part a file of its own, since a file's tests go to
one process of xdist: together they take minutes. What was compiled bounds-checked is kept on the
disk, where the other part finds it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.need import REPOSITORY

MODES = {"bounds-checked": "NUMBA_BOUNDSCHECK", "without-jit": "NUMBA_DISABLE_JIT"}
# What pytest is told, and how many comparisons there are to make at least: 955 and 700 of them when
# this was written. A folder that is new is in the second part.
PARTS = {
    "classify": (["tests/classify"], 700),
    "all else": (["tests", "--ignore=tests/classify"], 550),
}


def hold_again(mode: str, part: str) -> None:
    """Run the comparisons of a part in a mode; fails with what pytest said."""
    if any(os.environ.get(flag) for flag in MODES.values()):
        pytest.skip("this run is in such a mode itself")
    where, at_least = PARTS[part]
    words = ["-m", "pytest", "-q", "-m", "twin and not slow", "-p", "no:cacheprovider", *where]
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, MODES[mode]: "1", "HYPOTHESIS_PROFILE": mode},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= at_least
