"""The fold of sessions into visits, told slowly: lists, dicts, and a search wherever one is needed.

A session is a `Session`, a fact a `Fact`; what comes out are the versions in their order, as dicts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.model.words import Arrival, Protocol, VisitTrigger

FOREVER = 2**63 - 1


@dataclass
class Session:
    first_ns: int
    watermark_ns: int
    subscriber: int
    owner: tuple[str, str] | None  # ("partner", id), ("tracker", class), ("draft", id) or nobody
    address: tuple[int, int]
    protocol: Protocol = Protocol.TLS
    document: bool = False
    mark: str = ""
    referred: bool = False
    unreliable: bool = False
    hidden: bool = False  # the stage has to drop it, and so one that is weak, whoever it names
    weak: bool = False
    basis: int = 2
    packet: int = 0
    flow: int = 0  # 0: one of its own

    @property
    def flow_number(self) -> int:
        return self.flow or self.packet


@dataclass
class Fact:
    prefix: tuple[int, int, int]
    subscriber: int  # -1: an end
    event_ns: int
    received_ns: int


@dataclass
class Policy:
    gap: int
    lateness: int
    guard: int
    window: int


@dataclass
class Visit:
    number: int
    subscriber: int
    partner: str
    opener: Session
    sessions: list[Session] = field(default_factory=list)
    ambiguous: bool = False
    tracker: tuple[int, str] = (0, "")
    mark: str = ""
    arrival: Arrival = Arrival.UNSEEN
    document: Session | None = None
    version: int = 0
    changed: bool = False

    @property
    def first_ns(self) -> int:
        return min(s.first_ns for s in self.sessions)

    @property
    def last_ns(self) -> int:
        return max(s.first_ns for s in self.sessions)


def inside(address: tuple[int, int], prefix: tuple[int, int, int]) -> bool:
    shift = 128 - prefix[2]
    return (address[0] << 64 | address[1]) >> shift == (prefix[0] << 64 | prefix[1]) >> shift


class Folder:
    """`facts` are all facts there will ever be; a question names what is known."""

    def __init__(self, policy: Policy, facts: list[Fact]) -> None:
        self.policy, self.facts = policy, facts
        self.waiting = sorted(facts, key=lambda fact: fact.received_ns)
        self.watermark = -FOREVER
        self.open: list[Visit] = []
        self.passes: list[tuple[int, int, str]] = []  # subscriber, time, class
        self.opened = 0
        self.out: list[dict] = []

    def run(self, sessions: list[Session]) -> list[dict]:
        for session in sessions:
            self.push(session)
        self.pass_time(FOREVER)
        return self.out

    def push(self, session: Session) -> None:
        self.pass_time(max(session.watermark_ns, self.watermark))
        self.watermark = max(session.watermark_ns, self.watermark)
        if session.subscriber < 0:
            return
        if session.unreliable:
            self.doubt(session)
        self.take(session)

    def doubt(self, session: Session) -> None:
        """What the flow of this session opened, or showed the document of, is in doubt."""
        for visit in self.open:
            told = [s.flow_number for s in (visit.opener, visit.document) if s]
            own = visit.subscriber == session.subscriber and session.flow_number in told
            if own and not visit.ambiguous:
                visit.ambiguous = True
                self.write(visit, VisitTrigger.MARKED)

    def take(self, session: Session) -> None:
        if session.owner is None or session.owner[0] == "draft":
            return
        kind, name = session.owner
        if kind == "tracker":
            self.tracker(session, name)
            return
        visit = self.visit_of(session, name)
        opens = visit is None
        if visit is None:
            visit = Visit(self.opened, session.subscriber, name, session)
            self.opened += 1
            self.open.append(visit)
        trigger = self.join(visit, session)
        if opens:
            self.write(visit, VisitTrigger.OPENED)
        elif trigger:
            self.write(visit, trigger)

    def visit_of(self, session: Session, partner: str) -> Visit | None:
        near = [
            visit
            for visit in self.open
            if (visit.subscriber, visit.partner) == (session.subscriber, partner)
            and visit.first_ns - session.first_ns < self.policy.gap
            and session.first_ns - visit.last_ns < self.policy.gap
        ]
        return min(near, key=lambda visit: (visit.first_ns, visit.number), default=None)

    def join(self, visit: Visit, session: Session) -> VisitTrigger | None:
        trigger = None
        visit.sessions.append(session)
        visit.changed = True
        if not visit.tracker[0] and session.first_ns == visit.first_ns:
            seen = [(t, n) for s, t, n in self.passes if s == visit.subscriber]
            last = max((t for t, _ in seen if t <= visit.first_ns), default=-FOREVER)
            if visit.first_ns - last <= self.policy.window:
                # Of passes at the same moment the one seen last counts.
                visit.tracker = [one for one in seen if one[0] == last][-1]
                trigger = VisitTrigger.MARKED
        doubtful = session.unreliable or self.is_ambiguous(session, self.watermark)
        if not visit.ambiguous and doubtful:
            visit.ambiguous = True
            trigger = VisitTrigger.MARKED
        if session.mark and not visit.mark:
            visit.mark, visit.arrival = session.mark, Arrival.AFFILIATE
            trigger = VisitTrigger.MARKED
        first_document = session.document and visit.document is None
        if not visit.mark and (len(visit.sessions) == 1 or first_document):
            visit.arrival = Arrival.UNSEEN
            if session.protocol == Protocol.HTTP:
                visit.arrival = Arrival.REFERRED if session.referred else Arrival.DIRECT
        if first_document:
            visit.document = session
            trigger = VisitTrigger.DOCUMENT
        return trigger

    def tracker(self, session: Session, name: str) -> None:
        oldest = self.watermark - self.policy.lateness - self.policy.window
        if session.first_ns >= oldest:
            self.passes = [p for p in self.passes if p[0] != session.subscriber or p[1] >= oldest]
            self.passes.append((session.subscriber, session.first_ns, name))
        for visit in self.open:
            before = visit.first_ns - session.first_ns
            if visit.subscriber == session.subscriber and 0 <= before <= self.policy.window:
                first = not visit.tracker[0]
                if session.first_ns > visit.tracker[0]:
                    visit.tracker = (session.first_ns, name)
                    visit.changed = True
                    if first:
                        self.write(visit, VisitTrigger.MARKED)

    def is_ambiguous(self, session: Session, known: int) -> bool:
        for fact in self.facts:
            if (
                fact.received_ns <= known
                and inside(session.address, fact.prefix)
                and fact.subscriber != session.subscriber
                and abs(fact.event_ns - session.first_ns) <= self.policy.guard
            ):
                return True
        return self.holder(session.address, session.first_ns, known) != session.subscriber

    def holder(self, address: tuple[int, int], t: int, known: int) -> int:
        prefixes = {fact.prefix for fact in self.facts if inside(address, fact.prefix)}
        for prefix in sorted(prefixes, key=lambda p: -p[2]):
            facts = [
                (fact.event_ns, fact.received_ns, row, fact.subscriber)
                for row, fact in enumerate(self.facts)
                if fact.prefix == prefix and fact.event_ns <= t and fact.received_ns <= known
            ]
            if facts and max(facts)[3] >= 0:
                return max(facts)[3]
        return -1

    def pass_time(self, until: int) -> None:
        while True:
            due = min(self.open, key=lambda v: (v.last_ns, v.number), default=None)
            due_ns = FOREVER
            if due is not None:
                due_ns = due.last_ns + self.policy.gap + self.policy.lateness
            received = self.waiting[0].received_ns if self.waiting else FOREVER
            if due is not None and due_ns < until and due_ns < received:
                self.write(due, VisitTrigger.CLOSED)
                self.open.remove(due)
            elif self.waiting and received <= until:
                self.apply(self.waiting.pop(0))
            else:
                return

    def apply(self, fact: Fact) -> None:
        known = max(fact.received_ns, self.watermark)
        for visit in self.open:
            touched = [s for s in visit.sessions if inside(s.address, fact.prefix)]
            if (
                not visit.ambiguous
                and visit.subscriber != fact.subscriber
                and any(
                    abs(s.first_ns - fact.event_ns) <= self.policy.guard
                    or self.holder(s.address, s.first_ns, known) != visit.subscriber
                    for s in touched
                )
            ):
                visit.ambiguous = True
                self.write(visit, VisitTrigger.MARKED)

    def pause(self) -> None:
        self.pass_time(self.watermark)
        for visit in self.open:
            if visit.changed:
                self.write(visit, VisitTrigger.PAUSED)
        self.watermark = -FOREVER

    def write(self, visit: Visit, trigger: VisitTrigger) -> None:
        visit.version += 1
        visit.changed = False
        document = visit.document
        protocols = [session.protocol for session in visit.sessions]
        self.out.append(
            {
                "visit": visit.number,
                "version": visit.version,
                "trigger": trigger,
                "subscriber": visit.subscriber,
                "partner": visit.partner,
                "basis": visit.sessions[-1].basis,
                "ambiguous": visit.ambiguous,
                "arrival": visit.arrival,
                "opened_ns": visit.opener.first_ns,
                "packet": visit.opener.packet,
                "first_ns": visit.first_ns,
                "last_ns": visit.last_ns,
                "sessions": len(protocols),
                "http": protocols.count(Protocol.HTTP),
                "tls": protocols.count(Protocol.TLS),
                "quic": protocols.count(Protocol.QUIC),
                "documents": sum(session.document for session in visit.sessions),
                "document_ns": document.first_ns if document else 0,
                "document_packet": document.packet if document else 0,
                "tracker": visit.tracker,
                "mark": visit.mark,
            }
        )
