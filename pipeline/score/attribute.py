"""Whose purchase was it? From what is known of a conversion to a member, or the reason why not.

A conversion that names a click belongs to that click: it has to be ours, of this partner, and
bought within the contract's window after it. A conversion without a click belongs to a visit
where the contract says `match` and the shop named the member (token, or address and time): the
member's last visit before the purchase has to lie within the window, must not have been brought
by another affiliate, and the member has to have consented. In both ways the visit must be
unambiguous. Everything else is an orphan; it is asked again when clicks, visits or bindings
arrive, because nothing here is remembered. Which of a member's clicks is credited, and what a
coupon is worth, is told by `models.py`, which takes this for its beginning.

Window: `clicked_ns <= event_ns <= clicked_ns + attribution window`, both ends inside.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.model.batches import FoldBatch
from pipeline.model.columns import ID_DTYPE, id_words, no_ids
from pipeline.model.words import Basis, TargetReason
from pipeline.score.terms import Terms

ATTRIBUTED = 0


class Attribution(NamedTuple):
    """Columns, one row per conversion; `reason` is ATTRIBUTED or a TargetReason."""

    reason: np.ndarray  # uint8
    subscriber_id: np.ndarray  # ID: zero unless attributed
    click_id: np.ndarray  # ID: the click named, if it is ours
    visit_id: np.ndarray  # ID: the click's visit, or the matched one
    by_click: np.ndarray  # bool: a click was named
    by_match: np.ndarray  # bool: no click, and the contract says `match`
    inside: np.ndarray  # bool: within the window of the click or visit
    by_coupon: np.ndarray  # bool: by a coupon that was issued to the member; see `models.py`


def attribute(folds: FoldBatch, terms: Terms, contract: np.ndarray) -> Attribution:
    """Attribute each conversion; `contract` is the number of its contract."""
    by_click = is_set(folds.click_id)
    by_match = ~by_click & terms.matched[contract]
    found = by_click & (folds.click_found > 0)
    since_ns = np.where(by_click, folds.clicked_ns, folds.match_visit_ns)
    inside = _inside(since_ns, folds.event_ns, terms.window_ns[contract])
    named = is_set(folds.match_subscriber) & is_set(folds.match_visit)
    same = _same_text(folds)
    ladder = [
        (contract == terms.no_contract, TargetReason.NO_RULE),
        (by_click & ~found, TargetReason.ORPHAN),
        (by_click & ~same, TargetReason.WRONG_PARTNER),
        (~by_click & ~(by_match & named), TargetReason.ORPHAN),
        (~inside, TargetReason.OUTSIDE_WINDOW),
        (by_match & (folds.match_basis != Basis.CONSENTED), TargetReason.NOT_A_MEMBER),
        (by_click & (folds.visit_ambiguous > 0), TargetReason.AMBIGUOUS),
        (by_match & (folds.match_ambiguous > 0), TargetReason.AMBIGUOUS),
        (by_match & (folds.match_marked > 0), TargetReason.STOOD_DOWN),
    ]
    reason = np.zeros(len(folds), np.uint8)
    for holds, why in reversed(ladder):
        reason[holds] = why
    subscriber, click, visit = no_ids(len(folds)), no_ids(len(folds)), no_ids(len(folds))
    click[found] = folds.click_id[found]
    visit[found] = folds.click_visit[found]
    visit[by_match] = folds.match_visit[by_match]
    good = reason == ATTRIBUTED
    subscriber[good & by_click] = folds.click_subscriber[good & by_click]
    subscriber[good & by_match] = folds.match_subscriber[good & by_match]
    by_coupon = np.zeros(len(folds), np.bool_)
    return Attribution(reason, subscriber, click, visit, by_click, by_match, inside, by_coupon)


def _inside(since_ns: np.ndarray, event_ns: np.ndarray, window_ns: np.ndarray) -> np.ndarray:
    """Is the event at or after `since_ns`, and at most a window later? Safe for any int64."""
    after = event_ns >= since_ns
    # The true difference of two int64 fits uint64 where it is not negative.
    gap = event_ns.astype(np.uint64) - since_ns.astype(np.uint64)
    return np.asarray(after & (gap <= window_ns.astype(np.uint64)))


def _same_text(folds: FoldBatch) -> np.ndarray:
    """Is the click's partner the conversion's?"""
    names, number = folds.click_partner.numbered()
    own_names, own = folds.partner.numbered()
    place = {name: n for n, name in enumerate(names)}
    same = np.array([*(place.get(name, -1) for name in own_names), -1], np.int64)
    return np.asarray(same[own] == number)


def is_set(column: np.ndarray) -> np.ndarray:
    """Which ids of a column name something (bool)."""
    assert column.dtype == ID_DTYPE
    return np.asarray(id_words(column).any(axis=1))
