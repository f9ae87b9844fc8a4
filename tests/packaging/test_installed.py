"""The installed package works away from the checkout, and from a place that cannot be written."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.run.shipped import shipped_case
from tests.need import REPOSITORY, in_ci, missing
from tests.packaging.conftest import Installation, run

pytestmark = pytest.mark.slow  # builds the wheel, and a process for each test

NOBODY = 65534
AS_NOBODY = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
# Compiles one kernel that calls others, and says where its code came from.
KERNEL = textwrap.dedent("""
    import json
    import numpy as np
    from pipeline.kernels import compile, hashing
    words, out = np.arange(4, dtype=np.uint64).reshape(2, 2), np.zeros((2, 2), np.uint64)
    hashing.siphash128_words(np.uint64(1), np.uint64(2), words, out)
    value, hits = int(out[1, 1]), sum(hashing.siphash128_words.stats.cache_hits.values())
    cache = str(compile.CACHE) if compile.CACHE else None
    print(json.dumps({"value": value, "hits": hits, "cache": cache}))
""")


def run_read_only(place: Path, *command: object, **options) -> subprocess.CompletedProcess[str]:
    """Run a command that sees `place` as read-only.

    Root may write anywhere whatever the modes say, so for root the folder is mounted over itself,
    read-only, in a mount namespace that only the command sees. Where root may not mount, as in many
    containers, the command runs as nobody, for whom the modes count.
    """
    if os.geteuid() != 0:
        before = {p: p.stat().st_mode for p in [place, *place.rglob("*")] if not p.is_symlink()}
        for path, mode in before.items():
            path.chmod(mode & ~0o222)
        try:
            return run(*command, **options)
        finally:
            for path, mode in before.items():
                path.chmod(mode)
    mount = f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"
    if not may_mount(mount):
        python = ("sh", "-c", 'test -x "$0"', sys.executable)
        if subprocess.run(python, **AS_NOBODY, check=False).returncode:
            missing("as root needs the right to mount, or a Python that nobody may run")
        return run_as_nobody(place, *command, **options)
    line = shlex.join(str(c) for c in command)
    return run("unshare", "-m", "sh", "-c", f"{mount} && exec {line}", **options)


def may_mount(mount: str) -> bool:
    """May this process mount, in a namespace of its own?"""
    unshare = shutil.which("unshare")
    command = [str(unshare), "-m", "sh", "-c", mount]
    return (
        bool(unshare) and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def run_as_nobody(place: Path, *command: object, **options) -> subprocess.CompletedProcess[str]:
    """For root: run a command as a user who may read `place`, and write its own `cwd` only."""
    for path in [place, *place.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode & ~0o022 | (0o055 if mode & 0o100 else 0o044))
    home = Path(options["cwd"])
    for path in [home, *home.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    # pytest's folders are for one user; for as long as it takes others may pass through them.
    above = {p for p in {*place.parents, *home.parents} if p.stat().st_uid == 0}
    private = {p: mode for p in above if not (mode := p.stat().st_mode) & 0o001}
    for path, mode in private.items():
        path.chmod(mode | 0o011)
    try:
        return run(*command, **AS_NOBODY, **options)
    finally:
        for path, mode in private.items():
            path.chmod(mode)


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_it_is_the_wheel_that_runs(installation: Installation, tmp_path, elsewhere):
    code = "import pipeline; print(pipeline.__file__)"
    where = run(installation.python, "-c", code, cwd=tmp_path, env=elsewhere).stdout
    assert Path(where.strip()).parent == installation.package


def test_help_and_version(installation: Installation, tmp_path, elsewhere):
    text = run(installation.command, "--help", cwd=tmp_path, env=elsewhere).stdout
    assert "demo" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    text = run(installation.command, "--version", cwd=tmp_path, env=elsewhere).stdout
    assert "mirrorpoint" in text


def test_help_loads_none_of_the_heavy_libraries(installation: Installation, tmp_path, elsewhere):
    """What makes `--help` slow is imports, so the test counts those and no seconds."""
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'numpy', 'chdb', 'pyarrow', 'sqlalchemy', 'pydantic', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    run(installation.python, "-c", code, cwd=tmp_path, env=elsewhere)


def test_it_runs_from_a_read_only_place(installation: Installation, tmp_path, elsewhere):
    before = files(installation.folder)
    place = installation.folder
    help_text = run_read_only(place, installation.command, "--help", cwd=tmp_path, env=elsewhere)
    assert "demo" in help_text.stdout
    for command in (("rules", "check"), ("rules", "test")):
        run_read_only(place, installation.command, *command, cwd=tmp_path, env=elsewhere)
    assert files(place) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as nobody")
def test_for_nobody_the_place_is_read_only(installation: Installation, tmp_path, elsewhere):
    """What stands in for a mount where root may not mount."""
    before = files(installation.folder)
    tries = 'id -u; cat "$0/pyvenv.cfg" > "$HOME/copy" && echo read; touch "$0/x" || echo refused'
    shell = ("sh", "-c", f"{tries}; touch {installation.package}/x 2>&1 || echo refused")
    told = run_as_nobody(
        installation.folder, *shell, installation.folder, cwd=tmp_path, env=elsewhere
    )
    words = told.stdout.split()
    assert (words[0], words[1], words.count("refused")) == (str(NOBODY), "read", 2)
    assert (Path(elsewhere["HOME"]) / "copy").stat().st_size > 0
    assert files(installation.folder) == before


def test_kernels_are_cached_elsewhere(installation: Installation, tmp_path, elsewhere):
    place, before = installation.folder, files(installation.folder)
    code = (installation.python, "-c", KERNEL)
    first = json.loads(run_read_only(place, *code, cwd=tmp_path, env=elsewhere).stdout)
    again = json.loads(run_read_only(place, *code, cwd=tmp_path, env=elsewhere).stdout)
    assert Path(first["cache"]).is_relative_to(elsewhere["HOME"])
    assert first["value"] == again["value"]
    assert first["hits"] == 0
    assert again["hits"] > 0
    assert files(place) == before


def test_kernels_run_where_nothing_at_all_can_be_written(installation, tmp_path, elsewhere):
    place = installation.folder
    nowhere = {**elsewhere, "HOME": "/proc/nowhere", "TMPDIR": str(tmp_path)}
    nowhere["MIRRORPOINT_CACHE"] = "/proc/nowhere"
    code = KERNEL.replace(
        "from pipeline", "import tempfile; tempfile.tempdir = '/proc'\nfrom pipeline", 1
    )
    told = json.loads(
        run_read_only(place, installation.python, "-c", code, cwd=tmp_path, env=nowhere).stdout
    )
    assert told["cache"] is None
    assert told["hits"] == 0


@pytest.mark.timeout(900)
def test_the_bundled_day_runs_from_a_read_only_place_and_warm(installation, tmp_path, elsewhere):
    """`warm` compiles everything once, outside the package; what comes after compiles nothing."""
    place, cache = installation.folder, tmp_path / "cache"
    environment = {**elsewhere, "MIRRORPOINT_CACHE": str(cache)}
    before = files(place)

    def call(*words: str) -> str:
        command = (installation.command, *words)
        return run_read_only(place, *command, cwd=tmp_path, env=environment).stdout

    assert "compiled" in call("warm")
    compiled = files(cache)
    assert len(compiled) > 10
    assert call("warm").strip() == "kernels: ready"
    assert "ledger_hash" in call("demo")
    assert "sessions" in call("inspect", str(shipped_case() / "input.pcap"), "--format", "count")
    assert files(cache) == compiled
    assert files(place) == before


@pytest.mark.timeout(1200)
def test_a_clean_environment_installs_it_by_pip(tmp_path, elsewhere):
    """`pip install .` as a stranger does it: isolated build, dependencies from the registry.

    Versions are those of the locks, so that no release of others turns a build red overnight.
    """
    if not in_ci():
        pytest.skip("fetches every dependency anew; runs in CI")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    lines = [
        line.rstrip(" \\")
        for name in ("build", "run")
        for line in (REPOSITORY / "requirements" / f"{name}.txt").read_text().splitlines()
        if line[:1].isalnum()
    ]
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(lines) + "\n")
    # The build has an environment of its own, and newer releases of pip another setting for it.
    held = {"PIP_CONSTRAINT": str(constraints), "PIP_BUILD_CONSTRAINT": str(constraints)}
    done = subprocess.run(
        [venv / "bin" / "pip", "install", "--quiet", REPOSITORY],
        env=os.environ | held,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    command = venv / "bin" / "mirrorpoint"
    assert "demo" in run(command, "--help", cwd=tmp_path, env=elsewhere).stdout
    run(command, "rules", "check", cwd=tmp_path, env=elsewhere)
    run(command, "rules", "test", cwd=tmp_path, env=elsewhere)
    run(venv / "bin" / "pip", "check", cwd=tmp_path)
