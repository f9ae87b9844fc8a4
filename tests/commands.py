"""Run the command line in a process of its own: chDB allows one folder a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FIRST_DAY = Path(__file__).resolve().parent.parent / "replay_pcaps" / "first-day"
# Every hash that `replay --json` must tell; two runs are the same when all of them are.
HASHES = frozenset(
    f"{name}_hash" for name in ("visits", "decisions", "conversions", "ledger", "journal")
)


def mirrorpoint(
    *words: str | Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run `mirrorpoint WORDS...` in `cwd`; the result with its output as text."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)} | (env or {}),
        cwd=cwd,
        check=False,
    )


def done(*words: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run it and expect exit code 0; standard output."""
    result = mirrorpoint(*words, env=env, cwd=cwd)
    assert result.returncode == 0, f"{words}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def replayed(
    *paths: str | Path, state: Path, rows: int = 4096, env: dict[str, str] | None = None
) -> dict[str, Any]:
    """Replay into `state` and give the report."""
    report: dict[str, Any] = json.loads(
        done("replay", *paths, "--state", state, "--json", "--rows", str(rows), env=env)
    )
    return report


def hashes(report: dict[str, Any]) -> dict[str, str]:
    """All hashes of a report; none may be missing, or two reports would agree on nothing."""
    found = {name: value for name, value in report.items() if name.endswith("_hash")}
    assert found.keys() == HASHES
    assert all(found.values())
    return found


def asked(state: Path, query: str) -> list[dict[str, Any]]:
    """The rows of a query, by `mirrorpoint sql --json`."""
    rows: list[dict[str, Any]] = json.loads(done("sql", "--state", state, "--json", query))["data"]
    return rows
