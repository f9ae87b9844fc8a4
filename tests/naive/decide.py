"""Decisions, one visit at a time, as a person would read the rules aloud."""

from __future__ import annotations

from typing import Any

from pipeline.model.batches import VisitBatch
from pipeline.model.words import Basis, Reason, VisitTrigger
from pipeline.rulebook.model import Rulebook

GIVES_LINKS = {"deeplink", "param"}


def decide(visits: VisitBatch, rulebook: Rulebook, treated: bool = True) -> list[dict[str, Any]]:
    """Visit, version, reason and time of each decision that is due, in order."""
    decided = []
    for row in range(len(visits)):
        documents = int(visits.documents[row])
        trigger = VisitTrigger(int(visits.trigger[row]))
        if trigger is VisitTrigger.OPENED and documents == 0:
            continue
        if trigger in (VisitTrigger.MARKED, VisitTrigger.PAUSED):
            continue
        if trigger is VisitTrigger.CLOSED and documents:
            continue
        when = int(visits.document_ns[row]) if documents else int(visits.last_ns[row])
        decided.append(
            {
                "visit_id": bytes(visits.visit_id[row]),
                "version": int(visits.version[row]),
                "reason": _reason(visits, row, when, rulebook, treated),
                "when": when,
            }
        )
    return decided


def _reason(visits: VisitBatch, row: int, when: int, rulebook: Rulebook, treated: bool) -> Reason:
    partner = rulebook.partner(visits.partner.text(row))
    contract = partner.contract_at(when) if partner else None
    if partner is None or contract is None or partner.status != "live":
        return Reason.PARTNER_NOT_LIVE
    basis = int(visits.basis[row])
    if basis not in (Basis.CONSENTED, Basis.LISTED):
        return Reason.NOT_ALLOWED
    if visits.ambiguous[row]:
        return Reason.AMBIGUOUS
    if not contract.referral:
        return Reason.NO_REFERRAL
    if contract.click_delivery == "match":
        return Reason.MATCHED_BY_SHOP
    if contract.click_delivery not in GIVES_LINKS:
        return Reason.NO_DELIVERY
    if visits.tracker_ns[row] or visits.mark[row]:
        return Reason.STOOD_DOWN
    if not visits.documents[row]:
        return Reason.NO_DOCUMENT if visits.http[row] else Reason.ENCRYPTED
    if not treated:
        return Reason.HOLDOUT
    return Reason.MEMBER_DOCUMENT if basis == Basis.CONSENTED else Reason.LISTED_DOCUMENT
