"""The wheel, and a place it is installed in that has nothing of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.need import REPOSITORY, need


def run(*command: object, **options) -> subprocess.CompletedProcess[str]:
    """Run a command; where it does not exit 0, the failure shows what it printed."""
    done = subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        **options,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


@dataclass(frozen=True)
class Installation:
    """A virtual environment that holds the built wheel."""

    folder: Path
    package: Path
    python: Path
    command: Path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `pip wheel` builds it from the checkout, offline."""
    need("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet")
    run(sys.executable, "-m", "pip", "wheel", *offline, "-w", folder, REPOSITORY)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in an environment of its own; what it depends on is lent by the running one.

    The lending is a line in a .pth file: its folder comes after the environment's own packages, and
    .pth files inside it (an editable install of the checkout) are not followed.
    """
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    offline = ("--no-deps", "--no-index", "--no-compile", "--quiet")
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, wheel)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installation(folder, site / "pipeline", python, folder / "bin" / "mirrorpoint")


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment for commands whose home and cache are empty folders."""
    kept = {n: v for n, v in os.environ.items() if n in ("PATH", "LANG", "CI", "TMPDIR")}
    home = tmp_path / "home"
    home.mkdir()
    return {**kept, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
