"""Fixtures and settings that every test may use."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import need as needs

# Files run side by side, each in one process; a long one that began last would run alone at the end.
LONG = ("tests/sim/", "tests/properties/", "tests/packaging/test_installed", "tests/test_modes")

# `ci` draws the same examples each time, so that a red build can be run again; `dev` explores.
hypothesis.settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, max_examples=60, print_blob=True
)
hypothesis.settings.register_profile("dev", deadline=None, max_examples=60, print_blob=True)
hypothesis.settings.register_profile(
    "small", derandomize=True, deadline=None, database=None, max_examples=10
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if needs.in_ci() else "dev")
)


def pytest_configure(config: pytest.Config) -> None:
    """Tests must not write into the checkout or meet the state of whoever runs them."""
    for name in [n for n in os.environ if n.startswith("MIRRORPOINT_")]:
        if name not in ("MIRRORPOINT_CACHE", "MIRRORPOINT_CORPUS"):
            del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what compares a kernel with its twin; begin with the files that take longest."""
    for item in items:
        if uses_twins(getattr(item, "module", None)):
            item.add_marker("twin")
    items.sort(key=lambda item: not any(part in item.nodeid for part in LONG))


def uses_twins(module: object) -> bool:
    """Does a test module import anything from `tests/naive`?"""
    for value in vars(module).values() if module else ():
        name = getattr(value, "__module__", None) or getattr(value, "__name__", None)
        if isinstance(name, str) and name.startswith("tests.naive"):
            return True
    return False


@pytest.fixture
def need():  # type: ignore[no-untyped-def]
    """`need("tshark")`: the program or module, or a skip with a reason, or a failure in CI."""
    return needs.need


@pytest.fixture
def corpus() -> Path:
    """The folder of real captures; skips where it is absent."""
    return needs.corpus()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A path for a state folder that does not exist yet."""
    return tmp_path / "state"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for a Unix socket's name (108 bytes in all)."""
    folder = Path(tempfile.mkdtemp(prefix="mp-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
