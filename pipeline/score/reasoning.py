"""Why a target is what it is, as compact JSON that `explain` shows line by line.

    {"conditions": [[name, value, holds], ...], "sum": "26.09 EUR x 1/20 / 1/100 = 130.45 -> 130",
     "rejected": [[rule id, why], ...], "reason": "held",
     "fraud": {"codes": [[code, what was found, weight], ...], "score": 100, "limit": 100,
               "outcome": "review"},
     "attributions": {"last": [member, click, channel], "first": ..., "position": ...,
                      "coupon": ..., "shares": [[click, channel, "2/5"], ...]},
     "review": {"verdict": "release", "actor": ..., "reason": ..., "at": ...}}

All conditions of the way taken are there, also those after the one that failed: somebody who asks
why there are no points should not have to ask twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np

from pipeline.model.batches import FoldBatch
from pipeline.model.columns import TextColumn
from pipeline.model.identifiers import id_text
from pipeline.model.money import CURRENCY_SCALE, show_amount
from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import show_time
from pipeline.model.words import Basis, Status, TargetReason
from pipeline.rulebook.model import Accrual, Partner, Rulebook
from pipeline.score.attribute import Attribution
from pipeline.score.terms import ANY, Terms

SPANS = ((86_400 * 10**9, "days"), (3_600 * 10**9, "hours"), (10**9, "seconds"))
COMPACT = json.JSONEncoder(separators=(",", ":"))
Condition = list[Any]


class Reasoning:
    """Explains rows of one call of `rate`."""

    def __init__(
        self,
        folds: FoldBatch,
        rulebook: Rulebook,
        terms: Terms,
        contract: np.ndarray,
        accrual: np.ndarray,
        found: Attribution,
    ) -> None:
        self._folds, self._terms, self._found = folds, terms, found
        self._contract, self._accrual = contract.tolist(), accrual.tolist()
        self._points_scale = rulebook.programme.points_scale
        self._partners = {p.id: p for p in rulebook.partners}
        self._partner, self._kind = folds.partner.to_list(), folds.kind.to_list()

    def column(
        self,
        points: np.ndarray,
        reason: np.ndarray,
        release_ns: np.ndarray,
        now_ns: int,
        more: Sequence[dict[str, Any]] | None = None,
    ) -> TextColumn:
        """One JSON text per row; `more` is what else is to be told of each."""
        more = more or [{}] * len(points)
        return TextColumn.of(
            json.dumps(
                self._row(row, worth, TargetReason(why), due, now_ns) | more[row],
                separators=(",", ":"),
            )
            for row, (worth, why, due) in enumerate(
                zip(points.tolist(), reason.tolist(), release_ns.tolist(), strict=True)
            )
        )

    def _row(
        self, row: int, points: int, reason: TargetReason, due_ns: int, now_ns: int
    ) -> dict[str, Any]:
        partner, rule = self._partners.get(self._partner[row]), self._rule(row)
        status = int(self._folds.status[row])
        word = _word(Status, status)
        conditions = [
            ["contract in force", self._terms.contract_version.text(self._contract[row]), None],
            *self._way(row),
            ["rule for", self._kind[row], rule is not None],
            ["not declined", word, status != Status.DECLINED],
        ]
        conditions[0][2] = self._contract[row] != self._terms.no_contract
        if reason in (TargetReason.HELD, TargetReason.AWARDED, TargetReason.FRAUD_HOLD):
            conditions.append(["return window over", _shown_time(due_ns), now_ns >= due_ns])
        told: dict[str, Any] = {"conditions": conditions, "reason": reason.name.lower()}
        if rule is not None and conditions[0][2]:
            told["sum"] = self._sum(row, rule, points)
        if partner is not None:
            told["rejected"] = self._rejected(row, partner, rule)
        return told

    def _rule(self, row: int) -> Accrual | None:
        number = self._accrual[row]
        return None if number == self._terms.no_accrual else self._terms.accrual_list[number]

    def _way(self, row: int) -> list[Condition]:
        """The conditions of the way on which it was, or was not, attributed."""
        if self._found.by_coupon[row]:
            consented = int(self._found.reason[row]) != TargetReason.NOT_A_MEMBER
            return [["a coupon issued to a member", "", True], ["consented", "", consented]]
        return self._click(row) if self._found.by_click[row] else self._match(row)

    def _click(self, row: int) -> list[Condition]:
        folds = self._folds
        found = bool(folds.click_found[row])
        conditions = [["click is ours", id_text(folds.click_id[row].tobytes()), found]]
        if not found:
            return conditions
        partner = folds.click_partner.text(row)
        conditions += [
            ["same partner", partner, partner == self._partner[row]],
            self._window("clicked", row, int(folds.clicked_ns[row])),
            ["visit unambiguous", "", not folds.visit_ambiguous[row]],
        ]
        credited = self._found.click_id[row].tobytes()
        if credited != folds.click_id[row].tobytes():
            conditions.append(["credited to", id_text(credited), True])
        if self._found.reason[row] == TargetReason.STOOD_DOWN:
            conditions.append(["no other affiliate", "", False])
        return conditions

    def _match(self, row: int) -> list[Condition]:
        folds = self._folds
        by_match = bool(self._found.by_match[row])
        conditions = [["a click, or a shop that matches", "", by_match]]
        if not by_match:
            return conditions
        visit = id_text(folds.match_visit[row].tobytes())
        conditions.append(
            ["member named", "", bool(id_text(folds.match_subscriber[row].tobytes()))]
        )
        conditions.append(["visited before", visit, bool(visit)])
        if not visit:
            return conditions
        basis = int(folds.match_basis[row])
        word = _word(Basis, basis)
        return [
            *conditions,
            self._window("visited", row, int(folds.match_visit_ns[row])),
            ["consented", word, basis == Basis.CONSENTED],
            ["visit unambiguous", "", not folds.match_ambiguous[row]],
            ["no other affiliate", "", not folds.match_marked[row]],
        ]

    def _window(self, word: str, row: int, since_ns: int) -> Condition:
        window_ns = int(self._terms.window_ns[self._contract[row]])
        value = (
            f"{word} {_shown_time(since_ns)}, bought {_shown_time(int(self._folds.event_ns[row]))}"
        )
        return [f"within {_span(window_ns)}", value, bool(self._found.inside[row])]

    def _sum(self, row: int, rule: Accrual, points: int) -> str:
        shown = show_amount(points, self._points_scale)
        if rule.kind != "percent":
            return f"{rule.id}: fixed {shown}"
        currency = self._terms.contract_list[self._contract[row]].currency
        scale = CURRENCY_SCALE[currency]
        amount = int(self._folds.amount_minor[row])
        exact = Fraction(max(amount, 0), 10**scale) * rule.rate / rule.per_point
        return (
            f"{rule.id}: {show_amount(amount, scale)} {currency} x {rule.rate} / {rule.per_point}"
            f" = {_decimal(exact)} -> {shown}"
        )

    def _rejected(self, row: int, partner: Partner, rule: Accrual | None) -> list[list[str]]:
        event_ns = int(self._folds.event_ns[row])
        rejected = []
        for other in partner.accruals:
            if other is rule:
                continue
            if other.action not in (self._kind[row], ANY):
                why = f"is for {other.action}"
            elif event_ns < other.valid_from_ns:
                why = f"begins {_shown_time(other.valid_from_ns)}"
            elif event_ns >= other.valid_until_ns:
                why = f"ended {_shown_time(other.valid_until_ns)}"
            else:
                why = f"{rule.id if rule else 'another'} comes first"
            rejected.append([other.id, why])
        return rejected


def told(explanation: str) -> list[str]:
    """An explanation as lines for people; empty where there is none."""
    if not explanation:
        return []
    found = json.loads(explanation)
    lines = [
        f"{'yes' if holds else 'NO '}  {name}{f': {value}' if value else ''}"
        for name, value, holds in found["conditions"]
    ]
    if "sum" in found:
        lines.append(f"sum  {found['sum']}")
    lines += [f"not  {rule}: {why}" for rule, why in found.get("rejected", ())]
    credited = {m: c for m, c in found.get("attributions", {}).items() if m != "shares"}
    if len({tuple(credit) for credit in credited.values()}) > 1:
        lines += [
            f"by {model}: {' '.join(filter(None, (click, channel, member)))}"
            for model, (member, click, channel) in credited.items()
        ]
    if fraud := found.get("fraud"):
        lines += [f"code {code} ({weight}): {what}" for code, what, weight in fraud["codes"]]
        lines.append(f"score {fraud['score']} of {fraud['limit']}: {fraud['outcome']}")
    if review := found.get("review"):
        who = f"{review['actor']} {review['at']}"
        lines.append(f"{review['verdict']} by {who}: {review['reason']}")
    return lines


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
