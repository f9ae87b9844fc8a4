"""What a test needs from the machine: there, or skipped with a reason, or failed where CI is true.

A laptop without tshark should still run everything else, and say what it left out. In CI the same
absence is a failure, because there nobody reads the list of skipped tests.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def in_ci() -> bool:
    """Is this a CI run, where nothing may be missing?"""
    return os.environ.get("CI", "").lower() == "true"


def missing(reason: str) -> None:
    """Skip the running test with `reason`; fail it in CI."""
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def need(name: str) -> str:
    """A program on the PATH (returns its path) or an importable module (returns its name)."""
    program = shutil.which(name)
    if program:
        return program
    if importlib.util.find_spec(name) is not None:
        return name
    missing(
        f"needs {name}, which is no program on the PATH and no module (`make test` installs it)"
    )
    raise AssertionError("not reached")


def corpus() -> Path:
    """The folder of real captures that stays beside the repository.

    Skips where it is absent, in CI too: it cannot be installed. Where MIRRORPOINT_CORPUS names a
    folder that is none, somebody meant the tests to run, and CI fails.
    """
    named = os.environ.get("MIRRORPOINT_CORPUS")
    folder = Path(named or REPOSITORY.parent / "shared" / "corpus")
    if (folder / "packets").is_dir():
        return folder
    if named:
        missing(f"MIRRORPOINT_CORPUS is {named}, which has no folder 'packets'")
    pytest.skip("the corpus of real captures is not beside this checkout (MIRRORPOINT_CORPUS)")
