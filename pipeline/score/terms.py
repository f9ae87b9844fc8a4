"""Partners, their dated contracts and accruals as columns, so that rules are asked for whole
columns.

A number says which partner, contract or accrual a row falls under. The last row of every column
stands for "none", so a row that has none can be asked like any other.
"""

from __future__ import annotations

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
from pipeline.rulebook.policies import NO_FRAUD, USUAL_SHARES, FraudPolicy, Shares

LIVE = "live"
ANY, SALE = "any", "sale"
MATCH = "match"
POSITION = "position"
LINKS = ("deeplink", "param")


class Terms:
    """The terms of all partners of one rulebook."""

    def __init__(self, partners: tuple[Partner, ...]) -> None:
        self.partners = partners
        self.contract_list: list[Contract] = [c for p in partners for c in p.contracts]
        self.accrual_list: list[Accrual] = [a for p in partners for a in p.accruals]
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
        found = (self._number.get(name, len(self.partners)) for name in partner.to_list())
        return np.fromiter(found, np.int64, len(partner))

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
        pairs = zip(partner.tolist(), kind.to_list(), strict=True)
        return TextColumn.of(said or self._usual[which] for which, said in pairs)

    def accrual_numbers(
        self, partner: np.ndarray, kind: TextColumn, when: np.ndarray
    ) -> np.ndarray:
        """The number of the accrual that rates a conversion (int64).

        Of those in force one that names the action comes before one for any, then the earlier in
        the file.
        """
        found = np.full(len(partner), self.no_accrual, np.int64)
        kinds = np.array(kind.to_list(), dtype=np.str_)
        for general in (False, True):
            number = 0
            for which, terms in enumerate(self.partners):
                mine = partner == which
                for accrual in terms.accruals:
                    if (accrual.action == ANY) is general:
                        fits = mine & (found == self.no_accrual)
                        fits &= (accrual.valid_from_ns <= when) & (when < accrual.valid_until_ns)
                        if not general:
                            fits &= kinds == accrual.action
                        found[fits] = number
                    number += 1
        return found

    def hashes(self, programme: Programme, policy: Policy | None = None) -> np.ndarray:
        """By contract, a hash of all beside the accrual that decides a conversion's worth (ID).

        Dates are left out: ending a contract changes nothing for what came before.
        """
        fraud, shares = (policy.fraud, policy.shares) if policy else (NO_FRAUD, USUAL_SHARES)
        pairs = [(p, c) for p in self.partners for c in p.contracts]
        return ids([*(_hash_of(p, c, programme, fraud, shares) for p, c in pairs), NO_ID])

    def scale_of(self, contract: int) -> int:
        """The decimals of a contract's currency."""
        return CURRENCY_SCALE[self.contract_list[contract].currency]


def _usual_action(partner: Partner) -> str:
    """The only action the partner rewards, else a sale."""
    actions = {accrual.action for accrual in partner.accruals}
    return actions.pop() if len(actions) == 1 and ANY not in actions else SALE


def _hash_of(
    partner: Partner,
    contract: Contract,
    programme: Programme,
    fraud: FraudPolicy,
    shares: Shares,
) -> bytes:
    content: dict[str, object] = {
        "version": contract.version,
        "match": contract.click_delivery == MATCH,
        "attribution_window_ns": contract.attribution_window_ns,
        "return_window_ns": contract.return_window_ns,
        "currency": contract.currency,
        "commission": contract.commission,
        "commission_fixed": contract.commission_fixed,
        "issue_price": programme.issue_price,
    }
    # What earlier rulebooks could not say is left out where nothing is said: they stay equal.
    content |= later_terms(contract)
    if fraud.codes:
        insiders = sorted(who.hex() for who in partner.insiders)
        content["fraud"] = [fraud.content(), insiders]
    if contract.attribution == POSITION and shares != USUAL_SHARES:
        content["position"] = shares.content()
    return version_of("terms", content)


def _whole(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)
