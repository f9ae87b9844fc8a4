"""What people ask of the book before they ask for anything: a member's points, what waits for a
second person, who did what.

    balance    a member's points, with the lots that hold them and what waits; or, as of another
               time, the four sums alone: that is what they were then by all that is known now, or
               what they will be if nothing else happens
    waiting    commands that wait for a second person, the earliest first
    trail      what people did and what was denied (`store/book_trail.py`)
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.ledger.terms import INACTIVITY
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.money import show_amount
from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import show_time
from pipeline.run.answers import in_words
from pipeline.run.book_commands import read_field
from pipeline.run.claims import is_known
from pipeline.run.explain import Row
from pipeline.run.failures import RequestError
from pipeline.run.forms import MEMBER, Field
from pipeline.run.review import WIDTH

if TYPE_CHECKING:
    from pipeline.run.state import State
    from pipeline.store.book_entries import MemberPoints

WRONG = 2
AT = Field("at", "time", "As of when.")
TRAIL_ROWS_MAX = 10_000
NAMES = ("pending", "available", "reserved", "debt")


def answer_book(state: State, request: dict[str, Any], now_ns: int) -> bytes:
    """The answer to one of the three questions, as it will be printed."""
    told: Any
    show: Callable[[Any, str, int], str]
    match request["name"]:
        case "balance":
            told, show = balance(state, request, now_ns), shown_balance
        case "waiting":
            told, show = waiting(state), shown_waiting
        case "trail":
            told, show = trail(state, request), shown_trail
        case other:
            raise RequestError(f"the book is not asked for {other!r}", WRONG)
    if request.get("json"):
        return json.dumps(told, indent=2).encode() + b"\n"
    programme = state.rulebook.programme
    return show(told, programme.points, programme.points_scale).encode()


def balance(state: State, request: dict[str, Any], now_ns: int) -> Row:
    """A member's points. Raises RequestError for somebody whom nobody knows."""
    member = read_field(MEMBER, request.get("member"))
    assert isinstance(member, bytes), "an id"
    if not state.book.knows(member) and not is_known(state, member):
        shown = f"--member {id_text(member)}"
        raise RequestError(f"{shown} is nobody in the circle, and unknown to the book")
    found: Row = {"member": id_text(member)}
    if request.get("at"):
        at_ns = read_field(AT, request["at"])
        assert isinstance(at_ns, int), "a time"
        points = state.book.balance_at(member, at_ns, now_ns)
        return found | {"as_of": show_time(at_ns)} | _by_name(points)
    last = state.book.last_cut()
    found["as_of"] = f"cut {last.number}" if last is not None else ""
    found |= _by_name(state.book.member(member))
    found["lots"] = [
        {
            "lot": id_text(lot.lot_id),
            "remaining": lot.remaining,
            "held": lot.held,
            "earned": show_time(lot.earned_ns),
            "spendable_from": show_time(lot.spendable_from_ns),
            "expires": "" if lot.expires_ns == END_OF_TIME else show_time(lot.expires_ns),
            "expiry_policy": lot.terms.expiry_policy,
            "source": lot.terms.source,
        }
        for lot in state.book.lots(member)
    ]
    found["waiting"] = [item for item in waiting(state) if item["member"] == id_text(member)]
    return found


def _by_name(points: MemberPoints) -> Row:
    return {name: getattr(points, name) for name in NAMES}


def shown_balance(found: Row, unit: str, scale: int) -> str:
    """A balance for a terminal of 80 columns."""
    lines = [f"member {found['member']}"]
    if found["as_of"]:
        lines.append(f"as of {found['as_of']}")
    for name in NAMES:
        lines.append(f"  {name:<10} {show_amount(found[name], scale):>14} {unit}")
    if found.get("lots"):
        lines.append("in lots, the next to be spent first")
    for lot in found.get("lots", ()):
        held = f", {show_amount(lot['held'], scale)} reserved" if lot["held"] else ""
        lines.append(f"  {show_amount(lot['remaining'], scale):>10} {unit}{held}, {_until(lot)}")
        lines.append(f"             {lot['source']}, earned {lot['earned'][:19]}Z")
    if found.get("waiting"):
        lines.append("waiting for a second person")
        lines += [f"  {line}" for item in found["waiting"] for line in _waits(item, unit, scale)]
    return "".join(line + "\n" for line in lines)


def _until(lot: Row) -> str:
    if lot["expires"]:
        return f"until {lot['expires'][:19]}Z"
    idle = str(lot["expiry_policy"]).startswith(INACTIVITY)
    return f"until nothing happens for {lot['expiry_policy']}" if idle else "without end"


def waiting(state: State) -> list[Row]:
    """Commands that wait for a second person, the earliest first."""
    return [
        {
            "request": id_text(waits.request_id),
            "kind": waits.kind,
            "ref": waits.ref,
            "member": id_text(waits.subscriber_id) if waits.subscriber_id != NO_ID else "",
            "points": waits.points,
            "since": show_time(waits.event_ns),
            "actor": waits.actor,
            "role": waits.role,
            "scope": waits.scope,
            "reason": str(_said(waits.body).get("reason", "")),
            "codes": json.loads(waits.doubt) if waits.doubt else [],
        }
        for waits in state.book.awaiting()
    ]


def _said(body: str) -> Row:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def shown_waiting(items: list[Row], unit: str, scale: int) -> str:
    """What waits, for a terminal of 80 columns."""
    lines = [line for item in items for line in _waits(item, unit, scale)]
    return "".join(line + "\n" for line in lines) or "nothing waits for a second person\n"


def _waits(item: Row, unit: str, scale: int) -> list[str]:
    points = f"{show_amount(item['points'], scale)} {unit}"
    lines = [
        f"{item['kind']}: {points} since {item['since'][:19]}Z",
        f"  request    {item['request']}",
        f"  member     {item['member']}",
        f"  by         {_who(item)}",
    ]
    lines += _wrapped("ref", item["ref"]) + _wrapped("reason", item["reason"])
    lines += _wrapped("codes", in_words(json.dumps(item["codes"])) if item["codes"] else "")
    return lines


def _who(item: Row) -> str:
    role = f"{item['role']} of {item['scope']}" if item["scope"] else item["role"]
    return f"{item['actor']} ({role or 'no role'})"


def _wrapped(name: str, text: str) -> list[str]:
    """A line of a name and a text, which may go on below; none where there is no text."""
    head = f"  {name:<11}"
    return textwrap.wrap(text, WIDTH - 2, initial_indent=head, subsequent_indent=" " * len(head))


def trail(state: State, request: dict[str, Any]) -> list[Row]:
    """Rows of the trail behind a number, in their order. Raises RequestError."""
    after, limit = request.get("after") or 0, request.get("limit") or 0
    good = all(isinstance(n, int) and not isinstance(n, bool) for n in (after, limit))
    if not good or not 0 <= after < 2**62 or not 0 < limit <= TRAIL_ROWS_MAX:
        said = f"--after N from 0 on, --limit N from 1 to {TRAIL_ROWS_MAX:,}"
        raise RequestError(said, WRONG)
    return [
        {
            "number": deed.number,
            "action": deed.action,
            "object": deed.object,
            "before": deed.before,
            "after": deed.after,
            "reason": deed.reason,
            "result": deed.result,
            "asked": show_time(deed.asked_ns),
            "booked": show_time(deed.booked_ns),
            "cut": deed.cut,
            "actor": deed.actor,
            "role": deed.role,
            "scope": deed.scope,
            "command": id_text(deed.command_id),
            "place": deed.place,
            "run": id_text(deed.run_id),
        }
        for deed in state.book.trail(int(after), int(limit))
    ]


def shown_trail(items: list[Row], _: str, __: int) -> str:
    """The trail for a terminal of 80 columns."""
    lines: list[str] = []
    for item in items:
        lines.append(f"{item['number']} {item['asked'][:19]}Z {item['action']}: {item['result']}")
        lines += _wrapped("by", _who(item)) + _wrapped("about", item["object"])
        same = item["before"] == item["after"]
        lines += _wrapped("before", "" if same else item["before"])
        lines += _wrapped("unchanged" if same else "after", item["after"])
        lines += _wrapped("reason", item["reason"])
        lines.append(f"  command    {item['command']} (cut {item['cut']})")
    return "".join(line + "\n" for line in lines) or "no rows\n"
