"""A generated day: as many visits as asked for, made from templates, for tests of size.

    python -m tests.forge.generated_day FOLDER [--visits N] [--subscribers N] [--seed S] ...

The same kinds of traffic and purchases as in the bundled day, without a story: HTTP pages and
scripts, hellos of one and of two segments, a second session at the till, trackers before visits,
names of nobody, outsiders, refusals in the middle of the day, addresses that two members swap.
Frames are made by filling addresses, ports and sequence numbers into copies of a template,
thousands at a time; there is no loop over packets. The same parameters make the same bytes.

Each subscriber visits each partner at most once per slot of the day, and slots leave more than
the 30 minutes of a visit's gap between them, so `visits` is the number of visits of members who
stay members (give or take one that falls on the very moment of a swap); those of people who
refuse during the day come on top.
"""

from __future__ import annotations

import argparse
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.times import show_time
from pipeline.model.words import ParseFor
from tests.forge import heads
from tests.forge.clicks import Pass, run_stages
from tests.forge.generated_sales import write_sales
from tests.forge.texts import write_rows
from tests.forge.wire import PCAP_HEADER

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
START_NS = 1_772_323_200 * SECOND_NS  # 2026-03-01T00:00:00Z
QUIET_NS = 40 * 60 * SECOND_NS  # between two visits to one partner; the gap is 30 minutes
SUBSCRIBERS = ("100.64.0.0/10", "2001:db8:100::/40")
PARTNERS = ("acme", "bolt", "books", "delta")
HOSTS = {
    "acme": ("www.acme.example", "pay.acme.example"),
    "bolt": ("bolt.example", "pay.bolt.example"),
    "books": ("books.example", "www.books.example"),
    "delta": ("www.delta.example", "book.delta.example"),
    "tracker": ("go.trk.example", "click.track.example"),
    "nobody": ("news.example", "mail.test"),
}
SERVERS = {name: number for number, name in enumerate(HOSTS)}
CHUNK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class GeneratedDay:
    """What to make. Shares are of visits, except where they are of subscribers (`*_people`)."""

    visits: int = 100_000
    subscribers: int = 5_000
    seed: int = 1
    listed_people: float = 0.15
    outside_people: float = 0.10
    refusing_people: float = 0.02
    swapping_people: float = 0.04
    ipv6_people: float = 0.20
    http: float = 0.40
    script: float = 0.05
    post_quantum: float = 0.15
    till: float = 0.30
    tracked: float = 0.03
    nobody: float = 0.20
    sales: float = 0.30
    orders: int = 200

    def __post_init__(self) -> None:
        assert self.subscribers >= 20
        slots = -(-self.visits // (self.people("stay") * len(PARTNERS)))
        assert slots <= 18, "more visits than there is room for in a day; ask for more subscribers"

    def people(self, kind: str) -> int:
        """How many subscribers refuse, stay outside, or stay members all day."""
        counts = {
            "refuse": int(self.subscribers * self.refusing_people),
            "outside": int(self.subscribers * self.outside_people),
        }
        counts["stay"] = self.subscribers - sum(counts.values())
        return counts[kind]


@dataclass(frozen=True, slots=True)
class People:
    """Subscribers as columns: first those who stay members, then who refuses, then outsiders."""

    ipv6: np.ndarray  # bool
    listed: np.ndarray  # bool: not consented
    address: np.ndarray  # int64 (subscribers, 2): host number before and after a swap
    swap_ns: np.ndarray  # int64: when, END where never
    refuse_ns: np.ndarray  # int64: when, 0 where never

    def address_at(self, who: np.ndarray, when_ns: np.ndarray) -> np.ndarray:
        """The host number that each subscriber had at a time."""
        return self.address[who, (when_ns >= self.swap_ns[who]).astype(np.int64)]

    def login(self, number: int) -> str:
        """The operator's name for a subscriber."""
        return f"line{number}@isp.example"


@dataclass(frozen=True, slots=True)
class Flows:
    """Flows to be forged, as columns."""

    start_ns: np.ndarray
    who: np.ndarray
    port: np.ndarray
    server: np.ndarray  # SERVERS
    host: np.ndarray  # which of its names
    kind: np.ndarray  # KINDS


KINDS = ("page", "script", "hello", "large hello")


def forge(folder: Path, day: GeneratedDay) -> Pass:
    """Write a case folder; gives the pass through the engine that named the clicks."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(day.seed)
    people = make_people(day, rng)
    write_capture(folder / "input.pcap", make_flows(day, people, rng), people, day.seed)
    write_circle(folder / "circle.tsv", day, people)
    write_signins(folder / "signins.tsv", day, people)
    names = ("input.pcap", "circle.tsv", "signins.tsv")
    seed = f"generated-{day.seed}"
    seen = run_stages([folder / n for n in names], seed, SUBSCRIBERS, ParseFor.LISTED)
    cuts = write_sales(folder, seen, people.login, day.people("stay"), day.sales, day.orders)
    (folder / "case.toml").write_text(case_text(day, seed, cuts))
    return seen


def write_day(folder: Path, visits: int = 100_000, **more: int | float) -> Path:
    """Write a case folder with about 20 visits a subscriber, unless told otherwise; gives it
    back.
    """
    day: dict[str, Any] = {"visits": visits, "subscribers": max(40, visits // 20)} | more
    forge(folder, GeneratedDay(**day))
    return folder


def make_people(day: GeneratedDay, rng: np.random.Generator) -> People:
    """Draw who is who."""
    count, stay = day.subscribers, day.people("stay")
    refuse = day.people("refuse")
    ipv6 = rng.random(count) < day.ipv6_people
    address = np.repeat(np.arange(count, dtype=np.int64)[:, None], 2, axis=1)
    swap_ns = np.full(count, np.iinfo(np.int64).max)
    pairs = rng.permutation(np.flatnonzero(~ipv6[:stay]))
    pairs = pairs[: int(count * day.swapping_people) // 2 * 2].reshape(-1, 2)
    for one, other in ((0, 1), (1, 0)):
        address[pairs[:, one], 1] = address[pairs[:, other], 0]
    swap_ns[pairs] = START_NS + rng.integers(8 * 3600, 16 * 3600, len(pairs))[:, None] * SECOND_NS
    refuse_ns = np.zeros(count, np.int64)
    moments = START_NS + rng.integers(3600, 23 * 3600, refuse) * SECOND_NS
    refuse_ns[stay : stay + refuse] = moments
    return People(ipv6, rng.random(count) < day.listed_people, address, swap_ns, refuse_ns)


def make_flows(day: GeneratedDay, people: People, rng: np.random.Generator) -> Flows:
    """All flows of the day: the visits, what goes with them, and what nobody may read."""
    stay = day.people("stay")
    rounds = -(-day.visits // stay)
    slots = -(-rounds // len(PARTNERS))
    slot_ns = 24 * HOUR_NS // slots
    visit = np.arange(day.visits, dtype=np.int64)
    # People who refuse and outsiders visit as often as members do.
    others = np.arange(stay * rounds, day.subscribers * rounds, dtype=np.int64)
    who = np.concatenate([visit % stay, stay + (others - stay * rounds) // rounds])
    turn = np.concatenate([visit // stay, (others - stay * rounds) % rounds])
    jitter = (rng.random(len(who)) * (slot_ns - QUIET_NS)).astype(np.int64)
    start_ns = START_NS + turn // len(PARTNERS) * slot_ns + jitter // 1000 * 1000
    server = (who + turn) % len(PARTNERS)
    draw = rng.random(len(who))
    script_from, large_from = day.http, 1 - day.post_quantum
    kind = np.select(
        [draw < day.script, draw < script_from, draw < large_from],
        [KINDS.index("script"), KINDS.index("page"), KINDS.index("hello")],
        KINDS.index("large hello"),
    )
    parts = [(start_ns, who, server, np.zeros(len(who), np.int64), kind)]

    def also(share: float, after_s: int, name: str | None, kinds: str) -> None:
        rows = np.flatnonzero(rng.random(len(who)) < share)
        target = server[rows] if name is None else np.full(len(rows), SERVERS[name])
        moved = start_ns[rows] + after_s * SECOND_NS
        which = np.full(len(rows), KINDS.index(kinds))
        parts.append((moved, who[rows], target, np.ones(len(rows), np.int64), which))

    also(day.till, 60, None, "hello")
    also(day.tracked, -20, "tracker", "page")
    also(day.nobody, 5, "nobody", "hello")
    start_ns, who, server, host, kind = (np.concatenate(p) for p in zip(*parts, strict=True))
    # A port of its own for every flow of a subscriber.
    order = np.argsort(who, kind="stable")
    first = np.searchsorted(who[order], who[order])
    port = np.empty(len(who), np.int64)
    port[order] = 10_000 + np.arange(len(who)) - first
    return Flows(np.maximum(start_ns, START_NS), who, port, server, host, kind)


def write_capture(path: Path, flows: Flows, people: People, seed: int) -> None:
    """Forge all frames, class by class, each put where its time has its place in the file."""
    rng = random.Random(seed)
    batches = list(_frames(flows, people, rng))
    times = np.concatenate([t for t, _, _ in batches])
    sizes = np.concatenate([np.full(len(t), len(f) + 16) for t, f, _ in batches])
    order = np.lexsort((np.arange(len(times)), times))
    place = np.empty(len(times), np.int64)
    place[order] = np.cumsum(sizes[order]) - sizes[order]
    out = np.empty(int(sizes.sum()), np.uint8)
    at = 0
    for when, template, fill in batches:
        for a in range(0, len(when), CHUNK_ROWS):
            rows = np.arange(a, min(a + CHUNK_ROWS, len(when)))
            frames = np.empty((len(rows), 16 + len(template)), np.uint8)
            seconds, rest = np.divmod(when[rows] // 1000, 1_000_000)
            head = np.stack([seconds, rest, *[np.full(len(rows), len(template))] * 2], axis=1)
            frames[:, :16] = head.astype("<u4").view(np.uint8)
            frames[:, 16:] = template
            fill.into(frames[:, 16:], rows)
            out[place[at + rows][:, None] + np.arange(frames.shape[1])] = frames
        at += len(when)
    with open(path, "wb") as file:
        file.write(PCAP_HEADER)
        file.write(out.data)


@dataclass(frozen=True, slots=True)
class Fill:
    """What differs between the frames of one template; `up` is from the subscriber."""

    ipv6: bool
    up: bool
    address: np.ndarray
    port: np.ndarray
    sequence: np.ndarray

    def into(self, frames: np.ndarray, rows: np.ndarray) -> None:
        """Write addresses, ports and sequence numbers; the IPv4 checksum is the right one."""
        address, transport = (22, 54) if self.ipv6 else (26, 34)
        if not self.up:
            address += 16 if self.ipv6 else 4
        # 100.64.0.0/10 and 2001:db8:100::/40: the host number counts addresses or /64s.
        where = address + (4 if self.ipv6 else 0)
        base = 0x0100_0000 if self.ipv6 else 0x6440_0000
        frames[:, where : where + 4] = _big_endian(base + self.address[rows] + 1, 4)
        port = transport + (0 if self.up else 2)
        frames[:, port : port + 2] = _big_endian(self.port[rows], 2)
        number = transport + (4 if self.up else 8)
        frames[:, number : number + 4] = _big_endian(self.sequence[rows], 4)
        if not self.ipv6:
            words = frames[:, 14:34].reshape(-1, 10, 2).astype(np.int64)
            total = (words[:, :, 0] * 256 + words[:, :, 1]).sum(axis=1)
            total = (total & 0xFFFF) + (total >> 16)
            frames[:, 24:26] = _big_endian(0xFFFF - ((total & 0xFFFF) + (total >> 16)), 2)


def _frames(
    flows: Flows, people: People, rng: random.Random
) -> Iterator[tuple[np.ndarray, np.ndarray, Fill]]:
    """(times, template, what to fill in) of every class of packets."""
    ipv6 = people.ipv6[flows.who]
    address = people.address_at(flows.who, flows.start_ns)
    # Any number will do for a sequence, as long as it is always the same.
    first = (flows.who * 7919 + flows.port * 104_729) & 0xFFFF_FFFF
    for name, server in SERVERS.items():
        for host, host_name in enumerate(HOSTS[name]):
            for kind, kind_name in enumerate(KINDS):
                mine = (flows.server == server) & (flows.host == host) & (flows.kind == kind)
                payload = _payload(kind_name, host_name, rng)
                port = 80 if kind_name in ("page", "script") else 443
                reply = heads.answer() if port == 80 else heads.server_hello(rng)
                for six in (False, True):
                    rows = np.flatnonzero(mine & (ipv6 == six))
                    if not len(rows):
                        continue
                    for delay_us, flags, up, offset, data in _packets(payload, reply):
                        yield (
                            flows.start_ns[rows] + delay_us * 1000,
                            _template(six, server, port, flags, up, data),
                            Fill(
                                six,
                                up,
                                address[rows],
                                flows.port[rows],
                                (first[rows] + offset) & 0xFFFF_FFFF,
                            ),
                        )


def _packets(payload: bytes, reply: bytes) -> Iterator[tuple[int, int, bool, int, bytes]]:
    """(delay in microseconds, TCP flags, from the subscriber, offset, data) of one flow."""
    yield 0, 0x02, True, 0, b""
    yield 8_000, 0x12, False, 1, b""
    for number, start in enumerate(range(0, len(payload), 1400)):
        yield 16_000 + 200 * number, 0x18, True, 1 + start, payload[start : start + 1400]
    yield 40_000, 0x18, False, 1 + len(payload), reply


def _payload(kind: str, host: str, rng: random.Random) -> bytes:
    if kind == "page":
        return heads.document(host, "/today")
    if kind == "script":
        return heads.script_call(host, "/api/today")
    return heads.client_hello(host, rng, post_quantum=kind == "large hello")


def _template(ipv6: bool, server: int, port: int, flags: int, up: bool, data: bytes) -> np.ndarray:
    """One frame with the server's side filled in."""
    tcp = struct.pack(">HHIIBBHHH", 0, port, 0, 0, 0x50, flags, 502, 0, 0)
    if not up:
        tcp = struct.pack(">HHIIBBHHH", port, 0, 1, 0, 0x50, flags, 502, 0, 0)
    macs = bytes.fromhex("00005e00530200005e005301" if up else "00005e00530100005e005302")
    if ipv6:
        ours = bytes.fromhex("20010db8010000000000000000000005")
        theirs = bytes.fromhex("20010db800ff") + bytes(9) + bytes([server + 1])
        head = struct.pack(">IHBB", 6 << 28, len(tcp) + len(data), 6, 63)
        kind = b"\x86\xdd"
    else:
        ours, theirs = bytes(4), bytes([203, 0, 113, 16 * server + 1])
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp) + len(data), 1, 0x4000, 63, 6, 0)
        kind = b"\x08\x00"
    ends = ours + theirs if up else theirs + ours
    return np.frombuffer(macs + kind + head + ends + tcp + data, np.uint8)


def _big_endian(values: np.ndarray, width: int) -> np.ndarray:
    return values.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 4 - width :]


def address_text(people: People, number: int, after_swap: bool) -> str:
    """The address of a subscriber as text."""
    host = int(people.address[number, int(after_swap)]) + 1
    if people.ipv6[number]:
        value = 0x0100_0000 + host
        return f"2001:db8:{value >> 16:x}:{value & 0xFFFF:x}::/64"
    value = 0x6440_0000 + host
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def write_circle(path: Path, day: GeneratedDay, people: People) -> None:
    """Everybody but the outsiders is in the circle; some refuse during the day."""
    before = show_time(START_NS - 86_400 * SECOND_NS)
    inside = day.subscribers - day.people("outside")
    rows = [(before, n, "listed" if people.listed[n] else "consented") for n in range(inside)]
    refusals = np.flatnonzero(people.refuse_ns)
    for number in refusals[np.argsort(people.refuse_ns[refusals], kind="stable")].tolist():
        rows.append((show_time(int(people.refuse_ns[number])), number, "refused"))
    write_rows(
        path,
        "circle",
        (
            {
                "event_ns": when,
                "received_ns": when,
                "login": people.login(number),
                "state": state,
                "terms": "member-terms-1" if state == "consented" else "",
            }
            for when, number, state in rows
        ),
    )


def write_signins(path: Path, day: GeneratedDay, people: People) -> None:
    """Everybody signs in before the day; who swaps signs in once more, told two seconds later."""
    swaps = np.flatnonzero(people.swap_ns < np.iinfo(np.int64).max)
    swaps = swaps[np.argsort(people.swap_ns[swaps], kind="stable")]
    happened = [(START_NS - HOUR_NS, n, False) for n in range(day.subscribers)]
    happened += [(int(people.swap_ns[n]), n, True) for n in swaps.tolist()]
    write_rows(
        path,
        "sign-ins",
        (
            {
                "event_ns": str(when),
                "received_ns": str(when + (2 if after else 0) * SECOND_NS),
                "kind": "start",
                "login": people.login(number),
                "address": address_text(people, number, after),
            }
            for when, number, after in happened
        ),
    )


def case_text(day: GeneratedDay, seed: str, cuts: list[dict[str, str]]) -> str:
    """The text of case.toml."""
    lines = [
        'title = "A generated day"',
        f'seed = "{seed}"',
        "[settings]",
        'parse_for = "listed"',
        f"subscribers = [{', '.join(repr(p) for p in SUBSCRIBERS)}]",
        "[inputs]",
        'captures = ["input.pcap"]',
        'signins = ["signins.tsv"]',
        'circle = ["circle.tsv"]',
        'purchases = ["purchases.tsv"]',
        'orders = ["orders.tsv"]',
    ]
    for cut in cuts:
        lines.append("[[cut]]")
        lines += [f"{k} = {v}" if k == "now" else f'{k} = "{v}"' for k, v in cut.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write a generated day."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for field in fields(GeneratedDay):
        convert = float if isinstance(field.default, float) else int
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=convert, default=field.default
        )
    given = vars(parser.parse_args())
    forge(given.pop("folder"), GeneratedDay(**given))


if __name__ == "__main__":
    main()
