"""The traffic generator, read back by dpkt and tshark: what it says is in a file is in it."""

from __future__ import annotations

import ipaddress
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pytest

from tests.bench import traffic as made
from tests.bench.traffic import Traffic, Truth
from tests.naive import quic, tls
from tests.need import need

SMALL = Traffic(packets=20_000, live=150, subscribers=300, seed=7, pool=64, member_share=0.1)
CLIENTS = tuple(ipaddress.ip_network(n) for n in ("100.64.0.0/10", "2001:db8::/32"))
SERVERS = tuple(
    ipaddress.ip_network(n)
    for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8:ffff::/48")
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    path = tmp_path_factory.mktemp("traffic") / "small.pcap"
    return path, made.generate(path, SMALL)


def frames(path: Path) -> Iterator[tuple[float, bytes, Any]]:
    """Time, raw bytes and the innermost IP packet of each record."""
    with open(path, "rb") as file:
        for seconds, raw in dpkt.pcap.Reader(file):
            yield seconds, raw, dpkt.ethernet.Ethernet(raw).data


def streams(path: Path) -> dict[tuple[Any, ...], dict[int, bytes]]:
    """Client payload by sequence number of every TCP flow; the newest flow of a 5-tuple wins."""
    found: dict[tuple[Any, ...], dict[int, bytes]] = {}
    for _, _, ip in frames(path):
        tcp = ip.data
        if not isinstance(tcp, dpkt.tcp.TCP) or tcp.dport not in (80, 443):
            continue
        flow = (ip.src, tcp.sport, ip.dst, tcp.dport)
        if tcp.flags & dpkt.tcp.TH_SYN:
            found[flow] = {-1: tcp.seq.to_bytes(4, "big")}
        elif tcp.data and flow in found:
            first = int.from_bytes(found[flow][-1], "big") + 1
            found[flow].setdefault((tcp.seq - first) % 2**32, tcp.data)
    return found


def joined(parts: dict[int, bytes]) -> bytes:
    """What a client said from its first byte on, as far as it is without a gap."""
    said = b""
    while len(said) in parts:
        said += parts[len(said)]
    return said


def named_by_dpkt(path: Path) -> tuple[Counter[str], Counter[str]]:
    """Names of TLS hellos and of HTTP requests, found with nothing of ours."""
    tls: Counter[str] = Counter()
    http: Counter[str] = Counter()
    for (_, _, _, port), parts in streams(path).items():
        said = joined(parts)
        if port == 80:
            for head in said.split(b"\r\n\r\n"):
                http.update(
                    line[6:].decode() for line in head.split(b"\r\n") if line.startswith(b"Host: ")
                )
        elif said[:1] == b"\x16":
            length = int.from_bytes(said[3:5], "big")
            if len(said) >= 5 + length:
                hello = dpkt.ssl.TLSHandshake(said[5 : 5 + length]).data
                tls.update(content[5:].decode() for kind, content in hello.extensions if kind == 0)
    return tls, http


def test_dpkt_finds_the_names_the_truth_lists(small: tuple[Path, Truth]) -> None:
    path, truth = small
    tls, http = named_by_dpkt(path)
    assert dict(tls) == truth.tls_hosts
    assert dict(http) == truth.http_hosts
    assert sum(tls.values()) == truth.tls > 100
    assert sum(http.values()) == truth.http > truth.http_flows > 5


def test_tshark_finds_as_many(small: tuple[Path, Truth]) -> None:
    tshark = need("tshark")
    path, truth = small
    fields = ("tls.handshake.extensions_server_name", "http.host")
    command = [tshark, "-n", "-r", str(path), "-T", "fields"]
    command += ["-o", "tcp.reassemble_out_of_order:TRUE"]
    command += [word for field in fields for word in ("-e", field)]
    command += ["-Y", "tcp && (tls.handshake.extensions_server_name || http.request)"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    cells = [line.split("\t") for line in lines]
    assert dict(Counter(tls for tls, _ in cells if tls)) == truth.tls_hosts
    assert dict(Counter(host for _, host in cells if host)) == truth.http_hosts


def test_the_naive_reader_opens_every_initial(small: tuple[Path, Truth]) -> None:
    path, truth = small
    hellos: dict[tuple[Any, ...], dict[int, bytes]] = {}
    for _, _, ip in frames(path):
        udp = ip.data
        if not isinstance(udp, dpkt.udp.UDP) or udp.dport != 443 or not udp.data[0] & 0x80:
            continue
        packet = quic.read_long(udp.data)
        assert isinstance(packet, quic.Long)
        assert len(packet.raw) == len(udp.data) == 1200
        opened = quic.open_initial(packet, quic.client_keys(packet.salt, packet.dcid), -1)
        assert opened
        pieces, good = quic.crypto_frames(opened[0], google=False)
        assert good
        flow = (ip.src, udp.sport, ip.dst, packet.dcid)
        hellos.setdefault(flow, {}).update(dict(pieces))
    names: Counter[str] = Counter()
    for parts in hellos.values():
        said = joined(parts)
        if len(said) >= 4 and len(said) == 4 + int.from_bytes(said[1:4], "big"):
            hello = tls.read_hello(said[4:])
            assert hello
            names[hello.name.decode()] += 1
    assert dict(names) == truth.quic_hosts
    assert 0 < truth.split_initials < truth.quic


def test_packets_are_well_formed(small: tuple[Path, Truth]) -> None:
    path, truth = small
    packets = octets = tagged = v6 = backwards = 0
    latest = 0.0
    for seconds, raw, ip in frames(path):
        packets += 1
        octets += len(raw)
        tagged += raw[12:14] != b"\x08\0" and raw[12:14] != b"\x86\xdd"
        backwards += seconds < latest
        latest = max(latest, seconds)
        sides = (ipaddress.ip_address(ip.src), ipaddress.ip_address(ip.dst))
        service = ip.data.dport in (80, 443, 8883, 51820)
        client, server = sides if service else sides[::-1]
        assert any(client in n for n in CLIENTS if n.version == client.version)
        assert any(server in n for n in SERVERS if n.version == server.version)
        header = len(raw) - raw.index(bytes(ip)[:4])
        if isinstance(ip, dpkt.ip6.IP6):
            v6 += 1
            assert ip.plen == header - 40
        else:
            assert ip.len == header
            assert dpkt.dpkt.in_cksum(ip.pack_hdr()) == 0
        if isinstance(ip.data, dpkt.udp.UDP):
            assert ip.data.ulen == 8 + len(ip.data.data)
    assert (packets, octets, tagged, v6) == (
        SMALL.packets,
        truth.bytes,
        truth.vlan_packets,
        truth.ipv6_packets,
    )
    assert 0 < backwards <= 20 * truth.late_packets


def test_shares_are_those_asked_for(tmp_path: Path) -> None:
    traffic = Traffic(packets=200_000, live=1_000, subscribers=5_000)
    path = tmp_path / "shares.pcap"
    truth = made.generate(path, traffic)
    path.unlink()
    begun = truth.tls / (traffic.tls * 0.97)  # flows that began and whose opening is whole
    assert truth.quic / begun == pytest.approx(traffic.quic, rel=0.10)
    assert truth.http_flows / begun == pytest.approx(traffic.http, rel=0.15)
    assert truth.split_hellos / truth.tls == pytest.approx(traffic.post_quantum, rel=0.05)
    assert truth.split_initials / truth.quic == pytest.approx(traffic.post_quantum, rel=0.10)
    assert truth.swapped_hellos / truth.split_hellos == pytest.approx(traffic.swapped, rel=0.25)
    assert truth.ipv6_packets / truth.packets == pytest.approx(traffic.ipv6, rel=0.10)
    assert truth.vlan_packets / truth.packets == pytest.approx(traffic.vlan, rel=0.10)
    assert truth.late_packets / truth.packets == pytest.approx(traffic.late, rel=0.10)
    assert truth.member_packets / truth.packets == pytest.approx(traffic.member_share, rel=0.35)
    assert 740 < truth.bytes / truth.packets < 860
    started = truth.flows - traffic.live
    assert 200_000 / started == pytest.approx(traffic.packets_per_flow, rel=0.15)


def test_all_subscribers_members_is_all_names(tmp_path: Path) -> None:
    truth = made.generate(tmp_path / "all.pcap", Traffic(packets=5_000, live=50, member_share=1.0))
    assert truth.member_hosts == dict(sorted(truth.all_hosts().items()))
    assert (truth.member_tls, truth.member_http) == (truth.tls, truth.http)
    assert truth.member_quic == truth.quic > 0
    assert truth.member_packets == truth.packets


def test_member_names_are_those_of_member_addresses(small: tuple[Path, Truth]) -> None:
    path, truth = small
    members = 0
    for (client, _, _, _), parts in streams(path).items():
        value = int.from_bytes(client, "big")
        index = value - 0x64400000 if len(client) == 4 else (value >> 64) & 0xFFFFFFFF
        said = joined(parts)
        if index < SMALL.members and said:
            whole = said[:1] == b"\x16" and len(said) >= 5 + int.from_bytes(said[3:5], "big")
            members += whole or said.count(b"Host: ")
    assert members == truth.member_tls + truth.member_http > 0
    assert members + truth.member_quic == sum(truth.member_hosts.values())


def test_same_seed_same_bytes_however_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(packets=3_000, live=40, seed=3, pool=16)
    whole = tmp_path / "whole.pcap"
    truth = made.generate(whole, traffic)
    monkeypatch.setattr(made, "BLOCK_BYTES", 5_000)
    cut = tmp_path / "cut.pcap"
    assert made.generate(cut, traffic) == truth
    assert cut.read_bytes() == whole.read_bytes()
    other = tmp_path / "other.pcap"
    made.generate(other, Traffic(packets=3_000, live=40, seed=4, pool=16))
    assert other.read_bytes() != whole.read_bytes()


def test_post_quantum_hellos_take_two_segments_and_name_anywhere() -> None:
    templates = made.hellos.build(1, 200, 0.05)
    hybrid = templates.length[200:400]
    assert hybrid.min() > 1448 + 20
    assert 1_600 < hybrid.mean() < 1_900
    assert templates.length[:200].max() < 1_000
    behind = 0
    for row in range(200, 400):
        first = templates.start[row]
        said = templates.data[first : first + templates.length[row]].tobytes()
        behind += said.index(templates.host[row].encode()) > 1448
    assert 20 < behind < 180


@pytest.mark.parametrize("nanoseconds", [False, True])
def test_times_are_those_asked_for(tmp_path: Path, nanoseconds: bool) -> None:
    traffic = Traffic(packets=1_000, live=10, late=0.0, nanoseconds=nanoseconds, pool=8)
    path = tmp_path / "times.pcap"
    made.generate(path, traffic)
    with open(path, "rb") as file:
        reader = dpkt.pcap.Reader(file)
        times = np.array([seconds for seconds, _ in reader], np.float64)
    expected = traffic.start_ns / 1e9 + np.arange(1_000) * 800e-9
    assert np.abs(times - expected).max() < 2e-6
    assert (np.diff(times) >= 0).all()


def test_flow_lengths_have_the_mean_asked_for() -> None:
    for mean in (20, 38, 100):
        lengths = made.flow_lengths(mean)
        assert lengths.min() >= 10
        assert lengths.mean() == pytest.approx(mean, rel=0.01)


def test_program_prints_parameters_and_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made.main([str(tmp_path / "p.pcap"), "--packets", "2000", "--flows", "20"]) == 0
    printed = capsys.readouterr().out
    assert "packets=2000, live=20, seed=1" in printed
    assert "million packets/s" in printed
