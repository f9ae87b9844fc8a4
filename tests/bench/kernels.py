"""Every kernel's bytes a row and its share of the memory's bandwidth, as the docstrings quote them.

    python -m tests.bench.kernels [--packets N] [--runs R] [--json]

The product's own calls are timed where they are made, on made traffic and made facts. A row is what
the kernel's loop takes one of: a packet, a session, a text, a slot. Its bytes are those of the
columns and records that it reads and writes, each once, and what it reads of payloads and texts; of
a table, the rows that are looked at. The bandwidth is what a copy reads and writes a second on this
machine, of arrays that fit in no cache: a share beyond one means that the cache did the work.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from pipeline.capture.pcapng_kernels import ROWS
from pipeline.classify.http2 import open_block
from pipeline.classify.layers_kernels import HEADER
from pipeline.classify.stage import Classify
from pipeline.classify.state_kernels import HOLDING, SLOT
from pipeline.enrich import directory
from pipeline.enrich.state_kernels import COUNT_NODES, NODE_VISIT
from pipeline.enrich.visits import Limits as VisitLimits
from pipeline.enrich.visits import VisitState
from pipeline.kernels.circle import FACT, PREFIX, STANDING
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor
from pipeline.score.limits_kernels import COUNTERS
from pipeline.score.rate import rated
from tests.bench import accrual, paths
from tests.bench.containers import as_pcapng
from tests.bench.figures import machine
from tests.bench.pathological import PATHOLOGIES
from tests.bench.traffic import Traffic, generate
from tests.classify import frames
from tests.score.making import NOON

COPIED_BYTES = 1 << 28
HELLO_BYTES = 60  # of payloads, a packet of the made traffic: 24 packets in a thousand have a hello
Call = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """Where a kernel is called, and what a call's arguments and result say of rows and bytes."""

    module: str
    name: str
    rows: Callable[[Call, Any], int]
    bytes: Callable[[Call, int], float]  # of a call, from its arguments and rows


def _texts(data: np.ndarray, offsets: np.ndarray) -> int:
    return int(offsets[-1] - offsets[0]) + offsets.nbytes


def _each(size: int) -> Callable[[Call, int], float]:
    return lambda _, rows: float(size * rows)


C, K, E = "pipeline.classify.", "pipeline.kernels.", "pipeline.enrich."
LINE = HEADER.itemsize
KERNELS = (
    Kernel("pipeline.capture.pcap", "frame_pcap", lambda a, _: int(a[-1][1]), _each(16 + 24)),
    Kernel("pipeline.capture.pcapng", "frame_pcapng", lambda a, _: int(a[4][ROWS]), _each(32 + 28)),
    Kernel(C + "headers", "walk_headers", lambda a, _: len(a[1]), _each(22 + 60 + LINE)),
    Kernel(C + "stage", "pass_gate", lambda a, _: len(a[11]), _each(LINE + 8 + 5 + 1)),
    Kernel(
        C + "stage", "track_packets", lambda a, r: int(r - a[21]),
        _each(LINE + 8 + 4 + 5 + 9 + SLOT.itemsize + HELLO_BYTES),
    ),
    Kernel(C + "quality", "watch_packets", lambda a, r: int(r - a[11]), _each(8 + 8 + 8)),
    Kernel(C + "quality", "thin_out", lambda a, _: len(a[0]), _each(24)),
    Kernel(C + "stage", "copy_flows", lambda a, _: len(a[0]), lambda a, rows: rows * (64 + 64) + len(a[1]) * 24),
    Kernel(C + "stage", "forget_flows", lambda a, _: len(a[0]), _each(SLOT.itemsize)),
    Kernel(C + "stage", "advance_track", lambda a, _: len(a[3]), _each(HOLDING.itemsize)),
    Kernel(C + "fragments", "join_fragments", lambda a, r: int(r - a[-1]), _each(LINE + 8 + 5 + 2 * 600)),
    Kernel(C + "fragments", "give_up_fragments", lambda a, _: len(a[0]), lambda a, rows: float(a[0].nbytes)),
    Kernel(C + "fragments", "forget_fragments", lambda a, _: len(a[0]), lambda a, rows: float(a[0].nbytes)),
    Kernel(C + "http2", "read_request", lambda _, __: 1, lambda a, _: float(len(a[0]))),
    Kernel(K + "circle", "add_bindings", lambda a, _: len(a[2]), _each(37 + PREFIX.itemsize + FACT.itemsize)),
    Kernel(K + "circle", "add_basis", lambda a, _: len(a[2]), _each(21 + STANDING.itemsize + 24)),
    Kernel(K + "circle", "rehash", lambda a, _: len(a[1]), _each(2 * PREFIX.itemsize)),
    Kernel(E + "directory", "bases", lambda a, _: len(a[1]), _each(21 + STANDING.itemsize)),
    Kernel(K + "hosts", "lookup_hosts", lambda a, _: len(a[3]), lambda a, rows: _texts(a[1], a[2]) + rows * (4 + 3 * 8)),
    Kernel(K + "hosts", "_enter", lambda a, _: len(a[1]), _each(8 + 8 + 9 + 16)),
    Kernel(K + "rowhash", "text_words", lambda a, _: len(a[5]), lambda a, rows: _texts(a[1], a[2][a[3] : a[3] + rows + 1]) + rows * 8),
    Kernel(K + "rowhash", "siphash128_words", lambda a, _: len(a[2]), lambda a, rows: a[2].nbytes + rows * 16),
    Kernel(E + "stage", "fold", lambda a, _: len(a[2].code), _each(150)),
    Kernel(E + "directory", "prefix_fact", lambda _, __: 1, _each(PREFIX.itemsize + FACT.itemsize)),
    Kernel(E + "visits", "relink", lambda a, _: int(a[0].counts[COUNT_NODES]), _each(40)),
    Kernel("pipeline.score.limits", "give_points", lambda a, _: len(a[2]), _each(16 * COUNTERS + 34)),
    Kernel(E + "stage", "find_marks", lambda a, _: len(a[0]), lambda a, rows: _texts(a[1], a[2]) + rows * 5),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """What a kernel's calls came to: bytes a row, and nanoseconds a row in the median run."""

    name: str
    rows: int
    bytes: float
    nanoseconds: float
    share: float

    def __str__(self) -> str:
        return (
            f"{self.name:18} {self.rows:11,} rows {self.bytes:7.0f} bytes"
            f" {self.nanoseconds:9.1f} ns a row {self.share:7.1%}"
        )


Sums = dict[str, list[float]]  # by kernel: rows, bytes, seconds


@contextmanager
def watched() -> Iterator[Sums]:
    """Time the calls of every kernel meanwhile."""
    sums: Sums = defaultdict(lambda: [0.0, 0.0, 0.0])

    def timed(one: Kernel, call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = call(*arguments)
            seconds = time.perf_counter() - began
            rows = one.rows(arguments, result)
            for place, more in enumerate((rows, one.bytes(arguments, rows), seconds)):
                sums[one.name][place] += more
            return result

        return timing

    with ExitStack() as stack:
        for one in KERNELS:
            module = importlib.import_module(one.module)
            call = getattr(module, one.name)
            stack.enter_context(patch.object(module, one.name, timed(one, call)))
        yield sums


def call_all(folder: Path, traffic: Traffic, members: int) -> None:
    """Every kernel through whoever calls it in the product."""
    plain = folder / "plain.pcap"
    paths.classify(plain, None)
    paths.classify(folder / "newer.pcapng", None)
    paths.classify(plain, paths.circle_of(members))
    with tempfile.TemporaryDirectory(dir=folder) as journal:
        paths.journalled(plain, paths.engine_of(traffic, members), Path(journal))
    stage = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=paths.KEYS)
    for name in ("first fragments", "half-open hellos"):
        PATHOLOGIES[name].feed(20_000, stage, Tally())
    stage.forget(np.arange(4))
    stage.advance(END_OF_TIME, Tally())
    for _ in range(100):
        open_block(frames.request_block("shop.example", "/offer"), (np.uint64(1), np.uint64(2)))
    circle = paths.circle_of(members)
    for who in range(100):
        place = np.uint64(0xFFFF_6440_0000 + who)
        directory.prefix_fact(circle.arrays, np.uint64(0), place, 128, END_OF_TIME)
    rated(next(accrual.made(20_000, items=False)), accrual.rulebook(accrual.LIMITED), NOON)
    visits = VisitState(VisitLimits())
    nodes = VisitLimits().sessions
    visits.arrays.counts[COUNT_NODES] = nodes
    visits.arrays.node_links[:, NODE_VISIT] = 0
    visits.arrays.node_lo[:] = np.arange(nodes)
    visits.make_room(2 * nodes, 1)


def bandwidth() -> float:
    """Bytes that one core reads and writes a second where it copies: the best of five."""
    source = np.ones(COPIED_BYTES, np.uint8)
    target = np.ones(COPIED_BYTES, np.uint8)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - began)
    return 2 * COPIED_BYTES / min(seconds)


def measure(packets: int, runs: int) -> tuple[float, list[Cost]]:
    """The bandwidth, and every kernel's cost."""
    traffic = Traffic(packets=packets, live=min(10_000, packets // 40))
    found: dict[str, list[list[float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="mirrorpoint-kernels-") as name:
        folder = Path(name)
        generate(folder / "plain.pcap", traffic)
        (folder / "newer.pcapng").write_bytes(as_pcapng((folder / "plain.pcap").read_bytes()))
        with paths.one_core():  # what another had read and cut would lie in its cache
            call_all(folder, traffic, traffic.subscribers)
            for _ in range(runs):
                with watched() as sums:
                    call_all(folder, traffic, traffic.subscribers)
                for kernel, spent in sums.items():
                    found[kernel].append(spent)
    most = bandwidth()
    costs = []
    for one in KERNELS:
        spent = [run for run in found[one.name] if run[0]]
        if not spent:
            continue
        rows, touched = spent[0][:2]
        seconds = statistics.median(run[2] for run in spent)
        costs.append(
            Cost(
                one.name, int(rows), touched / rows, seconds / rows * 1e9, touched / seconds / most
            )
        )
    return most, costs


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.kernels", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--packets", type=int, default=400_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    most, costs = measure(given.packets, given.runs)
    if given.json:
        told = {"bytes_per_second": most, "kernels": [asdict(cost) for cost in costs]}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        sys.stdout.write(
            f"{machine()}\none core copies at {most / 1e9:.1f} GB/s, read and written\n"
        )
        sys.stdout.write("".join(f"{cost}\n" for cost in costs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
