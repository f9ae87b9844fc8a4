"""What a replay came to: counts by kind, the hashes, and what could not be read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.capture.facts import RowFault
from pipeline.model.tally import Tally
from pipeline.run.answers import order_counts

if TYPE_CHECKING:
    from pipeline.run.state import State

# What makes a row of these tables; ids of runs and times of booking are left out on purpose.
HASHED = {
    "visits": "SELECT visit_id, toUInt64(argMax(row_hash, stream_offset)) FROM visits_log"
    " GROUP BY visit_id ORDER BY visit_id",
    "decisions": "SELECT decision_id, row_hash FROM decisions_log ORDER BY decision_id",
    "conversions": "SELECT conversion_key, state, reason, points, rule_version, click_id, visit_id"
    " FROM conversions ORDER BY conversion_key",
}
BY_KIND = {
    "visits": "SELECT toString(arrival), count() FROM visits GROUP BY 1",
    "decisions": "SELECT concat(toString(kind), '/', toString(reason)), count()"
    " FROM decisions GROUP BY 1",
    "conversions": "SELECT concat(toString(state), '/', toString(reason)), count()"
    " FROM conversions GROUP BY 1",
    "entries": "SELECT kind, count() FROM entries GROUP BY 1",
}
# What the book answered at all cuts, whichever process asked it.
RESULTS = "SELECT toString(result), count() FROM conversions_log GROUP BY 1"


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Counts and hashes of a state after a replay."""

    counts: dict[str, int]
    by_kind: dict[str, dict[str, int]]
    results: dict[str, int]
    orders: dict[str, int]
    hashes: dict[str, str]
    skipped: dict[str, int]
    faults: dict[str, int]
    parked: dict[str, int]
    bad_rows: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON objects."""
        kinds = {f"{name}_by_kind": words for name, words in self.by_kind.items()}
        return {
            **self.counts,
            **kinds,
            "results": self.results,
            "orders": self.orders,
            **self.hashes,
            "parked": self.parked,
            "faults": self.faults,
            "skipped": self.skipped,
            "bad_rows": self.bad_rows,
        }


def report_of(state: State, tally: Tally, faults: Sequence[RowFault]) -> ReplayReport:
    """Ask a state what it holds."""
    ask = state.clickhouse.rows
    counts = {
        name: int(ask(f"SELECT count() FROM {name}")[0][0])
        for name in ("visits", "decisions", "clicks", "conversions", "entries")
    }
    by_kind = {name: _words(ask(query)) for name, query in BY_KIND.items()}
    hashes = {f"{name}_hash": _hash(ask(query)) for name, query in HASHED.items()}
    hashes["ledger_hash"] = state.book.ledger_hash()
    hashes["journal_hash"] = state.journal.hash()
    parked = _words(
        ask("SELECT parked, count() FROM purchases_log WHERE parked != 'none' GROUP BY 1")
    )
    return ReplayReport(
        counts,
        by_kind,
        _words(ask(RESULTS)),
        order_counts(state),
        hashes,
        tally.starting("skip"),
        tally.starting("fault"),
        parked,
        [str(fault) for fault in faults],
    )


def _words(rows: Sequence[Sequence[Any]]) -> dict[str, int]:
    return {str(word): int(count) for word, count in sorted(rows, key=lambda r: str(r[0]))}


def _hash(rows: Sequence[Sequence[Any]]) -> str:
    h = hashlib.blake2b(digest_size=16)
    for row in rows:
        h.update("\t".join(map(str, row)).encode() + b"\n")
    return h.hexdigest()


def show_report(report: ReplayReport) -> str:
    """The report for a terminal of 80 columns."""
    lines = [
        "  ".join(f"{name} {count:,}" for name, count in report.counts.items()),
    ]
    for name, words in report.by_kind.items():
        lines.append(f"{name}:")
        lines += [f"  {count:>9,}  {word}" for word, count in words.items()]
    for title, words in (
        ("book answered", report.results),
        ("orders of members", report.orders),
        ("parked messages", report.parked),
        ("could not be read", report.faults),
    ):
        if words:
            lines.append(f"{title}:")
            lines += [f"  {count:>9,}  {word}" for word, count in words.items()]
    lines += [f"{name:<17} {value}" for name, value in report.hashes.items()]
    lines += report.bad_rows[:20]
    return "\n".join(lines)
