"""Made traffic for the benches: classic pcap from templates, and the truth about what is in it.

    python -m tests.bench.traffic FILE [--packets N] [--flows F] [--seed S] [--json]

Shares are of flows: 60 % TLS over TCP, of which 60 % with a post-quantum hello of about 1.7 kB in
two segments (a tenth of these swapped, the extensions in random order, so the name may be in
either); 25 % QUIC with Initials of 1,200 bytes, one or, for a post-quantum hello, two; 7 % HTTP/1; the rest
other TCP and UDP. A flow has 38 packets and a packet 800 bytes on average; `live` flows are mixed
at any moment; 30 % of flows are IPv6, 20 % VLAN-tagged, 1 % of packets stamped late. The same
parameters make the same bytes.

The generator knows what it hides: `Truth` counts the names whose last byte is in the file, so a
bench checks that its fast answer is also the right one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO

import numpy as np

from tests.bench import hellos
from tests.bench import traffic_kernels as k

BLOCK_BYTES = 1 << 20
MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
PRIME = 2_147_483_629  # spreads flow numbers over subscribers
# Data offset 8, window, a checksum that is not right, and the timestamp option.
TCP_HEADER = bytes(12) + b"\x80\0\xff\xff\xbe\xef\0\0" + b"\x01\x01\x08\x0a" + bytes(8)
DOWN_SHARE = 0.60  # of the packets after a handshake; makes the mean size


@dataclass(frozen=True, slots=True)
class Traffic:
    """What to make. Shares are of flows; `late` is of packets, `post_quantum` of TLS flows."""

    packets: int = 1_000_000
    live: int = 10_000
    seed: int = 1
    subscribers: int = 20_000
    member_share: float = 0.01
    tls: float = 0.60
    post_quantum: float = 0.60
    quic: float = 0.25
    http: float = 0.07
    other_tcp: float = 0.04
    ipv6: float = 0.30
    vlan: float = 0.20
    swapped: float = 0.10
    retransmitted: float = 0.01
    second_request: float = 0.30
    late: float = 0.01
    packets_per_flow: int = 38
    partner_hosts: float = 0.05
    pool: int = 512
    packets_per_second: int = 1_250_000
    start_ns: int = 1_767_261_600_000_000_000
    nanoseconds: bool = False

    def __post_init__(self) -> None:
        assert self.packets >= 0
        assert self.live >= 1
        assert 1 <= self.subscribers < 1 << 22, "client addresses come from 100.64.0.0/10"
        assert self.tls + self.quic + self.http + self.other_tcp <= 1.0

    @property
    def members(self) -> int:
        """Subscribers 0 up to, not including, this number are members."""
        return round(self.subscribers * self.member_share)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in the file. `hosts` counts names of TLS and QUIC hellos and HTTP requests that
    are whole in it.

    `http` counts requests, `http_flows` the flows that have one (a flow asks one host).
    `member_*` count what the members' flows say. `bytes` are captured bytes without record
    headers.
    """

    packets: int
    bytes: int
    flows: int
    tls: int
    http: int
    http_flows: int
    quic: int
    member_packets: int
    member_tls: int
    member_http: int
    member_quic: int
    ipv6_packets: int
    vlan_packets: int
    late_packets: int
    split_hellos: int
    split_initials: int
    swapped_hellos: int
    retransmitted: int
    tls_hosts: dict[str, int]
    http_hosts: dict[str, int]
    quic_hosts: dict[str, int]
    member_hosts: dict[str, int]

    @property
    def sessions(self) -> int:
        """TLS and QUIC hellos and HTTP requests."""
        return self.tls + self.quic + self.http

    def all_hosts(self) -> Counter[str]:
        """Names by any protocol."""
        return Counter(self.tls_hosts) + Counter(self.http_hosts) + Counter(self.quic_hosts)

    def summary(self) -> dict[str, int]:
        """All counts, without the names."""
        return {n: v for n, v in asdict(self).items() if isinstance(v, int)}


def write(traffic: Traffic, file: IO[bytes]) -> Truth:
    """Write the traffic into an open binary file, a pipe as well; returns what is in it."""
    templates = hellos.build(traffic.seed, traffic.pool, traffic.partner_hosts)
    knob, table, data = arrays_of(traffic, templates)
    slots = np.zeros((traffic.live, 4), np.int64)
    k.begin(knob, table, slots)
    state = np.array([0, traffic.packets, traffic.live, traffic.seed], np.int64)
    follow, step = np.zeros(k.FOLLOW, np.int64), np.zeros(8, np.int64)
    counts = np.zeros(k.TRUTH, np.int64)
    hosts, member_hosts = np.zeros((2, 5 * traffic.pool), np.int64)
    block = np.zeros(BLOCK_BYTES, np.uint8)
    magic = NANOSECONDS if traffic.nanoseconds else MICROSECONDS
    file.write(np.array([magic, 0x00040002, 0, 0, 65535, 1], "<u4").tobytes())
    view = memoryview(block)
    while state[k.NEXT_PACKET] < traffic.packets:
        used = k.fill(
            knob, table, data, block, slots, follow, state, counts, hosts, member_hosts, step
        )
        _write_all(file, view[:used])
    return _truth(traffic, templates, counts, hosts, member_hosts)


def generate(path: Path, traffic: Traffic) -> Truth:
    """Write the traffic into a file; returns what is in it. It is on the disk then, so that nobody
    writes it there while it is read.
    """
    with open(path, "wb", buffering=0) as file:
        truth = write(traffic, file)
        os.fsync(file.fileno())
    return truth


def _write_all(file: IO[bytes], view: memoryview) -> None:
    while view:
        view = view[file.write(view) :]


def arrays_of(traffic: Traffic, templates: hellos.Templates) -> tuple[np.ndarray, ...]:
    """The parameters as kernels see them: `knob`, `table` and `data`."""
    rng = np.random.default_rng(traffic.seed)
    noise = rng.integers(0, 256, 65536 + k.ROOM, np.uint8)
    parts = (templates.data, templates.server, templates.answer, _headers().reshape(-1), noise)
    _, server, answer, headers, noise_at = np.cumsum([0, *(len(p) for p in parts)])[:-1].tolist()
    kinds = (
        traffic.tls * (1 - traffic.post_quantum),
        traffic.tls * traffic.post_quantum,
        traffic.quic,
        traffic.http,
        traffic.other_tcp,
    )
    knob = np.zeros(k.KNOBS, np.int64)
    knob[k.KIND_BELOW : k.KIND_BELOW + 5] = np.round(np.cumsum(kinds) * 65536)
    for row, value in (
        (k.SEED, traffic.seed * 0x9E3779B1),
        (k.POOL, templates.pool),
        (k.SUBSCRIBERS, traffic.subscribers),
        (k.STRIDE, PRIME),
        (k.MEMBERS, traffic.members),
        (k.IPV6, _share(traffic.ipv6)),
        (k.VLAN, _share(traffic.vlan)),
        (k.SWAPPED_SHARE, _share(traffic.swapped)),
        (k.AGAIN, _share(traffic.retransmitted)),
        (k.SECOND, _share(traffic.second_request)),
        (k.LATE, _share(traffic.late)),
        (k.DOWN, _share(DOWN_SHARE)),
        (k.START_NS, traffic.start_ns),
        (k.GAP_NS, 1_000_000_000 // traffic.packets_per_second),
        (k.TICK_NS, 1 if traffic.nanoseconds else 1000),
        (k.LENGTH_AT, len(templates.start)),
        (k.PACKETS_AT, 2 * len(templates.start)),
        (k.NOISE_AT, noise_at),
        (k.SERVER_AT, server),
        (k.SERVER_BYTES, len(templates.server)),
        (k.ANSWER_AT, answer),
        (k.ANSWER_BYTES, len(templates.answer)),
        (k.HEADERS_AT, headers),
    ):
        knob[row] = value
    lengths = flow_lengths(traffic.packets_per_flow)
    table = np.concatenate([templates.start, templates.length, lengths])
    return knob, table, np.concatenate(parts)


def _share(share: float) -> int:
    return round(share * 65536)


def flow_lengths(mean: int) -> np.ndarray:
    """Packets of a flow at 4,096 even quantiles: at least 10, exponential above, mean `mean`."""
    least = 10
    middles = (np.arange(4096) + 0.5) / 4096
    return np.minimum(least + np.round(-(mean - least) * np.log1p(-middles)), 4000).astype(np.int64)


def _headers() -> np.ndarray:
    """Prototypes of all headers, a row each as `header_row` numbers them; what varies is zero."""
    rows = np.zeros((24, k.HEADER_ROW), np.uint8)
    for v6, udp, tags, up in itertools.product((0, 1), (0, 1), (0, 1, 2), (0, 1)):
        header = _ethernet(v6, tags, up) + _ip(v6, 17 if udp else 6, 64 if up else 55)
        header += bytes(6) + b"\xbe\xef" if udp else TCP_HEADER
        rows[k.header_row(v6, udp, tags, up), : len(header)] = np.frombuffer(header, np.uint8)
    return rows


def _ethernet(v6: int, tags: int, up: int) -> bytes:
    inside, outside = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    tag = (b"", b"\x81\0\0\x64", b"\x88\xa8\0\xc8\x81\0\0\x64")[tags]
    return (outside + inside if up else inside + outside) + tag + (b"\x86\xdd" if v6 else b"\x08\0")


def _ip(v6: int, protocol: int, hops: int) -> bytes:
    if v6:
        return b"\x60\0\0\0\0\0" + bytes([protocol, hops]) + bytes(32)
    return b"\x45" + bytes(5) + b"\x40\0" + bytes([hops, protocol]) + bytes(10)


def _truth(
    traffic: Traffic,
    templates: hellos.Templates,
    counts: np.ndarray,
    hosts: np.ndarray,
    member_hosts: np.ndarray,
) -> Truth:
    def named(values: np.ndarray, first: int, last: int) -> dict[str, int]:
        found: Counter[str] = Counter()
        for row in range(first, last):
            if values[row]:
                found[templates.host[row]] += int(values[row])
        return dict(sorted(found.items()))

    pool = templates.pool
    c = [int(n) for n in counts]
    return Truth(
        packets=traffic.packets,
        bytes=c[k.BYTES],
        flows=c[k.FLOWS],
        tls=c[k.TLS],
        http=c[k.HTTP_REQUESTS],
        http_flows=c[k.HTTP_FLOWS],
        quic=c[k.QUIC_FLOWS],
        member_packets=c[k.MEMBER_PACKETS],
        member_tls=c[k.MEMBER_TLS],
        member_http=c[k.MEMBER_HTTP],
        member_quic=c[k.MEMBER_QUIC],
        ipv6_packets=c[k.IPV6_PACKETS],
        vlan_packets=c[k.VLAN_PACKETS],
        late_packets=c[k.LATE_PACKETS],
        split_hellos=c[k.SPLIT],
        split_initials=c[k.SPLIT_INITIALS],
        swapped_hellos=c[k.SWAPPED],
        retransmitted=c[k.RETRANSMITTED],
        tls_hosts=named(hosts, 0, 2 * pool),
        http_hosts=named(hosts, 2 * pool, 3 * pool),
        quic_hosts=named(hosts, 3 * pool, 5 * pool),
        member_hosts=named(member_hosts, 0, 5 * pool),
    )


def warm() -> None:
    """Compile the kernels, so that a measured run does not."""
    with open("/dev/null", "wb", buffering=0) as nowhere:
        write(Traffic(packets=2_000, live=20, pool=8), nowhere)


def parameters(traffic: Traffic) -> str:
    """One line a reader can repeat the run from."""
    return ", ".join(f"{f.name}={getattr(traffic, f.name)}" for f in fields(traffic))


def main(argv: list[str] | None = None) -> int:
    """Write a file and print what was asked, what is in it and how fast it was made."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.traffic", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--flows", type=int, default=10_000, help="flows live at any moment")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subscribers", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    traffic = Traffic(
        packets=given.packets, live=given.flows, seed=given.seed, subscribers=given.subscribers
    )
    warm()
    began = time.perf_counter()
    truth = generate(given.file, traffic)
    seconds = time.perf_counter() - began
    rate = traffic.packets / seconds if seconds else math.inf
    if given.json:
        report = {
            "parameters": asdict(traffic),
            "truth": asdict(truth),
            "seconds": seconds,
            "packets_per_second": rate,
        }
        sys.stdout.write(json.dumps(report) + "\n")
        return 0
    sys.stdout.write(f"{parameters(traffic)}\n")
    for name, value in truth.summary().items():
        sys.stdout.write(f"  {name:16} {value:>14,}\n")
    mean = truth.bytes / max(truth.packets, 1)
    sys.stdout.write(f"{mean:.0f} bytes a packet; {rate / 1e6:.2f} million packets/s made\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
