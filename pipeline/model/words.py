"""The closed lists: protocols, states, kinds, reasons. Numbers are append-only, never reused."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Protocol(IntEnum):
    """How a session named its host."""

    HTTP = 1
    TLS = 2
    QUIC = 3


class Method(IntEnum):
    """Request methods that matter to us; everything else is OTHER."""

    NONE = 0
    GET = 1
    HEAD = 2
    POST = 3
    PUT = 4
    DELETE = 5
    OPTIONS = 6
    CONNECT = 7
    PATCH = 8
    OTHER = 9


class SessionFlag(IntFlag):
    """Bits of `SessionBatch.flags`."""

    DOCUMENT = 1  # a top-level document GET, as far as the request head tells
    REPEAT = 2  # the flow has named this host before
    UNRELIABLE = 4  # overlapping bytes disagreed, or the names of one flow did
    MIDSTREAM = 8  # the flow's beginning was not seen
    HIDDEN = 16  # the name is one behind which others hide (encrypted client hello)
    WEAK = 32  # the name is not the flow's own: somebody's DNS answer had it for the address


class SignIn(IntEnum):
    """What a sign-in message says."""

    START = 1
    INTERIM = 2
    STOP = 3


class BindingKind(IntEnum):
    """Rows of the `bindings` stream."""

    BIND = 1
    END = 2


class Basis(IntEnum):
    """The standing of a subscriber; UNKNOWN is everyone outside the circle."""

    UNKNOWN = 0
    LISTED = 1
    CONSENTED = 2
    REFUSED = 3
    LEFT = 4


class ParseFor(IntEnum):
    """Whose payload may be read: `listed` includes `consented`. EVERYONE is for `inspect` only."""

    CONSENTED = 1
    LISTED = 2
    EVERYONE = 3


def outside(parse_for: ParseFor) -> tuple[int, ...]:
    """Each standing whose payload may not be read: taking it on is a withdrawal."""
    allowed = {
        ParseFor.CONSENTED: (Basis.CONSENTED,),
        ParseFor.LISTED: (Basis.CONSENTED, Basis.LISTED),
        ParseFor.EVERYONE: tuple(Basis),
    }[parse_for]
    return tuple(int(basis) for basis in Basis if basis not in allowed)


class VisitTrigger(IntEnum):
    """Why a version of a visit was written."""

    OPENED = 1
    DOCUMENT = 2  # its first plain-HTTP document GET, unless that opened it
    MARKED = 3  # an affiliate mark, a tracker or an ambiguity became known
    PAUSED = 4  # the unit of input ended while it was open
    CLOSED = 5


class Arrival(IntEnum):
    """How the subscriber came, as far as it could be seen."""

    UNSEEN = 0  # encrypted
    DIRECT = 1
    REFERRED = 2
    AFFILIATE = 3


class Decision(IntEnum):
    """What was decided for a visit."""

    NONE = 0
    PASS_WITH_CLICK = 1
    OFFER = 2
    INVITE = 3


class Reason(IntEnum):
    """Why a decision is what it is."""

    MEMBER_DOCUMENT = 1  # a member's plain-HTTP document GET: the click arises
    LISTED_DOCUMENT = 2  # somebody listed, not yet a member: would be offered the programme
    ENCRYPTED = 3  # nothing of the visit could be redirected
    NO_DOCUMENT = 4  # plain HTTP, but never a top-level document
    STOOD_DOWN = 5  # another affiliate brought this visit
    NO_REFERRAL = 6  # the contract does not allow it
    MATCHED_BY_SHOP = 7  # the shop tells us who bought; no link is needed
    NO_DELIVERY = 8  # the contract names no way to hand out a link
    HOLDOUT = 9  # the experiment's untreated cell
    AMBIGUOUS = 10  # the address changed hands around this time
    NOT_ALLOWED = 11  # the basis ended, or does not allow acting
    PARTNER_NOT_LIVE = 12


class Delivery(IntEnum):
    """What is known of a click's way to the subscriber."""

    UNPROVEN = 0
    PROVEN = 1


class Status(IntEnum):
    """Canonical status of a purchase message; a larger number outranks at the same time and
    sequence.
    """

    PENDING = 1
    APPROVED_HOLD = 2
    APPROVED = 3
    ADJUSTED = 4
    DECLINED = 5
    LOCKED = 6
    PAID = 7


class AmountMode(IntEnum):
    """Is an amount the new total, or a change of it?"""

    ABSOLUTE = 1
    DELTA = 2


class OrderBy(IntEnum):
    """What orders the messages of one conversion."""

    SENDER = 1
    ARRIVAL = 2


class ParkReason(IntEnum):
    """Why a purchase message waits outside the fold."""

    NONE = 0
    MALFORMED = 1
    MISSING_KEY = 2
    BAD_AMOUNT = 3
    UNKNOWN_STATUS = 4
    UNKNOWN_CURRENCY = 5
    UNKNOWN_PARTNER = 6
    PARTNER_NOT_LIVE = 7
    BAD_TIME = 8
    DUPLICATE = 9  # the same sender message once more


class TargetState(IntEnum):
    """Where a conversion's points stand."""

    NONE = 0
    PENDING = 1
    AVAILABLE = 2


class TargetReason(IntEnum):
    """Why a target is what it is."""

    AWARDED = 1
    HELD = 2  # approved, waiting for the return window
    PENDING = 3  # the partner has not confirmed
    DECLINED = 4
    ORPHAN = 5  # no click, no visit, no member
    STOOD_DOWN = 6
    OUTSIDE_WINDOW = 7
    AMBIGUOUS = 8
    NO_RULE = 9
    WRONG_PARTNER = 10  # the click belongs to another partner
    NOT_A_MEMBER = 11
    NO_POINTS = 12  # the amount is too small for one, or nothing is left of it
    # What the fraud score and people say has numbers of its own from 30 on.
    FRAUD_HOLD = 30  # waits longer than the return window
    FRAUD_REVIEW = 31  # waits until a person decides
    FRAUD_BLOCKED = 32  # refused, unless a person decides otherwise
    FRAUD_DECLINED = 33  # refused for good, by its codes or by a person


class FraudOutcome(IntEnum):
    """What the fraud codes of a conversion lead to; a larger number is the harder one."""

    NONE = 0
    HOLD = 1
    REVIEW = 2
    BLOCK = 3
    DECLINE = 4


class Verdict(IntEnum):
    """What a person decided about a conversion in the queue."""

    NONE = 0
    RELEASE = 1
    DECLINE = 2


class Result(IntEnum):
    """What the book answers to a transfer or a target."""

    OK = 0
    EXISTS = 1
    EXISTS_WITH_DIFFERENT_POINTS = 2
    STALE = 3
    INSUFFICIENT_POINTS = 4
    UNKNOWN_MEMBER = 5
    NOT_POSITIVE = 6
    OVERFLOW = 7
    RULE_VERSION_PINNED = 8
    PERIOD_CLOSED = 9
    PERIOD_OPEN = 10  # a period can be closed when it is over
    UNKNOWN_ORDER = 11
    CLOSED_ORDER = 12  # committed, released, timed out or decided already
    NOT_COMMITTED = 13  # only what was spent can be refunded
    FROZEN = 14
    WAITING_PERIOD = 15  # a new member earns at once and spends later
    OUT_OF_STOCK = 16
    UNKNOWN_EXCHANGE = 17
    AWAITING_APPROVAL = 18
    UNKNOWN_REQUEST = 19
    SAME_PERSON = 20  # two persons have to agree, and this is the first one again
    NO_REASON = 21
    NOT_ALLOWED = 22  # the role, or the part of the programme it holds for, does not cover it


# What people ask of the owner that moves nothing in the book, and is put on record there.
RECORDED_COMMANDS = (
    "review", "claim", "claim_closed", "identity_shown", "settings", "access", "denied",
    "ingest_abandoned",
)  # fmt: skip

# What is known of a member from a time on, as a command: no question to the book.
MEMBER_FACTS = "member_facts"

# What only an owner asks of the book, who has seen what it is about: rules for all.
OWN_COMMANDS = ("publish", "rerate")

# What may be asked of the book: kinds of the stream `commands`.
BOOK_COMMANDS = (
    "order", "reserve", "commit", "release", "refund", "transfer", "convert_out", "convert_in",
    "adjust", "approve", "reject", "migrate", "freeze", "unfreeze", "forfeit", "stock",
    "close_period", *OWN_COMMANDS,
)  # fmt: skip
