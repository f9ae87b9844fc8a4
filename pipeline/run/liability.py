"""`job liability`: what the points that members may still spend are worth, and how that came.

The roll-forward is a fold of the book (`store/book_liability.py`): by the month points were earned
in, and by what became of them between two moments; its close is the book's balance of the second
one (`Book.liability_at`). Worth is at the price of issue, less the share of which the programme
(`expected_lapse`), or who asks, expects that nobody will spend it. Money is rounded down, cohort
by cohort and once more in the sum, which is that of what was not rounded.
"""

from __future__ import annotations

import json
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pipeline.ledger.terms import period_of
from pipeline.model.money import CURRENCY_SCALE, parse_rate, show_amount
from pipeline.model.times import show_time
from pipeline.run.columns import aligned
from pipeline.run.failures import RequestError
from pipeline.run.settle import span_of, time_of
from pipeline.store.book_liability import WAYS, Cohort, Liability
from pipeline.store.book_money import Span

if TYPE_CHECKING:
    from pipeline.run.state import State

WRONG = 2
HEADS = ("earned", "open", "issued", "spent", "expired", "other", "close", "value")


def report_liability(state: State, request: dict[str, Any]) -> bytes:
    """The roll-forward that was asked for, as it will be printed."""
    programme = state.rulebook.programme
    from_ns, to_ns = _moments(state, request)
    try:
        given = request.get("lapse")
        lapse = parse_rate(str(given)) if given else programme.expected_lapse
    except ValueError:
        lapse = Fraction(-1)
    if not 0 <= lapse <= 1:
        raise RequestError(f"--lapse {request['lapse']!r} is not a share such as 20%", WRONG)
    found = state.book.money.liability(from_ns, to_ns)
    told = _liability_json(found, state, lapse)
    if request.get("json"):
        return json.dumps(told, indent=2).encode() + b"\n"
    return _liability_text(found, told, programme.points, programme.points_scale).encode()


def _moments(state: State, request: dict[str, Any]) -> tuple[int, int]:
    """From when until when: a period, two times, or the month in which a time is up to it."""
    timezone = state.rulebook.programme.timezone
    at = request.get("at")
    if at and any(request.get(name) for name in ("period", "from", "to")):
        raise RequestError("give --at, or --period, or --from and --to", WRONG)
    if request.get("from") and not request.get("to"):
        raise RequestError("give --to with --from", WRONG)
    if any(request.get(name) for name in ("period", "from", "to")):
        span = span_of(state, request)
        # What is booked at the first instant of the next period is not of this one.
        return max(span.from_ns - bool(span.period), 0), span.to_ns - bool(span.period)
    last = state.book.last_cut()
    if not at and last is None:
        raise RequestError("nothing has been booked; see `mirrorpoint job accrue`")
    to_ns = time_of("--at", str(at)) if at else (last.now_ns if last else 0)
    begins = Span.of_period(period_of(to_ns - 1, timezone), timezone).from_ns
    return max(begins - 1, 0), to_ns


def _liability_json(found: Liability, state: State, lapse: Fraction) -> dict[str, Any]:
    programme = state.rulebook.programme
    scale, decimals = programme.points_scale, CURRENCY_SCALE[programme.currency]

    def points(amount: int) -> str:
        return show_amount(amount, scale)

    def money(worth: Fraction) -> str:
        minor = worth * 10**decimals / 10**scale
        return show_amount(int(minor // 1), decimals)

    worth = found.worth(programme.issue_price)
    rows = [
        {
            "earned": cohort.month,
            "price": str(Fraction(cohort.issue_price)),
            **{way: points(getattr(cohort, way)) for way in WAYS},
            "close": points(cohort.close),
            "value": money(cohort.close * Fraction(cohort.issue_price) * (1 - lapse)),
        }
        for cohort in found.cohorts
    ]
    sums = {way: points(sum(getattr(c, way) for c in found.cohorts)) for way in WAYS[1:]}
    return {
        "from": show_time(found.from_ns),
        "at": show_time(found.to_ns),
        "cohorts": rows,
        "total": {"open": points(found.open), **sums, "close": points(found.close)},
        "reservations_over": points(found.ended - found.ended_before),
        "pending": points(found.pending),
        "owed": points(found.owed),
        "expected_lapse": f"{float(lapse * 100):g}%",
        "currency": programme.currency,
        "value": money(worth * (1 - lapse)),
    }


def _liability_text(found: Liability, told: dict[str, Any], unit: str, scale: int) -> str:
    """The roll-forward for a terminal of 80 columns: cohorts side by side would not fit."""
    lines = [f"{unit} outstanding, from {_second(told['from'])} to {_second(told['at'])}", ""]
    rows: list[tuple[str, ...]] = [HEADS]
    for cohort, row in zip(found.cohorts, told["cohorts"], strict=True):
        rows.append(_row(row["earned"], cohort, row["close"], row["value"], scale))
    lines += aligned(rows)
    total = told["total"]
    ways = [(way, total[way]) for way in (*WAYS, "close")]
    over = told["reservations_over"]
    if found.ended != found.ended_before:
        ways.insert(-1, ("reservations over", over))
    lines += ["", *aligned([(f"  {way}", amount) for way, amount in ways]), ""]
    lines.append(
        f"worth {told['value']} {told['currency']},"
        f" where {told['expected_lapse']} of it is expected to lapse"
    )
    lines.append(f"beside it {told['pending']} {unit} pending, and {told['owed']} owed by members")
    return "".join(line + "\n" for line in lines)


def _row(month: str, cohort: Cohort, close: str, value: str, scale: int) -> tuple[str, ...]:
    other = cohort.forfeited + cohort.transferred + cohort.exchanged + cohort.adjusted
    numbers = (cohort.open, cohort.issued, cohort.spent, cohort.expired, other)
    return (month, *(show_amount(number, scale) for number in numbers), close, value)


def _second(moment: str) -> str:
    return f"{moment[:19]}Z"
