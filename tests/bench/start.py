"""How long a command takes to start: `--help`, and a warm command to its first row.

    python -m tests.bench.start [--runs R] [--json]

Each command is a process of its own, run R times after one run that is not measured; the figure is
the median of the seconds until its first line is out (until it has ended, for `--help`). That first
run leaves compiled kernels and compiled modules behind, as any user's does: where the environment
forbids Python to write the latter (PYTHONDONTWRITEBYTECODE), the commands here are started without
that word. Compiling the modules anew every time would add 0.3 seconds that no user waits for.

`sql` and `explain` are asked of a state that nobody owns and that was closed whole.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench import traffic as made
from tests.bench.figures import machine
from tests.bench.traffic import Traffic
from tests.bench.wire import command_line

UNWANTED = "PYTHONDONTWRITEBYTECODE"
HELP_SECONDS, ROW_SECONDS = 0.5, 1.0
REPOSITORY = Path(__file__).resolve().parent.parent.parent
CASE = REPOSITORY / "replay_pcaps" / "first-day"


@dataclass(frozen=True, slots=True)
class Start:
    """One command: the median seconds, and what is asked."""

    command: str
    seconds: float
    asked: float

    @property
    def good(self) -> bool:
        """Fast enough?"""
        return self.seconds <= self.asked


def environment() -> dict[str, str]:
    """Our environment, but compiled modules are kept."""
    return {name: text for name, text in os.environ.items() if name != UNWANTED}


def seconds_to_end(arguments: list[str]) -> float:
    """Run to the end."""
    began = time.perf_counter()
    command = [*command_line(), *arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment())
    return time.perf_counter() - began


def seconds_to_first_row(arguments: list[str]) -> float:
    """Run until the first line is printed; the rest is read as well, so that nothing is killed."""
    began = time.perf_counter()
    command = [*command_line(), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        seconds = time.perf_counter() - began
        process.stdout.read()
        errors = process.stderr.read()
    assert first.strip(), f"{' '.join(arguments)} printed nothing: {errors.decode()[-500:]}"
    assert process.returncode == 0, errors.decode()[-500:]
    return seconds


def median(arguments: list[str], runs: int, *, to_end: bool) -> float:
    """The median of `runs` runs after one that warms."""
    once = seconds_to_end if to_end else seconds_to_first_row
    once(arguments)
    return statistics.median(once(arguments) for _ in range(runs))


def measure_starts(state: Path | None, runs: int) -> list[Start]:
    """All commands; those that ask a store only where `state` is one."""
    found = [Start("--help", median(["--help"], runs, to_end=True), HELP_SECONDS)]

    def row(*arguments: str) -> None:
        seconds = median(list(arguments), runs, to_end=False)
        shown = " ".join("..." if "/" in a or " " in a else a for a in arguments)
        found.append(Start(shown, seconds, ROW_SECONDS))

    with tempfile.TemporaryDirectory(prefix="mirrorpoint-start-") as folder:
        capture = Path(folder) / "small.pcap"
        made.generate(capture, Traffic(packets=20_000, live=100))
        row("inspect", str(capture), "--format", "jsonl")
        row("rules", "check")
        if state is not None:
            row("sql", "SELECT count() FROM entries", "--state", str(state))
            row("explain", first_entry(state), "--state", str(state))
    return found


def first_entry(state: Path) -> str:
    """The id of some entry of a state."""
    query = "SELECT entry_id FROM entries LIMIT 1"
    command = [*command_line(), "sql", query, "--state", str(state), "--json"]
    printed = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment()
    ).stdout
    return str(json.loads(printed)["data"][0]["entry_id"])


def show(starts: list[Start]) -> str:
    """A table of at most 80 columns."""
    lines = [f"{'command':44} {'seconds':>8} {'asked':>8}"]
    for one in starts:
        verdict = "" if one.good else "  TOO SLOW"
        lines.append(f"{one.command:44} {one.seconds:8.2f} {one.asked:8.2f}{verdict}")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and fail where a start is too slow."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.start", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mirrorpoint-start-") as folder:
        state = Path(folder) / "state"
        replay = [*command_line(), "replay", str(CASE), "--state", str(state), "--json"]
        subprocess.run(replay, check=True, capture_output=True, env=environment())
        starts = measure_starts(state, given.runs)
    if given.json:
        found = [
            {"command": s.command, "seconds": s.seconds, "asked": s.asked, "good": s.good}
            for s in starts
        ]
        sys.stdout.write(json.dumps({"machine": machine(), "starts": found}, indent=2) + "\n")
    else:
        sys.stdout.write(f"{machine()}\n{show(starts)}")
    return 0 if all(s.good for s in starts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
