"""`[fraud]`, coupons and insiders: what is usual, what a file may change, what it may not say."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pipeline.model.words import FraudOutcome
from pipeline.rulebook.fields import Sheet
from pipeline.rulebook.fraud import (
    DEFAULTS,
    INSIDER,
    SPENDING,
    read_coupons,
    read_fraud,
    read_insiders,
    read_shares,
)
from pipeline.rulebook.policies import USUAL_SHARES, Coupon, FraudPolicy, Shares
from pipeline.rulebook.read import from_texts
from tests.need import REPOSITORY

MEMBER = "d4258106-eb53-24e7-5e97-d1ac18eee34f"
MEMBER_ID = bytes.fromhex(MEMBER.replace("-", ""))


def sheet(values: dict) -> Sheet:
    return Sheet("policies/default.toml", values, {})


def fraud(values: dict) -> tuple[FraudPolicy, list[str]]:
    page = sheet({"fraud": values})
    found = read_fraud(page.fields().table("fraud"))
    return found, [str(problem) for problem in page.problems]


def test_a_policy_without_the_table_scores_nothing():
    assert read_fraud(None).codes == ()


def test_an_empty_table_has_every_code_as_usual():
    found, problems = fraud({})
    assert (found.codes, problems) == (DEFAULTS, [])
    assert (found.limit, found.hold_ns) == (100, 30 * 86_400 * 10**9)


def test_a_code_may_weigh_less_hold_elsewhere_and_lead_to_something_else():
    found, problems = fraud(
        {
            "limit": 80,
            "hold": "7d",
            "FAST": {"weight": 40, "under": "3s", "outcome": "block"},
            "RETURNER": {"over": "1/3", "orders": 8},
            "FLOOD": {"weight": 0},
        }
    )
    assert problems == []
    codes = {code.code: code for code in found.codes}
    assert (found.limit, found.hold_ns) == (80, 7 * 86_400 * 10**9)
    assert (codes["FAST"].weight, codes["FAST"].outcome) == (40, FraudOutcome.BLOCK)
    assert codes["FAST"].bounds == {"under_ns": 3 * 10**9}
    assert codes["RETURNER"].bounds == {"over": Fraction(1, 3), "orders": 8}
    assert codes["FLOOD"].weight == 0
    assert codes["GEO_IP"] in DEFAULTS


WRONG = {
    "a code nobody knows": ({"FASTT": {}}, "FASTT"),
    "a threshold of another": ({"FAST": {"over": 3}}, "over"),
    "a word that is no outcome": ({"FAST": {"outcome": "held"}}, "nearest: hold"),
    "a weight below nothing": ({"FAST": {"weight": -1}}, "weight"),
    "a share over the whole": ({"RETURNER": {"over": "130%"}}, "over"),
    "a duration without a unit": ({"FAST": {"under": "5"}}, "under"),
    "no limit": ({"limit": 0}, "limit"),
    "an outcome that the contract tells": ({"COUPON": {"outcome": "hold"}}, "outcome"),
    "no table": ({"FAST": 3}, "FAST"),
    "spending that is refused": ({"VELOCITY": {"outcome": "decline"}}, "outcome"),
    "an hour behind the day": ({"INSIDER": {"ends": 25}}, "ends"),
    "an outcome of a report": ({"INSIDER": {"outcome": "hold"}}, "outcome"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named(name):
    values, said = WRONG[name]
    _, problems = fraud(values)
    assert len(problems) == 1
    assert said in problems[0]


def test_what_a_code_that_is_off_says_decides_nothing():
    one, other = fraud({"FAST": {"weight": 0}}), fraud({"FAST": {"weight": 0, "under": "9s"}})
    assert one[0].content() == other[0].content()
    assert one[0].content() != fraud({})[0].content()


def test_codes_of_spending_and_credits_by_hand():
    usual, problems = fraud({})
    assert (usual.spending, usual.insider, problems) == (SPENDING, INSIDER, [])
    assert read_fraud(None).spending == ()
    found, problems = fraud(
        {
            "VELOCITY": {"hour": 2, "day": 3, "outcome": "review"},
            "DORMANT_BURN": {"over": "90d", "points": 10**9},
            "INSIDER": {"credits": 1, "within": "7d", "begins": 0, "ends": 24, "days": 7},
        }
    )
    assert problems == []
    velocity, burn = found.spending
    assert (velocity.bounds, velocity.outcome) == ({"hour": 2, "day": 3}, FraudOutcome.REVIEW)
    assert burn.bounds == {"over_ns": 90 * 86_400 * 10**9, "points": 10**9}
    assert found.insider.bounds["within_ns"] == 7 * 86_400 * 10**9
    assert found.content() == usual.content(), "no purchase is worth anything else for it"
    assert found.of_others() != usual.of_others()


def test_a_policy_with_other_codes_of_spending_is_another_version():
    shipped = shipped_texts()
    name = "policies/default.toml"
    texts = [
        shipped | {name: shipped[name] + f"\n[fraud.VELOCITY]\nhour = {hour}\n"} for hour in (5, 6)
    ]
    usual, same, other = (from_texts(each).policy.version for each in (shipped, *texts))
    assert usual == same != other


def coupons(*values: dict) -> tuple[tuple[Coupon, ...], list[str]]:
    page = sheet({"coupon": list(values)})
    found = read_coupons(page.fields())
    return found, [str(problem) for problem in page.problems]


def test_a_coupon_is_a_code_or_a_prefix_of_somebody_or_nobody():
    found, problems = coupons(
        {"code": "ann10", "member": MEMBER}, {"prefix": "LOY-", "channel": "newsletter"}
    )
    assert problems == []
    assert found == (
        Coupon("ANN10", False, MEMBER_ID, ""),
        Coupon("LOY-", True, bytes(16), "newsletter"),
    )
    assert found[0].fits("Ann10")
    assert not found[0].fits("ann101")
    assert found[1].fits("loy-1")
    assert not found[1].fits("xloy-1")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"code": "A", "prefix": "B"}, "not both"),
        ({}, "code"),
        ({"code": "A", "member": "ann"}, "a subscriber id"),
        ({"code": "A", "member": "00000000-0000-0000-0000-000000000000"}, "a subscriber id"),
        ({"code": "A", "codes": "B"}, "unknown key"),
    ],
)
def test_a_coupon_that_says_too_little_or_too_much_is_named(values, said):
    problems = coupons(values)[1]
    assert any(said in problem for problem in problems), problems


def test_insiders_are_subscriber_ids():
    page = sheet({"insiders": [MEMBER, "ann"]})
    assert read_insiders(page.fields()) == (MEMBER_ID,)
    (problem,) = page.problems
    assert "a subscriber id" in str(problem)


def test_the_page_lists_every_code_as_it_is_usual():
    page = (REPOSITORY / "docs" / "fraud.md").read_text()
    for code in (*DEFAULTS, *SPENDING):
        (line,) = [one for one in page.splitlines() if one.startswith(f"| `{code.code}` |")][:1]
        outcome = f"`{code.outcome.name.lower()}`" if code.outcome else "as the contract says"
        assert line.split("|")[2].strip().startswith(outcome)
        assert ("weight 50" in line) == (code.weight == 50)
        for name in code.bounds:
            assert f"`{name.removesuffix('_ns')} = " in line
    for name, bound in INSIDER.bounds.items():
        shown = '"30d"' if name.endswith("_ns") else str(bound)
        assert f"`{name.removesuffix('_ns')} = {shown}`" in page


def shares(values: dict) -> tuple[Shares, list[str]]:
    page = sheet({"position": values})
    found = read_shares(page.fields().table("position"))
    return found, [str(problem) for problem in page.problems]


def test_shares_of_positions_come_to_the_whole():
    assert read_shares(None) == USUAL_SHARES
    halves = Fraction(1, 2)
    found = shares({"first": "50%", "middle": "0%", "last": "50%"})
    assert found == (Shares(halves, Fraction(0), halves), [])
    for values in (
        {"first": "50%", "middle": "0%", "last": "49%"},
        {"first": "50%", "last": "50%"},
    ):
        assert len(shares(values)[1]) == 1


CONTRACT_HEAD = 'soft = true\nattribution = "first"\nother_coupons = "decline"\n'
CONTRACT_TAIL = '[[contract.coupon]]\ncode = "ann10"\n\n'


def shipped_texts() -> dict[str, str]:
    """The rules that ship, by file."""
    folder = REPOSITORY / "rules"
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*.toml"))}


def test_a_contract_may_say_more_and_is_another_then():
    shipped = shipped_texts()
    name = "partners/acme-shop.toml"
    changed = shipped | {name: shipped[name].replace("terms  ", CONTRACT_HEAD + "terms  ", 1)}
    changed[name] = changed[name].replace("[[accrual]]", CONTRACT_TAIL + "[[accrual]]", 1)
    before, after = (from_texts(texts).partner("acme-shop") for texts in (shipped, changed))
    assert (after.contract.attribution, after.contract.soft) == ("first", True)
    assert (after.contract.other_coupons, after.contract.coupons[0].code) == ("decline", "ANN10")
    assert (before.contract.attribution, before.contract.soft) == ("last", False)
    assert before.version != after.version
