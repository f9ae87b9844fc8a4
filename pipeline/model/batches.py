"""The batches that stages hand to each other, and the streams the journal keeps of them.

Times are int64 UTC nanoseconds. An address is two uint64 words, `*_hi` and `*_lo`, of its 16 bytes
in network order; IPv4 is held as ::ffff:a.b.c.d. An id of sixteen zero bytes means none. An empty
text means none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from pipeline.model.columns import I32, I64, ID, LOCAL, SEALED, TEXT, U8, U16, U32, U64, Batch


@dataclass(frozen=True, slots=True)
class PacketBatch(Batch):
    """Packets in one buffer. Row i is `data[offset[i] : offset[i] + captured_length[i]]`.

    `source` names the file or ring, `source_id` numbers it within the run, `first_packet` is the
    number of row 0 in the source (from 1, as Wireshark counts). `stripped_vlan` is a tag that the
    kernel took off (12-bit id), or -1. The buffer belongs to the framer: what outlives the push is
    copied out.
    """

    source: str
    source_id: int
    first_packet: int
    data: np.ndarray
    offset: I64
    captured_length: U32
    wire_length: U32
    time_ns: I64
    interface: U16
    link_type: U16
    stripped_vlan: I32


@dataclass(frozen=True, slots=True)
class SessionBatch(Batch):
    """Who named which host, by which protocol: one row per TLS hello or HTTP request head.

    Rows are in the order in which their last needed byte was seen. `first_ns` and `packet_number`
    are of the packet with the first byte of the hello or head; `watermark_ns` is the largest packet
    time of the source when it was whole. `subscriber` is the dense index of the directory, -1 where
    no gate was asked (inspect). `realm` holds the two outermost VLAN ids that the session was seen
    under, the outer one in the upper half, each with 0x1000 added; 0 is none. No sink accepts this
    batch.
    """

    first_ns: I64
    watermark_ns: Annotated[I64, LOCAL]
    packet_number: I64
    source_id: U16
    protocol: U8
    client_hi: U64
    client_lo: U64
    client_port: U16
    server_hi: U64
    server_lo: U64
    server_port: U16
    flow_id: ID
    subscriber: Annotated[I32, LOCAL]
    basis: U8
    method: U8
    flags: U32
    realm: U32
    host: TEXT
    target: TEXT
    referer: TEXT
    alpn: TEXT


@dataclass(frozen=True, slots=True)
class SignInBatch(Batch):
    """Sign-ins as they arrive: this login holds (START, INTERIM) or gives up (STOP) this prefix."""

    row: I64
    kind: U8
    login: Annotated[TEXT, SEALED]
    address_hi: Annotated[U64, SEALED]
    address_lo: Annotated[U64, SEALED]
    prefix_length: U8
    event_ns: I64
    received_ns: I64


@dataclass(frozen=True, slots=True)
class CircleBatch(Batch):
    """Changes of the circle as they arrive: this login has this basis from `event_ns` on."""

    row: I64
    login: Annotated[TEXT, SEALED]
    state: U8
    terms: TEXT
    event_ns: I64
    received_ns: I64


@dataclass(frozen=True, slots=True)
class BindingBatch(Batch):
    """Stream `bindings`: a member's address begins (BIND), or whoever held it lost it (END).

    An END carries no identity. `address_hash` is a keyed hash of the prefix, so that rows can be
    joined without the address. Prefix length counts the 128 bits (IPv4 host: 128).
    """

    binding_id: ID
    kind: U8
    subscriber: Annotated[I32, LOCAL]
    subscriber_id: ID
    address_hi: Annotated[U64, SEALED]
    address_lo: Annotated[U64, SEALED]
    prefix_length: U8
    address_hash: ID
    login: Annotated[TEXT, SEALED]
    event_ns: I64
    received_ns: I64


@dataclass(frozen=True, slots=True)
class BasisBatch(Batch):
    """Stream `basis`: the subscriber's standing from `event_ns` on, known since `received_ns`."""

    basis_id: ID
    subscriber: Annotated[I32, LOCAL]
    subscriber_id: ID
    state: U8
    terms: TEXT
    login: Annotated[TEXT, SEALED]
    event_ns: I64
    received_ns: I64


@dataclass(frozen=True, slots=True)
class VisitBatch(Batch):
    """Stream `visits`: versions of visits; the newest version of a `visit_id` is the visit.

    `trigger` says why this version was written (VisitTrigger). `flow_id`, `packet_number`,
    `server_*` and `opened_ns` are of the session that opened it and never change; `document_*` are
    of its first plain-HTTP document GET, zero while there was none. `tracker_ns` is the last time a
    tracker was passed before the visit (0: none) and `tracker` its class. `ambiguous` rows may not
    lead to awards.
    """

    visit_id: ID
    version: U32
    trigger: U8
    subscriber_id: ID
    partner: TEXT
    basis: U8
    ambiguous: U8
    arrival: U8
    opened_ns: I64
    first_ns: I64
    last_ns: I64
    sessions: U32
    http: U32
    tls: U32
    quic: U32
    documents: U32
    source_id: U16
    flow_id: ID
    packet_number: I64
    server_hi: U64
    server_lo: U64
    server_port: U16
    document_ns: I64
    document_flow_id: ID
    document_packet: I64
    tracker_ns: I64
    tracker: TEXT
    mark: TEXT
    rule_version: ID
    rulebook_hash: ID


@dataclass(frozen=True, slots=True)
class DecisionBatch(Batch):
    """Stream `decisions`: exactly one per visit, with its reason. `click_id` is zero without a
    click.
    """

    decision_id: ID
    visit_id: ID
    visit_version: U32
    subscriber_id: ID
    partner: TEXT
    kind: U8
    reason: U8
    experiment: TEXT
    cell: TEXT
    decided_ns: I64
    click_id: ID
    rule_version: ID
    policy_version: ID
    rulebook_hash: ID


@dataclass(frozen=True, slots=True)
class ClickBatch(Batch):
    """Stream `clicks`: links handed out. `delivery` stays UNPROVEN until something shows it."""

    click_id: ID
    decision_id: ID
    visit_id: ID
    subscriber_id: ID
    partner: TEXT
    channel: TEXT
    delivery: U8
    clicked_ns: I64
    terms: TEXT
    contract_version: TEXT
    source_id: U16
    flow_id: ID
    packet_number: I64
    rule_version: ID
    rulebook_hash: ID


@dataclass(frozen=True, slots=True)
class PurchaseBatch(Batch):
    """Stream `purchases`: one parsed message of a partner or network per row, the raw text sealed.

    Amounts are integers of the currency's minor unit. `amount_mode` is absolute or delta. `parked`
    is a ParkReason, 0 for a row that counts. `member_id` is the subscriber that an own shop
    (`match`) named by token, or that held the named address (then `match_hash` and `match_ns` say
    which and when). `status_ns` and `sequence` are 0 where the sender gives none; `order_by` says
    which order rules. `kind` is empty where the message does not say what was done. `id_given` is 1
    where the sender gave the message an id, by which it differs from another that says the same.
    `items` is JSON of line items: category, sku, quantity, amount, tax,
    shipping, discount. A reference (`conversion_id`, `line_id`, `order_ref`, `correction_of`,
    `coupon`) that holds an address, a host, a login with `@` or a blank is a keyed hash, `hash:`
    and 32 digits; so is a `click_ref` that is no id.
    """

    message_id: ID
    conversion_key: ID
    partner: TEXT
    conversion_id: TEXT
    line_id: TEXT
    order_ref: TEXT
    click_id: ID
    click_ref: TEXT
    member_id: ID
    match_hash: ID
    match_ns: I64
    kind: TEXT
    status: U8
    reason: TEXT
    amount_mode: U8
    amount_minor: I64
    commission_minor: I64
    currency: TEXT
    coupon: TEXT
    correction_of: TEXT
    rate_id: TEXT
    items: TEXT
    event_ns: I64
    status_ns: I64
    sequence: I64
    order_by: U8
    id_given: U8
    received_ns: I64
    parked: U8
    parked_detail: TEXT
    row: I64
    input: TEXT
    raw: Annotated[TEXT, SEALED]


@dataclass(frozen=True, slots=True)
class RulebookBatch(Batch):
    """Stream `rulebooks`: the full text of a rulebook by its hash (JSON: file name to text).

    `proposed` is 1 where somebody asked for it to be published, 0 where it is in force from then
    on: the last row with 0 says what is.
    """

    rulebook_hash: ID
    proposed: U8
    text: TEXT
    received_ns: I64


@dataclass(frozen=True, slots=True)
class CommandBatch(Batch):
    """Stream `commands`: what people and systems asked of us. `body` is JSON, by `kind`.

    Kinds: those the book knows (`ledger/commands.py`: a member spends points, and much else);
    `review` (a person releases or declines a conversion); `claim` and `claim_closed` (a member
    misses a purchase); `member_facts` (level, products and tenure from a time on); `ingest_begin`,
    then `ingest_end` or `ingest_abandoned` (a unit of input); `settings` (a live owner starts);
    `identity_shown` (whose login `explain --with-identity` showed to whom). `ref` is the asker's
    own reference: the same (kind, ref) is the same command. `role` and `scope` are those in which
    the actor asked: what may be done, and of what part of the programme.
    """

    command_id: ID
    kind: TEXT
    ref: TEXT
    actor: TEXT
    role: TEXT
    scope: TEXT
    subscriber_id: ID
    points: I64
    body: TEXT
    event_ns: I64
    received_ns: I64


@dataclass(frozen=True, slots=True)
class CutBatch(Batch):
    """Stream `cuts`: a position (JSON: stream to number of rows) and the `now` jobs run at.

    `number` counts cuts from 1. `repeat_of` is the number of an earlier cut whose job is delivered
    once more, 0 for a cut of its own; a repeat carries the position and `now` of that earlier cut.
    """

    cut_id: ID
    number: I64
    name: TEXT
    now_ns: I64
    position: TEXT
    repeat_of: I64
    rulebook_hash: ID


@dataclass(frozen=True, slots=True)
class TargetBatch(Batch):
    """Absolute targets that accrual sends to the book: what a conversion is worth at a cut.

    `fold` orders targets of one conversion (the cut's number); `facts` counts the folded messages
    and `facts_hash` is their keyed digest. `state` is TargetState. `points` is the rounded target
    in the smallest unit of the points commodity; currency legs in minor units of `currency`.
    `reason` says why there are no points, or why they wait. `terms_hash` is of all beside the rule
    that decides a conversion's worth (the contract, the price of a point); zero without a contract.
    """

    conversion_key: ID
    fold: I64
    facts: U32
    facts_hash: U64
    subscriber_id: ID
    partner: TEXT
    conversion_id: TEXT
    state: U8
    reason: U8
    points: I64
    receivable_minor: I64
    cost_minor: I64
    margin_minor: I64
    currency: TEXT
    click_id: ID
    visit_id: ID
    event_ns: I64
    release_ns: I64
    rule_id: TEXT
    rule_version: ID
    contract_version: TEXT
    rulebook_hash: ID
    terms_hash: ID
    explanation: TEXT


@dataclass(frozen=True, slots=True)
class EntryBatch(Batch):
    """Accepted entries of the book, in booking order: one row per leg; never journalled.

    `entry_id` is of the leg, `transfer_id` of the whole. `points`-like amounts are integers with
    the commodity's scale. A positive amount debits, a negative one credits; a transfer has one of
    each. `conversion_key` is of the conversion that the entry is about, or whose points lapse.
    `lots` is JSON: of each lot that the transfer changed its id, what its points came from (a
    conversion, or else a command), and how many points.
    """

    entry_id: ID
    transfer_id: ID
    sequence: I64
    leg: U16
    kind: TEXT
    account: TEXT
    subscriber_id: ID
    commodity: TEXT
    amount: I64
    period: TEXT
    effective_ns: I64
    booked_ns: I64
    cause_kind: TEXT
    cause_id: ID
    cause_version: I64
    partner: TEXT
    conversion_key: ID
    click_id: ID
    visit_id: ID
    rule_id: TEXT
    rule_version: ID
    rulebook_hash: ID
    contract_version: TEXT
    campaign: TEXT
    consent_id: ID
    cut: I64
    actor: TEXT
    role: TEXT
    scope: TEXT
    run_id: ID
    lots: TEXT


@dataclass(frozen=True, slots=True)
class MessageBatch(Batch):
    """Purchase messages as they arrive: text as the sender wrote it, times parsed; not a stream.

    `fault` is ROW_MALFORMED (the line could not be taken apart; its texts are empty) or TIME_BAD (a
    time could not be read and is 0). Such rows still go on, so that intake can park them: nothing a
    partner sent is lost. `received_ns` of such a row, where it is the time that is bad, is that of
    the line before. `at_ns` and `status_ns` are 0 where not given. `raw` is the whole line.
    """

    row: I64
    input: TEXT
    fault: U8
    event_ns: I64
    received_ns: I64
    at_ns: I64
    status_ns: I64
    partner: TEXT
    conversion_id: TEXT
    line_id: TEXT
    order_ref: TEXT
    click_ref: TEXT
    member: Annotated[TEXT, SEALED]
    address: Annotated[TEXT, SEALED]
    port: Annotated[TEXT, SEALED]
    kind: TEXT
    status: TEXT
    reason: TEXT
    amount_mode: TEXT
    amount: TEXT
    commission: TEXT
    currency: TEXT
    coupon: TEXT
    correction_of: TEXT
    sequence: TEXT
    message_id: TEXT
    items: TEXT
    raw: Annotated[TEXT, SEALED]


@dataclass(frozen=True, slots=True)
class MemberFactBatch(Batch):
    """What is said of members as it arrives; not a stream.

    A row says all of a member from `event_ns` on, until the next one: when the membership began (0
    where that is not known), the level, and the products, blanks between them.
    """

    row: I64
    event_ns: I64
    received_ns: I64
    login: Annotated[TEXT, SEALED]
    joined_ns: I64
    level: TEXT
    products: TEXT


@dataclass(frozen=True, slots=True)
class OrderBatch(Batch):
    """Orders and other commands to the book as they arrive; not a stream.

    `kind` is empty for an order, by which the member behind the login spends points. `order` is the
    reference of the order that a commit, release or refund is about, `request` that of an
    adjustment which somebody approves or rejects, `to` the login of who is given points. `body` is
    JSON, or empty.
    """

    row: I64
    event_ns: I64
    received_ns: I64
    login: Annotated[TEXT, SEALED]
    ref: TEXT
    points: I64
    kind: TEXT
    actor: TEXT
    role: TEXT
    scope: TEXT
    order: TEXT
    request: TEXT
    to: Annotated[TEXT, SEALED]
    body: TEXT


@dataclass(frozen=True, slots=True)
class FoldBatch(Batch):
    """What is known of each conversion at a cut: messages folded, click or visit joined.

    Not a stream. Rating reads nothing else.

    `facts` counts the folded messages, `facts_hash` is their digest. `amount_minor`, `status` and
    the rest are of the fold order's last word. `click_id` is as the messages named it (zero: none);
    `click_found` tells whether we handed it out, and `click_*`, `clicked_ns` and `visit_ambiguous`
    are of that click and its visit. `match_*` are of the member the shop named and that member's
    last visit to this partner not after `event_ns`; `match_basis` is the basis of that visit,
    `match_marked` says that an affiliate brought it. `items` is JSON of the last line items given
    with an absolute amount, which is `items_minor`; empty and 0 where none were.
    """

    conversion_key: ID
    partner: TEXT
    conversion_id: TEXT
    kind: TEXT
    facts: U32
    facts_hash: U64
    status: U8
    amount_minor: I64
    commission_minor: I64
    currency: TEXT
    event_ns: I64
    click_id: ID
    click_found: U8
    click_partner: TEXT
    click_subscriber: ID
    clicked_ns: I64
    click_visit: ID
    match_subscriber: ID
    match_visit: ID
    match_visit_ns: I64
    match_marked: U8
    match_ambiguous: U8
    visit_ambiguous: U8
    match_basis: U8
    items: TEXT
    items_minor: I64


@dataclass(frozen=True, slots=True)
class MemberBatch(Batch):
    """What is known of members, for rules that ask: one row per member and change, in any order.

    A row holds from `since_ns` of event time until the member's next one. `joined_ns` is 0 where it
    is not known; `level` is one word in lower case; `products` are such words, blanks between them.
    """

    subscriber_id: ID
    since_ns: I64
    joined_ns: I64
    level: TEXT
    products: TEXT


@dataclass(frozen=True, slots=True)
class UsageBatch(Batch):
    """Points (smallest units) that rules with caps or a budget gave to members, by purchase time.

    Rows may stand for one conversion each or for several of the same quarter of an hour; where the
    rule does not cap members or days, for all there are.
    """

    rule_id: TEXT
    subscriber_id: ID
    event_ns: I64
    points: I64


STREAMS: dict[str, type[Batch]] = {
    "rulebooks": RulebookBatch,
    "bindings": BindingBatch,
    "basis": BasisBatch,
    "visits": VisitBatch,
    "decisions": DecisionBatch,
    "clicks": ClickBatch,
    "purchases": PurchaseBatch,
    "commands": CommandBatch,
    "cuts": CutBatch,
}
