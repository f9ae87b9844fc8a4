"""What the book knows while it posts.

`LedgerState` holds the part of the book that a batch needs; the store fills it before and writes
back what changed after. A request is first looked at as a whole and refused without a trace, or
found good; then its movements are made at once, here, on plain numbers by account number. Numbers
cannot run over: an amount is at most `AMOUNT_MAX`, and a state in which an account came near the
end of int64 takes nothing (`is_full`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from pipeline.ledger.accounts import BUCKETS, ISSUED, KIND_WORDS, Bucket
from pipeline.ledger.commands import Command
from pipeline.ledger.lots import Lot, LotDates, lot_id
from pipeline.ledger.targets import Target
from pipeline.ledger.terms import INACTIVITY, Terms, inactive_ns, terms_of
from pipeline.ledger.transfers import MAX_STEPS, Cause, LotMove, Origin, Posting, Transfer
from pipeline.model.identifiers import NO_ID
from pipeline.model.stage import END_OF_TIME
from pipeline.model.words import Result
from pipeline.rulebook.model import Exchange, Programme

AMOUNT_MAX = 10**14
FULL = 2**62
Balance = tuple[str, str]  # account, commodity


class Pin(NamedTuple):
    """The rulebook a conversion was first rated by, and the rule and terms that it has there."""

    rule_id: str
    rule_version: bytes
    contract_version: str
    rulebook_hash: bytes
    terms_hash: bytes


NO_PIN = Pin("", NO_ID, "", NO_ID, NO_ID)


class Conversion(NamedTuple):
    """The newest target of a conversion that the book took.

    `number` counts its postings, `generation` the pending items so far; `row` is the conversion's
    number in the book, 0 while it has none.
    """

    target: Target
    number: int
    generation: int
    pin: Pin
    row: int = 0


class PendingItem(NamedTuple):
    """Points waiting for the partner's word. Resolves once: then confirmed + returned == amount."""

    conversion_key: bytes
    generation: int
    subscriber_id: bytes
    terms: Terms
    contract_version: str
    rule_version: bytes
    event_ns: int
    amount: int
    confirmed: int
    returned: int
    resolved: bool


class Member:
    """A member of the book. Accounts are numbered from the member's number (`accounts.py`).

    `since_ns` is the effective time of the first points, `active_ns` of the last thing the member
    did. `freezes` are (from, frozen) in the order of their coming; `holds` the open reservations;
    `last_posting` the number of the last posting about the member.
    """

    __slots__ = (
        "active_ns", "flags", "freezes", "holds", "last_posting", "lots", "number", "since_ns",
        "stored", "subscriber_id",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        subscriber_id: bytes,
        since_ns: int = END_OF_TIME,
        active_ns: int = 0,
        flags: int = 0,
        last_posting: int = 0,
        stored: bool = False,
    ) -> None:
        self.number, self.subscriber_id = number, subscriber_id
        self.since_ns, self.active_ns, self.flags = since_ns, active_ns, flags
        self.last_posting = last_posting
        self.stored = stored
        self.lots: dict[bytes, Lot] = {}
        self.freezes: list[tuple[int, bool]] = []
        self.holds: dict[bytes, Order] = {}

    def account(self, bucket: int) -> int:
        """The number of one of the member's accounts."""
        return self.number * BUCKETS + bucket

    def is_frozen(self, at_ns: int) -> bool:
        """Was spending stopped at this time? The last word about the time before it counts."""
        known = [(since, n, frozen) for n, (since, frozen) in enumerate(self.freezes)]
        before = [each for each in known if each[0] <= at_ns]
        return bool(before) and max(before)[2]


class Hold:
    """What an order took from a lot: held, spent and given back since."""

    __slots__ = ("committed", "held", "refunded", "stored")

    def __init__(
        self, held: int = 0, committed: int = 0, refunded: int = 0, stored: bool = False
    ) -> None:
        self.held, self.committed, self.refunded = held, committed, refunded
        self.stored = stored


class Order:
    """An order that was accepted. `number` counts the steps of its life.

    It is open while it holds `points`; then `committed` of them are spent, of which `refunded` came
    back. `lots` is what it took, by lot; `row` its number in the book.
    """

    __slots__ = (
        "committed", "hold_until_ns", "is_open", "item", "lots", "number", "order_id", "points",
        "quantity", "redemption", "refunded", "row", "stored", "subscriber_id", "words",
    )  # fmt: skip

    def __init__(
        self,
        order_id: bytes,
        subscriber_id: bytes,
        points: int,
        committed: int,
        refunded: int,
        is_open: bool,
        hold_until_ns: int,
        number: int,
        redemption: str,
        item: str,
        quantity: int,
        words: tuple[str, str, str] = ("", "", ""),
        row: int = 0,
        stored: bool = False,
    ) -> None:
        self.row = row
        self.order_id, self.subscriber_id, self.points = order_id, subscriber_id, points
        self.committed, self.refunded, self.is_open = committed, refunded, is_open
        self.hold_until_ns, self.number, self.redemption = hold_until_ns, number, redemption
        self.item, self.quantity, self.words, self.stored = item, quantity, words, stored
        self.lots: dict[bytes, Hold] = {}


class Settled(NamedTuple):
    """A command that was answered; asking again gives the same answer."""

    content: bytes
    result: Result


class Rules(NamedTuple):
    """What a programme says of points that were issued."""

    terms: Terms
    timezone: str
    version: bytes
    rulebook_hash: bytes
    hold_ns: int
    waiting_ns: int
    refund: str
    manual_limit: int
    exchanges: dict[str, Exchange]


def rules_of(programme: Programme, rulebook_hash: bytes = NO_ID) -> Rules:
    """The rules of a programme."""
    return Rules(
        terms_of(programme),
        programme.timezone,
        programme.version,
        rulebook_hash,
        programme.hold_ns,
        programme.waiting_ns,
        programme.refund,
        programme.manual_limit,
        {exchange.id: exchange for exchange in programme.exchanges},
    )


class LedgerState:
    """Everything that postings of one batch read, and what they changed.

    The store puts in the members, accounts, conversions, orders and requests that a batch names, at
    least the own lots of its conversions, and all lots with points of every member who may have to
    give some.
    """

    def __init__(self, key: bytes, rules: Rules) -> None:
        self.key, self.rules = key, rules
        self.programme, self.commodity = rules.terms.programme, rules.terms.commodity
        self.terms_by_rulebook: dict[bytes, Terms] = {}
        self.balances: dict[int, int] = {}
        self.accounts: dict[Balance, int] = {}
        self.names: dict[int, bytes] = {}  # as the hash chain names accounts
        self.members: dict[bytes, Member] = {}
        self.last_account = self.last_member = 0
        self.conversions: dict[bytes, Conversion] = {}
        self.pending: dict[tuple[bytes, int], PendingItem] = {}
        self.lots: dict[bytes, Lot] = {}
        self.orders: dict[bytes, Order] = {}
        self.requests: dict[bytes, Settled] = {}
        self.awaiting: dict[bytes, Command] = {}  # and those that were decided
        self.decided: dict[bytes, tuple[Result, bytes]] = {}  # what awaited, what came, by which
        self.freezes: list[tuple[bytes, bytes, int, bool]] = []  # new ones
        self.periods: dict[str, bytes] = {}  # closed ones, and the command that closed each
        self.booked_period = ""  # that of the cut
        self.changed_conversions: set[bytes] = set()
        self.changed_pending: set[tuple[bytes, int]] = set()
        self.changed_lots: dict[bytes, Lot] = {}
        self.changed_orders: dict[bytes, Order] = {}
        self.changed_members: set[bytes] = set()
        self.dated_lots: set[bytes] = set()  # whose rule or dates are others now
        self.former_dates: dict[bytes, LotDates] = {}  # as the store has them
        self.is_full = False
        self._own_lot_ids: dict[tuple[bytes, bytes], bytes] = {}
        self._transfers: list[Transfer] = []
        self._moves: list[LotMove] = []
        self.issued = 0

    # What is known

    def put_account(self, number: int, name: str, commodity: str, balance: int) -> None:
        """Add a named account as the store has it."""
        self.accounts[name, commodity] = number
        self.balances[number] = balance
        self.names[number] = f"{name}\0{commodity}".encode()
        if not -FULL < balance < FULL:
            self.is_full = True

    def account(self, name: str, commodity: str = "") -> int:
        """The number of a named account (of points, unless said otherwise), opened where it is new.

        The store has put in every account that a batch may name.
        """
        at = (name, commodity or self.commodity)
        number = self.accounts.get(at)
        if number is None:
            self.last_account += 1
            number = -self.last_account
            self.put_account(number, *at, 0)
        return number

    def put_member(self, member: Member, balances: tuple[int, int, int, int]) -> None:
        """Add a member with what is in the four accounts, debits positive."""
        self.members[member.subscriber_id] = member
        first = member.number * BUCKETS
        for bucket, balance in enumerate(balances):
            self.balances[first + bucket] = balance
            self.names[first + bucket] = member.subscriber_id + bytes((bucket,))

    def member(self, subscriber_id: bytes) -> Member:
        """A member, who is new where the book has none; the store has put in all that it has."""
        found = self.members.get(subscriber_id)
        if found is None:
            self.last_member += 1
            found = Member(self.last_member, subscriber_id)
            self.put_member(found, (0, 0, 0, 0))
        return found

    def shown(self, member: Member, bucket: Bucket | int) -> int:
        """The points of one of a member's accounts, what is there being positive."""
        balance = self.balances[member.number * BUCKETS + bucket]
        return balance if bucket == Bucket.DEBT else -balance

    def put_lot(self, lot: Lot) -> None:
        """Add a lot."""
        self.lots[lot.lot_id] = lot
        self.member(lot.subscriber_id).lots[lot.lot_id] = lot

    def put_conversion(self, conversion: Conversion) -> None:
        """Take over a conversion's new standing."""
        key = conversion.target.conversion_key
        self.conversions[key] = conversion
        self.changed_conversions.add(key)

    def put_pending(self, item: PendingItem) -> None:
        """Take over a pending item's new standing."""
        at = (item.conversion_key, item.generation)
        self.pending[at] = item
        self.changed_pending.add(at)

    def terms_of(self, target: Target) -> Terms:
        """The terms of the rulebook that rated a target; where that is unknown, those in force."""
        return self.terms_by_rulebook.get(target.rulebook_hash, self.rules.terms)

    def own_lot_id(self, conversion_key: bytes, subscriber_id: bytes) -> bytes:
        """The id of the lot that a conversion gives to a member."""
        at = (conversion_key, subscriber_id)
        found = self._own_lot_ids.get(at)
        if found is None:
            found = self._own_lot_ids[at] = lot_id(self.key, self.programme, *at)
        return found

    def expiry_of(self, lot: Lot) -> int:
        """When a lot lapses, as things stand."""
        policy = lot.terms.expiry_policy
        if lot.expires_ns != END_OF_TIME or not policy.startswith(INACTIVITY):
            return lot.expires_ns
        active_ns = max(self.members[lot.subscriber_id].active_ns, lot.earned_ns)
        return inactive_ns(policy, active_ns, self.rules.timezone)

    def in_spending_order(self, lots: list[Lot]) -> list[Lot]:
        """Lots, nearest expiry first, then the earliest earned."""
        return sorted(lots, key=lambda lot: (self.expiry_of(lot), lot.earned_ns, lot.lot_id))

    def spendable(self, member: Member, at_ns: int) -> list[Lot]:
        """The member's lots that may be spent at a time, in spending order."""
        found = [
            lot
            for lot in member.lots.values()
            if lot.remaining and lot.spendable_from_ns <= at_ns < self.expiry_of(lot)
        ]
        return found if len(found) < 2 else self.in_spending_order(found)

    # What is moved

    def move(self, kind: int, debit: int, credit: int, amount: int) -> None:
        """Move an amount (above 0) from the account credited to the one debited."""
        assert amount > 0, KIND_WORDS[kind]
        self.balances[debit] += amount
        self.balances[credit] -= amount
        self._transfers.append(Transfer(kind, debit, credit, amount))

    def touch(
        self, lot: Lot, amount: int = 0, remaining: int = 0, held: int = 0, lapsed: int = 0
    ) -> None:
        """Let the transfer moved last change the four numbers of a lot."""
        lot.amount += amount
        lot.remaining += remaining
        lot.held += held
        lot.lapsed += lapsed
        # Of what lapsed at several dates, the earliest is taken back first.
        lot.lapsed_last = min(lot.lapsed_last, lot.lapsed)
        assert lot.remaining >= 0 <= lot.held and lot.lapsed >= 0, lot  # noqa: PT018
        step = len(self._transfers) - 1
        self._moves.append(LotMove(step, lot.lot_id, amount, remaining, held, lapsed))
        self.changed_lots[lot.lot_id] = lot

    def close_posting(
        self,
        origin: Origin,
        identifier: bytes,
        version: int,
        effective_ns: int,
        subscriber_id: bytes = NO_ID,
        click_id: bytes = NO_ID,
        visit_id: bytes = NO_ID,
    ) -> Posting:
        """What was moved since the last posting, as one about this cause."""
        transfers, moves = self._transfers, self._moves
        assert len(transfers) <= MAX_STEPS, "a posting has more transfers than ids are made for"
        self._transfers, self._moves = [], []
        if len(moves) > 1:
            moves = merged(moves)
        for move in moves:
            lot = self.lots[move.lot_id]
            assert lot.remaining + lot.lapsed <= lot.amount, lot
        if transfers and subscriber_id in self.members:
            self.changed_members.add(subscriber_id)
        cause = Cause(identifier, version, effective_ns, subscriber_id, click_id, visit_id, origin)
        return Posting(cause, transfers, moves)

    def date_lot(self, lot: Lot, earned_ns: int, spendable_from_ns: int, expires_ns: int) -> None:
        """Give a lot other dates; what it had before is kept as long as somebody may ask."""
        before = lot.dates
        if before == (earned_ns, spendable_from_ns, expires_ns):
            return
        if lot.stored or before.expires_ns:  # not the first dates of a new one
            self.former_dates.setdefault(lot.lot_id, before)
        lot.earned_ns, lot.spendable_from_ns, lot.expires_ns = (
            earned_ns, spendable_from_ns, expires_ns,
        )  # fmt: skip
        self.changed_lots[lot.lot_id] = lot
        self.dated_lots.add(lot.lot_id)

    def rate_of(self, exchange: str, out: bool) -> Fraction:
        """The rate of an exchange in one direction; zero where there is none."""
        found = self.rules.exchanges.get(exchange)
        return Fraction(0) if found is None else found.rate_out if out else found.rate_in

    def issued_account(self) -> int:
        """The number of the account that all points are issued from."""
        if not self.issued:
            self.issued = self.account(ISSUED)
        return self.issued


def merged(moves: list[LotMove]) -> list[LotMove]:
    """One move for each lot and step, in their order: the hash chain is over it."""
    found: dict[tuple[int, bytes], LotMove] = {}
    for move in moves:
        at = move[:2]
        before = found.get(at)
        if before is not None:
            move = LotMove(*at, *(a + b for a, b in zip(before[2:], move[2:], strict=True)))
        found[at] = move
    return sorted(found.values())
