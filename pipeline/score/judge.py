"""Whose a sale is and what speaks against it, by all that is known beside its fold.

Rating attributes by the fold alone; this adds what the evidence of the cut changes in that: the
click that the contract's model credits, coupons, other affiliates (`models.py`), then the fraud
codes and what people decided (`fraud.py`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.model.batches import FoldBatch
from pipeline.model.evidence import Evidence
from pipeline.model.words import TargetReason
from pipeline.rulebook.model import Rulebook
from pipeline.score.attribute import Attribution
from pipeline.score.fraud import Screening, screen
from pipeline.score.models import credited
from pipeline.score.terms import Terms


class Judged(NamedTuple):
    """By row: whose it is, how much longer it waits (int64), and what is to be told of it."""

    found: Attribution
    longer_ns: np.ndarray
    told: list[dict[str, Any]]
    screening: Screening | None

    def applied(self, reason: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The reasons (uint8) with what the fraud codes and people make of them.

        `points` is what each conversion would be worth: who reviews it wants to know.
        """
        if self.screening is None:
            return reason
        for row in np.flatnonzero(self.screening.score).tolist():
            self.told[row]["fraud"]["points"] = int(points[row])
        return self.screening.applied(reason)

    def comes_due(self, reason: np.ndarray) -> np.ndarray:
        """Does time alone change anything? (bool) What waits for a person does not come due."""
        return np.asarray(reason != TargetReason.FRAUD_REVIEW)


def judge(
    folds: FoldBatch,
    found: Attribution,
    evidence: Evidence | None,
    rulebook: Rulebook,
    terms: Terms,
    partner: np.ndarray,
    contract: np.ndarray,
) -> Judged:
    """Judge conversions by their evidence; without any, they are as attributed.

    `partner` and `contract` are their numbers in `terms`.
    """
    rows = len(folds)
    if evidence is None:
        return Judged(found, np.zeros(rows, np.int64), [{} for _ in range(rows)], None)
    partners, contracts = [*terms.partners, None], [*terms.contract_list, None]
    agreed = [contracts[n] for n in contract.tolist()]
    credit = credited(folds, found, evidence, agreed, rulebook.policy.shares)
    screening = screen(
        folds,
        credit.found,
        evidence,
        rulebook.policy.fraud,
        [partners[n] for n in partner.tolist()],
        agreed,
    )
    told = [own | more for own, more in zip(screening.told, credit.told, strict=True)]
    return Judged(credit.found, screening.longer_ns, told, screening)
