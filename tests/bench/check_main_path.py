"""Every figure asked of the main path beside what was reached; fails when one falls short.

    python -m tests.bench.check_main_path [--with-tests] [--only WORD]... [--packets N] [--json]

The program behind `make check-main-path`. It runs the commands as a user would (a process each,
in a temporary folder), takes the figures of the benches, and prints one line for each point.
Nothing is skipped silently: what cannot be measured here (no corpus, no program) is a line that
falls short.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.store.crash import CRASH_POINTS
from tests.bench import by_hand, recall, start, wire
from tests.bench.judge import FellShort, Point, fast, run_parts
from tests.bench.traffic import Traffic
from tests.commands import HASHES
from tests.sim.test_crash import RANDOM_POINTS

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CASE = REPOSITORY / "replay_pcaps" / "first-day"
PARTNER, OLD_PERCENT, NEW_PERCENT = "acme-shop", 5, 7
# What explanations must name, by the kind of what caused an entry.
CHAIN = {"order": ("command",), "conversion": ("rule", "message", "visit", "packet")}
PER_POINT = Fraction(1, 100)
PACKETS_PER_SECOND, MADE_PER_SECOND = 3_000_000, 1_000_000
RECALL = 0.85
CRASH_VISITS, CRASH_TESTS = 100_000, 1 + len(CRASH_POINTS) + RANDOM_POINTS
SKIPPED = re.compile(r"^SKIPPED \[(?P<times>\d+)\] [^ ]+ (?P<why>.*)$", re.MULTILINE)
COMMAND_SECONDS, FAST_TESTS_SECONDS = 7200, 120


def run(
    *command: str,
    seconds: float = COMMAND_SECONDS,
    cwd: Path = REPOSITORY,
    env: dict[str, str] | None = None,
) -> str:
    """A command's standard output. Raises FellShort with the end of its errors."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FellShort(f"{command[0]} took more than {seconds:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise FellShort(f"exit {done.returncode}: {' '.join(last)[:160]}")
    return done.stdout


def mirrorpoint(*arguments: str, cwd: Path = REPOSITORY, env: dict[str, str] | None = None) -> str:
    """`mirrorpoint ...`."""
    return run(*wire.command_line(), *arguments, cwd=cwd, env=env)


class Check:
    """The points in their order; a temporary folder holds the states they make."""

    def __init__(self, folder: Path, packets: int, runs: int, visits: int = CRASH_VISITS) -> None:
        self.folder, self.packets, self.runs, self.visits = folder, packets, runs, visits
        self._states: dict[str, dict[str, Any]] = {}

    def state(self, name: str) -> tuple[Path, dict[str, Any]]:
        """The bundled day replayed into a state of this name; its folder and what replay said."""
        folder = self.folder / name
        if name not in self._states:
            printed = mirrorpoint("replay", str(CASE), "--state", str(folder), "--json")
            self._states[name] = json.loads(printed)
        return folder, self._states[name]

    def rows(self, name: str, query: str) -> list[dict[str, Any]]:
        """Rows of a state, by SQL."""
        folder, _ = self.state(name)
        printed = mirrorpoint("sql", query, "--state", str(folder), "--json")
        found: list[dict[str, Any]] = json.loads(printed)["data"]
        return found

    def demo(self) -> Iterator[Point]:
        """`make demo`."""
        began = time.perf_counter()
        run("make", "demo")
        seconds = time.perf_counter() - began
        yield Point("make demo", "exit 0", f"exit 0, {seconds:.0f} s", True)

    def tests(self) -> Iterator[Point]:
        """`make test`, what it had to leave out on this machine, and the two-minute subset."""
        began = time.perf_counter()
        printed = run("make", "test", "ARGS=-rs")
        seconds = time.perf_counter() - began
        yield Point("make test", "exit 0", f"exit 0, {seconds:.0f} s", True)
        yield skipped_tests(printed)
        began = time.perf_counter()
        run("make", "test-fast")
        seconds = time.perf_counter() - began
        asked, reached = f"<= {FAST_TESTS_SECONDS} s", f"exit 0, {seconds:.0f} s"
        yield Point("make test-fast", asked, reached, seconds <= FAST_TESTS_SECONDS)

    def crash(self) -> Iterator[Point]:
        """kill -9 at every named point and at random steps of a large day; order and blocks."""
        for file, what, number in (
            ("test_crash.py", f"kill -9, {len(CRASH_POINTS)} named and {RANDOM_POINTS} random points",
             CRASH_TESTS),
            ("test_order.py", "small blocks, another order of arrival", 2),
        ):  # fmt: skip
            printed = run(
                *(sys.executable, "-m", "pytest", f"tests/sim/{file}", "-q"),
                *("--numprocesses", "2", "--dist", "load", "--timeout", str(COMMAND_SECONDS)),
                *(
                    "--basetemp",
                    str(self.folder / "crash"),
                    "-o",
                    "tmp_path_retention_policy=failed",
                ),
                env={"DAY_VISITS": str(self.visits)},
            )
            found = re.search(r"(\d+) passed", printed)
            passed = int(found[1]) if found else 0
            good = passed == number and self.visits >= CRASH_VISITS
            reached = f"{passed} of {number} as undisturbed, {self.visits:,} visits"
            yield Point(what, f"all, on >= {CRASH_VISITS:,} visits", reached, good)

    def replay(self) -> Iterator[Point]:
        """The same hashes from the same case."""
        (_, a), (_, b) = self.state("A"), self.state("B")
        absent = sorted(HASHES - {name for name in a if a[name]})
        differ = sorted(name for name in HASHES - set(absent) if a[name] != b.get(name))
        reached = f"{len(HASHES)} hashes equal"
        if absent or differ:
            reached = (
                f"differ: {', '.join(differ) or 'none'}; absent: {', '.join(absent) or 'none'}"
            )
        asked = f"{len(HASHES)} equal hashes"
        yield Point("replay into A and into B", asked, reached, not absent and not differ)

    def explain(self) -> Iterator[Point]:
        """Every entry can be explained, down to the flow and packet where there is one."""
        folder, _ = self.state("A")
        # An order has a command behind it; everything else began with a purchase and a packet.
        rows = self.rows("A", "SELECT entry_id, cause_kind FROM entries ORDER BY entry_id")
        causes = {str(row["entry_id"]): str(row["cause_kind"]) for row in rows}
        failed = []
        for number, (entry, cause) in enumerate(causes.items(), start=1):
            wire.on_terminal(f"explain {number}/{len(causes)}")
            try:
                told = mirrorpoint("explain", entry, "--state", str(folder))
            except FellShort as why:
                failed.append(f"{entry}: {why}")
                continue
            links = ("entry", *CHAIN.get(cause, CHAIN["conversion"]))
            begun = {line.split(" ", 1)[0] for line in told.splitlines()}
            if absent := [link for link in links if link not in begun]:
                failed.append(f"{entry}: no {', '.join(absent)}")
        reached = f"{len(causes) - len(failed)} of {len(causes)}"
        reached += "".join(f"; {why}" for why in failed[:2])
        yield Point("explain of every entry", "all of them", reached, bool(causes) and not failed)

    def whatif(self) -> Iterator[Point]:
        """The same rules differ in nothing; two percent more come to what paper says."""
        expected = self._by_hand()
        more = self._more_percent()
        private = self.folder / "whatif"
        (private / "tmp").mkdir(parents=True)
        before = self._files()
        same = self._whatif(REPOSITORY / "rules")
        empty = not (same["changes"] or same["decisions"] or same["conversions"])
        said = "nothing" if empty else f"{len(same['conversions'])} conversions"
        yield Point("whatif, same rules", "no difference", said, empty)
        found = self._whatif(more)
        told = {row["id"]: row["points"] for row in found["conversions"]}
        reached = f"{sum(told.values()):+} points in {len(told)} conversions"
        asked = f"{sum(expected.values()):+} points in {len(expected)}, by hand"
        only = {row["partner"] for row in found["conversions"]} == {PARTNER}
        good = told == expected and only and not found["decisions"] and bool(expected)
        yield Point(f"whatif, {PARTNER} +2 %", asked, reached, good)
        by_line = all(f"partners/{PARTNER}.toml:" in row["rule"] for row in found["conversions"])
        yield Point(
            "whatif names the rule line", "each row", "each row" if by_line else "no", by_line
        )
        after = self._files()
        yield Point(
            "whatif writes nothing", "no file", f"{len(after - before)} files", after == before
        )

    def _whatif(self, rules: Path) -> dict[str, Any]:
        """Asked in an empty folder, with a temporary folder inside it."""
        private = self.folder / "whatif"
        env = {"TMPDIR": str(private / "tmp"), "PYTHONPATH": str(REPOSITORY)}
        words = ("whatif", str(CASE), "--rules", str(rules), "--json")
        found: dict[str, Any] = json.loads(mirrorpoint(*words, cwd=private, env=env))
        return found

    def _files(self) -> set[tuple[str, int]]:
        """Every file of the case and below our folder (states, rules, where whatif runs), dated."""
        self.state("A")
        files = [p for top in (CASE, self.folder) for p in top.rglob("*") if p.is_file()]
        return {(str(p), p.stat().st_mtime_ns) for p in files}

    def _more_percent(self) -> Path:
        """The shipped rules with a higher rate for one partner."""
        rules = self.folder / "rules"
        shutil.copytree(REPOSITORY / "rules", rules)
        file = rules / "partners" / f"{PARTNER}.toml"
        text, changed = re.subn(
            rf'(?m)^(rate\s*=\s*)"{OLD_PERCENT}%"',
            rf'\1"{NEW_PERCENT}%"',
            file.read_text(),
            count=1,
        )
        if not changed:
            raise FellShort(f"{file.name} has no rate of {OLD_PERCENT} %")
        file.write_text(text)
        return rules

    def _by_hand(self) -> dict[str, int]:
        # Attributed and confirmed; some of them too small for a whole point at the old rate.
        worth = {
            str(row["conversion_id"])
            for row in self.rows(
                "A",
                f"SELECT conversion_id FROM conversions WHERE partner = '{PARTNER}'"
                " AND (points > 0 OR toString(reason) = 'no_points')",
            )
        }
        amounts: dict[str, Any] = {}
        for file in sorted(p for p in CASE.iterdir() if p.is_file()):
            with open(file, "rb") as first:
                if first.readline().startswith(b"# mirrorpoint purchases"):
                    amounts |= by_hand.last_amounts(file, PARTNER)
        return by_hand.difference(amounts, worth, OLD_PERCENT, NEW_PERCENT, PER_POINT)

    def wire(self) -> Iterator[Point]:
        """Packets per second at 10,000 live flows, and that every path finds what is there."""
        traffic = Traffic(packets=self.packets, live=10_000)
        report = wire.measure_round(traffic, self.runs, None, False, wire.on_terminal)
        wrong = report.wrong
        yield Point("right answers on made traffic", "all", "; ".join(wrong) or "all", not wrong)
        yield fast("traffic made", report.figures[wire.GENERATE], MADE_PER_SECOND)
        # Judged by what the command itself prints of its reading; the clock outside knows its start.
        began, rate = report.slopes()[wire.INSPECT]
        whole = report.figures[wire.INSPECT]
        beside = f"; slope {rate / 1e6:.2f} after {began:.1f} s, whole {whole.rate / 1e6:.2f}"
        own = report.inspected()
        yield fast("inspect, as it prints", whole, PACKETS_PER_SECOND, own, beside)
        for name in (wire.PRODUCT_ONE, wire.PRODUCT_ALL, wire.JOURNAL_ALL):
            yield fast(name, report.figures[name], PACKETS_PER_SECOND)

    def recall(self) -> Iterator[Point]:
        """Recall over all real captures: more than is asked, which is classic pcap over Ethernet."""
        what = "http and tls rows"
        corpus = recall.find_corpus()
        if corpus is None:
            yield Point(what, f">= {RECALL:.0%}", "no corpus here (MIRRORPOINT_CORPUS)", False)
            return
        found = recall.score(corpus, wire.on_terminal)
        score = found.of("http", "tls")
        rows = score.hits + score.missed
        reached = f"{score.recall:.1%} of {rows} (precision {score.precision:.1%})"
        yield Point(what, f">= {RECALL:.0%}", reached, rows > 0 and score.recall >= RECALL)
        failed = "; ".join(f"{name}: {why}" for name, why in found.failed)
        yield Point(f"{found.files} captures read", "no crash", failed or "no crash", not failed)

    def start(self) -> Iterator[Point]:
        """Start-up of commands."""
        folder, _ = self.state("A")
        for one in start.measure_starts(folder, 5):
            asked, reached = f"<= {one.asked:.1f} s", f"{one.seconds:.2f} s"
            yield Point(f"{one.command} starts", asked, reached, one.good)


def skipped_tests(printed: str) -> Point:
    """The tests that pytest's output says were skipped; without tshark nobody asked a second one."""
    reasons: Counter[str] = Counter()
    for found in SKIPPED.finditer(printed):
        reasons[found["why"]] += int(found["times"])
    reached = "; ".join([str(reasons.total()), *(f"{n} x {why}" for why, n in reasons.items())])
    good = not any("tshark" in why for why in reasons)
    return Point("tests left out here", "none for want of tshark", reached, good)


def arguments() -> argparse.ArgumentParser:
    """What the program takes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.check_main_path", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--with-tests", action="store_true", help="also `make test` and `make test-fast`"
    )
    parser.add_argument("--only", action="append", metavar="PART", help="only these parts")
    parser.add_argument("--packets", type=int, default=4_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--visits", type=int, default=CRASH_VISITS, help="of the day that crashes")
    parser.add_argument("--json", action="store_true")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run all parts, print each point as it is known, and fail when one falls short."""
    given = arguments().parse_args(argv)
    parts = ["demo", "tests", "replay", "explain", "whatif", "crash", "start", "recall", "wire"]
    chosen = given.only or [p for p in parts if p != "tests" or given.with_tests]
    if unknown := set(chosen) - set(parts):
        sys.stderr.write(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="mirrorpoint-check-") as folder:
        check = Check(Path(folder), given.packets, given.runs, given.visits)
        return run_parts([(name, getattr(check, name)) for name in chosen], given.json)


if __name__ == "__main__":
    raise SystemExit(main())
