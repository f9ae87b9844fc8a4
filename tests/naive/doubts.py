"""Which spending has to wait for a person, row by row: the twin of `store/doubts.py`."""

from __future__ import annotations

from pipeline.ledger.commands import SPENDING
from pipeline.model.identifiers import NO_ID
from pipeline.rulebook.policies import FraudPolicy
from tests.naive.folds import Position, Streams

HOUR_NS, DAY_NS = 3_600 * 10**9, 86_400 * 10**9


def doubts(streams: Streams, at: Position, start: int, policy: FraudPolicy) -> dict[bytes, set]:
    """By command id, the codes that hold, where they weigh enough together."""
    below = {name: rows[: at.get(name, 0)] for name, rows in streams.items()}
    firsts: dict[bytes, dict] = {}
    for row in below["commands"]:
        if row["kind"] in SPENDING and row["subscriber_id"] != NO_ID:
            firsts.setdefault(row["command_id"], row)
    codes = {code.code: code for code in policy.spending if code.weight}
    found = {}
    for asked in firsts.values():
        if asked["offset"] < start:
            continue
        held = [code for code in codes.values() if HOLDS[code.code](code, asked, firsts, below)]
        if sum(code.weight for code in held) >= policy.limit:
            found[asked["command_id"]] = {code.code for code in held}
    return {who: held for who, held in found.items() if held}


def _velocity(code, asked, firsts, below) -> bool:
    mine = [row for row in firsts.values() if row["subscriber_id"] == asked["subscriber_id"]]
    here = (asked["event_ns"], asked["command_id"])
    before = [row for row in mine if (row["event_ns"], row["command_id"]) <= here]
    for name, span in (("hour", HOUR_NS), ("day", DAY_NS)):
        within = [row for row in before if row["event_ns"] >= asked["event_ns"] - span]
        if len(within) > code.bounds[name]:
            return True
    return False


def _dormant(code, asked, firsts, below) -> bool:
    who = asked["subscriber_id"]
    moments = [row["event_ns"] for row in firsts.values() if row["subscriber_id"] == who]
    clicks = {row["click_id"] for row in below["clicks"] if row["subscriber_id"] == who}
    moments += [row["clicked_ns"] for row in below["clicks"] if row["subscriber_id"] == who]
    for row in below["visits"]:
        if row["subscriber_id"] == who:
            moments += [row["opened_ns"], row["last_ns"]]
    for row in below["purchases"]:
        if row["member_id"] == who or row["click_id"] in clicks:
            moments.append(row["event_ns"])
    earlier = [at for at in moments if at <= asked["event_ns"] - DAY_NS]
    if not earlier or max(earlier) <= 0 or asked["points"] < code.bounds["points"]:
        return False
    return asked["event_ns"] - max(earlier) > code.bounds["over_ns"]


HOLDS = {"VELOCITY": _velocity, "DORMANT_BURN": _dormant}
