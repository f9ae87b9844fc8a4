"""Postings and their transfers: what one accepted cause moves, its ids, and the hash chain.

A cause (a conversion's n-th accepted target, a step in an order's life, a command, a lapse of a
lot) leads to one posting. A posting has transfers, numbered from 0 (`step`); each moves one amount
of one commodity from the account it credits to the account it debits, so what is booked always
sums to zero. A transfer also says what it did to which lots. Ids are keyed hashes of their cause,
so the same cause books once:

    posting id  = digest(programme, cause kind, cause id, number of the accepted target)
    transfer id = posting id, its last byte but one exclusive-or'ed with the step
    entry id    = transfer id, its last byte exclusive-or'ed with the leg: 1 debit, 2 credit

Every posting is chained to the one before it: `link = blake2b(previous link, all that the posting
says, its transfers with their accounts by name, its lot moves)` under the audit key, so nobody
without the key can change, insert or drop a row unseen.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pipeline.model.identifiers import NO_ID, digest
from pipeline.model.words import Result

FIRST_LINK = bytes(32)
CONVERSION, ORDER, COMMAND, LOT = "conversion", "order", "command", "lot"
MAX_STEPS = 16  # transfers of one posting: points out, back and in, a recovery, money, stock
LEGS = 2


class Transfer(NamedTuple):
    """One movement: `amount` (above 0) of the commodity that both accounts are of."""

    kind: int
    debit: int
    credit: int
    amount: int


class LotMove(NamedTuple):
    """What the transfer numbered `step` in its posting did to the four numbers of a lot."""

    step: int
    lot_id: bytes
    amount: int
    remaining: int
    held: int
    lapsed: int


class Cause(NamedTuple):
    """What a posting is about and came by; `origin` is what many postings share."""

    id: bytes
    version: int
    effective_ns: int
    subscriber_id: bytes
    click_id: bytes
    visit_id: bytes
    origin: Origin


class Origin(NamedTuple):
    """By which rule, contract and consent postings come to be."""

    cause_kind: str
    partner: str
    rule_id: str
    rule_version: bytes
    contract_version: str
    rulebook_hash: bytes
    campaign: str = ""
    consent_id: bytes = NO_ID


class Booking(NamedTuple):
    """By whom, when and at which cut postings are booked; `role` and `scope` are the actor's."""

    cut: int
    booked_ns: int
    period: str
    run_id: bytes
    actor: str
    role: str = ""
    scope: str = ""


class Posting(NamedTuple):
    """What one accepted cause moves; a posting without transfers only says that it was taken."""

    cause: Cause
    transfers: Sequence[Transfer]
    moves: Sequence[LotMove]


class Answer(NamedTuple):
    """The book's answer to one request: a result and what it booked (nothing unless OK)."""

    result: Result
    postings: tuple[Posting, ...] = ()


def posting_id(key: bytes, programme: str, kind: str, cause: bytes, version: int) -> bytes:
    """The id of a posting (see the module's text)."""
    return digest(key, "transfer", programme, kind, cause, version)


def transfer_id(posting: bytes, step: int) -> bytes:
    """The id of a transfer of a posting; the first one has the posting's own."""
    return posting[:14] + bytes((posting[14] ^ step, posting[15])) if step else posting


def entry_id(transfer: bytes, leg: int) -> bytes:
    """The id of one leg of a transfer: 0 is the debit, 1 the credit."""
    return transfer[:15] + bytes((transfer[15] ^ (leg + 1),))


def postings_of_entry(entry: bytes) -> list[bytes]:
    """The postings an entry could be of; entries and transfers need no index of their ids."""
    return [
        entry_id(transfer_id(entry, step), leg) for leg in range(LEGS) for step in range(MAX_STEPS)
    ]


def postings_of_transfer(transfer: bytes) -> list[bytes]:
    """The postings a transfer could be of."""
    return [transfer_id(transfer, step) for step in range(MAX_STEPS)]


_HEAD = struct.Struct("<16s16s16s16s16sqq")
_COUNTS = struct.Struct("<HI")
_TRANSFER = struct.Struct("<HHHq")
_MOVE = struct.Struct("<H16sqqqq")


def posting_bytes(
    identifier: bytes, cause: Cause, origin_bytes: bytes, booking_bytes: bytes
) -> bytes:
    """What a posting says of itself, as bytes that no other posting has.

    `origin_bytes` and `booking_bytes` are those of `shared_bytes`, of one length each.
    """
    return (
        _HEAD.pack(
            identifier,
            cause.id,
            cause.subscriber_id,
            cause.click_id,
            cause.visit_id,
            cause.version,
            cause.effective_ns,
        )
        + origin_bytes
        + booking_bytes
    )


def shared_bytes(row: Origin | Booking) -> bytes:
    """A digest of what many postings share; every value with its length, so that none runs over."""
    parts = []
    for value in row:
        raw = value if isinstance(value, bytes) else str(value).encode()
        parts.append(len(raw).to_bytes(4, "little") + raw)
    return hashlib.blake2b(b"".join(parts), digest_size=16, person=b"posting shares").digest()


def row_link(key: bytes, previous: bytes, values: Iterable[object]) -> bytes:
    """The link of a chain that a row of other values makes; each with its length."""
    parts = [previous]
    for value in values:
        raw = value if isinstance(value, bytes) else str(value).encode()
        parts += (len(raw).to_bytes(4, "little"), raw)
    return hashlib.blake2b(b"".join(parts), key=key, digest_size=32, person=b"row chain").digest()


def link_of(
    key: bytes,
    previous: bytes,
    head: bytes,
    transfers: Sequence[Transfer],
    names: Mapping[int, bytes],
    moves: Sequence[LotMove],
) -> bytes:
    """The link of the chain that a posting makes; `names` has the name of each account's number."""
    parts = [previous, head, _COUNTS.pack(len(transfers), len(moves))]
    pack = _TRANSFER.pack
    for kind, debit, credit, amount in transfers:
        one, other = names[debit], names[credit]
        parts += (pack(kind, len(one), len(other), amount), one, other)
    move = _MOVE.pack
    parts += [move(*each) for each in moves]
    return hashlib.blake2b(
        b"".join(parts), key=key, digest_size=32, person=b"posting chain"
    ).digest()
