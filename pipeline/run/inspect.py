"""`mirrorpoint inspect`: what the operator's own captures hold, printed and never stored.

There is no gate here, so it prints what other people looked at; on a terminal it says so. Each file
is read by itself, with flows and keys of its own. A session is a name that a flow gave for the
first time: one line for each, in the order in which they became whole. A line says what is unusual
about it: a `realm` of VLAN tags, a name that is `unreliable`, a provider's name behind which others
are `hidden`, a name that only a DNS answer gave (`weak`). What cannot be read is counted, by kind,
and a sentence on standard error says what is wrong with a file as a whole.

`-` is standard input: `tcpdump -U -w - | mirrorpoint inspect -`. Of a pipe what is known is printed
before more bytes are waited for, and an interrupt is an end like any other.
"""

from __future__ import annotations

import functools
import json
import secrets
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from pipeline.capture.blocks import is_regular
from pipeline.capture.reader import CaptureReader
from pipeline.classify.stage import SESSIONS_AT_ONCE, Classify
from pipeline.model.batches import PacketBatch, SessionBatch
from pipeline.model.identifiers import Keys
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor, Protocol, SessionFlag
from pipeline.run.shares import mirror_quality

DONE, FAILED, WRONG_CALL = 0, 1, 2
COLUMNS_MIN = 80
MAPPED = 0xFFFF
NOTICE = "inspect prints what other people looked at. It stores nothing."
STANDARD_INPUT = Path("-")
PROTOCOLS = {int(p): p.name.lower() for p in Protocol}
FLAGS_SHOWN = (SessionFlag.UNRELIABLE, SessionFlag.HIDDEN, SessionFlag.WEAK)
MARKS = tuple((int(flag), (flag.name or "").lower()) for flag in FLAGS_SHOWN)
FLAG_WORDS = tuple((bit, f', "{word}": true') for bit, word in MARKS)


def inspect(
    paths: Sequence[Path], fmt: str, out: TextIO, *, json_output: bool = False, rows: int = 4096
) -> int:
    """Print the sessions of captures as `jsonl` or `table`, or what there is of them (`count`).

    With `json_output` a count is one object, and what would be a table is `jsonl`.
    A folder stands for the files in it, `-` for standard input. 0 done, 1 a file was no capture,
    2 a file cannot be opened.
    """
    if sys.stderr.isatty():
        print(NOTICE, file=sys.stderr)
    inspection = _Inspection("jsonl" if json_output and fmt == "table" else fmt, out, rows)
    code = DONE
    for path in _files(paths):
        code = max(code, inspection.read(path))
    inspection.finish(json_output)
    return code


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.iterdir() if p.is_file())
        else:
            yield path


class _Unreadable(Exception):
    """What the system says of the file, told apart from what it says of the output."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _readable(reader: CaptureReader) -> Iterator[PacketBatch]:
    """The batches of a reader. Raises _Unreadable for OSError."""
    try:
        yield from reader
    except OSError as error:
        raise _Unreadable(error) from error


def _cannot(name: str, error: OSError) -> int:
    print(f"{name}: {error.strerror or error}", file=sys.stderr)
    return WRONG_CALL


class _Inspection:
    """One call: counts over all files, and how sessions are printed."""

    def __init__(self, fmt: str, out: TextIO, rows: int) -> None:
        self.fmt, self.out, self.rows = fmt, out, rows
        self.tally = Tally()
        self.seconds = 0.0
        self.width = max(shutil.get_terminal_size((COLUMNS_MIN, 24)).columns, COLUMNS_MIN)
        self.printed = 0

    def read(self, path: Path) -> int:
        """Read one file and print its sessions."""
        name = "standard input" if path == STANDARD_INPUT else str(path)
        try:
            file = _opened(path)
        except OSError as error:
            return _cannot(name, error)
        with file:
            try:
                problem, is_capture = self._read(file, path.name)
            except _Unreadable as failed:
                return _cannot(name, failed.error)
        if problem:
            print(f"{name}: {problem}", file=sys.stderr)
        return FAILED if problem and not is_capture else DONE

    def _read(self, file: BinaryIO, source: str) -> tuple[str, bool]:
        """What is wrong with it as a whole, and whether it is a capture.

        Whatever ends the reading, what was found until then is printed and counted. An interrupt
        ends what is being sent like its end; that it ends in the middle is then no news.
        """
        sent = not is_regular(file)
        classify = Classify(
            circle=None,
            parse_for=ParseFor.EVERYONE,
            keys=Keys.from_seed(secrets.token_hex(16)),
            at_once=1 if sent else SESSIONS_AT_ONCE,
        )
        classify.push(_no_packets(), Tally())  # kernels are loaded before the clock starts
        started = time.perf_counter()
        reader = CaptureReader(file, source=source, source_id=0, tally=self.tally, rows=self.rows)
        failure: BaseException | None = None
        try:
            for packets in _readable(reader):
                self.show(classify.push(packets, self.tally))
        except (_Unreadable, KeyboardInterrupt) as ended:
            failure = ended
        self.show(classify.advance(END_OF_TIME, self.tally))
        self.seconds += time.perf_counter() - started
        if isinstance(failure, KeyboardInterrupt) and sent:
            return "", True
        if failure is not None:
            raise failure
        return reader.problem, reader.is_capture

    def show(self, sessions: SessionBatch) -> None:
        """Print the sessions that are not repeats."""
        if self.fmt == "count" or len(sessions) == 0:
            return
        sessions = sessions.take(sessions.flags & np.uint32(SessionFlag.REPEAT) == 0)
        if self.fmt == "jsonl":
            self.out.write("".join(_json_lines(sessions)))
        else:
            if not self.printed:
                self.out.write(_table_line(("TIME", "PROTO", "CLIENT", "HOST"), self.width))
            self.out.write("".join(_table_lines(sessions, self.width)))
        self.printed += len(sessions)
        self.out.flush()  # whoever captures into this command sees what is there

    def finish(self, json_output: bool) -> None:
        """Print the counts where they were asked for."""
        counts = self.counts()
        if self.fmt == "count" and json_output:
            self.out.write(json.dumps(counts) + "\n")
        elif self.fmt == "count":
            self.out.write("".join(_count_lines(counts)))
        elif self.fmt == "table":
            self.out.write(_summary(counts))
        self.out.flush()

    def counts(self) -> dict[str, object]:
        """Everything that `--format count` tells."""
        of = self.tally.of
        packets = of("packets")
        sessions = Counter({name: of(f"sessions:{name}") for name in PROTOCOLS.values()})
        return {
            "packets": packets,
            "bytes": of("bytes"),
            "flows": of("tcp_flows") + of("udp_flows"),
            "sessions": dict(sessions),
            "faults": self.tally.starting("fault"),
            "mirror": mirror_quality(self.tally),
            "seconds": round(self.seconds, 6),
            "packets_per_second": round(packets / self.seconds) if self.seconds else 0,
        }


def _opened(path: Path) -> BinaryIO:
    """The file, unbuffered: what one read gives is looked at before there is another."""
    if path != STANDARD_INPUT:
        return open(path, "rb", buffering=0)
    if sys.stdin is None or sys.stdin.isatty():
        raise OSError("give a file, or send a capture: tcpdump -U -w - | mirrorpoint inspect -")
    return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)


def _no_packets() -> PacketBatch:
    return PacketBatch.empty(source="", source_id=0, first_packet=1, data=np.zeros(0, np.uint8))


@functools.lru_cache(maxsize=1 << 16)
def address_text(hi: int, lo: int) -> str:
    """An address as people write it; IPv4 is what is mapped."""
    if hi == 0 and lo >> 32 == MAPPED:
        return socket.inet_ntop(socket.AF_INET, (lo & 0xFFFFFFFF).to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, hi.to_bytes(8, "big") + lo.to_bytes(8, "big"))


Shown = tuple[int, str, str, str, int, str, int, str, str, int, int]


def _rows(sessions: SessionBatch) -> Iterator[Shown]:
    """Rows as values: first_ns, protocol, host, client and server with ports, target, ALPN, flags,
    realm.
    """
    ends = zip(
        sessions.client_hi.tolist(),
        sessions.client_lo.tolist(),
        sessions.client_port.tolist(),
        sessions.server_hi.tolist(),
        sessions.server_lo.tolist(),
        sessions.server_port.tolist(),
        strict=True,
    )
    texts = (sessions.host.to_list(), sessions.target.to_list(), sessions.alpn.to_list())
    numbers = (sessions.flags.tolist(), sessions.realm.tolist())
    first_ns, protocol = sessions.first_ns.tolist(), sessions.protocol.tolist()
    for ns, kind, end, *more in zip(first_ns, protocol, ends, *texts, *numbers, strict=True):
        client, server = address_text(end[0], end[1]), address_text(end[3], end[4])
        host, target, alpn, flags, realm = more
        yield ns, PROTOCOLS[kind], host, client, end[2], server, end[5], target, alpn, flags, realm


def _json_lines(sessions: SessionBatch) -> Iterator[str]:
    """One object a line. Names and addresses need no escapes: they were checked or made here."""
    quoted = json.encoder.encode_basestring_ascii
    for row in _rows(sessions):
        ns, protocol, host, client, client_port, server, server_port, target, alpn = row[:9]
        more = f', "target": {quoted(target)}' if protocol == "http" else ""
        more += f', "alpn": {quoted(alpn)}' if alpn else ""
        more += f', "realm": {_tags(row[10])}' if row[10] else ""
        more += "".join(word for bit, word in FLAG_WORDS if row[9] & bit)
        yield (
            f'{{"first_ns": {ns}, "proto": "{protocol}", "host": "{host}", "client": "{client}", '
            f'"client_port": {client_port}, "server": "{server}", '
            f'"server_port": {server_port}{more}}}\n'
        )


def _tags(realm: int) -> list[int]:
    """The two outermost VLAN ids of a realm, outermost first."""
    return [half & 0xFFF for half in divmod(realm, 1 << 16) if half]


def _table_lines(sessions: SessionBatch, width: int) -> Iterator[str]:
    for row in _rows(sessions):
        ns, protocol, host, client, client_port, _, server_port, target = row[:8]
        seconds, nanoseconds = divmod(ns, 1_000_000_000)
        clock = time.strftime("%H:%M:%S", time.gmtime(seconds))
        shown = f"[{client}]:{client_port}" if ":" in client else f"{client}:{client_port}"
        usual = {"http": 80, "tls": 443, "quic": 443}[protocol]
        place = host if server_port == usual else f"{host}:{server_port}"
        # What is not printable would let a capture draw on the operator's terminal.
        path = "".join(c if c.isprintable() else "?" for c in target)
        path = path if path.startswith("/") else ""
        marks = "".join(f"  ({word})" for bit, word in MARKS if row[9] & bit)
        cells = (f"{clock}.{nanoseconds // 1_000_000:03d}", protocol, shown, place + path + marks)
        yield _table_line(cells, width)


def _table_line(cells: tuple[str, str, str, str], width: int) -> str:
    """Time, protocol, client and host in columns, the last two cut to what the line holds."""
    clock, protocol, client, place = cells
    head = f"{clock:<12}  {protocol:<5}  {client:<21}  "
    left = width - len(head)
    if left < 24:  # a long IPv6 address leaves its host a line of its own
        return head.rstrip() + "\n" + " " * 21 + _cut(place, width - 21) + "\n"
    return head + _cut(place, left) + "\n"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _summary(counts: dict[str, object]) -> str:
    sessions = counts["sessions"]
    assert isinstance(sessions, dict)
    shown = ", ".join(f"{count:,} {name}" for name, count in sessions.items() if count)
    text = (
        f"{counts['packets']:,} packets, {counts['flows']:,} flows, sessions: {shown or 'none'}\n"
    )
    faults = counts["faults"]
    assert isinstance(faults, dict)
    return text + "".join(f"fault {name}: {count:,}\n" for name, count in faults.items())


def _count_lines(counts: dict[str, object]) -> Iterator[str]:
    for name, value in counts.items():
        if isinstance(value, dict):
            for word, part in value.items():
                yield _count_line(f"{name} {word}", part)
        else:
            yield _count_line(name, value)


def _count_line(name: str, value: object) -> str:
    """A number by its name; a share in percent."""
    if value is None:
        shown = "-"
    elif name.endswith("_share"):
        shown = f"{value:.3%}"
    else:
        shown = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
    return f"{name:<32} {shown:>18}\n"
