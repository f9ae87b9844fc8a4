"""What `job review` tells of spending and of credits by hand, beside the conversions that wait.

    burns      requests to spend that wait for a person, with their codes (`store/doubts.py`);
               `mirrorpoint book approve` places one, `mirrorpoint book reject` refuses it
    debts      LATE_REFUND: members who owe points, because purchases were taken back after their
               points were spent, and which; until it is paid nothing of theirs can be spent
    credits    INSIDER: points that somebody gave by hand to one member again and again, or outside
               working hours; a report, which stops nothing

Credits are shown for as long before the last cut as the policy looks back (`within`).
"""

from __future__ import annotations

import json
import textwrap
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.ledger.accounts import KIND_WORDS, EntryKind, member_accounts
from pipeline.ledger.terms import zone_of
from pipeline.model.identifiers import id_text
from pipeline.model.money import show_amount
from pipeline.model.times import show_time
from pipeline.rulebook.policies import FraudCode
from pipeline.run.explain import Asked, Row, rows_of
from pipeline.run.review import WIDTH, iso, to_second

if TYPE_CHECKING:
    from pipeline.run.state import State

LATE_REFUND, INSIDER = "LATE_REFUND", "INSIDER"
SECOND_NS = 10**9
RECOVERED = KIND_WORDS[int(EntryKind.DEBT_RECOVERY)]


def spending(state: State) -> list[Row]:
    """Burns, debts and credits, in this order."""
    return [*burns(state), *debts(state), *credits_by_hand(state)]


def burns(state: State) -> list[Row]:
    """Requests to spend that wait, the earliest first."""
    return [
        {
            "kind": "burn",
            "request": id_text(waits.request_id),
            "command": waits.kind,
            "ref": waits.ref,
            "member": id_text(waits.subscriber_id),
            "points": waits.points,
            "codes": json.loads(waits.doubt),
            "since": show_time(waits.event_ns),
        }
        for waits in state.book.awaiting()
        if waits.doubt
    ]


def debts(state: State) -> list[Row]:
    """Members who owe points, who owes most first, with the conversions that led to it."""
    owing = [(points, who) for who, points in state.book.money.owing().items()]
    found = []
    for points, who in sorted(owing, key=lambda pair: (-pair[0], pair[1])):
        found.append(
            {
                "kind": "debt",
                "member": id_text(who),
                "points": points,
                "codes": [[LATE_REFUND, f"{points} points were spent and then taken back", 0]],
                "conversions": _taken_back(state, who),
            }
        )
    return found


def _taken_back(state: Asked, who: bytes) -> list[Row]:
    """The conversions whose points a member had spent when they were taken back."""
    rows = rows_of(
        state,
        "SELECT e.conversion_key AS conversion_key, any(c.partner) AS partner,"
        " any(c.conversion_id) AS conversion_id, sum(e.amount) AS points,"
        " max(e.effective_at) AS at FROM entries_log AS e LEFT JOIN conversions AS c"
        " ON c.conversion_key = e.conversion_key"
        " WHERE e.account = {account:String} AND e.kind != {recovered:String} AND e.amount > 0"
        " GROUP BY conversion_key ORDER BY at DESC, conversion_key",
        account=member_accounts(who).debt,
        recovered=RECOVERED,
    )
    return [
        {
            "conversion": str(row["conversion_key"]),
            "partner": row["partner"],
            "conversion_id": row["conversion_id"],
            "points": int(row["points"]),
            "at": iso(row["at"]),
        }
        for row in rows
    ]


def credits_by_hand(state: Asked) -> list[Row]:
    """Who gave points by hand in a way that somebody should look at, by giver and member."""
    code = state.rulebook.policy.fraud.insider
    if code is None or not code.weight:
        return []
    bounds = {name: int(bound) for name, bound in code.bounds.items()}
    timezone = state.rulebook.programme.timezone
    given: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in _credits(state, bounds["within_ns"]):
        given[row["actor"], row["member"]].append(row)
    found = []
    for (actor, member), rows in sorted(given.items()):
        odd = sum(_is_odd(int(row["at_ns"]), bounds, timezone) for row in rows)
        said = _said(code, bounds, len(rows), odd)
        if said:
            found.append(
                {
                    "kind": "credit",
                    "actor": actor,
                    "member": member,
                    "points": sum(int(row["points"]) for row in rows),
                    "codes": [[code.code, text, 0] for text in said],
                    "commands": [row["command"] for row in rows],
                    "since": show_time(min(int(row["at_ns"]) for row in rows)),
                }
            )
    return found


def _said(code: FraudCode, bounds: dict[str, int], count: int, odd: int) -> list[str]:
    found = []
    if count > bounds["credits"]:
        days = bounds["within_ns"] // (86_400 * SECOND_NS)
        found.append(f"{count} credits to one member within {days} days, over {bounds['credits']}")
    if odd:
        found.append(f"{odd} of {count} credits outside working hours")
    return found


def _is_odd(at_ns: int, bounds: dict[str, int], timezone: str) -> bool:
    """Was it outside working hours, where the programme is?"""
    local = datetime.fromtimestamp(at_ns // SECOND_NS, UTC).astimezone(zone_of(timezone))
    works = bounds["begins"] <= local.hour < bounds["ends"]
    return not works or local.weekday() >= bounds["days"]


def _credits(state: Asked, within_ns: int) -> list[Row]:
    """Credits by hand that were booked, of so long before the last cut, in the order of time."""
    return rows_of(
        state,
        "SELECT toString(command_id) AS command, toString(subscriber_id) AS member, actor, points,"
        " at_ns FROM (SELECT *, event_ns AS at_ns FROM commands_log"
        " WHERE kind = 'adjust' AND points > 0 ORDER BY stream_offset LIMIT 1 BY command_id)"
        " WHERE at_ns > (SELECT max(toUnixTimestamp64Nano(now_at)) FROM cuts_log)"
        " - {within:Int64} AND command_id IN (SELECT cause_id FROM entries_log"
        " WHERE kind = {manual:String}) ORDER BY at_ns, command",
        within=within_ns,
        manual=KIND_WORDS[int(EntryKind.MANUAL_ADJUST)],
    )


def shown(items: list[Row], unit: str, scale: int) -> str:
    """All of it for a terminal of 80 columns, each kind under its heading."""
    lines: list[str] = []
    for kind, title, tell in (
        ("burn", "spending that waits", _burn),
        ("debt", "members who owe points", _debt),
        ("credit", "credits by hand", _credit),
    ):
        chosen = [item for item in items if item["kind"] == kind]
        if chosen:
            lines.append(f"{title}:")
        for item in chosen:
            lines += [f"  {line}" for line in tell(item, f"{_shown(item, scale)} {unit}")]
    return "".join(line + "\n" for line in lines)


def _shown(item: Row, scale: int) -> str:
    return show_amount(int(item["points"]), scale)


def _burn(item: Row, points: str) -> list[str]:
    ref = f" {item['ref']}" if item["ref"] else ""
    return [
        f"{item['command']}{ref}: {points} since {to_second(item['since'])}",
        f"  request    {item['request']}",
        f"  member     {item['member']}",
        *_codes(item),
    ]


def _debt(item: Row, points: str) -> list[str]:
    lines = [f"{item['member']} owes {points}", *_codes(item)]
    for row in item["conversions"]:
        lines.append(
            f"  {row['partner']} {row['conversion_id']}: {row['points']}, "
            f"taken back {to_second(row['at'])}"
        )
    return lines


def _credit(item: Row, points: str) -> list[str]:
    return [
        f"{item['actor'] or '(nobody named)'} gave {points} since {to_second(item['since'])}",
        f"  member     {item['member']}",
        *_codes(item),
    ]


def _codes(item: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for code, what, weight in item["codes"]:
        text = f"{code} ({weight}): {what}" if weight else f"{code}: {what}"
        lines += textwrap.wrap(text, WIDTH - 2, initial_indent="  ", subsequent_indent=" " * 6)
    return lines
