"""All of classify in plain Python: flows in a dict, streams as bytes, one packet at a time.

The rules are those of `pipeline/classify/*_kernels.py`, written down a second time: which segment
may begin a hello or a head, what is held and for how long, what is given up. A flow is found by its
ends, its turn in the queue decides who leaves, a holding is a list of pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pipeline.classify.stage import Limits
from pipeline.model.faults import Fault, Skip
from pipeline.model.words import SessionFlag
from tests.naive import http, tls
from tests.naive.datagrams import Datagram
from tests.naive.dns import read_answer
from tests.naive.headers import Header
from tests.naive.streams import (
    End,
    Flow,
    Holding,
    Now,
    Row,
    asks,
    distance,
    hello_behind,
    is_from_server,
    starts_unit,
)
from tests.naive.units import NEVER, NOT_YET, WHOLE, NaiveUnits

MASK = 0xFFFFFFFF
PAYLOAD_TAKEN_MAX = 65536
FIN, SYN, RST, ACK = 1, 2, 4, 16
NEAR_BYTES = 1 << 20


def forget(owners: list[int], gone: set[int]) -> list[int]:
    """The flows, by their number, that stay when all of these subscribers are taken out."""
    return [flow for flow, who in enumerate(owners) if who not in gone]


class NaiveClassify(NaiveUnits):
    """`Classify` without a gate: `push` takes (time_ns, number, what the header walk gave)."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008
        self.limits = limits
        self.flows = {}
        self.queue: list[tuple[tuple[str, frozenset[End]], int, int]] = []
        self.turns = 0
        self.watermark_ns = -(1 << 62)
        self.rows: list[Row] = []
        self.faults: Counter[Fault] = Counter()
        self.skips: Counter[Skip] = Counter()
        self.named = 0
        self.packets = self.paid_until = 0
        self.lost: Counter[str] = Counter()
        self.given_up = 0
        self.answers: dict[tuple[str, str], tuple[int, str]] = {}
        self.holdings: list[Flow] = []  # flows with a holding, the oldest first

    def push(self, packets: Iterable[tuple[int, int, Header | Fault | Skip]]) -> None:
        """Take packets in order."""
        for time_ns, number, header in packets:
            self.watermark_ns = max(self.watermark_ns, time_ns)
            self._expire(self.watermark_ns)
            self.packets += 1
            if isinstance(header, Fault):
                self.faults[header] += 1
            elif isinstance(header, Skip):
                self.skips[header] += 1
            else:
                if header.transport == "udp" and header.source_port == 53:
                    self._learn(time_ns, header)
                self._packet(time_ns, number, header)

    def _learn(self, time_ns: int, header: Header) -> None:
        """Remember what a DNS answer says."""
        name, addresses = read_answer(header.payload) or ("", [])
        for address in addresses:
            self.answers[header.target, address] = time_ns, name

    def _name_held(self, flow: Flow, now: Now, protocol: str) -> None:
        """A hello that never came whole, in the name of its first packet."""
        assert flow.holding
        own = now.time_ns, now.number
        now.time_ns, now.number = flow.holding.pieces[0].time_ns, flow.holding.pieces[0].number
        self.name_weakly(flow, now, protocol)
        now.time_ns, now.number = own

    def finish(self) -> None:
        """The end of time."""
        self._expire(1 << 63)

    @property
    def held(self) -> int:
        """Packets that are held."""
        return sum(flow.holding.rows for flow in self.holdings if flow.holding)

    # Flows.

    def _packet(self, time_ns: int, number: int, header: Header) -> None:
        source, target = (header.source, header.source_port), (header.target, header.target_port)
        key = (header.transport, frozenset([source, target]))
        flow = self.flows.get(key)
        if flow is None:
            flow = self._enter(key, time_ns)
        elif self._is_idle(flow):
            self._begin_again(flow, time_ns)
        flow.seen_ns = self.watermark_ns
        ended = flow.ended
        if header.transport == "tcp" and header.tcp_flags & SYN:
            self._shake_hands(flow, header, source, target, time_ns)
        elif header.transport == "tcp" and header.tcp_flags & (FIN | RST):
            flow.ended = True
        if header.payload_length == 0:
            self.skips[Skip.NO_PAYLOAD] += 1
        elif flow.client not in (None, source) and not self._turns_round(flow, header):
            self.skips[Skip.NOT_A_CLIENT] += 1
        elif flow.state == "done" and not (ended and self._is_another(flow, header)):
            self.skips[Skip.FLOW_DONE] += 1
        else:
            if ended and self._is_another(flow, header):
                self._begin_again(flow, time_ns)
            now = Now(time_ns, number, self.watermark_ns, source, target, realm=header.realm)
            sequence = (header.sequence + bool(header.tcp_flags & SYN)) & MASK
            taken = header.payload[:PAYLOAD_TAKEN_MAX]
            if header.transport == "udp":
                Datagram(self, flow, now, taken, header.payload_length).take()
            else:
                self._segment(flow, now, taken, header.payload_length, sequence)
            if header.transport == "tcp" and flow.client is None:
                if now.skip == Skip.NOT_A_CLIENT:
                    flow.client, flow.answered = target, True
                elif flow.place is not None or flow.state == "hello":
                    flow.client = source
            self._count(now)

    def _is_another(self, flow: Flow, header: Header) -> bool:
        """Does another connection speak on the ports of one that is over?"""
        places = [flow.first_sequence or 0]
        if flow.place is not None and flow.state != "hello":
            places.append(flow.place)
        far = all(abs(distance(header.sequence, place)) >= NEAR_BYTES for place in places)
        return far and asks(header.payload[:PAYLOAD_TAKEN_MAX])

    def _turns_round(self, flow: Flow, header: Header) -> bool:
        """Does the one who was taken for the server ask, and nobody has before?"""
        idle = header.transport == "tcp" and not flow.names and flow.holding is None
        idle = idle and not flow.answered
        if not (idle and flow.state in ("new", "other") and asks(header.payload)):
            return False
        self._other(flow, lost=True)
        flow.client = None
        return True

    def _count(self, now: Now) -> None:
        if now.named:
            self.named += 1
            if now.fault:
                self.faults[now.fault] += 1
        elif now.fault:
            self.faults[now.fault] += 1
        elif now.skip != Skip.HELD:
            self.skips[now.skip or Skip.PASSED] += 1

    def _is_idle(self, flow: Flow) -> bool:
        return self.watermark_ns - flow.seen_ns > self.limits.idle_ns

    def _enter(self, key: tuple[str, frozenset[End]], time_ns: int) -> Flow:
        for _ in range(2):
            if not self.queue:
                break
            first, turn, queued_ns = self.queue[0]
            flow = self.flows.get(first)
            if flow is None or flow.turn != turn:
                self.queue.pop(0)
            elif self._is_idle(flow):
                self.queue.pop(0)
                self._leave(first)
            elif flow.seen_ns > queued_ns:
                self.queue.pop(0)
                self._queue(first, flow)
            else:
                break
        while len(self.flows) >= self.limits.flows:
            first, turn, _ = self.queue.pop(0)
            if first in self.flows and self.flows[first].turn == turn:
                self.faults[Fault.FLOWS_EXHAUSTED] += 1
                self._leave(first)
        self.flows[key] = Flow(key[0], time_ns, 0, tries=self.limits.tries)
        self._queue(key, self.flows[key])
        return self.flows[key]

    def _queue(self, key: tuple[str, frozenset[End]], flow: Flow) -> None:
        self.turns += 1
        flow.turn = self.turns
        self.queue.append((key, self.turns, self.watermark_ns))

    def _leave(self, key: tuple[str, frozenset[End]]) -> None:
        self._release(self.flows.pop(key))

    def _begin_again(self, flow: Flow, time_ns: int) -> None:
        self._release(flow)
        fresh = Flow(flow.transport, time_ns, self.watermark_ns, flow.turn, tries=self.limits.tries)
        flow.__dict__.update(fresh.__dict__)

    def _shake_hands(
        self, flow: Flow, header: Header, source: End, target: End, time_ns: int
    ) -> None:
        fresh = flow.state == "new" and flow.place is None and flow.client is None
        known = flow.first_sequence or 0
        if header.tcp_flags & ACK:
            client, first = target, header.acknowledged
            same = abs(distance(first, known)) < NEAR_BYTES
        else:
            client, first = source, (header.sequence + 1) & MASK
            same = False
        if not fresh:
            behind = distance(known, first)
            again = behind == 0 or (0 < behind < NEAR_BYTES and not flow.ended)
            if same or (flow.client == client and again):
                return
            self._begin_again(flow, time_ns)
        flow.client, flow.place, flow.first_sequence = client, first, first
        flow.ended = False

    # Segments.

    def _segment(self, flow: Flow, now: Now, raw: bytes, length: int, sequence: int) -> None:
        if flow.state == "done":
            now.skip = Skip.FLOW_DONE
            return
        if flow.repeated and self._is_by_itself(flow, raw, sequence):
            self._go_back(flow)
        if flow.state == "hello":
            before = self._repeat(flow, now, raw, sequence)
            if before is None:
                return
            raw, length, sequence = raw[before:], length - before, (sequence + before) & MASK
        elif (flow.state == "other" or flow.place is None) and not self._anywhere(
            flow, now, raw, sequence
        ):
            return
        elif self._is_disputed(flow, raw, sequence):
            self._release(flow)
            flow.state, flow.place, flow.disputed = "new", sequence, True
        assert flow.place is not None
        ahead = distance(sequence, flow.place)
        if ahead + length <= 0:
            now.skip = Skip.PASSED
            return
        if ahead >= self.limits.unit_bytes:
            if flow.holding:
                self._give_up(flow, now)
            else:
                self.faults[Fault.STREAM_GAP] += 1
                self._lose(flow, "gap")
                self._other(flow, lost=True)
            self._segment(flow, now, raw, length, sequence)
            return
        if ahead > 0 or flow.holding:
            self._hold(flow, now, raw, length, ahead)
        else:
            self._in_order(
                flow, now, raw[-ahead:] if ahead else raw, length + ahead, sequence - ahead
            )

    def _anywhere(self, flow: Flow, now: Now, raw: bytes, sequence: int) -> bool:
        if flow.state == "new":
            self._other(flow, lost=True)
        if flow.state == "other" and starts_unit(raw):
            flow.state, flow.place, flow.first_sequence = "new", sequence, sequence
            return True
        now.skip = Skip.NOT_A_CLIENT if is_from_server(raw) else Skip.OTHER_PROTOCOL
        self._lose_try(flow)
        return False

    def _lose_try(self, flow: Flow) -> None:
        flow.tries = max(flow.tries - 1, 0)
        if flow.tries == 0:
            self.given_up += not flow.names and flow.state != "hello" and not flow.lost
            flow.state = "done"

    def _other(self, flow: Flow, lost: bool) -> None:
        flow.state = "other" if flow.tries else "done"
        flow.place = None
        flow.disputed = False
        flow.midstream |= lost

    def _is_disputed(self, flow: Flow, raw: bytes, sequence: int) -> bool:
        """Does another head begin in the place of the last one that was read?"""
        if sequence != (flow.first_sequence or 0) or flow.state not in ("head", "chunk", "trailer"):
            return False
        front = http.front_of_head(raw)
        same = front is None or front == http.front_of_head(flow.sent)
        return bool(flow.sent) and not same and starts_unit(raw)

    def _repeat(self, flow: Flow, now: Now, raw: bytes, sequence: int) -> int | None:
        offset = distance(sequence, flow.first_sequence or 0)
        before = max(-offset, 0)
        if offset < len(flow.sent) <= self.limits.unit_bytes and before < len(raw):
            again = self._its_place(flow, now, raw[before:], offset + before)
            return None if again else before
        behind = hello_behind(raw)
        if behind is None:
            now.skip = Skip.FLOW_DONE
            self._lose_try(flow)
            return None
        flow.state, flow.place = "new", (sequence + behind) & MASK
        return behind

    def _its_place(self, flow: Flow, now: Now, raw: bytes, offset: int) -> bool:
        """Is a piece in the place of the hello that was read no news, or one too many?"""
        whole = not offset and not isinstance(tls.gather_hello(raw, self.limits.unit_bytes), str)
        left = flow.sent[offset:]
        if offset == 0:
            same = len(raw) < len(left) and raw == flow.front
        else:
            same = len(raw) >= len(left) and raw[: len(left)] == flow.tail
        if same and not whole:
            now.skip = Skip.PASSED
            return True
        place, flow.place = flow.place, flow.first_sequence or 0
        if not whole:
            if not self._begin_holding(flow, now):
                flow.place = place
                return True
            flow.repeated, flow.disputed = True, flow.disputed or bool(flow.names)
        flow.state = "new"
        return False

    def _is_by_itself(self, flow: Flow, raw: bytes, sequence: int) -> bool:
        """Is it a hello of its own, while something else is held in the place of the last?"""
        offset = distance(sequence, flow.first_sequence or 0)
        if offset >= len(flow.sent):
            return hello_behind(raw) is not None
        return not offset and not isinstance(tls.gather_hello(raw, self.limits.unit_bytes), str)

    def _go_back(self, flow: Flow) -> None:
        """What stood in the place of a hello came to nothing."""
        self._release(flow)
        flow.state, flow.disputed = "hello", False

    def _never(self, flow: Flow, now: Now) -> None:
        now.skip = now.skip or Skip.OTHER_PROTOCOL
        if flow.repeated:
            self._go_back(flow)
            return
        self._release(flow)
        self._other(flow, lost=False)
        self._lose_try(flow)

    def _is_hello(self, flow: Flow, raw: bytes) -> bool:
        return raw[:1] == b"\x16" and flow.state not in ("chunk", "trailer", "frame")

    def _too_long(self, flow: Flow, now: Now, raw: bytes) -> None:
        hello = self._is_hello(flow, raw)
        self._fault(now, Fault.HELLO_TOO_LONG if hello else Fault.HEAD_TOO_LONG)
        if flow.repeated:
            self._go_back(flow)
            return
        self._lose(flow, "room")
        if hello:
            self.name_weakly(flow, now, "tls")
        self._release(flow)
        self._other(flow, lost=True)

    def _cut_off(self, flow: Flow, now: Now, raw: bytes) -> None:
        self._fault(now, Fault.PAYLOAD_CUT)
        self._lose(flow, "cut")
        if self._is_hello(flow, raw):
            self.name_weakly(flow, now, "tls")
        self._other(flow, lost=True)

    def _in_order(self, flow: Flow, now: Now, raw: bytes, length: int, sequence: int) -> None:
        while True:
            now.sequence = sequence & MASK
            if length <= 0:
                flow.place = now.sequence
                now.skip = now.skip or Skip.PASSED
                return
            if not raw:
                self._cut_off(flow, now, raw)
                return
            outcome, after = self._unit(flow, now, raw)
            if outcome == NEVER:
                self._never(flow, now)
                return
            if outcome == NOT_YET:
                break
            raw, length, sequence = raw[after:], length - after, sequence + after
            if flow.state in ("hello", "done"):
                return
        flow.place = now.sequence
        if len(raw) < length:
            self._cut_off(flow, now, raw)
        elif len(raw) >= self.limits.unit_bytes:
            self._too_long(flow, now, raw)
        elif self._begin_holding(flow, now):
            assert flow.holding
            flow.holding.add(raw, 0, now, self.limits)
            self._count_held(flow, now)
        else:
            self._other(flow, lost=True)

    def _begin_holding(self, flow: Flow, now: Now) -> bool:
        if len(self.holdings) == self.limits.holdings:
            self._fault(now, Fault.SEGMENTS_EXHAUSTED)
            self._lose(flow, "room")
            return False
        assert flow.place is not None
        deadline_ns = self.watermark_ns + self.limits.hold_ns
        flow.holding = Holding(flow.place, deadline_ns, now.client, now.server, realm=now.realm)
        self.holdings.append(flow)
        return True

    def _count_held(self, flow: Flow, now: Now) -> None:
        assert flow.holding
        if not now.named and not now.fault:
            now.skip = Skip.HELD
            flow.holding.rows += 1

    def _hold(self, flow: Flow, now: Now, raw: bytes, length: int, ahead: int) -> None:
        if len(raw) < length:
            self._lose(flow, "cut")
            if not raw:
                self._fault(now, Fault.PAYLOAD_CUT)
                return
        if not flow.holding and not self._begin_holding(flow, now):
            self._other(flow, lost=True)
            return
        holding = flow.holding
        assert holding
        stored = holding.add(raw, ahead, now, self.limits)
        if stored == "nothing new":
            now.skip = Skip.PASSED
        elif stored == "no room":
            self._fault(now, Fault.SEGMENTS_EXHAUSTED)
            self._lose(flow, "room")
            self._salvage(flow, now)
        else:
            self._drain(flow, now)
            if flow.holding is holding:
                self._count_held(flow, now)
            else:
                now.skip = now.skip or Skip.PASSED

    def _held_unit(self, flow: Flow, now: Now, raw: bytes, start: int) -> tuple[str, int]:
        holding, own = flow.holding, (now.time_ns, now.number)
        assert holding
        piece = next(p for p in holding.pieces if p.start <= start < p.stop)
        now.time_ns, now.number = piece.time_ns, piece.number
        now.sequence = (holding.base + start) & MASK
        now.flags = SessionFlag.UNRELIABLE if holding.disagrees else 0
        named = now.named
        outcome, after = self._unit(flow, now, raw)
        now.flags = 0
        now.time_ns, now.number = own
        holding.named |= now.named > named
        end = start + after
        if flow.state == "hello":
            last = next(p for p in holding.pieces if p.start < end <= p.stop)
            if piece.stop < end:
                flow.front = piece.raw[start - piece.start :]
            if last.start > start:
                flow.tail = last.raw[: end - last.start]
        return outcome, after

    def _drain(self, flow: Flow, now: Now) -> None:
        holding = flow.holding
        assert holding
        while front := holding.front():
            outcome, after = self._held_unit(flow, now, front, 0)
            if outcome == NEVER:
                self._never(flow, now)
                return
            if outcome == NOT_YET:
                if len(front) >= self.limits.unit_bytes:
                    self._too_long(flow, now, front)
                return
            if flow.state != "new":
                flow.repeated = False
            if flow.state in ("hello", "done"):
                self._release(flow)
                return
            holding.drop(after)
            flow.place = holding.base
            if not holding.pieces:
                self._release(flow)
                return
            holding.deadline_ns = self.watermark_ns + self.limits.hold_ns
            self.holdings.remove(flow)
            self.holdings.append(flow)

    def _salvage(self, flow: Flow, now: Now) -> None:
        holding = flow.holding
        assert holding
        if flow.repeated:
            self._go_back(flow)
            return
        self._other(flow, lost=True)
        over = ("hello", "done")
        place: int | None = None  # where the next unit begins
        stop = 0
        for start, run in holding.runs():
            if flow.state in over:
                break
            stop = start + len(run)
            if start == 0:
                continue
            if place is not None and place < start:
                place = None
            at = start if place is None else place
            while at < stop and flow.state not in over:
                rest = run[at - start :]
                if place is None:
                    if not starts_unit(rest):
                        break
                    flow.state = "new"
                outcome, taken = self._held_unit(flow, now, rest, at)
                place = at = at + taken
                if outcome != WHOLE:
                    place = None
                    break
        if flow.state not in over:
            if place is not None and place >= stop:
                flow.place = (holding.base + place) & MASK
            else:
                self._other(flow, lost=True)
        self._release(flow)

    def _give_up(self, flow: Flow, now: Now) -> None:
        assert flow.holding
        if flow.repeated:
            self._go_back(flow)
            return
        front = flow.holding.front()
        if flow.transport == "udp":
            self.faults[Fault.HELLO_INCOMPLETE] += 1
            self._lose(flow, "gap")
            self._name_held(flow, now, "quic")
            self._release(flow)
            return
        self._lose(flow, "gap")
        if not front:
            self.faults[Fault.STREAM_GAP] += 1
        else:
            hello = self._is_hello(flow, front)
            self.faults[Fault.HELLO_INCOMPLETE if hello else Fault.HEAD_INCOMPLETE] += 1
            if hello:
                self._name_held(flow, now, "tls")
        self._salvage(flow, now)

    def _release(self, flow: Flow) -> None:
        holding = flow.holding
        if holding is None:
            return
        flow.holding = None
        flow.repeated = False
        self.holdings = [f for f in self.holdings if f is not flow]
        self.faults[Fault.OVERLAP_DISAGREES] += holding.disagrees
        if holding.named:
            self.named += holding.rows
        else:
            self.skips[Skip.HELD] += holding.rows

    def _expire(self, watermark_ns: int) -> None:
        while self.holdings and self.holdings[0].holding.deadline_ns < watermark_ns:  # type: ignore[union-attr]
            flow = self.holdings[0]
            holding = flow.holding
            assert holding
            at_ns = min(holding.deadline_ns, self.watermark_ns)
            now = Now(0, 0, at_ns, holding.client, holding.server, realm=holding.realm)
            self._give_up(flow, now)
            if now.fault:
                self.faults[now.fault] += 1
