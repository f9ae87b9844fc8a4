"""`whatif`: the same input under two rulebooks, and what would be different, row by row.

Both sides are whole replays with the same keys, each with its own database in memory, its own book
in memory and a journal in a private temporary folder that is removed. The results are joined in
full by visit and by conversion; ids do not depend on the rules, so equal rows meet. For each row
that differs the lines of the rules that made the difference are named: where more than one key
changed, further replays leave keys away one at a time and see which rows then come out otherwise
(`causes.py`, at most REPLAYS_MAX of them). Nothing of the state or the case is written.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from pipeline.model.identifiers import NO_ID_TEXT, Keys
from pipeline.model.money import CURRENCY_SCALE, show_amount
from pipeline.model.tally import Tally
from pipeline.rulebook.model import Rulebook
from pipeline.rulebook.read import load
from pipeline.run.cases import CASE_FILE, CaseError
from pipeline.run.causes import REPLAYS_MAX, Cause, Change, Group, Mixture, causes, changes
from pipeline.run.causes import Row as RowId
from pipeline.run.explain import rows_of
from pipeline.run.replay import Plan, Progress, plan_of, replay, terminal_progress
from pipeline.run.state import State

Row = dict[str, Any]
SIDES = ("old", "new")
INDENT = 8
DECISION, CONVERSION = "decision", "conversion"
VISIT_COLUMNS = "visit_id, subscriber_id, partner, kind, reason, rule_version"
MONEY = ("receivable_minor", "cost_minor", "margin_minor")
CONVERSION_COLUMNS = (
    "conversion_key, subscriber_id, partner, conversion_id, state, reason, points, currency, "
    "receivable_minor, cost_minor, margin_minor, rule_id, release_at"
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
    rule: str = ""  # of `rules` the first, and how many more
    rules: tuple[str, ...] = ()  # all lines that are responsible


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
        runs = _Replays(plan, Path(private), progress)
        try:
            for name, rulebook in zip(SIDES, (old, new), strict=True):
                runs.replay(name, rulebook)
            found = Comparison(plan.title, list(changes(old.files, new.files)))
            rows = dict(_join(runs.states[0]))
            for (what, _), row in _explained(rows, Mixture(old.files, new.files), runs).items():
                (found.visits if what == DECISION else found.conversions).append(row)
        finally:
            runs.close()
    return found


class _Replays:
    """Replays of one plan under several rulebooks, each into a database of its own in memory."""

    def __init__(self, plan: Plan, folder: Path, progress: Progress | None) -> None:
        self.plan, self.folder, self.progress = plan, folder, progress
        self.states: list[State] = []
        self.tried = 0

    def replay(self, name: str, rulebook: Rulebook) -> State:
        """Replay under `rulebook`; the state stays open until `close`."""
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        keys = Keys.from_seed(self.plan.seed)
        memory = {"clickhouse_url": "chdb://:memory:", "book_url": "sqlite://"}
        self.states.append(State(folder, keys, rulebook, database=name, **memory))
        self.plan.rulebook, self.plan.tally = rulebook, Tally()
        replay(self.plan, self.states[-1], self.progress)
        return self.states[-1]

    def differing(self, rulebook: Rulebook) -> frozenset[RowId]:
        """The rows that come out otherwise under `rulebook` than under the new rules."""
        self.tried += 1
        name = f"tried_{self.tried}"
        state = self.replay(name, rulebook)
        found = frozenset(row for row, _ in _differences(state, (SIDES[1], name)))
        state.clickhouse.execute(f"DROP DATABASE {name} SYNC")
        self.states.pop().close()
        shutil.rmtree(self.folder / name)
        return found

    def close(self) -> None:
        """Give everything back."""
        for state in self.states:
            state.close()


def _explained(
    rows: dict[RowId, Difference], mixture: Mixture, runs: _Replays
) -> dict[RowId, Difference]:
    """The same rows, each with the lines of the rules that are responsible."""
    if not rows:
        return {}

    def as_new(made: Group) -> frozenset[RowId]:
        rulebook = mixture.rulebook(made)
        return frozenset(rows) - runs.differing(rulebook) if rulebook else frozenset()

    groups = mixture.groups()
    found = causes(groups, rows, as_new)
    return {key: _told(row, found[key], len(mixture.edits)) for key, row in rows.items()}


def _told(row: Difference, cause: Cause, edits: int) -> Difference:
    """A row with its cause; lines of its own partner first."""
    own = f"partners/{row.partner}.toml"
    rules = tuple(str(c) for c in sorted(cause.changes, key=lambda c: c.file != own))
    more = f" (+{len(rules) - 1} more)" if len(rules) > 1 else ""
    told = rules[0] + more if rules else f"one of {edits} keys"
    if not cause.known:
        told += f"; {REPLAYS_MAX} replays did not tell which" + " others" * bool(rules)
    return replace(row, rule=told, rules=rules)


def _join(state: State) -> Iterator[tuple[RowId, Difference]]:
    """Every row that differs between the two sides, by what it is and its key."""
    for (what, key), row in _differences(state, SIDES):
        shown, points = key, 0
        money: Money = {}
        if what == DECISION:
            old, new = (_decision(row, side) for side in SIDES)
        else:
            old, new = (f"{row[f'{side}_state']} ({row[f'{side}_reason']})" for side in SIDES)
            shown = f"{row['new_conversion_id'] or row['old_conversion_id']}"
            points, money = int(row["new_points"]) - int(row["old_points"]), _money(row)
        who, partner = row["subscriber"], row["at_partner"]
        yield (what, key), Difference(what, shown, who, partner, old, new, points, money)


def _differences(state: State, databases: tuple[str, str]) -> Iterator[tuple[RowId, Row]]:
    """The two full joins; either side may lack a row."""
    for row in _both(state, databases, "decisions", VISIT_COLUMNS, "visit_id", ("kind", "reason")):
        yield (DECISION, str(row["visit_id"])), row
    compared = ("state", "reason", "points", *MONEY)
    for row in _both(
        state, databases, "conversions", CONVERSION_COLUMNS, "conversion_key", compared
    ):
        yield (CONVERSION, str(row["conversion_key"])), row


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
    state: State,
    databases: tuple[str, str],
    view: str,
    columns: str,
    key: str,
    compared: tuple[str, ...],
) -> Iterator[Row]:
    """Rows of `view` that differ in `compared` between two databases, which are the sides here; a
    missing side is empty.
    """
    names = [n.strip() for n in columns.split(",")]
    sides = [
        f"(SELECT {', '.join(f'{n} AS {s}_{n}' for n in names)}, 1 AS {s}_here FROM {d}.{view})"
        for s, d in zip(SIDES, databases, strict=True)
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


def whatif_command(case: Path, rules: Path, as_json: bool) -> int:
    """`mirrorpoint whatif CASE --rules NEW`."""
    found = compare(case, rules)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else show(found, width))
    return 0


def show(found: Comparison, width: int | None = None) -> str:
    """The comparison for people: in lines of this width, which go on below where they are longer;
    without one (into a file or a pipe) lines are as long as they have to be.
    """
    lines = [f"What if: {found.case}"]
    lines += [f"  {change}" for change in found.changes[:12]] or ["  the rules are the same"]
    if len(found.changes) > 12:
        lines.append(f"  and {len(found.changes) - 12} more changed keys")
    if not found.visits and not found.conversions:
        return "\n".join([*_wrapped(lines, width), "", "Nothing would be different."])
    sums: list[str] = []  # columns of money stay in one line, wide as it may be
    changed: list[str] = []
    if found.conversions:
        sums += ["", f"{'':<36}{'points':>9} {'receivable':>10} {'cost':>9} {'margin':>9}"]
        for name in ("partner", "subscriber"):
            for who, amounts in found.by(name).items():
                sums += _sum_lines(who or "(nobody)", amounts, width)
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
    return "\n".join([*_wrapped(lines, width), *sums, *_wrapped(changed, width)])


def _wrapped(lines: list[str], width: int | None) -> Iterator[str]:
    """Lines that fit; what does not goes on in the next, further in."""
    for line in lines:
        if width is None or len(line) <= width:
            yield line
        else:
            left = " " * (len(line) - len(line.lstrip()))
            yield from textwrap.wrap(
                line.lstrip(),
                max(width, 2 * INDENT),
                initial_indent=left,
                subsequent_indent=left + " " * INDENT,
                break_on_hyphens=False,
            )


def _sum_lines(who: str, sums: Sums, width: int | None) -> list[str]:
    """Points and money in one line, or one more for each further currency."""
    name = who if width is None or len(who) <= 36 else who[:35] + "…"
    head = f"{name:<36}{sums.points:>+9}"
    lines = []
    for currency, amounts in sorted(sums.money.items()):
        receivable, cost, margin = (
            show_amount(amounts[m], CURRENCY_SCALE[currency]) for m in MONEY
        )
        lines.append(f"{head} {receivable:>10} {cost:>9} {margin:>9} {currency}")
        head = " " * len(head)
    return lines or [head]
