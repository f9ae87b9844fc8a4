"""`python -m tests.fuzz TARGET... --seconds N`: coverage-guided fuzzing of parsers, by hand.

Without targets, all of them. `--folder` keeps what was found to go on from it another time;
`--input` checks one input, as hexadecimal digits or a file, in this process, and raises what it
raises.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.fuzzing import fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz, print a line a target, and every input that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=600, help="for each target (600)")
    parser.add_argument("--seed", type=int, default=1, help="of the changes (1)")
    parser.add_argument("--folder", type=Path, help="kept, and gone on from")
    parser.add_argument("--input", help="check this one input only")
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if given.input is not None:
        path = Path(given.input)
        known = len(given.input) < 255 and path.is_file()
        raw = path.read_bytes() if known else bytes.fromhex(given.input)
        for name in names:
            TARGETS[name].check(raw)
        return 0
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for name in names:
            fuzzed, found = fuzz([name], given.seconds, given.seed, folder)
            sys.stdout.write("".join(f"{line}\n" for line in (*fuzzed, *found)))
            sys.stdout.flush()
            failed = failed or bool(found)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
