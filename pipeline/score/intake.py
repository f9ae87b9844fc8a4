"""Purchase messages become rows that can be folded; what cannot be counted on is parked, with why.

Given what partners wrote, `Intake` gives exactly one row per message, in the same order. A row is
either good (`parked` 0) or waits outside the fold with a ParkReason and a detail; its raw text is
kept either way, sealed. A parked row keeps what could be read before the doubt, so that it is
found by its order. Free text may be somebody's name: of what a sender wrote, a detail and the
reason hold a short plain word or nothing, and line items hold codes and numbers. References stand
as they were sent where they tell nobody (`model/texts.py`), else as keyed hashes, by which they are
found again; what stands where a click should and is no id is always hashed.

- **Conversion**: partner, conversion id and line. A correction row that has an id of its own names
  the conversion in `correction_of` and is folded into that one.
- **Amount**: an amount is absolute unless the message says `delta`. A message without amount and
  commission changes neither: it is kept as a delta of zero, so that a bare "approved" does not set
  a sale to nothing. The sign is taken as it stands and means nothing else (loyalty-facts 3.5).
- **Kind**: what was done, if the message says it. Only rating knows what is meant where no message
  of a conversion does: a bare "approved" does not turn a lead into a sale.
- **Order**: the sender's status time or sequence rules where there is one, else arrival.
- **Duplicate**: the same message id from the same partner again, after a good one. Without a
  message id a message is identified by what it says and when it came; an equal one is kept, and the
  fold, which counts equal facts once unless the sender numbered them, makes it harmless.
- **Member**: a token we gave to the shop names the member now. An address names nobody yet: its
  keyed hash and time go on, and who held it is found at the cut, when late bindings are known too.

About 25 microseconds a message: they come by the thousand where packets come by the million.
"""

from __future__ import annotations

import json
import re
from typing import Any, Protocol

import numpy as np

from pipeline.model.addresses import parse_prefix, prefix_hash
from pipeline.model.batches import MessageBatch, PurchaseBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, columns_of, ids
from pipeline.model.faults import Fault
from pipeline.model.identifiers import NO_ID, Keys, digest, parse_id
from pipeline.model.money import CURRENCY_SCALE, AmountError, parse_amount
from pipeline.model.stage import Snapshot
from pipeline.model.tally import Tally
from pipeline.model.texts import hashed_reference, is_plain, kept_reference, tells_nobody
from pipeline.model.words import AmountMode, OrderBy, ParkReason, Status
from pipeline.rulebook.model import ACTIONS, Contract, Partner, Rulebook
from pipeline.score.terms import ANY, LIVE

STAGE = "score"
# A sum of a million such amounts still fits int64, and nobody orders for ten thousand million.
AMOUNT_MINOR_MAX = 10**12
NAME_CHARACTERS_MAX = 128
ITEMS_MAX = 200
ITEM_CODES = ("category", "sku")
ITEM_NUMBERS = ("quantity", "amount", "tax", "shipping", "discount")

STATUS_WORDS = {
    **dict.fromkeys(("pending", "new", "open", "on hold", "on_hold", "2"), Status.PENDING),
    **dict.fromkeys(("approved_hold", "extended", "5"), Status.APPROVED_HOLD),
    **dict.fromkeys(("approved", "closed", "confirmed", "success", "1"), Status.APPROVED),
    **dict.fromkeys(("adjusted", "amended", "correction", "corrected"), Status.ADJUSTED),
    **dict.fromkeys(
        ("declined", "rejected", "denied", "deleted", "reversed", "cancelled", "canceled", "3"),
        Status.DECLINED,
    ),
    "locked": Status.LOCKED,
    **dict.fromkeys(("paid", "paidtopublisher", "reward_ready"), Status.PAID),
}
KIND_WORDS = {
    **{action: action for action in ACTIONS if action != ANY},
    **dict.fromkeys(("purchase", "order", "transaction"), "sale"),
    **dict.fromkeys(("signup", "registration"), "lead"),
}
MODE_WORDS = {
    "": AmountMode.ABSOLUTE,
    "absolute": AmountMode.ABSOLUTE,
    "delta": AmountMode.DELTA,
}
PLAIN_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{0,23}\Z", re.ASCII)
CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,63}\Z", re.ASCII)
NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,9})?\Z", re.ASCII)
WHOLE = re.compile(r"\d{1,18}\Z", re.ASCII)
SHORT = ("partner", "conversion_id", "line_id", "order_ref", "click_ref", "coupon", "message_id")
REFERENCES = ("order_ref", "line_id", "coupon", "correction_of")
KEPT = (*REFERENCES, "click_ref")
BLANK: dict[str, Any] = {
    "message_id": NO_ID,
    "conversion_key": NO_ID,
    "click_id": NO_ID,
    "member_id": NO_ID,
    "match_hash": NO_ID,
    **dict.fromkeys(("partner", "conversion_id", *KEPT, "kind", "reason", "currency"), ""),
    **dict.fromkeys(("rate_id", "items", "parked_detail"), ""),
    **dict.fromkeys(("match_ns", "amount_minor", "commission_minor", "sequence"), 0),
    "status": 0,
    "id_given": 0,
    "amount_mode": AmountMode.DELTA,
    "order_by": OrderBy.ARRIVAL,
    "parked": ParkReason.NONE,
}
CARRIED = ("event_ns", "status_ns", "received_ns", "row", "input", "raw")


class Members(Protocol):
    """Who is behind a token that we gave to a shop."""

    @property
    def subscriber_ids(self) -> np.ndarray:
        """Subscriber ids by dense index."""
        ...

    def by_token(self, partner: str, token: str) -> int:
        """The dense index of the member with this token at this partner, -1 for nobody."""
        ...


class Parked(Exception):
    """A message that may not count: the reason and its detail."""

    def __init__(self, reason: ParkReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Intake:
    """Reads messages under one rulebook.

    State: of each message that counted and had a sender's id, that id and what it said, as hashes.
    """

    def __init__(self, rulebook: Rulebook, keys: Keys, members: Members) -> None:
        self._partners = {p.id: p for p in rulebook.partners}
        self._keys, self._members = keys, members
        self._seen: dict[bytes, bytes] = {}

    def push(self, messages: MessageBatch, tally: Tally) -> PurchaseBatch:
        """One row per message, in their order."""
        names = [c.name for c in columns_of(MessageBatch) if c.name not in CARRIED[-2:]]
        values = [_listed(getattr(messages, name)) for name in names]
        raw = [messages.raw[i] for i in range(len(messages))]
        rows = [
            self._row(dict(zip(names, message, strict=True)), line)
            for *message, line in zip(*values, raw, strict=True)
        ]
        tally.add(STAGE, "message", len(rows))
        for row in rows:
            if row["parked"]:
                tally.add(STAGE, f"parked:{row['parked'].name.lower()}")
        return _batch(rows, messages)

    def remember(self, rows: PurchaseBatch) -> None:
        """Take rows of the journal as if they had just been pushed."""
        good = rows.take(rows.parked == ParkReason.NONE)
        columns = [_listed(getattr(good, name)) for name in ("message_id", *CONTENT)]
        for message_id, *content in zip(*columns, strict=True):
            self._seen.setdefault(message_id, _content(content))

    def snapshot(self) -> dict[str, np.ndarray]:
        """The ids and contents seen, as two ID columns."""
        return {"message_id": ids(self._seen), "content": ids(self._seen.values())}

    def restore(self, snapshot: Snapshot) -> None:
        """Take a snapshot's state in place of one's own."""
        known = (_listed(snapshot[name]) for name in ("message_id", "content"))
        self._seen = dict(zip(*known, strict=True))

    def _row(self, message: dict[str, Any], raw: bytes) -> dict[str, Any]:
        """The row of one message, parked or good."""
        row = dict(BLANK)
        try:
            self._read(message, raw, row)
        except Parked as parked:
            row["parked"], row["parked_detail"] = parked.reason, parked.detail
        return row

    def _read(self, message: dict[str, Any], raw: bytes, row: dict[str, Any]) -> None:
        """Fill `row` as far as the message can be understood; raises Parked at the first doubt."""
        partner_id, sender_id = message["partner"].lower(), message["message_id"]
        row["message_id"] = (
            digest(self._keys.visit, "message", partner_id, sender_id)
            if sender_id
            else digest(self._keys.visit, "message line", message["received_ns"], raw)
        )
        row["id_given"] = int(bool(sender_id))
        _check_shape(message)
        conversion_id = message["correction_of"] or message["conversion_id"]
        click_id = parse_id(message["click_ref"])
        key = self._keys.audit
        for name in REFERENCES:
            row[name] = kept_reference(message[name], key)
        row["conversion_id"] = kept_reference(conversion_id, key)
        row["click_ref"] = message["click_ref"]
        if click_id is None and row["click_ref"]:
            row["click_ref"] = hashed_reference(row["click_ref"], key)
        partner = self._partners.get(partner_id)
        if partner is not None:
            row["partner"] = partner.id
        if not (partner_id and conversion_id):
            raise Parked(ParkReason.MISSING_KEY, "a partner and a conversion id are needed")
        row["conversion_key"] = digest(
            self._keys.visit, "conversion", partner_id, conversion_id, message["line_id"]
        )
        row["click_id"] = click_id or NO_ID
        contract = _contract(partner, partner_id, message)
        assert partner is not None
        row["kind"] = _kind(message["kind"])
        row["reason"] = message["reason"] if PLAIN_WORD.match(message["reason"]) else ""
        row["sequence"] = _sequence(message["sequence"])
        row["items"] = _items(message["items"])
        if message["status_ns"] or row["sequence"]:
            row["order_by"] = OrderBy.SENDER
        row["status"] = _status(message["status"])
        self._name_member(message, partner.id, row)
        _read_money(message, contract, row)
        if sender_id:
            self._check_seen(row, message)

    def _name_member(self, message: dict[str, Any], partner_id: str, row: dict[str, Any]) -> None:
        """Who the shop says has bought: a token now, an address as hash and time for later."""
        if message["member"]:
            index = self._members.by_token(partner_id, message["member"])
            if index >= 0:
                row["member_id"] = self._members.subscriber_ids[index].tobytes()
        if message["address"]:
            prefix = parse_prefix(message["address"])
            if prefix is None:
                raise Parked(ParkReason.MALFORMED, "address: not an address")
            row["match_hash"] = prefix_hash(self._keys.address, *prefix)
            row["match_ns"] = message["at_ns"] or message["event_ns"]
        port = message["port"]
        if port and not (WHOLE.match(port) and int(port) < 65536):
            raise Parked(ParkReason.MALFORMED, "port: not a port")

    def _check_seen(self, row: dict[str, Any], message: dict[str, Any]) -> None:
        content = _content([message[n] if n in CARRIED else row[n] for n in CONTENT])
        before = self._seen.get(row["message_id"])
        if before is None:
            self._seen[row["message_id"]] = content
        elif before == content:
            raise Parked(ParkReason.DUPLICATE, "the same message again")
        else:
            raise Parked(ParkReason.DUPLICATE, "its message id came before, with other content")


CONTENT = (
    "conversion_key", "status", "amount_mode", "amount_minor", "commission_minor", "currency",
    "event_ns", "status_ns", "sequence", "click_id",
)  # fmt: skip


def _content(values: list[Any]) -> bytes:
    """What a message says, as 16 bytes; no secret, it only tells two messages apart."""
    return digest(
        b"", "message content", *(v if isinstance(v, (str, bytes)) else int(v) for v in values)
    )


def _check_shape(message: dict[str, Any]) -> None:
    if message["fault"] == Fault.ROW_MALFORMED:
        raise Parked(ParkReason.MALFORMED, "the line could not be taken apart")
    for name, value in message.items():
        if isinstance(value, str) and not is_plain(value):
            raise Parked(ParkReason.MALFORMED, f"{name}: control characters")
    for name in (*SHORT, "correction_of"):
        if len(message[name]) > NAME_CHARACTERS_MAX:
            raise Parked(ParkReason.MALFORMED, f"{name}: over {NAME_CHARACTERS_MAX} characters")


def _contract(partner: Partner | None, partner_id: str, message: dict[str, Any]) -> Contract:
    """The contract that a message falls under."""
    if partner is None:
        raise Parked(ParkReason.UNKNOWN_PARTNER, f"no such partner{_quoted(partner_id)}")
    if message["fault"] == Fault.TIME_BAD:
        raise Parked(ParkReason.BAD_TIME, "a time is not UTC nanoseconds and not ISO 8601 in UTC")
    if partner.status != LIVE:
        raise Parked(ParkReason.PARTNER_NOT_LIVE, f"{partner.id} is {partner.status}")
    return partner.contract_at(message["event_ns"]) or partner.contract


def _status(text: str) -> Status:
    found = STATUS_WORDS.get(text.lower())
    if found is None:
        raise Parked(ParkReason.UNKNOWN_STATUS, f"not a status we know{_quoted(text)}")
    return found


def _kind(text: str) -> str:
    """What was done; empty where the sender leaves it out, for another message may say it."""
    if not text:
        return ""
    if text.lower() not in KIND_WORDS:
        raise Parked(ParkReason.MALFORMED, f"kind: not one we know{_quoted(text)}")
    return KIND_WORDS[text.lower()]


def _sequence(text: str) -> int:
    if not text:
        return 0
    if not WHOLE.match(text):
        raise Parked(ParkReason.MALFORMED, "sequence: not a whole number")
    return int(text)


def _items(text: str) -> str:
    """Line items as compact JSON with the keys we know. Numbers stay text: nothing is a float.

    Only codes and numbers are kept: what has blanks in it may be somebody's name.
    """
    if not text:
        return ""
    try:
        items = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        raise Parked(ParkReason.MALFORMED, "items: not JSON") from None
    if not (isinstance(items, list) and all(isinstance(item, dict) for item in items)):
        raise Parked(ParkReason.MALFORMED, "items: not a list of objects")
    kept = [
        {
            key: value
            for keys, form in ((ITEM_CODES, CODE), (ITEM_NUMBERS, NUMBER))
            for key in keys
            if isinstance(value := item.get(key), str)
            and form.match(value)
            and (form is NUMBER or tells_nobody(value))
        }
        for item in items[:ITEMS_MAX]
    ]
    return json.dumps(kept, ensure_ascii=True, separators=(",", ":"))


def _read_money(message: dict[str, Any], contract: Contract, row: dict[str, Any]) -> None:
    """Fill amounts, their mode and currency."""
    currency = message["currency"].upper() or contract.currency
    if currency not in CURRENCY_SCALE:
        raise Parked(ParkReason.UNKNOWN_CURRENCY, f"not a currency we know{_quoted(currency)}")
    if currency != contract.currency:
        detail = f"{currency}, but the contract is in {contract.currency}"
        raise Parked(ParkReason.UNKNOWN_CURRENCY, detail)
    mode = MODE_WORDS.get(message["amount_mode"].lower())
    if mode is None:
        raise Parked(ParkReason.MALFORMED, "amount_mode: expected absolute or delta")
    amount, commission = message["amount"], message["commission"]
    if commission and not amount and mode is AmountMode.ABSOLUTE:
        raise Parked(ParkReason.BAD_AMOUNT, "a commission without the amount it is for")
    money = _minor("amount", amount, currency), _minor("commission", commission, currency)
    row["currency"] = currency
    row["amount_mode"] = mode if amount else AmountMode.DELTA
    row["amount_minor"], row["commission_minor"] = money


def _minor(name: str, text: str, currency: str) -> int:
    if not text:
        return 0
    try:
        value = parse_amount(text, CURRENCY_SCALE[currency])
    except AmountError:
        detail = f"{name}: not a decimal number of {currency} with its decimals"
        raise Parked(ParkReason.BAD_AMOUNT, detail) from None
    if abs(value) > AMOUNT_MINOR_MAX:
        raise Parked(ParkReason.BAD_AMOUNT, f"{name}: larger than any order")
    return value


def _quoted(text: str) -> str:
    """`: 'word'` where it is a short plain word, nothing otherwise."""
    return f": '{text}'" if PLAIN_WORD.match(text) else ""


def _listed(column: Any) -> list[Any]:
    """A column as Python values; ids as bytes."""
    if isinstance(column, TextColumn):
        return column.to_list()
    if column.dtype == ID_DTYPE:
        raw = np.ascontiguousarray(column).tobytes()
        return [raw[i : i + 16] for i in range(0, len(raw), 16)]
    return list(column.tolist())


def _batch(rows: list[dict[str, Any]], messages: MessageBatch) -> PurchaseBatch:
    columns: dict[str, Any] = {name: getattr(messages, name) for name in CARRIED}
    for column in columns_of(PurchaseBatch):
        if column.name in columns:
            continue
        values = [row[column.name] for row in rows]
        if column.dtype is None:
            columns[column.name] = TextColumn.of(values)
        elif column.dtype == ID_DTYPE:
            columns[column.name] = ids(values)
        else:
            columns[column.name] = np.array(values, column.dtype)
    return PurchaseBatch(**columns)
