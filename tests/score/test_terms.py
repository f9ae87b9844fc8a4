"""Contracts and accruals by partner, action and date, against asking each partner in turn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.columns import TextColumn
from pipeline.score.terms import Terms
from tests.score.making import DAY_NS, NOON, a_contract, a_partner, a_rulebook, an_accrual

spans = st.tuples(st.integers(-3, 3), st.integers(1, 4)).map(
    lambda s: {"valid_from_ns": NOON + s[0] * DAY_NS, "valid_until_ns": NOON + sum(s) * DAY_NS}
)
contracts = st.lists(spans, min_size=1, max_size=3)
accruals = st.lists(
    st.tuples(
        spans,
        st.sampled_from(["sale", "lead", "any"]),
        st.integers(1, 9),
        st.sampled_from(["", "", "add", "exclusive"]),
    ),
    max_size=4,
)
partners = st.lists(st.tuples(contracts, accruals), min_size=1, max_size=3)
asked = st.lists(
    st.tuples(
        st.sampled_from(["p0", "p1", "p2", "who"]),
        st.sampled_from(["sale", "lead", "bonus"]),
        st.integers(-4, 8).map(lambda d: NOON + d * DAY_NS),
    ),
    max_size=10,
)


@given(partners, asked)
def test_equals_asking_each_partner(drawn: list, rows: list) -> None:
    rules = a_rulebook(
        *(
            a_partner(
                f"p{n}",
                contracts=tuple(a_contract(version=f"c{i}", **s) for i, s in enumerate(dated)),
                accruals=tuple(
                    an_accrual(
                        id=f"a{i}",
                        action=action,
                        rate=Fraction(r, 100),
                        stacking=how,
                        priority=100 - r % 3,
                        **span,
                    )
                    for i, (span, action, r, how) in enumerate(rules)
                ),
            )
            for n, (dated, rules) in enumerate(drawn)
        )
    )
    terms = Terms(rules.partners)
    partner = terms.partner_numbers(TextColumn.of([name for name, _, _ in rows]))
    when = np.array([at for _, _, at in rows], np.int64)
    contract = terms.contract_numbers(partner, when)
    plays = terms.plays(partner, TextColumn.of([k for _, k, _ in rows]), when)
    for row, (name, kind, at) in enumerate(rows):
        owner = rules.partner(name)
        expected = owner.contract_at(at) if owner else None
        number = contract[row]
        found = None if number == terms.no_contract else terms.contract_list[number]
        assert found is expected
        asked = owner.candidates_at(kind, at) if owner else ()
        numbers = plays.sets[plays.number[row]]
        assert all(terms.accrual_list[n] is a for n, a in zip(numbers, asked, strict=True))


def test_none_can_be_asked_like_any_other() -> None:
    terms = Terms(a_rulebook().partners)
    none = np.array([terms.no_contract])
    assert not terms.live[terms.partner_numbers(TextColumn.of(["who"]))].any()
    assert terms.currency.take(none).to_list() == [""]
    assert (terms.window_ns[none[0]], terms.hold_ns[none[0]]) == (0, 0)
    assert terms.rule_version[terms.no_accrual].tobytes() == bytes(16)
    assert terms.scale_of(0) == 2
