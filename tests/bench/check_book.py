"""Every figure asked of the book beside what was reached; fails when one falls short.

    python -m tests.bench.check_book [--only WORD]... [--seeds N] [--conversions N] [--json]

The program behind `make check-book`: the book's suite on both databases with nothing left out, the
bench (`tests/bench/book.py`), accrual of a million changed conversions (`tests/bench/accrual.py`)
and `mirrorpoint simulate` over fresh seeds.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
from collections.abc import Callable, Iterator

from tests.bench.check_main_path import REPOSITORY, mirrorpoint, run
from tests.bench.judge import FellShort, Point, run_parts

SQLITE_TRANSFERS, POSTGRESQL_TRANSFERS = 20_000, 5_000
BALANCE_MS = 1.0
SEEDS, CONVERSIONS, ACCRUED = 1_000, 50_000, 1_000_000
MEMORY_GROWS = 1.25  # what a million conversions hold beside what the first 65,536 do
SUITES = ("tests/ledger", "tests/naive", "tests/sim", "tests/store", "tests/score")
PASSED = re.compile(r"(\d+) passed")


def suite() -> Iterator[Point]:
    """The book's tests, on SQLite and PostgreSQL; what is missing fails instead of being left out."""
    there = [name for name in SUITES if (REPOSITORY / name).is_dir()]
    printed = run(
        sys.executable, "-m", "pytest", "-q", "--numprocesses", "2", "--dist", "loadfile", *there,
        env={"CI": "true"},
    )  # fmt: skip
    found = PASSED.search(printed)
    passed = int(found[1]) if found else 0
    skipped = re.search(r"(\d+) skipped", printed)
    reached = f"{passed} passed, {skipped[1] if skipped else 0} skipped"
    yield Point("the suite on both databases", "all pass, none skipped", reached, not skipped)


def bench(conversions: int) -> Iterator[Point]:
    """Durable transfers a second, commits, and the balance read."""
    told = json.loads(run(sys.executable, "-m", "tests.bench.book", str(conversions), "--json"))
    rate, of_cpu = told["sqlite_transfers_per_second"], told["sqlite_transfers_per_cpu_second"]
    plain = told["plain_inserts_per_second"]
    beside = f"{of_cpu:,.0f} a CPU second, {rate / plain:.2f} of a plain INSERT loop"
    yield Point(
        "SQLite, durable transfers", f">= {SQLITE_TRANSFERS:,}/s", f"{rate:,.0f}/s, {beside}",
        rate >= SQLITE_TRANSFERS,
    )  # fmt: skip
    p99 = told["sqlite_p99_commit_ms"]
    yield Point("SQLite, p99 commit of 1,000", "printed", f"{p99:.0f} ms", True)
    rate, p99 = told["postgresql_transfers_per_second"], told["postgresql_p99_commit_ms"]
    reached = f"{rate:,.0f}/s, p99 commit {p99:.0f} ms"
    asked = f">= {POSTGRESQL_TRANSFERS:,}/s"
    good = rate >= POSTGRESQL_TRANSFERS
    yield Point("PostgreSQL, durable transfers", asked, reached, good)
    half, most = told["balance_read_ms_p50"], told["balance_read_ms_p99"]
    reached = f"p50 {half:.2f} ms, p99 {most:.2f} ms"
    yield Point("balance, a million members", f"< {BALANCE_MS:g} ms", reached, half < BALANCE_MS)


def accrual() -> Iterator[Point]:
    """A million changed conversions at one cut."""
    printed = run(sys.executable, "-m", "tests.bench.accrual", "--rows", str(ACCRUED), "--json")
    for name, told in json.loads(printed).items():
        if name == "machine":
            continue
        rate, first, most = told["rows"] / told["seconds"], told["first_bytes"], told["most_bytes"]
        grown = most / first
        reached = f"{rate:,.0f} rows/s, {most / 1e6:,.0f} MB, {grown:.2f} times the first block's"
        asked = f"<= {MEMORY_GROWS:g} times"
        yield Point(f"accrual of a million, {name}", asked, reached, grown <= MEMORY_GROWS)


def simulation(seeds: int) -> Iterator[Point]:
    """`mirrorpoint simulate` over seeds that nobody has seen."""
    first = secrets.randbelow(2**31)
    try:
        printed = mirrorpoint("simulate", "--seed", str(first), "--seeds", str(seeds), "--json")
    except FellShort as why:
        yield Point("simulate", "no difference", f"from seed {first}: {why}", False)
        return
    told = json.loads(printed)
    reached = f"{told['seeds']:,} seeds from {first}, {told['steps']:,} steps, no difference"
    yield Point("simulate", f"{seeds:,} fresh seeds", reached, told["seeds"] == seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], metavar="WORD")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--conversions", type=int, default=CONVERSIONS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    parts: list[tuple[str, Callable[[], Iterator[Point]]]] = [
        ("bench", lambda: bench(given.conversions)),
        ("accrual", accrual),
        ("simulation", lambda: simulation(given.seeds)),
        ("suite", suite),
    ]
    wanted = [part for part in parts if not given.only or part[0] in given.only]
    if not wanted:
        parser.error(f"--only names none of {', '.join(name for name, _ in parts)}")
    sys.exit(run_parts(wanted, given.json))


if __name__ == "__main__":
    main()
