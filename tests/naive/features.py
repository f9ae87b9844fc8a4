"""What the fraud score asks, in plain Python: one conversion after the other, over all rows.

Rows are dicts as in `tests/naive/folds.py`. A click keeps its content, a visit its member, partner
and beginning, whatever the version.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.model.identifiers import id_text
from pipeline.model.words import BindingKind, ParkReason, Status, Verdict
from tests.naive.folds import NONE, Position, Row, Streams, uuid_order

HOUR_NS, DAY_NS = 3_600 * 10**9, 86_400 * 10**9


def features(streams: Streams, at: Position, folds: list[Row]) -> list[Row]:
    """The figures of each fold, in their order."""
    known = {name: [r for r in rows if r["offset"] < at[name]] for name, rows in streams.items()}
    known["purchases"] = [r for r in known["purchases"] if r["parked"] == ParkReason.NONE]
    clicks = {row["click_id"]: row for row in known["clicks"]}
    messages = [{**row, "who": named(row, clicks)} for row in known["purchases"]]
    return [_one(fold, known, clicks, messages) for fold in folds]


def named(message: Row, clicks: dict[bytes, Row]) -> bytes:
    """Whom a message names, by a click of ours with its partner or by a token."""
    click = clicks.get(message["click_id"])
    if click is not None and click["partner"] == message["partner"]:
        return click["subscriber_id"]
    return message["member_id"]


def _one(fold: Row, known: Streams, clicks: dict[bytes, Row], messages: list[Row]) -> Row:
    member, own_visit = fold["match_subscriber"], fold["match_visit"]
    if fold["click_id"] != NONE:
        member, own_visit = fold["click_subscriber"], fold["click_visit"]
    mine = [m for m in messages if m["conversion_key"] == fold["conversion_key"]]
    record = _record(fold, member, messages)
    coupons = [
        ((m["status_ns"] or m["received_ns"]), m["coupon"].encode()) for m in mine if m["coupon"]
    ]
    return {
        "conversion_key": fold["conversion_key"],
        "traffic_ns": _traffic(fold, member, known["visits"]),
        "clicks_hour": _clicks_hour(fold, member, known["clicks"]),
        "orders_before": len(record),
        "reversed_before": sum(record.values()),
        "claimed_before": _claims(fold, member, mine, messages),
        "members_at_address": _crowd(fold, mine, messages),
        "address_foreign": int(member != NONE and _is_foreign(member, mine, known["bindings"])),
        "idle_ns": _idle(member, own_visit, known["visits"]),
        "coupon": max(coupons)[1].decode() if coupons else "",
        "other_click": int(
            any(
                (m["click_ref"] and m["click_id"] not in clicks) or m["reason"] == "other_click"
                for m in mine
            )
        ),
        "marked_ns": _marked(fold, member, known["visits"]),
    }


def _visits(member: bytes, rows: list[Row]) -> dict[bytes, Row]:
    """A member's visits with the last time each was seen."""
    found: dict[bytes, Row] = {}
    for row in rows:
        if member != NONE and row["subscriber_id"] == member:
            before = found.get(row["visit_id"])
            last = max(row["last_ns"], before["last_ns"] if before else row["last_ns"])
            found[row["visit_id"]] = {**row, "last_ns": last}
    return found


def _traffic(fold: Row, member: bytes, rows: list[Row]) -> int:
    mine = [
        (v["opened_ns"], v["last_ns"])
        for v in _visits(member, rows).values()
        if v["partner"] == fold["partner"] and v["opened_ns"] <= fold["event_ns"]
    ]
    return max(mine)[1] if mine else 0


def _marked(fold: Row, member: bytes, rows: list[Row]) -> int:
    mine = [
        visit["opened_ns"]
        for visit in _visits(member, rows).values()
        if (visit["tracker_ns"] > 0 or visit["mark"])
        and visit["partner"] == fold["partner"]
        and visit["opened_ns"] <= fold["event_ns"]
    ]
    return max(mine, default=0)


def touches(streams: Streams, at: Position, folds: list[Row]) -> list[Row]:
    """The clicks of each fold's member with its partner, the last first."""
    visits = [r for r in streams["visits"] if r["offset"] < at["visits"]]
    clicks = [r for r in streams["clicks"] if r["offset"] < at["clicks"]]
    found = []
    for number, fold in enumerate(folds):
        mine = [
            _touch(number, click, [v for v in visits if v["visit_id"] == click["visit_id"]])
            for click in clicks
            if fold["click_found"]
            and click["subscriber_id"] == fold["click_subscriber"]
            and click["partner"] == fold["partner"]
            and click["clicked_ns"] <= fold["event_ns"]
        ]
        mine.sort(key=lambda t: (t["clicked_ns"], uuid_order(t["click_id"])), reverse=True)
        found += mine[:100]
    return found


def _touch(number: int, click: Row, versions: list[Row]) -> Row:
    newest = versions[-1] if versions else {"ambiguous": 0, "tracker_ns": 0}
    marks = [v["last_ns"] for v in versions if v["mark"]]
    by_tracker = 0 < newest["tracker_ns"] <= click["clicked_ns"]
    by_mark = bool(marks) and 0 < min(marks) <= click["clicked_ns"]
    chosen = {n: click[n] for n in ("click_id", "visit_id", "channel", "clicked_ns")}
    marked = {"ambiguous": newest["ambiguous"], "marked": int(by_tracker or by_mark)}
    return {"row": number, **chosen, **marked}


def _idle(member: bytes, own_visit: bytes, rows: list[Row]) -> int:
    visits = _visits(member, rows)
    if own_visit not in visits:
        return 0
    opened = visits[own_visit]["opened_ns"]
    before = [(v["opened_ns"], v["last_ns"]) for v in visits.values() if v["opened_ns"] < opened]
    return max(opened - max(before)[1], 0) if before else 0


def _clicks_hour(fold: Row, member: bytes, rows: list[Row]) -> int:
    if not fold["click_found"]:
        return 0
    until = fold["clicked_ns"]
    times = [row["clicked_ns"] for row in rows if row["subscriber_id"] == member]
    return sum(until - HOUR_NS <= when <= until for when in times)


def _record(fold: Row, member: bytes, messages: list[Row]) -> dict[bytes, bool]:
    """The member's conversions before this one, and whether each was declined by then."""
    found: dict[bytes, bool] = {}
    for key in {m["conversion_key"] for m in messages} - {fold["conversion_key"]}:
        told = [m for m in messages if m["conversion_key"] == key]
        if member == NONE or member not in {m["who"] for m in told}:
            continue
        if min(m["event_ns"] for m in told) < fold["event_ns"]:
            times = [
                m["status_ns"] or m["received_ns"] for m in told if m["status"] == Status.DECLINED
            ]
            found[key] = bool(times) and 0 < min(times) <= fold["event_ns"]
    return found


def _claims(fold: Row, member: bytes, mine: list[Row], messages: list[Row]) -> int:
    refs = {m["order_ref"] for m in mine} - {""}
    found = set()
    for key in {m["conversion_key"] for m in messages} - {fold["conversion_key"]}:
        told = [m for m in messages if m["conversion_key"] == key]
        bought, partner = min(m["event_ns"] for m in told), told[0]["partner"]
        first = (bought, uuid_order(key)) < (fold["event_ns"], uuid_order(fold["conversion_key"]))
        members = {m["who"] for m in told} - {NONE}
        if member == NONE or not members or not first or not refs & {m["order_ref"] for m in told}:
            continue
        if partner == fold["partner"]:
            claims = bool(members - {member})
        else:
            same = fold["amount_minor"] in {m["amount_minor"] for m in told}
            claims = member in members and same and bought >= fold["event_ns"] - DAY_NS
        if claims:
            found.add(key)
    return len(found)


def _crowd(fold: Row, mine: list[Row], messages: list[Row]) -> int:
    addresses = {m["match_hash"] for m in mine} - {NONE}
    until = fold["event_ns"]
    return len(
        {
            m["who"]
            for m in messages
            if m["match_hash"] in addresses and until - DAY_NS <= m["event_ns"] <= until
        }
        - {NONE}
    )


def _is_foreign(member: bytes, mine: list[Row], bindings: list[Row]) -> bool:
    """Did somebody else, or nobody, hold an address that the messages name?"""
    for message in mine:
        held = [
            b
            for b in bindings
            if b["address_hash"] == message["match_hash"] and b["event_ns"] <= message["match_ns"]
        ]
        if message["match_hash"] == NONE:
            continue
        last = max(held, key=lambda b: (b["event_ns"], b["received_ns"], b["offset"]), default=None)
        if last is None or last["kind"] != BindingKind.BIND or last["subscriber_id"] != member:
            return True
    return False


def reviews(streams: Streams, at: Position, folds: list[Row]) -> list[dict[str, Any]]:
    """The last decision about each fold: verdict and who made it."""
    found: dict[str, Row] = {}
    for row in streams["commands"][: at["commands"]]:
        if row["kind"] == "review":
            body = json.loads(row["body"])
            found[body["conversion_key"]] = {**row, **body}
    rows = [found.get(id_text(fold["conversion_key"]), {}) for fold in folds]
    return [
        {
            "verdict": Verdict[row["verdict"].upper()] if row else Verdict.NONE,
            "actor": row.get("actor", ""),
            "reason": row.get("reason", ""),
        }
        for row in rows
    ]


def touched(streams: Streams, since: Position, at: Position, fold_all: Any) -> set[bytes]:
    """Conversions whose figures differ between two positions."""
    before, after = (
        {row["conversion_key"]: row for row in features(streams, p, fold_all(streams, p))}
        for p in (since, at)
    )
    return {key for key, row in after.items() if before.get(key) != row}
