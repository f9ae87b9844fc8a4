"""What an entry is, in words that can be read to a subscriber on the telephone.

One sentence for each kind of entry: how many points, what became of them, and why. It names no
account and no id; the links behind it do. A test holds that every kind has its sentence.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pipeline.ledger.accounts import EntryKind
from pipeline.model.money import CURRENCY_SCALE, show_amount

Row = dict[str, Any]

SENTENCES = {
    EntryKind.EARN_PENDING: "{points} for a purchase{shop} on {day} wait until the shop has"
    " confirmed it.",
    EntryKind.CONFIRM: "The purchase{shop} on {day} was confirmed: {points} can be spent.",
    EntryKind.CANCEL_PENDING: "{points} that waited for the purchase{shop} on {day} were not"
    " confirmed and are gone.",
    EntryKind.EARN: "{points} were credited for the purchase{shop} on {day} and can be spent.",
    EntryKind.ADJUST_DELTA: "The shop changed the amount of the purchase{shop} on {day}; the"
    " difference is {points}.",
    EntryKind.REVERSE: "The purchase{shop} on {day} was taken back, and with it {points}.",
    EntryKind.DEBT_RECOVERY: "{points} of this credit went to what was owed, because points had"
    " been taken back after they were spent.",
    EntryKind.RESERVE: "{points} were set aside for an order on {day}.",
    EntryKind.COMMIT: "{points} were spent on an order on {day}.",
    EntryKind.RELEASE: "{points} that were set aside for an order are free again since {day}.",
    EntryKind.REFUND: "An order was taken back on {day}: {points} came back.",
    EntryKind.EXPIRE: "{points} were valid until {day} and had not been used by then.",
    EntryKind.REINSTATE: "{points} that had run out are there again, because of what happened on"
    " {day}.",
    EntryKind.TRANSFER: "{points} went from one member to another on {day}.",
    EntryKind.CONVERT_OUT: "{points} were changed into another programme's on {day}.",
    EntryKind.CONVERT_IN: "{points} came from another programme on {day}.",
    EntryKind.MANUAL_ADJUST: "{points} were changed by hand on {day}, by {actor}.",
    EntryKind.MIGRATE_OPEN: "{points} were brought over from the former programme; they date from"
    " {day}.",
    EntryKind.FORFEIT: "{points} were given up on {day}.",
    EntryKind.RE_RATE: "The rules for the purchase{shop} on {day} were changed for all; the"
    " difference is {points}.",
    EntryKind.SETTLE: "{points} between the programme and the shop{shop}, for the purchase on"
    " {day}.",
    EntryKind.STOCK: "{points} of a gift were moved in the store on {day}.",
}
CONDITIONAL = {
    # What stands on the other side of the member's account tells more than the kind does.
    (EntryKind.TRANSFER, "debit"): "{points} were given to another member on {day}.",
    (EntryKind.TRANSFER, "credit"): "{points} were a gift of another member on {day}.",
    (EntryKind.MANUAL_ADJUST, "debit"): "{points} were taken off by hand on {day}, by {actor}.",
    (EntryKind.MANUAL_ADJUST, "credit"): "{points} were added by hand on {day}, by {actor}.",
    (EntryKind.ADJUST_DELTA, "debit"): "The shop lowered the amount of the purchase{shop} on"
    " {day}: {points} less.",
    (EntryKind.ADJUST_DELTA, "credit"): "The shop raised the amount of the purchase{shop} on"
    " {day}: {points} more.",
    (EntryKind.RE_RATE, "debit"): "The rules for the purchase{shop} on {day} were changed for"
    " all: {points} less.",
    (EntryKind.RE_RATE, "credit"): "The rules for the purchase{shop} on {day} were changed for"
    " all: {points} more.",
}


def sentence(legs: list[Row], points_scale: int) -> str:
    """A sentence about a transfer, given its two legs as the store has them."""
    debit = legs[0]
    kind = EntryKind[str(debit["kind"]).upper()]
    side = _side_of_member(legs)
    text = CONDITIONAL.get((kind, side), SENTENCES[kind])
    return text.format(
        points=_amount(abs(int(debit["amount"])), str(debit["commodity"]), points_scale),
        shop=f" at {debit['partner']}" if debit["partner"] else "",
        day=_day(debit["effective_at"]),
        actor=debit["actor"] or "the system",
    )


def _side_of_member(legs: list[Row]) -> str:
    """Which side a member's account stands on; empty where none or both do."""
    sides = [
        side
        for leg, side in zip(legs, ("debit", "credit"), strict=False)
        if str(leg["account"]).startswith("member:")
    ]
    return sides[0] if len(sides) == 1 else ""


def _amount(amount: int, commodity: str, points_scale: int) -> str:
    if commodity in CURRENCY_SCALE:
        return f"{show_amount(amount, CURRENCY_SCALE[commodity])} {commodity}"
    if commodity.startswith("stock:"):
        return str(amount)
    shown = show_amount(amount, points_scale)
    return f"{shown} point" if shown == "1" else f"{shown} points"


def _day(moment: Any) -> str:
    """A day as people say it: 5 March 2026 (UTC)."""
    when = datetime.fromisoformat(str(moment).split(".")[0])
    return f"{when.day} {when:%B %Y}"
