"""How fast packets become sessions and decisions, beside peers and limits, in one run.

    python -m tests.bench.wire [--packets N] [--flows F] [--runs R] [--quick] [--peers] [--json]

Makes its own traffic (tests/bench/traffic.py) of N/4 and of N packets, with 10,000 and with a
million live flows unless told otherwise, and takes turns over it: reading the file, the header
walk alone, the gate at 1 % and at 100 % of subscribers, the product's path to decisions,
`mirrorpoint inspect` as a whole process (start-up and slope apart, from the two sizes),
ndpiReader and dpkt. Figures are medians; what each path found is compared with what the generator
hid, and a wrong answer fails the run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engine import Engine
from tests.bench import paths, peers
from tests.bench import traffic as made
from tests.bench.figures import Figure, machine, repeat, slope
from tests.bench.traffic import Traffic, Truth

DPKT_PACKETS = 50_000
Work = tuple[str, int, Callable[[], object]]
Progress = Callable[[str], None]


@dataclass
class Report:
    """Everything one round measured, for one number of live flows."""

    traffic: Traffic
    truth: Truth
    figures: dict[str, Figure] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    # What the timed runs found: inspect's counts of each, and how many decisions were made.
    counts: list[dict[str, Any]] = field(default_factory=list)
    decisions: dict[str, list[int]] = field(default_factory=dict)
    visits: dict[str, int] = field(default_factory=dict)  # how many there are, by a plain look

    def check(self, name: str, expected: object, found: object) -> None:
        """Note a difference between what was to be found and what was."""
        if expected != found:
            self.wrong.append(f"{name}: expected {_short(expected)}, found {_short(found)}")

    def inspected(self) -> float:
        """Packets per second as `inspect` itself tells them, the median of its timed runs."""
        return statistics.median(count["packets_per_second"] for count in self.counts)

    def slopes(self) -> dict[str, tuple[float, float]]:
        """Start-up seconds and packets per second of whole processes, by name."""
        return {
            name: slope(self.figures[f"{name}, a quarter"], self.figures[name])
            for name in (INSPECT, NDPI)
            if name in self.figures and f"{name}, a quarter" in self.figures
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "parameters": asdict(self.traffic),
            "truth": self.truth.summary(),
            "figures": {name: figure.as_dict() for name, figure in self.figures.items()},
            "slopes": {
                name: {"start_seconds": start, "packets_per_second": rate}
                for name, (start, rate) in self.slopes().items()
            },
            "inspect_packets_per_second": self.inspected() if self.counts else None,
            "wrong": self.wrong,
            "missing": self.missing,
        }


GENERATE, READ, COPY = "make traffic in memory", "read the file", "copy memory"
FRAME, WALK = "cut into packets", "header walk"
EVERYBODY, ALONE = "sessions of everybody", "sessions, one core only"
WALK_ALONE, ONE_ALONE = "header walk, one core only", "gate at 1 %, one core only"
ONE, ALL = "sessions, gate at 1 %", "sessions, gate at 100 %"
PRODUCT_ONE, PRODUCT_ALL = "to decisions, gate at 1 %", "to decisions, gate at 100 %"
JOURNAL_ALL = "to the journal, gate 100 %"
INSPECT, NDPI, DPKT, NFSTREAM = "mirrorpoint inspect", "ndpiReader", "dpkt", "nfstream"


def _short(value: object) -> str:
    if isinstance(value, Counter | dict):
        return f"{sum(value.values())} names, {len(value)} different"
    return str(value)


def command_line() -> list[str]:
    """The command as it is installed beside this Python, or its module."""
    beside = Path(sys.executable).parent / "mirrorpoint"
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "pipeline.cli"]


def inspect_count(path: Path) -> dict[str, Any]:
    """`mirrorpoint inspect PATH --format count --json`, as a process of its own."""
    command = [*command_line(), "inspect", str(path), "--format", "count", "--json"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(printed)
    return found


def verify(report: Report, path: Path) -> None:
    """Does every path find exactly what was hidden? Compiles the kernels on the way."""
    truth, traffic = report.truth, report.traffic
    everyone = paths.classify(path, None, names=True)
    report.check(f"{EVERYBODY}: tls", Counter(truth.tls_hosts), everyone.tls)
    report.check(f"{EVERYBODY}: http", Counter(truth.http_hosts), everyone.http)
    report.check(f"{EVERYBODY}: quic", Counter(truth.quic_hosts), everyone.quic)
    report.check("packets", truth.packets, everyone.packets)
    gated = paths.classify(path, paths.circle_of(traffic.members), names=True)
    report.check(ONE, Counter(truth.member_hosts), gated.all_names())
    whole = paths.classify(path, paths.circle_of(traffic.subscribers), names=True)
    report.check(ALL, truth.all_hosts(), whole.all_names())
    verify_count(report, inspect_count(path))
    for name, members, sessions in (
        (PRODUCT_ONE, traffic.members, gated),
        (PRODUCT_ALL, traffic.subscribers, whole),
    ):
        found = paths.product(path, paths.engine_of(traffic, members))
        report.visits[name] = len(sessions.visits)
        report.check(f"{name}: one for each visit", len(sessions.visits), found.rows["decisions"])
    stored = to_journal(path, paths.engine_of(traffic, traffic.subscribers))
    report.visits[JOURNAL_ALL] = len(whole.visits)
    report.check(f"{JOURNAL_ALL}: one for each visit", len(whole.visits), stored.rows["decisions"])


def verify_count(report: Report, count: dict[str, Any]) -> None:
    """What `inspect` printed: one object per distinct host and flow, and a flow asks one host."""
    truth, sessions = report.truth, count["sessions"]
    report.check(f"{INSPECT}: packets", truth.packets, count["packets"])
    report.check(f"{INSPECT}: tls", truth.tls, sessions.get("tls", 0))
    report.check(f"{INSPECT}: http", truth.http_flows, sessions.get("http", 0))
    report.check(f"{INSPECT}: quic", truth.quic, sessions.get("quic", 0))


def to_journal(path: Path, engine: Engine) -> paths.Found:
    """Through the engine into a journal on the usual disk, which goes with its rows."""
    with tempfile.TemporaryDirectory(prefix="mirrorpoint-bench-") as folder:
        return paths.journalled(path, engine, Path(folder))


def our_works(report: Report, small: Path, path: Path, runs: int) -> list[Work]:
    """Our paths over the large file, the whole process over the small one too.

    Engines are made beforehand: signing in is not what is measured.
    """
    traffic, packets = report.traffic, report.traffic.packets
    few, many = paths.circle_of(traffic.members), paths.circle_of(traffic.subscribers)
    members, everybody = traffic.members, traffic.subscribers
    engines = {
        name: [paths.engine_of(traffic, who) for _ in range(runs)]
        for name, who in (
            (PRODUCT_ONE, members),
            (PRODUCT_ALL, everybody),
            (JOURNAL_ALL, everybody),
        )
    }

    def decide(name: str, way: Callable[[Path, Engine], paths.Found]) -> Work:
        def work() -> None:
            found = way(path, engines[name].pop())
            report.decisions.setdefault(name, []).append(found.rows["decisions"])

        return name, packets, work

    return [
        (GENERATE, packets, lambda: _into_nothing(traffic)),
        (READ, packets, lambda: peers.read_blocks(path)),
        (COPY, packets, lambda: peers.copy_memory(report.truth.bytes)),
        (FRAME, packets, lambda: paths.frame(path)),
        (WALK, packets, lambda: paths.walk(path)),
        (EVERYBODY, packets, lambda: paths.classify(path, None)),
        (ONE, packets, lambda: paths.classify(path, few)),
        (WALK_ALONE, packets, lambda: _on_one_core(lambda: paths.walk(path))),
        (ALONE, packets, lambda: _on_one_core(lambda: paths.classify(path, None))),
        (ONE_ALONE, packets, lambda: _on_one_core(lambda: paths.classify(path, few))),
        (ALL, packets, lambda: paths.classify(path, many)),
        decide(PRODUCT_ONE, paths.product),
        decide(PRODUCT_ALL, paths.product),
        decide(JOURNAL_ALL, to_journal),
        (f"{INSPECT}, a quarter", packets // 4, lambda: inspect_count(small)),
        (INSPECT, packets, lambda: report.counts.append(inspect_count(path))),
    ]


def _on_one_core(work: Callable[[], object]) -> None:
    with paths.one_core():
        work()


def _into_nothing(traffic: Traffic) -> None:
    with open(os.devnull, "wb", buffering=0) as nowhere:
        made.write(traffic, nowhere)


def peer_works(report: Report, small: Path, large: Path, nfstream: Path | None) -> list[Work]:
    """The peers that are here, on the same files."""
    quarter, whole = report.traffic.packets // 4, report.traffic.packets
    sample = min(DPKT_PACKETS, whole)
    works: list[Work] = [(DPKT, sample, lambda: peers.dpkt_names(large, sample))]
    if peers.ndpi_reader():
        works.append((f"{NDPI}, a quarter", quarter, lambda: peers.ndpi(small)))
        works.append((NDPI, whole, lambda: peers.ndpi(large)))
    else:
        report.missing.append("ndpiReader is not installed (Debian: libndpi-bin)")
    if nfstream is not None:
        works.append((NFSTREAM, whole, lambda: peers.nfstream(nfstream, large)))
    return works


def measure_round(
    traffic: Traffic, runs: int, nfstream: Path | None, with_peers: bool, progress: Progress
) -> Report:
    """Make the traffic, check the answers, take the times."""
    # On a disk, whose pages the system keeps in large pieces; those of /dev/shm are single ones, and
    # read a fifth slower than any file that a capture is in.
    folder = Path(tempfile.mkdtemp(prefix="mirrorpoint-bench-"))
    try:
        small, large = folder / "small.pcap", folder / "large.pcap"
        progress("making traffic")
        made.warm()
        quarter = Traffic(**{**asdict(traffic), "packets": traffic.packets // 4})
        report = Report(traffic, made.generate(large, traffic))
        report_small = Report(quarter, made.generate(small, quarter))
        progress("checking answers")
        verify(report_small, small)
        verify(report, large)
        report.wrong += report_small.wrong
        works = our_works(report, small, large, runs)
        if with_peers:
            works += peer_works(report, small, large, nfstream)
        report.figures = repeat(works, runs, progress)
        for count in report.counts:
            verify_count(report, count)
        for name, made_each in report.decisions.items():
            report.check(f"{name}, timed", {report.visits[name]}, set(made_each))
        return report
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def show(report: Report) -> str:
    """The report as text of at most 80 columns beside its parameters."""
    walk = report.figures[WALK].rate
    peer = report.figures[NDPI].rate if NDPI in report.figures else 0.0
    lines = [made.parameters(report.traffic), ""]
    lines.append(f"{'':28} {'million/s':>9} {'ns each':>8} {'x walk':>7} {'x nDPI':>7}")
    for name, figure in report.figures.items():
        rate = figure.rate
        beside = f"{rate / peer:7.1f}" if peer else " " * 7
        mark = "  busy" if figure.disturbed else ""
        lines.append(
            f"{name:28} {rate / 1e6:9.2f} {1e9 / rate:8.0f} {rate / walk:7.2f} {beside}{mark}"
        )
    lines.append("")
    for name, (start, rate) in report.slopes().items():
        lines.append(f"{name}: starts in {start:.2f} s, then {rate / 1e6:.2f} million packets/s")
    if report.counts:
        lines.append(f"{INSPECT} says of itself {report.inspected() / 1e6:.2f} million packets/s")
    lines += [f"not measured: {reason}" for reason in report.missing]
    if report.wrong:
        lines += [f"WRONG ANSWER: {reason}" for reason in report.wrong]
    else:
        truth = report.truth
        lines.append(
            f"every path found what is there ({truth.tls} hellos, {truth.quic} of QUIC, "
            f"{truth.http} requests)"
        )
    return "\n".join(lines) + "\n"


def markdown(reports: Sequence[Report]) -> str:
    """Rates of all rounds as a Markdown table, the machine in its head."""
    flows = [f"{report.traffic.live:,} live flows" for report in reports]
    head = ["million packets/s", *flows]
    lines = [f"{machine(load=False)}; {reports[0].traffic.packets:,} packets", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in dict.fromkeys(name for report in reports for name in report.figures):
        figures = [report.figures.get(name) for report in reports]
        cells = [f"{figure.rate / 1e6:.2f}" if figure else "" for figure in figures]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    said = [f"{report.inspected() / 1e6:.2f}" if report.counts else "" for report in reports]
    lines.append(f"| {INSPECT}, once started | " + " | ".join(said) + " |")
    return "\n".join(lines) + "\n"


def on_terminal(text: str) -> None:
    """Progress, to a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def arguments() -> argparse.ArgumentParser:
    """What the program takes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.wire", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--packets", type=int, default=4_000_000)
    parser.add_argument("--flows", type=int, action="append", help="live flows; may be repeated")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="400,000 packets, 10,000 flows, once")
    parser.add_argument("--peers", action="store_true", help="also nfstream (fetched from PyPI)")
    parser.add_argument("--json", action="store_true")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and fail where an answer was wrong."""
    given = arguments().parse_args(argv)
    flows = given.flows or ([10_000] if given.quick else [10_000, 1_000_000])
    packets, runs = (400_000, 1) if given.quick else (given.packets, given.runs)
    environment = tempfile.TemporaryDirectory(prefix="mirrorpoint-nfstream-")
    nfstream = None
    if given.peers:
        on_terminal("installing nfstream")
        nfstream = peers.install_nfstream(Path(environment.name))
    reports = []
    with environment:
        for live in flows:
            traffic = Traffic(
                packets=packets,
                live=live,
                seed=given.seed,
                subscribers=max(20_000, live // 5),
            )
            report = measure_round(traffic, runs, nfstream, True, on_terminal)
            reports.append(report)
            if not given.json:
                head = f"{live:,} live flows, {packets:,} packets, median of {runs}"
                sys.stdout.write(f"{machine()}\n{head}\n{show(report)}\n")
                sys.stdout.flush()
    if not given.json:
        sys.stdout.write(markdown(reports))
    else:
        found = {"machine": machine(), "rounds": [r.as_dict() for r in reports]}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 1 if any(report.wrong for report in reports) else 0


if __name__ == "__main__":
    raise SystemExit(main())
