"""What may not stand in a tracked file: paths of a machine, package addresses, real names.

Names are .example or .test (RFC 2606, RFC 6761), addresses are of the documentation ranges (RFC
5737, RFC 3849), or private where a test needs private space. The scan reads strings and comments of
Python and the whole of every other text; captures are walked packet by packet with dpkt.
"""

from __future__ import annotations

import io
import ipaddress
import re
import tokenize

import dpkt
import pytest

from tests.tidy.sources import short, text_files, tracked

# An absolute path of two parts or more; what a path may begin with: a system's own folders, and
# what tests ask of made-up shops over HTTP.
ABSOLUTE = re.compile(r"(?:^|(?<=[\s\"'`(=:,]))/(?P<top>[A-Za-z][\w.-]*)/(?=\w)", re.MULTILINE)
SYSTEM_FOLDERS = {"bin", "dev", "etc", "proc", "run", "srv", "sys", "tmp", "usr", "var"}
TARGETS = {"api", "fonts", "go", "product", "replay_pcaps", "x"}
# Where people have their files: in nothing that is written here, whatever stands before it.
HOMES = re.compile(r"/(?:h[o]me|r[o]ot|Us[e]rs)/(?=\w)")
PACKAGE_ADDRESS = re.compile(
    r"--(?:extra-)?index-u[r]l|--find-l[i]nks|p[y]pi\.|p[y]thonhosted|deb\.d[e]bian"
    r"|\"resolved\": *\"http|^source = \{ *regis[t]ry",
    re.MULTILINE,
)
UNFINISHED = re.compile(
    r"NotImplemented[E]rror|TO[D]O|FIX[M]E|XX[X]|pragma: no c[o]ver|mark\.x[f]ail"
)

# Endings that real hosts have and that hardly occur in prose or code by chance.
REAL_HOST = re.compile(
    r"(?<![\w@.-])(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+"
    r"(?:com|net|org|edu|gov|biz|io|ru|cn|ua|kz|uk|jp|fr|nl|pl|cz|tv|ai)(?![\w.-]*\w)",
    re.IGNORECASE,
)
# The licence names its own home.
MAY_NAME_HOSTS = {"LICENSE"}
# The public names of encrypted client hellos are facts.
OUTER_NAMES = {
    *("cloudflare-ech.com", "cover.defo.ie", "defo.ie", "public.tls-ech.dev", "tls-ech.dev"),
}
PUBLIC_SUFFIXES = {"co.uk"}

IPV4 = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?![\w.]*\w)")
IPV6 = re.compile(r"(?<![\w:.])((?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4})(?![\w:.]*\w)")
ALLOWED = [
    ipaddress.ip_network(n)
    for n in (
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",  # documentation
        "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "0.0.0.0/32", "255.255.255.255/32",
        "224.0.0.0/4",  # multicast
        "2001:db8::/32", "::1/128", "::/128", "fe80::/10", "fc00::/7", "ff00::/8",
    )
]  # fmt: skip


def allowed(text: str) -> bool:
    """May this address stand in the repository? What is no address at all may."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in ALLOWED)


def prose(name: str, text: str) -> str:
    """What of a file is read by people or sent to the wire: of Python its strings and comments."""
    if not name.endswith(".py"):
        return text
    kinds = (
        tokenize.STRING,
        tokenize.COMMENT,
        getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING),
    )
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(t.string for t in tokens if t.type in kinds)


def machine_paths(text):
    """Absolute paths that do not begin with a folder every system has."""
    tops = SYSTEM_FOLDERS | TARGETS
    found = [found[0] for found in ABSOLUTE.finditer(text) if found["top"] not in tops]
    return found + HOMES.findall(text)


def test_no_path_of_the_machine_it_was_written_on():
    found = [f"{name}: {path}" for name, text in text_files() for path in machine_paths(text)]
    assert not found, "\n".join(found)


def test_no_address_that_packages_come_from():
    found = [
        f"{name}: {match[0]}"
        for name, text in text_files()
        for match in PACKAGE_ADDRESS.finditer(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("see " + "/".join(("", "home", "ann", "x")), True),
        ("path = '" + "/".join(("", "data7", "corpus")) + "'", True),
        ("/".join(("", "Users", "ann")), True),
        ("chdb://" + "/".join(("", "home", "ann", "x")), True),
        ("](<" + "/".join(("", "home", "ann", "x")) + ">)", True),
        ("in " + "/".join(("", "root", "x")) + ".", True),
        ("/tmp/state, /proc/self/fd and rules/partners/acme-shop.toml", False),
        ("and/or, https://shop.example/today/now, ../shared/corpus", False),
    ],
)
def test_the_scan_knows_a_path_of_a_machine(text, is_one):
    assert bool(machine_paths(text)) == is_one


def test_nothing_is_left_unfinished():
    found = [
        f"{name}: {match[0]}"
        for name, text in text_files()
        if name.startswith(("pipeline/", "tests/"))
        for match in UNFINISHED.finditer(text)
    ]
    assert not found, "\n".join(found)


def test_no_real_host_is_named():
    found = [
        f"{name}: {match[0]}"
        for name, text in text_files()
        if name not in MAY_NAME_HOSTS
        for match in REAL_HOST.finditer(prose(name, text))
        if match[0].lower() not in PUBLIC_SUFFIXES | OUTER_NAMES
    ]
    assert not found, "\n".join(found)


def test_no_real_address_is_written():
    found = [
        f"{name}: {match[1]}"
        for name, text in text_files()
        for pattern in (IPV4, IPV6)
        for match in pattern.finditer(prose(name, text))
        if not allowed(match[1])
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "is_real"),
    [
        ("see www.shop" + ".com for", True),
        ("acme.example.evil.example", False),
        ("mail" + ".ru", True),
        ("self.network.io_size", False),
        ("m.acme.example:443", False),
    ],
)
def test_the_scan_knows_a_real_host(text, is_real):
    assert bool(REAL_HOST.search(text)) == is_real


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("192.0.2.7", True),
        ("8.8" + ".8.8", False),
        ("100.64.1.9", True),
        ("2001:db8::5", True),
        ("2a00" + ":1450:4001:80b::200e", False),
        ("::ffff:192.0.2.1", True),
        ("::ffff:9.9" + ".9.9", False),
        ("12:30:59", True),
    ],
)
def test_the_scan_knows_a_documentation_address(text, good):
    assert allowed(text) == good


def addresses_of(path):
    """Packet number and address of everything IP in a capture."""
    with path.open("rb") as file:
        for number, (_, frame) in enumerate(dpkt.pcap.Reader(file), 1):
            packet = dpkt.ethernet.Ethernet(frame).data
            if isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6):
                yield number, ipaddress.ip_address(packet.src)
                yield number, ipaddress.ip_address(packet.dst)


def test_captures_hold_documentation_addresses_only():
    captures = [p for p in tracked() if p.suffix == ".pcap"]
    wrong = [
        f"{short(path)} packet {number}: {address}"
        for path in captures
        for number, address in addresses_of(path)
        if not allowed(str(address))
    ]
    assert not wrong, "\n".join(wrong[:20])
