"""What a mirror shows, flow by flow in plain objects: lists of everything, looked through each time."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

SYN = 2
HALF_SPACE, SPACE = 1 << 31, 1 << 32
MILLISECOND_NS = 1_000_000


def ahead_of(sequence: int, other: int) -> int:
    """How far one sequence number is ahead of another."""
    distance = (sequence - other) % SPACE
    return distance - SPACE if distance >= HALF_SPACE else distance


@dataclass
class Direction:
    """What is known of one side's stream."""

    expected: int | None = None
    missing: deque[list[int]] = field(default_factory=lambda: deque(maxlen=4))
    late: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=4))


@dataclass
class Flow:
    seen_ns: int = 0
    packets: int = 0
    sides: set[bool] = field(default_factory=set)
    directions: dict[bool, Direction] = field(
        default_factory=lambda: {False: Direction(), True: Direction()}
    )


class NaiveQuality:
    """Takes one packet after the other; `found` counts by the words of the tally."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.flows: dict[int, Flow] = {}
        self.rate = 0
        self.found: Counter[str] = Counter()

    def is_drawn(self, fingerprint: int, rate: int) -> bool:
        return fingerprint // 2 % 2**rate == 0

    def packet(self, captured: int, wire: int) -> None:
        """Any packet."""
        self.found["packets_truncated"] += captured < wire

    def segment(
        self, fingerprint: int, side: bool, flags: int, sequence: int, length: int, time_ns: int
    ) -> None:
        """A packet of TCP that is to be looked at; before it is told as any packet."""
        if not self.is_drawn(fingerprint, self.rate):
            return
        if fingerprint not in self.flows:
            if len(self.flows) >= self.capacity:
                self.thin_out(time_ns)
                if not self.is_drawn(fingerprint, self.rate):
                    return
            self.flows[fingerprint] = Flow()
        flow = self.flows[fingerprint]
        flow.seen_ns = time_ns
        before = flow.packets >= 3, flow.packets >= 3 and len(flow.sides) == 2
        flow.packets += not flags & SYN
        flow.sides.add(side)
        after = flow.packets >= 3, flow.packets >= 3 and len(flow.sides) == 2
        self.found["flows_watched"] += after[0] and not before[0]
        self.found["flows_both_ways"] += after[1] and not before[1]
        if flags & SYN:
            sequence = (sequence + 1) % SPACE
            flow.directions[side] = Direction(expected=sequence)
        if length:
            self.take(flow.directions[side], sequence, length, time_ns)

    def take(self, half: Direction, sequence: int, length: int, time_ns: int) -> None:
        """A segment with payload."""
        self.found["segments_watched"] += 1
        if half.expected is None:
            half.expected = sequence
        for shown in half.late:
            if shown[:2] == (sequence, length) and abs(time_ns - shown[2]) <= 2 * MILLISECOND_NS:
                self.found["segments_twice"] += 1
                return
        half.late.append((sequence, length, time_ns))
        stop = (sequence + length) % SPACE
        ahead = ahead_of(sequence, half.expected)
        if abs(ahead) > 1 << 26:
            half.expected = stop
            half.missing.clear()
            half.late.clear()
        elif ahead > 0:
            self.found["holes"] += 1
            half.missing.append([half.expected, sequence])
            half.expected = stop
        else:
            for hole in half.missing:
                self.fill(hole, sequence, stop)
            if ahead_of(stop, half.expected) > 0:
                half.expected = stop

    def fill(self, hole: list[int], sequence: int, stop: int) -> None:
        """Bytes at either end of a hole, or all over it."""
        start, end = hole
        if start == end:
            return
        if ahead_of(sequence, start) <= 0 < ahead_of(stop, start):
            hole[0] = min(stop, end, key=lambda place: ahead_of(place, start))
        elif ahead_of(sequence, start) > 0 and ahead_of(sequence, end) < 0 <= ahead_of(stop, end):
            hole[1] = sequence
        self.found["holes_filled"] += hole[0] == hole[1]

    def thin_out(self, now_ns: int) -> None:
        """Let idle flows go, and then as many as must."""
        live = {k: f for k, f in self.flows.items() if abs(now_ns - f.seen_ns) <= 60 * 10**9}
        for rate in range(max(self.rate - 1, 0), 64):
            self.flows = {k: f for k, f in live.items() if self.is_drawn(k, rate)}
            self.rate = rate
            if len(self.flows) * 2 <= self.capacity:
                return
