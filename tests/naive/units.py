"""Units of a client's stream for the twin of the flow table: what each means, and the rows they make."""

from __future__ import annotations

from collections import Counter

from pipeline.classify.stage import Limits
from pipeline.model.faults import Fault, Skip
from pipeline.model.words import SessionFlag
from tests.naive import http, http2, tls
from tests.naive.proxy import after_proxy
from tests.naive.streams import End, Flow, Now, Row

WHOLE, NOT_YET, NEVER = "whole", "not yet", "never"
OUTER_NAMES = {
    *("cloudflare-ech.com", "cover.defo.ie", "defo.ie", "public.tls-ech.dev", "tls-ech.dev"),
}


class NaiveUnits:
    """Whoever reads units keeps these."""

    limits: Limits
    faults: Counter[Fault]
    rows: list[Row]
    answers: dict[tuple[str, str], tuple[int, str]]
    packets: int
    paid_until: int
    lost: Counter[str]

    flows: dict[tuple[str, frozenset[End]], Flow]

    @property
    def further(self) -> int:
        """Names of flows beside their first ones."""
        return sum(max(len(flow.names) - 1, 0) for flow in self.flows.values())

    def _lose(self, flow: Flow, why: str) -> None:
        if not flow.names and not flow.lost and not flow.repeated:
            flow.lost = why
            self.lost[why] += 1

    def _find(self, flow: Flow) -> None:
        self.lost[flow.lost] -= 1
        flow.lost = ""

    def name_weakly(self, flow: Flow, now: Now, protocol: str) -> None:
        """A row under the name that the client was told last for the server's address."""
        if not flow.names:
            self.tell_answer(flow, now, protocol)

    def tell_answer(self, flow: Flow, now: Now, protocol: str) -> None:
        """The same beside a name behind which others hide."""
        if flow.tunnel:
            return
        told_ns, name = self.answers.get((now.client[0], now.server[0]), (1 << 63, ""))
        if 0 <= now.time_ns - told_ns <= self.limits.answer_ns:
            self._row(flow, now, protocol, name.encode(), SessionFlag.WEAK, again=False)

    def lack_hello(self, flow: Flow, now: Now, protocol: str) -> None:
        """A hello that contradicts itself names nobody."""
        self._fault(now, Fault.HELLO_BAD)
        self.name_weakly(flow, now, protocol)

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
            outcome, after = self._hello(flow, now, raw)
            flow.disputed &= outcome != WHOLE
            return outcome, after
        if flow.state == "new" and (taken := after_proxy(raw)) is not None:
            if taken == 0:
                return NOT_YET, 0
            now.skip = Skip.PASSED
            return WHOLE, taken
        if raw.startswith(http2.PREFACE):
            now.skip = Skip.PASSED
            flow.state = "done" if flow.state == "head" else "frame"
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
                self._lose(flow, "room")
                self.name_weakly(flow, now, "tls")
            elif gathered == tls.BAD:
                self.lack_hello(flow, now, "tls")
            return NEVER, 0
        again = flow.hello_named and now.sequence == (flow.first_sequence or 0)
        flow.first_sequence, flow.state, flow.tries = now.sequence, "hello", self.limits.repeats
        body, stop = gathered
        flow.sent, flow.front, flow.tail = raw[:stop], None, None
        hello = tls.read_hello(body)
        if hello is None:
            self.lack_hello(flow, now, "tls")
            return WHOLE, stop
        kind, host = http.clean_host(hello.name)
        if kind == "none":
            now.skip = Skip.NO_NAME
            self.name_weakly(flow, now, "tls")
        elif kind == "invalid":
            self._fault(now, Fault.SNI_BAD)
            self.name_weakly(flow, now, "tls")
        elif row := self._row(flow, now, "tls", host, 0, again):
            row.alpn = tls.alpn_text(hello.alpn)
            if row.flags & SessionFlag.HIDDEN:
                self.tell_answer(flow, now, "tls")
        return WHOLE, stop

    def _head(self, flow: Flow, now: Now, raw: bytes) -> tuple[str, int]:
        head = http.read_head(raw)
        if head == http.NEVER and flow.state == "head" and flow.upgrades:
            now.skip, flow.state = Skip.PASSED, "done"
            return WHOLE, 0
        if isinstance(head, str):
            return head, 0
        kind, host = http.clean_host(head.authority)
        other, other_host = http.clean_host(head.host)
        if other != "none" and (head.method == 7 or kind == "invalid"):
            (kind, host), (other, other_host) = (other, other_host), (kind, host)
        flags = SessionFlag.DOCUMENT if head.document else 0
        if head.hosts_differ or (kind != "none" and other != "none" and host != other_host):
            flags |= SessionFlag.UNRELIABLE
        if kind == "none":
            kind, host = other, other_host
        if kind == "none":
            now.skip = Skip.NO_NAME
            self.name_weakly(flow, now, "http")
        elif kind == "invalid":
            self._fault(now, Fault.HOST_BAD)
            self.name_weakly(flow, now, "http")
        elif row := self._row(flow, now, "http", host, flags, again=False):
            row.method, row.target, row.referer = head.method, head.target, head.referer
        flow.state, flow.tries, flow.upgrades = "head", self.limits.tries, head.upgrades
        flow.first_sequence, flow.sent = now.sequence, raw[: head.size]
        flow.repeated = flow.disputed = False
        after = head.size
        if head.method == 7:
            flow.state, flow.tunnel = "new", True
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
            if too_long:
                self._lose(flow, "room")
            flow.state = "done"
            return WHOLE, 0
        stop, block = found
        if block is None:
            now.skip = Skip.PASSED
            return WHOLE, stop
        flow.state = "done"
        if not block:
            self._fault(now, Fault.HEAD_BAD)
            return WHOLE, stop
        due = max(self.paid_until, self.packets) + len(block) + 20
        if due > self.packets + self.limits.block_bytes:
            self._fault(now, Fault.HEADS_EXHAUSTED)
            self._lose(flow, "room")
            return WHOLE, stop
        self.paid_until = due
        self._find(flow)
        now.named += 1  # a packet that ends a block counts as one that led to a name
        request = http2.read_request(block)
        if isinstance(request, Fault):
            self.faults[request] += 1
            return WHOLE, stop
        flags = now.flags | (SessionFlag.DOCUMENT if request.document else 0)
        flags |= SessionFlag.UNRELIABLE if request.hosts_differ else 0
        flags |= SessionFlag.UNRELIABLE if flow.disputed else 0
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
        if flags & SessionFlag.WEAK:
            if flow.weakly_named:
                return None
            flow.weakly_named = True
        seen = name in flow.names and not flags & SessionFlag.WEAK
        if not seen and not flags & SessionFlag.WEAK:
            if not flow.names or (len(flow.names) < 32 and self.further < self.limits.names):
                flow.names.append(name)
            else:
                self.faults[Fault.NAMES_EXHAUSTED] += 1
        if again and seen:
            now.skip = Skip.PASSED
            return None
        flags |= now.flags
        doubted = flow.disputed or (flow.hello_named and protocol != "http")
        if seen:
            flags |= SessionFlag.REPEAT
        elif doubted and not flags & SessionFlag.WEAK:
            flags |= SessionFlag.UNRELIABLE
        if flow.midstream:
            flags |= SessionFlag.MIDSTREAM
        if not flags & SessionFlag.WEAK:
            self._find(flow)
            if protocol != "http" and name[1] in OUTER_NAMES:
                flags |= SessionFlag.HIDDEN
            flow.hello_named |= protocol != "http"
        now.named += 1
        row = Row(
            now.time_ns, now.number, now.watermark_ns, protocol, host.decode(), now.client, now.server, int(flags),
            now.realm,
        )  # fmt: skip
        self.rows.append(row)
        return row
