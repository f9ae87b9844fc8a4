"""Visits become decisions: what we do about a visit, exactly once, and why.

Given versions of visits, `Decide` waits for nothing and remembers nothing: a visit is decided at
the version in which its first plain-HTTP document appears (OPENED with a document, or DOCUMENT),
or, if it never had one, at CLOSED. Enrich writes exactly one such version from the opening of a
visit to its close. Where packets come again it may open once more; `decided.py` keeps that from
being decided a second time. Only plain HTTP can be redirected; what was encrypted is decided too,
because "why did I get nothing" deserves an answer.

The first reason of this list that holds is the reason:

    PARTNER_NOT_LIVE   the partner is not live, or no contract of it holds at that time
    NOT_ALLOWED        the subscriber is neither consented nor listed
    AMBIGUOUS          the address changed hands around that time
    NO_REFERRAL        the contract does not allow it
    MATCHED_BY_SHOP    the shop tells us who bought
    NO_DELIVERY        the contract names no way to hand out a link
    STOOD_DOWN         another affiliate brought the visit
    ENCRYPTED          there was nothing but encrypted sessions
    NO_DOCUMENT        plain HTTP, but never a document
    HOLDOUT            the experiment's untreated cell
    MEMBER_DOCUMENT    consented: a click arises
    LISTED_DOCUMENT    listed: would be offered the programme

The cell of an experiment is a keyed hash of subscriber and experiment, so it never changes and
nobody can work it out without the key. Ids of decisions and clicks are keyed hashes of their cause;
a click id has a key of its own, because whoever could guess one could claim somebody's purchase.

Whole columns at a time; 100,000 visits take about two tenths of a second, most of it texts.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.hashing import siphash128_words
from pipeline.model.batches import ClickBatch, DecisionBatch, VisitBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, id_words, ids, no_ids
from pipeline.model.identifiers import Keys, digest, words_of
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, Decision, Delivery, Reason, VisitTrigger
from pipeline.rulebook.model import Rulebook
from pipeline.score.terms import Terms

STAGE = "score"
CONTROL, TREATED = "control", "treated"
CHANNEL = "redirect"
DECISION_TAG = np.frombuffer(b"decision", np.uint64)[0]
CLICK_TAG = np.frombuffer(b"click\0\0\0", np.uint64)[0]


class Decide:
    """Decides visits under one rulebook. Holds no state."""

    def __init__(self, rulebook: Rulebook, keys: Keys) -> None:
        self._rulebook = rulebook
        self._terms = Terms(rulebook.partners)
        self._visit_key, self._click_key = words_of(keys.visit), words_of(keys.click)
        experiment = rulebook.policy.experiment
        self._experiment = experiment.name
        self._experiment_id = id_words(
            ids([digest(keys.visit, "experiment", experiment.name, experiment.seed)])
        )
        self._control_below = np.uint64(int(experiment.holdout * 2**63))

    def push(self, visits: VisitBatch, tally: Tally) -> tuple[DecisionBatch, ClickBatch]:
        """Decide what is due among these versions, in their order."""
        visits = visits.take(is_due(visits))
        rows = len(visits)
        decided_ns = np.where(visits.documents > 0, visits.document_ns, visits.last_ns)
        partner = self._terms.partner_numbers(visits.partner)
        contract = self._terms.contract_numbers(partner, decided_ns)
        control = self._in_control(visits.subscriber_id)
        reason = self._reasons(visits, partner, contract, control)
        kind = np.full(rows, Decision.NONE, np.uint8)
        kind[reason == Reason.MEMBER_DOCUMENT] = Decision.PASS_WITH_CLICK
        kind[reason == Reason.LISTED_DOCUMENT] = Decision.OFFER
        decision_id = _hashed(self._visit_key, DECISION_TAG, visits.visit_id)
        clicked = kind == Decision.PASS_WITH_CLICK
        click_id = no_ids(rows)
        click_id[clicked] = _hashed(self._click_key, CLICK_TAG, decision_id[clicked])
        decisions = DecisionBatch(
            decision_id=decision_id,
            visit_id=visits.visit_id,
            visit_version=visits.version,
            subscriber_id=visits.subscriber_id,
            partner=visits.partner,
            kind=kind,
            reason=reason,
            experiment=TextColumn.repeat(self._experiment, rows),
            cell=self._cells(control),
            decided_ns=decided_ns,
            click_id=click_id,
            rule_version=self._terms.version[partner],
            policy_version=ids([self._rulebook.policy.version] * rows),
            rulebook_hash=ids([self._rulebook.hash] * rows),
        )
        counts = np.bincount(reason, minlength=1)
        for value in np.flatnonzero(counts).tolist():
            tally.add(STAGE, f"decision:{Reason(value).name.lower()}", int(counts[value]))
        return decisions, self._clicks(visits, decisions, contract, clicked)

    def _reasons(
        self, visits: VisitBatch, partner: np.ndarray, contract: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        """The first reason that holds, for each row (uint8)."""
        terms = self._terms
        member = visits.basis == Basis.CONSENTED
        listed = visits.basis == Basis.LISTED
        marked = (visits.tracker_ns > 0) | (np.diff(visits.mark.offsets) > 0)
        off = ~terms.live[partner] | (contract == terms.no_contract)
        plain = visits.http > 0
        ladder = [
            (off, Reason.PARTNER_NOT_LIVE),
            (~(member | listed), Reason.NOT_ALLOWED),
            (visits.ambiguous > 0, Reason.AMBIGUOUS),
            (~terms.referral[contract], Reason.NO_REFERRAL),
            (terms.matched[contract], Reason.MATCHED_BY_SHOP),
            (~terms.linked[contract], Reason.NO_DELIVERY),
            (marked, Reason.STOOD_DOWN),
            ((visits.documents == 0) & ~plain, Reason.ENCRYPTED),
            (visits.documents == 0, Reason.NO_DOCUMENT),
            (control, Reason.HOLDOUT),
            (member, Reason.MEMBER_DOCUMENT),
        ]
        reasons = np.full(len(visits), Reason.LISTED_DOCUMENT, np.uint8)
        for holds, reason in reversed(ladder):
            reasons[holds] = reason
        return reasons

    def _clicks(
        self, visits: VisitBatch, decisions: DecisionBatch, contract: np.ndarray, rows: np.ndarray
    ) -> ClickBatch:
        visits, decisions, contract = visits.take(rows), decisions.take(rows), contract[rows]
        count = len(visits)
        return ClickBatch(
            click_id=decisions.click_id,
            decision_id=decisions.decision_id,
            visit_id=visits.visit_id,
            subscriber_id=visits.subscriber_id,
            partner=visits.partner,
            channel=TextColumn.repeat(CHANNEL, count),
            delivery=np.full(count, Delivery.UNPROVEN, np.uint8),
            clicked_ns=decisions.decided_ns,
            terms=self._terms.terms.take(contract),
            contract_version=self._terms.contract_version.take(contract),
            source_id=visits.source_id,
            flow_id=visits.document_flow_id,
            packet_number=visits.document_packet,
            rule_version=decisions.rule_version,
            rulebook_hash=decisions.rulebook_hash,
        )

    def _in_control(self, subscriber_id: np.ndarray) -> np.ndarray:
        """Is the subscriber in the untreated cell? By the upper 63 bits of a keyed hash."""
        words = np.empty((len(subscriber_id), 4), np.uint64)
        words[:, :2] = self._experiment_id
        words[:, 2:] = id_words(subscriber_id)
        out = np.empty((len(words), 2), np.uint64)
        siphash128_words(self._visit_key[0], self._visit_key[1], words, out)
        return (out[:, 0] >> np.uint64(1)) < self._control_below

    def _cells(self, control: np.ndarray) -> TextColumn:
        if not self._experiment:
            return TextColumn.repeat("", len(control))
        return TextColumn.of([TREATED, CONTROL]).take(control.astype(np.int64))


def is_due(visits: VisitBatch) -> np.ndarray:
    """Is this the version at which its visit is decided? (bool, one per row)"""
    with_document = visits.documents > 0
    due: np.ndarray = (
        ((visits.trigger == VisitTrigger.OPENED) & with_document)
        | (visits.trigger == VisitTrigger.DOCUMENT)
        | ((visits.trigger == VisitTrigger.CLOSED) & ~with_document)
    )
    return due


def _hashed(key: np.ndarray, tag: np.uint64, cause: np.ndarray) -> np.ndarray:
    """An ID column: the keyed hash of a tag and each id of `cause`."""
    words = np.empty((len(cause), 3), np.uint64)
    words[:, 0] = tag
    words[:, 1:] = id_words(cause)
    out = np.empty((len(cause), 2), np.uint64)
    siphash128_words(key[0], key[1], words, out)
    return out.view(ID_DTYPE).reshape(-1)
