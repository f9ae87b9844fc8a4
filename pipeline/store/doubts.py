"""Which spending has to wait for a person, in SQL over `_log` tables below a position of a cut.

Given the rows of `commands` that are new at a cut and the codes of its policy, `doubts` gives by
command id the codes that hold, as JSON, where their weights together reach the policy's limit:

    VELOCITY      more than `hour` requests to spend of the member within the hour up to this one,
                  or more than `day` within the day
    DORMANT_BURN  at least `points` points, of a member who was active before, but not within `over`
                  of the request; what happened in the day before it does not count, for whoever
                  comes back may look around first

A request is the first message under its id; whether it was booked does not matter. Of two at one
time the one with the smaller id comes first. Activity is a visit, a click, a purchase by which the
member is named, or a request to spend. All of it is told by event time and lies below the position:
so the same cut gives the same doubts, in whatever order things arrived.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.ledger.commands import SPENDING
from pipeline.model.identifiers import NO_ID, parse_id
from pipeline.rulebook.policies import FraudCode, FraudPolicy
from pipeline.store.sink import Sink

READ = ("clicks", "commands", "purchases", "visits")
HOUR_NS, DAY_NS = 3_600 * 10**9, 86_400 * 10**9
KINDS = ", ".join(f"'{kind}'" for kind in sorted(SPENDING))
NOBODY = "toUUID('00000000-0000-0000-0000-000000000000')"

MEMBERS = f"""
SELECT DISTINCT subscriber_id AS member FROM commands_log
WHERE kind IN ({KINDS}) AND subscriber_id != {NOBODY}
  AND stream_offset >= {{start}} AND stream_offset < {{commands}}
"""
REQUESTS = f"""
SELECT command_id, subscriber_id AS who, event_ns, points, stream_offset AS place
FROM commands_log
WHERE kind IN ({KINDS}) AND stream_offset < {{commands}}
  AND subscriber_id IN (SELECT member FROM spenders)
ORDER BY stream_offset LIMIT 1 BY command_id
"""
# Each request has a number among the member's; less that of the last one before the hour, or day.
NUMBERED = """
SELECT *, row_number() OVER (PARTITION BY who ORDER BY event_ns, toString(command_id)) AS number
FROM requests
"""
LAST_OF_TIME = """
SELECT who, event_ns, max(number) AS number FROM numbered GROUP BY who, event_ns
"""
COUNTED = f"""
SELECT o.command_id AS command_id, o.who AS who, o.event_ns AS event_ns, o.points AS points,
  o.number - h.number AS in_hour, o.number - d.number AS in_day, o.day_ago AS day_ago
FROM (
  SELECT *, event_ns - {HOUR_NS} AS hour_ago, event_ns - {DAY_NS} AS day_ago
  FROM numbered WHERE place >= {{start}}
) AS o
ASOF LEFT JOIN last_of_time AS h ON h.who = o.who AND h.event_ns < o.hour_ago
ASOF LEFT JOIN last_of_time AS d ON d.who = o.who AND d.event_ns < o.day_ago
"""
CLICKS = """
SELECT click_id, any(subscriber_id) AS who, any(clicked_ns) AS at_ns FROM clicks_log
WHERE stream_offset < {clicks} AND subscriber_id IN (SELECT member FROM spenders)
GROUP BY click_id
"""
ACTIVE = """
SELECT DISTINCT who, at_ns FROM (
  SELECT who, event_ns AS at_ns FROM requests
  UNION ALL
  SELECT who, at_ns FROM spender_clicks
  UNION ALL
  SELECT subscriber_id AS who, arrayJoin([opened_ns, last_ns]) AS at_ns FROM visits_log
  WHERE stream_offset < {visits} AND subscriber_id IN (SELECT member FROM spenders)
  UNION ALL
  SELECT member_id AS who, event_ns AS at_ns FROM purchases_log
  WHERE stream_offset < {purchases} AND member_id IN (SELECT member FROM spenders)
  UNION ALL
  SELECT k.who AS who, p.event_ns AS at_ns FROM purchases_log AS p
  INNER JOIN spender_clicks AS k ON k.click_id = p.click_id
  WHERE p.stream_offset < {purchases}
)
"""
ASKED = """
SELECT c.command_id AS command_id, c.in_hour AS in_hour, c.in_day AS in_day, c.points AS points,
  a.at_ns AS active_ns, c.event_ns AS event_ns
FROM counted AS c ASOF LEFT JOIN active AS a ON a.who = c.who AND a.at_ns <= c.day_ago
WHERE c.in_hour > {hour} OR c.in_day > {day}
  OR c.points >= {points} AND a.at_ns > 0 AND c.event_ns - a.at_ns > {over}
ORDER BY toString(command_id)
"""
NEVER = 2**62


def doubts(
    sink: Sink, position: Mapping[str, int], start: int, policy: FraudPolicy
) -> dict[bytes, str]:
    """Why requests to spend have to wait, by command id, of rows from `start` of `commands` on.

    Raises SinkError.
    """
    codes = {code.code: code for code in policy.spending if code.weight}
    if not codes:
        return {}
    at = {stream: int(position.get(stream, 0)) for stream in READ} | {"start": int(start)}
    steps = {
        "spenders": MEMBERS, "requests": REQUESTS, "numbered": NUMBERED,
        "last_of_time": LAST_OF_TIME, "counted": COUNTED, "spender_clicks": CLICKS,
        "active": ACTIVE,
    }  # fmt: skip
    bounds = {"hour": NEVER, "day": NEVER, "points": NEVER, "over": NEVER}
    for code in codes.values():
        bounds |= {name.removesuffix("_ns"): int(bound) for name, bound in code.bounds.items()}
    found = sink.staged(
        {name: step.format(**at) for name, step in steps.items()}, ASKED.format(**at, **bounds)
    )
    told = {}
    for row in found.to_pylist():
        held = [*_velocity(codes.get("VELOCITY"), row), *_dormant(codes.get("DORMANT_BURN"), row)]
        if sum(weight for _, _, weight in held) >= policy.limit:
            told[_id(row["command_id"])] = json.dumps(held, separators=(",", ":"))
    return told


def _velocity(code: FraudCode | None, row: Mapping[str, Any]) -> list[list[Any]]:
    if code is None:
        return []
    for name in ("hour", "day"):
        count, over = int(row[f"in_{name}"]), int(code.bounds[name])
        if count > over:
            word = "an hour" if name == "hour" else "a day"
            said = f"{count} requests to spend within {word}, over {over}"
            return [[code.code, said, code.weight]]
    return []


def _dormant(code: FraudCode | None, row: Mapping[str, Any]) -> list[list[Any]]:
    if code is None or not row["active_ns"] or row["points"] < code.bounds["points"]:
        return []
    idle_ns = int(row["event_ns"]) - int(row["active_ns"])
    if idle_ns <= code.bounds["over_ns"]:
        return []
    said = f"{row['points']} points after {idle_ns // DAY_NS} days without any activity"
    return [[code.code, said, code.weight]]


def _id(raw: Any) -> bytes:
    return bytes(raw) if isinstance(raw, bytes) else parse_id(str(raw)) or NO_ID
