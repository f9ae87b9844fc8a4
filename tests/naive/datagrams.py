"""What `pipeline/classify/datagrams_kernels.py` does with a datagram, for `flows.NaiveClassify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model.faults import Fault, Skip
from pipeline.model.words import SessionFlag
from tests.naive import http, quic, tls
from tests.naive.streams import Flow, Now

if TYPE_CHECKING:
    from tests.naive.flows import NaiveClassify


class Datagram:
    """One datagram of a flow, and what came of it so far."""

    def __init__(self, twin: NaiveClassify, flow: Flow, now: Now, raw: bytes, length: int) -> None:
        self.twin, self.flow, self.now, self.raw = twin, flow, now, raw
        self.cut = len(raw) < length
        self.opened = self.kept = False

    def take(self) -> None:
        """Take it."""
        if self.flow.state == "hello" and not self.another():
            self.now.skip = Skip.FLOW_DONE
            return
        if len(self.raw) < 14:
            self.now.skip = Skip.UDP
            return
        frames = quic.google_frames(self.raw)
        if frames is not None:
            self.google(frames)
            return
        if not quic.is_quic(self.raw):
            self.now.skip = Skip.UDP
            return
        self.packets(self.raw)
        flow = self.flow
        if flow.tries == 0 and flow.state != "done":
            if flow.holding:
                self.twin.faults[Fault.HELLO_INCOMPLETE] += 1
                self.twin._lose(flow, "room")
            elif not flow.names and not flow.lost:
                self.twin.given_up += 1
            self.twin.name_weakly(flow, self.now, "quic")
            self.leave_alone()
        if self.now.skip is not None:
            return
        if self.kept and flow.holding:
            self.twin._count_held(flow, self.now)
        else:
            self.now.skip = Skip.PASSED if self.opened else Skip.QUIC_UNREAD

    def another(self) -> bool:
        """After a hello: does the datagram begin with an Initial of another connection?"""
        flow = self.flow
        packet = None
        if len(self.raw) >= 7 and quic.is_quic(self.raw):
            packet = quic.read_long(self.raw)
        if isinstance(packet, quic.Long) and packet.kind == "i":
            if packet.dcid == flow.hello_id:
                return False
            keys = quic.client_keys(packet.salt, packet.dcid)
            if len(packet.raw) - packet.number_at >= 200 and quic.open_initial(packet, keys, -1):
                flow.state, flow.tries = "new", self.twin.limits.tries
                return True
        self.twin._lose_try(flow)
        return False

    def fault(self, fault: Fault) -> None:
        self.twin._fault(self.now, fault)

    def cut_off(self) -> None:
        """The capture kept only a part."""
        self.fault(Fault.PAYLOAD_CUT)
        self.twin._lose(self.flow, "cut")
        self.twin.name_weakly(self.flow, self.now, "quic")

    def leave_alone(self) -> None:
        """Nothing more is to be had of this flow."""
        self.twin._release(self.flow)
        self.flow.state = "done"

    def packets(self, raw: bytes) -> None:
        """The packets of the datagram, until the hello is whole."""
        flow = self.flow
        while raw[:1] >= b"\x80" and flow.state not in ("done", "hello") and flow.tries:
            packet = quic.read_long(raw)
            if isinstance(packet, str):
                cut = packet == quic.SHORT and self.cut
                if cut and quic.says_initial(raw):
                    self.cut_off()
                elif cut:
                    self.fault(Fault.PAYLOAD_CUT)
                else:
                    self.fault(Fault.QUIC_BAD)
            if packet is None or isinstance(packet, str):
                return
            if packet.kind == "i":
                found = self.open(packet)
                if found is None:
                    self.fault(Fault.QUIC_SEALED)
                else:
                    self.opened = True
                    flow.client = flow.client or self.now.client
                    self.frames(*found)
            raw = raw[len(packet.raw) :]

    def open(self, packet: quic.Long) -> tuple[bytes, tuple[str, bytes], int] | None:
        """Its frames, the salt and id whose keys opened it, and its number."""
        flow, own = self.flow, (packet.salt, packet.dcid)
        holding = flow.holding
        if holding and holding.seal:
            flow.tries -= 1
            found = quic.open_initial(packet, quic.client_keys(*holding.seal), holding.base - 1)
            if found:
                holding.base = max(holding.base, found[1] + 1)
                return found[0], holding.seal, found[1]
            if not flow.tries or holding.seal == own:
                return None
        flow.tries -= 1
        found = quic.open_initial(packet, quic.client_keys(*own), -1)
        if not found:
            return None
        self.twin._release(flow)
        return found[0], own, found[1]

    def frames(self, plain: bytes, seal: tuple[str, bytes], number: int) -> None:
        """The CRYPTO frames of an Initial."""
        flow, limits = self.flow, self.twin.limits
        found, good = quic.crypto_frames(plain, seal[0][0] in "QT")
        for offset, data in found:
            if not data:
                continue
            if offset + len(data) > limits.unit_bytes:
                self.fault(Fault.HELLO_TOO_LONG)
                self.twin._lose(flow, "room")
                self.twin.name_weakly(flow, self.now, "quic")
                self.leave_alone()
                return
            if flow.holding is None:
                if offset == 0:
                    self.whole(data, seal)
                    if flow.state in ("done", "hello"):
                        return
                flow.place = number + 1
                if not self.twin._begin_holding(flow, self.now):
                    return
                assert flow.holding
                flow.holding.seal = seal
            if not self.keep(offset, data, seal):
                return
            if flow.state in ("done", "hello"):
                return
        if not good:
            self.fault(Fault.QUIC_BAD)

    def keep(self, offset: int, data: bytes, seal: tuple[str, bytes]) -> bool:
        """Keep data by its offset and see whether the hello is whole now; False for no room."""
        flow = self.flow
        assert flow.holding
        stored = flow.holding.add(data, offset, self.now, self.twin.limits)
        if stored == "no room":
            self.fault(Fault.SEGMENTS_EXHAUSTED)
            self.twin._lose(flow, "room")
            self.twin._release(flow)
            self.kept = False
            return False
        if stored == "stored":
            self.kept = True
            flow.holding.join()
            if front := flow.holding.front():
                self.whole(front, seal)
        return True

    def whole(self, hello: bytes, seal: tuple[str, bytes]) -> None:
        """Name the hello if it is whole; done as well where it can be none."""
        google = seal[0] == "Q050"
        needed: int | None
        if google:
            needed = quic.chlo_length(hello)
        elif hello[0] != 1:
            needed = None
        else:
            needed = 4 + int.from_bytes(hello[1:4], "big") if len(hello) >= 4 else 0
        if needed is None:
            self.twin.lack_hello(self.flow, self.now, "quic")
        elif needed > self.twin.limits.unit_bytes:
            self.fault(Fault.HELLO_TOO_LONG)
            self.twin._lose(self.flow, "room")
            self.twin.name_weakly(self.flow, self.now, "quic")
        elif not needed or needed > len(hello):
            return
        else:
            self.name(hello[:needed], google)
            self.twin._release(self.flow)
            self.flow.state, self.flow.tries = "hello", self.twin.limits.repeats
            self.flow.hello_id = seal[1]
            return
        self.leave_alone()

    def name(self, hello: bytes, google: bool) -> None:
        """Write the row, in the name of the packet that brought the first byte."""
        now, holding = self.now, self.flow.holding
        own, named = (now.time_ns, now.number), now.named
        if holding:
            now.time_ns, now.number = holding.pieces[0].time_ns, holding.pieces[0].number
            now.flags = SessionFlag.UNRELIABLE if holding.disagrees else 0
        read = None if google else tls.read_hello(hello[4:])
        name = quic.chlo_name(hello) if google else read.name if read else None
        if name is None:
            self.twin.lack_hello(self.flow, self.now, "quic")
        else:
            kind, host = http.clean_host(name)
            if kind == "none":
                now.skip = Skip.NO_NAME
                self.twin.name_weakly(self.flow, now, "quic")
            elif kind == "invalid":
                self.fault(Fault.SNI_BAD)
                self.twin.name_weakly(self.flow, now, "quic")
            elif row := self.twin._row(self.flow, now, "quic", host, 0, again=False):
                row.alpn = tls.alpn_text(read.alpn) if read else b""
                if row.flags & SessionFlag.HIDDEN:
                    self.twin.tell_answer(self.flow, now, "quic")
        now.flags = 0
        now.time_ns, now.number = own
        if holding:
            holding.named |= now.named > named

    def google(self, frames: bytes) -> None:
        """A packet of Google's that is not sealed."""
        hello = quic.google_hello(frames)
        if hello is None:
            self.now.skip = Skip.QUIC_UNREAD
            return
        self.flow.client = self.flow.client or self.now.client
        length = quic.chlo_length(hello)
        if self.cut and length is not None and (length == 0 or length > len(hello)):
            self.cut_off()
        else:
            self.name(hello, google=True)
        self.leave_alone()
