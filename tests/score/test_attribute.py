"""Attribution by itself: windows at their edges, and times that no clock ever showed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.words import TargetReason
from pipeline.score.attribute import ATTRIBUTED, attribute
from pipeline.score.terms import Terms
from tests.score.making import DAY_NS, NOON, a_partner, a_rulebook, an_id, folds

RULES = a_rulebook(a_partner("acme-shop"), a_partner("books", click_delivery="match"))
TERMS = Terms(RULES.partners)
any_time = st.integers(-(2**63), 2**63 - 1)


def reason(**changes: object) -> int:
    batch = folds(dict(changes))
    contract = np.zeros(1, np.int64)
    return int(attribute(batch, TERMS, contract).reason[0])


@given(any_time, any_time)
def test_windows_hold_for_any_two_times(clicked_ns: int, event_ns: int) -> None:
    inside = 0 <= event_ns - clicked_ns <= 30 * DAY_NS
    expected = ATTRIBUTED if inside else TargetReason.OUTSIDE_WINDOW
    assert reason(clicked_ns=clicked_ns, event_ns=event_ns) == expected


def test_a_click_is_never_lent_to_another_partner() -> None:
    assert reason(click_partner="books") == TargetReason.WRONG_PARTNER
    assert reason(click_partner="") == TargetReason.WRONG_PARTNER


def test_a_named_click_rules_even_where_the_shop_matches() -> None:
    """An unknown click is not mended by a member's token: the shop contradicts itself."""
    batch = folds(
        {
            "partner": "books",
            "click_partner": "books",
            "click_found": 0,
            "match_subscriber": "bob",
            "match_visit": "visit of bob",
            "match_visit_ns": NOON,
            "match_basis": 2,
        }
    )
    found = attribute(batch, TERMS, np.ones(1, np.int64))
    assert found.reason.tolist() == [TargetReason.ORPHAN]
    assert not found.by_match[0]


def test_nobody_is_named_unless_attributed() -> None:
    batch = folds({}, {"visit_ambiguous": 1}, {"click_found": 0})
    found = attribute(batch, TERMS, np.zeros(3, np.int64))
    members = [s.tobytes() for s in found.subscriber_id]
    assert members == [an_id("ann"), bytes(16), bytes(16)]
    # The way is still shown: which click, which visit; but not a click that is not ours.
    assert [c.tobytes() for c in found.click_id] == [an_id("click"), an_id("click"), bytes(16)]
    assert [v.tobytes() for v in found.visit_id] == [an_id("visit"), an_id("visit"), bytes(16)]


def test_without_a_contract_there_is_no_rule() -> None:
    found = attribute(folds({}), TERMS, np.array([TERMS.no_contract]))
    assert found.reason.tolist() == [TargetReason.NO_RULE]
