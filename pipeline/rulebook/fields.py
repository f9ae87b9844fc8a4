"""Reading one TOML table: every value is asked for by name, and every mistake is written down.

A `Sheet` is one file: its parsed values, where its keys stand, and the problems found so far.
`Fields` is one table of it. Each method gives a value of the right kind, or a harmless stand-in
after noting the problem, so that reading goes on and all mistakes are found at once. `done` reports
the keys that nobody asked for and the ones that were needed and missing: when an unknown key looks
like a missing one, that is one mistake, not two.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pipeline.model.money import AmountError, parse_amount, parse_rate
from pipeline.model.times import EPOCH, FIRST_NS, LAST_NS
from pipeline.rulebook.locate import KeyPath, line_of, show_path
from pipeline.rulebook.model import Location, Problem
from pipeline.rulebook.names import HostError, clean_host

UNITS_NS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
DURATION = re.compile(r"(\d{1,6})(s|m|h|d)\Z", re.ASCII)
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?\Z", re.ASCII)
SHOWN_LENGTH = 80


def nearest(found: str, valid: Sequence[str]) -> str:
    """The valid name that looks most like what was found; empty where none does."""
    by_lower = {name.lower(): name for name in valid}
    close = difflib.get_close_matches(found.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else ""


def show_value(value: Any) -> str:
    """A TOML value in a message, on one line and not too long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        return quoted if len(quoted) <= SHOWN_LENGTH else quoted[:SHOWN_LENGTH] + "..."
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return "a table"
    return str(value)


@dataclass(slots=True)
class Sheet:
    """One file of rules while it is being read.

    `zone` is where its plain dates begin, `currency` what the programme counts in (empty: unknown).
    """

    name: str
    values: dict[str, Any]
    lines: dict[KeyPath, int]
    zone: tzinfo = UTC
    currency: str = ""
    problems: list[Problem] = field(default_factory=list)

    def report(self, path: KeyPath, found: str, expected: str, near: str = "") -> None:
        """Note a problem at this key."""
        line = line_of(self.lines, path)
        self.problems.append(Problem(self.name, line, show_path(path), found, expected, near))

    def location(self, path: KeyPath) -> Location:
        """Where this key stands."""
        return Location(self.name, line_of(self.lines, path), show_path(path))

    def fields(self) -> Fields:
        """The outermost table."""
        return Fields(self, (), self.values)


class Fields:
    """One table, asked key by key."""

    def __init__(self, sheet: Sheet, path: KeyPath, values: dict[str, Any]) -> None:
        self.sheet, self.path, self.values = sheet, path, values
        self._asked: list[str] = []
        self._missing: list[tuple[str, str]] = []

    def at(self, key: str) -> KeyPath:
        """The path of a key of this table."""
        return (*self.path, key)

    def report(self, key: str, expected: str, near: str = "") -> None:
        """Note that the value of `key` is not what was expected."""
        self.sheet.report(self.at(key), show_value(self.values.get(key)), expected, near)

    def has(self, key: str) -> bool:
        """Is the key there? Asking makes it a known key."""
        if key not in self._asked:
            self._asked.append(key)
        return key in self.values

    def done(self) -> None:
        """Report unknown and missing keys. To be called last."""
        missing = dict(self._missing)
        for key in self.values:
            if key in self._asked:
                continue
            near = nearest(key, [k for k in self._asked if k in missing]) or nearest(
                key, [k for k in self._asked if k not in self.values]
            )
            missing.pop(near, None)
            expected = "one of the keys " + ", ".join(self._asked)
            self.sheet.report(self.at(key), f"unknown key {show_value(key)}", expected, near)
        for key, expected in missing.items():
            self.sheet.report(self.at(key), "nothing", expected)

    def _value(self, key: str, needed: bool, expected: str) -> Any:
        if self.has(key):
            return self.values[key]
        if needed:
            self._missing.append((key, expected))
        return None

    def text(self, key: str, *, default: str | None = None, empty: bool = False) -> str:
        """A text of one line; needed unless there is a default."""
        expected = "a text of one line" + ("" if empty else ", not empty")
        value = self._value(key, default is None, expected)
        if value is None:
            return default or ""
        if not isinstance(value, str) or (not value.strip() and not empty) or "\n" in value:
            self.report(key, expected)
            return default or ""
        return value

    def name(self, key: str) -> str:
        """A name of ours: lower-case letters, digits and hyphens."""
        expected = "a name of lower-case letters, digits and hyphens"
        value = self._value(key, True, expected)
        if value is None:
            return ""
        if not isinstance(value, str) or not NAME.match(value):
            self.report(key, expected)
            return ""
        return value

    def choice(self, key: str, options: Sequence[str], *, default: str | None = None) -> str:
        """One word of a closed list; the first option stands in for a wrong one."""
        expected = "one of " + ", ".join(options)
        value = self._value(key, default is None, expected)
        if value is None:
            return default or options[0]
        if value not in options:
            self.report(key, expected, nearest(value, options) if isinstance(value, str) else "")
            return default or options[0]
        return str(value)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._value(key, True, "true or false")
        if value is not None and not isinstance(value, bool):
            self.report(key, "true or false without quotes")
        return value is True

    def integer(self, key: str, low: int, high: int, expected: str = "") -> int:
        """An integer of `low..high`."""
        expected = expected or f"an integer from {low} to {high}"
        value = self._value(key, True, expected)
        if value is None:
            return low
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.report(key, expected)
            return low
        return value

    def fraction(
        self, key: str, low: Fraction, high: Fraction, expected: str, *, above: bool = False
    ) -> Fraction:
        """A rate or an amount of `low..high` (`above`: more than `low`), exact."""
        value = self._value(key, True, expected)
        if value is None:
            return high
        found = exact(value)
        if found is None or not low <= found <= high or (above and found == low):
            self.report(key, expected)
            return high
        return found

    def share(self, key: str, *, above: bool = False) -> Fraction:
        """A share of 0 to 1, such as "5%"."""
        least = "above 0%" if above else "from 0%"
        expected = f'a rate {least} to 100%, such as "5%" or "1/20"'
        return self.fraction(key, Fraction(0), Fraction(1), expected, above=above)

    def price(self, key: str, *, above: bool = False) -> Fraction:
        """Money in major units of a currency."""
        least = "above 0" if above else "of 0 or more"
        expected = f'an amount {least} and at most 1000000, such as "0.01"'
        return self.fraction(key, Fraction(0), Fraction(10**6), expected, above=above)

    def amount(self, key: str) -> str:
        """A decimal number with at most six decimals, as text."""
        expected = 'an amount such as "26.09"'
        value = self._value(key, True, expected)
        if value is None:
            return "0"
        text = str(value) if isinstance(value, str | int | Decimal) else ""
        try:
            parse_amount(text, 6)
        except AmountError:
            self.report(key, expected)
            return "0"
        return text.strip()

    def duration(self, key: str, *, low_ns: int = 0) -> int:
        """Nanoseconds of a duration such as "30m"."""
        expected = 'a duration such as "30s", "30m", "12h" or "14d"'
        value = self._value(key, True, expected)
        if value is None:
            return low_ns
        found = DURATION.match(value) if isinstance(value, str) else None
        length = int(found[1]) * UNITS_NS[found[2]] if found else -1
        if found and length < low_ns:
            self.report(key, f"a duration of at least {low_ns // 10**9}s")
        elif not found or length > 3660 * UNITS_NS["d"]:
            self.report(key, expected + " of at most ten years")
        else:
            return length
        return low_ns

    def moment(self, key: str, *, default: int | None = None) -> int:
        """UTC nanoseconds of a date (its midnight in the programme's zone) or a date and time."""
        expected = "a date such as 2026-01-01, or a date and time with offset"
        value = self._value(key, default is None, expected)
        if value is None:
            return default if default is not None else FIRST_NS
        if isinstance(value, datetime):
            if value.tzinfo is None:
                self.report(key, "a date and time with offset, such as 2026-01-01T00:00:00Z")
                return default if default is not None else FIRST_NS
        elif isinstance(value, date):
            value = datetime.combine(value, time(), self.sheet.zone)
        else:
            self.report(key, expected + ", without quotes")
            return default if default is not None else FIRST_NS
        since = value.astimezone(UTC) - EPOCH
        found = (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
        if not FIRST_NS <= found < LAST_NS:
            self.report(key, "a date from 2000 to 2199")
            return default if default is not None else FIRST_NS
        return found

    def texts(
        self,
        key: str,
        clean: Callable[[str], str],
        *,
        needed: bool = False,
        expected: str = "texts",
    ) -> dict[str, KeyPath]:
        """An array of texts, each cleaned by `clean`; in their order, with where each one stands.

        `clean` raises ValueError with what it expects.
        """
        value = self._value(key, needed, f"an array of {expected}")
        if value is None:
            return {}
        if not isinstance(value, list) or (needed and not value):
            self.report(key, f"an array of {expected}" + ", at least one" * needed)
            return {}
        found: dict[str, KeyPath] = {}
        for number, one in enumerate(value):
            path = (*self.at(key), number)
            if not isinstance(one, str):
                self.sheet.report(path, show_value(one), f"an array of {expected}")
                continue
            try:
                cleaned = clean(one)
            except ValueError as error:
                self.sheet.report(path, show_value(one), str(error))
                continue
            if cleaned in found:
                self.sheet.report(path, show_value(one), "each of them once")
            found.setdefault(cleaned, path)
        return found

    def hosts(self, key: str, *, needed: bool = False) -> dict[str, KeyPath]:
        """Host names as A-labels, and where they stand."""
        return self.texts(key, clean_host, needed=needed, expected="host names")

    def host(self, key: str) -> str:
        """One host name, for an example: anything a client could name."""
        value = self.text(key)
        try:
            return clean_host(value) if value else ""
        except HostError as error:
            self.report(key, str(error))
            return ""

    def prefixes(self, key: str) -> dict[str, KeyPath]:
        """Address prefixes in canonical form, and where they stand."""
        return self.texts(key, clean_prefix, expected="address prefixes")

    def table(self, key: str, *, needed: bool = False) -> Fields | None:
        """A table; None, after a report where it was needed, if it is not there."""
        value = self._value(key, needed, f"a table [{key}]")
        if value is None:
            return None
        if not isinstance(value, dict):
            self.report(key, f"a table [{key}]")
            return None
        return Fields(self.sheet, self.at(key), value)

    def tables(self, key: str, *, needed: bool = False) -> list[Fields]:
        """The tables of an array of tables."""
        expected = f"[[{key}]], " + ("at least one" if needed else "an array of tables")
        value = self._value(key, needed, expected)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            self.report(key, expected)
            return []
        path = self.at(key)
        return [Fields(self.sheet, (*path, number), one) for number, one in enumerate(value)]


def exact(value: Any) -> Fraction | None:
    """A number or a rate text as a fraction; None for anything else."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            return parse_rate(value)
        except ValueError:
            return None
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= 20:
        return Fraction(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    return None


def clean_prefix(text: str) -> str:
    """An address prefix in canonical form. Raises ValueError with what was expected."""
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError:
        raise ValueError("an address prefix without host bits, such as 203.0.113.0/24") from None
