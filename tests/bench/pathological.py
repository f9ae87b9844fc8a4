"""Captures made to cost as much as they can: seconds, memory, and the cap that each runs into.

    python -m tests.bench.pathological [NAME...] [--share 0.1] [--json]

A cap is a bound that is counted: whatever would need more than its share of flows, holdings, pieces
or blocks ends in a fault with a name. So every one of these must take time by its size and memory
by the limits, and its words must be among what was counted. The suite asks that of small ones
(tests/classify/test_pathological.py); this runs each at full size in a process of its own.

Measured on a shared 2.6 GHz server, a million packets each: 0.2 to 3 microseconds a packet, but 5 of
1,100 bytes of a head that never ends, and 13 of fifty requests. Memory is that of a million flows
where as many are sent (300 MiB), else under 70 MiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.capture.reader import CaptureReader
from pipeline.classify.stage import Classify, Limits
from pipeline.model.batches import PacketBatch
from pipeline.model.identifiers import Keys
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor
from tests.bench import hostile_files
from tests.classify import frames
from tests.classify.frames import ACK, SYN
from tests.classify.wrappings import FRAME, OUTER, WRAPPINGS, ip, tagged
from tests.forge import quic

KEYS = Keys.from_seed("pathological")
START_NS = 1_700_000_000_000_000_000
ROWS = 4096
STEP_NS = 1000
# Where things are in a frame over IPv4 without options.
LENGTH, IDENTIFICATION, PLACE, SOURCE, PORT, SEQUENCE, FLAGS, PAYLOAD = (
    16,
    18,
    20,
    26,
    34,
    38,
    47,
    54,
)
Numbers = np.ndarray  # int64, the packets' numbers from 0 on
Make = Callable[[Numbers], np.ndarray]  # frames of equal length, uint8 (packets, bytes)


@dataclass(frozen=True)
class Pathology:
    """Something that costs as much as it can. `size` packets, records or bytes by hand; of `words`
    all must have been counted; `feed` pushes so many of them into a stage.
    """

    name: str
    words: tuple[str, ...]
    feed: Callable[[int, Classify, Tally], None]
    size: int = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What a size of one took: processor seconds, KiB of memory more than before, what was told."""

    name: str
    size: int
    seconds: float
    memory_kib: int
    told: dict[str, int]

    def __str__(self) -> str:
        told = ", ".join(f"{word} {count:,}" for word, count in self.told.items())
        each = self.seconds / self.size * 1e9
        return f"{self.name:22} {self.size:>10,} {self.seconds:8.2f} s {each:8.0f} ns each {self.memory_kib >> 10:6,} MiB  {told}"


def fresh(limits: Limits = Limits()) -> Classify:  # noqa: B008
    """A stage without a gate: everybody may send."""
    return Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, limits=limits)


def packets(make: Make) -> Callable[[int, Classify, Tally], None]:
    """Feed frames that are made a batch at a time."""

    def feed(size: int, stage: Classify, tally: Tally) -> None:
        for batch in batches(make, size):
            stage.push(batch, tally)

    return feed


def batches(make: Make, size: int) -> Iterator[PacketBatch]:
    """So many frames, a microsecond apart."""
    for start in range(0, size, ROWS):
        numbers = np.arange(start, min(start + ROWS, size), dtype=np.int64)
        made = make(numbers)
        rows, length = made.shape
        yield PacketBatch(
            source="hostile.pcap",
            source_id=3,
            first_packet=start + 1,
            data=np.ascontiguousarray(made).reshape(-1),
            offset=np.arange(rows, dtype=np.int64) * length,
            captured_length=np.full(rows, length, np.uint32),
            wire_length=np.full(rows, length, np.uint32),
            time_ns=START_NS + numbers * STEP_NS,
            interface=np.zeros(rows, np.uint16),
            link_type=np.ones(rows, np.uint16),
            stripped_vlan=np.full(rows, -1, np.int32),
        )


def file(make: Callable[[int], hostile_files.Repeated]) -> Callable[[int, Classify, Tally], None]:
    """Feed what is read of a file that is made as it is read."""

    def feed(size: int, stage: Classify, tally: Tally) -> None:
        reader = CaptureReader(make(size), source="x", source_id=2, tally=tally)
        for batch in reader:
            stage.push(batch, tally)

    return feed


def copies(frame: bytes, numbers: Numbers) -> np.ndarray:
    """As many copies of a frame as there are numbers."""
    return np.tile(np.frombuffer(frame, np.uint8), (len(numbers), 1))


def put(made: np.ndarray, at: int, values: np.ndarray, width: int) -> np.ndarray:
    """Write numbers into the frames, big-endian."""
    for byte in range(width):
        made[:, at + byte] = values >> 8 * (width - 1 - byte) & 0xFF
    return made


def of_many(frame: bytes) -> Make:
    """Each frame from another address, of 16 million, and port."""

    def make(numbers: Numbers) -> np.ndarray:
        made = put(copies(frame, numbers), SOURCE, 0x0A000000 | numbers & 0xFFFFFF, 4)
        return put(made, PORT, 1024 + (numbers >> 24), 2)

    return make


BEGUN = frames.client_hello(padding=15_000)


def overlapping(numbers: Numbers) -> np.ndarray:
    """One flow: a hello that begins, fifteen segments behind a gap, and then only these again,
    shifted, so that every byte has to be compared and none is new.
    """
    made = copies(frames.tcp(b"\xaa" * 1000), numbers)
    again = 1000 * (2 + numbers % 13) + numbers * 7 % 900
    places = np.where(numbers < 16, 1000 * numbers, again)
    put(made, SEQUENCE, places + 1, 4)
    if numbers[0] == 0:
        made[0, PAYLOAD : PAYLOAD + 500] = np.frombuffer(BEGUN[:500], np.uint8)
        made[0, PAYLOAD + 500 :] = 0
        made[1] = made[0]
        made[0, FLAGS] = SYN
        put(made[:1], SEQUENCE, np.zeros(1, np.int64), 4)
        put(made[1:2], SEQUENCE, np.array([1]), 4)
    return made


def scattered(numbers: Numbers) -> np.ndarray:
    """Many flows of 32 segments each, every one a byte behind a gap."""
    made = copies(frames.tcp(b"\xaa"), numbers)
    put(made, SOURCE, 0x0A000000 | (numbers >> 5) & 0xFFFFFF, 4)
    put(made, SEQUENCE, 5 + 9 * (numbers & 31), 4)
    made[:, FLAGS] = np.where(numbers & 31, ACK, SYN)
    made[numbers & 31 == 0, PAYLOAD] = BEGUN[0]
    return made


REQUESTS = b"GET a://b HTTP/1.1\n\n" * 50


def behind_a_gap(numbers: Numbers) -> np.ndarray:
    """Flows of 17 packets: fifteen full of the shortest requests, and then what came before them."""
    made = copies(frames.tcp(REQUESTS), numbers)
    turn = numbers % 17
    first = turn == 0
    put(made, SOURCE, 0x0A000000 | (numbers // 17) & 0xFFFFFF, 4)
    put(made, SEQUENCE, np.where(first, 0, 1 + 1000 * (turn % 16)), 4)
    made[first, FLAGS] = SYN
    return put(made, LENGTH, np.where(first, 40, 1040), 2)  # a handshake that carries nothing


def in_order(numbers: Numbers) -> np.ndarray:
    """The same flows, nothing missing."""
    made = behind_a_gap(numbers)
    turn = numbers % 17
    return put(made, SEQUENCE, np.where(turn, 1000 * (turn - 1) + 1, 0), 4)


def endless_head(numbers: Numbers) -> np.ndarray:
    """Heads that begin and go on, in flows of twenty segments."""
    made = copies(frames.tcp(b"A: " + b"a" * 1095 + b"\r\n"), numbers)
    put(made, SOURCE, 0x0A000000 | (numbers // 20) & 0xFFFFFF, 4)
    put(made, SEQUENCE, 1100 * (numbers % 20), 4)
    begins = numbers % 20 == 0
    made[begins, PAYLOAD : PAYLOAD + 16] = np.frombuffer(b"GET / HTTP/1.1\r\n", np.uint8)
    return made


def new_names(numbers: Numbers) -> np.ndarray:
    """One flow that asks for another host each time."""
    made = copies(frames.tcp(frames.get("a0000000.example")), numbers)
    digits = numbers[:, None] // 10 ** np.arange(6, -1, -1) % 10
    at = PAYLOAD + len(b"GET / HTTP/1.1\r\nHost: a")
    made[:, at : at + 7] = digits + ord("0")
    return put(made, SEQUENCE, numbers * (made.shape[1] - PAYLOAD) & 0xFFFFFFFF, 4)


def of_tunnels(name: str) -> Make:
    """A request in 64 tunnels."""
    takes, _, wrap = WRAPPINGS[name]
    packet = frames.tcp(frames.get())[14:]
    for _ in range(64):
        packet = wrap(tagged(packet) if takes == FRAME else packet)
    return lambda numbers: copies(tagged(packet), numbers)


def first_fragments(numbers: Numbers) -> np.ndarray:
    """Fragments of packets that never become whole, each of another."""
    made = copies(tagged(ip(17, bytes(64), OUTER)), numbers)
    put(made, SOURCE, 0x0A000000 | (numbers >> 16) & 0xFFFFFF, 4)
    put(made, IDENTIFICATION, numbers & 0xFFFF, 2)
    return put(made, PLACE, np.full(len(numbers), 0x2000), 2)


def backward_fragments(numbers: Numbers) -> np.ndarray:
    """Packets of 64 KiB in pieces of 8 bytes, the last first, every other one missing."""
    made = copies(tagged(ip(17, bytes(8), OUTER)), numbers)
    put(made, IDENTIFICATION, numbers >> 12 & 0xFFFF, 2)
    return put(made, PLACE, 0x2000 | (8190 - 2 * (numbers & 4095)), 2)


BLOCK = frames.tcp(frames.prior_knowledge(frames.request_block("shop.example", "/" + "%" * 1600)))
HALF_OPEN = frames.tcp(frames.client_hello()[:100], seq=1)
CLAIMED = frames.tcp(b"\x16\3\1\x40\0\1\xff\xff\xff\3\3" + bytes(60), seq=1)
CLAIMED_QUIC = frames.udp(quic.initial(quic.crypto(0, b"\1\xff\xff\xff"), pad_to=1200))
SEALED = frames.udp(quic.initial(quic.PING, first_id=b"another's", pad_to=1200))
PATHOLOGIES = {
    p.name: p
    for p in (
        Pathology("overlapping segments", ("fault:hello_incomplete",), packets(overlapping)),
        Pathology("scattered segments", ("fault:segments_exhausted",), packets(scattered)),
        Pathology("requests behind a gap", ("named",), packets(behind_a_gap)),
        Pathology("half-open hellos", ("fault:segments_exhausted", "fault:flows_exhausted"), packets(of_many(HALF_OPEN)), 2_000_000),
        Pathology("hellos of 16 MB", ("fault:hello_too_long", "fault:flows_exhausted"), packets(of_many(CLAIMED)), 2_000_000),
        Pathology("QUIC hellos of 16 MB", ("fault:hello_too_long",), packets(of_many(CLAIMED_QUIC))),
        Pathology("QUIC sealed", ("fault:quic_sealed",), packets(of_many(SEALED))),
        Pathology("endless heads", ("fault:head_too_long",), packets(endless_head)),
        Pathology("header blocks", ("fault:heads_exhausted",), packets(of_many(BLOCK))),
        Pathology("new names", ("named",), packets(new_names)),
        *(
            Pathology(f"64 x {name}", ("fault:nesting_too_deep",), packets(of_tunnels(name)))
            for name in ("ip in ip", "gre", "vxlan", "ether ip")
        ),
        Pathology("first fragments", ("fault:fragments_exhausted",), packets(first_fragments)),
        Pathology("backward fragments", ("fault:fragments_exhausted",), packets(backward_fragments)),
        *(Pathology(name, words, file(make), size) for name, words, make, size in hostile_files.FILES),
    )
}  # fmt: skip


def spend(pathology: Pathology, size: int, limits: Limits = Limits()) -> tuple[float, Tally]:  # noqa: B008
    """Processor seconds of feeding so much of it to the end of time, and what was counted."""
    stage, tally = fresh(limits), Tally()
    start = time.process_time()
    pathology.feed(size, stage, tally)
    stage.advance(END_OF_TIME, tally)
    return time.process_time() - start, tally


def measure(pathology: Pathology, size: int) -> Cost:
    """All of it, in this process; kernels are loaded before."""
    spend(pathology, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, tally = spend(pathology, size)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    counted = {word: count for (_, word), count in sorted(tally.counts.items())}
    told = {w: n for w, n in counted.items() if w.startswith("fault") or w in pathology.words}
    return Cost(pathology.name, size, seconds, more, told)


def main(argv: list[str] | None = None) -> int:
    """Measure each in a process of its own; fails where a cap was not named."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.pathological", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PATHOLOGIES))
    parser.add_argument("--share", type=float, default=1.0, help="of the full size")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    failed = 0
    for name in given.names or PATHOLOGIES:
        if not given.here:
            command = [sys.executable, "-m", "tests.bench.pathological", name, "--here"]
            words = [f"--share={given.share}", *["--json"] * given.json]
            failed |= subprocess.run([*command, *words], check=False).returncode
            continue
        pathology = PATHOLOGIES[name]
        cost = measure(pathology, max(int(pathology.size * given.share), 1))
        sys.stdout.write((json.dumps(asdict(cost)) if given.json else str(cost)) + "\n")
        missing = [word for word in pathology.words if word not in cost.told]
        if missing and given.share >= 1:
            sys.stderr.write(f"{name}: nothing was counted as {', '.join(missing)}\n")
            failed = 1
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
