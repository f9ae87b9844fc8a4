"""`[[accrual]]` as it is read: kinds, conditions, stacking, limits, and what a version is of."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pipeline.rulebook.model import Caps, Step, When
from tests.rulebook.texts import ACME, rules

RULE = """[[accrual]]
id = "more"
action = "lead"
valid_from = 2026-01-01
{}

[[example]]
host = "m."""


def the_rule(body: str, action: str = "lead"):
    """The second rule of acme-shop."""
    text = RULE.replace("lead", action).format(body)
    return rules(ACME, ('[[example]]\nhost = "m.', text)).partners[0].accruals[1]


FIXED = 'kind = "fixed"\npoints = 5\n'


def test_a_ladder_of_rates_and_of_points():
    found = the_rule(
        'kind = "ladder"\nladder = "slices"\nper_point = "0.01"\n'
        '[[accrual.step]]\nfrom = 0\nrate = "1%"\n[[accrual.step]]\nfrom = "99.50"\nrate = "2%"'
    )
    assert found.steps == (
        Step(Fraction(0), Fraction(1, 100), 0),
        Step(Fraction(199, 2), Fraction(1, 50), 0),
    )
    assert (found.ladder, found.per_point) == ("slices", Fraction(1, 100))
    found = the_rule('kind = "ladder"\n[[accrual.step]]\nfrom = 50\npoints = 100')
    assert (found.ladder, found.steps) == ("whole", (Step(Fraction(50), Fraction(0), 100),))


def test_conditions_stacking_and_limits():
    found = the_rule(
        FIXED + 'stacking = "best_of"\ngroup = "spring"\npriority = 7\nmax_points = 9\n'
        'base = "gross"\nexclude = ["Gift-Card", "tea"]\n'
        '[accrual.when]\nlevels = ["Gold"]\ntenure_months_min = 24\namount_below = "20.50"\n'
        "[accrual.caps]\nmember_day = 50\nmonth = 900\n"
        '[accrual.budget]\npoints = 1000\npolicy = "all_or_nothing"'
    )
    assert (found.stacking, found.group, found.priority) == ("best_of", "spring", 7)
    assert (found.base, found.exclude, found.max_points) == ("gross", ("gift-card", "tea"), 9)
    assert found.when == When(24, levels=("gold",), amount_below=Fraction(41, 2))
    assert found.when.asks_member
    assert found.caps == Caps(member_day=50, month=900)
    assert (found.budget, found.budget_policy) == (1000, "all_or_nothing")
    assert found.is_limited


def test_what_is_left_out_is_plain_and_no_part_of_the_version():
    plain, stated = the_rule(FIXED), the_rule(FIXED + 'base = "net"\npriority = 100\nexclude = []')
    assert (plain.stacking, plain.base, plain.priority) == ("", "net", 100)
    assert not plain.is_limited
    assert not plain.when.asks_member
    assert stated.version == plain.version


@pytest.mark.parametrize(
    "more",
    [
        'base = "sent"',
        "priority = 99",
        'exclude = ["tea"]',
        'only = ["tea"]',
        'stacking = "add"\npriority = 100',
        "max_points = 9",
        '[accrual.when]\nlevels = ["gold"]',
        "[accrual.caps]\nday = 9",
        "[accrual.caps]\nmonth = 9",
        '[accrual.budget]\npoints = 9\npolicy = "reject"',
        '[accrual.budget]\npoints = 9\npolicy = "truncate"',
    ],
)
def test_whatever_decides_is_part_of_the_version(more):
    versions = {the_rule(FIXED + body).version for body in ("", more)}
    assert len(versions) == 2


def test_a_multiplier_stacks_by_itself():
    found = the_rule('kind = "multiplier"\nfactor = "120%"\npriority = 3', action="any")
    assert (found.stacking, found.factor, found.multiplies) == ("multiply", Fraction(6, 5), True)


def test_rules_that_stack_may_have_dates_that_overlap():
    more = RULE.replace('"lead"', '"sale"').format(FIXED + 'stacking = "add"\npriority = 3')
    partner = rules(ACME, ('[[example]]\nhost = "m.', more)).partners[0]
    at_ns = partner.accruals[0].valid_from_ns
    assert [a.id for a in partner.candidates_at("sale", at_ns)] == ["more", "acme-sale"]
    assert [a.id for a in partner.accruals_at("sale", at_ns)] == ["acme-sale"]
    assert [a.id for a in partner.candidates_at("lead", at_ns)] == []
