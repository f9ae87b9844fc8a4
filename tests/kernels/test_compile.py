"""A changed primitive is never served from an old cache, whoever calls it and by what flags."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.kernels import compile as compiling
from tests.need import REPOSITORY

# A package with a primitive in one file, a kernel that calls it in another, and a question to both.
PRIMITIVE = """
from pipeline.kernels.compile import kernel
@kernel
def step(x):
    return x + {step}
"""
CALLER = """
from pipeline.kernels.compile import kernel
from pipeline.kernels.steps import step
@kernel
def two_steps(x):
    return step(step(x))
"""
QUESTION = """
import json
from pipeline.kernels import compile, walking
value = walking.two_steps(10)
stats = getattr(walking.two_steps, "stats", None)
print(json.dumps({
    "value": value, "cache": str(compile.CACHE),
    "hits": sum(stats.cache_hits.values()) if stats else -1,
}))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package `pipeline` of its own, with the real `compile.py` and two kernels."""
    kernels = tmp_path / "checkout" / "pipeline" / "kernels"
    kernels.mkdir(parents=True)
    (kernels.parent / "__init__.py").touch()
    (kernels / "__init__.py").touch()
    real = (REPOSITORY / "pipeline" / "kernels" / "compile.py").read_text()
    (kernels / "compile.py").write_text(real)
    (kernels / "steps.py").write_text(PRIMITIVE.format(step=1))
    (kernels / "walking.py").write_text(CALLER)
    return kernels.parent.parent


def ask(checkout: Path, cache: Path, **flags: str) -> dict[str, object]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("NUMBA_", "PYTHONPATH"))}
    environment = {**kept, "MIRRORPOINT_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": "1", **flags}
    done = subprocess.run(
        [sys.executable, "-c", QUESTION],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
def test_an_edited_primitive_is_seen_through_a_caller_that_did_not_change(checkout, tmp_path):
    cache = tmp_path / "cache"
    first = ask(checkout, cache)
    assert (first["value"], first["hits"]) == (12, 0)
    again = ask(checkout, cache)
    assert (again["value"], again["hits"]) == (12, 1)
    (checkout / "pipeline" / "kernels" / "steps.py").write_text(PRIMITIVE.format(step=5))
    edited = ask(checkout, cache)
    assert (edited["value"], edited["hits"]) == (20, 0)
    assert edited["cache"] != first["cache"]


@pytest.mark.slow
def test_checked_and_unchecked_code_never_share_a_cache(checkout, tmp_path):
    cache = tmp_path / "cache"
    plain = ask(checkout, cache)
    checked = ask(checkout, cache, NUMBA_BOUNDSCHECK="1")
    assert checked["hits"] == 0
    assert checked["cache"] != plain["cache"]
    assert ask(checkout, cache, NUMBA_DISABLE_JIT="1")["value"] == 12


def test_the_fingerprint_covers_every_file_with_kernels(tmp_path):
    package = tmp_path / "pipeline"
    for name in ("kernels/a.py", "classify/b_kernels.py", "classify/deep/c_kernels.py", "run/d.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("1\n")
    names = [p.relative_to(package).as_posix() for p in compiling.kernel_sources(package)]
    assert names == ["classify/b_kernels.py", "classify/deep/c_kernels.py", "kernels/a.py"]
    before = compiling.fingerprint(package)
    (package / "run/d.py").write_text("2\n")
    assert compiling.fingerprint(package) == before
    for name in names:
        (package / name).write_text("2\n")
        after = compiling.fingerprint(package)
        assert after != before
        before = after


@pytest.mark.parametrize("flag", compiling.FLAGS)
def test_every_flag_changes_the_fingerprint(monkeypatch, flag):
    monkeypatch.delenv(flag, raising=False)
    before = compiling.fingerprint()
    monkeypatch.setenv(flag, "x")
    assert compiling.fingerprint() != before


def test_the_cache_is_asked_for_in_order(monkeypatch, tmp_path):
    for name in ("MIRRORPOINT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    assert compiling.cache_folder().is_relative_to(tmp_path / "MIRRORPOINT_CACHE")
    monkeypatch.delenv("MIRRORPOINT_CACHE")
    assert compiling.cache_folder().is_relative_to(tmp_path / "XDG_CACHE_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert compiling.cache_folder().is_relative_to(tmp_path / "HOME" / ".cache")


def test_a_folder_in_the_temporary_one_is_ours_alone(monkeypatch, tmp_path):
    for name in ("MIRRORPOINT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compiling.tempfile, "tempdir", str(tmp_path))
    folder = compiling.cache_folder()
    private = tmp_path / f"mirrorpoint-{os.getuid()}"
    assert folder.is_relative_to(private)
    assert private.stat().st_mode & 0o077 == 0


def test_a_folder_that_somebody_else_prepared_is_not_used(monkeypatch, tmp_path):
    """Compiled code is run: whoever can write the cache can run code as us."""
    for name in ("MIRRORPOINT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / f"mirrorpoint-{os.getuid()}").symlink_to(theirs)
    monkeypatch.setattr(compiling.tempfile, "tempdir", str(tmp_path))
    assert compiling.cache_folder() is None
