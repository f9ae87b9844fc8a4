"""Why a target is what it is, as compact JSON that `explain` shows line by line.

    {"conditions": [[name, value, holds], ...], "reason": "held",
     "sum": "26.09 EUR x 1/20 / 1/100 = 130.45 -> 130", "sums": [...],
     "parts": [[rule id, points], ...], "limits": [[rule id, what, asked, kept], ...],
     "rejected": [[rule id, why], ...],
     "fraud": {"codes": [[code, what was found, weight], ...], "score": 100, "limit": 100,
               "outcome": "review"},
     "attributions": {"last": [member, click, channel], "first": ..., "position": ...,
                      "coupon": ..., "shares": [[click, channel, "2/5"], ...]},
     "review": {"verdict": "release", "actor": ..., "reason": ..., "at": ...}}

All conditions of the way taken are there, also those after the one that failed: somebody who asks
why there are no points should not have to ask twice. `sum` is the arithmetic of the target's rule,
`sums` that of the others that count. `parts` are the points that each rule gives in the end and
`limits` what a cap or a budget took; they are left out where one plain rule without either decides.
What parts say is counted against caps and budgets later (`store/usage.py`).

Most of a text is the same for many rows. Rows are sorted by everything in them that is one of few
(partner, contract, rules, status, what was found); for each combination that occurs one *template*
is made the slow way, with places for ids, times and numbers, and filled for all its rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from pipeline.model.batches import FoldBatch
from pipeline.model.columns import TextColumn
from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import show_time
from pipeline.model.words import Basis, Status, TargetReason
from pipeline.rulebook.model import Accrual, Rulebook
from pipeline.score.attribute import Attribution, is_set
from pipeline.score.limits import CUT_BY, Limited
from pipeline.score.members import Standing
from pipeline.score.shown import shown_amounts, shown_ids, shown_times
from pipeline.score.stacking import Group, Slots, Why
from pipeline.score.sums import exact_of, sum_of
from pipeline.score.templates import Place, Template, alike, mixed
from pipeline.score.terms import ANY, Plays, Terms

SPANS = ((86_400 * 10**9, "days"), (3_600 * 10**9, "hours"), (10**9, "seconds"))
BLOCK_ROWS = 1 << 16
POINTS_STAND = (TargetReason.AWARDED, TargetReason.HELD, TargetReason.PENDING)
Condition = list[Any]


class Reasoning:
    """Explains rows of one call of `rate`."""

    def __init__(
        self,
        folds: FoldBatch,
        rulebook: Rulebook,
        terms: Terms,
        contract: np.ndarray,
        plays: Plays,
        found: Attribution,
        standing: Standing,
        slots: Slots,
        kept: Limited,
    ) -> None:
        self._folds, self._terms, self._found, self._plays = folds, terms, found, plays
        self._contract, self._standing = contract, standing
        self._slots, self._kept = slots, kept
        self._points_scale = rulebook.programme.points_scale
        self._partner = terms.partner_numbers(folds.partner)
        self._group = np.full(len(folds), -1, np.int64)
        self._place = np.zeros(len(folds), np.int64)  # within the group
        for number, group in enumerate(slots.groups):
            self._group[group.rows] = number
            self._place[group.rows] = np.arange(len(group.rows))

    def column(
        self,
        rule: np.ndarray,
        reason: np.ndarray,
        release_ns: np.ndarray,
        now_ns: int,
        more: Sequence[dict[str, Any]] = (),
    ) -> TextColumn:
        """One JSON text per row; `more` is what else is to be told of each."""
        self._rule, self._reason, self._release_ns, self._now_ns = rule, reason, release_ns, now_ns
        numbers = self._numbers()
        blocks = [
            self._block(start, numbers[start : start + BLOCK_ROWS])
            for start in range(0, len(numbers), BLOCK_ROWS)
        ]
        column = TextColumn.concat(blocks)
        if not any(more):
            return column
        return TextColumn.of(
            f"{text[:-1]},{json.dumps(added, separators=(',', ':'))[1:]}" if added else text
            for text, added in zip(column.to_list(), more, strict=True)
        )

    def _block(self, start: int, numbers: np.ndarray) -> TextColumn:
        texts = [""] * len(numbers)
        for part in alike(numbers):
            template = Template(self._told(start + int(part[0])))
            filled = template.fill(start + part, self._values)
            for row, text in zip(part.tolist(), filled, strict=True):
                texts[row] = text
        return TextColumn.of_ascii(texts)

    def _numbers(self) -> np.ndarray:
        """A number for each row (int64); those with the same one differ only in places."""
        folds, found = self._folds, self._found
        _, referrer = folds.click_partner.numbered()
        columns: list[np.ndarray] = [
            self._partner,
            self._contract,
            self._plays.number,
            referrer,
            found.by_click,
            folds.click_found > 0,
            found.inside,
            folds.visit_ambiguous > 0,
            found.by_match,
            found.by_coupon,
            found.reason,
            self._is_credited_elsewhere(),
            is_set(folds.match_subscriber),
            is_set(folds.match_visit),
            folds.match_basis,
            folds.match_ambiguous > 0,
            folds.match_marked > 0,
            folds.status,
            self._reason,
            np.asarray(self._now_ns >= self._release_ns),
            self._outcomes(),
        ]
        return mixed(columns)

    def _is_credited_elsewhere(self) -> np.ndarray:
        """Is another click credited than the one that the messages name? (bool)"""
        return np.asarray(self._found.click_id != self._folds.click_id)

    def _outcomes(self) -> np.ndarray:
        """By row, a number for what became of its rules."""
        slots = self._slots
        found = np.zeros(len(self._folds), np.int64)
        for group in slots.groups:
            columns = [check.holds for check in group.checks]
            asks = {check.asks for check in group.checks}
            if asks & {"level", "products"}:
                texts = [self._standing.level, self._standing.products]
                columns += [text.take(group.rows).numbered()[1] for text in texts]
            for place, accrual in enumerate(group.rules):
                at = slots.start[group.rows] + place
                columns += [slots.why[at], self._kept.cut_by[at], self._kept.points[at] > 0]
                columns.append(slots.amount[at] != self._folds.amount_minor[group.rows])
                scale = self._terms.scale_of(group.contract)
                columns.append(reached(self._terms.accrual_list[accrual], slots.amount[at], scale))
            found[group.rows] = mixed(columns)
        return found

    def _told(self, row: int) -> dict[str, Any]:
        """What is told of a row, with places for what differs among rows that are alike."""
        reason = TargetReason(int(self._reason[row]))
        status = int(self._folds.status[row])
        contract = int(self._contract[row])
        has_rule = int(self._rule[row]) != self._terms.no_accrual
        in_force = contract != self._terms.no_contract
        conditions = [
            ["contract in force", self._terms.contract_version.text(contract), in_force],
            *self._way(row),
            ["rule for", self._folds.kind.text(row), has_rule],
            *self._checks(row),
            ["not declined", _word(Status, status), status != Status.DECLINED],
        ]
        if reason in (TargetReason.HELD, TargetReason.AWARDED, TargetReason.FRAUD_HOLD):
            over = self._now_ns >= int(self._release_ns[row])
            conditions.append(["return window over", Place("%s", "due"), bool(over)])
        told: dict[str, Any] = {"conditions": conditions, "reason": reason.name.lower()}
        if has_rule and in_force:
            told |= self._arithmetic(row, reason in POINTS_STAND)
        if self._partner[row] < len(self._terms.partners):
            told["rejected"] = self._rejected(row)
        return told

    def _way(self, row: int) -> list[Condition]:
        """The conditions of the way on which it was, or was not, attributed."""
        if self._found.by_coupon[row]:
            consented = int(self._found.reason[row]) != TargetReason.NOT_A_MEMBER
            return [["a coupon issued to a member", "", True], ["consented", "", consented]]
        return self._click(row) if self._found.by_click[row] else self._match(row)

    def _click(self, row: int) -> list[Condition]:
        folds = self._folds
        found = bool(folds.click_found[row])
        conditions: list[Condition] = [["click is ours", Place("%s", "click"), found]]
        if not found:
            return conditions
        partner = folds.click_partner.text(row)
        conditions += [
            ["same partner", partner, partner == folds.partner.text(row)],
            self._window("clicked", row),
            ["visit unambiguous", "", not folds.visit_ambiguous[row]],
        ]
        if self._is_credited_elsewhere()[row]:
            conditions.append(["credited to", Place("%s", "credited"), True])
        if self._found.reason[row] == TargetReason.STOOD_DOWN:
            conditions.append(["no other affiliate", "", False])
        return conditions

    def _match(self, row: int) -> list[Condition]:
        folds = self._folds
        by_match = bool(self._found.by_match[row])
        conditions: list[Condition] = [["a click, or a shop that matches", "", by_match]]
        if not by_match:
            return conditions
        named, visited = (
            bool(is_set(column[row : row + 1])[0])
            for column in (folds.match_subscriber, folds.match_visit)
        )
        conditions.append(["member named", "", named])
        conditions.append(["visited before", Place("%s", "visit"), visited])
        if not visited:
            return conditions
        basis = int(folds.match_basis[row])
        return [
            *conditions,
            self._window("visited", row),
            ["consented", _word(Basis, basis), basis == Basis.CONSENTED],
            ["visit unambiguous", "", not folds.match_ambiguous[row]],
            ["no other affiliate", "", not folds.match_marked[row]],
        ]

    def _window(self, word: str, row: int) -> Condition:
        window_ns = int(self._terms.window_ns[self._contract[row]])
        value = Place(f"{word} %s, bought %s", word, "bought")
        return [f"within {_span(window_ns)}", value, bool(self._found.inside[row])]

    def _asked(self, row: int) -> tuple[Group, int] | None:
        """The group of a row and its place within; None where no rule was asked."""
        number = int(self._group[row])
        return None if number < 0 else (self._slots.groups[number], int(self._place[row]))

    def _checks(self, row: int) -> Iterator[Condition]:
        """The conditions of the rules asked."""
        asked = self._asked(row)
        if asked is None:
            return
        group, place = asked
        for check in group.checks:
            value: str | Place
            if check.asks == "tenure":
                value = Place("%s", "tenure")
            elif check.asks == "amount":
                value = Place("%s", f"amount.{check.slot}")
            else:
                of_member = getattr(self._standing, check.asks)
                value = of_member.text(row)
            rule = self._terms.accrual_list[group.rules[check.slot]].id
            yield [f"{rule}: {check.name}", value, bool(check.holds[place])]

    def _arithmetic(self, row: int, stand: bool) -> dict[str, Any]:
        """Sums, parts and limits."""
        asked = self._asked(row)
        assert asked is not None, "a contract and a rule"
        rules = [self._terms.accrual_list[number] for number in asked[0].rules]
        first = int(self._slots.start[row])
        why = self._slots.why[first : first + len(rules)].tolist()
        lead = asked[0].rules.index(int(self._rule[row]))
        currency = self._terms.contract_list[asked[0].contract].currency
        sums = {
            slot: sum_of(rule, slot, currency, *self._counted(row, first + slot, rule))
            for slot, rule in enumerate(rules)
            if why[slot] == Why.COUNTS or (slot == lead and why[slot] == Why.WORTHLESS)
        }
        told: dict[str, Any] = {"sum": sums.pop(lead)} if lead in sums else {}
        if sums:
            told["sums"] = list(sums.values())
        if stand and (len(rules) > 1 or rules[0].is_limited):
            kept = self._kept.points[first : first + len(rules)].tolist()
            told["parts"] = [
                [rule.id, Place("%d", f"kept.{slot}", bare=True)]
                for slot, rule in enumerate(rules)
                if kept[slot]
            ]
        return told | self._cuts(row, first, [rule.id for rule in rules])

    def _cuts(self, row: int, first: int, names: list[str]) -> dict[str, Any]:
        cut_by = self._kept.cut_by[first : first + len(names)].tolist()
        cuts = [
            [
                name,
                CUT_BY[cut_by[slot]],
                Place("%d", f"asked.{slot}", bare=True),
                Place("%d", f"kept.{slot}", bare=True),
            ]
            for slot, name in enumerate(names)
            if cut_by[slot]
        ]
        return {"limits": cuts} if cuts else {}

    def _counted(self, row: int, slot: int, rule: Accrual) -> tuple[int, bool]:
        """How many steps of its ladder a rule reached; does it count another amount than sent?"""
        amount = self._slots.amount[slot : slot + 1]
        scale = self._terms.scale_of(int(self._contract[row]))
        partly = int(amount[0]) != int(self._folds.amount_minor[row])
        return int(reached(rule, amount, scale)[0]), partly

    def _rejected(self, row: int) -> list[list[str]]:
        """Every rule of the partner that gives nothing, and why."""
        event_ns, kind = int(self._folds.event_ns[row]), self._folds.kind.text(row)
        accruals = self._terms.accrual_list
        asked = self._asked(row)
        became = {}
        if asked is not None:
            first = int(self._slots.start[row])
            why = self._slots.why[first : first + len(asked[0].rules)].tolist()
            became = dict(zip(asked[0].rules, why, strict=True))
        lead = int(self._rule[row])
        rejected = []
        for other in self._terms.partners[int(self._partner[row])].accruals:
            number = self._terms.number_of(other)
            if became.get(number) == Why.COUNTS or (
                number == lead and became.get(number, Why.WORTHLESS) == Why.WORTHLESS
            ):
                continue
            if other.action not in (kind, ANY):
                why_not = f"is for {other.action}"
            elif event_ns < other.valid_from_ns:
                why_not = f"begins {_shown_time(other.valid_from_ns)}"
            elif event_ns >= other.valid_until_ns:
                why_not = f"ended {_shown_time(other.valid_until_ns)}"
            elif number in became:
                why_not = UNUSED[Why(became[number])]
            else:
                name = accruals[lead].id if lead != self._terms.no_accrual else "another"
                why_not = f"{name} comes first"
            rejected.append([other.id, why_not])
        return rejected

    def _values(self, name: str, rows: np.ndarray) -> list[Any]:
        """What stands in a place, for rows that are alike."""
        name, _, place = name.partition(".")
        if place:
            return self._slot_values(name, int(place), rows)
        return VALUES[name](self, rows)

    def _slot_values(self, name: str, place: int, rows: np.ndarray) -> list[Any]:
        group = self._slots.groups[int(self._group[rows[0]])]
        at = self._slots.start[rows] + place
        rule = self._terms.accrual_list[group.rules[place]]
        scale = self._terms.scale_of(group.contract)
        if name == "amount":
            return shown_amounts(self._slots.amount[at], scale)
        if name in ("asked", "kept"):
            return list((self._slots if name == "asked" else self._kept).points[at].tolist())
        if name == "points":
            return shown_amounts(self._slots.points[at], self._points_scale)
        assert name == "exact"
        amount = self._slots.amount[at]
        steps = int(reached(rule, amount[:1], scale)[0])
        return exact_of(rule, amount, self._base(rows), scale, self._points_scale, steps)

    def _base(self, rows: np.ndarray) -> np.ndarray:
        """Points of the rule that multipliers multiply, for rows that are alike (int64)."""
        rules = self._slots.groups[int(self._group[rows[0]])].rules
        lead = int(self._rule[rows[0]])
        place = rules.index(lead)
        return np.asarray(self._slots.points[self._slots.start[rows] + place])

    def _sent(self, rows: np.ndarray) -> list[str]:
        scale = self._terms.scale_of(int(self._contract[rows[0]]))
        return shown_amounts(self._folds.amount_minor[rows], scale)

    def _tenure(self, rows: np.ndarray) -> list[str]:
        months = self._standing.tenure_months[rows].tolist()
        return [str(value) if value >= 0 else "unknown" for value in months]


# What stands in a place, by its name.
VALUES: Mapping[str, Callable[[Reasoning, np.ndarray], list[Any]]] = {
    "click": lambda told, rows: shown_ids(told._folds.click_id[rows]),
    "credited": lambda told, rows: shown_ids(told._found.click_id[rows]),
    "visit": lambda told, rows: shown_ids(told._folds.match_visit[rows]),
    "clicked": lambda told, rows: shown_times(told._folds.clicked_ns[rows]),
    "visited": lambda told, rows: shown_times(told._folds.match_visit_ns[rows]),
    "bought": lambda told, rows: shown_times(told._folds.event_ns[rows]),
    "due": lambda told, rows: shown_times(told._release_ns[rows]),
    "sent": Reasoning._sent,
    "tenure": Reasoning._tenure,
    "base": lambda told, rows: shown_amounts(told._base(rows), told._points_scale),
}
UNUSED = {
    Why.CONDITION: "a condition does not hold",
    Why.SILENCED: "a rule before it stands alone",
    Why.BEATEN: "another of its group gives more",
    Why.WORTHLESS: "worth no point",
}


def reached(rule: Accrual, amount: np.ndarray, scale: int) -> np.ndarray:
    """How many steps of its ladder each amount reaches (int64); 0 without a ladder."""
    if not rule.steps or rule.ladder == "slices":
        return np.zeros(len(amount), np.int64)
    starts = np.array([-(-step.start * 10**scale // 1) for step in rule.steps], np.int64)
    return np.asarray(np.searchsorted(starts, np.maximum(amount, 0), side="right"))


def told(explanation: str) -> list[str]:
    """An explanation as lines for people; empty where there is none."""
    if not explanation:
        return []
    found = json.loads(explanation)
    lines = [
        f"{'yes' if holds else 'NO '}  {name}{f': {value}' if value else ''}"
        for name, value, holds in found["conditions"]
    ]
    sums = ([found["sum"]] if "sum" in found else []) + found.get("sums", [])
    lines += [f"sum  {one}" for one in sums]
    lines += [
        f"cut  {rule}: {what}: {asked} -> {kept}"
        for rule, what, asked, kept in found.get("limits", ())
    ]
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


def _span(span_ns: int) -> str:
    """A length of time in the largest unit that divides it."""
    unit_ns, word = next(((ns, w) for ns, w in SPANS if span_ns % ns == 0), (1, "nanoseconds"))
    return f"{span_ns // unit_ns} {word}"


def _word(words: type[IntEnum], number: int) -> str:
    return next((w.name.lower() for w in words if w == number), "unknown")


def _shown_time(value_ns: int) -> str:
    return show_time(value_ns) if 0 < value_ns < END_OF_TIME else "never"
