"""`inspect`: lines, a table and counts of captures; nothing stored, nothing fatal."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.capture.blocks import FileBytes
from pipeline.run import inspect as module
from pipeline.run.inspect import address_text, inspect
from tests.capture.reading import read
from tests.classify import frames
from tests.classify.frames import SYN
from tests.commands import done
from tests.forge.pcapng import interface, packet, section
from tests.naive.units import OUTER_NAMES
from tests.need import REPOSITORY

START = 1_700_000_000


def write(path: Path, raws: Sequence[bytes]) -> Path:
    """A capture, one packet a second."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for n, raw in enumerate(raws):
        out += struct.pack("<IIII", START + n, 250_000, len(raw), len(raw)) + raw
    path.write_bytes(out)
    return path


def shown(
    paths: Sequence[Path], fmt: str, *, json_output: bool = False, rows: int = 4096
) -> tuple[int, str]:
    """Exit code and what was printed."""
    out = io.StringIO()
    code = inspect(paths, fmt, out, json_output=json_output, rows=rows)
    return code, out.getvalue()


@pytest.fixture
def capture(tmp_path):
    """Two requests of one flow for one host, one for another; a hello over IPv6; a datagram."""
    long_client = {"client": "2001:db8:1111:2222:3333:4444:5555:6666", "server": frames.SERVER6}
    get = frames.get("shop.example", '/a?"q"=é')
    raws = [
        frames.tcp(seq=0, flags=SYN, server_port=8080),
        frames.tcp(get + get, seq=1, server_port=8080),
        frames.tcp(frames.get("news.example"), seq=1 + 2 * len(get), server_port=8080),
        frames.tcp(frames.client_hello("tls.example"), seq=1, **long_client),
        frames.udp(b"x"),
    ]
    return write(tmp_path / "some.pcap", raws)


def test_a_line_of_json_for_each_name_of_a_flow(capture):
    code, text = shown([capture], "jsonl")
    rows = [json.loads(line) for line in text.splitlines()]
    assert code == 0
    assert rows == [
        {
            "first_ns": (START + 1) * 10**9 + 250_000_000,
            "proto": "http",
            "host": "shop.example",
            "client": frames.CLIENT,
            "client_port": 50000,
            "server": frames.SERVER,
            "server_port": 8080,
            "target": '/a?"q"=é',
        },
        {**rows[0], "first_ns": rows[1]["first_ns"], "host": "news.example", "target": "/"},
        {
            "first_ns": (START + 3) * 10**9 + 250_000_000,
            "proto": "tls",
            "host": "tls.example",
            "client": "2001:db8:1111:2222:3333:4444:5555:6666",
            "client_port": 50000,
            "server": frames.SERVER6,
            "server_port": 443,
            "alpn": "h2,http/1.1",
        },
    ]


def test_a_line_says_what_is_unusual_about_it(tmp_path):
    tags = [200, 100]
    raws = [
        frames.tcp(frames.client_hello("plain.example"), port=1),
        frames.tcp(frames.client_hello("one.example"), port=2, tags=tags[1:]),
        frames.tcp(frames.client_hello("two.example"), port=3, tags=tags),
        frames.tcp(frames.client_hello("first.example"), seq=1, port=4),
        frames.tcp(frames.client_hello("other.example"), seq=5000, port=4),
        frames.tcp(frames.client_hello(sorted(OUTER_NAMES)[0]), port=5),
        frames.dns_answer(frames.dns_message(b"told.example", [frames.SERVER])),
        frames.tcp(frames.client_hello(None), port=6),
    ]
    _, text = shown([write(tmp_path / "c.pcap", raws)], "jsonl")
    usual = {"first_ns", "proto", "host", "client", "client_port", "server", "server_port", "alpn"}
    rows = [json.loads(line) for line in text.splitlines()]
    assert [{k: v for k, v in row.items() if k not in usual} for row in rows] == [
        {}, {"realm": [100]}, {"realm": [200, 100]}, {}, {"unreliable": True}, {"hidden": True},
        {"weak": True},
    ]  # fmt: skip
    _, text = shown([tmp_path / "c.pcap"], "count")
    lines = [line.split() for line in text.splitlines()]
    assert ["mirror", "unreadable_share", "16.667%"] in lines
    assert ["mirror", "one_way_share", "-"] in lines


def unreadable_after(path, packets: int, failure: BaseException):
    """Read a capture of which the system gives so many packets' bytes and then fails."""
    held = path.read_bytes()[: 24 + packets * (len(path.read_bytes()) - 24) // 5]

    def readinto(self, room, left=[held]):  # noqa: B006
        if not left[0]:
            raise failure
        part, left[0] = left[0][: len(room)], left[0][len(room) :]
        room[: len(part)] = part
        return len(part)

    return readinto


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_what_was_found_before_the_reading_failed_is_printed(
    tmp_path, monkeypatch, failure, capsys
):
    raws = [frames.tcp(frames.get("a.example"), port=n) for n in range(5)]
    path = write(tmp_path / "c.pcap", raws)
    monkeypatch.setattr(FileBytes, "readinto", unreadable_after(path, 4, failure))
    out = io.StringIO()
    if isinstance(failure, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            inspect([path], "jsonl", out)
    else:
        assert inspect([path], "jsonl", out) == 2
        assert "Input/output error" in capsys.readouterr().err
    assert out.getvalue().count("a.example") == 4


@pytest.mark.slow
def test_a_named_pipe_is_printed_as_it_comes(tmp_path):
    path, fifo = write(tmp_path / "c.pcap", [frames.tcp(frames.get("a.example"))]), tmp_path / "f"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "pipeline.cli", "inspect", str(fifo), "--format", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        with fifo.open("wb", buffering=0) as out:
            out.write(path.read_bytes())
            assert b"a.example" in process.stdout.readline()
        assert process.wait() == 0


def test_target_with_a_control_character_is_no_request(tmp_path):
    raw = frames.tcp(b"GET /a\x07b HTTP/1.1\r\nHost: shop.example\r\n\r\n")
    assert shown([write(tmp_path / "c.pcap", [raw])], "jsonl") == (0, "")


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_batches_do_not_show(capture, rows):
    assert shown([capture], "jsonl", rows=rows) == shown([capture], "jsonl")


def test_the_table_fits_eighty_columns(capture, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, text = shown([capture], "table")
    assert code == 0
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.splitlines()[0].split() == ["TIME", "PROTO", "CLIENT", "HOST"]
    assert "shop.example:8080/a" in text
    assert "tls.example" in text
    assert text.splitlines()[-1] == "5 packets, 3 flows, sessions: 2 http, 1 tls"


def test_a_table_asked_for_as_json_is_lines_of_json(capture):
    lines = shown([capture], "jsonl")
    assert lines[1].count("\n") == 3
    assert shown([capture], "table", json_output=True) == lines
    assert shown([capture], "jsonl", json_output=True) == lines
    assert done("inspect", capture, "--json") == lines[1]


def test_counts_for_people_and_programs(capture):
    code, text = shown([capture], "count", json_output=True)
    counts = json.loads(text)
    assert code == 0
    assert counts.pop("seconds") > 0
    assert counts.pop("packets_per_second") > 0
    assert counts == {
        "packets": 5,
        "bytes": capture.stat().st_size - 24 - 5 * 16,
        "flows": 3,
        "sessions": {"http": 2, "tls": 1, "quic": 0},
        "faults": {},
        "mirror": {
            "one_way_share": None,
            "duplicate_share": 0.0,
            "gap_share": 0.0,
            "truncated_share": 0.0,
            "unreadable_share": 0.0,
            "unreadable_hidden": 0,
            "unreadable_gap": 0,
            "unreadable_truncated": 0,
            "unreadable_room": 0,
            "weak_names": 0,
            "flows_given_up": 0,
        },
    }
    _, text = shown([capture], "count")
    assert ["packets", "5"] in [line.split() for line in text.splitlines()]
    assert ["sessions", "http", "2"] in [line.split() for line in text.splitlines()]


def test_each_file_is_read_by_itself(capture, tmp_path):
    code, text = shown([capture, capture], "count", json_output=True)
    assert code == 0
    assert json.loads(text)["sessions"] == {"http": 4, "tls": 2, "quic": 0}
    assert json.loads(shown([tmp_path], "count", json_output=True)[1])["packets"] == 5


def test_what_is_wrong_with_a_file_is_said_once(capture, tmp_path, capsys):
    newer, cut, text = tmp_path / "n.pcapng", tmp_path / "cut.pcap", tmp_path / "text"
    newer.write_bytes(b"\x0a\x0d\x0d\x0a" + bytes(30))
    twice = tmp_path / "twice.gz"
    twice.write_bytes(gzip.compress(gzip.compress(capture.read_bytes())))
    cut.write_bytes(capture.read_bytes()[:-3])
    text.write_text("hello")
    paths = [newer, cut, text, tmp_path / "absent", twice]
    code, printed = shown(paths, "count", json_output=True)
    assert code == 2
    assert json.loads(printed)["faults"] == {
        "compression_nested": 1,
        "file_not_recognised": 1,
        "file_truncated": 1,
        "record_header_bad": 1,
    }
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5
    assert "after packet 0 has an impossible length" in said[0]
    assert "ends inside packet 5" in said[1]
    assert "not a capture" in said[2]
    assert "No such file" in said[3]
    assert "compressed twice" in said[4]


def as_pcapng(raw: bytes, order: str = ">") -> bytes:
    """A classic capture's packets, in nanoseconds."""
    found = read(raw).rows
    head = section(order) + interface(order, resolution=9)
    return head + b"".join(packet(order, row.raw, row.time_ns) for row in found)


def test_the_container_makes_no_difference(capture, tmp_path):
    raw = capture.read_bytes()
    newer = as_pcapng(raw)
    expected = shown([capture], "jsonl")
    assert expected[1].count("\n") == 3
    packed = [gzip.compress(raw), zstandard.compress(raw), newer, gzip.compress(newer)]
    for number, content in enumerate([*packed, zstandard.compress(newer)]):
        path = tmp_path / str(number)
        path.write_bytes(content)
        assert shown([path], "jsonl") == expected


def test_interfaces_of_different_links_stand_in_one_batch(tmp_path):
    """Link type 147 is nobody's: its packets are counted, those of Ethernet among them are read."""
    raw = section("<") + interface("<", 147, resolution=9) + interface("<", 1)
    expected = []
    for n in range(30):
        for name, which in (("wrong.example", 0), (f"host{n}.example", 1)):
            frame = frames.tcp(frames.get(name), seq=1, server_port=8_000 + n)
            raw += packet("<", frame, START * 10 ** (9 - 3 * which), which)
        expected.append(f"host{n}.example")
    path = tmp_path / "mixed"
    path.write_bytes(raw)
    for rows in (1, 7, 4096):
        code, text = shown([path], "jsonl", rows=rows)
        assert (code, [json.loads(line)["host"] for line in text.splitlines()]) == (0, expected)
    counts = json.loads(shown([path], "count", json_output=True)[1])
    assert (counts["packets"], counts["faults"]) == (60, {"link_type_unknown": 30})


def test_check_sequences_are_no_payload(tmp_path):
    """Four bytes behind each frame, and a link type that says so (draft-ietf-opsawg-pcap)."""
    head = frames.get("shop.example")[:-2]  # the empty line comes in the next segment
    raws = [frames.tcp(head, seq=1), frames.tcp(b"\r\n", seq=1 + len(head))]
    path = write(tmp_path / "some.pcap", [raw + b"\xde\xad\xbe\xef" for raw in raws])
    plain = shown([path], "jsonl")
    raw = bytearray(path.read_bytes())
    raw[20:24] = struct.pack("<I", 2 << 28 | 1 << 26 | 1)
    path.write_bytes(raw)
    assert shown([path], "jsonl") == plain
    assert [json.loads(line)["host"] for line in plain[1].splitlines()] == ["shop.example"]


def inspecting(*words: str) -> subprocess.Popen[str]:
    """`mirrorpoint inspect - ...` as a process whose standard input is ours to write."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "inspect", "-", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        # Whoever is run in the background may ignore interrupts, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def hosts(process: subprocess.Popen, count: int) -> list[object]:
    """The hosts of the next sessions, for which nobody sends more; a minute is forever."""
    alarm = threading.Timer(60, process.kill)
    alarm.start()
    lines = [process.stdout.readline() for _ in range(count)]
    alarm.cancel()
    assert all(lines), process.stderr.read()
    return [json.loads(line)["host"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("contain", [bytes, as_pcapng])
def test_standard_input_is_printed_as_it_comes(capture, contain):
    raw = contain(capture.read_bytes())
    process = inspecting("--format", "jsonl")
    most = len(raw) - 8  # all but the end of the last packet, a datagram that names nobody
    process.stdin.write(raw[:most])
    process.stdin.flush()
    assert hosts(process, 3) == ["shop.example", "news.example", "tls.example"]
    out, err = process.communicate(raw[most:], timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")


@pytest.mark.slow
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_standard_input_may_be_compressed(capture, pack):
    raw = capture.read_bytes()
    out, err = inspecting("--format", "jsonl").communicate(pack(raw[:100]) + pack(raw[100:]))
    found = [json.loads(line)["host"] for line in out.splitlines()]
    assert (found, err) == (["shop.example", "news.example", "tls.example"], b"")


@pytest.mark.slow
def test_an_interrupt_ends_standard_input_like_its_end(capture):
    process = inspecting("--format", "table")
    packer = zlib.compressobj(wbits=31)
    raw = packer.compress(capture.read_bytes()) + packer.flush(zlib.Z_SYNC_FLUSH)
    process.stdin.write(raw)
    process.stdin.flush()
    lines = [process.stdout.readline().decode() for _ in range(4)]
    assert ["shop.example" in line for line in lines] == [False, True, False, False]
    process.send_signal(signal.SIGINT)
    process.wait(60)  # with its input still open: what comes first is never the end
    out, err = process.stdout.read(), process.stderr.read()
    assert (process.returncode, err) == (0, b"")
    assert out.endswith(b"5 packets, 3 flows, sessions: 2 http, 1 tls\n")


@pytest.mark.slow
def test_standard_input_that_is_no_capture_is_called_by_its_name(capture):
    for raw, code, word in ((b"hello", 1, b"not a capture"), (b"", 1, b"not a capture")):
        process = inspecting()
        _, err = process.communicate(raw, timeout=60)
        assert process.returncode == code
        assert err.startswith(b"standard input: ")
        assert word in err
    with capture.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "inspect", "-", "--format", "jsonl"],
            stdin=file,
            capture_output=True,
            cwd=REPOSITORY,
            check=True,
        )
    assert done.stdout.count(b"\n") == 3


def test_a_terminal_is_no_capture():
    master, terminal = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "inspect", "-"],
            stdin=terminal,
            capture_output=True,
            cwd=REPOSITORY,
            check=False,
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == 2
    assert b"tcpdump" in done.stderr


@pytest.mark.parametrize(("name", "code"), [("n", 0), ("cut", 0), ("text", 1)])
def test_only_what_is_no_capture_fails(capture, tmp_path, name, code):
    path = tmp_path / name
    path.write_bytes(
        {"n": b"\x0a\x0d\x0d\x0a", "cut": capture.read_bytes()[:-3], "text": b"x"}[name]
    )
    assert shown([path], "jsonl")[0] == code


def test_on_a_terminal_it_says_what_it_is(capture, monkeypatch, capsys):
    shown([capture], "count")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True)
    shown([capture], "count")
    assert "stores nothing" in capsys.readouterr().err


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_behind_a_header_are_read_to_their_end(tmp_path, raw):
    path = tmp_path / "any.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + raw)
    assert shown([path], "jsonl")[0] == 0


@given(st.ip_addresses())
def test_addresses_are_written_as_everybody_writes_them(address):
    value = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    text = address_text(value >> 64, value & (2**64 - 1))
    mapped = address.version == 6 and address.ipv4_mapped
    assert text == str(mapped or address)


# Waits for the command and prints its greatest size in kilobytes: a process of its own that has
# nothing loaded, because a child starts with the size of its parent.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def capture_of_holes(path: Path, packets: int, length: int) -> int:
    """A capture whose packets are holes in the file (zeros, of no known type); gives its size."""
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number in range(packets):
            file.write(struct.pack("<IIII", START, number, length, length))
            file.seek(length, io.SEEK_CUR)
        file.truncate()
    return path.stat().st_size


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    sizes, peaks = [], []
    for number, packets in enumerate((500, 10_000)):
        path = tmp_path / f"{number}.pcap"
        sizes.append(capture_of_holes(path, packets, 30_000))
        command = [sys.executable, "-m", "pipeline.cli", "inspect", str(path), "--format", "count"]
        words = [sys.executable, "-c", PEAK, *command]
        printed = subprocess.run(words, check=True, capture_output=True, text=True, cwd=REPOSITORY)
        peaks.append(int(printed.stdout) * 1024)
    grown = sizes[1] - sizes[0]
    assert grown > 250 << 20
    assert peaks[1] - peaks[0] < grown / 10, (sizes, peaks)
