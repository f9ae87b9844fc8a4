"""`mirrorpoint warm`: every kernel compiled and kept, so that no later command waits for it.

Compiling is most of what a first run costs (a minute or two of one core), so `make demo` does it
where people can see it happen. No list of kernels and argument types has to be kept in step with
the code: the bundled day is inspected and replayed, into a folder that is removed, and so calls
what every command calls; the few kernels that such a short day never needs (a table that has to
grow, fragments) are called by name. Numba's own events say what is being compiled.

What was done is noted in the cache folder, with the state of the kernels' files. A second call
finds the note and is done.
"""

from __future__ import annotations

import io
import re
import struct
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import numpy as np

from pipeline.kernels.compile import CACHE, PACKAGE, kernel_sources, records

from numba.core import event  # isort: skip  (after the cache folder has been set)

NOTE = "warm"
COMPILE = "numba:compile"
DECORATOR = re.compile(r"^@(?:kernel|primitive|routine)\b", re.MULTILINE)


def warm() -> int:
    """Compile what is not compiled yet; the exit code (0)."""
    if CACHE is None:
        click.echo("No folder for compiled kernels can be written (MIRRORPOINT_CACHE names one);")
        click.echo("they will be compiled whenever a command starts.")
        return 0
    note, state = CACHE / NOTE, _state_of_sources()
    if note.exists() and note.read_text() == state:
        click.echo("kernels: ready")
        return 0
    started = time.monotonic()
    with _Progress(_count_kernels()) as progress:
        _run_everything()
    note.write_text(state)
    seconds = time.monotonic() - started
    click.echo(f"kernels: {progress.compiled} compiled in {seconds:.0f} s, kept in {CACHE}")
    return 0


def _state_of_sources() -> str:
    """What Numba looks at before it trusts a cached kernel: path, time and size of its source."""
    lines = []
    for path in kernel_sources():
        found = path.stat()
        lines.append(f"{path} {found.st_mtime_ns} {found.st_size}\n")
    return "".join(lines)


def _count_kernels() -> int:
    return sum(len(DECORATOR.findall(path.read_text())) for path in kernel_sources(PACKAGE))


def _run_everything() -> None:
    """Inspect and replay the bundled day, into nothing."""
    from pipeline.run.inspect import inspect
    from pipeline.run.replay import open_case_state, plan_of, replay
    from pipeline.run.shipped import shipped_case

    case = shipped_case()
    captures = tuple(sorted(case.glob("*.pcap")))
    inspect(captures, "jsonl", io.StringIO())
    plan = plan_of([case], None)
    with (
        tempfile.TemporaryDirectory(prefix="mirrorpoint-warm-") as private,
        open_case_state(Path(private) / "state", plan) as (state, poll),
    ):
        replay(plan, state, None, poll)
    _grow_tables()
    _join_fragments()
    _frame_pcapng()
    _open_header_block()
    _give_points()


def _grow_tables() -> None:
    """Call the kernels that only a table that has become too small needs, on empty tables."""
    from pipeline.classify import state_kernels as state
    from pipeline.classify.flows_kernels import copy_flows
    from pipeline.classify.quality import MirrorQuality
    from pipeline.enrich.state_kernels import relink
    from pipeline.enrich.visits import Limits, VisitState
    from pipeline.kernels.circle import Circle, rehash

    slots, queue = records(state.SLOT, 2), records(state.QUEUED, 2)
    copy_flows(slots, queue, records(state.DESK, 1), slots.copy(), queue.copy())
    MirrorQuality(2, directed=False).thin_out(0)
    circle = Circle(np.zeros(2, np.uint64), capacity=2).arrays
    rehash(circle, circle.prefixes)
    relink(VisitState(Limits()).arrays)


def _join_fragments() -> None:
    """Call the kernels that only captures with fragments of IP packets need, with no packets."""
    from pipeline.classify.fragments import Fragments
    from pipeline.classify.gate_kernels import own_prefixes
    from pipeline.classify.layers_kernels import HEADER
    from pipeline.model.batches import PacketBatch

    key = np.zeros(2, np.uint64)
    subscriber, basis = np.zeros(0, np.int32), np.zeros(0, np.uint8)
    packets = PacketBatch.empty(source="", source_id=0, first_packet=1, data=np.zeros(0, np.uint8))
    fragments, heads = Fragments(1, 1, 1, key), records(HEADER, 0)
    fragments.join(packets, heads, 0, None, 0, own_prefixes(()), subscriber, basis)
    fragments.advance(0)
    fragments.forget(basis)


def _frame_pcapng() -> None:
    """Call the framer that only pcapng needs, on a section without a packet."""
    from pipeline.capture.reader import CaptureReader
    from pipeline.model.tally import Tally

    block = struct.Struct("<IIIHHqI")
    section = block.pack(0x0A0D0D0A, block.size, 0x1A2B3C4D, 1, 0, -1, block.size)
    for _ in CaptureReader(io.BytesIO(section), source="", source_id=0, tally=Tally()):
        pass


def _open_header_block() -> None:
    """Call the kernel that only HTTP/2 in clear needs, on a request without a host."""
    from pipeline.classify.http2 import open_block

    open_block(b"\x82\x84", (np.uint64(0), np.uint64(0)))


def _give_points() -> None:
    """Call the kernel that only rules with caps or budgets need, on no conversions."""
    from pipeline.score.limits_kernels import give_points

    none, few = np.zeros(0, np.int64), np.zeros(0, np.uint8)
    counter = np.zeros((0, 6), np.int64)
    give_points(none, none, none, none, none, none, counter, none, none, none, none, few, none, few)


class _Progress(event.Listener):
    """Shows on standard error which kernel is being compiled, and counts them."""

    def __init__(self, total: int) -> None:
        self.total, self.compiled = total, 0
        self._stream = sys.stderr
        self._terminal = self._stream.isatty()

    def __enter__(self) -> Self:
        if not self._terminal:
            click.echo("compiling the kernels, once per machine and version (a minute or two)")
        event.register(COMPILE, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        event.unregister(COMPILE, self)
        self._show("")

    def on_start(self, event: event.Event) -> None:
        """A kernel is about to be compiled, alone or for another that calls it."""
        name = event.data["dispatcher"].py_func.__name__
        self._show(
            f"compiling kernels: {self.compiled} of about {max(self.total, self.compiled)}  {name}"
        )

    def on_end(self, event: event.Event) -> None:
        """One more is done."""
        self.compiled += 1

    def _show(self, line: str) -> None:
        if self._terminal:
            self._stream.write(f"\r\x1b[K{line[:79]}")
            self._stream.flush()
