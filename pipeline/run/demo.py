"""`mirrorpoint demo`: the bundled day from the packets to the points, told in one screen."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

import click

from pipeline.model.money import show_amount
from pipeline.run.explain import explain_id, show_chain
from pipeline.run.folder import StateError
from pipeline.run.replay import open_case_state, plan_of, replay, terminal_progress
from pipeline.run.report import ReplayReport
from pipeline.run.shipped import shipped_case
from pipeline.run.state import State

DEFAULT = Path("mirrorpoint-demo")
QUERIES = (
    (
        "which decisions were made, and why",
        "SELECT partner, kind, reason, count() FROM decisions GROUP BY ALL ORDER BY ALL",
    ),
    (
        "where every conversion stands",
        "SELECT partner, conversion_id, state, reason, points FROM conversions ORDER BY 1, 2",
    ),
    (
        "how one member's points came and went",
        "SELECT cut, kind, account, amount FROM entries WHERE account LIKE 'member:%'"
        " AND commodity = 'PTS' ORDER BY sequence, leg",
    ),
)


def demo(keep: bool, folder: Path | None) -> int:
    """Replay the bundled day; with `keep` leave the state and say what to ask it."""
    if not keep and folder is None:
        with tempfile.TemporaryDirectory(prefix="mirrorpoint-demo-") as private:
            return _show(Path(private) / "state", keep=False)
    target = folder or DEFAULT
    if target.exists() and any(target.iterdir()) and not (target / "journal").is_dir():
        raise StateError(f"{target} holds something else; name another folder with --state")
    return _show(target, keep=True)


def _show(folder: Path, keep: bool) -> int:
    plan = plan_of([shipped_case()], None)
    with terminal_progress() as progress, open_case_state(folder, plan) as (state, poll):
        report = replay(plan, state, progress, poll)
        if progress:
            progress("")
        click.echo(_story(state, report))
    if keep:
        click.echo("\nThe store stays. Three queries worth trying:")
        for about, query in QUERIES:
            click.echo(f"\n  # {about}\n  mirrorpoint sql --state {shlex.quote(str(folder))} \\")
            click.echo(f"    {shlex.quote(query)}")
    else:
        click.echo("\nNothing was kept. `mirrorpoint demo --keep` leaves a store to query.")
    return 0


def _story(state: State, report: ReplayReport) -> str:
    """What happened, in the order of the path."""
    ask = state.clickhouse.rows
    points = state.rulebook.programme.points
    scale = state.rulebook.programme.points_scale
    lines = [
        f"{report.counts['visits']} visits of members to partner shops; what nobody may know "
        "was not read:",
    ]
    for word, about in (
        ("outside", "packets of subscribers outside the parse set"),
        ("unbound", "packets of addresses nobody was bound to"),
        ("name_of_nobody", "names of no partner, counted and forgotten"),
    ):
        if report.skipped.get(word):
            lines.append(f"  {report.skipped[word]:>5}  {about}")
    lines.append("")
    lines.append("decisions")
    for kind, reason, count in ask(
        "SELECT toString(kind), toString(reason), count() FROM decisions"
        " GROUP BY 1, 2 ORDER BY 1, 2"
    ):
        lines.append(f"  {count:>5}  {kind:<16} {reason}")
    lines += ["", "conversions after the last cut"]
    for partner, conversion, status, reason, worth in ask(
        "SELECT partner, conversion_id, toString(state), toString(reason), points"
        " FROM conversions ORDER BY partner, conversion_id"
    ):
        shown = show_amount(int(worth), scale)
        lines.append(
            f"  {partner:<13} {conversion:<12} {status:<10} {reason:<15} {shown:>7} {points}"
        )
    lines += ["", "the book answered"]
    lines += [f"  {count:>5}  {word}" for word, count in report.results.items()]
    if report.orders:
        lines += ["", "orders of members came to"]
        lines += [f"  {count:>5}  {word}" for word, count in report.orders.items()]
    newest = ask(
        "SELECT entry_id FROM entries WHERE kind = 'confirm' AND account LIKE 'member:%available'"
        " AND conversion_key = (SELECT conversion_key FROM conversions"
        " WHERE receivable_minor > 0 ORDER BY conversion_id LIMIT 1)"
        " ORDER BY sequence DESC, leg LIMIT 1"
    )
    if newest:
        identifier = str(newest[0][0])
        lines += ["", f"why: mirrorpoint explain {identifier}", ""]
        lines.append(show_chain(explain_id(state, identifier) or []))
    lines += ["", f"ledger_hash  {report.hashes['ledger_hash']}"]
    lines.append(f"journal_hash {report.hashes['journal_hash']}")
    return "\n".join(lines)
