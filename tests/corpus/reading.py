"""Run `mirrorpoint inspect` over one file after the other within a process, and tell how each went.

    python -m tests.corpus.reading SHAPE FILE...

prints one JSON object a line: file, exit code, seconds, standard output and error, and the
traceback of whatever escaped. The line is out before the next file begins, so whoever waits for a
process that hangs knows which file it hangs on. It is the command itself that runs, only not a
process for each file: starting one takes longer than reading most of the captures.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pipeline.cli import main as command


@dataclass(frozen=True, slots=True)
class Reading:
    """How `inspect` fared with one file; `crash` is a traceback, empty where nothing escaped.

    `seconds` are the processor's: whoever shares the machine makes no file slow.
    """

    file: str
    exit_code: int
    seconds: float
    output: str
    errors: str
    crash: str

    def rows(self) -> list[dict[str, Any]]:
        """The objects of `--format jsonl`, but for names that no session gave itself."""
        found = [json.loads(line) for line in self.output.splitlines()]
        return [row for row in found if not row.get("weak")]

    def count(self) -> dict[str, Any]:
        """The object of `--format count --json`."""
        found: dict[str, Any] = json.loads(self.output)
        return found


def read(path: Path, shape: str) -> Reading:
    """`mirrorpoint inspect PATH --format SHAPE` (with `--json` where the shape is `count`)."""
    arguments = ["inspect", str(path), "--format", shape]
    arguments += ["--json"] if shape == "count" else []
    began = time.process_time()
    result = CliRunner().invoke(command, arguments)
    seconds = time.process_time() - began
    crash = ""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        crash = "".join(traceback.format_exception(result.exception))
    return Reading(path.name, result.exit_code, seconds, result.stdout, result.stderr, crash)


def main(arguments: list[str]) -> int:
    """Read the files and print a line for each."""
    shape, *files = arguments
    for file in files:
        sys.stdout.write(json.dumps(asdict(read(Path(file), shape))) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
