"""What a good purchase message says, read with decimals and a table of words by hand."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

DECIMALS = {"EUR": 2, "USD": 2, "JPY": 0, "KWD": 3}
WORDS = {
    "pending": 1, "new": 1, "open": 1, "on hold": 1, "on_hold": 1, "2": 1,
    "5": 2, "extended": 2, "approved_hold": 2,
    "approved": 3, "closed": 3, "confirmed": 3, "1": 3, "success": 3,
    "amended": 4, "adjusted": 4, "correction": 4, "corrected": 4,
    "declined": 5, "rejected": 5, "denied": 5, "deleted": 5, "3": 5, "reversed": 5,
    "cancelled": 5, "canceled": 5,
    "locked": 6,
    "paidtopublisher": 7, "paid": 7, "reward_ready": 7,
}  # fmt: skip


def minor(text: str, currency: str) -> int | None:
    """An amount in minor units; None where it is not a plain decimal of the currency."""
    if not text.isascii() or any(c not in "0123456789.+-" for c in text):
        return None
    body = text.lstrip("+-")
    if not body or len(text) - len(body) > 1 or body[0] == "." or body[-1] == ".":
        return None
    if len(body.split(".")[0]) > 15 or len(body.partition(".")[2]) > 6:
        return None
    try:
        value = Decimal(text).scaleb(DECIMALS[currency])
    except InvalidOperation:
        return None
    return int(value) if value == value.to_integral_value() else None


def read(message: dict[str, Any]) -> tuple[int, int, int] | None:
    """(status, amount mode, amount) of an EUR message; None where it has to be parked."""
    status = WORDS.get(message["status"].lower())
    if status is None:
        return None
    if not message["amount"]:
        return status, 2, 0
    amount = minor(message["amount"], "EUR")
    if amount is None or abs(amount) > 10**12:
        return None
    return status, 2 if message.get("amount_mode") == "delta" else 1, amount
