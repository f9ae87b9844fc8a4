"""Host names in rules: how they are written, and who gets which name.

A name in a rule is cleaned once: lower case, A-labels (IDNA 2008 after the mapping of UTS 46), no
trailing dot. `hosts` and `exclude` mean a name and everything under it, `exact` the name alone.

Who gets a name is decided by the longest entry it ends with, on a label boundary; a name under an
`exclude` of a partner is not that partner's and goes to whoever is next. All entries a name ends
with are also ends of the longest one, so the answer is a property of that one entry: `Claims` works
out, once, who gets the names under each entry (`under`) and who gets the name itself (`exact`).
Kernels then need a single hit. Codes: a partner is its number, a tracker `TRACKER - number`, nobody
`NOBODY`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import idna

from pipeline.rulebook.model import Partner, Tracker

NOBODY = -1
TRACKER = -2
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
# Second-level names under a country that are registries rather than somebody's: co.uk, com.tr.
REGISTRY = re.compile(r"(?:ac|co|com|edu|gov|net|org)\.[a-z]{2}\Z")


class HostError(ValueError):
    """A text that cannot be a host name of a rule; the message says what was expected."""


def clean_host(text: str) -> str:
    """The name as lower-case A-labels. Raises HostError."""
    name = text.strip().lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError as error:
            raise HostError(f"a host name that IDNA allows ({error})") from None
    if name.startswith("*."):
        raise HostError(f"a host name without '*.': {name[2:]} already means all names under it")
    labels = name.split(".")
    if len(name) > 253 or not all(LABEL.match(label) for label in labels):
        raise HostError("a host name such as shop.example, without scheme, port, path or final dot")
    if labels[-1].isdigit():
        raise HostError("a host name; addresses belong into prefixes")
    if len(labels) == 1:
        raise HostError("a host name with at least two labels, not a whole top-level domain")
    for label in labels:
        if label.startswith("xn--"):
            try:
                idna.ulabel(label)
            except idna.IDNAError as error:
                raise HostError(f"a host name that IDNA allows ({error})") from None
    return name


def is_registry(name: str) -> bool:
    """Does everybody under this name belong to somebody else, as under co.uk?"""
    return bool(REGISTRY.match(name))


def endings(name: str) -> Iterator[str]:
    """The name and all names it is under, longest first."""
    while name:
        yield name
        name = name.partition(".")[2]


def is_under(name: str, other: str) -> bool:
    """Is `name` the same as `other`, or under it?"""
    return name == other or name.endswith("." + other)


@dataclass(frozen=True, slots=True)
class Claims:
    """Entries in sorted order, and who gets the name itself and the names under it, as codes."""

    names: tuple[str, ...]
    exact: tuple[int, ...]
    under: tuple[int, ...]

    def lookup(self, host: str) -> int:
        """The code of a clean name: the slow way, for examples and for people who ask."""
        if not all(host.split(".")):
            return NOBODY
        numbers = {name: number for number, name in enumerate(self.names)}
        for ending in endings(host):
            if ending in numbers:
                return (self.exact if ending == host else self.under)[numbers[ending]]
        return NOBODY


def claims_of(partners: tuple[Partner, ...], trackers: tuple[Tracker, ...]) -> Claims:
    """Work out who gets what. Partners count by their place, drafts among them."""
    whole: dict[str, int] = {}  # this name and everything under it
    alone: dict[str, int] = {}
    barred: dict[str, set[int]] = {}
    for number, partner in enumerate(partners):
        whole.update(dict.fromkeys(partner.match.hosts, number))
        alone.update(dict.fromkeys(partner.match.exact, number))
        for name in partner.match.exclude:
            barred.setdefault(name, set()).add(number)
    for number, tracker in enumerate(trackers):
        whole.update(dict.fromkeys(tracker.hosts, TRACKER - number))
    names = sorted(whole.keys() | alone.keys() | barred.keys())
    exact, under = [], []
    for name in names:
        inherited = _resolve(name, whole, barred)
        under.append(inherited)
        claimed = alone.get(name)
        exact.append(inherited if claimed is None or claimed in _shut(name, barred) else claimed)
    return Claims(tuple(names), tuple(exact), tuple(under))


def _shut(name: str, barred: dict[str, set[int]]) -> set[int]:
    """The partners that may not have this name."""
    return set().union(*(barred.get(ending, set()) for ending in endings(name)))


def _resolve(name: str, whole: dict[str, int], barred: dict[str, set[int]]) -> int:
    shut = _shut(name, barred)
    claimed = (whole.get(ending, NOBODY) for ending in endings(name))
    return next((code for code in claimed if code != NOBODY and code not in shut), NOBODY)
