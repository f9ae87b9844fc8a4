"""Small worlds for the tests of enrich: a rulebook with short times, subscribers, sessions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.enrich.directory import Directory
from pipeline.enrich.stage import Enrich
from pipeline.enrich.visits import Limits
from pipeline.kernels.circle import Circle
from pipeline.model.batches import BindingBatch, CircleBatch, SessionBatch, SignInBatch, VisitBatch
from pipeline.model.columns import ID_DTYPE, Batch, TextColumn, concat, ids
from pipeline.model.identifiers import Keys, words_of
from pipeline.model.tally import Tally
from pipeline.model.words import BindingKind, Protocol, SessionFlag
from pipeline.rulebook.model import Policy, Rulebook
from pipeline.rulebook.read import load
from tests.naive.visits import FOREVER, Fact, Session
from tests.naive.visits import Policy as Times

KEYS = Keys.from_seed("enrich")
TINY = Limits(visits=1, sessions=1, passes=1, subscribers=1, versions=1)
HOSTS = {
    ("partner", "acme-shop"): "m.acme.example",
    ("partner", "bolt-mobile"): "bolt.example",
    ("tracker", "affiliate"): "go.trk.example",
    None: "acme.example.evil.example",
}


def v4(last: int) -> tuple[int, int]:
    """192.0.2.x as two words."""
    return 0, 0xFFFF_C000_0200 + last


def v6(net: int, host: int = 1) -> tuple[int, int]:
    """2001:db8:0:x::host as two words."""
    return 0x20010DB8 << 32 | net, host


def times(rulebook: Rulebook, policy: Times) -> Rulebook:
    """The rulebook with other times."""
    changed: Policy = replace(
        rulebook.policy,
        visit_gap_ns=policy.gap,
        lateness_ns=policy.lateness,
        guard_ns=policy.guard,
        tracker_window_ns=policy.window,
    )
    return replace(rulebook, policy=changed)


def session_batch(sessions: list[Session]) -> SessionBatch:
    """Sessions as the classifier would give them."""
    count = len(sessions)

    def column(values, dtype):
        return np.array(list(values), dtype)

    def target(s: Session) -> str:
        return ("/page?id=1&" + (f"{s.mark}=x" if s.mark else "q=2")) if s.protocol == 1 else ""

    def host(s: Session) -> str:
        if s.owner is not None and s.owner[0] == "draft":
            return "delta.example"
        return HOSTS[s.owner]

    return SessionBatch(
        first_ns=column((s.first_ns for s in sessions), np.int64),
        watermark_ns=column((s.watermark_ns for s in sessions), np.int64),
        packet_number=column((s.packet for s in sessions), np.int64),
        source_id=np.full(count, 7, np.uint16),
        protocol=column((s.protocol for s in sessions), np.uint8),
        client_hi=column((s.address[0] for s in sessions), np.uint64),
        client_lo=column((s.address[1] for s in sessions), np.uint64),
        client_port=np.full(count, 50000, np.uint16),
        server_hi=column((s.packet for s in sessions), np.uint64),
        server_lo=np.full(count, 2**64 - 1, np.uint64),
        server_port=np.full(count, 443, np.uint16),
        flow_id=ids(s.flow_number.to_bytes(16, "little") for s in sessions),
        subscriber=column((s.subscriber for s in sessions), np.int32),
        basis=column((s.basis for s in sessions), np.uint8),
        method=np.ones(count, np.uint8),
        flags=column((flags_of(s) for s in sessions), np.uint32),
        realm=np.zeros(count, np.uint32),
        host=TextColumn.of(host(s) for s in sessions),
        target=TextColumn.of(target(s) for s in sessions),
        referer=TextColumn.of("http://r.example/" if s.referred else "" for s in sessions),
        alpn=TextColumn.of("" for _ in sessions),
    )


def flags_of(s: Session) -> SessionFlag:
    """What classify would have said of it."""
    document = SessionFlag.DOCUMENT if s.document else SessionFlag(0)
    hidden = SessionFlag.HIDDEN if s.hidden else SessionFlag(0)
    hidden |= SessionFlag.WEAK if s.weak else SessionFlag(0)
    return document | hidden | (SessionFlag.UNRELIABLE if s.unreliable else SessionFlag(0))


def binding_batch(facts: list[Fact]) -> BindingBatch:
    """Facts as the directory would give them."""

    def column(values, dtype):
        return np.array(list(values), dtype)

    kinds = (BindingKind.BIND if f.subscriber >= 0 else BindingKind.END for f in facts)
    return BindingBatch.empty().with_columns(
        binding_id=np.zeros(len(facts), ID_DTYPE),
        kind=column(kinds, np.uint8),
        subscriber=column((f.subscriber for f in facts), np.int32),
        subscriber_id=np.zeros(len(facts), ID_DTYPE),
        address_hi=column((f.prefix[0] for f in facts), np.uint64),
        address_lo=column((f.prefix[1] for f in facts), np.uint64),
        prefix_length=column((f.prefix[2] for f in facts), np.uint8),
        address_hash=np.zeros(len(facts), ID_DTYPE),
        login=TextColumn.of("" for _ in facts),
        event_ns=column((f.event_ns for f in facts), np.int64),
        received_ns=column((f.received_ns for f in facts), np.int64),
    )


def circle_batch(rows: list[tuple[str, int, int, int]], terms: str = "t1") -> CircleBatch:
    """Changes of the circle: (login, state, event, received)."""
    return CircleBatch(
        row=np.arange(1, len(rows) + 1, dtype=np.int64),
        login=TextColumn.of(r[0] for r in rows),
        state=np.array([r[1] for r in rows], np.uint8),
        terms=TextColumn.repeat(terms, len(rows)),
        event_ns=np.array([r[2] for r in rows], np.int64),
        received_ns=np.array([r[3] for r in rows], np.int64),
    )


def signin_batch(rows: list[tuple[int, str, tuple[int, int, int], int, int]]) -> SignInBatch:
    """Sign-ins: (kind, login, prefix, event, received)."""
    return SignInBatch(
        row=np.arange(1, len(rows) + 1, dtype=np.int64),
        kind=np.array([r[0] for r in rows], np.uint8),
        login=TextColumn.of(r[1] for r in rows),
        address_hi=np.array([r[2][0] for r in rows], np.uint64),
        address_lo=np.array([r[2][1] for r in rows], np.uint64),
        prefix_length=np.array([r[2][2] for r in rows], np.uint8),
        event_ns=np.array([r[3] for r in rows], np.int64),
        received_ns=np.array([r[4] for r in rows], np.int64),
    )


@dataclass
class World:
    """Enrich with everything around it, driven as the engine drives it."""

    policy: Times
    members: int = 4
    limits: Limits = TINY
    rulebook: Rulebook = field(default_factory=load)
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.rulebook = times(self.rulebook, self.policy)
        self.circle = Circle(words_of(KEYS.address), 1 << 4)
        self.directory = Directory(KEYS, b"seed")
        rows = [(f"member-{n}", 2, 0, 0) for n in range(self.members)]
        self.circle.set_basis(self.directory.push_circle(circle_batch(rows), self.tally))
        self.enrich = self.fresh()
        self.out: list[VisitBatch] = []

    def fresh(self) -> Enrich:
        return Enrich(self.rulebook, self.circle, self.directory, KEYS, self.limits)

    def facts(self, facts: list[Fact]) -> None:
        batch = binding_batch(facts)
        self.circle.bind(batch)
        self.enrich.push_facts(batch)

    def block(self, sessions: list[Session], advance: bool = True) -> None:
        """One batch of sessions, and the time it took."""
        self.out.append(self.enrich.push(session_batch(sessions), self.tally))
        if advance and sessions:
            watermark = max(session.watermark_ns for session in sessions)
            self.out.append(self.enrich.advance(watermark, self.tally))

    def finish(self) -> VisitBatch:
        self.out.append(self.enrich.advance(FOREVER, self.tally))
        return concat(self.out)

    def restart(self) -> None:
        """Go on from a snapshot in a new stage."""
        snapshot = self.enrich.snapshot()
        self.enrich = self.fresh()
        self.enrich.restore(snapshot)


def run(
    policy: Times,
    facts: list[Fact],
    sessions: list[Session],
    cuts: list[int],
    *,
    restart: bool = False,
    limits: Limits = TINY,
) -> VisitBatch:
    """Everything through a world, the sessions cut after these numbers of them."""
    world = World(policy, limits=limits)
    waiting = sorted(facts, key=lambda fact: fact.received_ns)
    edges = [0, *sorted(cuts), len(sessions)]
    for start, stop in itertools.pairwise(edges):
        block = sessions[start:stop]
        until = max((s.watermark_ns for s in block), default=-1)
        due = [fact for fact in waiting if fact.received_ns <= until]
        waiting = [fact for fact in waiting if fact.received_ns > until]
        world.facts(due)
        world.block(block)
        if restart:
            world.restart()
    world.facts(waiting)
    return world.finish()


def as_dicts(batch: VisitBatch, directory: Directory) -> list[dict]:
    """Versions as the naive folder tells them."""
    numbers: dict[bytes, int] = {}
    known = {value: index for index, value in enumerate(directory.subscriber_ids.tolist())}
    rows = []
    for i in range(len(batch)):
        visit = numbers.setdefault(batch.visit_id[i].tobytes(), len(numbers))
        rows.append(
            {
                "visit": visit,
                "version": int(batch.version[i]),
                "trigger": int(batch.trigger[i]),
                "subscriber": known[batch.subscriber_id[i].tobytes()],
                "partner": batch.partner.text(i),
                "basis": int(batch.basis[i]),
                "ambiguous": bool(batch.ambiguous[i]),
                "arrival": int(batch.arrival[i]),
                "opened_ns": int(batch.opened_ns[i]),
                "packet": int(batch.packet_number[i]),
                "first_ns": int(batch.first_ns[i]),
                "last_ns": int(batch.last_ns[i]),
                "sessions": int(batch.sessions[i]),
                "http": int(batch.http[i]),
                "tls": int(batch.tls[i]),
                "quic": int(batch.quic[i]),
                "documents": int(batch.documents[i]),
                "document_ns": int(batch.document_ns[i]),
                "document_packet": int(batch.document_packet[i]),
                "tracker": (int(batch.tracker_ns[i]), batch.tracker.text(i)),
                "mark": batch.mark.text(i),
            }
        )
    return rows


def same(one: Batch, other: Batch) -> bool:
    """Are two batches equal in every column?"""
    assert type(one) is type(other)
    return len(one) == len(other) and all(
        _equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__
    )


def _equal(one, other) -> bool:
    if isinstance(one, TextColumn):
        return one.to_list() == other.to_list()
    return one.tobytes() == other.tobytes()


def http(first_ns: int, **more) -> Session:
    """A document of acme over plain HTTP by member 0 from its address."""
    return _session(first_ns, Protocol.HTTP, {"document": True} | more)


def tls(first_ns: int, **more) -> Session:
    """A TLS session with acme by member 0 from its address."""
    return _session(first_ns, Protocol.TLS, more)


def _session(first_ns: int, protocol: Protocol, more: dict) -> Session:
    values = {
        "first_ns": first_ns,
        "watermark_ns": first_ns,
        "subscriber": 0,
        "owner": ("partner", "acme-shop"),
        "address": v4(1),
        "protocol": protocol,
        "packet": first_ns,
    }
    return Session(**values | more)
