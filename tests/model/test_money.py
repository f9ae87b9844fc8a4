"""Money: whole numbers of the smallest unit, against Python's decimal and fractions."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.money import (
    CURRENCY_SCALE,
    INT64_MAX,
    AmountError,
    floor_share,
    parse_amount,
    parse_rate,
    show_amount,
)

amounts = st.integers(-(10**15) + 1, 10**15 - 1)


@given(amounts, st.integers(0, 6))
def test_what_is_shown_reads_back(value, scale):
    assert parse_amount(show_amount(value, scale), scale) == value


@given(amounts, st.integers(0, 6))
def test_what_is_shown_is_the_decimal(value, scale):
    assert Decimal(show_amount(value, scale)) == Decimal(value).scaleb(-scale)


@pytest.mark.parametrize(
    ("text", "scale", "value"),
    [
        ("26.09", 2, 2609),
        ("-0.5", 2, -50),
        ("+7", 0, 7),
        (" 1000.00 ", 2, 100000),
        ("3.000", 0, 3),
        ("0", 3, 0),
    ],
)
def test_amounts_that_can_be_read(text, scale, value):
    assert parse_amount(text, scale) == value


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("", 2), ("1,50", 2), ("1.234", 2), ("1e3", 2), ("NaN", 2), ("٣", 0), ("1.", 2),
        (".5", 2), ("--1", 2), ("0x10", 0), ("9" * 16, 0), ("1 000", 2), ("1\n2", 0),
    ],
)  # fmt: skip
def test_amounts_that_cannot_be_read(text, scale):
    with pytest.raises(AmountError):
        parse_amount(text, scale)


def test_an_amount_that_does_not_fit_is_refused():
    assert parse_amount("9" * 15, 3) == (10**15 - 1) * 1000
    with pytest.raises(AmountError, match="too large"):
        parse_amount("9" * 15, 6)
    assert INT64_MAX < (10**15 - 1) * 10**6


@given(st.text(max_size=12), st.integers(0, 3))
def test_any_text_is_an_amount_or_an_amount_error(text, scale):
    try:
        value = parse_amount(text, scale)
    except AmountError:
        return
    assert Decimal(text.strip()) == Decimal(value).scaleb(-scale)


fractions = st.fractions(min_value=-3, max_value=3, max_denominator=1000)


@given(st.integers(-(10**12), 10**12), fractions)
def test_a_share_is_rounded_down_once(amount, rate):
    assert floor_share(amount, rate) == math.floor(amount * rate)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8), fractions.filter(lambda f: f >= 0))
def test_differences_of_rounded_totals_add_up_to_the_rounded_total(steps, rate):
    totals = [sum(steps[:i]) for i in range(len(steps) + 1)]
    shares = [floor_share(t, rate) for t in totals]
    assert sum(b - a for a, b in itertools.pairwise(shares)) == shares[-1]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5%", Fraction(1, 20)),
        ("0.05", Fraction(1, 20)),
        ("1/20", Fraction(1, 20)),
        ("5", Fraction(5)),
        (" 2.5% ", Fraction(1, 40)),
        ("-1%", Fraction(-1, 100)),
    ],
)
def test_rates_that_can_be_read(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "%", "5 %%", "1/0", "five", "1e-2", "0.05/", "/2", "½"])
def test_rates_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=r"rate|zero"):
        parse_rate(text)


def test_every_currency_has_three_letters_and_a_scale():
    assert all(len(c) == 3 and c.isupper() and 0 <= s <= 3 for c, s in CURRENCY_SCALE.items())
