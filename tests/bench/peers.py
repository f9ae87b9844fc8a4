"""What our figures stand beside: other people's programs on the same file, and the machine's
limits.

dpkt is what one writes first in Python; ndpiReader (Debian's libndpi-bin) and nfstream are the open
DPI programs that name hosts. nfstream is installed into an environment of its own for the run, and
only when asked. Limits: reading the file by blocks into one buffer, and copying memory.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path

import dpkt
import numpy as np

BLOCK_BYTES = 1 << 20
NFSTREAM = """
import sys
from collections import Counter
from nfstream import NFStreamer
names = Counter(flow.requested_server_name for flow in NFStreamer(source=sys.argv[1], n_meters=1))
names.pop("", None)
print(sum(names.values()))
"""


def read_blocks(path: Path) -> int:
    """Read a file into one reused buffer; returns its bytes."""
    buffer = bytearray(BLOCK_BYTES)
    total = 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


def copy_memory(total: int) -> int:
    """Copy `total` bytes between two arrays that no cache holds."""
    source, target = np.ones((2, 64 << 20), np.uint8)
    done = 0
    while done < total:
        size = min(len(source), total - done)
        np.copyto(target[:size], source[:size])
        done += size
    return done


def dpkt_names(path: Path, packets: int) -> Counter[str]:
    """Server names and hosts in the first `packets` packets, each packet by itself, with dpkt."""
    names: Counter[str] = Counter()
    with open(path, "rb") as file:
        for number, (_, raw) in enumerate(dpkt.pcap.Reader(file)):
            if number == packets:
                break
            ip = dpkt.ethernet.Ethernet(raw).data
            tcp = getattr(ip, "data", None)
            if not isinstance(tcp, dpkt.tcp.TCP) or not tcp.data:
                continue
            if tcp.data[:1] == b"\x16" and tcp.data[5:6] == b"\x01":
                names.update(_dpkt_hello(tcp.data))
            elif tcp.data[:4] == b"GET ":
                names.update(_dpkt_request(tcp.data))
    return names


def _dpkt_hello(payload: bytes) -> list[str]:
    try:
        hello = dpkt.ssl.TLSHandshake(payload[5:]).data
        return [c[5:].decode("ascii") for kind, c in hello.extensions if kind == 0]
    except (dpkt.Error, AttributeError, UnicodeDecodeError, IndexError):
        return []


def _dpkt_request(payload: bytes) -> list[str]:
    try:
        host = dpkt.http.Request(payload).headers.get("host", "")
    except dpkt.Error:
        return []
    return [host] if host else []


def ndpi_reader() -> str | None:
    """The program, where it is installed."""
    return shutil.which("ndpiReader")


def ndpi(path: Path) -> None:
    """ndpiReader over the whole file, quiet."""
    subprocess.run(["ndpiReader", "-q", "-i", str(path)], check=True, capture_output=True)


def ndpi_names(path: Path, folder: Path) -> Counter[str]:
    """The names that ndpiReader's table of flows holds."""
    table = folder / "ndpi.csv"
    command = ["ndpiReader", "-q", "-i", str(path), "-C", str(table)]
    subprocess.run(command, check=True, capture_output=True)
    names: Counter[str] = Counter()
    with open(table, newline="", errors="replace") as file:
        for row in csv.DictReader(file):
            if name := row.get("server_name_sni") or "":
                names[name] += 1
    return names


def install_nfstream(folder: Path) -> Path:
    """An environment with nfstream; returns its Python. Raises CalledProcessError."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "nfstream"]
    subprocess.run(install, check=True, stdout=sys.stderr)
    return python


def nfstream(python: Path, path: Path) -> int:
    """nfstream over the whole file, one meter; returns how many flows it named."""
    command = [str(python), "-c", NFSTREAM, str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(printed.split()[-1])
