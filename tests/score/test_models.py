"""Attribution models: which click is credited, coupons of members, standing down, soft mode."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.identifiers import id_text
from pipeline.model.words import Basis, TargetReason
from pipeline.rulebook.policies import USUAL_SHARES, Coupon, Shares
from pipeline.score.models import Touch, chosen, coupon_owners, position
from pipeline.score.rate import rate
from pipeline.score.reasoning import told
from tests.naive import models as naive
from tests.score.knowing import evidence
from tests.score.making import DAY_NS, NOON, a_partner, a_rulebook, an_id, folds

HOUR = 3600 * 10**9
CLICKS = tuple(
    {"click_id": f"click {n}", "visit_id": f"visit {n}", "clicked_ns": NOON - (9 - n) * DAY_NS}
    for n in range(4)
)
NAMED = {"click_id": "click 2", "click_visit": "visit 2", "clicked_ns": NOON - 7 * DAY_NS}
ANNS, NOBODYS = Coupon("ANN10", False, an_id("bob"), ""), Coupon("LOY-", True, bytes(16), "mail")
OWNED = ("bob", [(NOON - DAY_NS, Basis.CONSENTED)])


def rated(known: dict, fold: dict | None = None, **contract):
    rules = a_rulebook(a_partner(**contract))
    return rate(folds(NAMED if fold is None else fold), rules, NOON, evidence=evidence(known))


@pytest.mark.parametrize(
    ("model", "click"), [("last", 3), ("first", 0), ("position", 3), ("coupon", 3)]
)
def test_the_contracts_model_names_the_click(model, click):
    target = rated({"touches": CLICKS}, attribution=model)
    assert target.click_id[0].tobytes() == an_id(f"click {click}")
    assert target.visit_id[0].tobytes() == an_id(f"visit {click}")
    assert target.subscriber_id[0].tobytes() == an_id("ann")
    models = json.loads(target.explanation.text(0))["attributions"]
    credited = {m: models[m][1] for m in ("last", "first", "position")}
    ids = [id_text(an_id(f"click {n}")) for n in range(4)]
    assert credited == {"last": ids[3], "first": ids[0], "position": ids[3]}
    assert models["shares"] == [
        [ids[0], "redirect", "2/5"], [ids[1], "redirect", "1/10"],
        [ids[2], "redirect", "1/10"], [ids[3], "redirect", "2/5"],
    ]  # fmt: skip
    lines = told(target.explanation.text(0))
    assert f"by first: {ids[0]} redirect {id_text(an_id('ann'))}" in lines


def test_no_model_moves_points_to_somebody_else():
    points = {
        (m, int(t.points[0]), t.subscriber_id[0].tobytes())
        for m in ("last", "first", "position", "coupon")
        if (t := rated({"touches": CLICKS}, attribution=m))
    }
    assert {p[1:] for p in points} == {(50, an_id("ann"))}


def test_only_clicks_within_the_window_may_claim():
    day = {"attribution_window_ns": 8 * DAY_NS, "attribution": "first"}
    assert rated({"touches": CLICKS}, **day).click_id[0].tobytes() == an_id("click 1")
    short = {"attribution_window_ns": 6 * DAY_NS}
    target = rated({"touches": CLICKS}, **short)
    assert target.click_id[0].tobytes() == an_id("click 3"), "another click brought the member back"
    assert target.reason[0] == TargetReason.HELD
    assert rated({"touches": CLICKS[:3]}, **short).reason[0] == TargetReason.OUTSIDE_WINDOW


def test_a_click_of_an_ambiguous_visit_claims_nothing():
    doubtful = (*CLICKS[:3], {**CLICKS[3], "ambiguous": 1})
    assert rated({"touches": doubtful}).click_id[0].tobytes() == an_id("click 2")
    named = {**NAMED, "visit_ambiguous": 1}
    assert rated({"touches": CLICKS}, named).reason[0] == TargetReason.AMBIGUOUS


def test_a_click_that_another_affiliate_brought_stands_down():
    marked = [{**click, "marked": 1} for click in CLICKS]
    assert rated({"touches": (*CLICKS[:2], *marked[2:])}).click_id[0].tobytes() == an_id("click 1")
    target = rated({"touches": marked})
    assert (target.reason[0], target.points[0]) == (TargetReason.STOOD_DOWN, 0)
    assert target.subscriber_id[0].tobytes() == bytes(16)
    assert "NO   no other affiliate" in told(target.explanation.text(0))


SIGNS = {
    "the messages say so": {"other_click": 1},
    "a visit bore a mark": {"marked_ns": NOON - HOUR},
    "at the edge of the window": {"marked_ns": NOON - 30 * DAY_NS},
}


@pytest.mark.parametrize("sign", SIGNS)
def test_soft_mode_leaves_a_sale_to_whoever_else_has_a_click(sign):
    known = {"touches": CLICKS, **SIGNS[sign]}
    assert rated(known, soft=True).reason[0] == TargetReason.STOOD_DOWN
    assert rated(known).reason[0] == TargetReason.HELD


def test_soft_mode_claims_where_nobody_else_has_a_click():
    before = {"touches": CLICKS, "marked_ns": NOON - 30 * DAY_NS - 1}
    assert rated(before, soft=True).reason[0] == TargetReason.HELD
    assert rated({}, {}, soft=True).reason[0] == TargetReason.HELD
    assert rated({"other_click": 1}, {"click_found": 0}, soft=True).reason[0] == TargetReason.ORPHAN


SALE = {"click_id": "", "click_found": 0, "click_subscriber": "", "click_partner": ""}


def test_a_sale_without_a_click_is_of_the_member_whose_coupon_it_names():
    known = {"coupon": "ann10", "standing": [OWNED]}
    target = rated(known, SALE, coupons=(ANNS, NOBODYS))
    assert target.reason[0] == TargetReason.HELD
    assert (target.points[0], target.subscriber_id[0].tobytes()) == (50, an_id("bob"))
    assert target.click_id[0].tobytes() == bytes(16)
    assert "yes  a coupon issued to a member" in told(target.explanation.text(0))


@pytest.mark.parametrize("code", ["", "ANN", "LOY-7"])
def test_a_sale_without_click_or_a_members_coupon_is_an_orphan(code):
    known = {"coupon": code, "standing": [OWNED]}
    target = rated(known, SALE, coupons=(ANNS, NOBODYS))
    assert target.reason[0] == TargetReason.ORPHAN
    models = json.loads(target.explanation.text(0)).get("attributions", {})
    assert models == ({"coupon": ["", "", "mail"]} if code == "LOY-7" else {})


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ([], TargetReason.NOT_A_MEMBER),
        ([(NOON, Basis.CONSENTED)], TargetReason.HELD),
        ([(NOON + 1, Basis.CONSENTED)], TargetReason.NOT_A_MEMBER),
        ([(0, Basis.CONSENTED), (NOON, Basis.LEFT)], TargetReason.NOT_A_MEMBER),
        ([(0, Basis.LEFT), (NOON, Basis.CONSENTED)], TargetReason.HELD),
    ],
)
def test_who_owns_a_coupon_has_to_have_consented_when_it_was_used(facts, reason):
    known = {"coupon": "ANN10", "standing": [("bob", facts)]}
    assert rated(known, SALE, coupons=(ANNS,)).reason[0] == reason


def test_a_coupon_outranks_a_click_only_where_the_contract_says_so():
    known = {"coupon": "ANN10", "standing": [OWNED], "touches": CLICKS}
    by_click = rated(known, coupons=(ANNS,))
    assert by_click.subscriber_id[0].tobytes() == an_id("ann")
    models = json.loads(by_click.explanation.text(0))["attributions"]
    assert models["coupon"] == [id_text(an_id("bob")), "", ""]
    assert models["last"][0] == id_text(an_id("ann"))
    by_coupon = rated(known, coupons=(ANNS,), attribution="coupon")
    assert by_coupon.subscriber_id[0].tobytes() == an_id("bob")
    assert by_coupon.click_id[0].tobytes() == bytes(16)
    models = json.loads(by_coupon.explanation.text(0))["attributions"]
    assert models["last"] == [id_text(an_id("ann")), id_text(an_id("click 3")), "redirect"]


def test_a_whole_code_goes_before_a_prefix_and_a_longer_before_a_shorter():
    either = (Coupon("A", True, an_id("eve"), ""), Coupon("ANN10", False, an_id("bob"), ""),
              Coupon("AN", True, an_id("dan"), ""))  # fmt: skip
    for code, who in {"ann10": "bob", "anton": "dan", "ab": "eve"}.items():
        known = {"coupon": code, "standing": [(who, [(0, Basis.CONSENTED)])]}
        assert rated(known, SALE, coupons=either).subscriber_id[0].tobytes() == an_id(who)
    owners = coupon_owners([a_rulebook(a_partner(coupons=(*either, NOBODYS)))])
    assert owners == {an_id("eve"), an_id("bob"), an_id("dan")}


def test_terms_of_attribution_are_terms_and_silence_is_as_before():
    hashes = [
        rated({}, {}, **terms).terms_hash[0].tobytes()
        for terms in ({}, {"attribution": "first"}, {"soft": True}, {"coupons": (ANNS,)})
    ]
    assert len(set(hashes)) == 4
    assert rated({}, {}, attribution="last").terms_hash[0].tobytes() == hashes[0]


# Against the twin

weights = st.tuples(st.integers(0, 10), st.integers(0, 10)).filter(lambda w: sum(w) <= 10)
splits = weights.map(lambda w: Shares(Fraction(w[0], 10), Fraction(w[1], 10),
                                      1 - Fraction(sum(w), 10)))  # fmt: skip
touches = st.lists(
    st.fixed_dictionaries(
        {
            "click_id": st.integers(0, 9).map(lambda n: f"click {n}"),
            "clicked_ns": st.sampled_from([NOON - d * DAY_NS for d in (0, 1, 2, 30, 31)]),
            "marked": st.sampled_from((0, 0, 1)),
            "ambiguous": st.sampled_from((0, 0, 1)),
        }
    ),
    max_size=6,
    unique_by=lambda click: click["click_id"],
)


@given(touches, st.sampled_from(("last", "first", "position")))
def test_the_click_that_pays_is_that_of_the_twin(clicks, model):
    named = {name: clicks[0][name] for name in ("click_id", "clicked_ns")} if clicks else {}
    target = rated({"touches": clicks}, named, attribution=model)
    plain = [{**c, "click_id": an_id(c["click_id"])} for c in clicks]
    claiming = naive.claiming(plain, NOON, 30 * DAY_NS)
    if claiming:
        pays = naive.pays(model, claiming, USUAL_SHARES)
        assert target.click_id[0].tobytes() == pays["click_id"]
        assert target.reason[0] == TargetReason.HELD
    elif any(c["marked"] and 0 <= NOON - c["clicked_ns"] <= 30 * DAY_NS for c in clicks):
        assert target.reason[0] == TargetReason.STOOD_DOWN


@given(st.integers(0, 8), splits)
def test_shares_come_to_the_whole_and_the_largest_pays(count, shares):
    parts = position(count, shares)
    assert sum(parts) == (1 if count else 0)
    if count:
        rows = [{"clicked_ns": n, "click_id": bytes([n])} for n in range(count)]
        assert parts == naive.shares_of(rows, shares)
        made = [Touch(n, bytes([n]), b"", "", 0, 0) for n in range(count)]
        expected = naive.pays("position", rows, shares)
        assert chosen("position", made, shares).click_id == expected["click_id"]
