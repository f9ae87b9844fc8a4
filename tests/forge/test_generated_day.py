"""The generated day: the same bytes again, real packets, and as many visits as asked for."""

from __future__ import annotations

import ipaddress
from collections import Counter
from pathlib import Path

import dpkt
import numpy as np
import pytest

from pipeline.model.batches import PurchaseBatch, VisitBatch
from pipeline.model.words import ParkReason, ParseFor, Reason
from pipeline.run.cases import load_case
from tests.forge.clicks import Pass, run_stages
from tests.forge.generated_day import (
    SUBSCRIBERS,
    GeneratedDay,
    make_flows,
    make_people,
    write_day,
)

VISITS = 1500
NETWORKS = [ipaddress.ip_network(p) for p in (*SUBSCRIBERS, "203.0.113.0/24", "2001:db8:ff::/48")]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_day(tmp_path_factory.mktemp("generated") / "day", visits=VISITS, seed=3)


@pytest.fixture(scope="module")
def seen(day: Path) -> Pass:
    return run_stages(load_case(day).files, "generated-3", SUBSCRIBERS, ParseFor.LISTED)


def test_the_same_parameters_make_the_same_bytes(day: Path, tmp_path: Path) -> None:
    again = write_day(tmp_path / "again", visits=VISITS, seed=3)
    other = write_day(tmp_path / "other", visits=VISITS, seed=4)
    for path in day.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert (day / "input.pcap").read_bytes() != (other / "input.pcap").read_bytes()


def test_packets_are_whole_and_in_order(day: Path) -> None:
    last, kinds = 0.0, Counter()
    with open(day / "input.pcap", "rb") as file:
        for time, frame in dpkt.pcap.Reader(file):
            assert time >= last
            last = time
            packet = dpkt.ethernet.Ethernet(frame).data
            if isinstance(packet, dpkt.ip.IP):
                header = np.frombuffer(frame[14:34], ">u2").astype(int).sum()
                assert (header & 0xFFFF) + (header >> 16) == 0xFFFF, "the checksum is wrong"
                assert packet.len == len(frame) - 14
            else:
                assert packet.plen == len(frame) - 54
            for end in (packet.src, packet.dst):
                address = ipaddress.ip_address(end)
                assert any(address in n for n in NETWORKS if n.version == address.version)
            assert isinstance(packet.data, dpkt.tcp.TCP)
            kinds[packet.data.dport in (80, 443), bool(packet.data.data)] += 1
    assert kinds[True, True] >= VISITS


def test_as_many_visits_as_asked_for(seen: Pass) -> None:
    visits = seen.rows["visits"]
    assert isinstance(visits, VisitBatch)
    found = len({v.tobytes() for v in visits.visit_id})
    refusing = GeneratedDay(visits=VISITS, subscribers=VISITS // 20).people("refuse")
    assert VISITS - 2 <= found <= VISITS + refusing * 30
    assert len(seen.rows["decisions"]) == found
    reasons = {Reason(r) for r in seen.rows["decisions"].reason.tolist()}
    assert reasons >= {
        Reason.MEMBER_DOCUMENT,
        Reason.LISTED_DOCUMENT,
        Reason.ENCRYPTED,
        Reason.NO_DOCUMENT,
        Reason.STOOD_DOWN,
        Reason.NO_REFERRAL,
        Reason.MATCHED_BY_SHOP,
    }
    assert visits.tls.max() >= 1
    assert seen.tally.of("skip:unbound") > 0
    assert seen.tally.of("skip:name_of_nobody") > 0


def test_messages_are_good_duplicate_or_wrong_on_purpose(seen: Pass) -> None:
    purchases = seen.rows["purchases"]
    assert isinstance(purchases, PurchaseBatch)
    reasons = Counter(ParkReason(p) for p in purchases.parked.tolist())
    assert reasons[ParkReason.NONE] > VISITS // 20
    assert reasons[ParkReason.DUPLICATE] > 0
    assert reasons.keys() <= {
        ParkReason.NONE,
        ParkReason.DUPLICATE,
        ParkReason.BAD_AMOUNT,
        ParkReason.UNKNOWN_STATUS,
        ParkReason.UNKNOWN_CURRENCY,
        ParkReason.MISSING_KEY,
    }
    good = purchases.take(purchases.parked == 0)
    assert good.status_ns.all(), "any order of arrival has to lead to the same ledger"
    clicks = {c.tobytes() for c in seen.rows["clicks"].click_id}
    assert len(clicks & {c.tobytes() for c in good.click_id}) > 10
    assert len({m.tobytes() for m in good.member_id}) > 10


def test_cuts_go_forward_and_two_come_again(day: Path) -> None:
    cuts = load_case(day).cuts
    assert [c.name for c in cuts if c.repeat] == ["amended-again", "released-again"]
    own = [c.now_ns for c in cuts if not c.repeat]
    assert len(own) == 5
    assert own == sorted(own)


def test_visits_to_one_partner_are_further_apart_than_the_gap() -> None:
    day = GeneratedDay(visits=20_000, subscribers=400)
    rng = np.random.default_rng(9)
    flows = make_flows(day, make_people(day, rng), rng)
    members = flows.who < day.people("stay")
    assert (members & (flows.host == 0) & (flows.server < 4)).sum() == day.visits
    order = np.lexsort((flows.start_ns, flows.server, flows.who))
    who, server, start = (c[order] for c in (flows.who, flows.server, flows.start_ns))
    same = (np.diff(who) == 0) & (np.diff(server) == 0) & (server[1:] < 4)
    apart = np.diff(start)[same]
    minute = 60 * 10**9
    assert not ((apart > minute) & (apart < 31 * minute)).any()
    ports = np.stack([flows.who, flows.port], axis=1)
    assert len(np.unique(ports, axis=0)) == len(ports), "two flows share a port"


def test_too_many_visits_are_refused() -> None:
    with pytest.raises(AssertionError, match="ask for more subscribers"):
        GeneratedDay(visits=10_000, subscribers=100)
