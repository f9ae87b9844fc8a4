"""Drive the engine with one unit of input: facts no later than the packets they speak of.

Packets go through in blocks, and time passes with them. Before a block all facts and messages
received up to its last packet are pushed (the engine asks what was known when, so running ahead is
harmless), except that a block ends before a withdrawal and before a cut. Cuts are made where
case.toml puts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.capture.recognise import InputKind
from pipeline.engine import Engine, Rows, join_rows
from pipeline.model.stage import END_OF_TIME
from pipeline.run.cases import Cut
from pipeline.run.inputs import Facts, InputError, PacketFeed
from pipeline.store.crash import crash_point

Emit = Callable[[Rows], None]


@dataclass(frozen=True, slots=True)
class Barrier:
    """Where packets stop: all facts before `index`, packets before `key_ns`, then the cuts."""

    index: int
    key_ns: int
    cuts: tuple[Cut, ...] = ()


def barriers(facts: Facts, cuts: tuple[Cut, ...], withdrawals: np.ndarray) -> list[Barrier]:
    """Withdrawals (their places) and cuts of an input in order, but for cuts `after = "end"`."""
    found = [Barrier(place, int(facts.received_ns[place])) for place in withdrawals.tolist()]
    problems = []
    latest: tuple[int, ...] = ()
    for cut in cuts:
        if cut.file is None:
            continue
        index = facts.index_after(cut.file, cut.row)
        if index is None:
            problems.append(f"cut {cut.name!r}: {cut.file.name} has no row {cut.row}")
            continue
        if (index,) < latest:
            problems.append(f"cut {cut.name!r} comes before the cut listed above it")
        latest = (index,)
        found.append(Barrier(index, int(facts.received_ns[index - 1]), (cut,)))
    if problems:
        raise InputError(problems)
    order = {cut.name: number for number, cut in enumerate(cuts)}
    return sorted(found, key=lambda b: (b.index, [order[c.name] for c in b.cuts]))


def plan(
    facts: Facts, cuts: tuple[Cut, ...], withdrawals: np.ndarray
) -> tuple[list[Barrier], tuple[Cut, ...]]:
    """Barriers, with repeats behind the cut they follow, and the cuts after the end."""
    fixed = barriers(facts, cuts, withdrawals)
    placed: list[Barrier] = []
    last: list[Cut] = []
    where = {c.name: number for number, b in enumerate(fixed) for c in b.cuts}
    extra: dict[int, list[Cut]] = {}
    current: int | None = None
    for cut in cuts:
        if cut.name in where:
            current = where[cut.name]
        elif cut.repeat and current is not None and not last:
            extra.setdefault(current, []).append(cut)
        else:
            last.append(cut)
    for number, barrier in enumerate(fixed):
        more = tuple(extra.get(number, ()))
        placed.append(Barrier(barrier.index, barrier.key_ns, barrier.cuts + more))
    return placed, tuple(last)


def ingest(
    engine: Engine,
    facts: Facts,
    feed: PacketFeed,
    emit: Emit,
    make_cut: Callable[[Cut], None],
    cuts: tuple[Cut, ...] = (),
    last: bool = True,
) -> None:
    """Push everything through `engine`, hand rows to `emit` and cuts to `make_cut`.

    With `last` the input ends for good and open visits are closed; without it they are paused.
    """
    known = engine.directory.subscriber_of
    withdrawals = facts.withdrawals(engine.parse_for, lambda login: known(login) >= 0)
    places, at_end = plan(facts, cuts, withdrawals)
    at = 0
    for barrier in [*places, Barrier(len(facts), END_OF_TIME)]:
        while (taken := feed.take_before(barrier.key_ns)) is not None:
            packets, key_ns = taken
            stop = _first_after(facts, key_ns, at, barrier.index)
            emit(join_rows([row for rows in _push_facts(engine, facts, at, stop) for row in rows]))
            at = stop
            crash_point("ingest.after_facts")
            emit(join_rows(engine.packets(packets)))
            crash_point("ingest.after_packets")
        emit(join_rows([r for rows in _push_facts(engine, facts, at, barrier.index) for r in rows]))
        at = barrier.index
        if barrier.key_ns != END_OF_TIME:
            emit(join_rows(engine.advance(barrier.key_ns)))
        for cut in barrier.cuts:
            make_cut(cut)
    emit(join_rows(engine.finish() if last else engine.pause()))
    for cut in at_end:
        make_cut(cut)


def _first_after(facts: Facts, key_ns: int, start: int, stop: int) -> int:
    """The first place in `start..stop` whose row was received after `key_ns`."""
    return start + int(facts.received_ns[start:stop].searchsorted(key_ns, "right"))


def _push_facts(engine: Engine, facts: Facts, start: int, stop: int) -> Iterator[Rows]:
    push: dict[InputKind, Callable[..., Rows]] = {
        InputKind.CIRCLE: engine.circle_changes,
        InputKind.SIGNINS: engine.sign_ins,
        InputKind.MEMBERS: engine.members,
        InputKind.PURCHASES: engine.purchases,
        InputKind.ORDERS: engine.orders,
    }
    if stop > start:
        for kind, batch in facts.runs(start, stop):
            yield push[kind](batch)
