"""Style and types are checked with everything else, so that main stays clean unasked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.need import REPOSITORY, need


def run(*arguments: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]


def test_ruff_finds_nothing():
    need("ruff")
    run("ruff", "check", "--no-cache", ".")


def test_ruff_would_format_nothing():
    need("ruff")
    run("ruff", "format", "--no-cache", "--check", ".")


@pytest.mark.slow
def test_mypy_finds_nothing(tmp_path):
    need("mypy")
    run("mypy", "--cache-dir", str(tmp_path))
