"""What we depend on is used, named with its reason, and locked by hash without addresses."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib

import pytest
from packaging.markers import Marker

from tests.need import REPOSITORY
from tests.tidy.sources import imported, modules, short

LOCKS = ("build", "run", "test", "lock")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())

# Distributions whose import name is another one.
IMPORT_NAME = {
    "google-crc32c": "google_crc32c",
    "pytest-timeout": "pytest_timeout",
    "sqlalchemy": "sqlalchemy",
}

# Used without an import of ours: by pytest, on the command line, or by the build.
NOT_IMPORTED = {"pytest-timeout", "pytest-xdist", "ruff", "mypy", "hatchling", "editables"}
LOADED_BY_OTHERS = {"llvmlite", "psycopg"}  # by numba, by sqlalchemy


def name_of(requirement: str) -> str:
    """The name a requirement starts with."""
    found = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert found, requirement
    return found[0].lower()


def import_name(distribution: str) -> str:
    return IMPORT_NAME.get(distribution, distribution.replace("-", "_"))


def third_party(folder: str) -> dict[str, str]:
    """Every imported package that is neither Python's nor ours, with one place that imports it."""
    ours = {"pipeline", "tests", "__future__"}
    return {
        root: f"{short(path)}:{line}"
        for path in modules(REPOSITORY / folder)
        for line, name in imported(path)
        if (root := name.split(".")[0]) not in sys.stdlib_module_names and root not in ours
    }


RUN = {name_of(r) for r in PROJECT["project"]["dependencies"]}
TEST = {name_of(r) for r in PROJECT["dependency-groups"]["test"] if isinstance(r, str)}


def test_the_package_imports_only_what_it_declares():
    declared = {import_name(d) for d in RUN}
    undeclared = {n: where for n, where in third_party("pipeline").items() if n not in declared}
    assert not undeclared, undeclared


def test_the_tests_import_only_what_is_declared():
    declared = {import_name(d) for d in RUN | TEST}
    undeclared = {n: where for n, where in third_party("tests").items() if n not in declared}
    assert not undeclared, undeclared


def test_everything_declared_has_a_real_job():
    used = set(third_party("pipeline"))
    idle = {d for d in RUN - LOADED_BY_OTHERS if import_name(d) not in used}
    assert not idle, f"declared, but no module imports it: {sorted(idle)}"
    used |= set(third_party("tests"))
    idle = {d for d in TEST - NOT_IMPORTED if import_name(d) not in used}
    assert not idle, f"declared for the tests, but none imports it: {sorted(idle)}"


def test_every_requirement_says_why_it_is_there():
    lines = (REPOSITORY / "pyproject.toml").read_text().splitlines()
    bare = [
        line
        for line in lines
        if re.match(r'  "[\w.-]+(\[\w+\])?[><=~]*[\d.,<>=]*",', line) and "#" not in line
    ]
    assert not bare, bare


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_and_hash_everything(name):
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text()
    entries = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)(.*?)(?=^\S|\Z)", text, re.M | re.S)
    assert entries
    assert not [n for n, _, rest in entries if "--hash=sha256:" not in rest]
    pinned = {n for n, _, _ in entries}
    starts = {line.split("==")[0] for line in text.splitlines() if line and line[0].isalnum()}
    assert starts == pinned, "a line that pins nothing"
    assert "://" not in text


def test_locks_hold_everything_declared():
    pinned = {
        name: set(
            re.findall(
                r"^([\w.-]+)==", (REPOSITORY / "requirements" / f"{name}.txt").read_text(), re.M
            )
        )
        for name in LOCKS
    }
    assert pinned["run"] >= RUN
    assert pinned["test"] >= RUN | TEST


def locked(name: str) -> list[tuple[str, str, str]]:
    """Package, version and marker (empty where there is none) of every line of a lock."""
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text()
    return re.findall(r"^([\w.-]+)==([^\s;\\]+)(?: *; *(.*?))? *\\?$", text, re.M)


def test_the_locks_agree():
    """A package may be there in two versions, but only under two markers."""
    versions: dict[tuple[str, str], set[str]] = {}
    for name in LOCKS:
        for package, version, marker in locked(name):
            versions.setdefault((package, marker), set()).add(version)
    assert len(versions) > 20
    assert not {p: v for p, v in versions.items() if len(v) > 1}


def test_the_environment_is_the_locked_one():
    """What is tested is what the lock says, or the lock proves nothing."""
    here = {
        package: version
        for package, version, marker in locked("run")
        if not marker or Marker(marker).evaluate()
    }
    assert here.keys() >= RUN
    other = {
        package: f"{installed}, locked {version}"
        for package, version in here.items()
        if (installed := importlib.metadata.version(package)) != version
    }
    assert not other, other
