"""Runs targets in processes of their own, guided and then compiled, and tells what was found.

Never in the process of a test: a fuzzer instruments what it imports, and ends its process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.need import REPOSITORY

HANG_SECONDS = 20  # for an input; the slowest take a fiftieth
RUNS_SECONDS = 120  # for the inputs that a target states; two where nothing else runs
START_SECONDS = 300  # to import, and to compile where no kernel is kept yet
FAILURES = ("crash", "timeout", "oom", "leak", "compiled")


@dataclass(frozen=True)
class Fuzzed:
    """What became of one target: inputs tried, inputs kept for their coverage, branches reached."""

    name: str
    inputs: int
    kept: int
    branches: int

    def __str__(self) -> str:
        return f"{self.name:16} {self.inputs:9,} inputs {self.kept:6,} kept {self.branches:6,} branches"


@dataclass(frozen=True)
class Finding:
    """An input that fails, and what was said."""

    name: str
    how: str
    raw: bytes
    said: str

    def __str__(self) -> str:
        again = f"python -m tests.fuzz {self.name} --input {self.raw.hex()}"
        return f"{self.name}: {self.how}\n{self.said}\n{again}"


def fuzz(
    names: Sequence[str],
    seconds: int,
    seed: int,
    folder: Path,
    module: str = "tests.fuzz.targets",
    hang_seconds: int = HANG_SECONDS,
) -> tuple[list[Fuzzed], list[Finding]]:
    """Fuzz each of these targets for so many seconds, or of 0 for as many inputs as it states; then
    check what was kept with compiled kernels. Raises RuntimeError where a process fails that names
    no input. The number of inputs, unlike seconds, reaches the same on every machine.
    """
    slowest = START_SECONDS + ((seconds or RUNS_SECONDS) + hang_seconds + 10) * len(names)
    words = [module, str(folder), str(seconds), str(hang_seconds), str(seed), *names]
    guided = _python("guided", words, slowest, NUMBA_DISABLE_JIT="1", PYTHONHASHSEED="0")
    compiled = _python("compiled", [module, str(folder), *names], slowest)
    found = [finding for name in names for finding in _findings(name, folder, compiled.stderr)]
    if not found and (guided.returncode or compiled.returncode):
        logs = "".join(_log(name, folder)[-2000:] for name in names)
        raise RuntimeError(guided.stderr[-2000:] + compiled.stderr[-2000:] + logs)
    return [_fuzzed(name, folder) for name in names], found


def _python(
    module: str, words: list[str], seconds: float, **flags: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"tests.fuzz.{module}", *words],
        cwd=REPOSITORY,
        # Not set at all rather than 0: the folder of compiled kernels is named by what is set.
        env={k: v for k, v in os.environ.items() if k != "NUMBA_DISABLE_JIT"} | flags,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _log(name: str, folder: Path) -> str:
    path = folder / f"{name}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def _fuzzed(name: str, folder: Path) -> Fuzzed:
    log = _log(name, folder)
    inputs = re.findall(r"^(?:#|stat::number_of_executed_units: )(\d+)", log, re.MULTILINE)
    branches = re.findall(r"cov: (\d+)", log)
    kept = len(list((folder / name).iterdir()))
    return Fuzzed(name, int([0, *inputs][-1]), kept, int([0, *branches][-1]))


def _findings(name: str, folder: Path, said_compiled: str) -> list[Finding]:
    found = []
    for how in FAILURES:
        for path in sorted(folder.glob(f"{name}-{how}-*")):
            raw = path.read_bytes()
            at = said_compiled.find(f"{name} {raw.hex()}\n")
            log = _log(name, folder)
            start = log.find("=== Uncaught Python exception")
            said = said_compiled[at:] if how == "compiled" else log[max(start, 0) :]
            found.append(Finding(name, how, raw, said[:4000]))
    return found
