"""What each kind of command to the book asks for: a table that the command line and the owner read.

A **field** is an option of `mirrorpoint book KIND`, what its text has to be, and where it goes: a
column of the command (`member`, `points`) or a key of its body (everything else). What a kind makes
of them is in `ledger/`; `book_commands.py` says what is missing or wrong before it is journalled.

This module is read for every `--help`, so it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass

POINTS_MAX = 10**14  # what the book takes at once (`ledger/state.AMOUNT_MAX`)
SPENT_ON = ("service", "gift", "cash", "partner", "other")  # accounts.REDEMPTIONS
SECONDS_MAX = 366 * 86_400  # (`ledger/orders.HOLD_SECONDS_MAX`)


@dataclass(frozen=True, slots=True)
class Field:
    """An option of a kind. `says`: points, whole, id, order, time, name, word, period or reason."""

    option: str
    says: str
    help: str
    needed: bool = False
    to: str = ""  # the column or key; without it that of the option's name
    low: int = 1
    high: int = POINTS_MAX
    words: tuple[str, ...] = ()  # of what is a word

    @property
    def key(self) -> str:
        """The column or key of the body."""
        return self.to or self.option.replace("-", "_")

    @property
    def metavar(self) -> str:
        """What stands for its value in a help text."""
        return METAVARS.get(self.says, "|".join(self.words))


@dataclass(frozen=True, slots=True)
class Form:
    """A kind: what it does in a line, and its fields. `opens`: it may be about somebody who is in
    the circle and has no points yet.
    """

    help: str
    fields: tuple[Field, ...]
    opens: bool = False


METAVARS = {
    "points": "N", "whole": "N", "id": "ID", "order": "REF", "time": "T", "name": "NAME",
    "period": "YYYY-MM", "reason": "TEXT",
}  # fmt: skip

MEMBER = Field("member", "id", "Subscriber id of whose points it is about.", needed=True)
POINTS = Field("points", "points", "How many, in smallest units.", needed=True)
PART = Field("points", "points", "So many, in smallest units; all without it.")
EITHER = Field(
    "points",
    "points",
    "How many, in smallest units; below zero they are taken away.",
    needed=True,
    low=-POINTS_MAX,
)
ORDER = Field("order", "order", "The order's reference, as it was placed.", needed=True)
REQUEST = Field("request", "id", "What waits: an id of `mirrorpoint book waiting`.", needed=True)
WHY = Field("reason", "reason", "Why, in a line; it is put on record.", needed=True)
NOTE = Field("reason", "reason", "Why, in a line; it is put on record.")
PROGRAMME = Field("programme", "name", "The other programme's id.", needed=True)
BOUGHT = (
    Field("item", "name", "The gift that is ordered."),
    Field("quantity", "whole", "How many of the gift; one without it."),
    Field("redemption", "word", "What it is spent on; service without it.", words=SPENT_ON),
    Field("region", "name", "Where, which is what a scope is told by."),
    Field("channel", "name", "By which way it came."),
    Field("payee", "name", "The partner that is paid out."),
)

FORMS: dict[str, Form] = {
    "order": Form("A member spends points at once.", (MEMBER, POINTS, *BOUGHT)),
    "reserve": Form(
        "Reserve a member's points, until they are spent or released.",
        (
            MEMBER,
            POINTS,
            Field(
                "hold-seconds",
                "whole",
                "How long; without it as the programme says.",
                high=SECONDS_MAX,
            ),
            *BOUGHT,
        ),
    ),
    "commit": Form("Spend what is reserved, or part of it.", (ORDER, PART, NOTE)),
    "release": Form("Let a reservation go; its points are free again.", (ORDER, NOTE)),
    "refund": Form("Give back what an order spent, or part of it.", (ORDER, PART, NOTE)),
    "transfer": Form(
        "A member gives points to another.",
        (MEMBER, POINTS, Field("to", "id", "Subscriber id of who gets them.", needed=True)),
    ),
    "convert_out": Form(
        "A member's points become those of another programme.", (MEMBER, POINTS, PROGRAMME)
    ),
    "convert_in": Form(
        "Another programme's points become a member's.",
        (MEMBER, Field("points", "points", "How many of theirs.", needed=True), PROGRAMME),
        opens=True,
    ),
    "adjust": Form(
        "Give or take points by hand; above the limit a second person approves.",
        (MEMBER, EITHER, WHY),
        opens=True,
    ),
    "approve": Form("Agree, as the second person, to what waits.", (REQUEST, NOTE)),
    "reject": Form("Refuse, as the second person, what waits.", (REQUEST, NOTE)),
    "migrate": Form(
        "Bring in points of a former programme, with their own dates.",
        (
            MEMBER,
            POINTS,
            Field("earned", "time", "Since when the member had them; by default --at."),
            Field("expires", "time", "Until when; without it as the programme says."),
            NOTE,
        ),
        opens=True,
    ),
    "freeze": Form("Stop a member's spending.", (MEMBER, NOTE), opens=True),
    "unfreeze": Form("Let a member spend again.", (MEMBER, NOTE), opens=True),
    "forfeit": Form("A member who leaves loses what is available.", (MEMBER, PART, WHY)),
    "stock": Form(
        "Gifts come in, or are taken out again.",
        (
            Field("item", "name", "The gift.", needed=True),
            Field(
                "quantity",
                "points",
                "How many come in; below zero they are taken out.",
                needed=True,
                to="points",
                low=-POINTS_MAX,
            ),
            NOTE,
        ),
    ),
    "close_period": Form(
        "Close an accounting period that is over; later bookings go to the next.",
        (Field("period", "period", "Which month.", needed=True), NOTE),
    ),
}  # fmt: skip
