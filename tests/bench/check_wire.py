"""Every figure asked of the wire beside what was reached; fails when one falls short.

    python -m tests.bench.check_wire [--only PART]... [--packets N] [--large N] [--runs R] [--json]

The program behind `make check-wire`: recall and precision over the real captures beside other
readers, the whole corpus through `inspect`, and speed on made traffic: in process, whole beside
ndpiReader and nfstream on the same file, and two processes beside one.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import peers, readers, recall, rows, side_by_side, wire
from tests.bench.cores import worth
from tests.bench.figures import repeat
from tests.bench.judge import FellShort, Point, fast, run_parts
from tests.bench.readers import NFStream
from tests.bench.split import split
from tests.bench.traffic import Traffic
from tests.corpus.reading import read

FEW, MANY = 10_000, 1_000_000  # live flows
SESSIONS_PER_SECOND = {FEW: 5_000_000, MANY: 2_500_000}
WALK_PER_SECOND, GATE_TIMES_WALK = 10_000_000, 1.2
TIMES_NDPI, TIMES_NFSTREAM, TIMES_ALONE = 5.0, 8.0, 1.7
CORPUS_CPU_SECONDS = 60.0
MOMENTS = 3  # times as many runs of two processes: what shared cores do changes by the second


class Check:
    """The parts in their order; nfstream is installed into `folder` when it is first asked for."""

    def __init__(self, folder: Path, packets: int, large: int, runs: int) -> None:
        self.folder, self.packets, self.large, self.runs = folder, packets, large, runs

    def recall(self) -> Iterator[Point]:
        """Recall and precision, ours beside dpkt, ndpiReader and nfstream."""
        corpus = _corpus()
        others = readers.peers(self.folder / "recall")
        ours = {"mirrorpoint": side_by_side.ours}
        try:
            found = side_by_side.stand(corpus, ours | others, wire.on_terminal)
        finally:
            for reader in others.values():
                if isinstance(reader, NFStream):
                    reader.close()
        sys.stdout.write(side_by_side.show(found))
        mine = found["mirrorpoint"]
        for kind in rows.PROTOCOLS:
            score = mine.scores[kind]
            reached = f"{score.recall:.1%} of {score.hits + score.missed}"
            good = score.recall >= rows.LEAST_RECALL
            yield Point(f"recall of {kind}", f">= {rows.LEAST_RECALL:.0%}", reached, good)
        precision = mine.scores["all"].precision
        asked = f">= {rows.LEAST_PRECISION:.1%}"
        good = precision >= rows.LEAST_PRECISION
        yield Point("precision", asked, f"{precision:.2%}", good)
        behind = [what for what in side_by_side.short_of(found) if " has " in what]
        yield Point(
            f"beside {', '.join(others)}", "no lower", "; ".join(behind) or "no lower", not behind
        )

    def corpus(self) -> Iterator[Point]:
        """Every real capture through `inspect`: no crash, and how long it took."""
        captures = sorted(p for p in (_corpus() / "packets").iterdir() if p.is_file())
        read(captures[0], "count")  # loads the kernels
        readings = [read(capture, "count") for capture in captures]
        crashed = [reading.file for reading in readings if reading.crash]
        reached = "; ".join(crashed) or "no crash"
        yield Point(f"{len(captures)} captures", "no crash", reached, not crashed)
        seconds = sum(reading.seconds for reading in readings)
        asked = f"<= {CORPUS_CPU_SECONDS:.0f} s of CPU"
        yield Point("all of them", asked, f"{seconds:.1f} s", seconds <= CORPUS_CPU_SECONDS)

    def speed(self) -> Iterator[Point]:
        """Packets per second in process, at few and at many live flows."""
        for live, least in SESSIONS_PER_SECOND.items():
            traffic = Traffic(packets=self.packets, live=live, subscribers=max(20_000, live // 5))
            report = wire.measure_round(traffic, self.runs, None, False, wire.on_terminal)
            wrong = "; ".join(report.wrong)
            yield Point(f"{live:,} flows: right answers", "all", wrong or "all", not wrong)
            figures = report.figures
            yield fast(f"{live:,} flows: {wire.EVERYBODY}", figures[wire.EVERYBODY], least)
            yield fast(f"{live:,} flows: {wire.ALONE}", figures[wire.ALONE], least)
            if live != FEW:
                continue
            for walk, gate in ((wire.WALK, wire.ONE), (wire.WALK_ALONE, wire.ONE_ALONE)):
                yield fast(walk, figures[walk], WALK_PER_SECOND)
                times = figures[gate].seconds / figures[walk].seconds
                asked = f"<= {GATE_TIMES_WALK} times the walk"
                yield Point(gate, asked, f"{times:.2f} times", times <= GATE_TIMES_WALK)

    def beside(self) -> Iterator[Point]:
        """The whole process beside ndpiReader and nfstream on the same larger file."""
        python = peers.install_nfstream(self.folder / "speed")
        with tempfile.TemporaryDirectory(prefix="mirrorpoint-wire-") as folder:
            path = Path(folder) / "large.pcap"
            wire.made.warm()
            wire.made.generate(path, Traffic(packets=self.large, live=FEW))
            figures = repeat(
                [
                    (wire.INSPECT, self.large, lambda: wire.inspect_count(path)),
                    (wire.NDPI, self.large, lambda: peers.ndpi_names(path, Path(folder))),
                    (wire.NFSTREAM, self.large, lambda: peers.nfstream(python, path)),
                ],
                1,
                wire.on_terminal,
            )
        ours = figures[wire.INSPECT]
        for name, least in ((wire.NDPI, TIMES_NDPI), (wire.NFSTREAM, TIMES_NFSTREAM)):
            times = ours.rate / figures[name].rate
            reached = f"{times:.1f} times ({ours.rate / 1e6:.2f} M/s whole, {self.large:,} packets)"
            yield Point(f"inspect beside {name}", f">= {least:.0f} times", reached, times >= least)

    def two(self) -> Iterator[Point]:
        """Two processes on a core each, beside one process on one core, over the same packets: half
        of the larger file's, so that all of them and both halves are in memory at once. Of each
        what it says itself of its reading: a start takes as long however many there are. Beside it
        what the cores are worth meanwhile: where that is less than two, the figure tells little.
        """
        packets = self.large // 2
        with tempfile.TemporaryDirectory(prefix="mirrorpoint-wire-") as folder:
            path = Path(folder) / "whole.pcap"
            wire.made.warm()
            wire.made.generate(path, Traffic(packets=packets, live=FEW))
            halves = split(path, Path(folder))
            cores = sorted(os.sched_getaffinity(0))
            if len(cores) < 2:
                raise FellShort("this process may use one core only")
            times, worths = [], []
            for half in halves:  # into memory, as the whole file is
                _inspect_on([(half, cores[0])])
            for _ in range(MOMENTS * self.runs):
                alone = _inspect_on([(path, cores[0])])
                together = _inspect_on(list(zip(halves, cores, strict=False)))
                times.append((alone, together))
                worths.append(worth(cores[:2]))
        reading, whole = (
            statistics.median(one[which] / two[which] for one, two in times) for which in (0, 1)
        )
        rate = packets / statistics.median(one[0] for one, _ in times) / 1e6
        reached = (
            f"{reading:.2f} times ({rate:.2f} M/s on one core; with the starts {whole:.2f}; two "
            f"loops that share nothing {statistics.median(worths):.2f})"
        )
        good = reading >= TIMES_ALONE
        yield Point("two processes", f">= {TIMES_ALONE} times one", reached, good)


def _inspect_on(captures: list[tuple[Path, int]]) -> tuple[float, float]:
    """Seconds until `inspect` is done with each capture, in a process of its own on that core: what
    the slowest says of its reading, and of all by the clock.
    """
    began = time.perf_counter()
    running = []
    for path, core in captures:
        command = [*wire.command_line(), "inspect", str(path), "--format", "count", "--json"]
        pin = functools.partial(os.sched_setaffinity, 0, {core})
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=pin))
    printed = [process.communicate()[0] for process in running]
    codes = [process.returncode for process in running]
    if any(codes):
        raise FellShort(f"inspect ended with {max(codes)}")
    return max(json.loads(text)["seconds"] for text in printed), time.perf_counter() - began


def _corpus() -> Path:
    corpus = recall.find_corpus()
    if corpus is None:
        raise FellShort("no corpus here (MIRRORPOINT_CORPUS)")
    return corpus


def main(argv: list[str] | None = None) -> int:
    """Run all parts, print each point as it is known, and fail when one falls short."""
    parts = ["recall", "corpus", "speed", "beside", "two"]
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.check_wire", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--only", action="append", choices=parts, help="only these parts")
    parser.add_argument("--packets", type=int, default=4_000_000)
    parser.add_argument("--large", type=int, default=16_000_000, help="of the file for peers")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mirrorpoint-check-") as folder:
        check = Check(Path(folder), given.packets, given.large, given.runs)
        return run_parts([(n, getattr(check, n)) for n in given.only or parts], given.json)


if __name__ == "__main__":
    raise SystemExit(main())
