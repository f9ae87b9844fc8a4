"""Other people's readers over the same captures: which hosts they name, and where those live.

Each reader takes a capture and gives keys (protocol, host, server address, server port), the host
cleaned as the truth's are. ndpiReader (Debian's libndpi-bin) and nfstream (installed into an
environment of its own) tell flows with a name; dpkt looks at single packets, as one writes it first
in Python. What a reader cannot open, or dies of, names nobody.
"""

from __future__ import annotations

import csv
import ipaddress
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dpkt

from tests.bench.peers import install_nfstream, ndpi_reader
from tests.bench.rows import Key, address, clean

Reader = Callable[[Path], set[Key]]
SECONDS = 60
NFSTREAM = """
import json, sys
from nfstream import NFStreamer
for path in sys.stdin:
    rows = []
    try:
        for flow in NFStreamer(source=path.strip(), n_meters=1, statistical_analysis=False):
            name = flow.requested_server_name
            rows.append([flow.application_name, flow.protocol, name, flow.dst_ip, flow.dst_port])
    except Exception:
        pass
    print(json.dumps(rows), flush=True)
"""


def protocol_of(application: str, transport: int) -> str | None:
    """http, tls or quic for what nDPI calls an application (`TLS.Amazon`), None for others."""
    parts = set(application.replace("_", ".").upper().split("."))
    if transport == 17:
        return "quic" if parts & {"QUIC", "GQUIC"} else None
    if transport != 6 or parts & {"DNS", "MDNS", "DHCP", "SSH", "SMB", "NETBIOS"}:
        return None
    return "http" if "HTTP" in parts else "tls"


def keys_of_flows(flows: list[tuple[str, int, str, str, int]]) -> set[Key]:
    """Keys of (application, transport, name, server, port)."""
    found: set[Key] = set()
    for application, transport, name, server, port in flows:
        protocol = protocol_of(application, transport)
        if protocol and (host := clean(name)):
            found.add((protocol, host, address(server), port))
    return found


def ndpi(capture: Path) -> set[Key]:
    """ndpiReader's table of flows; tunnels decoded (-t)."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "flows.csv"
        command = ["ndpiReader", "-q", "-t", "-i", str(capture), "-C", str(table)]
        try:
            subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return set()
        if not table.exists():
            return set()
        with open(table, newline="", encoding="utf-8", errors="replace") as file:
            rows = [row for row in csv.DictReader(file) if row.get("server_name_sni")]
    flows = []
    for row in rows:
        try:
            place = row["dst_ip"], int(row["dst_port"])
            flows.append((row["ndpi_proto"], int(row["protocol"]), row["server_name_sni"], *place))
        except (KeyError, TypeError, ValueError):
            continue  # a name with a comma in it shifts the columns
    return keys_of_flows(flows)


class NFStream:
    """nfstream in a process of its own, one capture after the other."""

    def __init__(self, python: Path) -> None:
        self.python = python
        self._begin()

    def _begin(self) -> None:
        self.process = subprocess.Popen(
            [str(self.python), "-c", NFSTREAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, capture: Path) -> set[Key]:
        """The keys of one capture; one that kills the process names nobody."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{capture}\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            self.close()
            self._begin()
            return set()
        return keys_of_flows([tuple(row) for row in json.loads(line)])

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(SECONDS)


def dpkt_packets(capture: Path) -> set[Key]:
    """Every packet by itself, by dpkt: link layer, IP, TCP, one hello or request."""
    found: set[Key] = set()
    try:
        with open(capture, "rb") as file:
            for ip in _network(dpkt.pcap.UniversalReader(file)):
                tcp = getattr(ip, "data", None)
                if isinstance(tcp, dpkt.tcp.TCP) and tcp.data:
                    server = address(_printed(ip.dst))
                    found |= {(*name, server, tcp.dport) for name in _names(tcp.data)}
    except (dpkt.Error, ValueError, OSError, EOFError):
        pass  # what was read until then counts
    return found


def _network(reader: Any) -> Iterator[Any]:
    """The IP packets of a capture."""
    first = {
        dpkt.pcap.DLT_EN10MB: dpkt.ethernet.Ethernet,
        dpkt.pcap.DLT_LINUX_SLL: dpkt.sll.SLL,
        dpkt.pcap.DLT_NULL: dpkt.loopback.Loopback,
        dpkt.pcap.DLT_RAW: dpkt.ip.IP,
        101: dpkt.ip.IP,
    }.get(reader.datalink())
    for _, raw in reader if first else ():
        try:
            packet = first(raw)
        except (dpkt.Error, IndexError, ValueError, AttributeError):
            continue
        ip = packet if isinstance(packet, dpkt.ip.IP) else packet.data
        if isinstance(ip, dpkt.ip.IP | dpkt.ip6.IP6):
            yield ip


def _names(payload: bytes) -> Iterator[tuple[str, str]]:
    """What one segment names."""
    try:
        if payload[:1] == b"\x16" and payload[5:6] == b"\x01":
            for kind, content in dpkt.ssl.TLSHandshake(payload[5:]).data.extensions:
                if kind == 0 and (host := clean(content[5:].decode("ascii"))):
                    yield "tls", host
        elif payload[:1].isalpha():
            host = dpkt.http.Request(payload).headers.get("host", "")
            if isinstance(host, str) and clean(host):
                yield "http", clean(host)
    except (dpkt.Error, ValueError, IndexError, AttributeError, TypeError, KeyError):
        return


def _printed(raw: bytes) -> str:
    return str(ipaddress.ip_address(raw))


def ndpi_version() -> str:
    """What the program says of itself."""
    told = subprocess.run(["ndpiReader", "-h"], capture_output=True, text=True, check=False).stdout
    return told.split("\n", 1)[0].split()[-1]


def peers(folder: Path) -> dict[str, Reader]:
    """Every reader that is here or can be installed, by its name with its version."""
    found: dict[str, Reader] = {f"dpkt {version('dpkt')}": dpkt_packets}
    if ndpi_reader():
        found[f"ndpiReader {ndpi_version()}"] = ndpi
    python = install_nfstream(folder)
    asked = "import importlib.metadata as m; print(m.version('nfstream'))"
    told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout
    found[f"nfstream {told.strip()}"] = NFStream(python)
    return found
