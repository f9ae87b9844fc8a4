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
from tests.naive import http, http2, tls
from tests.naive.datagrams import Datagram
from tests.naive.headers import Header
from tests.naive.streams import (
    End,
    Flow,
    Holding,
    Now,
    Row,
    asks,
    distance,
    is_from_server,
    starts_unit,
)

WHOLE, NOT_YET, NEVER = "whole", "not yet", "never"
MASK = 0xFFFFFFFF
PAYLOAD_TAKEN_MAX = 65536
SYN, ACK = 2, 16


def forget(owners: list[int], gone: set[int]) -> list[int]:
    """The flows, by their number, that stay when all of these subscribers are taken out."""
    return [flow for flow, who in enumerate(owners) if who not in gone]


class NaiveClassify:
    """`Classify` without a gate: `push` takes (time_ns, number, what the header walk gave)."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008
        self.limits = limits
        self.flows: dict[tuple[str, frozenset[End]], Flow] = {}
        self.queue: list[tuple[tuple[str, frozenset[End]], int, int]] = []
        self.turns = 0
        self.watermark_ns = -(1 << 62)
        self.rows: list[Row] = []
        self.faults: Counter[Fault] = Counter()
        self.skips: Counter[Skip] = Counter()
        self.named = 0
        self.holdings: list[Flow] = []  # flows with a holding, the oldest first

    def push(self, packets: Iterable[tuple[int, int, Header | Fault | Skip]]) -> None:
        """Take packets in order."""
        for time_ns, number, header in packets:
            self.watermark_ns = max(self.watermark_ns, time_ns)
            self._expire(self.watermark_ns)
            if isinstance(header, Fault):
                self.faults[header] += 1
            elif isinstance(header, Skip):
                self.skips[header] += 1
            else:
                self._packet(time_ns, number, header)

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
        if header.transport == "tcp" and header.tcp_flags & SYN:
            self._shake_hands(flow, header, source, target, time_ns)
        if header.payload_length == 0:
            self.skips[Skip.NO_PAYLOAD] += 1
        elif flow.client not in (None, source) and not self._turns_round(flow, header):
            self.skips[Skip.NOT_A_CLIENT] += 1
        elif flow.state == "done":
            self.skips[Skip.FLOW_DONE] += 1
        else:
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
        if header.tcp_flags & ACK:
            if fresh:
                flow.client = target
                flow.place = flow.first_sequence = header.acknowledged
            return
        first = (header.sequence + 1) & MASK
        if not fresh:
            if flow.client == source and (flow.first_sequence or 0) == first:
                return
            self._begin_again(flow, time_ns)
        flow.client, flow.place, flow.first_sequence = source, first, first

    # Segments.

    def _segment(self, flow: Flow, now: Now, raw: bytes, length: int, sequence: int) -> None:
        if flow.state == "hello":
            before = self._repeat(flow, now, raw, sequence)
            if before is None:
                return
            raw, length, sequence = raw[before:], length - before, (sequence + before) & MASK
        elif (flow.state == "other" or flow.place is None) and not self._anywhere(
            flow, now, raw, sequence
        ):
            return
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
            self._other(flow, lost=True)
            if not self._anywhere(flow, now, raw, sequence):
                return
            ahead = 0
        if ahead > 0 or flow.holding:
            self._hold(flow, now, raw, ahead)
        else:
            self._in_order(
                flow, now, raw[-ahead:] if ahead else raw, length + ahead, sequence - ahead
            )

    def _anywhere(self, flow: Flow, now: Now, raw: bytes, sequence: int) -> bool:
        if flow.state == "new":
            self._other(flow, lost=True)
        if flow.state == "other" and starts_unit(raw):
            flow.state, flow.place = "new", sequence
            return True
        now.skip = Skip.NOT_A_CLIENT if is_from_server(raw) else Skip.OTHER_PROTOCOL
        self._lose_try(flow)
        return False

    def _lose_try(self, flow: Flow) -> None:
        flow.tries = max(flow.tries - 1, 0)
        if flow.tries == 0:
            flow.state = "done"

    def _other(self, flow: Flow, lost: bool) -> None:
        flow.state = "other" if flow.tries else "done"
        flow.place = None
        flow.midstream |= lost

    def _repeat(self, flow: Flow, now: Now, raw: bytes, sequence: int) -> int | None:
        before = 6 if raw[:2] == b"\x14\x03" and len(raw) > 6 else 0
        hello = raw[before:]
        if len(hello) < 6 or not tls.starts_hello(hello):
            now.skip = Skip.FLOW_DONE
            self._lose_try(flow)
            return None
        if sequence == (flow.first_sequence or 0) and isinstance(
            tls.gather_hello(hello, self.limits.unit_bytes), str
        ):
            now.skip = Skip.PASSED
            return None
        flow.state, flow.place = "new", (sequence + before) & MASK
        return before

    def _never(self, flow: Flow, now: Now) -> None:
        self._release(flow)
        now.skip = now.skip or Skip.OTHER_PROTOCOL
        self._other(flow, lost=False)
        self._lose_try(flow)

    def _too_long(self, flow: Flow, now: Now, raw: bytes) -> None:
        self._fault(now, Fault.HELLO_TOO_LONG if raw[0] == 0x16 else Fault.HEAD_TOO_LONG)
        self._release(flow)
        self._other(flow, lost=True)

    def _in_order(self, flow: Flow, now: Now, raw: bytes, length: int, sequence: int) -> None:
        while True:
            now.sequence = sequence & MASK
            if length <= 0:
                flow.place = now.sequence
                now.skip = now.skip or Skip.PASSED
                return
            if not raw:
                self._fault(now, Fault.PAYLOAD_CUT)
                self._other(flow, lost=True)
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
            self._fault(now, Fault.PAYLOAD_CUT)
            self._other(flow, lost=True)
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

    def _hold(self, flow: Flow, now: Now, raw: bytes, ahead: int) -> None:
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
        self._other(flow, lost=True)
        after, stop = 0, 0
        for start, run in holding.runs():
            if flow.state == "hello":
                break
            stop = start + len(run)
            if start == 0:
                continue
            at = max(start, after)
            while at < stop and starts_unit(run[at - start :]):
                flow.state = "new"
                outcome, taken = self._held_unit(flow, now, run[at - start :], at)
                at += taken
                if outcome != WHOLE or flow.state != "head":
                    break
                after = at
        if flow.state == "head" and after >= stop:
            flow.place = (holding.base + after) & MASK
        elif flow.state != "hello":
            self._other(flow, lost=True)
        self._release(flow)

    def _give_up(self, flow: Flow, now: Now) -> None:
        assert flow.holding
        front = flow.holding.front()
        if flow.transport == "udp":
            self.faults[Fault.HELLO_INCOMPLETE] += 1
            self._release(flow)
            return
        if not front:
            self.faults[Fault.STREAM_GAP] += 1
        else:
            self.faults[Fault.HELLO_INCOMPLETE if front[0] == 0x16 else Fault.HEAD_INCOMPLETE] += 1
        self._salvage(flow, now)

    def _release(self, flow: Flow) -> None:
        holding = flow.holding
        if holding is None:
            return
        flow.holding = None
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

    # Units.

    def _fault(self, now: Now, fault: Fault) -> None:
        if now.fault is None:
            now.fault = fault
        else:
            self.faults[fault] += 1

    def _unit(self, flow: Flow, now: Now, raw: bytes) -> tuple[str, int]:
        if flow.state in ("chunk", "trailer"):
            return self._framing(flow, now, raw)
        if flow.state == "frame":
            return self._frame(flow, now, raw)
        if raw[0] == 0x16:
            return self._hello(flow, now, raw)
        if raw.startswith(http2.PREFACE):
            now.skip = Skip.PASSED
            asked_for = flow.state == "head" and flow.upgrades
            flow.state = "done" if asked_for else "frame"
            return WHOLE, len(http2.PREFACE)
        if http2.PREFACE.startswith(raw):
            return NOT_YET, 0
        return self._head(flow, now, raw)

    def _hello(self, flow: Flow, now: Now, raw: bytes) -> tuple[str, int]:
        gathered = tls.gather_hello(raw, self.limits.unit_bytes)
        if gathered == tls.NOT_YET:
            return NOT_YET, 0
        if isinstance(gathered, str):
            if gathered == tls.FROM_SERVER:
                now.skip = Skip.NOT_A_CLIENT
            elif gathered == tls.TOO_LONG:
                self._fault(now, Fault.HELLO_TOO_LONG)
            elif gathered == tls.BAD:
                self._fault(now, Fault.HELLO_BAD)
            return NEVER, 0
        again = flow.hello_named and now.sequence == (flow.first_sequence or 0)
        flow.first_sequence, flow.state, flow.tries = now.sequence, "hello", self.limits.repeats
        body, stop = gathered
        hello = tls.read_hello(body)
        if hello is None:
            self._fault(now, Fault.HELLO_BAD)
            return WHOLE, stop
        kind, host = http.clean_host(hello.name)
        if kind == "none":
            now.skip = Skip.NO_NAME
        elif kind == "invalid":
            self._fault(now, Fault.SNI_BAD)
        elif row := self._row(flow, now, "tls", host, 0, again):
            row.alpn = tls.alpn_text(hello.alpn)
        return WHOLE, stop

    def _head(self, flow: Flow, now: Now, raw: bytes) -> tuple[str, int]:
        head = http.read_head(raw)
        if head == http.NEVER and flow.state == "head" and flow.upgrades:
            now.skip, flow.state = Skip.PASSED, "done"
            return WHOLE, 0
        if isinstance(head, str):
            return head, 0
        kind, host = http.clean_host(head.host)
        other, other_host = http.clean_host(head.authority)
        flags = SessionFlag.DOCUMENT if head.document else 0
        if head.hosts_differ or (kind != "none" and other != "none" and host != other_host):
            flags |= SessionFlag.UNRELIABLE
        if kind == "none":
            kind, host = other, other_host
        if kind == "none":
            now.skip = Skip.NO_NAME
        elif kind == "invalid":
            self._fault(now, Fault.HOST_BAD)
        elif row := self._row(flow, now, "http", host, flags, again=False):
            row.method, row.target, row.referer = head.method, head.target, head.referer
        flow.state, flow.tries, flow.upgrades = "head", self.limits.tries, head.upgrades
        after = head.size
        if head.method == 7:
            flow.state = "new"
        elif head.chunked:
            flow.state = "chunk"
        elif head.length is not None and not 0 <= head.length <= 1 << 30:
            self._fault(now, Fault.HEAD_BAD)
            flow.state = "done"
        else:
            after += head.length or 0
        return WHOLE, after

    def _frame(self, flow: Flow, now: Now, raw: bytes) -> tuple[str, int]:
        found = http2.read_frame(raw, self.limits.unit_bytes)
        if found == http2.NOT_YET:
            return NOT_YET, 0
        if isinstance(found, str):
            too_long = found == http2.TOO_LONG
            self._fault(now, Fault.HEAD_TOO_LONG if too_long else Fault.HEAD_BAD)
            flow.state = "done"
            return WHOLE, 0
        stop, block = found
        if block is None:
            now.skip = Skip.PASSED
            return WHOLE, stop
        flow.state = "done"
        now.named += 1  # a packet that ends a block counts as one that led to a name
        request = http2.read_request(block)
        if isinstance(request, Fault):
            self.faults[request] += 1
            return WHOLE, stop
        flags = now.flags | (SessionFlag.DOCUMENT if request.document else 0)
        flags |= SessionFlag.UNRELIABLE if request.hosts_differ else 0
        flags |= SessionFlag.MIDSTREAM if flow.midstream else 0
        flags |= SessionFlag.REPEAT if ("http", request.host) == (*flow.names, None)[0] else 0
        self.rows.append(
            Row(
                now.time_ns, now.number, now.watermark_ns, "http", request.host, now.client, now.server, int(flags),
                now.realm, request.method, request.target, request.referer,
            )
        )  # fmt: skip
        return WHOLE, stop

    def _framing(self, flow: Flow, now: Now, raw: bytes) -> tuple[str, int]:
        if flow.state == "chunk":
            line = http.read_chunk_line(raw)
            if line == http.BAD:
                self._fault(now, Fault.HEAD_BAD)
                return NEVER, 0
            if isinstance(line, str):
                return NOT_YET, 0
            now.skip = Skip.PASSED
            stop, size = line
            if size:
                return WHOLE, stop + size + 2
            flow.state = "trailer"
            return WHOLE, stop
        line, feed, _ = raw.partition(b"\n")
        if not feed:
            return NOT_YET, 0
        now.skip = Skip.PASSED
        if line in (b"", b"\r"):
            flow.state = "head"
        return WHOLE, len(line) + 1

    def _row(
        self, flow: Flow, now: Now, protocol: str, host: bytes, flags: int, again: bool
    ) -> Row | None:
        name = (protocol, host.decode())
        seen = name in flow.names
        if not seen and len(flow.names) < 32:
            flow.names.append(name)
        if again and seen:
            now.skip = Skip.PASSED
            return None
        flags |= now.flags
        if seen:
            flags |= SessionFlag.REPEAT
        elif flow.hello_named and protocol != "http":
            flags |= SessionFlag.UNRELIABLE
        if flow.midstream:
            flags |= SessionFlag.MIDSTREAM
        flow.hello_named |= protocol != "http"
        now.named += 1
        row = Row(
            now.time_ns, now.number, now.watermark_ns, protocol, host.decode(), now.client, now.server, int(flags),
            now.realm,
        )  # fmt: skip
        self.rows.append(row)
        return row
