"""Setting up says what is missing and how to get it, and never asks for rights it does not need."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.need import REPOSITORY

INSTALL = REPOSITORY / "deploy" / "install-debian-packages"


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A PATH of its own with the few real programs that the scripts use."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "env", "sed", "make", "touch", "cat"):
        real = shutil.which(name)
        assert real, name
        (folder / name).symlink_to(real)
    return folder


def program(folder: Path, name: str, script: str) -> None:
    """A stand-in for a program; `$LOG` is where it notes that it was called."""
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def call(folder: Path, *command: object, **variables: str) -> tuple[int, str, list[str]]:
    """Exit code, output and the lines the stand-ins noted."""
    log = folder / "log"
    environment = {"PATH": str(folder), "LOG": str(log), **variables}
    done = subprocess.run(
        [str(c) for c in command],
        env=environment,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    noted = log.read_text().splitlines() if log.exists() else []
    return done.returncode, done.stdout + done.stderr, noted


HAS_ONE = '[ "${@: -1}" = there ] && echo installed'
NOTES = 'echo "${0##*/} $*" >> "$LOG"'


def test_what_is_there_is_left_alone(bin_folder):
    program(bin_folder, "dpkg-query", HAS_ONE)
    code, output, _ = call(bin_folder, INSTALL, "there")
    assert (code, output) == (0, "")


def test_without_rights_it_names_the_package_and_how_to_get_it(bin_folder):
    program(bin_folder, "dpkg-query", HAS_ONE)
    program(bin_folder, "apt-get", "exit 9")
    program(bin_folder, "id", "echo 1000")
    code, output, _ = call(bin_folder, INSTALL, "there", "tshark")
    assert code == 3
    assert output == "Missing, and no right to install: tshark (apt-get install tshark)\n"


def test_without_debian_it_names_the_package(bin_folder):
    program(bin_folder, "dpkg-query", "exit 1")
    code, output, _ = call(bin_folder, INSTALL, "tshark")
    assert code == 3
    assert "tshark" in output


def test_root_installs_and_fetches_the_lists_only_when_it_must(bin_folder):
    program(bin_folder, "dpkg-query", HAS_ONE)
    program(bin_folder, "id", "echo 0")
    program(bin_folder, "apt-get", NOTES)
    code, _, noted = call(bin_folder, INSTALL, "there", "tshark")
    assert code == 0
    assert len(noted) == 1
    assert noted[0].endswith("tshark")


def test_an_empty_package_list_is_fetched_and_tried_again(bin_folder):
    program(bin_folder, "dpkg-query", "exit 1")
    program(bin_folder, "id", "echo 0")
    has_lists = f'{NOTES}; [ "$1" = update ] && : > "$LOG.lists"; [ -e "$LOG.lists" ]'
    program(bin_folder, "apt-get", has_lists)
    code, _, noted = call(bin_folder, INSTALL, "tshark")
    assert code == 0
    assert [line.split()[1] for line in noted] == ["install", "update", "install"]


def test_without_a_network_it_names_the_package(bin_folder):
    program(bin_folder, "dpkg-query", "exit 1")
    program(bin_folder, "id", "echo 0")
    program(bin_folder, "apt-get", f"{NOTES}; exit 100")
    code, output, noted = call(bin_folder, INSTALL, "tshark")
    assert code == 3
    assert "apt-get could not install: tshark" in output
    assert [line.split()[1] for line in noted] == ["install", "update", "install"]


def test_sudo_is_used_only_where_it_asks_no_password(bin_folder):
    program(bin_folder, "dpkg-query", "exit 1")
    program(bin_folder, "id", "echo 1000")
    program(bin_folder, "apt-get", NOTES)
    program(bin_folder, "sudo", f'[ "$1" = -n ] && exit 1; {NOTES}; exec "$@"')
    code, _, noted = call(bin_folder, INSTALL, "tshark")
    assert (code, noted) == (3, [])
    program(bin_folder, "sudo", f'{NOTES}; [ "$1" = -n ] && exit 0; exec "$@"')
    code, _, noted = call(bin_folder, INSTALL, "tshark")
    assert code == 0
    assert noted[-1].startswith("apt-get")


def make(bin_folder: Path, target: str, tmp_path: Path) -> tuple[int, str, list[str]]:
    venv = tmp_path / "venv"
    return call(bin_folder, "make", f"VENV={venv}", target.replace("VENV", str(venv)))


def test_an_old_python_is_told_what_to_do(bin_folder, tmp_path):
    program(bin_folder, "python3", '[ "$1" = --version ] && echo "Python 3.9.2" && exit 0; exit 1')
    code, output, _ = make(bin_folder, "VENV/.made", tmp_path)
    assert code == 2
    assert "needs Python 3.11 or newer; found: Python 3.9.2" in output
    assert "apt-get install" in output


def test_a_newer_python_beside_an_old_one_is_found(bin_folder, tmp_path):
    program(bin_folder, "python3", "exit 1")
    made = f'{NOTES}; [ "$2" = venv ] && mkdir -p "${{@: -1}}"; exit 0'
    program(bin_folder, "python3.12", made)
    (bin_folder / "mkdir").symlink_to(shutil.which("mkdir") or "")

    code, output, noted = make(bin_folder, "VENV/.made", tmp_path)
    assert code == 0, output
    assert any(line.startswith("python3.12 -m venv") for line in noted)


def test_a_missing_venv_module_is_installed_or_named(bin_folder, tmp_path):
    no_venv = 'case "$*" in *ensurepip*) exit 1;; --version) echo Python 3.11.2;; esac'
    program(bin_folder, "python3", no_venv)
    program(bin_folder, "dpkg-query", "exit 1")
    program(bin_folder, "id", "echo 1000")
    program(bin_folder, "apt-get", "exit 9")
    code, output, _ = make(bin_folder, "VENV/.made", tmp_path)
    assert code == 2
    assert "apt-get install python3-venv" in output
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(("ci", "code"), [("true", 2), ("", 0)])
def test_a_missing_debian_package_stops_only_ci(bin_folder, tmp_path, ci, code):
    program(bin_folder, "dpkg-query", "exit 1")
    program(bin_folder, "id", "echo 1000")
    program(bin_folder, "apt-get", "exit 9")
    done = call(bin_folder, "make", "debian-packages", CI=ci)
    assert done[0] == code
    assert "tshark" in done[1]


def test_ci_runs_what_the_readme_says():
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    assert "export CI=true" in script
    assert script.rstrip().endswith("make --no-print-directory test")
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)
