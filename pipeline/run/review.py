"""`mirrorpoint job review`: the conversions that wait for a person, and what a person decides.

The queue is read from the outcomes of accrual: whatever the fraud codes hold, leave to a person or
block stands there with its codes until it is decided, its time has come or its codes hold no
longer. A decision is a command `review` in the journal, with who made it and why; the next cut
reads it. Nothing is booked here.

    {"conversion_key": id, "verdict": "release" or "decline", "reason": text}

Changes after `locked` (`store/locked.py`) stand there, too; a decision about one says `"about":
"locked"`, and `release` lets the change count. Where a conversion waits for both, the first
decision is about its fraud codes.

A later decision about the same conversion takes the place of an earlier one.
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

from pipeline.model.identifiers import NO_ID, NO_ID_TEXT, id_text, parse_id
from pipeline.model.money import INT64_MAX
from pipeline.model.texts import TELLING, is_plain
from pipeline.model.words import TargetReason
from pipeline.run.admission import standing_of
from pipeline.run.explain import Asked, Row, rows_of, when
from pipeline.run.failures import RequestError
from pipeline.store.folds import READ, exceptions
from pipeline.store.locked import ABOUT as LOCKED

if TYPE_CHECKING:
    from pipeline.run.state import State

WRONG = 2
REVIEW = "review"
VERDICTS = ("release", "decline")
REASON_CHARACTERS_MAX = 200
WIDTH = 80
QUEUED = tuple(
    reason.name.lower()
    for reason in (TargetReason.FRAUD_HOLD, TargetReason.FRAUD_REVIEW, TargetReason.FRAUD_BLOCKED)
)
DECIDED = TargetReason.FRAUD_DECLINED.name.lower()


def queue(state: Asked) -> list[Row]:
    """Every conversion that waits for a person, the one that has waited longest first."""
    words = ", ".join(f"'{word}'" for word in QUEUED)
    rows = rows_of(
        state,
        "SELECT conversion_key, partner, conversion_id, subscriber_id, points, reason, explanation,"
        f" release_at, fold, cut FROM conversions WHERE reason IN ({words})",
    )
    since, decided = _since(state), _decided(state)
    found = [_item(row, since, decided.get(str(row["conversion_key"]))) for row in rows]
    found += changes_after_lock(state)
    return sorted(found, key=lambda item: (item["since"], item["conversion"]))


def _item(row: Row, since: dict[str, str], decision: Row | None) -> Row:
    key = str(row["conversion_key"])
    fraud = json.loads(row["explanation"]).get("fraud", {})
    held = row["reason"] == QUEUED[0] and not str(row["release_at"]).startswith("1970-01-01")
    return {
        "kind": "conversion",
        "conversion": key,
        "partner": row["partner"],
        "conversion_id": row["conversion_id"],
        "member": str(row["subscriber_id"]),
        "points": int(fraud.get("points", row["points"])),
        "why": row["reason"],
        "codes": fraud.get("codes", []),
        "score": fraud.get("score", 0),
        "since": since[key],
        "until": iso(row["release_at"]) if held else "",
        "decision": f"{decision['verdict']} by {decision['actor']}" if decision else "",
    }


def _since(state: Asked) -> dict[str, str]:
    """By conversion, the time of the cut since which it has been where it is in the queue."""
    words = ", ".join(f"'{word}'" for word in QUEUED)
    rows = rows_of(
        state,
        "SELECT c.conversion_key AS conversion_key, c.reason AS reason, k.now_at AS now_at"
        " FROM conversions_log AS c INNER JOIN cuts_log AS k ON k.number = c.cut"
        " WHERE c.conversion_key IN (SELECT conversion_key FROM conversions"
        f" WHERE reason IN ({words}))"
        " ORDER BY c.fold, c.cut",
    )
    found: dict[str, tuple[str, str]] = {}
    for row in rows:
        key, reason = str(row["conversion_key"]), str(row["reason"])
        if key not in found or found[key][0] != reason:
            found[key] = reason, iso(row["now_at"])
    return {key: began for key, (_, began) in found.items()}


def changes_after_lock(state: Asked, key: str = "") -> list[Row]:
    """Conversions, or one, that messages would change although they were locked."""
    everything = dict.fromkeys(READ, INT64_MAX)
    rows = rows_of(
        state,
        "SELECT x.conversion_key AS conversion_key, x.partner AS partner,"
        " x.conversion_id AS conversion_id, toString(x.status) AS status,"
        " fromUnixTimestamp64Nano(x.received_ns, 'UTC') AS received_at, c.points AS points,"
        f" c.subscriber_id AS member FROM ({exceptions(everything)}) AS x"
        " LEFT JOIN conversions AS c ON c.conversion_key = x.conversion_key"
        " WHERE x.verdict = '' ORDER BY x.received_ns, x.conversion_key",
    )
    found: dict[str, Row] = {}
    for row in rows:
        who, received = str(row["conversion_key"]), iso(row["received_at"])
        if key not in ("", who):
            continue
        item = {
            "kind": "change",
            "conversion": who,
            "partner": row["partner"],
            "conversion_id": row["conversion_id"],
            "member": str(row["member"]),
            "points": int(row["points"]),
            "why": "changed after locked",
            "codes": [],
            "score": 0,
            "since": received,
            "until": "",
            "decision": "",
        }
        said = f"a message says {row['status']}, received {to_second(received)}"
        found.setdefault(who, item)["codes"].append(["LOCKED", said, 0])
    return list(found.values())


def iso(moment: object) -> str:
    """A time of the store in ISO 8601."""
    return when(moment).replace(" ", "T")


def to_second(moment: str) -> str:
    """A time in ISO 8601 without what is behind the second, for people."""
    return f"{moment[:19]}Z"


def _decided(state: Asked) -> dict[str, Row]:
    """By conversion, the last decision that no cut has read yet."""
    rows = rows_of(
        state,
        "SELECT JSONExtractString(body, 'conversion_key') AS conversion_key,"
        " JSONExtractString(body, 'verdict') AS verdict, actor FROM commands_log"
        f" WHERE kind = '{REVIEW}' AND stream_offset >= (SELECT"
        " max(JSONExtractUInt(position, 'commands')) FROM cuts_log) ORDER BY stream_offset",
    )
    return {str(row["conversion_key"]): row for row in rows}


def shown(items: list[Row]) -> str:
    """The queue for a terminal of 80 columns."""
    lines: list[str] = []
    for item in items:
        lines.append(f"{item['partner']} {item['conversion_id']}: {item['points']} points")
        until = f", until {to_second(item['until'])}" if item["until"] else ""
        lines.append(f"  {item['why']} since {to_second(item['since'])}{until}")
        lines.append(f"  conversion {item['conversion']}")
        lines.append(f"  member     {item['member']}")
        for code, what, weight in item["codes"]:
            text = f"{code} ({weight}): {what}" if weight else f"{code}: {what}"
            lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent=" " * 6)
        if item["decision"]:
            lines.append(f"  {item['decision']}, as of the next cut")
    return "".join(line + "\n" for line in lines)


def decide(state: State, request: dict[str, Any], now: int) -> Row:
    """Put a decision on record, durably; what was decided. Raises RequestError."""
    verdict, text = str(request["verdict"]), str(request.get("reason", "")).strip()
    key = parse_id(str(request["conversion"]))
    if verdict not in VERDICTS or key is None or key == NO_ID:
        raise RequestError(f"{request['conversion']!r} is not the id of a conversion", WRONG)
    check_reason(text)
    row = _conversion(state, id_text(key))
    told = {"conversion_key": id_text(key), "verdict": verdict, "reason": text}
    if row["reason"] not in QUEUED and changes_after_lock(state, id_text(key)):
        told["about"] = LOCKED
    who = parse_id(str(row["subscriber_id"])) or NO_ID
    ref, role = f"{id_text(key)} {now}", standing_of(request)
    state.command(REVIEW, ref, told, request["actor"], now, who, **role)
    state.deliver()
    return told


def check_reason(text: str) -> None:
    """Raise RequestError unless a text is fit to be put on record as a reason."""
    if not text:
        raise RequestError("--reason TEXT is needed: why it is decided so", WRONG)
    if len(text) > REASON_CHARACTERS_MAX or not is_plain(text):
        most = f"one line of at most {REASON_CHARACTERS_MAX} characters"
        raise RequestError(f"--reason: {most}", WRONG)
    if "@" in text or TELLING.search(text):
        raise RequestError("--reason names an address, host or login; say why, not who", WRONG)


def _conversion(state: State, key: str) -> Row:
    """The conversion's outcome. Raises RequestError where there is nothing to decide."""
    found = rows_of(
        state,
        "SELECT reason, subscriber_id, explanation FROM conversions"
        " WHERE conversion_key = {id:UUID}",
        id=key or NO_ID_TEXT,
    )
    if not found:
        raise RequestError(f"no conversion has the id {key}, or no accrual has run since it came")
    row = found[0]
    if row["reason"] in (*QUEUED, DECIDED) or "review" in json.loads(row["explanation"]):
        return row
    if changes_after_lock(state, key):
        return row
    raise RequestError(f"conversion {key} does not wait for a person: it is {row['reason']}")
