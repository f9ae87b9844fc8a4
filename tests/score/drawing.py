"""Rules that stack, members and items, drawn for twins."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from pipeline.model.batches import MemberBatch, UsageBatch
from pipeline.rulebook.model import Accrual, Caps, Partner, Step, When
from tests.score.making import DAY_NS, NOON, a_partner, an_accrual, an_id, make

MEMBERS = ("ann", "bob", "eve")
LEVELS = ("gold", "silver", "")
PRODUCTS = ("tv", "net", "tv net", "")
CATEGORIES = ("tea", "cards", "")
DAY = 86_400
days = st.integers(-40, 40).map(lambda n: NOON + n * DAY_NS)
rates = st.integers(1, 100).map(lambda n: Fraction(n, 100))
few_points = st.sampled_from([0, 0, 7, 60, 100])

whens = st.builds(
    When,
    tenure_months_min=st.sampled_from([0, 0, 0, 1, 24]),
    tenure_months_below=st.sampled_from([0, 0, 0, 25]),
    levels=st.sampled_from([(), (), (), ("gold",), ("gold", "silver")]),
    products=st.sampled_from([(), (), (), ("tv",)]),
    amount_min=st.sampled_from([0, 0, 0, 5]).map(Fraction),
    amount_below=st.sampled_from([0, 0, 0, 20]).map(Fraction),
)
caps = st.builds(
    Caps,
    member=few_points,
    member_day=few_points,
    member_month=few_points,
    day=few_points,
    month=few_points,
)
ladders = st.tuples(rates, rates, st.integers(0, 5), st.integers(1, 10)).map(
    lambda d: (Step(Fraction(d[2]), d[0], 0), Step(Fraction(d[2] + d[3]), d[1], 0))
)
worths = st.one_of(
    st.fixed_dictionaries({"kind": st.just("percent"), "rate": rates}),
    st.fixed_dictionaries({"kind": st.just("fixed"), "points": st.integers(1, 99)}),
    st.fixed_dictionaries(
        {
            "kind": st.just("ladder"),
            "ladder": st.sampled_from(["whole", "slices"]),
            "steps": ladders,
        }
    ),
    st.just(
        {
            "kind": "ladder",
            "ladder": "whole",
            "steps": (Step(Fraction(6), Fraction(0), 30), Step(Fraction(12), Fraction(0), 90)),
        }
    ),
)
stackings = st.sampled_from(["", "", "add", "add", "best_of", "best_of", "exclusive"])
multipliers = st.integers(101, 400).map(
    lambda n: {"kind": "multiplier", "stacking": "multiply", "factor": Fraction(n, 100)}
)


@st.composite
def accruals(draw: Any, number: int, limits: bool) -> Accrual:
    """One rule; `limits`: perhaps with caps or a budget."""
    body = draw(multipliers) if draw(st.integers(0, 4)) == 0 else draw(worths)
    body.setdefault("stacking", draw(stackings))
    spec = draw(st.sampled_from([{}, {}, {"exclude": ("cards",)}, {"only": ("tea",)}]))
    if body["kind"] != "multiplier":
        body |= {**spec, "base": draw(st.sampled_from(["net", "net", "gross"]))}
        body["base"] = body["base"] if spec else draw(st.sampled_from(["net", "gross", "sent"]))
    if body["stacking"] == "best_of":
        body["group"] = draw(st.sampled_from(["g", "h"]))
    if limits and draw(st.booleans()):
        body["caps"] = draw(caps)
    if limits and draw(st.booleans()):
        policy = st.sampled_from(["truncate", "reject", "all_or_nothing"])
        body |= {"budget": draw(st.sampled_from([60, 100, 500])), "budget_policy": draw(policy)}
    from_day, length = draw(st.tuples(st.integers(-50, 30), st.integers(1, 100)))
    return an_accrual(
        **body,
        id=f"r{number}",
        action=draw(st.sampled_from(["sale", "sale", "sale", "lead", "any"])),
        when=draw(whens),
        priority=draw(st.sampled_from([100, 1, 5, 5, 200])),
        max_points=draw(st.sampled_from([0, 0, 50])),
        valid_from_ns=NOON + from_day * DAY_NS,
        valid_until_ns=NOON + (from_day + length) * DAY_NS,
    )


@st.composite
def partners(draw: Any, limits: bool = False) -> tuple[Partner, ...]:
    """One or two partners with rules of every kind."""
    count = st.integers(1, 5)
    numbers = iter(range(100))
    return tuple(
        a_partner(
            name,
            accruals=tuple(draw(accruals(next(numbers), limits)) for _ in range(draw(count))),
        )
        for name in draw(st.sampled_from([("p0",), ("p0", "p1")]))
    )


money = st.sampled_from(["1.00", "9.99", "0.333", "-2.00", "12.50"])
items = st.lists(
    st.fixed_dictionaries(
        {"category": st.sampled_from(CATEGORIES), "amount": money},
        optional={"tax": money, "shipping": st.just("0.50"), "discount": st.just("0.10")},
    ),
    max_size=3,
).map(json.dumps)
bad_items = st.sampled_from(["", "", "[]", '[{"category":"tea"}]', '[{"amount":"1.1234567"}]'])


@st.composite
def rows(draw: Any, number: int) -> dict[str, Any]:
    """One conversion of some member."""
    amount = draw(st.integers(-100, 3000))
    return {
        "conversion_key": f"C-{number}",
        "partner": (partner := draw(st.sampled_from(["p0", "p0", "p1"]))),
        "click_partner": partner,
        "click_subscriber": draw(st.sampled_from(MEMBERS)),
        "kind": draw(st.sampled_from(["sale", "sale", "lead", ""])),
        "status": draw(st.sampled_from([1, 3, 3, 5])),
        "event_ns": (event := draw(days)),
        "clicked_ns": event - draw(st.sampled_from([1, 1, 1, 31])) * DAY_NS,
        "amount_minor": amount,
        "items": draw(st.one_of(bad_items, items)),
        "items_minor": draw(st.sampled_from([amount, amount, 0, 1000])),
    }


conversions = st.integers(0, 8).flatmap(lambda n: st.tuples(*(rows(i) for i in range(n))))
known = st.lists(
    st.fixed_dictionaries(
        {
            "subscriber_id": st.sampled_from(MEMBERS).map(an_id),
            "since_ns": days,
            "joined_ns": st.one_of(st.just(0), days.map(lambda d: d - 700 * DAY_NS)),
            "level": st.sampled_from(LEVELS),
            "products": st.sampled_from(PRODUCTS),
        }
    ),
    max_size=5,
)
usages = st.lists(
    st.tuples(
        st.sampled_from(["r0", "r1", "r2", "other"]),
        st.sampled_from(MEMBERS).map(an_id),
        days,
        st.integers(1, 50),
    ),
    max_size=5,
)


def member_batch(drawn: list[dict[str, Any]]) -> MemberBatch:
    found: MemberBatch = make(MemberBatch, drawn, {})
    return found


def usage_batch(drawn: list[tuple[str, bytes, int, int]]) -> UsageBatch:
    names = ("rule_id", "subscriber_id", "event_ns", "points")
    found: UsageBatch = make(UsageBatch, [dict(zip(names, d, strict=True)) for d in drawn], {})
    return found
