"""Evidence for tests of score, made from dicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.model.evidence import Evidence, FraudFeatures, ReviewBatch, TouchBatch
from pipeline.model.words import FraudOutcome
from pipeline.rulebook.fraud import DEFAULTS, INSIDER, SPENDING
from pipeline.rulebook.model import Rulebook, files_hash
from pipeline.rulebook.policies import FraudCode, FraudPolicy
from tests.score.making import NOON, an_id, make

# Of a member who clicked, looked around and bought: nothing speaks against it.
HONEST = {"conversion_key": "key", "traffic_ns": NOON - 60 * 10**9, "clicks_hour": 1}


def evidence(*rows: dict[str, Any]) -> Evidence:
    """Evidence by row: figures by name, `verdict`, `actor`, `reason`, `touches` and `standing`."""
    features: FraudFeatures = make(FraudFeatures, list(rows), HONEST)
    reviews: ReviewBatch = make(ReviewBatch, list(rows), {"decided_ns": NOON})
    clicks = [
        {"row": row, **click}
        for row, known in enumerate(rows)
        for click in known.get("touches", ())
    ]
    touches: TouchBatch = make(TouchBatch, clicks, {"channel": "redirect"})
    standing = {an_id(who): facts for known in rows for who, facts in known.get("standing", ())}
    return Evidence(features, reviews, touches, standing)


def a_policy(limit: int = 100, hold_ns: int = 30 * 86_400 * 10**9, **codes: Any) -> FraudPolicy:
    """The usual codes; one given as a dict differs in these fields, given as None it is off."""
    chosen = []
    for usual in DEFAULTS:
        change = codes.get(usual.code, {})
        change = {"weight": 0} if change is None else change
        outcome = FraudOutcome[change.get("outcome", usual.outcome.name).upper()]
        bounds = {name: change.get(name, value) for name, value in usual.bounds.items()}
        chosen.append(FraudCode(usual.code, change.get("weight", usual.weight), outcome, bounds))
    return FraudPolicy(limit, hold_ns, tuple(chosen), SPENDING, INSIDER)


def with_fraud(rulebook: Rulebook, policy: FraudPolicy | None = None) -> Rulebook:
    """A rulebook whose policy asks for a fraud score; its hash is another."""
    policy = policy or a_policy()
    files = {**rulebook.files, "fraud.toml": repr(policy)}
    return replace(
        rulebook,
        hash=files_hash(files),
        files=files,
        policy=replace(rulebook.policy, fraud=policy),
    )
