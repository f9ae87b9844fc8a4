"""One process that fuzzes targets, one after the other, with kernels as plain Python.

atheris puts a counter on every branch of `pipeline` while it is imported, and libFuzzer changes
inputs towards those that reach new ones. Kernels have branches to be counted only without JIT, so
the process is started with NUMBA_DISABLE_JIT=1. The fuzzer never returns to its caller and ends
its process when something is wrong: each target gets a child, which inherits what was imported.

    python -m tests.fuzz.guided MODULE FOLDER SECONDS HANG_SECONDS SEED TARGET...

MODULE has the TARGETS; of 0 SECONDS each gets the inputs it states; whoever takes HANG_SECONDS for
an input hangs. FOLDER/TARGET then holds every input that added coverage, FOLDER/TARGET.log what
libFuzzer said, and FOLDER/TARGET-crash-* (or -timeout-, -oom-) an input that failed. Exits 1 where
one did.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path

import atheris

from tests.fuzz.target import Target

MEMORY_MB = 2048


def prepare(target: Target, folder: Path) -> list[str]:
    """Write seeds and words; what libFuzzer is to know of them."""
    name, corpus = target.name, folder / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    words = "".join(
        '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words
    )
    (folder / f"{name}.words").write_text(words)
    arguments = [str(corpus), f"-artifact_prefix={folder / name}-", f"-max_len={target.longest}"]
    return arguments + [f"-dict={folder / name}.words"] * bool(words)


def begin(target: Target, folder: Path, seconds: int, options: list[str]) -> None:
    """Fuzz one target in this process, and end it."""
    amount = f"-max_total_time={seconds}" if seconds else f"-runs={target.runs}"
    arguments = [*prepare(target, folder), amount, *options]
    log = os.open(folder / f"{target.name}.log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    atheris.Setup([target.name, *arguments], target.check)
    atheris.Fuzz()


def main(module: str, place: str, seconds: str, hang: str, seed: str, *names: str) -> int:
    """A child for each target."""
    with atheris.instrument_imports(include=["pipeline"]):
        targets = importlib.import_module(module).TARGETS
    warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of integers that are meant to wrap
    options = [
        f"-timeout={hang}", f"-seed={seed}", "-reload=0",
        f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1",
    ]  # fmt: skip
    failed = 0
    for name in names:
        child = os.fork()
        if child == 0:
            begin(
                targets[name], Path(place), int(seconds), options
            )  # at its exit a failing input is written
            raise SystemExit(2)
        failed |= os.waitpid(child, 0)[1]
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
