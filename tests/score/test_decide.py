"""Decisions: exactly one per visit, the right reason, clicks only where a link is handed out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.batches import ClickBatch, DecisionBatch, VisitBatch
from pipeline.model.columns import columns_of, concat
from pipeline.model.identifiers import Keys
from pipeline.model.tally import Tally
from pipeline.model.words import Decision, Reason, VisitTrigger
from pipeline.rulebook.model import Rulebook
from pipeline.score.decide import CONTROL, TREATED, Decide
from tests.naive.decide import decide as naive
from tests.score.making import (
    DAY_NS,
    KEYS,
    NOON,
    a_contract,
    a_partner,
    a_rulebook,
    an_id,
    visits,
)

RULES = a_rulebook(
    a_partner("acme-shop"),
    a_partner("books", click_delivery="match"),
    a_partner("closed", status="paused"),
    a_partner("delta", referral=False, click_delivery="none"),
    a_partner("mute", click_delivery="none"),
    a_partner("param", click_delivery="param"),
    a_partner(
        "changing",
        contracts=(
            a_contract(version="old", valid_until_ns=NOON, referral=False),
            a_contract(version="new", valid_from_ns=NOON, valid_until_ns=NOON + DAY_NS),
        ),
    ),
)
PARTNERS = (*(p.id for p in RULES.partners), "nobody")


def push(
    batch: VisitBatch, rulebook: Rulebook = RULES, keys: Keys = KEYS
) -> tuple[DecisionBatch, ClickBatch]:
    return Decide(rulebook, keys).push(batch, Tally())


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({}, Decision.PASS_WITH_CLICK, Reason.MEMBER_DOCUMENT),
        ({"partner": "param"}, Decision.PASS_WITH_CLICK, Reason.MEMBER_DOCUMENT),
        ({"basis": 1}, Decision.OFFER, Reason.LISTED_DOCUMENT),
        ({"basis": 3}, Decision.NONE, Reason.NOT_ALLOWED),
        ({"basis": 4}, Decision.NONE, Reason.NOT_ALLOWED),
        ({"basis": 0}, Decision.NONE, Reason.NOT_ALLOWED),
        ({"ambiguous": 1}, Decision.NONE, Reason.AMBIGUOUS),
        ({"partner": "delta"}, Decision.NONE, Reason.NO_REFERRAL),
        ({"partner": "books"}, Decision.NONE, Reason.MATCHED_BY_SHOP),
        ({"partner": "mute"}, Decision.NONE, Reason.NO_DELIVERY),
        ({"partner": "closed"}, Decision.NONE, Reason.PARTNER_NOT_LIVE),
        ({"partner": "nobody"}, Decision.NONE, Reason.PARTNER_NOT_LIVE),
        ({"tracker_ns": NOON - 1, "tracker": "affiliate"}, Decision.NONE, Reason.STOOD_DOWN),
        ({"mark": "awc"}, Decision.NONE, Reason.STOOD_DOWN),
        ({"partner": "changing", "document_ns": NOON - 1}, Decision.NONE, Reason.NO_REFERRAL),
        ({"partner": "changing"}, Decision.PASS_WITH_CLICK, Reason.MEMBER_DOCUMENT),
        (
            {"partner": "changing", "document_ns": NOON + DAY_NS},
            Decision.NONE,
            Reason.PARTNER_NOT_LIVE,
        ),
        ({"trigger": 5, "documents": 0}, Decision.NONE, Reason.NO_DOCUMENT),
        ({"trigger": 5, "documents": 0, "http": 0, "tls": 2}, Decision.NONE, Reason.ENCRYPTED),
    ],
)
def test_reason(changes: dict, kind: Decision, reason: Reason) -> None:
    decisions, clicks = push(visits(changes))
    assert decisions.kind.tolist() == [kind]
    assert decisions.reason.tolist() == [reason]
    assert len(clicks) == (kind is Decision.PASS_WITH_CLICK)


def test_a_click_carries_its_cause() -> None:
    decisions, clicks = push(visits({"document_ns": NOON + 5, "document_packet": 9, "version": 2}))
    assert clicks.click_id[0] == decisions.click_id[0]
    assert clicks.decision_id[0] == decisions.decision_id[0]
    assert clicks.visit_id[0].tobytes() == an_id("visit 0")
    assert clicks.subscriber_id[0].tobytes() == an_id("ann")
    assert clicks.clicked_ns[0] == decisions.decided_ns[0] == NOON + 5
    assert (clicks.packet_number[0], clicks.delivery[0]) == (9, 0)
    assert (clicks.terms.text(0), clicks.contract_version.text(0)) == ("terms-1", "c-1")
    assert clicks.rule_version[0].tobytes() == RULES.partners[0].version
    assert decisions.rulebook_hash[0].tobytes() == RULES.hash
    assert decisions.policy_version[0].tobytes() == RULES.policy.version


def test_ids_follow_the_keys() -> None:
    batch = visits({}, {"partner": "param"})
    here, there = push(batch)[0], push(batch, keys=Keys.from_seed("other"))[0]
    again = push(batch)[0]
    for name in ("decision_id", "click_id"):
        mine, others = getattr(here, name), getattr(there, name)
        assert mine.tobytes() == getattr(again, name).tobytes()
        assert not np.any(mine == others)
        assert mine[0] != mine[1]
    assert not np.any(here.click_id == here.decision_id)


def test_no_visit_gives_no_rows() -> None:
    decisions, clicks = push(visits())
    assert (len(decisions), len(clicks)) == (0, 0)


def test_counts_decisions_by_reason() -> None:
    tally = Tally()
    Decide(RULES, KEYS).push(visits({}, {}, {"ambiguous": 1}, {"trigger": 3}), tally)
    assert tally.as_dict() == {
        "score": {"decision:member_document": 2, "decision:ambiguous": 1},
    }


@pytest.mark.parametrize("share", [Fraction(0), Fraction(1, 4), Fraction(1)])
def test_holdout_takes_its_share_of_subscribers(share: Fraction) -> None:
    count = 2000
    batch = visits(*({"subscriber_id": f"member {n}"} for n in range(count)))
    decisions, clicks = push(batch, a_rulebook(holdout=share))
    held = decisions.reason == Reason.HOLDOUT
    assert abs(held.sum() - count * share) <= 4 * (count * share * (1 - share)) ** 0.5
    assert len(clicks) == count - held.sum()
    assert decisions.cell.to_list() == [CONTROL if h else TREATED for h in held]
    assert set(decisions.experiment.to_list()) == {"first-offer"}


def test_a_subscriber_stays_in_one_cell() -> None:
    batch = visits(*({"subscriber_id": "ann", "partner": p} for p in PARTNERS))
    decisions, _ = push(batch, a_rulebook(*RULES.partners, holdout=Fraction(1, 2)))
    assert len(set(decisions.cell.to_list())) == 1


# A life of a visit as enrich may write it: opened, perhaps documented, marked and paused any number
# of times, closed at the end of the input.
life = st.fixed_dictionaries(
    {
        "opened_with_document": st.booleans(),
        "document_at": st.none() | st.integers(1, 6),
        "between": st.lists(
            st.sampled_from([VisitTrigger.MARKED, VisitTrigger.PAUSED]), max_size=6
        ),
        "partner": st.sampled_from(PARTNERS),
        "basis": st.integers(0, 4),
        "ambiguous": st.integers(0, 1),
        "http": st.integers(0, 1),
        "marked": st.booleans(),
        "when": st.integers(NOON - 2 * DAY_NS, NOON + 2 * DAY_NS),
    }
)


def versions(number: int, drawn: dict) -> list[dict]:
    triggers = [VisitTrigger.OPENED, *drawn["between"]]
    documented = 0 if drawn["opened_with_document"] else None
    if documented is None and drawn["document_at"] is not None:
        documented = min(drawn["document_at"], len(triggers))
        triggers.insert(documented, VisitTrigger.DOCUMENT)
    triggers.append(VisitTrigger.CLOSED)
    return [
        {
            "visit_id": f"visit {number}",
            "version": version + 1,
            "trigger": trigger,
            "documents": int(documented is not None and version >= documented),
            "document_ns": drawn["when"] if documented is not None else 0,
            "last_ns": drawn["when"] + version,
            "http": drawn["http"],
            "mark": "awc" if drawn["marked"] else "",
            **{name: drawn[name] for name in ("partner", "basis", "ambiguous")},
        }
        for version, trigger in enumerate(triggers)
    ]


@given(st.lists(life, max_size=8), st.randoms(use_true_random=False))
def test_exactly_one_decision_per_visit(lives: list[dict], random) -> None:  # type: ignore[no-untyped-def]
    queues = [versions(n, drawn) for n, drawn in enumerate(lives)]
    rows = []
    while any(queues):
        rows.append(random.choice([q for q in queues if q]).pop(0))
    whole = visits(*rows)
    decisions, clicks = push(whole)
    decided = sorted(bytes(v) for v in decisions.visit_id)
    assert decided == sorted(an_id(f"visit {n}") for n in range(len(lives)))
    expected = naive(whole, RULES)
    assert [bytes(v) for v in decisions.visit_id] == [e["visit_id"] for e in expected]
    assert decisions.reason.tolist() == [e["reason"] for e in expected]
    assert decisions.decided_ns.tolist() == [e["when"] for e in expected]
    assert decisions.visit_version.tolist() == [e["version"] for e in expected]
    linked = decisions.kind == Decision.PASS_WITH_CLICK
    assert clicks.click_id.tobytes() == decisions.click_id[linked].tobytes()
    assert decisions.click_id[~linked].tobytes() == bytes(16 * int((~linked).sum()))

    stage, tally = Decide(RULES, KEYS), Tally()
    for size in (1, 3):
        parts = [stage.push(whole.slice(a, a + size), tally) for a in range(0, len(whole), size)]
        if parts:
            assert_same(concat([d for d, _ in parts]), decisions)
            assert_same(concat([c for _, c in parts]), clicks)


def assert_same(one: DecisionBatch | ClickBatch, other: DecisionBatch | ClickBatch) -> None:
    for column in columns_of(type(one)):
        left, right = getattr(one, column.name), getattr(other, column.name)
        if column.dtype is None:
            assert left.to_list() == right.to_list(), column.name
        else:
            assert left.tobytes() == right.tobytes(), column.name
