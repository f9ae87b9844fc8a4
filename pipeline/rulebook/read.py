"""Rules from a folder or from texts: read, check everything, and say all that is wrong at once.

A rulebook is a set of TOML files: `programme.toml`, `partners/*.toml`, `trackers/*.toml` and
`policies/*.toml`. Other files (a README) are not looked at. What one file can say wrongly is found
while it is read; what only two can (the same name claimed twice, an id used twice, a programme that
is not there) is found afterwards, also when some file was wrong in itself. Nothing is used before
everything is right: the error holds every problem.

`load` is the only place of the rules that touches a disk.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from decimal import Decimal
from pathlib import Path, PurePosixPath

from pipeline.rulebook.fields import Sheet, nearest
from pipeline.rulebook.kinds import (
    Claim,
    read_currency,
    read_partner,
    read_policy,
    read_programme,
    read_tracker,
    read_zone,
)
from pipeline.rulebook.locate import locate, syntax_error
from pipeline.rulebook.model import (
    Accrual,
    Location,
    Partner,
    Policy,
    Problem,
    Programme,
    Rulebook,
    RulebookError,
    Tracker,
    files_hash,
)

PROGRAMME = "programme.toml"
FOLDERS = ("partners", "trackers", "policies")
FILE_BYTES = 1 << 20


def load(folder: Path | None = None) -> Rulebook:
    """The rules of a folder, or the ones that come with the product. Raises RulebookError."""
    folder = shipped_rules() if folder is None else Path(folder)
    if not folder.is_dir():
        problem = Problem(str(folder), 1, "", "no folder", "a folder with programme.toml")
        raise RulebookError([problem])
    texts: dict[str, str] = {}
    problems = []
    for path in sorted(folder.rglob("*.toml")):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            continue
        try:
            raw = path.read_bytes()
        except OSError as error:
            problems.append(Problem(name, 1, "", error.strerror or "an error", "a file to read"))
            continue
        if len(raw) > FILE_BYTES:
            found = f"{len(raw)} bytes"
            problems.append(Problem(name, 1, "", found, f"at most {FILE_BYTES} bytes"))
            continue
        try:
            texts[name] = raw.decode()
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            problems.append(Problem(name, line, "", f"byte 0x{raw[error.start]:02x}", "UTF-8 text"))
    return _read(texts, problems)


def from_texts(texts: Mapping[str, str]) -> Rulebook:
    """The rules of these files, by their names within the folder. Raises RulebookError."""
    return _read(texts, [])


def problems_of(folder: Path | None = None) -> list[Problem]:
    """Every mistake of the rules in a folder (None: the shipped ones), by file and line."""
    try:
        load(folder)
    except RulebookError as error:
        return error.problems
    return []


def shipped_rules() -> Path:
    """Where the rules that come with the product are: beside the package, or in the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "data" / "rules"
    return installed if installed.is_dir() else package.parent / "rules"


@dataclass(slots=True)
class _Found:
    """What has been read so far."""

    programmes: list[Programme] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    partners: list[Partner] = field(default_factory=list)
    trackers: list[Tracker] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)


def _read(texts: Mapping[str, str], problems: list[Problem]) -> Rulebook:
    parsed, broken = _parse(texts, problems)
    zone = read_zone(parsed[PROGRAMME]) if PROGRAMME in parsed else UTC
    currency = read_currency(parsed.get(PROGRAMME, {}))
    found = _Found()
    for name, values in parsed.items():
        sheet = Sheet(name, values, locate(_newlines(texts[name])), zone, currency)
        _read_file(sheet, found)
        problems.extend(sheet.problems)
    unreadable = {problem.file for problem in problems if not problem.key} | broken
    if PROGRAMME not in parsed and PROGRAMME not in unreadable:
        problems.append(Problem(PROGRAMME, 1, "", "no file", "the programme's file"))
    problems.extend(_policy_problems(found, unreadable))
    problems.extend(_twice_claimed(found.claims))
    problems.extend(_twice_named(found.partners))
    if problems:
        raise RulebookError(problems)
    return _assemble(dict(sorted(texts.items())), found)


def _parse(
    texts: Mapping[str, str], problems: list[Problem]
) -> tuple[dict[str, dict[str, object]], set[str]]:
    parsed: dict[str, dict[str, object]] = {}
    broken = set()
    for name, text in sorted(texts.items()):
        if name != PROGRAMME and _folder_of(name) not in FOLDERS:
            folders = [f"{folder}/{PurePosixPath(name).name}" for folder in FOLDERS]
            near = nearest(name, [PROGRAMME, *folders])
            expected = f"{PROGRAMME} or a file in " + ", ".join(f"{f}/" for f in FOLDERS)
            problems.append(Problem(name, 1, "", "a file that is no rule", expected, near))
            continue
        try:
            parsed[name] = tomllib.loads(text, parse_float=Decimal)
        except tomllib.TOMLDecodeError as error:
            line, message = syntax_error(error, text)
            problems.append(Problem(name, line, "", message, "TOML"))
            broken.add(name)
        except RecursionError:
            problems.append(Problem(name, 1, "", "values nested too deep", "TOML of some levels"))
            broken.add(name)
    return parsed, broken


def _folder_of(name: str) -> str:
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) == 2 else ""


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _read_file(sheet: Sheet, found: _Found) -> None:
    folder = _folder_of(sheet.name)
    if sheet.name == PROGRAMME:
        found.programmes.append(read_programme(sheet))
    elif folder == "policies":
        found.policies.append(read_policy(sheet))
    elif folder == "partners":
        partner, claims = read_partner(sheet)
        found.partners.append(partner)
        found.claims.extend(claims)
    else:
        tracker, claims = read_tracker(sheet)
        found.trackers.append(tracker)
        found.claims.extend(claims)


def _policy_problems(found: _Found, unreadable: set[str]) -> list[Problem]:
    if not found.policies and not any(_folder_of(name) == "policies" for name in unreadable):
        return [Problem("policies/default.toml", 1, "", "no file", "one policy")]
    return [
        Problem(p.location.file, p.location.line, "policy", f'"{p.id}"', "one policy, not several")
        for p in found.policies[1:]
    ]


def _twice_claimed(claims: list[Claim]) -> list[Problem]:
    """Names that two files say are theirs. Under one another is allowed: the longest wins."""
    first: dict[str, Claim] = {}
    problems = []
    for claim in claims:
        before = first.setdefault(claim.host, claim)
        if before.owner != claim.owner:
            place = before.location
            problems.append(
                Problem(
                    claim.location.file,
                    claim.location.line,
                    claim.location.key,
                    f'"{claim.host}"',
                    f"a name that {before.owner} does not claim ({place.file}:{place.line})",
                )
            )
    return problems


def _twice_named(partners: list[Partner]) -> list[Problem]:
    """Accrual ids are written into every entry, so each may stand for one rule only."""
    first: dict[str, Location] = {}
    problems = []
    for partner in partners:
        for accrual in partner.accruals:
            place = first.setdefault(accrual.id, accrual.location) if accrual.id else None
            if place is not None and place is not accrual.location:
                mine = accrual.location
                expected = f"an id of its own (it is also at {place.file}:{place.line})"
                problems.append(
                    Problem(mine.file, mine.line, f"{mine.key}.id", f'"{accrual.id}"', expected)
                )
    return problems


def _assemble(files: dict[str, str], found: _Found) -> Rulebook:
    partners = tuple(sorted(found.partners, key=lambda partner: partner.id))
    trackers = tuple(sorted(found.trackers, key=lambda tracker: tracker.id))
    programme, policy = found.programmes[0], found.policies[0]
    accruals = [accrual for partner in partners for accrual in partner.accruals]
    parts: list[Programme | Policy | Partner | Tracker | Accrual] = [programme, policy]
    parts += [*partners, *trackers, *accruals]
    places = {part.version: part.location for part in parts}
    digest = files_hash(files)
    return Rulebook(digest, files, programme, partners, trackers, policy, places)
