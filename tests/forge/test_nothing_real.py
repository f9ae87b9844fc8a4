"""Nothing under replay_pcaps is of anybody: documentation addresses, .example and .test names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

import dpkt
import pytest

from tests.need import REPOSITORY

CASES = REPOSITORY / "replay_pcaps"
ALLOWED = [
    ipaddress.ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
V4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
V6 = re.compile(r"(?<![\w:])[0-9a-fA-F]{1,4}(?::{1,2}[0-9a-fA-F]{1,4}){2,7}(?:::)?(?![\w:])")
HOST = re.compile(rb"(?i)\r\nHost: *([^\r\n]+)")
NAME = re.compile(rb"[a-z0-9-]{2,}(?:\.[a-z0-9-]{2,})*\.[a-z]{2,}")
TOP_LEVELS = ("com", "net", "org", "info", "io", "ru", "cn", "de", "uk", "eu", "kz", "shop", "dev")
REAL = re.compile(rf"(?i)\b[a-z0-9-]+\.(?:{'|'.join(TOP_LEVELS)})\b")
DOCUMENTED_MACS = b"\x00\x00\x5e\x00\x53"


def captures() -> list[Path]:
    return sorted(p for p in CASES.rglob("*") if p.suffix in (".pcap", ".pcapng", ".cap"))


def texts() -> list[Path]:
    return sorted(
        p for p in CASES.rglob("*") if p.is_file() and p.suffix in (".tsv", ".toml", ".md", ".txt")
    )


def allowed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in ALLOWED if network.version == address.version)


def frames(path: Path) -> Iterator[dpkt.ethernet.Ethernet]:
    with open(path, "rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            yield dpkt.ethernet.Ethernet(frame)


def test_there_is_something_to_look_at() -> None:
    assert captures()
    assert len(texts()) >= 5
    known = {".pcap", ".pcapng", ".cap", ".tsv", ".toml", ".md", ".txt"}
    strange = [p for p in CASES.rglob("*") if p.is_file() and p.suffix not in known]
    assert not strange, "a kind of file that no test walks"


@pytest.mark.parametrize("path", captures(), ids=lambda p: str(p.relative_to(CASES)))
def test_addresses_and_names_of_captures(path: Path) -> None:
    seen = 0
    for frame in frames(path):
        assert frame.src.startswith(DOCUMENTED_MACS)
        assert frame.dst.startswith(DOCUMENTED_MACS)
        packet = frame.data
        if isinstance(packet, dpkt.arp.ARP):
            ends = [ipaddress.IPv4Address(packet.spa), ipaddress.IPv4Address(packet.tpa)]
        else:
            assert isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6), "a packet no test can read"
            ends = [ipaddress.ip_address(packet.src), ipaddress.ip_address(packet.dst)]
        assert all(allowed(end) for end in ends), ends
        seen += 1
    assert seen
    raw = path.read_bytes()
    for host in HOST.findall(raw):
        name = host.decode().rsplit(":", 1)[0] if not host.startswith(b"[") else ""
        numeric = bool(V4.fullmatch(name))
        assert not name or numeric or name.endswith((".example", ".test")), host
    # Server names are found the same way as everything else that looks like a name; eight letters
    # with a dot among them do not come about by chance in random key shares.
    names = [n for n in NAME.findall(raw) if len(n) >= 8]
    assert names
    for name in names:
        assert name.endswith((b".example", b".test")), name


@pytest.mark.parametrize("path", texts(), ids=lambda p: str(p.relative_to(CASES)))
def test_addresses_and_names_of_texts(path: Path) -> None:
    text = path.read_text()
    for found in V4.findall(text):
        try:
            address = ipaddress.IPv4Address(found)
        except ValueError:
            assert found == "198.51.100.999", found  # broken on purpose
            continue
        assert allowed(address), found
    for found in V6.findall(text):
        try:
            address6 = ipaddress.IPv6Address(found)
        except ValueError:
            continue  # a time of day
        assert allowed(address6), found
    real = [m[0] for m in REAL.finditer(text)]
    assert not real, real
