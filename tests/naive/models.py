"""Attribution models in plain Python: clicks as dicts, in any order."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from pipeline.rulebook.policies import Shares

Row = dict[str, Any]


def in_order(clicks: list[Row]) -> list[Row]:
    """By time, then id."""
    return sorted(clicks, key=lambda click: (click["clicked_ns"], click["click_id"]))


def claiming(clicks: list[Row], event_ns: int, window_ns: int) -> list[Row]:
    """The clicks that may claim a sale, in the order of time."""
    return in_order(
        [
            click
            for click in clicks
            if 0 <= event_ns - click["clicked_ns"] <= window_ns
            and not click["marked"]
            and not click["ambiguous"]
        ]
    )


def shares_of(clicks: list[Row], shares: Shares) -> list[Fraction]:
    """What each click is credited with."""
    whole = [shares.first] + [shares.middle] * (len(clicks) > 2) + [shares.last]
    if len(clicks) == 1:
        return [Fraction(1)]
    if len(clicks) == 2:
        if not sum(whole):
            return [Fraction(1, 2), Fraction(1, 2)]
        return [part / sum(whole) for part in whole]
    between = len(clicks) - 2
    return [shares.first] + [shares.middle / between] * between + [shares.last]


def pays(model: str, clicks: list[Row], shares: Shares) -> Row:
    """The click that a model credits most; of equal ones the later."""
    if model == "first":
        return clicks[0]
    if model != "position":
        return clicks[-1]
    parts = shares_of(clicks, shares)
    best = max(parts)
    return [click for click, part in zip(clicks, parts, strict=True) if part == best][-1]
