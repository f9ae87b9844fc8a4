"""A case: a folder with its story, its seed, its input files and the cuts at which jobs run.

`case.toml` names everything; the files beside it are read by content. A case has keys of its own
that follow from its seed, so its ids are the same wherever it is replayed, and its state is marked
as a test.

Mistakes are told as those of rules are: every one at once, with line, key, what was found, what was
expected and the nearest valid name. What has the wrong shape is reported and then replaced by
something harmless, so that the rest can still be looked at.
"""

from __future__ import annotations

import copy
import ipaddress
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic

from pipeline.model.settings import EngineSettings, Prefix
from pipeline.model.words import ParseFor
from pipeline.rulebook.fields import Sheet, nearest, show_value
from pipeline.rulebook.locate import KeyPath, locate, syntax_error
from pipeline.rulebook.model import Problem

CASE_FILE = "case.toml"
AFTER = re.compile(r"(?P<file>[^:]+):(?P<row>\d{1,18})\Z", re.ASCII)
PARSE_FOR = {"consented": ParseFor.CONSENTED, "listed": ParseFor.LISTED}


class CaseError(ValueError):
    """The case cannot be replayed; `problems` has one sentence per mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CutText(pydantic.BaseModel, extra="forbid"):
    """One `[[cut]]` of case.toml."""

    name: str
    after: str = ""
    now: datetime | None = None
    repeat: str = ""


class SettingsText(pydantic.BaseModel, extra="forbid"):
    """`[settings]` of case.toml."""

    parse_for: str
    subscribers: list[str] = []


class InputsText(pydantic.BaseModel, extra="forbid"):
    """`[inputs]` of case.toml: file names beside it, by kind."""

    captures: list[str] = []
    signins: list[str] = []
    circle: list[str] = []
    members: list[str] = []
    purchases: list[str] = []
    orders: list[str] = []


class CaseText(pydantic.BaseModel, extra="forbid"):
    """The whole of case.toml."""

    title: str
    story: str = ""
    seed: str
    rules: str = ""
    settings: SettingsText
    inputs: InputsText
    cut: list[CutText] = []
    expect: dict[str, Any] = {}


MODELS: dict[str, type[pydantic.BaseModel]] = {
    "settings": SettingsText,
    "inputs": InputsText,
    "cut": CutText,
}


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut to make: after row `row` (from 1) of `file`, or at the end; or one again."""

    name: str
    file: Path | None
    row: int
    now_ns: int
    repeat: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What a replay needs to know before it opens an input."""

    title: str
    seed: str
    settings: EngineSettings
    files: tuple[Path, ...]
    cuts: tuple[Cut, ...]
    rules: Path | None
    expect: dict[str, Any]


def parse_prefix(text: str) -> Prefix:
    """`192.0.2.0/24` or `2001:db8::/32` as two words and a length of 128 bits."""
    network = ipaddress.ip_network(text, strict=False)
    value, length = int(network.network_address), network.prefixlen
    if network.version == 4:
        value, length = value | 0xFFFF_0000_0000, length + 96
    return value >> 64, value & (2**64 - 1), length


def prefix_text(prefix: Prefix) -> str:
    """A prefix as people write it; what is mapped is IPv4."""
    high, low, length = prefix
    if length >= 96 and high == 0 and low >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Network((low & 0xFFFF_FFFF, length - 96)))
    return str(ipaddress.IPv6Network((high << 64 | low, length)))


def parse_prefixes(texts: Iterable[str]) -> tuple[Prefix, ...]:
    """The prefixes of `--subscribers`; CaseError names every one that is none."""
    found, problems = [], []
    for text in texts:
        try:
            found.append(parse_prefix(text))
        except ValueError as error:
            problems.append(f"--subscribers: {error}; a prefix is such as 192.0.2.0/24")
    if problems:
        raise CaseError(problems)
    return tuple(found)


def parse_for(text: str) -> ParseFor:
    """`consented` or `listed`; ValueError for anything else."""
    if text not in PARSE_FOR:
        near = nearest(text, list(PARSE_FOR))
        hint = f"; nearest: {near}" if near else ""
        raise ValueError(f"found {text!r}, expected 'consented' or 'listed'{hint}")
    return PARSE_FOR[text]


def to_ns(moment: datetime) -> int:
    """UTC nanoseconds; a moment without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def load_case(folder: Path) -> Case:
    """Read and check a case folder; raises CaseError with every mistake found."""
    path = folder / CASE_FILE
    raw = path.read_bytes()
    try:
        whole = raw.decode().replace("\r\n", "\n")
        sheet = Sheet(str(path), tomllib.loads(whole), locate(whole))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{raw[error.start]:02x}"
        raise _case_error([Problem(str(path), line, "", found, "UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        line, message = syntax_error(error, whole)
        raise _case_error([Problem(str(path), line, "", message, "TOML")]) from None
    except RecursionError:
        found = "values nested too deep"
        raise _case_error([Problem(str(path), 1, "", found, "TOML of some levels")]) from None
    text, reported = _shaped(sheet)
    settings = _settings(sheet, text.settings)
    files = {
        kind: [name for name in getattr(text.inputs, kind) if name]
        for kind in InputsText.model_fields
    }
    _report_missing_files(sheet, folder, text)
    cuts = _Cuts(sheet, folder, [n for k in files if k != "captures" for n in files[k]], reported)
    made = cuts.read(text.cut)
    if sheet.problems:
        raise _case_error(sheet.problems)
    rules = folder / text.rules if text.rules else None
    paths = tuple(folder / name for names in files.values() for name in names)
    return Case(text.title, text.seed, settings, paths, tuple(made), rules, text.expect)


def _case_error(problems: list[Problem]) -> CaseError:
    return CaseError([str(problem) for problem in sorted(problems)])


def _shaped(sheet: Sheet) -> tuple[CaseText, set[KeyPath]]:
    """The file by its models; what does not fit them is reported. Also every key that is missing,
    or wrong, for a reason that has been told.
    """
    try:
        return CaseText.model_validate(sheet.values), set()
    except pydantic.ValidationError as error:
        errors = error.errors()
    values: Any = copy.deepcopy(sheet.values)
    reported: set[KeyPath] = set()
    for found in errors:
        if found["type"] == "extra_forbidden":
            reported.add(_report_unknown(sheet, found["loc"]))
            del _at(values, found["loc"][:-1])[found["loc"][-1]]
    for found in errors:
        path = found["loc"]
        if found["type"] == "extra_forbidden":
            continue
        if path not in reported:  # else an unknown key is taken for this one
            nothing = found["type"] == "missing"
            value = "nothing" if nothing else show_value(_at(sheet.values, path))
            sheet.report(path, value, _expected(path))
        reported.add(path)
        _at(values, path[:-1])[path[-1]] = _stand_in(path)
    return CaseText.model_validate(values), reported


def _at(values: Any, path: KeyPath) -> Any:
    for part in path:
        values = values[part]
    return values


def _report_unknown(sheet: Sheet, path: KeyPath) -> KeyPath:
    """Report a key that no model has; gives the path of the one it is taken for."""
    table = path[:-1]
    model = MODELS[str(table[0])] if table else CaseText
    there = _at(sheet.values, table)
    near = nearest(str(path[-1]), [key for key in model.model_fields if key not in there])
    expected = "one of the keys " + ", ".join(model.model_fields)
    sheet.report(path, f"unknown key {show_value(path[-1])}", expected, near)
    return (*table, near)


def _expected(path: KeyPath) -> str:
    """What should stand at a place."""
    last = path[-1]
    if isinstance(last, int):
        return "a table [[cut]]" if path[0] == "cut" else "a text"
    if path in (("settings",), ("inputs",), ("expect",)):
        return f"a table [{last}]"
    if path == ("cut",):
        return "tables [[cut]]"
    if last == "now":
        return "a date and time such as 2026-03-01T12:00:00Z"
    if last == "parse_for":
        return "one of " + ", ".join(PARSE_FOR)
    if last == "subscribers":
        return "an array of address prefixes"
    return "an array of file names" if path[0] == "inputs" else "a text"


def _stand_in(path: KeyPath) -> Any:
    """Something harmless of the right shape for a place."""
    last = path[-1]
    if isinstance(last, int):
        return {"name": ""} if path[0] == "cut" else ""
    if last == "settings":
        return {"parse_for": "consented"}
    if last in ("inputs", "expect"):
        return {}
    if last == "cut" or last == "subscribers" or path[0] == "inputs":
        return []
    return {"now": None, "parse_for": "consented"}.get(last, "")


def _settings(sheet: Sheet, text: SettingsText) -> EngineSettings:
    prefixes: list[Prefix] = []
    for number, prefix in enumerate(text.subscribers):
        try:
            prefixes += [parse_prefix(prefix)] if prefix else []
        except ValueError:
            place = ("settings", "subscribers", number)
            sheet.report(place, show_value(prefix), "an address prefix such as 192.0.2.0/24")
    if text.parse_for not in PARSE_FOR:
        near = nearest(text.parse_for, list(PARSE_FOR))
        path = ("settings", "parse_for")
        sheet.report(path, show_value(text.parse_for), _expected(path), near)
    return EngineSettings(PARSE_FOR.get(text.parse_for, ParseFor.CONSENTED), tuple(prefixes))


def _report_missing_files(sheet: Sheet, folder: Path, text: CaseText) -> None:
    there = [path.name for path in folder.iterdir() if path.is_file() and path.name != CASE_FILE]
    for kind in InputsText.model_fields:
        for number, name in enumerate(getattr(text.inputs, kind)):
            if name and not (folder / name).is_file():
                path = ("inputs", kind, number)
                sheet.report(path, show_value(name), "a file beside it", nearest(name, there))
    if text.rules and not (folder / text.rules).is_dir():
        sheet.report(("rules",), show_value(text.rules), "a folder of rules")


@dataclass(slots=True)
class _Cuts:
    """Reads the cuts of a case; `files` are its text inputs, `reported` what has been told."""

    sheet: Sheet
    folder: Path
    files: list[str]
    reported: set[KeyPath]

    def read(self, texts: list[CutText]) -> list[Cut]:
        """The cuts that can be made; everything else is reported."""
        cuts: list[Cut] = []
        latest = 0
        for number, text in enumerate(texts):
            names = [before.name for before in texts[:number]]
            if text.name and text.name in names:
                self.report(number, "name", text.name, "a name that no other cut has")
            if text.repeat:
                if text.repeat not in names:
                    self.report(number, "repeat", text.repeat, "an earlier cut", names)
                cuts.append(Cut(text.name, None, 0, 0, text.repeat))
                continue
            file, row = self.place(number, text)
            now_ns = to_ns(text.now) if text.now else 0
            if text.now and now_ns < latest:
                found, expected = str(text.now), "no time before that of the cut above"
                self.sheet.report(("cut", number, "now"), found, expected)
            latest = max(latest, now_ns)
            cuts.append(Cut(text.name, file, row, now_ns))
        return cuts

    def report(
        self, number: int, key: str, found: str, expected: str, valid: Sequence[str] = ()
    ) -> None:
        """Note a problem with a text of a cut."""
        near = nearest(found, valid)
        self.sheet.report(("cut", number, key), show_value(found), expected, near)

    def place(self, number: int, text: CutText) -> tuple[Path | None, int]:
        """Where a cut is made: behind a row of a file, or at the end."""
        missing = [key for key in ("after", "now") if not getattr(text, key)]
        if text.name or ("cut", number, "name") in self.reported:
            for key in missing:
                path = ("cut", number, key)
                if not self.reported & {path, ("cut", number, "repeat")}:
                    expected = "'after' and 'now', or 'repeat'"
                    self.sheet.report(path, "nothing", expected)
        if text.after in ("", "end"):
            return None, 0
        found = AFTER.match(text.after)
        if not found or found["file"] not in self.files:
            named = found["file"] if found else text.after.partition(":")[0]
            expected = "'end' or FILE:ROW with a text file of [inputs]"
            near = nearest(named, [*self.files, "end"])
            self.sheet.report(("cut", number, "after"), show_value(text.after), expected, near)
            return None, 0
        file, row = self.folder / found["file"], int(found["row"])
        rows = _rows_of(file) if file.is_file() else row
        if not 1 <= row <= rows:
            expected = f"a row from 1 to {rows}" if rows > 0 else "a file with rows"
            self.sheet.report(("cut", number, "after"), show_value(text.after), expected)
        return file, row


def _rows_of(file: Path) -> int:
    """How many data rows a text input has: its lines but for comments and that of the columns."""
    with file.open("rb") as lines:
        return sum(bool(line.strip()) and not line.startswith(b"#") for line in lines) - 1
