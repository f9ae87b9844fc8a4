"""Transfers: what one accepted cause moves, and the ids and the hash chain over it.

A cause (a conversion's n-th accepted target, an order) leads to one or more transfers, numbered
from 0 (`step`). A transfer has legs that sum to zero for each commodity, and says what it did to
which lots. Ids are keyed hashes of their cause, so the same cause books once:

    transfer id = digest(programme, cause kind, cause id, number of the accepted target, step)
    entry id    = transfer id, its last byte exclusive-or'ed with the leg's number from 1

Every entry is chained to the one before it: `link = blake2b(previous link, all columns of the
entry)` under the audit key, so nobody without the key can change, insert or drop a row unseen.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from pipeline.ledger.accounts import EntryKind
from pipeline.model.identifiers import digest
from pipeline.model.words import Result

FIRST_LINK = bytes(32)
CONVERSION, ORDER = "conversion", "order"
MAX_STEPS = 4  # transfers of one posting: at most a way out, a way in and a recovery of debt
MAX_LEGS = 16  # legs of one transfer: at most three of points, and three of money in two currencies


class Leg(NamedTuple):
    """One movement of one account: positive debits, negative credits."""

    account: str
    commodity: str
    amount: int


class LotMove(NamedTuple):
    """What a transfer did to a lot: `amount` follows the grant, `remaining` what can be spent."""

    lot_id: bytes
    amount_change: int
    remaining_change: int


class Transfer(NamedTuple):
    """Legs that are booked together, about one member."""

    step: int
    kind: EntryKind
    subscriber_id: bytes
    click_id: bytes
    visit_id: bytes
    legs: tuple[Leg, ...]
    moves: tuple[LotMove, ...]


class Cause(NamedTuple):
    """What all transfers of one posting have in common."""

    kind: str
    id: bytes
    version: int
    effective_ns: int
    partner: str
    conversion_key: bytes
    rule_id: str
    rule_version: bytes
    contract_version: str
    rulebook_hash: bytes


class Posting(NamedTuple):
    """The book's answer to one request: a result and what it moved (nothing unless OK)."""

    result: Result
    cause: Cause | None = None
    transfers: tuple[Transfer, ...] = ()


def unbalanced(legs: tuple[Leg, ...]) -> dict[str, int]:
    """Commodities whose legs do not sum to zero, with what is left over."""
    sums: dict[str, int] = {}
    for _, commodity, amount in legs:
        sums[commodity] = sums.get(commodity, 0) + amount
    return {commodity: rest for commodity, rest in sums.items() if rest}


def transfer_id(key: bytes, programme: str, cause: Cause, step: int) -> bytes:
    """The id of a transfer (see the module's text)."""
    return digest(key, "transfer", programme, cause.kind, cause.id, cause.version, step)


def entry_id(transfer: bytes, leg: int) -> bytes:
    """The id of one leg of a transfer."""
    return transfer[:-1] + bytes((transfer[-1] ^ (leg + 1),))


def transfers_of_entry(entry: bytes) -> list[bytes]:
    """The transfers an entry could be of, by its leg; entries need no index of their ids."""
    return [entry_id(entry, leg) for leg in range(MAX_LEGS)]


def transfers_of_cause(
    key: bytes, programme: str, kind: str, cause: bytes, number: int
) -> list[bytes]:
    """The ids that transfers of a cause can have, when it was accepted up to `number` times."""
    return [
        digest(key, "transfer", programme, kind, cause, version, step)
        for version in range(1, number + 1)
        for step in range(MAX_STEPS)
    ]


class Header(NamedTuple):
    """The columns that all entries of a transfer share, in the order in which they are hashed."""

    transfer_id: bytes
    subscriber_id: bytes
    cause_id: bytes
    conversion_key: bytes
    click_id: bytes
    visit_id: bytes
    rule_version: bytes
    rulebook_hash: bytes
    run_id: bytes
    consent_id: bytes
    cause_version: int
    effective_ns: int
    booked_ns: int
    cut: int
    kind: str
    period: str
    cause_kind: str
    partner: str
    rule_id: str
    contract_version: str
    campaign: str
    actor: str


_IDS, _NUMBERS = 10, 14
_FIXED = struct.Struct("<" + "16s" * _IDS + "q" * (_NUMBERS - _IDS))
_LEG = struct.Struct("<qqq")


def header_bytes(header: Header) -> bytes:
    """A header as bytes that no other header has: fixed columns, then texts ended by NUL."""
    fixed, texts = header[:_NUMBERS], header[_NUMBERS:]
    return _FIXED.pack(*fixed) + "\0".join(map(str, texts)).encode() + b"\0"


def entry_link(
    key: bytes, previous: bytes, header: bytes, sequence: int, leg: int, moved: Leg
) -> bytes:
    """The link of the chain that an entry makes; `header` are the bytes of its transfer."""
    body = _LEG.pack(sequence, leg, moved.amount)
    account = f"{moved.account}\0{moved.commodity}".encode()
    return hashlib.blake2b(
        previous + header + body + account, key=key, digest_size=32, person=b"entry chain"
    ).digest()
