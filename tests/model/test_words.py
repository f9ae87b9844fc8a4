"""Numbers of words and faults are stored for years: appending is free, changing one is not.

`KNOWN` is what earlier journals and stores hold. A word may be added to it, never edited in it.
"""

from __future__ import annotations

import enum

import pytest

from pipeline.model import faults, words

KNOWN = {
    "Protocol": {"HTTP": 1, "TLS": 2, "QUIC": 3},
    "Basis": {"UNKNOWN": 0, "LISTED": 1, "CONSENTED": 2, "REFUSED": 3, "LEFT": 4},
    "BindingKind": {"BIND": 1, "END": 2},
    "VisitTrigger": {"OPENED": 1, "DOCUMENT": 2, "MARKED": 3, "PAUSED": 4, "CLOSED": 5},
    "Arrival": {"UNSEEN": 0, "DIRECT": 1, "REFERRED": 2, "AFFILIATE": 3},
    "Decision": {"NONE": 0, "PASS_WITH_CLICK": 1, "OFFER": 2, "INVITE": 3},
    "Delivery": {"UNPROVEN": 0, "PROVEN": 1},
    "AmountMode": {"ABSOLUTE": 1, "DELTA": 2},
    "OrderBy": {"SENDER": 1, "ARRIVAL": 2},
    "TargetState": {"NONE": 0, "PENDING": 1, "AVAILABLE": 2},
    "Status": {
        "PENDING": 1, "APPROVED_HOLD": 2, "APPROVED": 3, "ADJUSTED": 4, "DECLINED": 5, "LOCKED": 6,
        "PAID": 7,
    },
    "Reason": {
        "MEMBER_DOCUMENT": 1, "LISTED_DOCUMENT": 2, "ENCRYPTED": 3, "NO_DOCUMENT": 4,
        "STOOD_DOWN": 5, "NO_REFERRAL": 6, "MATCHED_BY_SHOP": 7, "NO_DELIVERY": 8, "HOLDOUT": 9,
        "AMBIGUOUS": 10, "NOT_ALLOWED": 11, "PARTNER_NOT_LIVE": 12,
    },
    "Result": {
        "OK": 0, "EXISTS": 1, "EXISTS_WITH_DIFFERENT_POINTS": 2, "STALE": 3,
        "INSUFFICIENT_POINTS": 4, "UNKNOWN_MEMBER": 5, "NOT_POSITIVE": 6, "OVERFLOW": 7,
        "RULE_VERSION_PINNED": 8, "PERIOD_CLOSED": 9,
    },
    "TargetReason": {
        "AWARDED": 1, "HELD": 2, "PENDING": 3, "DECLINED": 4, "ORPHAN": 5, "STOOD_DOWN": 6,
        "OUTSIDE_WINDOW": 7, "AMBIGUOUS": 8, "NO_RULE": 9, "WRONG_PARTNER": 10, "NOT_A_MEMBER": 11,
        "NO_POINTS": 12, "FRAUD_HOLD": 30, "FRAUD_REVIEW": 31, "FRAUD_BLOCKED": 32,
        "FRAUD_DECLINED": 33,
    },
    "FraudOutcome": {"NONE": 0, "HOLD": 1, "REVIEW": 2, "BLOCK": 3, "DECLINE": 4},
    "Verdict": {"NONE": 0, "RELEASE": 1, "DECLINE": 2},
}  # fmt: skip

ENUMS = [
    value
    for module in (words, faults)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, enum.IntEnum) and value is not enum.IntEnum
]


@pytest.mark.parametrize("name", KNOWN)
def test_a_number_never_changes_its_meaning(name):
    now = {word.name: int(word) for word in getattr(words, name)}
    assert {n: now.get(n) for n in KNOWN[name]} == KNOWN[name]


@pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: kind.__name__)
def test_no_number_is_used_twice_and_all_fit_a_byte(kind):
    numbers = [int(member) for member in kind.__members__.values()]
    assert len(set(numbers)) == len(numbers), "an alias hides a number that is used twice"
    assert all(0 <= n < 256 for n in numbers)


def test_a_fault_and_a_skip_never_share_a_name():
    assert not set(faults.Fault.__members__) & set(faults.Skip.__members__)
