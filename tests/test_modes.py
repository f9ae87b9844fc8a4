"""Whatever compares a kernel with its naive twin also holds bounds-checked, and without JIT.

Compiled code reads past an array's end without a word, and promotes integers in other ways than
numpy does; each of the two modes shows what the other hides. Outside of CI the examples are others
each time (`tests/conftest.py` says how many).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.need import REPOSITORY

AT_LEAST = 300  # comparisons there are to make; there were 734 of them when this was written
MODES = {"bounds-checked": "NUMBA_BOUNDSCHECK", "without-jit": "NUMBA_DISABLE_JIT"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
def test_kernels_equal_their_twins(mode):
    if any(os.environ.get(flag) for flag in MODES.values()):
        pytest.skip("this run is in such a mode itself")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "twin and not slow", "-p", "no:cacheprovider"],
        env={**os.environ, MODES[mode]: "1", "HYPOTHESIS_PROFILE": mode},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= AT_LEAST
