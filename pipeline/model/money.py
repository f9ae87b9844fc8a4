"""Money and points: integers of the smallest unit, with a scale per commodity. No floats.

A commodity is `PTS` of a programme or a currency (ISO 4217 code). Its scale is the number of
decimal digits the smallest unit stands for. Rates are fractions. Points are rounded down, once, on
the total.
"""

from __future__ import annotations

import re
from fractions import Fraction

INT64_MAX = 2**63 - 1
AMOUNT = re.compile(r"([+-]?)(\d{1,15})(?:\.(\d{1,6}))?\Z", re.ASCII)

# ISO 4217 minor units of the currencies we know; a currency that is not here parks the message.
CURRENCY_SCALE = {
    "AED": 2, "AMD": 2, "AZN": 2, "BGN": 2, "BYN": 2, "CHF": 2, "CNY": 2, "CZK": 2, "DKK": 2,
    "EUR": 2, "GBP": 2, "GEL": 2, "HKD": 2, "HUF": 2, "INR": 2, "JPY": 0, "KGS": 2, "KRW": 0,
    "KWD": 3, "KZT": 2, "MDL": 2, "NOK": 2, "PLN": 2, "RON": 2, "RSD": 2, "RUB": 2, "SEK": 2,
    "TJS": 2, "TRY": 2, "UAH": 2, "USD": 2, "UZS": 2, "VND": 0,
}  # fmt: skip


class AmountError(ValueError):
    """An amount that is not a plain decimal number, or finer than its currency."""


def parse_amount(text: str, scale: int) -> int:
    """A decimal string as an integer of the smallest unit.

    Raises AmountError for anything but digits with an optional sign and point, for more decimals
    than `scale` (trailing zeros aside) and for what does not fit int64.
    """
    found = AMOUNT.match(text.strip())
    if not found:
        raise AmountError(f"{text!r} is not a decimal number")
    sign, whole, fraction = found[1], found[2], (found[3] or "").rstrip("0")
    if len(fraction) > scale:
        raise AmountError(f"{text!r} has more than {scale} decimals")
    value = int(whole + fraction.ljust(scale, "0"))
    if value > INT64_MAX:
        raise AmountError(f"{text!r} is too large")
    return -value if sign == "-" else value


def show_amount(value: int, scale: int) -> str:
    """An integer of the smallest unit as a decimal string."""
    if scale == 0:
        return str(value)
    sign, digits = "-" if value < 0 else "", str(abs(value)).rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def floor_share(amount: int, rate: Fraction) -> int:
    """`amount * rate` rounded down towards minus infinity."""
    return (amount * rate.numerator) // rate.denominator


def parse_rate(text: str) -> Fraction:
    """A rate from `5%`, `0.05`, `1/20` or `5`. Raises ValueError for anything else."""
    number = text.strip().removesuffix("%").rstrip()
    if not re.fullmatch(r"-?\d+(\.\d+)?(/\d+)?", number, re.ASCII):
        raise ValueError(f"{text!r} is not a rate such as '5%', '0.05' or '1/20'")
    whole, _, below = number.partition("/")
    if below and int(below) == 0:
        raise ValueError(f"{text!r} divides by zero")
    rate = Fraction(whole) / (int(below) if below else 1)
    return rate / 100 if text.rstrip().endswith("%") else rate
