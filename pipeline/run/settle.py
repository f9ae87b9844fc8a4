"""`job settle`: what partners owe, and what is left of it behind the points.

A statement of a partner in a currency is a fold of the book (`store/book_money.py`), for an
accounting period or for what was booked between two times; currencies are never added up. What is
over does not change any more. Beside it stands what is still expected: the receivable of the
conversions that were pending at the last cut of the span, if all of them come to be confirmed.

Expected is what their messages state as commission, else what the contract says of their amount.
Of those whose contract is not known any more the number is told, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.model.identifiers import parse_id
from pipeline.model.money import CURRENCY_SCALE, INT64_MAX, show_amount
from pipeline.model.times import show_time
from pipeline.run.cases import to_ns
from pipeline.run.columns import aligned, grouped
from pipeline.run.failures import RequestError
from pipeline.store.book_money import Line, PartnerPoints, Span, Statement

if TYPE_CHECKING:
    from pipeline.run.state import State

WRONG = 2
PERIOD = re.compile(r"[12]\d{3}-(?:0[1-9]|1[0-2])\Z", re.ASCII)
NO_POINTS = PartnerPoints(0, 0)
LINES = ("confirmed", "late", "reversed", "adjusted")
SAID = {"late": "confirmed late"}

WAITING = """
SELECT argMax(tuple(partner, currency, contract_version, rulebook_hash, points, commission_minor,
  amount_minor), tuple(fold, -toInt64(cut), -toInt64(stream_offset))) AS last,
  argMax(state, tuple(fold, -toInt64(cut), -toInt64(stream_offset))) AS stands
FROM conversions_log WHERE cut <= {cut} GROUP BY conversion_key HAVING stands = 'pending'
"""
# Of what is not stated: the contract's share, rounded down, and what is fixed.
EXPECTED = """
SELECT w.last.1 AS partner, w.last.2 AS currency, count() AS conversions,
  countIf(w.last.6 = 0 AND a.under = 0) AS unknown,
  toString(sum(multiIf(w.last.6 != 0, toInt128(w.last.6), a.under = 0, toInt128(0),
    a.fixed + intDiv(toInt128(w.last.7) * a.over - if(w.last.7 < 0, a.under - 1, 0),
      greatest(a.under, 1))))) AS receivable
FROM waiting AS w LEFT JOIN agreed AS a
  ON a.partner = w.last.1 AND a.version = w.last.3 AND a.rulebook = w.last.4
GROUP BY partner, currency
"""
AGREED = "partner String, version String, rulebook UUID, over Int64, under Int64, fixed Int64"


@dataclass(frozen=True, slots=True)
class Expected:
    """The receivable of what is pending, if all of it is confirmed."""

    conversions: int = 0
    receivable: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """All that `job settle` tells."""

    span: Span
    closed: bool
    cut: int
    statements: tuple[Statement, ...]
    points: dict[str, PartnerPoints]
    expected: dict[tuple[str, str], Expected]


def settle(state: State, request: dict[str, Any]) -> bytes:
    """The statements that were asked for, as they will be printed."""
    found = settled(state, request)
    programme = state.rulebook.programme
    if request.get("json"):
        return json.dumps(_as_json(found, programme.points_scale), indent=2).encode() + b"\n"
    return _as_text(found, programme.points, programme.points_scale).encode()


def settled(state: State, request: dict[str, Any]) -> Settled:
    """The statements that were asked for. Raises RequestError."""
    span = span_of(state, request)
    partner = str(request.get("partner") or "")
    cut = _last_cut(state, span.to_ns)
    expected = _expected(state, cut) if cut else {}
    statements = {(s.partner, s.currency): s for s in state.book.money.statements(span)}
    for at in expected:
        statements.setdefault(at, Statement(*at, 0, Line(), Line(), Line(), Line(), 0))
    chosen = [statements[at] for at in sorted(statements) if partner in ("", at[0])]
    if partner and not chosen and all(p.id != partner for p in state.rulebook.partners):
        raise RequestError(f"--partner {partner!r} is none of ours", WRONG)
    return Settled(
        span,
        bool(span.period) and state.book.money.closed(span.period),
        cut,
        tuple(chosen),
        state.book.money.points(span),
        expected,
    )


def span_of(state: State, request: dict[str, Any]) -> Span:
    """The span that was asked for, else the last period in which something was booked."""
    period, timezone = str(request.get("period") or ""), state.rulebook.programme.timezone
    begins, ends = request.get("from"), request.get("to")
    if period and (begins or ends):
        raise RequestError("give --period, or --from and --to", WRONG)
    if begins or ends:
        from_ns = time_of("--from", str(begins)) if begins else 0
        to_ns = time_of("--to", str(ends)) if ends else INT64_MAX
        if from_ns >= to_ns:
            raise RequestError("--to is not after --from", WRONG)
        return Span(from_ns, to_ns)
    if period and not PERIOD.match(period):
        raise RequestError(f"--period {period!r} is not a month such as 2026-03", WRONG)
    booked = state.book.money.periods()
    if not period and not booked:
        raise RequestError("nothing has been booked; see `mirrorpoint job accrue`")
    return Span.of_period(period or booked[-1], timezone)


def time_of(option: str, text: str) -> int:
    """A time that was given as an option. Raises RequestError."""
    try:
        return to_ns(datetime.fromisoformat(text))
    except ValueError:
        said = f"{option} {text!r} is not a time such as 2026-03-02T00:00:00Z"
        raise RequestError(said, WRONG) from None


def _last_cut(state: State, to_ns: int) -> int:
    """The last cut before a time whose outcomes the store has; 0 for none."""
    ((number,),) = state.clickhouse.rows(
        "SELECT max(number) FROM cuts_log WHERE toUnixTimestamp64Nano(now_at) <"
        f" {int(to_ns)} AND number IN (SELECT cut FROM conversions_log)"
    )
    return int(number)


def _expected(state: State, cut: int) -> dict[tuple[str, str], Expected]:
    """By partner and currency, what is pending after a cut."""
    steps = {"waiting": WAITING.format(cut=int(cut))}
    table = state.clickhouse.staged(steps, EXPECTED, {"agreed": (AGREED, _agreed(state, cut))})
    return {
        (row["partner"].decode(), row["currency"].decode()): Expected(
            int(row["conversions"]), int(row["receivable"]), int(row["unknown"])
        )
        for row in table.to_pylist()
    }


def _agreed(state: State, cut: int) -> pa.RecordBatch:
    """What the contracts say of commission under which something is pending."""
    rows = []
    for partner, version, rulebook_hash in state.clickhouse.rows(
        "SELECT DISTINCT partner, contract_version, rulebook_hash FROM conversions_log"
        f" WHERE state = 'pending' AND cut <= {int(cut)}"
    ):
        told = parse_id(str(rulebook_hash)) or b""
        rulebook = state.rulebook_of(told)
        for found in rulebook.partners if rulebook else ():
            for contract in found.contracts:
                if (found.id, contract.version) == (partner, version):
                    fixed = int(contract.commission_fixed * 10 ** CURRENCY_SCALE[contract.currency])
                    share = contract.commission
                    rows.append((partner, version, told, share.numerator, share.denominator, fixed))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    kinds = (pa.binary(), pa.binary(), pa.binary(16), pa.int64(), pa.int64(), pa.int64())
    names = ("partner", "version", "rulebook", "over", "under", "fixed")
    encoded = [
        pa.array([v.encode() if isinstance(v, str) else v for v in column], kind)
        for column, kind in zip(columns, kinds, strict=True)
    ]
    return pa.RecordBatch.from_arrays(encoded, names=list(names))


# Shown


def _as_json(found: Settled, points_scale: int) -> dict[str, Any]:
    totals = {
        currency: _statement_json(sum_, expected, NO_POINTS, points_scale)
        for currency, (sum_, expected) in _totals(found).items()
    }
    for total in totals.values():
        for key in ("partner", "points_given", "points_pending"):
            del total[key]
    return {
        **_span_json(found.span),
        "closed": found.closed,
        "cut": found.cut,
        "statements": [
            _statement_json(
                row,
                found.expected.get((row.partner, row.currency), Expected()),
                found.points.get(row.partner, NO_POINTS),
                points_scale,
            )
            for row in found.statements
        ],
        "totals": totals,
    }


def _span_json(span: Span) -> dict[str, Any]:
    ends = "" if span.to_ns >= INT64_MAX else show_time(span.to_ns)
    return {"period": span.period, "from": show_time(span.from_ns), "to": ends}


def _statement_json(
    row: Statement, expected: Expected, points: PartnerPoints, points_scale: int
) -> dict[str, Any]:
    """A statement; money and points are decimal texts."""
    scale = CURRENCY_SCALE.get(row.currency, 2)

    def money(amount: int) -> str:
        return show_amount(amount, scale)

    return {
        "partner": row.partner,
        "currency": row.currency,
        "carried_in": money(row.carried_in),
        **{
            name: {"conversions": line.conversions, "amount": money(line.amount)}
            for name, line in ((name, getattr(row, name)) for name in LINES)
        },
        "carried_out": money(row.carried_out),
        "commissions": money(row.commissions),
        "cost_of_points": money(row.cost),
        "margin": money(row.margin),
        "points_given": show_amount(points.given, points_scale),
        "points_pending": show_amount(points.pending, points_scale),
        "expected": {
            "conversions": expected.conversions,
            "amount": money(expected.receivable),
            "contract_unknown": expected.unknown,
        },
    }


def _totals(found: Settled) -> dict[str, tuple[Statement, Expected]]:
    """By currency, all statements together."""
    by_currency: dict[str, list[Statement]] = defaultdict(list)
    for row in found.statements:
        by_currency[row.currency].append(row)
    totals = {}
    for currency, rows in sorted(by_currency.items()):
        lines = [_sum(getattr(row, name) for row in rows) for name in LINES]
        carried, cost = sum(r.carried_in for r in rows), sum(r.cost for r in rows)
        new, late, back, other = lines
        whole = Statement("", currency, carried, new, late, back, other, cost)
        waits = [found.expected.get((row.partner, currency), Expected()) for row in rows]
        expected = Expected(
            sum(x.conversions for x in waits),
            sum(x.receivable for x in waits),
            sum(x.unknown for x in waits),
        )
        totals[currency] = whole, expected
    return totals


def _sum(lines: Any) -> Line:
    both = list(lines)
    return Line(sum(x.conversions for x in both), sum(x.amount for x in both))


def _as_text(found: Settled, unit: str, points_scale: int) -> str:
    """Statements for a terminal of 80 columns."""
    if found.span.period:
        about = f"period {found.span.period}, {'closed' if found.closed else 'not closed'}"
    else:
        said = _span_json(found.span)
        about = f"booked from {said['from']}" + (f" until {said['to']}" if said["to"] else "")
    lines = [f"statement of {about}; expected as of cut {found.cut}"]
    for row in found.statements:
        expected = found.expected.get((row.partner, row.currency), Expected())
        lines += ["", f"{row.partner}, in {row.currency}"]
        lines += _statement_text(row, expected)
        points = found.points.get(row.partner, NO_POINTS)
        given, pending = (show_amount(p, points_scale) for p in points)
        lines.append(f"  {given} {unit} given, {pending} {unit} pending in the end")
    for currency, (whole, expected) in _totals(found).items():
        lines += ["", f"all partners, in {currency}", *_statement_text(whole, expected)]
    if not found.statements:
        lines.append("nothing was booked and nothing is expected")
    return "".join(line + "\n" for line in lines)


def _statement_text(row: Statement, expected: Expected) -> list[str]:
    scale = CURRENCY_SCALE.get(row.currency, 2)
    rows: list[tuple[str, int | None, int]] = [("carried in", None, row.carried_in)]
    for name in LINES:
        line = getattr(row, name)
        rows.append((SAID.get(name, name), line.conversions, line.amount))
    rows += [
        ("carried out", None, row.carried_out),
        ("commissions", None, row.commissions),
        ("cost of points", None, -row.cost),
        ("margin", None, row.margin),
        ("expected", expected.conversions, expected.receivable),
    ]
    told = [
        (f"  {name}", "" if count is None else f"{count:,}", grouped(amount, scale))
        for name, count, amount in rows
    ]
    unknown = [f"  of {expected.unknown:,} the contract is not known any more"]
    return aligned(told) + (unknown if expected.unknown else [])
