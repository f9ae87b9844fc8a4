"""What a rulebook is once it has been read and checked: frozen, hashed, and it knows its places.

A rulebook is the parsed form of the files under `rules/`. Everything in it that decides something
carries a `version`: 16 bytes of blake2b over its parsed content in a canonical form, so a comment
or a reordered key leaves it alone and a changed rate does not. `Rulebook.hash` is over the texts
themselves. Times are UTC nanoseconds, rates are fractions, nothing is a float.

`Rulebook.where` leads from a version back to the file, line and key it was read from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from pipeline.model.money import CURRENCY_SCALE
from pipeline.rulebook.policies import NO_FRAUD, USUAL_SHARES, Coupon, FraudPolicy, Shares

STATUSES = ("draft", "live", "paused")
DELIVERIES = ("deeplink", "param", "match", "none")
# Fields that contracts did not have at first: a contract that says none of them is as it was.
LATER_TERMS = ("coupons", "other_coupons", "attribution", "soft")
MODELS = ("last", "first", "position", "coupon")
OTHER_COUPONS = ("pay", "review", "decline")
ACCRUAL_KINDS = ("percent", "fixed")
ACTIONS = ("sale", "lead", "install", "bonus", "any")
TRACKER_CLASSES = ("affiliate", "cashback", "coupon", "network")


@dataclass(frozen=True, slots=True)
class Location:
    """Where something was written: file within the rules, line from 1, key path."""

    file: str
    line: int
    key: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key}"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in the rules; `nearest` is the valid name that looks most like what was found."""

    file: str
    line: int
    key: str
    found: str
    expected: str
    nearest: str = ""

    def __str__(self) -> str:
        tail = f"; nearest: {self.nearest}" if self.nearest else ""
        return (
            f"{self.file}:{self.line}: {self.key}: found {self.found}, "
            f"expected {self.expected}{tail}"
        )


class RulebookError(ValueError):
    """Rules that cannot be used; `problems` lists every mistake, by file and line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Programme:
    """The loyalty programme: its points and what they cost.

    Prices are money in major units of `currency` for one whole point.
    """

    id: str
    title: str
    timezone: str
    points: str
    points_scale: int
    currency: str
    region: str
    funder: str
    issue_price: Fraction
    settlement_price: Fraction
    expiry: str
    version: bytes
    location: Location


@dataclass(frozen=True, slots=True)
class Match:
    """Which names are the partner's: lower-case A-labels, sorted.

    `hosts` are a name and everything under it, `exact` the name alone, `exclude` a name and
    everything under it that is not the partner's after all. `prefixes` are for flow records
    without a name.
    """

    hosts: tuple[str, ...]
    exact: tuple[str, ...]
    exclude: tuple[str, ...]
    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """What was agreed with the partner, from `valid_from_ns` until before `valid_until_ns`.

    The partner owes `commission`, a share of the amount, and beside it `commission_fixed`, money in
    major units of `currency` for each conversion; one of the two may be nothing. `coupons` were
    issued to the programme; `other_coupons` says what a sale with another code leads to.
    `attribution` names the model that pays; `soft` leaves a sale to anybody else who has a click.
    """

    version: str
    valid_from_ns: int
    valid_until_ns: int
    click_delivery: str
    deep_link: str
    referral: bool
    attribution_window_ns: int
    return_window_ns: int
    currency: str
    commission: Fraction
    commission_fixed: Fraction
    terms: str
    location: Location
    coupons: tuple[Coupon, ...] = ()
    other_coupons: str = "pay"
    attribution: str = "last"
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Accrual:
    """How a conversion becomes points.

    Percent: `amount * rate / per_point`, where `per_point` is the money, in major units of the
    contract's currency, that one point stands for. Fixed: `points`, in smallest units.
    """

    id: str
    kind: str
    action: str
    rate: Fraction
    per_point: Fraction
    points: int
    valid_from_ns: int
    valid_until_ns: int
    version: bytes
    location: Location

    def points_for(self, amount_minor: int, currency: str, points_scale: int) -> int:
        """Points of an amount, in smallest units, rounded down once; below zero there are none."""
        if self.kind == "fixed":
            return self.points
        amount = Fraction(max(amount_minor, 0), 10 ** CURRENCY_SCALE[currency])
        return int(amount * self.rate / self.per_point * 10**points_scale)


@dataclass(frozen=True, slots=True)
class HostExample:
    """This name is, or is not, the partner's."""

    host: str
    matched: bool
    location: Location


@dataclass(frozen=True, slots=True)
class AccrualExample:
    """A conversion of this amount and action is worth these points (smallest units)."""

    amount: str
    action: str
    points: int
    at_ns: int | None
    location: Location


@dataclass(frozen=True, slots=True)
class Partner:
    """One partner: its names, its contracts by date and its accruals by date.

    `contract` is the newest of `contracts`, whatever the date. `insiders` are subscribers who are
    staff, payer or agent of the partner. Examples are not part of the version.
    """

    id: str
    title: str
    status: str
    match: Match
    contract: Contract
    contracts: tuple[Contract, ...]
    accruals: tuple[Accrual, ...]
    examples: tuple[HostExample | AccrualExample, ...]
    version: bytes
    location: Location
    insiders: tuple[bytes, ...] = ()

    def contract_at(self, event_ns: int) -> Contract | None:
        """The contract in force at this time."""
        for contract in self.contracts:
            if contract.valid_from_ns <= event_ns < contract.valid_until_ns:
                return contract
        return None

    def accruals_at(self, action: str, event_ns: int) -> tuple[Accrual, ...]:
        """The accruals in force for this action; one that names it before one for any action."""
        found = [
            accrual
            for accrual in self.accruals
            if accrual.action in (action, "any")
            and accrual.valid_from_ns <= event_ns < accrual.valid_until_ns
        ]
        return tuple(sorted(found, key=lambda accrual: accrual.action == "any"))


@dataclass(frozen=True, slots=True)
class Tracker:
    """Hosts and query parameters that show another affiliate at work; `id` is the class.

    Examples are not part of the version.
    """

    id: str
    title: str
    hosts: tuple[str, ...]
    marks: tuple[str, ...]
    examples: tuple[HostExample, ...]
    version: bytes
    location: Location


@dataclass(frozen=True, slots=True)
class Experiment:
    """The hold-out: this share of subscribers is left untreated, by keyed hash with `seed`."""

    name: str
    holdout: Fraction
    seed: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Numbers of the operator that decide how traffic is read."""

    id: str
    visit_gap_ns: int
    lateness_ns: int
    guard_ns: int
    tracker_window_ns: int
    experiment: Experiment
    version: bytes
    location: Location
    fraud: FraudPolicy = NO_FRAUD
    shares: Shares = USUAL_SHARES


@dataclass(frozen=True, slots=True)
class Rulebook:
    """All rules of one moment; `files` is the text of every file by its name within the folder."""

    hash: bytes
    files: Mapping[str, str]
    programme: Programme
    partners: tuple[Partner, ...]
    trackers: tuple[Tracker, ...]
    policy: Policy
    _places: Mapping[bytes, Location] = field(default_factory=dict, repr=False, compare=False)

    def text(self) -> str:
        """Every file as canonical JSON: what the journal keeps by hash."""
        return files_text(self.files)

    def partner(self, partner_id: str) -> Partner | None:
        """The partner with this id."""
        return next((p for p in self.partners if p.id == partner_id), None)

    def where(self, version: bytes) -> Location | None:
        """Where the part (programme, partner, accrual, tracker, policy) of this version stands."""
        return self._places.get(bytes(version))


def later_terms(contract: Contract) -> dict[str, Any]:
    """Those of a contract's later fields that are not usual, as plain content."""
    usual = {f.name: f.default for f in fields(Contract) if f.name in LATER_TERMS}
    found = {name: getattr(contract, name) for name in LATER_TERMS}
    return {
        name: [c.content() for c in value] if name == "coupons" else value
        for name, value in found.items()
        if value != usual[name]
    }


def files_text(files: Mapping[str, str]) -> str:
    """File names and texts as canonical JSON."""
    return json.dumps(dict(files), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def files_hash(files: Mapping[str, str]) -> bytes:
    """The hash of a rulebook's texts by file name."""
    return hashlib.blake2b(
        files_text(files).encode("utf-8", "surrogatepass"), digest_size=16, person=b"rulebook"
    ).digest()


def version_of(kind: str, content: Any) -> bytes:
    """The version of parsed content: dicts, lists, texts, integers, booleans and fractions."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=16, person=kind.encode()).digest()


def _plain(value: Any) -> str:
    assert isinstance(value, Fraction), type(value)
    return f"{value.numerator}/{value.denominator}"
