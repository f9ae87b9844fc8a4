"""Fixtures and settings that every test may use."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import need as needs

# Files run side by side, each in one process. These begin first, the longest before the others: one
# that began last would run alone at the end, with nothing to do for the other processors.
LONG = (
    "tests/sim/test_crash",
    "tests/packaging/test_installed",
    "tests/modes/",
    "tests/run/test_accrue",
    "tests/run/test_watch",
    "tests/run/",
    "tests/fuzz/",
    "tests/privacy/",
    "tests/properties/",
    "tests/bench/test_check_wire",
    "tests/store/test_book",
    "tests/tidy/test_style",
)

# Twins of plain Python and of SQL: another mode of the compiler changes nothing of what they show.
WITHOUT_KERNELS = ("tests.naive.ledger", "tests.naive.folds")

# `ci` draws the same examples each time, so that a red build can be run again; `dev` explores.
hypothesis.settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, max_examples=60, print_blob=True
)
hypothesis.settings.register_profile("dev", deadline=None, max_examples=60, print_blob=True)
# For a run in another mode of the compiler; without it each example takes a hundred times as long.
for name, examples in (("bounds-checked", 50), ("without-jit", 10)):
    hypothesis.settings.register_profile(
        name, derandomize=needs.in_ci(), deadline=None, database=None, max_examples=examples
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
    items.sort(key=lambda item: place_of(item.nodeid))


def place_of(nodeid: str) -> int:
    """The place of a test's file in the order in which files begin."""
    return next((n for n, part in enumerate(LONG) if nodeid.startswith(part)), len(LONG))


def uses_twins(module: object, through: bool = True) -> bool:
    """Does a test module import a kernel's twin, or (`through`) from another one that does?

    The stories of a stage are compared by a function that stands beside the tests of a kernel.
    """
    for value in vars(module).values() if module else ():
        name = getattr(value, "__module__", None) or getattr(value, "__name__", None)
        if not isinstance(name, str) or not name.startswith("tests."):
            continue
        if name.startswith("tests.naive"):
            if name in WITHOUT_KERNELS:
                continue
            return True
        helper = sys.modules.get(name)
        tells = through and helper is not module and ".test_" in name
        if tells and uses_twins(helper, through=False):
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
