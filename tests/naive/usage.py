"""What conversions hold of caps and budgets, by walking the outcomes one by one."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from pipeline.model.words import Result, TargetState
from pipeline.store.usage import Limits

QUARTER_NS = 900 * 10**9
Held = dict[tuple[str, bytes, int], int]


def usage(outcomes: list[dict[str, Any]], touched: set[bytes], fold: int, limits: Limits) -> Held:
    """Points by rule, member and quarter of an hour."""
    last: dict[bytes, dict[str, Any]] = {}
    for row in sorted(outcomes, key=lambda row: (row["fold"], row["cut"])):
        if row["fold"] < fold and row["result"] in (Result.OK, Result.EXISTS):
            last[row["conversion_key"]] = row
    held: Held = defaultdict(int)
    for key, row in last.items():
        if key in touched or row["state"] == TargetState.NONE:
            continue
        told = json.loads(row["explanation"] or "{}")
        for rule, points in told.get("parts") or [[row["rule_id"], row["points"]]]:
            if rule in limits.rules:
                who = row["subscriber_id"] if rule in limits.by_member else bytes(16)
                timed = rule in limits.by_time
                at = row["event_ns"] // QUARTER_NS * QUARTER_NS if timed else 0
                held[rule, who, at] += points
    return dict(held)
