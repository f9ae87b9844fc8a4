"""What `rules check` and `rules test` show, as plain data and as text.

Checking reads the rules and lists every mistake. Testing runs the examples that stand in the files:
whether a name is the partner's, decided among all partners and trackers as in traffic, and what a
conversion is worth under the accruals in force at its time (`at`, or the beginning of the newest
plain rule). Caps and budgets are not looked at: they depend on other conversions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.model.money import CURRENCY_SCALE, AmountError, parse_amount
from pipeline.rulebook.model import (
    AccrualExample,
    HostExample,
    Location,
    Partner,
    Problem,
    Rulebook,
)
from pipeline.rulebook.names import TRACKER, Claims, claims_of
from pipeline.rulebook.worth import Purchase, parts_of


@dataclass(frozen=True, slots=True)
class ExampleResult:
    """One example: what was asked, what should come out and what did."""

    location: Location
    owner: str
    asked: str
    expected: str
    found: str
    passed: bool

    def __str__(self) -> str:
        word = "ok" if self.passed else "FAILED"
        return (
            f"{self.location}: {word}: {self.owner}: {self.asked}: "
            f"found {self.found}, expected {self.expected}"
        )


def show_problem(problem: Problem) -> str:
    """`file:line: key: found X, expected Y; nearest: Z`."""
    return str(problem)


def show_problems(problems: Iterable[Problem]) -> str:
    """One problem a line."""
    return "\n".join(show_problem(problem) for problem in problems)


def run_examples(rulebook: Rulebook) -> list[ExampleResult]:
    """Run every example of partners and trackers, in their order."""
    claims = claims_of(rulebook.partners, rulebook.trackers)
    results = []
    for number, partner in enumerate(rulebook.partners):
        for example in partner.examples:
            if isinstance(example, HostExample):
                results.append(_host(example, partner.id, number, claims))
            else:
                results.append(_accrual(example, partner, rulebook.programme.points_scale))
    for number, tracker in enumerate(rulebook.trackers):
        for example in tracker.examples:
            results.append(_host(example, tracker.id, TRACKER - number, claims))
    return results


def _host(example: HostExample, owner: str, code: int, claims: Claims) -> ExampleResult:
    matched = claims.lookup(example.host) == code
    words = {True: "matched", False: "ignored"}
    return ExampleResult(
        example.location,
        owner,
        f"host {example.host}",
        words[example.matched],
        words[matched],
        matched == example.matched,
    )


def _accrual(example: AccrualExample, partner: Partner, points_scale: int) -> ExampleResult:
    asked = f"{example.action} of {example.amount}"
    expected = str(example.points)
    at_ns = example.at_ns if example.at_ns is not None else _newest(partner, example.action)
    contract = partner.contract_at(at_ns) if at_ns is not None else partner.contract
    rules = partner.candidates_at(example.action, at_ns) if at_ns is not None else ()
    found = "0"
    if contract is None:
        found = "no contract at that time"
    elif rules:
        try:
            amount = parse_amount(example.amount, CURRENCY_SCALE[contract.currency])
            parts = parts_of(rules, _purchase(example, amount, contract.currency), points_scale)
            found = str(sum(points for _, points in parts))
        except AmountError as error:
            found = str(error)
    return ExampleResult(example.location, partner.id, asked, expected, found, found == expected)


def _newest(partner: Partner, action: str) -> int | None:
    """When the newest plain rule for an action begins; where none is plain, the newest."""
    named = [a for a in partner.accruals if a.action in (action, "any")]
    plain = [a for a in named if not a.stacking] or named
    return max((a.valid_from_ns for a in plain), default=None)


def _purchase(example: AccrualExample, amount_minor: int, currency: str) -> Purchase:
    return Purchase(
        amount_minor=amount_minor,
        currency=currency,
        items=example.items,
        items_minor=amount_minor,
        tenure_months=example.tenure_months,
        level=example.level,
        products=example.products,
    )
