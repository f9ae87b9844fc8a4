"""`explain`: from any id to its cause, down to the packet; `--missing`: the first link that broke.

A chain is a list of links, each with the facts that stand in its row. It is read from the store by
id, from the book for entries and from the rulebooks for the line of a rule, so what it says can be
checked by hand. Addresses and logins are not in it, unless asked for with an audited word
(`--with-identity`).
"""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.ledger.accounts import KIND_WORDS, EntryKind
from pipeline.model.identifiers import NO_ID, NO_ID_TEXT, Keys, id_text, parse_id
from pipeline.model.money import CURRENCY_SCALE, show_amount
from pipeline.run.failures import RequestError
from pipeline.run.in_words import sentence
from pipeline.score.reasoning import told

if TYPE_CHECKING:
    from pipeline.rulebook.model import Rulebook
    from pipeline.store.connections import Connections

Row = dict[str, Any]
WIDTH = 80
RE_RATE = KIND_WORDS[int(EntryKind.RE_RATE)]
PARAMETER = re.compile(r"\{(?P<name>\w+):(?P<type>UUID|Int64|Time|String)\}")
# Where an id may be found, and the link that a chain starts with there.
PLACES = (
    ("entries", "entry_id"),
    ("entries", "transfer_id"),
    ("conversions", "conversion_key"),
    ("purchases_log", "message_id"),
    ("clicks", "click_id"),
    ("decisions", "decision_id"),
    ("visits", "visit_id"),
    ("commands_log", "command_id"),
    ("runs", "run_id"),
    ("cuts", "cut_id"),
)


class Asked(Protocol):
    """What chains are read from: a state that is open, or one that was closed."""

    @property
    def keys(self) -> Keys:
        """The keys of the state."""
        ...

    @property
    def clickhouse(self) -> Connections:
        """Its store."""
        ...

    @property
    def rulebook(self) -> Rulebook:
        """The rulebook in force."""
        ...

    def rulebook_of(self, rulebook_hash: bytes) -> Rulebook | None:
        """The rulebook with this hash; None where the journal has none."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a chain: what it is, one line about it, and its facts."""

    what: str
    text: str
    facts: Row = field(default_factory=dict)
    details: tuple[str, ...] = ()

    def as_dict(self) -> Row:
        """The link as a JSON object."""
        facts = {k: v if isinstance(v, int | str) else str(v) for k, v in self.facts.items()}
        found: Row = {"what": self.what, "text": self.text, "facts": facts}
        return found | ({"details": list(self.details)} if self.details else {})


def show_chain(chain: list[Link]) -> str:
    """A chain for a terminal of 80 columns."""
    lines: list[str] = []
    for link in chain:
        head = f"{link.what:<11} "
        lines += textwrap.wrap(
            link.text,
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_on_hyphens=False,
        )
        for detail in link.details:
            lines += textwrap.wrap(
                detail,
                WIDTH,
                initial_indent=" " * len(head) + "  ",
                subsequent_indent=" " * len(head) + "       ",
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def explain_id(state: Asked, text: str) -> list[Link] | None:
    """The chain that starts at an id; None where nothing has it."""
    wanted = parse_id(text)
    if wanted is None:
        raise RequestError(f"{text!r} is not an id; ids look like {NO_ID_TEXT}", 2)
    for table, column in PLACES:
        rows = rows_of(
            state, f"SELECT * FROM {table} WHERE {column} = {{id:UUID}}", id=id_text(wanted)
        )
        if rows:
            return _from(state, table, rows)
    return None


def _from(state: Asked, table: str, rows: list[Row]) -> list[Link]:
    first = rows[0]
    match table:
        case "entries":
            return _entries(state, rows)
        case "conversions":
            return _booked(state, first) + _conversion(state, first["conversion_key"])
        case "purchases_log":
            return [link_of_message(first), *_conversion(state, first["conversion_key"])]
        case "clicks":
            return [_click(state, first), *_visit_chain(state, first["visit_id"])]
        case "decisions":
            return _visit_chain(state, first["visit_id"])
        case "visits":
            return _visit_chain(state, first["visit_id"])
        case "commands_log":
            return _commands(state, first["command_id"])
    return [Link(table.rstrip("s"), ", ".join(f"{k} {v}" for k, v in first.items()), first)]


def _entries(state: Asked, rows: list[Row]) -> list[Link]:
    """All legs of the transfer, then its cause."""
    first = rows[0]
    legs = rows_of(
        state,
        "SELECT * FROM entries WHERE transfer_id = {id:UUID} ORDER BY leg",
        id=str(first["transfer_id"]),
    )
    scale = state.rulebook.programme.points_scale
    chain = [Link("in words", sentence(legs, scale)), *(_leg(leg, scale) for leg in legs)]
    chain += _lots(state, legs)
    chain.append(
        Link(
            "booked",
            f"as target {first['cause_version']} of {first['cause_kind']} {first['cause_id']}, "
            f"effective {when(first['effective_at'])}, period {first['period']}, "
            f"cut {first['cut']}, "
            f"by {first['actor']}, run {first['run_id']}",
        )
    )
    if first["cause_kind"] in ("order", "command"):
        return chain + _commands(state, first["cause_id"])
    if first["kind"] == RE_RATE:
        chain += _reratings(state, int(first["cut"]))
    chain.append(_rule(state, first))
    if str(first["conversion_key"]) == NO_ID_TEXT:
        return chain
    return chain + _conversion(state, first["conversion_key"], int(first["cut"]))


def _reratings(state: Asked, cut: int) -> list[Link]:
    """The re-ratings that were approved at a cut: who asked for them and why, who approved."""
    rows = rows_of(
        state,
        "SELECT c.*, d.actor AS approved_by, JSONExtractString(c.body, 'reason') AS reason"
        " FROM commands_log AS c INNER JOIN ("
        "  SELECT toUUIDOrZero(JSONExtractString(body, 'request')) AS request, actor"
        "  FROM commands_log WHERE kind = 'approve' AND stream_offset IN ("
        "    SELECT place FROM answers_log"
        "    WHERE cut = {cut:Int64} AND kind = 'approve' AND result = 'ok')"
        ") AS d ON d.request = c.command_id WHERE c.kind = 'rerate' ORDER BY c.stream_offset"
        " LIMIT 1 BY c.command_id",
        cut=cut,
    )
    return [
        Link(
            "re-rating",
            f"{row['command_id']} asked for by {row['actor']}: {row['reason']}; "
            f"approved by {row['approved_by']}",
            row,
        )
        for row in rows
    ]


def _lots(state: Asked, legs: list[Row]) -> list[Link]:
    """The lots that a transfer changed, by what their points came from."""
    links = []
    for lot, source, points in json.loads(legs[0]["lots"] or "[]"):
        shown = show_amount(points, state.rulebook.programme.points_scale)
        links.append(Link("lot", f"{shown} points {_source(state, source)}", {"lot_id": lot}))
    return links


def _source(state: Asked, source: str) -> str:
    """What points came from, in words."""
    bought = rows_of(
        state,
        "SELECT partner, conversion_id, event_at FROM conversions WHERE conversion_key = {id:UUID}",
        id=source,
    )
    for row in bought:
        return f"of {row['partner']} {row['conversion_id']}, bought {when(row['event_at'])}"
    for row in rows_of(
        state, "SELECT kind, ref FROM commands_log WHERE command_id = {id:UUID} LIMIT 1", id=source
    ):
        return f"by {row['kind']} {row['ref']}"
    return f"of {source}"


def _leg(row: Row, points_scale: int) -> Link:
    scale = CURRENCY_SCALE.get(row["commodity"], points_scale)
    side = "debit" if row["amount"] >= 0 else "credit"
    amount = show_amount(abs(row["amount"]), scale)
    return Link(
        "entry", f"{row['kind']}: {side} {amount} {row['commodity']} {row['account']}"
        f" ({row['entry_id']})", row,
    )  # fmt: skip


def _rule(state: Asked, row: Row) -> Link:
    """The line of the rule that rated this, in the rulebook that was in force."""
    rulebook = state.rulebook_of(_bytes(row["rulebook_hash"]))
    place = rulebook.where(_bytes(row["rule_version"])) if rulebook else None
    where = f"rules/{place.file}:{place.line} ({place.key})" if place else "not in the journal"
    return Link(
        "rule",
        f"{row['rule_id'] or 'none'} at {where}, version {row['rule_version']}, "
        f"contract {row['contract_version'] or 'none'}",
    )


def _booked(state: Asked, conversion: Row) -> list[Link]:
    rows = rows_of(
        state,
        "SELECT * FROM entries WHERE conversion_key = {id:UUID} AND commodity NOT IN "
        f"({', '.join(repr(c) for c in CURRENCY_SCALE)}) AND subscriber_id != {{none:UUID}}"
        " ORDER BY sequence, leg",
        id=str(conversion["conversion_key"]),
        none=NO_ID_TEXT,
    )
    chain = [_leg(row, state.rulebook.programme.points_scale) for row in rows]
    if rows:
        chain.append(_rule(state, rows[-1]))
    return chain


def _conversion(state: Asked, key: Any, cut: int = 0) -> list[Link]:
    """What accrual made of a conversion, its messages, and the click or visit behind it.

    With `cut`, as it was when the job of that cut saw it; else as it is now.
    """
    table = f"conversions_log WHERE cut = {cut} AND" if cut else "conversions WHERE"
    found = rows_of(state, f"SELECT * FROM {table} conversion_key = {{id:UUID}}", id=str(key))
    chain = [_outcome(row) for row in found]
    seen = "stream_offset < (SELECT JSONExtractUInt(any(position), 'purchases') FROM cuts_log"
    messages = rows_of(
        state,
        "SELECT * FROM purchases_log WHERE conversion_key = {id:UUID}"
        + (f" AND {seen} WHERE number = {cut})" if cut else "")
        + " ORDER BY stream_offset",
        id=str(key),
    )
    chain += [link_of_message(row) for row in messages]
    if not found:
        return chain
    clicks = rows_of(
        state, "SELECT * FROM clicks WHERE click_id = {id:UUID}", id=str(found[0]["click_id"])
    )
    chain += [_click(state, row) for row in clicks]
    visit = clicks[0]["visit_id"] if clicks else found[0]["visit_id"]
    return chain + _visit_chain(state, visit)


def _outcome(row: Row) -> Link:
    waits = f", until {when(row['release_at'])}" if row["reason"] in ("held", "fraud_hold") else ""
    return Link(
        "conversion",
        f"{row['partner']} {row['conversion_id']}: {row['state']} ({row['reason']}{waits}), "
        f"{row['points']} points at cut {row['cut']}; book answered {row['result']}",
        row,
        tuple(told(row["explanation"])),
    )


def link_of_message(row: Row) -> Link:
    """What a partner told us, in one line."""
    scale = CURRENCY_SCALE.get(row["currency"], 2)
    parked = f", parked: {row['parked']} {row['parked_detail']}" if row["parked"] != "none" else ""
    amount = f"{show_amount(row['amount_minor'], scale)} {row['currency']}"
    if row["amount_mode"] == "delta":
        amount = f"change of {amount}" if row["amount_minor"] else "(no amount)"
    return Link(
        "message",
        f"{row['status']} {amount} from {row['partner'] or 'nobody we know'}, "
        f"order {row['order_ref'] or '-'}, received "
        f"{when(row['received_at'])}, row {row['row']} of {row['input']}{parked} "
        f"({row['message_id']})",
        row,
    )


def _click(state: Asked, row: Row) -> Link:
    proofs = rows_of(
        state,
        "SELECT received_at FROM purchases_log WHERE click_id = {id:UUID} AND parked = 'none'"
        " ORDER BY stream_offset LIMIT 1",
        id=str(row["click_id"]),
    )
    proven = f"proven by a purchase {when(proofs[0]['received_at'])}" if proofs else ""
    return Link(
        "click",
        f"{row['click_id']} handed out {when(row['clicked_at'])} by {row['channel'] or 'link'} to "
        f"{row['partner']}, delivery {proven or row['delivery']}, "
        f"contract {row['contract_version']}",
        row,
    )


def _commands(state: Asked, command_id: Any) -> list[Link]:
    """Every message under a command's id, and, of orders, what each of them came to."""
    from pipeline.run.answers import SAID, answered, in_words

    chain = []
    answers = {row["place"]: row for row in answered(state, str(command_id))}
    for row in rows_of(
        state,
        "SELECT * FROM commands_log WHERE command_id = {id:UUID} ORDER BY stream_offset",
        id=str(command_id),
    ):
        about = f"{row['kind']} {row['ref']} by {row['actor']}"
        found = answers.get(row["stream_offset"])
        nobody = str(row["subscriber_id"]) == NO_ID_TEXT
        if found is not None:
            who = "a login of nobody we know" if nobody else f"subscriber {row['subscriber_id']}"
            points = f" of {row['points']} points" if row["points"] else ""
            by = f" by {row['actor']}" + (f" ({row['role']})" if row["role"] else "")
            about = f"{row['kind']} {row['ref']}{points}{by} for {who}"
            row = {**row, "answer": found["answer"], "doubt": found["doubt"]}
        elif not nobody:
            about += f" for subscriber {row['subscriber_id']}"
        answer = f"; {SAID.get(row['answer'], row['answer'])}" if "answer" in row else ""
        answer += f" ({in_words(row['doubt'])})" if row.get("doubt") else ""
        chain.append(Link("command", f"{about}, at {when(row['event_at'])}{answer}", row))
    return chain


def _visit_chain(state: Asked, visit_id: Any) -> list[Link]:
    """Decision, visit, and the flow and packet that opened it."""
    if str(visit_id) == NO_ID_TEXT:
        return []
    visits = rows_of(state, "SELECT * FROM visits WHERE visit_id = {id:UUID}", id=str(visit_id))
    decisions = rows_of(
        state, "SELECT * FROM decisions WHERE visit_id = {id:UUID}", id=str(visit_id)
    )
    chain = [
        Link(
            "decision",
            f"{row['kind']} ({row['reason']}) at {when(row['decided_at'])}, experiment "
            f"{row['experiment'] or 'none'} cell {row['cell'] or '-'} ({row['decision_id']})",
            row,
        )
        for row in decisions
    ]
    for row in visits:
        doubt = ", ambiguous address" if row["ambiguous"] else ""
        tracker = (
            f", after tracker {row['tracker']} {when(row['tracker_at'])}" if row["tracker"] else ""
        )
        chain.append(
            Link(
                "visit",
                f"{row['visit_id']} of subscriber {row['subscriber_id']} ({row['basis']}) with "
                f"{row['partner']}, "
                f"{when(row['first_at'])} to {when(row['last_at'])}, {row['sessions']} sessions "
                f"({row['tls']} TLS, {row['http']} HTTP), arrival {row['arrival']}{tracker}{doubt}",
                row,
            )
        )
        chain += _standing(state, row)
        chain.append(_packet(state, row, "packet", row["packet_number"], row["flow_id"]))
        if row["document_packet"] and row["document_packet"] != row["packet_number"]:
            chain.append(
                _packet(state, row, "document", row["document_packet"], row["document_flow_id"])
            )
    return chain


def _standing(state: Asked, visit: Row) -> list[Link]:
    """Since when the subscriber held an address and had the basis, at the first session."""
    links = []
    for what, table, held, text in (
        ("binding", "bindings_log", "kind = 'bind'", "the subscriber held an address"),
        ("basis", "basis_log", "1", "the subscriber was {state}"),
    ):
        for row in rows_of(
            state,
            f"SELECT * FROM {table} WHERE subscriber_id = {{id:UUID}} AND {held}"
            " AND event_at <= {at:Time} AND received_at <= {at:Time}"
            " ORDER BY event_at DESC, stream_offset DESC LIMIT 1",
            id=str(visit["subscriber_id"]),
            at=str(visit["first_at"]),
        ):
            since, known = when(row["event_at"]), when(row["received_at"])
            told = text.format(state=row.get("state"))
            links.append(Link(what, f"{told} since {since}, known since {known}", row))
    return links


def _packet(state: Asked, visit: Row, what: str, number: int, flow: Any) -> Link:
    """The packet, in the capture that the unit of input which first wrote it down calls so."""
    column = "packet_number" if what == "packet" else "document_packet"
    (first,) = rows_of(
        state,
        f"SELECT min(stream_offset) AS place FROM visits_log WHERE visit_id = {{id:UUID}}"
        f" AND {column} = {{number:Int64}}",
        id=str(visit["visit_id"]),
        number=number,
    )
    name = capture_name(state, int(visit["source_id"]), int(first["place"]))
    return Link(
        what,
        f"number {number} of {name}, flow {flow}",
        {"packet": number, "capture": name, "flow_id": str(flow)},
    )


def capture_name(state: Asked, source_id: int, visit_row: int) -> str:
    """What the capture is called that a source number stood for when a visit row was written."""
    rows = rows_of(
        state,
        "SELECT body FROM commands_log WHERE kind = 'ingest_begin'"
        " AND JSONExtractInt(body, 'position', 'visits') <= {row:Int64}"
        " ORDER BY stream_offset DESC LIMIT 1",
        row=visit_row,
    )
    names = json.loads(rows[0]["body"])["captures"] if rows else []
    return names[source_id] if source_id < len(names) else f"source {source_id}"


def subscriber_of(chain: list[Link]) -> bytes:
    """The subscriber that a chain is about; no id where it is about none."""
    named = (parse_id(str(link.facts.get("subscriber_id", NO_ID_TEXT))) for link in chain)
    return next((who for who in named if who and who != NO_ID), NO_ID)


def explain_missing(state: Asked, question: dict[str, Any]) -> list[Link]:
    """Why an order brought no points: the first link that broke comes last and is named."""
    from pipeline.run.missing import find_break

    return find_break(state, question)


def rows_of(state: Asked, query: str, **parameters: str | int) -> list[Row]:
    """The rows of a query as dicts; `{name:Type}` in it stands for a parameter of that type."""
    raw = state.clickhouse.ask(
        PARAMETER.sub(lambda m: _literal(m, parameters), query), "JSONEachRow"
    )
    return [json.loads(line) for line in raw.splitlines()]


def _literal(found: re.Match[str], parameters: dict[str, str | int]) -> str:
    """A parameter as a literal that cannot be anything else."""
    value = parameters[found["name"]]
    match found["type"]:
        case "UUID":
            return f"toUUID('{id_text(_bytes(value)) or NO_ID_TEXT}')"
        case "Int64":
            return f"toInt64({int(value)})"
        case "Time":
            return f"toDateTime64({_text(value)}, 9, 'UTC')"
    return _text(value)


def _text(value: str | int) -> str:
    return "unhex('" + str(value).encode().hex() + "')"


def when(moment: Any) -> str:
    """A time of the store as people read it: UTC, without zeros behind the second."""
    text = str(moment).replace("+00:00", "")
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "Z"


def _bytes(text: Any) -> bytes:
    return parse_id(str(text)) or bytes(16)
