"""Partners, their dated contracts and accruals as columns, so that rules are asked for whole
columns.

A number says which partner, contract or accrual a row falls under. The last row of every column
stands for "none", so a row that has none can be asked like any other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.model.columns import TextColumn, ids
from pipeline.model.identifiers import NO_ID
from pipeline.model.money import CURRENCY_SCALE
from pipeline.rulebook.model import (
    Accrual,
    Contract,
    Partner,
    Policy,
    Programme,
    later_terms,
    version_of,
)
from pipeline.rulebook.policies import USUAL_SHARES

LIVE = "live"
ANY, SALE = "any", "sale"
MATCH = "match"
POSITION = "position"
LINKS = ("deeplink", "param")


class Plays(NamedTuple):
    """Who plays a part: `number` says which of `sets` a row has (int64).

    A set holds accrual numbers in the order in which they are asked, the first plain one and all
    that stack; it is empty where there is none to start from. Rows with the same number are of one
    partner and action, at times between which no accrual of the partner begins or ends.
    """

    number: np.ndarray
    sets: list[tuple[int, ...]]


class Terms:
    """The terms of all partners of one rulebook."""

    def __init__(self, partners: tuple[Partner, ...]) -> None:
        self.partners = partners
        self.contract_list: list[Contract] = [c for p in partners for c in p.contracts]
        self.accrual_list: list[Accrual] = [a for p in partners for a in p.accruals]
        self._number_of = {id(a): i for i, a in enumerate(self.accrual_list)}
        self._partner_of = {id(c): p for p in partners for c in p.contracts}
        self._number = {p.id: i for i, p in enumerate(partners)}
        self._usual = [*map(_usual_action, partners), ""]
        contracts = self.contract_list
        delivery = [c.click_delivery for c in contracts]
        self.live = np.array([*(p.status == LIVE for p in partners), False])
        self.version = ids([*(p.version for p in partners), NO_ID])
        self.no_contract = len(contracts)
        self.referral = np.array([*(c.referral for c in contracts), False])
        self.linked = np.array([*(d in LINKS for d in delivery), False])
        self.matched = np.array([*(d == MATCH for d in delivery), False])
        self.terms = TextColumn.of([*(c.terms for c in contracts), ""])
        self.contract_version = TextColumn.of([*(c.version for c in contracts), ""])
        self.currency = TextColumn.of([*(c.currency for c in contracts), ""])
        self.window_ns = _whole([*(c.attribution_window_ns for c in contracts), 0])
        self.hold_ns = _whole([*(c.return_window_ns for c in contracts), 0])
        self.no_accrual = len(self.accrual_list)
        self.rule_id = TextColumn.of([*(a.id for a in self.accrual_list), ""])
        self.rule_version = ids([*(a.version for a in self.accrual_list), NO_ID])

    def partner_numbers(self, partner: TextColumn) -> np.ndarray:
        """The number of each row's partner (int64)."""
        names, number = partner.numbered()
        found = _whole([*(self._number.get(n, len(self.partners)) for n in names), 0])
        return np.asarray(found[number])

    def contract_numbers(self, partner: np.ndarray, when: np.ndarray) -> np.ndarray:
        """The number of the contract in force, by partner number and time (int64)."""
        found = np.full(len(partner), self.no_contract, np.int64)
        number = 0
        for which, terms in enumerate(self.partners):
            mine = partner == which
            for contract in terms.contracts:
                inside = (contract.valid_from_ns <= when) & (when < contract.valid_until_ns)
                found[mine & inside & (found == self.no_contract)] = number
                number += 1
        return found

    def kinds(self, partner: np.ndarray, kind: TextColumn) -> TextColumn:
        """What was done, by partner number; where no message says it, what is usual there."""
        said, number = kind.numbered()
        own = np.array([bool(text) for text in said] or [False])[number]
        place = np.where(own, number + len(self._usual), partner)
        return TextColumn.of([*self._usual, *said]).take(place)

    def plays(self, partner: np.ndarray, kind: TextColumn, when: np.ndarray) -> Plays:
        """Which accruals may make up each conversion's worth.

        Between two dates at which an accrual of the partner begins or ends the answer is the same.
        """
        kinds, kind_number = kind.numbered()
        moment = np.zeros(len(partner), np.int64)
        for which in np.unique(partner[partner < len(self.partners)]).tolist():
            mine = np.flatnonzero(partner == which)
            dates = {d for a in self.partners[which].accruals for d in _dates(a)}
            moment[mine] = np.searchsorted(_whole(sorted(dates)), when[mine], side="right")
        widest = int(moment.max(initial=0)) + 1
        code = (partner * len(kinds) + kind_number) * widest + moment
        _, first, number = np.unique(code, return_index=True, return_inverse=True)
        sets = [
            self._candidates(int(partner[row]), kinds[kind_number[row]], int(when[row]))
            for row in first.tolist()
        ]
        return Plays(number.astype(np.int64).reshape(-1), sets)

    def _candidates(self, partner: int, kind: str, when: int) -> tuple[int, ...]:
        if partner == len(self.partners):
            return ()
        rules = self.partners[partner].candidates_at(kind, when)
        if all(rule.multiplies for rule in rules):
            return ()  # nothing there to multiply
        return tuple(self.number_of(rule) for rule in rules)

    def number_of(self, accrual: Accrual) -> int:
        """The number of an accrual of one of the partners."""
        return self._number_of[id(accrual)]

    def hashes(
        self,
        programme: Programme,
        contract: np.ndarray,
        plays: Plays,
        policy: Policy | None = None,
    ) -> np.ndarray:
        """By row, a hash of all beside the rule that decides a conversion's worth (ID).

        Dates are left out: ending a contract changes nothing for what came before. Rules that stand
        beside each other are all in it, whichever of them counted: a rulebook that adds one says
        something else of every conversion that it might be for.
        """
        code = contract * (len(plays.sets) + 1) + plays.number
        _, first, number = np.unique(code, return_index=True, return_inverse=True)
        found = [
            self._hash_of(int(contract[row]), plays.sets[plays.number[row]], programme, policy)
            for row in first.tolist()
        ]
        return ids(found)[number.reshape(-1)]

    def _hash_of(
        self, contract: int, rules: tuple[int, ...], programme: Programme, policy: Policy | None
    ) -> bytes:
        if contract == self.no_contract:
            return NO_ID
        agreed = self.contract_list[contract]
        content = _content(agreed, programme)
        accruals = [self.accrual_list[number] for number in rules]
        if len(accruals) > 1:
            content["rules"] = [accrual.version.hex() for accrual in accruals]
        if any(accrual.is_limited or accrual.when.asks_member for accrual in accruals):
            content["timezone"] = programme.timezone
        # What earlier rulebooks could not say is left out where nothing is said: they stay equal.
        content |= later_terms(agreed)
        if policy is not None and policy.fraud.codes:
            insiders = sorted(who.hex() for who in self._partner_of[id(agreed)].insiders)
            content["fraud"] = [policy.fraud.content(), insiders]
        shares = policy.shares if policy is not None else USUAL_SHARES
        if agreed.attribution == POSITION and shares != USUAL_SHARES:
            content["position"] = shares.content()
        return version_of("terms", content)

    def scale_of(self, contract: int) -> int:
        """The decimals of a contract's currency."""
        return CURRENCY_SCALE[self.contract_list[contract].currency]


def _usual_action(partner: Partner) -> str:
    """The only action the partner rewards, else a sale."""
    actions = {accrual.action for accrual in partner.accruals}
    return actions.pop() if len(actions) == 1 and ANY not in actions else SALE


def _content(contract: Contract, programme: Programme) -> dict[str, object]:
    return {
        "version": contract.version,
        "match": contract.click_delivery == MATCH,
        "attribution_window_ns": contract.attribution_window_ns,
        "return_window_ns": contract.return_window_ns,
        "currency": contract.currency,
        "commission": contract.commission,
        "commission_fixed": contract.commission_fixed,
        "issue_price": programme.issue_price,
    }


def _dates(accrual: Accrual) -> tuple[int, int]:
    return accrual.valid_from_ns, accrual.valid_until_ns


def _whole(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)
