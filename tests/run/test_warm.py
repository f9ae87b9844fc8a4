"""After `warm` no command compiles anything, and a second `warm` has nothing to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from tests.need import REPOSITORY
from tests.tidy.test_kernels import asked_from_python

# What is there in one process: every kernel that Python may call, after everything was run once.
COLD = textwrap.dedent("""
    import importlib, json, sys
    from pipeline.run import warm
    warm._run_everything()
    named = [line.split(":") for line in json.loads(sys.argv[1])]
    found = [(m, n, getattr(importlib.import_module(m), n)) for m, n in named]
    print(json.dumps([f"{m}:{n}" for m, n, kernel in found if not kernel.signatures]))
""")

# Called only by tests.
NEVER_BY_A_COMMAND: set[str] = set()


@pytest.mark.slow
def test_every_kernel_that_python_calls_has_been_called():
    names = [where.replace("/", ".").replace(".py:", ":") for where in sorted(asked_from_python())]
    done = subprocess.run(
        [sys.executable, "-c", COLD, json.dumps(names)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(json.loads(done.stdout.splitlines()[-1])) <= NEVER_BY_A_COMMAND
