"""The fold in plain Python: rows as dicts, one conversion after the other, sets for what happened.

A row is a dict of its stream's columns and `offset`; ids are bytes, words are their numbers.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.model.identifiers import id_text
from pipeline.model.words import AmountMode, BindingKind, OrderBy, ParkReason, Status

Row = dict[str, Any]
Streams = dict[str, list[Row]]
Position = dict[str, int]
NONE = bytes(16)


def fold_all(streams: Streams, at: Position, wanted: set[bytes] | None = None) -> list[Row]:
    """The folds at a position, in the order of purchase time and key."""
    known = {name: [r for r in rows if r["offset"] < at[name]] for name, rows in streams.items()}
    conversions: dict[bytes, list[Row]] = {}
    for row in known["purchases"]:
        messages = conversions.setdefault(row["conversion_key"], [])
        came = {message["message_id"] for message in messages}
        if row["parked"] == ParkReason.NONE and row["message_id"] not in came:
            messages.append(row)
    conversions = {k: without_changes_after_lock(k, m, known) for k, m in conversions.items()}
    found = [
        {**fold(rows), **joined(fold(rows), named(rows), known)}
        for key, rows in conversions.items()
        if rows and (wanted is None or key in wanted)
    ]
    return sorted(found, key=lambda row: (row["event_ns"], row["conversion_key"]))


def without_changes_after_lock(key: bytes, rows: list[Row], known: Streams) -> list[Row]:
    """The messages but those that change what was locked and that no person let count."""
    verdict, until = "", 0
    for row in known.get("commands", ()):
        body = json.loads(row["body"]) if row["kind"] == "review" else {}
        if body.get("about") == "locked" and body["conversion_key"] == id_text(key):
            verdict, until = body["verdict"], row["event_ns"]
    ordered = in_fold_order(rows)
    statuses = [row["status"] for row in ordered]
    if Status.LOCKED not in statuses:
        return rows
    lock = statuses.index(Status.LOCKED)
    told = [
        r["amount_minor"] for r in ordered[: lock + 1] if r["amount_mode"] == AmountMode.ABSOLUTE
    ]
    amount = told[-1] if told else 0
    out = set()
    for row in ordered[lock + 1 :]:
        same = row["amount_minor"] == (amount if row["amount_mode"] == AmountMode.ABSOLUTE else 0)
        quiet = row["status"] in (Status.LOCKED, Status.PAID) and same
        if not quiet and not (verdict == "release" and row["received_ns"] <= until):
            out.add(row["message_id"])
    return [row for row in rows if row["message_id"] not in out]


def in_fold_order(rows: list[Row]) -> list[Row]:
    """The messages of one conversion in fold order."""
    mixed = len({row["order_by"] for row in rows}) > 1

    def place(row: Row) -> tuple[Any, ...]:
        if row["order_by"] == OrderBy.SENDER:
            when = (row["status_ns"], 0, 0)
        else:
            when = (row["received_ns"] if mixed else 0, 1, row["offset"])
        numbered = (-row["id_given"], uuid_order(row["message_id"]))
        return (*when, row["sequence"], row["status"], said(row), numbered)

    return sorted(rows, key=place)


def said(row: Row) -> tuple[Any, ...]:
    """What a message says; two that say the same at one place are one."""
    return (
        row["status_ns"],
        row["sequence"],
        row["status"],
        row["amount_mode"],
        row["amount_minor"],
        row["commission_minor"],
        row["currency"].encode(),
        row["event_ns"],
        uuid_order(row["click_id"]),
        row["kind"].encode(),
        uuid_order(row["member_id"]),
        uuid_order(row["match_hash"]),
        row["match_ns"],
        row["items"].encode(),
    )


def uuid_order(value: bytes) -> tuple[bytes, bytes]:
    """ClickHouse compares the second half of a UUID first."""
    return value[8:], value[:8]


def fold(rows: list[Row]) -> Row:
    """Walk the messages of one conversion."""
    rows = in_fold_order(rows)
    amount = commission = status = items_minor = 0
    items = ""
    for number, row in enumerate(rows):
        late_pending = row["status"] == Status.PENDING and _confirmed(rows[:number])
        if late_pending or not _counts(rows, number):
            continue
        status = row["status"]
        if row["amount_mode"] == AmountMode.ABSOLUTE:
            amount, commission = row["amount_minor"], row["commission_minor"]
            if row["items"]:
                items, items_minor = row["items"], amount
        elif row["amount_mode"] == AmountMode.DELTA:
            amount, commission = amount + row["amount_minor"], commission + row["commission_minor"]
    facts_hash = 0
    for row in rows:
        facts_hash ^= row["row_hash"]
    return {
        "conversion_key": rows[0]["conversion_key"],
        "partner": rows[0]["partner"],
        "conversion_id": rows[0]["conversion_id"],
        "kind": last(rows, "kind", ""),
        "facts": len(rows),
        "facts_hash": facts_hash,
        "status": status,
        "amount_minor": amount,
        "commission_minor": commission,
        "currency": last(rows, "currency", ""),
        "event_ns": min(row["event_ns"] for row in rows),
        "click_id": last(rows, "click_id", NONE),
        "items": items,
        "items_minor": items_minor,
    }


def _counts(rows: list[Row], number: int) -> bool:
    """Is this one of a run of neighbours that say the same to be taken for a message of its own?"""
    first = last = number
    while first > 0 and said(rows[first - 1]) == said(rows[number]):
        first -= 1
    while last < len(rows) - 1 and said(rows[last + 1]) == said(rows[number]):
        last += 1
    if any(row["id_given"] for row in rows[first : last + 1]):
        return bool(rows[number]["id_given"])
    return number == first


def _confirmed(rows: list[Row]) -> bool:
    """Does a confirmation stand after these messages?"""
    firm = [row["status"] for row in rows if row["status"] != Status.PENDING]
    return bool(firm) and firm[-1] != Status.DECLINED


def last(rows: list[Row], name: str, nothing: Any) -> Any:
    """The last value in these rows that is not nothing."""
    return next((row[name] for row in reversed(rows) if row[name] != nothing), nothing)


def named(rows: list[Row]) -> tuple[bytes, bytes, int]:
    """The member, or the address and time, that the last message to do so named."""
    for row in reversed(in_fold_order(rows)):
        if row["member_id"] != NONE or row["match_hash"] != NONE:
            return row["member_id"], row["match_hash"], row["match_ns"]
    return NONE, NONE, 0


def newest(rows: list[Row], key: str) -> dict[bytes, Row]:
    """The newest version of each id."""
    return {row[key]: row for row in sorted(rows, key=lambda r: r["offset"])}


def joined(folded: Row, who: tuple[bytes, bytes, int], known: Streams) -> Row:
    """Click or visit of a folded conversion."""
    visits = newest(known["visits"], "visit_id")
    click = newest(known["clicks"], "click_id").get(folded["click_id"])
    if folded["click_id"] == NONE:
        click = None
    click_visit = visits.get(click["visit_id"]) if click else None
    member = holder(who, known["bindings"])
    mine = [
        v
        for v in visits.values()
        if member != NONE
        and v["subscriber_id"] == member
        and v["partner"] == folded["partner"]
        and v["opened_ns"] <= folded["event_ns"]
    ]
    visit = max(mine, key=lambda v: (v["opened_ns"], uuid_order(v["visit_id"])), default=None)
    return {
        "click_found": int(click is not None),
        "click_partner": click["partner"] if click else "",
        "click_subscriber": click["subscriber_id"] if click else NONE,
        "clicked_ns": click["clicked_ns"] if click else 0,
        "click_visit": click["visit_id"] if click else NONE,
        "match_subscriber": member,
        "match_visit": visit["visit_id"] if visit else NONE,
        "match_visit_ns": visit["opened_ns"] if visit else 0,
        "match_marked": int(visit is not None and (visit["tracker_ns"] > 0 or visit["mark"] != "")),
        "match_ambiguous": visit["ambiguous"] if visit else 0,
        "visit_ambiguous": click_visit["ambiguous"] if click_visit else 0,
        "match_basis": visit["basis"] if visit else 0,
    }


def holder(who: tuple[bytes, bytes, int], bindings: list[Row]) -> bytes:
    """The member a shop named, or who held the address then."""
    member, address, when = who
    if member != NONE or address == NONE:
        return member
    held = [b for b in bindings if b["address_hash"] == address and b["event_ns"] <= when]
    if not held:
        return NONE
    latest = max(held, key=lambda b: (b["event_ns"], b["received_ns"], b["offset"]))
    return latest["subscriber_id"] if latest["kind"] == BindingKind.BIND else NONE


def touched(streams: Streams, since: Position, at: Position) -> set[bytes]:
    """Conversions whose fold may differ between two positions: every one whose fold does."""
    before = {row["conversion_key"]: row for row in fold_all(streams, since)}
    after = {row["conversion_key"]: row for row in fold_all(streams, at)}
    return {key for key, row in after.items() if before.get(key) != row}
