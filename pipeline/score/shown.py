"""Columns as text for explanations: ids, times, amounts and quotients, a list of strings each.

What each function gives for a row is what `id_text`, `show_time` and `show_amount` give for it; a
whole column at a time costs a third of that.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pipeline.model.money import INT64_MAX, show_amount
from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import SECOND_NS, show_time

PLACES = 4
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
# Where the two digits of each byte stand in xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.
HIGH = np.array([2 * n + (n >= 4) + (n >= 6) + (n >= 8) + (n >= 10) for n in range(16)])
LOW = HIGH + 1


def shown_ids(column: np.ndarray) -> list[str]:
    """UUID texts; empty for none."""
    raw = np.ascontiguousarray(column).view(np.uint8).reshape(-1, 16)
    text = np.full((len(raw), 36), ord("-"), np.uint8)
    text[:, HIGH], text[:, LOW] = DIGITS[raw >> 4], DIGITS[raw & 15]
    found: list[str] = text.view("S36").reshape(-1).astype("U36").tolist()
    for row in np.flatnonzero(~raw.any(axis=1)).tolist():
        found[row] = ""
    return found


def shown_times(column: np.ndarray) -> list[str]:
    """ISO 8601 in UTC; `never` for 0 and for the end of time."""
    seconds, rest = np.divmod(column, SECOND_NS)
    found = [f"{t}Z" for t in np.datetime_as_string(seconds.astype("datetime64[s]")).tolist()]
    never = (column <= 0) | (column >= END_OF_TIME)
    for row in np.flatnonzero(never | (rest > 0)).tolist():
        found[row] = "never" if never[row] else show_time(int(column[row]))
    return found


def shown_amounts(column: np.ndarray, scale: int) -> list[str]:
    """Integers of the smallest unit as decimals."""
    if scale == 0 or (len(column) and column.min() < 0):
        return [show_amount(value, scale) for value in column.tolist()]
    whole, rest = np.divmod(column, 10**scale)
    return [f"{w}.{r:0{scale}d}" for w, r in zip(whole.tolist(), rest.tolist(), strict=True)]


def shown_shares(amount: np.ndarray, part: Fraction) -> list[str]:
    """`amount * part` (0 or above) to four decimals, cut off and then marked by `...`: enough to
    see which way it was rounded.
    """
    over, under = part.numerator * 10**PLACES, part.denominator
    if max(int(amount.max(initial=0)), 1) * over > INT64_MAX or under > INT64_MAX:
        exact = [Fraction(value) * part for value in amount.tolist()]
        return [shown_fraction(value) for value in exact]
    whole, rest = np.divmod(amount * np.int64(over), np.int64(under))
    texts = zip(shown_amounts(whole, PLACES), rest.tolist(), strict=True)
    return [trimmed(text) + ("..." if left else "") for text, left in texts]


def shown_fraction(value: Fraction) -> str:
    """One value, as in `shown_shares`."""
    whole = value.numerator * 10**PLACES // value.denominator
    text = trimmed(show_amount(whole, PLACES))
    return text if Fraction(whole, 10**PLACES) == value else f"{text}..."


def trimmed(text: str) -> str:
    """A decimal without zeros at its end."""
    return text.rstrip("0").rstrip(".")
