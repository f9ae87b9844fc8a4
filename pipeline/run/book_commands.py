"""`mirrorpoint book KIND`: people ask the book for something, and the journal has it first.

What a kind needs is in `forms.py`. It is read and checked here by the owner: fields that are
missing or wrong (all of them at once), a member whom neither the circle nor the book knows, a part
of the programme that is not the asker's. What is good becomes a command with the asker's name, role
and scope, durable before anybody is told so; the book answers it at the next cut. What it may
refuse then, for lack of points or because the same person approves, it refuses there, on record.

The asker's own reference (`ref`) makes asking twice harmless: what was asked under it is not asked
again, and how it stands is told. Other words under the same reference are refused.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pipeline.ledger.access import refused
from pipeline.ledger.commands import Command, made
from pipeline.ledger.state import Order
from pipeline.model.access import TOLD_BY, scope_of
from pipeline.model.identifiers import NO_ID, id_text, parse_id
from pipeline.model.texts import TELLING, is_plain
from pipeline.model.times import parse_time
from pipeline.model.words import Result
from pipeline.run.answers import LISTED, SAID
from pipeline.run.claims import is_known
from pipeline.run.explain import Row, rows_of
from pipeline.run.failures import RequestError
from pipeline.run.forms import FORMS, Field, Form
from pipeline.run.permissions import Denied
from pipeline.run.review import check_reason
from pipeline.score.orders import command_id

if TYPE_CHECKING:
    from pipeline.run.state import State

WRONG = 2
NAME_CHARACTERS_MAX = 64
REF_CHARACTERS_MAX = 128
PERIOD = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])\Z", re.ASCII)
NEXT_CUT = "as of the next cut"


def ask_book(state: State, request: dict[str, Any], now_ns: int) -> Row:
    """Put a command on record, durably, unless it is; how it stands.

    Raises RequestError, and Denied where the asker's scope does not cover it.
    """
    command = _command(state, request, now_ns)
    state.deliver()
    known = _known(state, command)
    if known is not None:
        return known
    _check_about(state, command)
    if refused(command, _order(state, command)) is Result.NOT_ALLOWED:
        raise Denied(
            f"{command.kind} is denied to {command.actor} ({command.role} of {command.scope}):\n"
            "it is of another part of the programme, or of none",
            command.actor,
            command.kind,
            _about(command),
        )
    state.command(
        command.kind,
        command.ref,
        command.said,
        command.actor,
        now_ns,
        command.subscriber_id,
        event_ns=command.event_ns,
        points=command.points,
        role=command.role,
        scope=command.scope,
    )
    state.deliver()
    return _told(command, "", NEXT_CUT)


def shown(item: Row) -> str:
    """A command as people read it."""
    lines = [f"{item['kind']} {item['command']}", f"  ref        {item['ref']}"]
    role = f"{item['role']} of {item['scope']}" if item["scope"] else item["role"]
    lines += [f"  by         {item['actor']} ({role})", f"  {item['said']}"]
    return "".join(line + "\n" for line in lines)


# From a request to a command


def _command(state: State, request: dict[str, Any], now_ns: int) -> Command:
    """The command that was asked for. Raises RequestError with all that is wrong."""
    kind, said = str(request["name"]), request.get("said")
    problems: list[str] = []
    said = said if isinstance(said, dict) else {}
    values = _values(FORMS[kind], said, problems)
    ref = _reference(str(request.get("ref") or "").strip())
    if ref is None:
        problems.append(f"--ref REF: one line of at most {REF_CHARACTERS_MAX} characters")
    event_ns = _event(str(request.get("at") or ""), now_ns, problems)
    earned = values.get("earned")
    if isinstance(earned, int) and earned > now_ns:
        problems.append("--earned is ahead of the clock")
    if problems:
        raise RequestError("\n".join(problems), WRONG)
    assert ref is not None, "else it was a problem"
    body = {key: value for key, value in values.items() if key not in ("member", "points")}
    if "order" in body:
        body["order"] = command_id(state.keys, "order", str(body["order"]))
    words = {k: id_text(v) if isinstance(v, bytes) else v for k, v in body.items()}
    member, points = values.get("member", NO_ID), values.get("points", 0)
    return made(
        command_id(state.keys, kind, ref),
        kind,
        ref,
        member if isinstance(member, bytes) else NO_ID,
        points if isinstance(points, int) else 0,
        event_ns,
        json.dumps(words, sort_keys=True),
        str(request["actor"]),
        str(request.get("role") or ""),
        str(request.get("scope") or ""),
    )


def _values(form: Form, said: dict[str, Any], problems: list[str]) -> dict[str, int | str | bytes]:
    """What was said, by column or key."""
    found: dict[str, int | str | bytes] = {}
    options = [field.option for field in form.fields]
    problems += [f"--{name}: not asked here" for name in said if name not in options]
    for field in form.fields:
        value = said.get(field.option)
        if value is None or value == "":
            if field.needed:
                problems.append(f"--{field.option} {field.metavar} is needed: {field.help}")
            continue
        try:
            found[field.key] = read_field(field, value)
        except RequestError as error:
            problems.append(str(error))
    return found


def _event(at: str, now_ns: int, problems: list[str]) -> int:
    """When it happened: now, or when they say, which is not ahead of the clock."""
    if not at:
        return now_ns
    found = parse_time(at)
    if found is None:
        problems.append(f"--at {at!r}: {EXPECTED['time']}")
    elif found > now_ns:
        problems.append(f"--at {at} is ahead of the clock")
    return now_ns if found is None else found


def read_field(field: Field, value: Any) -> int | str | bytes:
    """What was said in a field: a number, a text, or an id in bytes. Raises RequestError."""
    if field.says in ("points", "whole"):
        return _number(field, value)
    text = value.strip() if isinstance(value, str) else ""
    if field.says == "reason":
        check_reason(text)
        return text
    if field.says == "word":
        if text not in field.words:
            expected = f"one of {', '.join(field.words)}"
            raise RequestError(f"--{field.option} {text!r}: {expected}", WRONG)
        return text
    found: int | str | bytes | None = READ[field.says](text)
    if found is None:
        raise RequestError(f"--{field.option} {text!r}: {EXPECTED[field.says]}", WRONG)
    return found


def _number(field: Field, value: Any) -> int:
    good = isinstance(value, int) and not isinstance(value, bool)
    if not good or not value or not field.low <= value <= field.high:
        least = "not zero" if field.low < 0 else f"at least {field.low:,}"
        said = f"--{field.option} {value!r}: a whole number, {least}, at most {field.high:,}"
        raise RequestError(said, WRONG)
    return int(value)


def _id(text: str) -> bytes | None:
    found = parse_id(text)
    return found if found != NO_ID else None


def _reference(text: str) -> str | None:
    return text if text and len(text) <= REF_CHARACTERS_MAX and is_plain(text) else None


def _name(text: str) -> str | None:
    good = 0 < len(text) <= NAME_CHARACTERS_MAX and is_plain(text)
    return text if good and "@" not in text and not TELLING.search(text) else None


def _period(text: str) -> str | None:
    return text if PERIOD.match(text) else None


EXPECTED = {
    "id": "an id, such as 7b39288c-2f3e-af09-8849-4ebe5e2c4385",
    "order": f"one line of at most {REF_CHARACTERS_MAX} characters",
    "time": "a time such as 2026-03-02T10:00:00Z",
    "name": f"a name of at most {NAME_CHARACTERS_MAX} characters; no address, host or login",
    "period": "a month, such as 2026-03",
}
READ: dict[str, Any] = {
    "id": _id, "order": _reference, "time": parse_time, "name": _name, "period": _period,
}  # fmt: skip


# What is known of it


def _known(state: State, command: Command) -> Row | None:
    """How it stands, where it was asked before. Raises RequestError where that said otherwise."""
    before = _asked(state, command.command_id)
    if before is None:
        return None
    if before.content != command.content:
        raise RequestError(
            f"--ref {command.ref} was asked before in other words; "
            "whoever means something else takes another reference"
        )
    settled = state.book.settled([command.command_id]).get(command.command_id)
    if settled is None:
        return _told(before, "", f"asked before by {before.actor}, {NEXT_CUT}")
    word = settled.result.name.lower()
    said = f"asked before by {before.actor}: {SAID[word]} (cut {settled.cut})"
    return _told(before, word, said)


def _told(command: Command, answer: str, said: str) -> Row:
    return {
        "command": id_text(command.command_id),
        "kind": command.kind,
        "ref": command.ref,
        "actor": command.actor,
        "role": command.role,
        "scope": command.scope,
        "answer": answer,
        "said": said,
    }


def _about(command: Command) -> str:
    who = command.subscriber_id
    return f"member {id_text(who)}" if who != NO_ID else ""


def _check_about(state: State, command: Command) -> None:
    """Is there a member, an order, a request of that id? Raises RequestError."""
    for name, who in (("member", command.subscriber_id), ("to", command.id("to"))):
        if who == NO_ID or state.book.knows(who):
            continue
        opens = FORMS[command.kind].opens or name == "to"
        shown = f"--{name} {id_text(who)}"
        if not is_known(state, who):
            raise RequestError(f"{shown} is nobody in the circle, and unknown to the book")
        if (not opens or command.points < 0) and not _is_asked_about(state, who):
            raise RequestError(f"{shown} is in the circle and has never had points")
    order, request = command.id("order"), command.id("request")
    if order != NO_ID and not _sees_order(state, command):
        raise RequestError("--order: no order of that reference was ever placed")
    waits = {waiting.request_id for waiting in state.book.awaiting()}
    if request != NO_ID and request not in waits and not _asked(state, request):
        raise RequestError(f"--request {id_text(request)}: nothing of that id was ever asked")


def _is_asked_about(state: State, who: bytes) -> bool:
    """Did anybody ask the book for something for them? The next cut may give them points."""
    (row,) = rows_of(
        state,
        "SELECT count() AS rows FROM commands_log WHERE subscriber_id = {id:UUID}"
        f" AND kind IN ({LISTED})",
        id=id_text(who),
    )
    return int(row["rows"]) > 0


def _sees_order(state: State, command: Command) -> bool:
    """Is there such an order, placed or asked for, and of the asker's part of the programme?"""
    if _order(state, command) is not None:
        return refused(command, _order(state, command)) is not Result.UNKNOWN_ORDER
    word, name = scope_of(command.scope) or ("", "")
    placed = _asked(state, command.id("order"))
    return placed is not None and (not word or placed.text(TOLD_BY.get(word, "")) == name)


def _order(state: State, command: Command) -> Order | None:
    identifier = command.id("order")
    return state.book.order(identifier) if identifier != NO_ID else None


def _asked(state: State, identifier: bytes) -> Command | None:
    """What was first asked under an id, and by whom."""
    rows = rows_of(
        state,
        "SELECT kind, ref, subscriber_id, points, body, actor, role, scope FROM commands_log"
        " WHERE command_id = {id:UUID} ORDER BY stream_offset LIMIT 1",
        id=id_text(identifier),
    )
    for row in rows:
        who = parse_id(str(row["subscriber_id"])) or NO_ID
        by = row["actor"], row["role"], row["scope"]
        said = row["kind"], row["ref"], who, int(row["points"]), 0, row["body"]
        return made(identifier, *said, *by)
    return None
