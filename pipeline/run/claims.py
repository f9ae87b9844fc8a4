"""Claims: a member says that a purchase is missing, before any message told of it.

A claim is a command `claim` in the journal: member, partner, order reference, when and how much.
Nothing is paid on a member's word. What becomes of a claim is not stored but follows from what
arrives, so it is matched the moment the conversion turns up:

    open       no message of the partner tells of this order (or only parked ones)
    answered   a conversion of this order is there, and what it came to is shown
    closed     its points are the member's, or a person closed the claim (a command `claim_closed`)

    {"partner": id, "order_ref": reference, "amount": decimal text, "currency": code}
    {"claim": id, "reason": text}

The order reference is kept as those of messages are: one that may tell of a person as its keyed
hash. The same order claimed twice by a member is one claim.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipeline.model.identifiers import NO_ID, digest, id_text, parse_id
from pipeline.model.money import CURRENCY_SCALE, AmountError, parse_amount
from pipeline.model.texts import is_plain, kept_reference
from pipeline.run.admission import standing_of
from pipeline.run.cases import to_ns
from pipeline.run.explain import Asked, Row, rows_of
from pipeline.run.failures import RequestError
from pipeline.run.review import iso, to_second

if TYPE_CHECKING:
    from pipeline.run.state import State

WRONG = 2
CLAIM, CLOSED = "claim", "claim_closed"
REFERENCE_CHARACTERS_MAX = 128


def claims(state: Asked) -> list[Row]:
    """Every claim in the order of their coming, each with its `state`."""
    told = rows_of(
        state,
        "SELECT command_id, subscriber_id, body, actor, event_at, received_at FROM commands_log"
        f" WHERE kind = '{CLAIM}' ORDER BY stream_offset LIMIT 1 BY command_id",
    )
    if not told:
        return []
    closed = {
        str(row["claim"]): str(row["reason"])
        for row in rows_of(
            state,
            "SELECT JSONExtractString(body, 'claim') AS claim,"
            " JSONExtractString(body, 'reason') AS reason FROM commands_log"
            f" WHERE kind = '{CLOSED}' ORDER BY stream_offset",
        )
    }
    found = _found(state)
    return [_item(row, closed.get(str(row["command_id"])), found) for row in told]


def _found(state: Asked) -> dict[tuple[str, str], list[Row]]:
    """By partner and order reference, the conversions that claims are about, and parked messages.

    A conversion that no accrual has seen yet has no reason.
    """
    rows = rows_of(
        state,
        "SELECT DISTINCT p.partner AS partner, r.ref AS ref, p.conversion_key AS conversion,"
        " toString(p.parked) AS parked, toString(c.reason) AS reason, c.points AS points,"
        " c.subscriber_id AS member FROM purchases_log AS p INNER JOIN ("
        "  SELECT DISTINCT JSONExtractString(body, 'partner') AS partner,"
        "  JSONExtractString(body, 'order_ref') AS ref FROM commands_log"
        f"  WHERE kind = '{CLAIM}') AS r ON r.partner = p.partner"
        " LEFT JOIN conversions AS c ON c.conversion_key = p.conversion_key"
        " WHERE p.order_ref = r.ref OR p.conversion_id = r.ref ORDER BY conversion, parked",
    )
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((str(row["partner"]), str(row["ref"])), []).append(row)
    return found


def _item(row: Row, closed: str | None, found: dict[tuple[str, str], list[Row]]) -> Row:
    body, member = json.loads(row["body"]), str(row["subscriber_id"])
    messages = found.get((body["partner"], body["order_ref"]), [])
    good = [one for one in messages if one["parked"] == "none"]
    paid = [one for one in good if one["reason"] == "awarded" and str(one["member"]) == member]
    state, said = "open", "no message of the partner tells of it"
    if messages and not good:
        said = f"its message is parked: {messages[0]['parked']}"
    if good:
        state, said = "answered", _said((paid or good)[0], member)
    if paid or closed is not None:
        state, said = "closed", closed or said
    return {
        "kind": "claim",
        "claim": str(row["command_id"]),
        "state": state,
        "said": said,
        "member": member,
        "partner": body["partner"],
        "order": body["order_ref"],
        "amount": f"{body['amount']} {body['currency']}",
        "bought": iso(row["event_at"]),
        "since": iso(row["received_at"]),
        "conversions": sorted({str(one["conversion"]) for one in good}),
    }


def _said(conversion: Row, member: str) -> str:
    if not conversion["reason"]:
        return "its message came; the next cut will rate it"
    belongs = str(conversion["member"])
    if parse_id(belongs) not in (NO_ID, parse_id(member)):
        return f"it is another member's: {conversion['reason']}"
    return f"{conversion['reason']}, {conversion['points']} points"


def claim(state: State, request: dict[str, Any], now: int) -> Row:
    """Put a claim on record, durably; the claim as it stands. Raises RequestError."""
    member = parse_id(str(request["member"]))
    if member is None or not is_known(state, member):
        raise RequestError(f"--member {request['member']!r} is nobody in the circle", WRONG)
    partner = state.rulebook.partner(str(request["partner"]))
    if partner is None:
        known = ", ".join(p.id for p in state.rulebook.partners)
        raise RequestError(f"--partner {request['partner']!r} is none of {known}", WRONG)
    bought_ns = _bought(str(request["at"]), now)
    contract = partner.contract_at(bought_ns) or partner.contract
    amount = str(request["amount"]).strip()
    try:
        good = parse_amount(amount, CURRENCY_SCALE[contract.currency])
    except AmountError:
        good = -1
    if good <= 0:
        raise RequestError(f"--amount {amount!r} is not an amount of {contract.currency}", WRONG)
    order = str(request["order"]).strip()
    if not order or len(order) > REFERENCE_CHARACTERS_MAX or not is_plain(order):
        raise RequestError("--order REF: the reference of the order, on one line", WRONG)
    kept = kept_reference(order, state.keys.audit)
    body = {
        "partner": partner.id,
        "order_ref": kept,
        "amount": amount,
        "currency": contract.currency,
    }
    ref = f"{id_text(member)} {partner.id} {kept}"
    known_as = id_text(digest(state.keys.visit, "command", CLAIM, ref))
    if all(item["claim"] != known_as for item in claims(state)):
        role = standing_of(request)
        state.command(CLAIM, ref, body, request["actor"], now, member, event_ns=bought_ns, **role)
        state.deliver()
    return _one(state, known_as)


def close(state: State, request: dict[str, Any], reason: str, now: int) -> Row:
    """Close a claim by hand, durably; the claim as it stands. Raises RequestError."""
    found = _one(state, id_text(parse_id(str(request["claim"])) or NO_ID))
    if found["state"] == "closed":
        raise RequestError(f"claim {found['claim']} is closed: {found['said']}")
    member = parse_id(found["member"]) or NO_ID
    told = {"claim": found["claim"], "reason": reason}
    ref, role = f"{found['claim']} {now}", standing_of(request)
    state.command(CLOSED, ref, told, request["actor"], now, member, **role)
    state.deliver()
    return _one(state, found["claim"])


def _one(state: Asked, identity: str) -> Row:
    for item in claims(state):
        if item["claim"] == identity:
            return item
    raise RequestError(f"no claim has the id {identity or '(none)'}", WRONG)


def is_known(state: Asked, member: bytes) -> bool:
    """Was the subscriber ever in the circle?"""
    (row,) = rows_of(
        state,
        "SELECT count() AS rows FROM basis_log WHERE subscriber_id = {id:UUID}",
        id=id_text(member),
    )
    return member != NO_ID and int(row["rows"]) > 0


def _bought(text: str, now: int) -> int:
    try:
        found = to_ns(datetime.fromisoformat(text))
    except ValueError:
        said = f"--at {text!r} is not a time such as 2026-03-02T10:00:00Z"
        raise RequestError(said, WRONG) from None
    if found > now:
        raise RequestError(f"--at {text} is ahead of the clock", WRONG)
    return found


def shown(items: list[Row]) -> str:
    """Claims for a terminal of 80 columns; closed ones are left out."""
    lines: list[str] = []
    for item in items:
        if item["state"] == "closed":
            continue
        lines.append(f"{item['partner']} order {item['order']}: {item['amount']}")
        since, bought = to_second(item["since"]), to_second(item["bought"])
        lines.append(f"  claim {item['state']} since {since}, bought {bought}")
        lines.append(f"  claim      {item['claim']}")
        lines.append(f"  member     {item['member']}")
        lines.append(f"  {item['said']}")
    return "".join(line + "\n" for line in lines)
