"""`whatif`: the same input under two rulebooks, and what would be different, row by row.

Both sides are whole replays with the same keys, each with its own database in memory, its own book
in memory and a journal in a private temporary folder that is removed. The results are joined in
full by visit and by conversion; ids do not depend on the rules, so equal rows meet. For each row
that differs the line of the rules that made the difference is named: the files are compared key by
key, and of the keys that changed the nearest to the row counts (its accrual rule, its contract, its
partner's names, then the policy and the programme). Nothing of the state or the case is written.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from pipeline.model.identifiers import NO_ID_TEXT, Keys
from pipeline.model.money import CURRENCY_SCALE, show_amount
from pipeline.model.tally import Tally
from pipeline.rulebook.locate import KeyPath, line_of, locate, show_path
from pipeline.rulebook.model import Rulebook
from pipeline.rulebook.read import load
from pipeline.run.cases import CASE_FILE, CaseError
from pipeline.run.explain import rows_of
from pipeline.run.replay import plan_of, replay, terminal_progress
from pipeline.run.state import State

Row = dict[str, Any]
SIDES = ("old", "new")
VISIT_COLUMNS = "visit_id, subscriber_id, partner, kind, reason, rule_version"
MONEY = ("receivable_minor", "cost_minor", "margin_minor")
CONVERSION_COLUMNS = (
    "conversion_key, subscriber_id, partner, conversion_id, state, reason, points, currency, "
    "receivable_minor, cost_minor, margin_minor, rule_id, release_at"
)


@dataclass(frozen=True, slots=True)
class Change:
    """One key of the rules that differs; `line` is in the new file, or in the old one where it
    went.
    """

    file: str
    line: int
    key: str
    old: str
    new: str

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line} {self.key} {self.old or '(none)'} -> {self.new or '(none)'}"
        )


Money = dict[str, dict[str, int]]  # minor units by currency, then by one of MONEY


@dataclass(frozen=True, slots=True)
class Difference:
    """One visit or conversion that would come out otherwise."""

    what: str
    id: str
    subscriber: str
    partner: str
    old: str
    new: str
    points: int
    money: Money
    rule: str


@dataclass(slots=True)
class Sums:
    """What several conversions that change come to; money of two currencies is never one sum."""

    conversions: int = 0
    points: int = 0
    money: Money = field(default_factory=dict)

    def add(self, row: Difference) -> None:
        """Count one more."""
        self.conversions += 1
        self.points += row.points
        for currency, amounts in row.money.items():
            into = self.money.setdefault(currency, dict.fromkeys(MONEY, 0))
            for name, amount in amounts.items():
                into[name] += amount


@dataclass(slots=True)
class Comparison:
    """Everything that would be different."""

    case: str
    changes: list[Change]
    visits: list[Difference] = field(default_factory=list)
    conversions: list[Difference] = field(default_factory=list)

    def by(self, name: str) -> dict[str, Sums]:
        """Sums of points and money of the conversions, by partner or by subscriber."""
        sums: dict[str, Sums] = defaultdict(Sums)
        for row in self.conversions:
            sums[getattr(row, name)].add(row)
        return dict(sorted(sums.items()))

    def as_dict(self) -> Row:
        """The comparison as JSON objects."""
        return {
            "case": self.case,
            "changes": [asdict(c) for c in self.changes],
            "decisions": [asdict(d) for d in self.visits],
            "conversions": [asdict(d) for d in self.conversions],
            "by_partner": {k: asdict(v) for k, v in self.by("partner").items()},
            "by_member": {k: asdict(v) for k, v in self.by("subscriber").items()},
            "points": sum(d.points for d in self.conversions),
        }


def compare(case: Path, rules: Path) -> Comparison:
    """Replay `case` under its own rules and under those in `rules`, and compare."""
    if not (case / CASE_FILE).is_file():
        raise CaseError([f"{case} is not a case: it has no {CASE_FILE}"])
    new = load(rules)
    plan = plan_of([case], None)
    old = plan.rulebook
    # The folder is for the owner's eyes only and goes with everything in it.
    with (
        terminal_progress() as progress,
        tempfile.TemporaryDirectory(prefix="mirrorpoint-whatif-") as private,
    ):
        sides: list[State] = []
        try:
            for name, rulebook in zip(SIDES, (old, new), strict=True):
                folder = Path(private) / name
                folder.mkdir(mode=0o700)
                sides.append(
                    State(
                        folder,
                        Keys.from_seed(plan.seed),
                        rulebook,
                        clickhouse_url="chdb://:memory:",
                        database=name,
                        book_url="sqlite://",
                    )
                )
                plan.rulebook, plan.tally = rulebook, Tally()
                replay(plan, sides[-1], progress)
            found = Comparison(plan.title, list(changes(old.files, new.files)))
            _join(sides[0], found, old, new)
        finally:
            for state in sides:
                state.close()
    return found


def _join(state: State, found: Comparison, old: Rulebook, new: Rulebook) -> None:
    """The two full joins; either side may lack a row."""
    for row in _both(state, "decisions", VISIT_COLUMNS, "visit_id", ("kind", "reason")):
        old_told, new_told = (_decision(row, side) for side in SIDES)
        found.visits.append(
            Difference(
                "decision",
                str(row["visit_id"]),
                row["subscriber"],
                row["at_partner"],
                old_told,
                new_told,
                0,
                {},
                _responsible(found.changes, row["at_partner"], "", visit=True),
            )
        )
    compared = ("state", "reason", "points", *MONEY)
    for row in _both(state, "conversions", CONVERSION_COLUMNS, "conversion_key", compared):
        rule = row["new_rule_id"] or row["old_rule_id"]
        found.conversions.append(
            Difference(
                "conversion",
                f"{row['new_conversion_id'] or row['old_conversion_id']}",
                row["subscriber"],
                row["at_partner"],
                f"{row['old_state']} ({row['old_reason']})",
                f"{row['new_state']} ({row['new_reason']})",
                int(row["new_points"]) - int(row["old_points"]),
                _money(row),
                _responsible(found.changes, row["at_partner"], rule, visit=False, old=old, new=new),
            )
        )


def _money(row: Row) -> Money:
    """What is gained and lost, each in the currency of its side."""
    found: Money = {}
    for sign, side in ((-1, "old"), (1, "new")):
        if row[f"{side}_currency"]:
            into = found.setdefault(row[f"{side}_currency"], dict.fromkeys(MONEY, 0))
            for name in MONEY:
                into[name] += sign * int(row[f"{side}_{name}"])
    return found


def _both(
    state: State, view: str, columns: str, key: str, compared: tuple[str, ...]
) -> Iterator[Row]:
    """Rows of `view` that differ in `compared` between the sides; a missing side is empty."""
    names = [n.strip() for n in columns.split(",")]
    sides = [
        f"(SELECT {', '.join(f'{n} AS {s}_{n}' for n in names)}, 1 AS {s}_here FROM {s}.{view})"
        for s in SIDES
    ]
    differs = " OR ".join(f"old_{n} != new_{n}" for n in compared)
    query = (
        f"SELECT * FROM {sides[0]} AS o FULL JOIN {sides[1]} AS n ON old_{key} = new_{key}"
        f" WHERE {differs} OR old_here != new_here ORDER BY greatest(old_partner, new_partner),"
        f" greatest(old_{key}, new_{key})"
    )
    for row in rows_of(state, query):
        side = "new" if row["new_here"] else "old"
        subscriber = str(row[f"{side}_subscriber_id"])
        if subscriber == NO_ID_TEXT:
            subscriber = str(row["old_subscriber_id"])
        yield row | {
            key: row[f"{side}_{key}"],
            "subscriber": "" if subscriber == NO_ID_TEXT else subscriber,
            "at_partner": row[f"{side}_partner"],
        }


def _decision(row: Row, side: str) -> str:
    return f"{row[f'{side}_kind']} ({row[f'{side}_reason']})" if row[f"{side}_here"] else "no visit"


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    """Every key that differs between two sets of rule files, with its line; examples left aside."""
    for name in sorted({*old, *new}):
        before, after = (_keys(side.get(name, "")) for side in (old, new))
        for path in sorted({*before, *after}, key=show_path):
            a, b = before.get(path), after.get(path)
            if path[0] != "example" and (a is None or b is None or a[0] != b[0]):
                line = b[1] if b else a[1] if a else 1
                yield Change(name, line, show_path(path), a[0] if a else "", b[0] if b else "")


def _keys(text: str) -> dict[KeyPath, tuple[str, int]]:
    """Every leaf of a TOML text: its value as text, and its line."""
    lines = locate(text)
    leaves: dict[KeyPath, tuple[str, int]] = {}

    def walk(value: Any, path: KeyPath) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*path, key))
        elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
            for index, inner in enumerate(value):
                walk(inner, (*path, index))
        else:
            shown = json.dumps(value, ensure_ascii=False, default=str)
            leaves[path] = (shown, line_of(lines, path))

    walk(tomllib.loads(text), ())
    return leaves


def _responsible(
    found: list[Change],
    partner: str,
    rule: str,
    visit: bool,
    old: Rulebook | None = None,
    new: Rulebook | None = None,
) -> str:
    """The changed line nearest to a row, and how many more could have had a part in it."""
    index = {
        number
        for book in (old, new)
        if book is not None and (p := book.partner(partner)) is not None
        for number, accrual in enumerate(p.accruals)
        if accrual.id == rule
    }
    own = f"partners/{partner}.toml"

    def distance(change: Change) -> int:
        if change.file == own:
            if any(change.key.startswith(f"accrual[{n}]") for n in index):
                return 0
            if change.key.startswith("accrual"):
                return 3 if visit else 1
            return 1 if change.key.startswith("contract") else 2
        return 4 if not change.file.startswith("partners/") else 5

    near = sorted((c for c in found if distance(c) < 5), key=distance)
    # A partner that took over a host is explained by the other partner's file.
    near = near or found
    if not near:
        return ""
    more = sum(distance(c) == distance(near[0]) for c in near) - 1
    return str(near[0]) + (f" (+{more} more)" if more else "")


def whatif_command(case: Path, rules: Path, as_json: bool) -> int:
    """`mirrorpoint whatif CASE --rules NEW`."""
    found = compare(case, rules)
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else show(found))
    return 0


def show(found: Comparison) -> str:
    """The comparison for a terminal of 80 columns."""
    lines = [f"What if: {found.case}"]
    lines += [f"  {change}" for change in found.changes[:12]] or ["  the rules are the same"]
    if len(found.changes) > 12:
        lines.append(f"  and {len(found.changes) - 12} more changed keys")
    if not found.visits and not found.conversions:
        return "\n".join([*lines, "", "Nothing would be different."])
    sums: list[str] = []  # money is never cut off, wide as it may be
    changed: list[str] = []
    if found.conversions:
        lines += ["", f"{'':<36}{'points':>9} {'receivable':>10} {'cost':>9} {'margin':>9}"]
        for name in ("partner", "subscriber"):
            for who, amounts in found.by(name).items():
                sums += _sum_lines(who or "(nobody)", amounts)
        changed += ["", "conversions that would change"]
        for row in found.conversions:
            changed.append(f"  {row.partner} {row.id}: {row.points:+} points")
            if row.old != row.new:
                changed.append(f"    {row.old} -> {row.new}")
            changed.append(f"    {row.rule}")
    if found.visits:
        changed += ["", "decisions that would change"]
        for row in found.visits:
            changed += [
                f"  {row.partner} visit {row.id}",
                f"    {row.old} -> {row.new}",
                f"    {row.rule}",
            ]
    before, after = ([line[:80] for line in part] for part in (lines, changed))
    return "\n".join([*before, *sums, *after])


def _sum_lines(who: str, sums: Sums) -> list[str]:
    """Points and money in one line, or one more for each further currency."""
    name = who if len(who) <= 36 else who[:35] + "…"
    head = f"{name:<36}{sums.points:>+9}"
    lines = []
    for currency, amounts in sorted(sums.money.items()):
        receivable, cost, margin = (
            show_amount(amounts[m], CURRENCY_SCALE[currency]) for m in MONEY
        )
        lines.append(f"{head} {receivable:>10} {cost:>9} {margin:>9} {currency}")
        head = " " * len(head)
    return lines or [head]
