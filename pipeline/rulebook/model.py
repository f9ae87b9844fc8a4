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
ACCRUAL_KINDS = ("percent", "fixed", "ladder", "multiplier")
LADDERS = ("whole", "slices")
BASES = ("net", "gross", "sent")
STACKINGS = ("add", "best_of", "exclusive", "multiply")
BUDGET_POLICIES = ("truncate", "reject", "all_or_nothing")
PLAIN_PRIORITY = 100  # of a rule that names none
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
class Exchange:
    """Another programme that points can be changed with.

    `unit` is the commodity of its points. `rate_out` are its points for one of ours, `rate_in` ours
    for one of its, in smallest units; zero where that way is shut.
    """

    id: str
    unit: str
    rate_out: Fraction
    rate_in: Fraction
    location: Location


@dataclass(frozen=True, slots=True)
class Programme:
    """The loyalty programme: its points and what they cost.

    Prices are money in major units of `currency` for one whole point. `hold_ns` is how long a
    reservation lasts that names no time, `waiting_ns` how long a new member waits before spending,
    `refund` which date points have that come back after theirs (`original`, `grace(Nd)`, `fresh`),
    `manual_limit` up to how many points, in smallest units, one person alone may adjust,
    `expected_lapse` which share of what is outstanding nobody will spend.
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
    hold_ns: int = 15 * 60 * 10**9
    waiting_ns: int = 0
    refund: str = "grace(30d)"
    manual_limit: int = 0
    expected_lapse: Fraction = Fraction(0)
    exchanges: tuple[Exchange, ...] = ()


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
class Step:
    """A step of a ladder: from this amount (major units) on, this rate, or these points."""

    start: Fraction
    rate: Fraction
    points: int


@dataclass(frozen=True, slots=True)
class When:
    """Conditions of an accrual, all of which have to hold; what is empty or 0 asks nothing.

    Tenure is in whole months, amounts are in major units and of what the rule counts. Levels and
    products are in lower case; one of those named is enough.
    """

    tenure_months_min: int = 0
    tenure_months_below: int = 0
    levels: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    amount_min: Fraction = Fraction(0)
    amount_below: Fraction = Fraction(0)

    @property
    def asks_member(self) -> bool:
        """Does it ask who the member is?"""
        asked = (self.tenure_months_min, self.tenure_months_below, self.levels, self.products)
        return any(asked)


@dataclass(frozen=True, slots=True)
class Caps:
    """The most points (smallest units) of a rule; 0: no cap. Days are of the programme's zone."""

    member: int = 0
    member_day: int = 0
    member_month: int = 0
    day: int = 0
    month: int = 0


@dataclass(frozen=True, slots=True)
class Accrual:
    """How a conversion becomes points.

    Percent: `amount * rate / per_point`, where `per_point` is the money, in major units of the
    contract's currency, that one point stands for. Fixed: `points`, in smallest units. Ladder: the
    rate or the points of the step that the amount reaches, or each slice at its own rate.
    Multiplier: `factor - 1` times the points of the rule it stands beside.

    `base` says what of a purchase counts, `exclude` and `only` name categories of line items. A
    rule without `stacking` is plain: one of them counts at a time. Smaller priorities come first.
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
    steps: tuple[Step, ...] = ()
    ladder: str = ""
    factor: Fraction = Fraction(1)
    base: str = "net"
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    when: When = When()
    stacking: str = ""
    priority: int = PLAIN_PRIORITY
    group: str = ""
    max_points: int = 0
    caps: Caps = Caps()
    budget: int = 0
    budget_policy: str = ""

    @property
    def multiplies(self) -> bool:
        """Is it worth something only beside another rule?"""
        return self.kind == "multiplier"

    @property
    def is_limited(self) -> bool:
        """Does what it gives depend on what it gave to others?"""
        return self.budget > 0 or self.caps != Caps()

    def points_for(self, amount_minor: int, currency: str, points_scale: int) -> int:
        """Points of an amount, in smallest units, rounded down once; below zero there are none."""
        if self.kind == "fixed":
            found = self.points
        elif self.kind == "multiplier":
            found = 0
        else:
            amount = Fraction(max(amount_minor, 0), 10 ** CURRENCY_SCALE[currency])
            found = self._of_amount(amount, points_scale)
        return min(found, self.max_points) if self.max_points else found

    def _of_amount(self, amount: Fraction, points_scale: int) -> int:
        if self.kind == "percent":
            return int(amount * self.rate / self.per_point * 10**points_scale)
        reached = [step for step in self.steps if step.start <= amount]
        if self.ladder == "slices":
            ends = [*(step.start for step in reached[1:]), amount]
            slices = zip(reached, ends, strict=True) if reached else ()
            weighed = sum(((end - step.start) * step.rate for step, end in slices), Fraction(0))
            return int(weighed / self.per_point * 10**points_scale)
        if not reached:
            return 0
        if reached[-1].points:
            return reached[-1].points
        return int(amount * reached[-1].rate / self.per_point * 10**points_scale)


@dataclass(frozen=True, slots=True)
class HostExample:
    """This name is, or is not, the partner's."""

    host: str
    matched: bool
    location: Location


@dataclass(frozen=True, slots=True)
class AccrualExample:
    """A conversion of this amount and action is worth these points (smallest units).

    What is said of the member (tenure in months, level, products) and of line items, each a
    category and what its amount, tax, shipping and discount are, holds for this example.
    """

    amount: str
    action: str
    points: int
    at_ns: int | None
    location: Location
    tenure_months: int = -1
    level: str = ""
    products: tuple[str, ...] = ()
    items: tuple[tuple[str, str, str, str, str], ...] = ()


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
        """The plain accruals in force for this action; one that names it before one for any."""
        found = [a for a in self._in_force(action, event_ns) if not a.stacking]
        return tuple(sorted(found, key=lambda accrual: accrual.action == "any"))

    def candidates_at(self, action: str, event_ns: int) -> tuple[Accrual, ...]:
        """The rules that may make up a conversion's worth, in the order in which they are asked.

        The first plain one and all that stack, by priority; among equals one that names the action
        comes first, then the earlier in the file.
        """
        plain = self.accruals_at(action, event_ns)[:1]
        stacked = [a for a in self._in_force(action, event_ns) if a.stacking]
        numbers = {a.id: number for number, a in enumerate(self.accruals)}
        return tuple(
            sorted((*plain, *stacked), key=lambda a: (a.priority, a.action == "any", numbers[a.id]))
        )

    def _in_force(self, action: str, event_ns: int) -> list[Accrual]:
        return [
            accrual
            for accrual in self.accruals
            if accrual.action in (action, "any")
            and accrual.valid_from_ns <= event_ns < accrual.valid_until_ns
        ]


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
