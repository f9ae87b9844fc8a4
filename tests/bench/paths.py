"""Our own paths over a capture file, step by step: framing, header walk, gate, the whole engine.

Each function reads the file once, from start to end, and returns what it found, so that a bench can
compare it with the truth of the generated traffic. Nothing here is faster or shorter than what the
commands do: the same reader, the same stages, the same batch size.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.capture.reader import CaptureReader
from pipeline.classify.headers import walk as walk_headers
from pipeline.classify.stage import SESSIONS_AT_ONCE, Classify
from pipeline.engine import Engine, Rows
from pipeline.kernels.circle import Circle
from pipeline.model.batches import (
    STREAMS,
    BasisBatch,
    BindingBatch,
    CircleBatch,
    SessionBatch,
    SignInBatch,
)
from pipeline.model.columns import TextColumn, no_ids
from pipeline.model.identifiers import Keys, words_of
from pipeline.model.settings import EngineSettings
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, BindingKind, ParseFor, Protocol, SessionFlag, SignIn
from pipeline.rulebook.read import load
from pipeline.run.cases import Cut
from pipeline.run.ingest import ingest
from pipeline.run.inputs import PacketFeed, read_facts
from pipeline.run.replay import SYNC_EVERY
from pipeline.store.journal import Journal
from tests.bench.traffic import Traffic

KEYS = Keys.from_seed("bench")
# 100.64.0.0/10, and the part of 2001:db8::/32 that holds 2**22 subscribers' /64.
PREFIXES = ((0, 0xFFFF_6440_0000, 106), (0x2001_0DB8_0000_0000, 0, 42))
# What the shipped partners' names end in; a file lasts seconds, so a shop is visited at most once.
SHOPS = ("acme.example", "bolt.example", "books.example", "delta.example")
BEFORE_ALL = 1  # event and receipt of every fact: long before the first packet


@dataclass
class Found:
    """What a path found: names by protocol where they were asked for, and rows by stream.

    `visits` are pairs of subscriber and partner, by a plain look at the name's end.
    """

    packets: int = 0
    payloads: int = 0
    tls: Counter[str] = field(default_factory=Counter)
    http: Counter[str] = field(default_factory=Counter)
    quic: Counter[str] = field(default_factory=Counter)
    visits: set[tuple[int, str]] = field(default_factory=set)
    rows: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)

    def all_names(self) -> Counter[str]:
        """Names by any protocol."""
        return self.tls + self.http + self.quic

    def add(self, sessions: SessionBatch, names: bool) -> None:
        """Count sessions, and the names in them."""
        self.rows["sessions"] += len(sessions)
        if not names or not len(sessions):
            return
        hosts, subscribers = sessions.host.to_list(), sessions.subscriber.tolist()
        for protocol, host, who in zip(sessions.protocol.tolist(), hosts, subscribers, strict=True):
            getattr(self, Protocol(protocol).name.lower())[host] += 1
            if (shop := ".".join(host.split(".")[-2:])) in SHOPS:
                self.visits.add((who, shop))
        repeats = sessions.flags & np.uint32(SessionFlag.REPEAT)
        self.rows["repeat"] += int(np.count_nonzero(repeats))


@contextmanager
def reader(path: Path, tally: Tally, rows: int = 4096) -> Iterator[CaptureReader]:
    """The capture's reader, as `inspect` opens it."""
    with open(path, "rb", buffering=0) as file:
        yield CaptureReader(file, source=path.name, source_id=0, tally=tally, rows=rows)


def frame(path: Path) -> Found:
    """Read and cut into packets."""
    found = Found()
    with reader(path, found.tally) as batches:
        for packets in batches:
            found.packets += len(packets)
    return found


def walk(path: Path) -> Found:
    """Read, cut, and walk all headers."""
    found = Found()
    with reader(path, found.tally) as batches:
        for packets in batches:
            heads, _ = walk_headers(packets)
            found.packets += len(packets)
            found.payloads += int(np.count_nonzero(heads["payload_captured"]))
    return found


def classify(path: Path, circle: Circle | None, *, names: bool = False, rows: int = 4096) -> Found:
    """To sessions: everybody's where there is no circle, else those of the circle's members."""
    found = Found()
    parse_for = ParseFor.EVERYONE if circle is None else ParseFor.CONSENTED
    prefixes = () if circle is None else PREFIXES
    stage = Classify(
        circle=circle,
        parse_for=parse_for,
        keys=KEYS,
        subscriber_prefixes=prefixes,
        at_once=SESSIONS_AT_ONCE,
    )
    with reader(path, found.tally, rows) as batches:
        for packets in batches:
            found.packets += len(packets)
            found.add(stage.push(packets, found.tally), names)
    found.add(stage.advance(END_OF_TIME, found.tally), names)
    return found


@contextmanager
def one_core() -> Iterator[None]:
    """All that is done meanwhile, by threads that are begun meanwhile too, is done by one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def product(path: Path, engine: Engine) -> Found:
    """To visits, decisions and clicks: what `replay` does before it stores anything."""
    found = Found(tally=engine.tally)

    def count(rows: Rows) -> None:
        for stream, batch in rows:
            found.rows[stream] += len(batch)

    _feed(path, engine, count)
    return found


def journalled(path: Path, engine: Engine, folder: Path) -> Found:
    """The same rows appended to a journal in `folder`, synced as `replay` does, sealed at the end."""
    found = Found(tally=engine.tally)
    with Journal(folder, KEYS) as journal:
        batches = 0

        def append(rows: Rows) -> None:
            nonlocal batches
            for stream, batch in rows:
                journal.append(stream, batch)
            batches += 1
            if batches % SYNC_EVERY == 0:
                journal.sync()

        _feed(path, engine, append)
        journal.seal()
        journal.sync()
        found.rows.update({stream: journal.rows(stream) for stream in STREAMS})
    return found


def _feed(path: Path, engine: Engine, emit: Callable[[Rows], None]) -> None:
    """One capture through the engine, without facts and cuts."""
    feed = PacketFeed([path], engine.tally)
    try:
        ingest(engine, read_facts([], engine.tally), feed, emit=emit, make_cut=no_cut)
    finally:
        feed.close()


def no_cut(cut: Cut) -> None:
    """There are none here."""
    raise AssertionError(cut)


def addresses(subscribers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The IPv4 address and IPv6 /64 of generated subscribers: high words, low words, lengths."""
    count, index = len(subscribers), subscribers.astype(np.uint64)
    hi = np.concatenate([np.zeros(count, np.uint64), np.uint64(0x2001_0DB8_0000_0000) + index])
    lo = np.concatenate([np.uint64(0xFFFF_6440_0000) + index, np.zeros(count, np.uint64)])
    length = np.repeat(np.array([128, 64], np.uint8), count)
    return hi, lo, length


def circle_of(members: int) -> Circle:
    """A circle in which subscribers 0 to `members` hold their addresses and have consented."""
    circle = Circle(words_of(KEYS.address))
    index = np.arange(members, dtype=np.int32)
    hi, lo, length = addresses(index)
    rows = len(hi)
    long_ago = np.full(rows, BEFORE_ALL, np.int64)
    circle.bind(
        BindingBatch(
            binding_id=no_ids(rows),
            kind=np.full(rows, BindingKind.BIND, np.uint8),
            subscriber=np.tile(index, 2),
            subscriber_id=no_ids(rows),
            address_hi=hi,
            address_lo=lo,
            prefix_length=length,
            address_hash=no_ids(rows),
            login=TextColumn.repeat("", rows),
            event_ns=long_ago,
            received_ns=long_ago,
        )
    )
    circle.set_basis(
        BasisBatch(
            basis_id=no_ids(members),
            subscriber=index,
            subscriber_id=no_ids(members),
            state=np.full(members, Basis.CONSENTED, np.uint8),
            terms=TextColumn.repeat("v1", members),
            login=TextColumn.repeat("", members),
            event_ns=long_ago[:members],
            received_ns=long_ago[:members],
        )
    )
    return circle


def engine_of(traffic: Traffic, members: int) -> Engine:
    """An engine with the shipped rules that knows who signed in and who consented."""
    settings = EngineSettings(parse_for=ParseFor.CONSENTED, subscriber_prefixes=PREFIXES)
    engine = Engine(load(None), KEYS, b"bench", settings)
    logins = TextColumn.of([f"subscriber-{n:07}" for n in range(members)])
    long_ago = np.full(members, BEFORE_ALL, np.int64)
    row = np.arange(1, members + 1, dtype=np.int64)
    engine.circle_changes(
        CircleBatch(
            row=row,
            login=logins,
            state=np.full(members, Basis.CONSENTED, np.uint8),
            terms=TextColumn.repeat("v1", members),
            event_ns=long_ago,
            received_ns=long_ago,
        )
    )
    hi, lo, length = addresses(np.arange(members))
    for half in (slice(0, members), slice(members, 2 * members)):
        engine.sign_ins(
            SignInBatch(
                row=row,
                kind=np.full(members, SignIn.START, np.uint8),
                login=logins,
                address_hi=hi[half],
                address_lo=lo[half],
                prefix_length=length[half],
                event_ns=long_ago,
                received_ns=long_ago,
            )
        )
    return engine
