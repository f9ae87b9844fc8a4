"""A case: a folder with its story, its seed, its input files and the cuts at which jobs run.

`case.toml` names everything; the files beside it are read by content. A case has keys of its own
that follow from its seed, so its ids are the same wherever it is replayed, and its state is marked
as a test.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic

from pipeline.model.settings import EngineSettings, Prefix
from pipeline.model.words import ParseFor

CASE_FILE = "case.toml"
AFTER = re.compile(r"(?P<file>[^:]+):(?P<row>\d+)\Z")


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
    allowed = {"consented": ParseFor.CONSENTED, "listed": ParseFor.LISTED}
    if text not in allowed:
        near = difflib.get_close_matches(text, allowed, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"found {text!r}, expected 'consented' or 'listed'{hint}")
    return allowed[text]


def to_ns(moment: datetime) -> int:
    """UTC nanoseconds; a moment without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def load_case(folder: Path) -> Case:
    """Read and check a case folder; raises CaseError with every mistake found."""
    path = folder / CASE_FILE
    try:
        text = CaseText.model_validate(tomllib.loads(path.read_bytes().decode()))
    except UnicodeDecodeError as error:
        raise CaseError([f"{path}: byte {error.start} is not UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise CaseError([f"{path}: {error}"]) from None
    except pydantic.ValidationError as error:
        raise CaseError(
            [f"{path}: {_place(e['loc'])}: {e['msg']}" for e in error.errors()]
        ) from None
    problems: list[str] = []
    settings = _settings(path, text.settings, problems)
    names = [name for kind in InputsText.model_fields for name in getattr(text.inputs, kind)]
    for name in names:
        if not (folder / name).is_file():
            near = difflib.get_close_matches(name, [p.name for p in folder.iterdir()], 1)
            hint = f"; nearest file: {near[0]}" if near else ""
            problems.append(f"{path}: inputs: there is no file {name!r}{hint}")
    cuts = _cuts(path, text.cut, names, problems)
    if problems:
        raise CaseError(problems)
    rules = folder / text.rules if text.rules else None
    files = tuple(folder / name for name in names)
    return Case(text.title, text.seed, settings, files, tuple(cuts), rules, text.expect)


def _settings(path: Path, text: SettingsText, problems: list[str]) -> EngineSettings:
    prefixes: list[Prefix] = []
    for prefix in text.subscribers:
        try:
            prefixes.append(parse_prefix(prefix))
        except ValueError as error:
            problems.append(f"{path}: settings.subscribers: {error}")
    try:
        who = parse_for(text.parse_for)
    except ValueError as error:
        problems.append(f"{path}: settings.parse_for: {error}")
        who = ParseFor.CONSENTED
    return EngineSettings(who, tuple(prefixes))


def _cuts(path: Path, texts: list[CutText], files: list[str], problems: list[str]) -> list[Cut]:
    cuts: list[Cut] = []
    latest = 0
    for text in texts:
        place = f"{path}: cut {text.name!r}"
        if text.name in (c.name for c in cuts):
            problems.append(f"{place}: the name is taken")
        if text.repeat:
            if text.repeat not in (c.name for c in cuts):
                problems.append(f"{place}: repeats {text.repeat!r}, which is no earlier cut")
            cuts.append(Cut(text.name, None, 0, 0, text.repeat))
            continue
        if text.now is None or not text.after:
            problems.append(f"{place}: needs 'after' and 'now', or 'repeat'")
            continue
        now_ns = to_ns(text.now)
        if now_ns < latest:
            problems.append(f"{place}: 'now' goes back; cuts are listed in their order")
        latest = max(latest, now_ns)
        found = AFTER.match(text.after)
        if text.after != "end" and not (found and found["file"] in files):
            expected = "'end' or FILE:ROW with a file of [inputs]"
            problems.append(f"{place}: after: found {text.after!r}, expected {expected}")
            continue
        file = path.parent / found["file"] if found else None
        cuts.append(Cut(text.name, file, int(found["row"]) if found else 0, now_ns))
    return cuts


def _place(parts: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in parts)
