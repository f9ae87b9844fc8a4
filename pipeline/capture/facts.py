"""Text inputs: sign-ins, the circle, members, purchase messages and orders, one reader each.

A file is tab-separated UTF-8. Its first line names its kind (`# mirrorpoint purchases v1`), its
second the columns, in any order; after that `#` lines and empty lines are passed over and every
other line is a data row, numbered from 1. Times are what `model/times.py` takes. There is no
quoting: a value has no tab and no line end, and a row has exactly as many values as there are
columns, so that a line that was torn off is never taken for a shorter amount.

    sign-ins   event_ns received_ns kind(start|interim|stop) login address
    circle     event_ns received_ns login state(listed|consented|refused|left) terms
    members    event_ns received_ns login, and any of joined, level, products
    orders     event_ns received_ns login ref points, and any of OPTIONAL["orders"]
    purchases  event_ns received_ns partner conversion_id status, and any of OPTIONAL["purchases"]

A header that cannot be used raises one FactsError with every mistake. A bad row is counted as a
Fault, a bounded list of them says where (never what stood there: it may be somebody's number),
and all other rows are kept. Rows of purchases are not dropped at all: they go on with their
fault, so that intake parks them with their raw text.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.model.addresses import parse_prefix
from pipeline.model.batches import (
    CircleBatch,
    MemberFactBatch,
    MessageBatch,
    OrderBatch,
    SignInBatch,
)
from pipeline.model.columns import TextColumn
from pipeline.model.faults import Fault
from pipeline.model.money import INT64_MAX
from pipeline.model.tally import Tally
from pipeline.model.texts import is_plain
from pipeline.model.times import parse_time
from pipeline.model.words import BOOK_COMMANDS, OWN_COMMANDS, Basis, SignIn

STAGE = "capture"
LINE_BYTES_MAX = 1 << 16
VALUE_BYTES_MAX = 1024
ITEMS_BYTES_MAX = 1 << 14
SAMPLES_MAX = 100

REQUIRED = {
    "sign-ins": ("event_ns", "received_ns", "kind", "login", "address"),
    "circle": ("event_ns", "received_ns", "login", "state"),
    "purchases": ("event_ns", "received_ns", "partner", "conversion_id", "status"),
    "orders": ("event_ns", "received_ns", "login", "ref", "points"),
    "members": ("event_ns", "received_ns", "login"),
}
PURCHASE_TIMES = ("event_ns", "received_ns", "at_ns", "status_ns")
PURCHASE_TEXTS = (
    "partner", "conversion_id", "line_id", "order_ref", "click_ref", "member", "address", "port",
    "kind", "status", "reason", "amount_mode", "amount", "commission", "currency", "coupon",
    "correction_of", "sequence", "message_id", "items",
)  # fmt: skip
OPTIONAL = {
    "sign-ins": (),
    "circle": ("terms",),
    "purchases": tuple(
        c for c in (*PURCHASE_TIMES, *PURCHASE_TEXTS) if c not in REQUIRED["purchases"]
    ),
    "members": ("joined", "level", "products"),
    "orders": ("kind", "actor", "role", "scope", "order", "request", "to", "body"),
}
SIGN_INS = {kind.name.lower(): int(kind) for kind in SignIn}
STATES = {b.name.lower(): int(b) for b in Basis if b is not Basis.UNKNOWN}


class FactsError(ValueError):
    """A file whose first two lines cannot be used; `problems` has one sentence per mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class RowFault:
    """A row that could not be read: where it is, and what is wrong with it (never its content)."""

    file: str
    line: int
    what: str
    fault: Fault = Fault.ROW_MALFORMED

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def read_signins(path: Path, tally: Tally) -> tuple[SignInBatch, list[RowFault]]:
    """Sign-ins in file order. Raises FactsError and OSError."""
    with open(path, "rb") as file:
        table = Table(file, str(path), "sign-ins", tally)
        number, kind, login, hi, lo, length, event, received = table.gather(
            lambda row: (
                row.number,
                row.word("kind", SIGN_INS),
                row.login(),
                *row.prefix(),
                *row.times(),
            ),
            8,
        )
    batch = SignInBatch(
        np.array(number, np.int64),
        np.array(kind, np.uint8),
        TextColumn.of(login),
        np.array(hi, np.uint64),
        np.array(lo, np.uint64),
        np.array(length, np.uint8),
        np.array(event, np.int64),
        np.array(received, np.int64),
    )
    return batch, table.faults


def read_circle(path: Path, tally: Tally) -> tuple[CircleBatch, list[RowFault]]:
    """Changes of the circle in file order. Raises FactsError and OSError."""
    with open(path, "rb") as file:
        table = Table(file, str(path), "circle", tally)
        number, login, state, terms, event, received = table.gather(
            lambda row: (
                row.number,
                row.login(),
                row.word("state", STATES),
                row["terms"],
                *row.times(),
            ),
            6,
        )
    batch = CircleBatch(
        np.array(number, np.int64),
        TextColumn.of(login),
        np.array(state, np.uint8),
        TextColumn.of(terms),
        np.array(event, np.int64),
        np.array(received, np.int64),
    )
    return batch, table.faults


def read_orders(path: Path, tally: Tally) -> tuple[OrderBatch, list[RowFault]]:
    """Orders and other commands in file order. Raises FactsError and OSError."""
    names = OPTIONAL["orders"]
    with open(path, "rb") as file:
        table = Table(file, str(path), "orders", tally)
        number, event, received, login, ref, points, *texts = table.gather(
            lambda row: (
                row.number,
                *row.times(),
                row.login() if row["login"] or not row["kind"] else "",
                row.named("ref"),
                row.integer("points"),
                row.command(),
                *(row[name] for name in names[1:-1]),
                row.object("body"),
            ),
            6 + len(names),
        )
    batch = OrderBatch(
        np.array(number, np.int64),
        np.array(event, np.int64),
        np.array(received, np.int64),
        TextColumn.of(login),
        TextColumn.of(ref),
        np.array(points, np.int64),
        *(TextColumn.of(column) for column in texts),
    )
    return batch, table.faults


def read_members(path: Path, tally: Tally) -> tuple[MemberFactBatch, list[RowFault]]:
    """What is said of members, in file order. Raises FactsError and OSError."""
    with open(path, "rb") as file:
        table = Table(file, str(path), "members", tally)
        number, login, joined, level, products, event, received = table.gather(
            lambda row: (
                row.number,
                row.login(),
                row.time("joined", False),
                row.level(),
                " ".join(sorted(set(row["products"].lower().split()))),
                *row.times(),
            ),
            7,
        )
    batch = MemberFactBatch(
        np.array(number, np.int64),
        np.array(event, np.int64),
        np.array(received, np.int64),
        TextColumn.of(login),
        np.array(joined, np.int64),
        TextColumn.of(level),
        TextColumn.of(products),
    )
    return batch, table.faults


def read_purchases(path: Path, tally: Tally) -> tuple[MessageBatch, list[RowFault]]:
    """Purchase messages in file order, bad ones among them. Raises FactsError and OSError."""
    texts: dict[str, list[str]] = {name: [] for name in PURCHASE_TEXTS}
    times: dict[str, list[int]] = {name: [] for name in PURCHASE_TIMES}
    numbers: list[int] = []
    faults: list[int] = []
    raw: list[bytes] = []
    received = 0
    with open(path, "rb") as file:
        table = Table(file, str(path), "purchases", tally)
        for row in table.rows():
            when = {name: row.time(name, name in table.required) for name in PURCHASE_TIMES}
            received = when["received_ns"] = when["received_ns"] or received
            for name in PURCHASE_TIMES:
                times[name].append(when[name])
            for name in PURCHASE_TEXTS:
                texts[name].append("" if row.torn else row[name])
            numbers.append(row.number)
            faults.append(int(row.fault))
            raw.append(row.raw)
            row.check()
    columns: dict[str, Any] = {
        "row": np.array(numbers, np.int64),
        "input": TextColumn.repeat(Path(path).name, len(numbers)),
        "fault": np.array(faults, np.uint8),
        "raw": TextColumn.of(raw),
    }
    columns |= {name: np.array(values, np.int64) for name, values in times.items()}
    columns |= {name: TextColumn.of(values) for name, values in texts.items()}
    return MessageBatch(**columns), table.faults


@dataclass(slots=True)
class Row:
    """One data row: values by column name; the first mistake found in it, if any."""

    table: Table
    number: int
    line: int
    raw: bytes
    values: dict[str, str] = field(default_factory=dict)
    fault: Fault = Fault.NONE
    what: str = ""

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")

    @property
    def torn(self) -> bool:
        """Could the line not be taken apart at all?"""
        return self.fault is Fault.ROW_MALFORMED and not self.values

    def refuse(self, fault: Fault, what: str) -> None:
        """Note a mistake; the first one stays."""
        if self.fault is Fault.NONE:
            self.fault, self.what = fault, what

    def command(self) -> str:
        """The kind of a command to the book; nothing stands for an order."""
        kind = self["kind"]
        if kind and (kind not in BOOK_COMMANDS or kind in OWN_COMMANDS):
            self.refuse(Fault.STATE_UNKNOWN, "kind: nothing that the book can be asked")
        return kind

    def object(self, column: str) -> str:
        """A JSON object as it was written, or nothing."""
        text = self[column]
        if not text:
            return ""
        try:
            good = isinstance(json.loads(text), dict)
        except (ValueError, RecursionError):
            good = False
        if not good:
            self.refuse(Fault.ROW_MALFORMED, f"{column}: not a JSON object")
        return text

    def check(self) -> bool:
        """Is the row good? If not it is counted and listed."""
        if self.fault is Fault.NONE:
            return True
        self.table.note(self)
        return False

    def time(self, column: str, required: bool) -> int:
        """UTC nanoseconds, 0 where there is none or none that can be read."""
        text = self[column]
        if self.torn or not (text or required):
            return 0
        value = parse_time(text)
        if value is None:
            self.refuse(Fault.TIME_BAD, f"{column}: not UTC nanoseconds and not ISO 8601 in UTC")
        return value or 0

    def times(self) -> tuple[int, int]:
        """`event_ns` and `received_ns`, both required."""
        return self.time("event_ns", True), self.time("received_ns", True)

    def word(self, column: str, words: dict[str, int]) -> int:
        """The number of one of a closed list of words."""
        found = words.get(self[column].lower(), 0)
        if not found:
            self.refuse(Fault.STATE_UNKNOWN, f"{column}: expected one of {', '.join(words)}")
        return found

    def login(self) -> str:
        """The login; required."""
        if not self["login"]:
            self.refuse(Fault.LOGIN_MISSING, "login: empty")
        return self["login"]

    def level(self) -> str:
        """One word in lower case, or nothing."""
        text = self["level"].lower()
        if len(text.split()) > 1:
            self.refuse(Fault.ROW_MALFORMED, "level: more than one word")
        return text

    def named(self, column: str) -> str:
        """A text that may not be empty."""
        if not self[column]:
            self.refuse(Fault.ROW_MALFORMED, f"{column}: empty")
        return self[column]

    def integer(self, column: str) -> int:
        """A whole number that fits int64."""
        text = self[column]
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            self.refuse(Fault.ROW_MALFORMED, f"{column}: not a whole number")
            return 0
        if abs(value := int(text)) > INT64_MAX:
            self.refuse(Fault.ROW_MALFORMED, f"{column}: too large")
            return 0
        return value

    def prefix(self) -> tuple[int, int, int]:
        """The address or prefix as words and length."""
        found = parse_prefix(self["address"])
        if found is None:
            self.refuse(Fault.ADDRESS_BAD, "address: not an address or prefix of one subscriber")
        return found or (0, 0, 0)


class Table:
    """A text input that was opened: its columns are checked, its rows can be walked once."""

    def __init__(self, file: BinaryIO, name: str, kind: str, tally: Tally) -> None:
        self.name, self.kind, self.required = name, kind, REQUIRED[kind]
        self.faults: list[RowFault] = []
        self._file, self._tally, self._line = file, tally, 0
        self.columns = self._header()

    def gather(self, read: Callable[[Row], tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
        """The columns that `read` makes of all good rows; the other rows are counted."""
        kept = []
        for row in self.rows():
            values = read(row)
            if row.check():
                kept.append(values)
        return list(zip(*kept, strict=True)) if kept else [()] * width

    def rows(self) -> Iterator[Row]:
        """All data rows, in file order."""
        number = 0
        while (raw := self._next_line()) is not None:
            if not raw.strip() or raw.startswith(b"#"):
                continue
            number += 1
            yield self._take_apart(raw, number)

    def note(self, row: Row) -> None:
        """Count a bad row, and list it while there is room."""
        self._tally.add(STAGE, f"fault:{row.fault.name.lower()}")
        if len(self.faults) < SAMPLES_MAX:
            self.faults.append(RowFault(self.name, row.line, row.what, row.fault))

    def _take_apart(self, raw: bytes, number: int) -> Row:
        row = Row(self, number, self._line, raw[:LINE_BYTES_MAX])
        if len(raw) > LINE_BYTES_MAX:
            row.refuse(Fault.ROW_MALFORMED, f"longer than {LINE_BYTES_MAX} bytes")
            return row
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            row.refuse(Fault.ROW_MALFORMED, "not UTF-8")
            return row
        values = text.split("\t")
        if len(values) != len(self.columns):
            found = f"{len(values)} values for {len(self.columns)} columns"
            row.refuse(Fault.ROW_MALFORMED, found)
            return row
        for column, value in zip(self.columns, values, strict=True):
            limit = ITEMS_BYTES_MAX if column == "items" else VALUE_BYTES_MAX
            if len(value) * 4 > limit and len(value.encode()) > limit:
                row.refuse(Fault.ROW_MALFORMED, f"{column or 'a column'}: over {limit} bytes")
            elif not is_plain(value):
                row.refuse(Fault.ROW_MALFORMED, f"{column or 'a column'}: control characters")
        if row.fault is not Fault.NONE:
            return row
        row.values = {c: v.strip() for c, v in zip(self.columns, values, strict=True)}
        return row

    def _header(self) -> list[str]:
        first = (self._next_line() or b"").removeprefix(b"\xef\xbb\xbf").strip()
        if first != f"# mirrorpoint {self.kind} v1".encode():
            expected = f"# mirrorpoint {self.kind} v1"
            raise FactsError([f"{self.name}:1: the first line has to be '{expected}'"])
        line = self._next_line() or b""
        names = [n.strip() for n in line[:LINE_BYTES_MAX].decode("utf-8", "replace").split("\t")]
        known = (*self.required, *OPTIONAL[self.kind])
        place = f"{self.name}:2"
        problems = []
        strange = [name for name in names if name and name not in known]
        for name in self.required:
            if name not in names:
                near = difflib.get_close_matches(name, strange, 1, cutoff=0.75)
                hint = f"; nearest: {_shown(near[0])}" if near else ""
                problems.append(f"{place}: there is no column '{name}'{hint}")
        for name in strange:
            # A column of the sender's own is passed over, one that was misspelled is not.
            near = difflib.get_close_matches(name, known, 1, cutoff=0.8)
            if near and near[0] not in names and near[0] not in self.required:
                problems.append(f"{place}: unknown column {_shown(name)}; nearest: '{near[0]}'")
        twice = sorted({name for name in names if name in known and names.count(name) > 1})
        problems += [f"{place}: column '{name}' is there twice" for name in twice]
        if problems:
            raise FactsError(problems)
        return [name if name in known else "" for name in names]

    def _next_line(self) -> bytes | None:
        """The next line without its end, cut behind LINE_BYTES_MAX + 1 bytes; None at the end."""
        line = self._file.readline(LINE_BYTES_MAX + 1)
        if not line:
            return None
        self._line += 1
        rest = line
        while len(rest) > LINE_BYTES_MAX and not rest.endswith(b"\n"):
            rest = self._file.readline(LINE_BYTES_MAX + 1)
        return line.rstrip(b"\r\n") if len(line) <= LINE_BYTES_MAX else line


def _shown(name: str) -> str:
    """A name from the file as it may be shown: short and printable."""
    return repr("".join(c for c in name if c.isprintable())[:40])
