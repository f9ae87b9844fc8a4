"""`explain --missing --order REF`: the links from the visit to the points, up to the one that
broke.

Told what the asker knows (the order; perhaps the subscriber, or an address and a time), it walks
the path in order: was the address bound, was its holder in the parse set, was there a visit, a
decision, a click, a message of the partner, an attribution, an award, a booking. Links that held
are shown; the first that did not is shown last under the word `broken`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pipeline.model.addresses import V4_BITS_MIN, cut_prefix, parse_prefix, prefix_hash
from pipeline.model.identifiers import NO_ID_TEXT, id_text, parse_id
from pipeline.model.money import INT64_MAX
from pipeline.model.texts import HASHED, kept_reference
from pipeline.run.cases import to_ns
from pipeline.run.explain import Asked, Link, Row, explain_id, link_of_message, rows_of, when
from pipeline.run.failures import RequestError

WRONG = 2
UNREAD_SHOWN = 5
# The basis that each setting reads; where the journal names none, whoever may be read under any.
PARSED = {"consented": ("consented",), "listed": ("consented", "listed")}
WORDS = {
    "held": "the partner approved it; for the return window its points are held until {release}",
    "pending": "the partner has not confirmed it yet",
    "declined": "the partner declined it",
    "orphan": "no click of ours, and no member the shop could name, leads to it",
    "stood_down": "another affiliate brought this visit; we made no claim",
    "outside_window": "the click is older than the contract's attribution window, or younger than "
    "the purchase",
    "ambiguous": "the address changed hands around the visit, so it is not certain whose it was",
    "no_rule": "no accrual rule of the partner was in force for it",
    "no_points": "by its rules it is worth less than one point, or a condition of them does not "
    "hold, or a cap or budget is used up",
    "wrong_partner": "the click it names belongs to another partner",
    "not_a_member": "the subscriber was not a member at the visit",
    "fraud_hold": "its fraud codes hold it until {release}; see `job review`",
    "fraud_review": "its fraud codes leave it to a person; see `job review`",
    "fraud_blocked": "its fraud codes block it unless a person releases it; see `job review`",
    "fraud_declined": "it was refused, by its fraud codes or by a person",
}


def find_break(state: Asked, question: dict[str, Any]) -> list[Link]:
    """The chain for `order`, with `subscriber`, or `address` and `at`, where given."""
    order = str(question.get("order", ""))
    messages = rows_of(
        state,
        "SELECT *, event_ns FROM purchases_log"
        " WHERE order_ref = {ref:String} OR conversion_id = {ref:String} ORDER BY stream_offset",
        ref=kept_reference(order, state.keys.audit),
    )
    chain, subscriber, moment = _asker(state, question, messages)
    if chain and chain[-1].what == "broken":
        return chain
    if not messages:
        unread = _unread(state)
        said = f"no message about order {order} has arrived from any partner"
        if unread:
            said = f"no message that could be read is about order {order}"
        return [*chain, *unread, Link("broken", said), *_seen_instead(state, subscriber, moment)]
    chain += [link_of_message(row) for row in messages]
    good = [row for row in messages if row["parked"] == "none"]
    if not good:
        last = messages[-1]
        chain.append(Link("broken", f"parked: {last['parked']}: {last['parked_detail']}", last))
        return chain
    return chain + _outcome(state, good[-1], subscriber)


def _unread(state: Asked) -> list[Link]:
    """Messages that may be about any order, since nothing of them could be read.

    Their texts are sealed; whoever has the files can look at the rows named.
    """
    unread = "parked = 'malformed' AND order_ref = '' AND conversion_id = ''"
    (counted,) = rows_of(state, f"SELECT count() AS rows FROM purchases_log WHERE {unread}")
    count = int(counted["rows"])
    if not count:
        return []
    newest = rows_of(
        state,
        f"SELECT * FROM purchases_log WHERE {unread} ORDER BY stream_offset DESC"
        f" LIMIT {UNREAD_SHOWN}",
    )
    places = ", ".join(f"row {row['row']} of {row['input']}" for row in reversed(newest))
    last = f"the last {len(newest)} are " if count > len(newest) else ""
    messages = "malformed message" if count == 1 else "malformed messages"
    said = f"{count:,} {messages} arrived whose order could not be read: {last}{places}"
    return [*(link_of_message(row) for row in reversed(newest)), Link("unread", said, counted)]


def _outcome(state: Asked, message: Row, subscriber: str) -> list[Link]:
    """What became of the conversion that the message belongs to."""
    key = str(message["conversion_key"])
    found = rows_of(state, "SELECT * FROM conversions WHERE conversion_key = {id:UUID}", id=key)
    if not found:
        return [Link("broken", "no accrual has run since its message came; see `job accrue`")]
    row = found[0]
    whole = explain_id(state, key) or []
    behind = [link for link in whole if link.what not in ("message", "entry", "booked")]
    if subscriber and str(row["subscriber_id"]) not in (subscriber, NO_ID_TEXT):
        return [*behind, Link("broken", f"it belongs to subscriber {row['subscriber_id']}")]
    if row["reason"] == "awarded" and row["result"] in ("ok", "exists", "stale"):
        booked = [link for link in whole if link.what in ("entry", "booked")]
        done = Link("whole", f"no link is broken: {row['points']} points were booked")
        return [*behind, *booked, done]
    if row["result"] not in ("ok", "exists", "stale", ""):
        return [*behind, Link("broken", f"the book refused it: {row['result']}")]
    words = WORDS.get(row["reason"], str(row["reason"])).format(release=when(row["release_at"]))
    named = _named_click(state, message) if row["reason"] == "orphan" else []
    return [*behind, *named, Link("broken", words, row)]


def _named_click(state: Asked, message: Row) -> list[Link]:
    """Which click an orphan names, if any: one we never handed out."""
    if not message["click_ref"]:
        return [Link("click", "the message names no click")]
    if message["click_ref"].startswith(HASHED):
        return [Link("click", "the message names something that is no id of a click")]
    return [Link("click", f"the message names {message['click_ref']}, which we never handed out")]


def _asker(
    state: Asked, question: dict[str, Any], messages: list[Row]
) -> tuple[list[Link], str, int]:
    """Who asks: links from address or subscriber to the circle, and their id and time."""
    moment = _moment(str(question.get("at", "")))
    if not moment and messages:
        moment = int(messages[0]["event_ns"])
    subscriber = str(question.get("subscriber", ""))
    chain: list[Link] = []
    if question.get("address"):
        if not question.get("at"):
            raise RequestError("--address needs --at TIME: addresses change hands", WRONG)
        chain, subscriber = _holder(state, str(question["address"]), moment)
    elif subscriber:
        known = parse_id(subscriber)
        if known is None:
            raise RequestError(f"--subscriber {subscriber!r} is not a subscriber id", WRONG)
        subscriber = id_text(known)
    if subscriber:
        chain += _standing(state, subscriber, moment)
    return chain, subscriber, moment


def _holder(state: Asked, address: str, moment: int) -> tuple[list[Link], str]:
    """Who held an address at a time, by what was known then: as the gate asked it.

    The longest prefix that is bound wins; one that was given up leaves it to the wider ones.
    """
    host = address.partition("/")[0]
    found = parse_prefix(f"{host}/{128 if ':' in host else 32}")
    if found is None or parse_prefix(address) is None:
        raise RequestError(f"--address {address!r} is not an address", WRONG)
    given_up: Row | None = None
    for row in _facts(state, found[:2], 1 if ":" in host else V4_BITS_MIN + 96, moment):
        if row["kind"] == "bind":
            text = f"the address was held by {row['subscriber_id']} since {when(row['event_at'])}"
            return [Link("binding", text, row)], str(row["subscriber_id"])
        given_up = given_up or row
    if given_up:
        text = f"the address was given up {when(given_up['event_at'])}, before that time"
        return [Link("broken", text, given_up)], ""
    said = "no binding: nobody in the circle was known to hold that address at that time"
    return [Link("broken", said)], ""


def _facts(state: Asked, address: tuple[int, int], least: int, moment: int) -> Iterator[Row]:
    """The fact that ruled each prefix around an address, the longest prefix first."""
    lengths = "SELECT DISTINCT prefix_length AS bits FROM bindings_log ORDER BY bits DESC"
    for bits in (int(row["bits"]) for row in rows_of(state, lengths)):
        if bits >= least:
            hashed = prefix_hash(state.keys.address, *cut_prefix(*address, bits))
            yield from rows_of(
                state,
                "SELECT * FROM bindings_log WHERE address_hash = {hash:UUID}"
                " AND event_ns <= {at:Int64} AND received_ns <= {at:Int64}"
                " ORDER BY event_ns DESC, received_ns DESC, stream_offset DESC LIMIT 1",
                hash=id_text(hashed),
                at=moment,
            )


def _standing(state: Asked, subscriber: str, moment: int) -> list[Link]:
    """The subscriber's basis at the time; broken where it kept us from looking."""
    rows = rows_of(
        state,
        "SELECT * FROM basis_log WHERE subscriber_id = {id:UUID}"
        " AND event_ns <= {at:Int64} AND received_ns <= {at:Int64}"
        " ORDER BY event_ns DESC, received_ns DESC, stream_offset DESC LIMIT 1",
        id=subscriber,
        at=moment or INT64_MAX,
    )
    if not rows:
        return [Link("broken", "not in the circle at that time, so nothing was read")]
    basis = Link("basis", f"{rows[0]['state']} since {when(rows[0]['event_at'])}", rows[0])
    parse_for = _parse_for(state)
    if rows[0]["state"] not in PARSED[parse_for]:
        said = f"{rows[0]['state']}: not in the parse set ({parse_for}) at that time"
        return [Link("broken", f"{said}, so nothing was read", rows[0])]
    return [basis]


def _parse_for(state: Asked) -> str:
    """The setting under which input was last read."""
    found = rows_of(
        state,
        "SELECT JSONExtractString(body, 'parse_for') AS parse_for FROM commands_log"
        " WHERE kind IN ('ingest_begin', 'settings') AND parse_for != ''"
        " ORDER BY stream_offset DESC LIMIT 1",
    )
    return str(found[0]["parse_for"]) if found else "listed"


def _seen_instead(state: Asked, subscriber: str, moment: int) -> list[Link]:
    """Visits of the subscriber in the day before, to help the search."""
    if not subscriber:
        return []
    rows = rows_of(
        state,
        "SELECT v.*, d.kind AS decided, d.reason AS why FROM visits v LEFT JOIN decisions d"
        " ON d.visit_id = v.visit_id WHERE v.subscriber_id = {id:UUID}"
        " AND ({at:Int64} = 0"
        " OR abs(toUnixTimestamp64Nano(v.last_at) - {at:Int64}) < 86400000000000)"
        " ORDER BY v.first_at DESC LIMIT 5",
        id=subscriber,
        at=moment,
    )
    return [
        Link(
            "visit",
            f"{row['partner']} {when(row['first_at'])}: decision {row['decided']} ({row['why']})",
            row,
        )
        for row in rows
    ]


def _moment(text: str) -> int:
    if not text:
        return 0
    try:
        return to_ns(datetime.fromisoformat(text))
    except ValueError:
        raise RequestError(
            f"--at {text!r} is not a time such as 2026-03-02T10:00:00Z", WRONG
        ) from None
