"""Explanations of plain rules, row by row: a dict for each, dumped.

What stacks and what is limited is compared by stories; this twin knows one rule per conversion.
"""

from __future__ import annotations

import json
from enum import IntEnum
from fractions import Fraction
from typing import Any

from pipeline.model.batches import FoldBatch, TargetBatch
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.money import CURRENCY_SCALE, show_amount
from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import show_time
from pipeline.model.words import Basis, Status, TargetReason
from pipeline.rulebook.model import Accrual, Contract, Partner, Rulebook

SPANS = ((86_400 * 10**9, "days"), (3_600 * 10**9, "hours"), (10**9, "seconds"))
Condition = list[Any]


def explained(folds: FoldBatch, targets: TargetBatch, rulebook: Rulebook, now_ns: int) -> list[str]:
    """The explanation of each target; `folds` say what was done."""
    return [
        json.dumps(_row(folds, targets, row, rulebook, now_ns), separators=(",", ":"))
        for row in range(len(folds))
    ]


def _row(
    folds: FoldBatch, targets: TargetBatch, row: int, rulebook: Rulebook, now_ns: int
) -> dict[str, Any]:
    event, kind = int(folds.event_ns[row]), folds.kind.text(row)
    partner = rulebook.partner(folds.partner.text(row))
    contract = partner.contract_at(event) if partner else None
    rule = next(iter(partner.accruals_at(kind, event)), None) if partner else None
    status, reason = int(folds.status[row]), TargetReason(int(targets.reason[row]))
    by_click = bytes(folds.click_id[row]) != NO_ID
    conditions = [
        ["contract in force", contract.version if contract else "", contract is not None],
        *(_click if by_click else _match)(folds, row, contract),
        ["rule for", kind, rule is not None],
        ["not declined", _word(Status, status), status != Status.DECLINED],
    ]
    if reason in (TargetReason.HELD, TargetReason.AWARDED):
        assert contract is not None
        due = event + contract.return_window_ns
        conditions.append(["return window over", _shown_time(due), now_ns >= due])
    told: dict[str, Any] = {"conditions": conditions, "reason": reason.name.lower()}
    if rule is not None and contract is not None:
        told["sum"] = _sum(folds, row, rule, contract.currency, rulebook.programme.points_scale)
    if partner is not None:
        told["rejected"] = _rejected(partner, rule, kind, event)
    return told


def _click(folds: FoldBatch, row: int, contract: Contract | None) -> list[Condition]:
    found = bool(folds.click_found[row])
    conditions = [["click is ours", id_text(folds.click_id[row].tobytes()), found]]
    if not found:
        return conditions
    partner = folds.click_partner.text(row)
    return [
        *conditions,
        ["same partner", partner, partner == folds.partner.text(row)],
        _window("clicked", folds, row, contract, int(folds.clicked_ns[row])),
        ["visit unambiguous", "", not folds.visit_ambiguous[row]],
    ]


def _match(folds: FoldBatch, row: int, contract: Contract | None) -> list[Condition]:
    by_match = contract is not None and contract.click_delivery == "match"
    conditions = [["a click, or a shop that matches", "", by_match]]
    if not by_match:
        return conditions
    visit, member = bytes(folds.match_visit[row]), bytes(folds.match_subscriber[row])
    conditions.append(["member named", "", member != NO_ID])
    conditions.append(["visited before", id_text(visit), visit != NO_ID])
    if visit == NO_ID:
        return conditions
    basis = int(folds.match_basis[row])
    return [
        *conditions,
        _window("visited", folds, row, contract, int(folds.match_visit_ns[row])),
        ["consented", _word(Basis, basis), basis == Basis.CONSENTED],
        ["visit unambiguous", "", not folds.match_ambiguous[row]],
        ["no other affiliate", "", not folds.match_marked[row]],
    ]


def _window(
    word: str, folds: FoldBatch, row: int, contract: Contract | None, since_ns: int
) -> Condition:
    window_ns = contract.attribution_window_ns if contract else 0
    event = int(folds.event_ns[row])
    value = f"{word} {_shown_time(since_ns)}, bought {_shown_time(event)}"
    return [f"within {_span(window_ns)}", value, 0 <= event - since_ns <= window_ns]


def _sum(folds: FoldBatch, row: int, rule: Accrual, currency: str, points_scale: int) -> str:
    scale = CURRENCY_SCALE[currency]
    amount = int(folds.amount_minor[row])
    shown = show_amount(
        min(rule.points_for(amount, currency, points_scale), 2**63 - 1), points_scale
    )
    if rule.kind != "percent":
        return f"{rule.id}: fixed {shown}"
    exact = Fraction(max(amount, 0), 10**scale) * rule.rate / rule.per_point
    return (
        f"{rule.id}: {show_amount(amount, scale)} {currency} x {rule.rate} / {rule.per_point}"
        f" = {_decimal(exact)} -> {shown}"
    )


def _rejected(partner: Partner, rule: Accrual | None, kind: str, event_ns: int) -> list[list[str]]:
    rejected = []
    for other in partner.accruals:
        if other is rule:
            continue
        if other.action not in (kind, "any"):
            why = f"is for {other.action}"
        elif event_ns < other.valid_from_ns:
            why = f"begins {_shown_time(other.valid_from_ns)}"
        elif event_ns >= other.valid_until_ns:
            why = f"ended {_shown_time(other.valid_until_ns)}"
        else:
            why = f"{rule.id if rule else 'another'} comes first"
        rejected.append([other.id, why])
    return rejected


def _decimal(value: Fraction) -> str:
    """At most four decimals, cut off; enough to see which way it was rounded."""
    whole = value.numerator * 10_000 // value.denominator
    text = show_amount(whole, 4).rstrip("0").rstrip(".")
    return text if Fraction(whole, 10_000) == value else f"{text}..."


def _span(span_ns: int) -> str:
    """A length of time in the largest unit that divides it."""
    unit_ns, word = next(((ns, w) for ns, w in SPANS if span_ns % ns == 0), (1, "nanoseconds"))
    return f"{span_ns // unit_ns} {word}"


def _word(words: type[IntEnum], number: int) -> str:
    return next((w.name.lower() for w in words if w == number), "unknown")


def _shown_time(value_ns: int) -> str:
    return show_time(value_ns) if 0 < value_ns < END_OF_TIME else "never"
