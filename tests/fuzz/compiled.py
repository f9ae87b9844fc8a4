"""Checks inputs again with compiled kernels: those that added coverage when these were Python.

Compiled code promotes integers in other ways than numpy, and does not notice the end of an array;
what guided the fuzzer is not what runs at customers.

    python -m tests.fuzz.compiled MODULE FOLDER TARGET...

Reads FOLDER/TARGET; an input that fails is put beside it as FOLDER/TARGET-compiled-*.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path


def main(module: str, place: str, *names: str) -> int:
    """Check every input of these targets; 1 where one failed."""
    targets, folder = importlib.import_module(module).TARGETS, Path(place)
    failed = 0
    for name in names:
        for path in sorted((folder / name).iterdir()):
            raw = path.read_bytes()
            try:
                targets[name].check(raw)
            except Exception:
                failed = 1
                (folder / f"{name}-compiled-{path.name}").write_bytes(raw)
                sys.stderr.write(f"{name} {raw.hex()}\n{traceback.format_exc()}")
    return failed


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
