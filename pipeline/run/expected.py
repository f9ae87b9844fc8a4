"""What a case is expected to come to: a few tables as text, beside its inputs, read in a diff.

`mirrorpoint replay CASE --update` writes them. They hold what people can judge (who was offered
what, what each conversion is worth and why, every leg that was booked), and neither hashes nor run
ids, so that a change of the rules or the code shows as the rows it changes.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from pipeline.run.state import State

FOLDER = "expected"
TABLES = {
    "visits": "SELECT partner, basis, first_at, last_at, sessions, http, tls, documents, arrival,"
    " tracker, mark, ambiguous, packet_number, visit_id FROM visits"
    " ORDER BY first_at, visit_id",
    "decisions": "SELECT d.partner, v.first_at, d.kind, d.reason, d.experiment, d.cell,"
    " d.visit_id, d.click_id FROM decisions d JOIN visits v ON v.visit_id = d.visit_id"
    " ORDER BY v.first_at, d.visit_id",
    "conversions": "SELECT cut, partner, conversion_id, status, state, reason, points,"
    " receivable_minor, cost_minor, margin_minor, result, rule_id, fold FROM conversions_log"
    " ORDER BY cut, partner, conversion_id",
    "entries": "SELECT cut, kind, account, commodity, amount, cause_kind, cause_version,"
    " effective_at FROM entries ORDER BY sequence, leg",
}


def tables(state: State) -> dict[str, str]:
    """Each table as tab-separated text with a head line."""
    return {
        name: state.clickhouse.ask(query, "TSVWithNames").decode() for name, query in TABLES.items()
    }


def write(case: Path, found: dict[str, str]) -> None:
    """Put the tables beside the case's inputs."""
    folder = case / FOLDER
    folder.mkdir(exist_ok=True)
    for name, text in found.items():
        (folder / f"{name}.tsv").write_text(text)


def differences(case: Path, found: dict[str, str]) -> list[str]:
    """Lines of a diff between what the case expects and what was found."""
    lines: list[str] = []
    for name, text in found.items():
        path = case / FOLDER / f"{name}.tsv"
        expected = path.read_text() if path.is_file() else ""
        lines += difflib.unified_diff(
            expected.splitlines(), text.splitlines(), f"expected/{name}.tsv", "found", lineterm=""
        )
    return lines
