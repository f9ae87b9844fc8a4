"""Reading `[[accrual]]`: how a conversion becomes points, as a checked table.

Each kind has keys of its own; a key that belongs to another kind is a mistake, not something to be
passed over. Conditions (`when`), caps and budgets are tables of names from a closed list: there are
no expressions. The version of a rule is a hash of what was parsed, and what is left out is not in
it, so a key that was added to this format later changes no version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pipeline.model.money import CURRENCY_SCALE, INT64_MAX
from pipeline.model.stage import END_OF_TIME
from pipeline.rulebook.fields import Fields, Sheet
from pipeline.rulebook.model import (
    ACCRUAL_KINDS,
    ACTIONS,
    BASES,
    BUDGET_POLICIES,
    LADDERS,
    PLAIN_PRIORITY,
    STACKINGS,
    Accrual,
    AccrualExample,
    Caps,
    Step,
    When,
    version_of,
)
from pipeline.rulebook.worth import ITEM_KEYS

POINTS_MAX = INT64_MAX // 10**6
MONTHS_MAX = 1200
PRIORITY_MAX = 1000
FACTOR_MAX = 100
POINTS = "points above 0, in smallest units"
WORD = re.compile(r"[a-z0-9][a-z0-9._:/#-]{0,63}\Z", re.ASCII)
OWN_KEYS = {
    "percent": ("rate", "per_point"),
    "fixed": ("points",),
    "ladder": ("step", "per_point", "ladder"),
    "multiplier": ("factor",),
}
OF_AMOUNTS = ("base", "exclude", "only")


def read_accrual(table: Fields, partner: str) -> Accrual:
    """One `[[accrual]]` of a partner."""
    kind = table.choice("kind", ACCRUAL_KINDS)
    content: dict[str, Any] = {
        "id": table.name("id"),
        "kind": kind,
        "action": table.choice("action", ACTIONS),
        "rate": Fraction(0),
        "per_point": Fraction(0),
        "points": 0,
    }
    content |= _worth(table, kind)
    content["valid_from_ns"], content["valid_until_ns"] = read_validity(table)
    extra = _terms(table, kind) | _stacking(table, kind) | _limits(table)
    table.done()
    place = table.sheet.location(table.path)
    plain = Accrual(**content, version=b"", location=place)
    found = Accrual(**(content | extra), version=b"", location=place)
    stated = {name: value for name, value in extra.items() if value != getattr(plain, name)}
    first = {name: content[name] for name in FIRST_KEYS}
    added = {name: content[name] for name in ADDED_KEYS if name in content}
    version = version_of(
        "accrual", {**first, **_plain(added), **_plain(stated), "partner": partner}
    )
    values = {name: getattr(found, name) for name in Accrual.__slots__}
    return Accrual(**(values | {"version": version}))


# What every version is made of, and what ladders and multipliers have beside it.
FIRST_KEYS = (
    "id", "kind", "action", "rate", "per_point", "points", "valid_from_ns", "valid_until_ns",
)  # fmt: skip
ADDED_KEYS = ("steps", "ladder", "factor")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Content as lists and dicts, which `version_of` takes; what asks nothing is left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, When | Caps):
            kept = {key: getattr(value, key) for key in type(value).__slots__}
            nothing = type(value)()
            found[name] = {k: v for k, v in kept.items() if v != getattr(nothing, k)}
        elif name == "steps":
            found[name] = [[step.start, step.rate, step.points] for step in value]
        else:
            found[name] = value
    return found


def _worth(table: Fields, kind: str) -> dict[str, Any]:
    """The keys of one kind; those of the others are reported."""
    found: dict[str, Any] = {}
    if kind == "percent":
        found["rate"] = table.share("rate", above=True)
        found["per_point"] = table.price("per_point", above=True)
    elif kind == "fixed":
        found["points"] = table.integer("points", 1, POINTS_MAX, POINTS)
    elif kind == "ladder":
        found["ladder"] = table.choice("ladder", LADDERS, default=LADDERS[0])
        found["steps"] = _steps(table, found["ladder"])
        if any(step.rate for step in found["steps"]) or table.has("per_point"):
            found["per_point"] = table.price("per_point", above=True)
    else:
        expected = f'a factor above 1 and at most {FACTOR_MAX}, such as "1.2" or "120%"'
        low, high = Fraction(1), Fraction(FACTOR_MAX)
        found["factor"] = table.fraction("factor", low, high, expected, above=True)
        if found["factor"].denominator > 10**6:
            table.report("factor", "a factor of at most six decimals")
    others = {key for keys in OWN_KEYS.values() for key in keys} - {*OWN_KEYS[kind]}
    for key in sorted(others & table.values.keys()):
        table.has(key)
        table.report(key, f'no {key} where kind is "{kind}"')
    return found


def _steps(table: Fields, ladder: str) -> tuple[Step, ...]:
    """The steps of a ladder: each from a larger amount than the one before, all of one sort."""
    steps: list[Step] = []
    sorts = set()
    for one in table.tables("step", needed=True):
        start = one.price("from")
        rate, points = Fraction(0), 0
        if one.has("points"):
            points = one.integer("points", 1, POINTS_MAX, POINTS)
            sorts.add("points")
            if ladder == "slices":
                one.report("points", 'a rate: points are for ladder = "whole"')
        if one.has("rate") or not one.has("points"):
            rate = one.share("rate", above=True)
            sorts.add("rate")
        if len(sorts) > 1:
            one.report("points", "a rate in every step, or points in every step")
            sorts = {"rate"}
        if steps and start <= steps[-1].start and "from" in one.values:
            one.report("from", "a larger amount than in the step before")
        one.done()
        steps.append(Step(start, rate, points))
    return tuple(steps)


def _terms(table: Fields, kind: str) -> dict[str, Any]:
    """What of a purchase counts, and under which conditions."""
    found: dict[str, Any] = {"when": _when(table)}
    if kind == "multiplier":
        for key in OF_AMOUNTS:
            if table.has(key):
                table.report(key, f'no {key} where kind is "{kind}": it has no amount of its own')
    else:
        found["base"] = table.choice("base", BASES, default=BASES[0])
        found["exclude"] = tuple(sorted(_words(table, "exclude", "categories")))
        found["only"] = tuple(sorted(_words(table, "only", "categories")))
        if found["only"] and found["exclude"]:
            table.report("exclude", "either only or exclude, not both")
        if found["base"] == "sent" and (found["only"] or found["exclude"]):
            table.report("base", '"net" or "gross" where categories are named')
    if table.has("max_points"):
        found["max_points"] = table.integer("max_points", 1, POINTS_MAX, POINTS)
    return found


def _when(table: Fields) -> When:
    asked = table.table("when")
    if asked is None:
        return When()
    months = {
        key: asked.integer(key, 1, MONTHS_MAX)
        for key in ("tenure_months_min", "tenure_months_below")
        if asked.has(key)
    }
    amounts = {key: _amount(asked, key) for key in ("amount_min", "amount_below") if asked.has(key)}
    for low, high, given in (
        ("tenure_months_min", "tenure_months_below", months),
        ("amount_min", "amount_below", amounts),
    ):
        if low in given and high in given and given[high] <= given[low]:
            asked.report(high, f"more than {low}")
    levels, products = (_words(asked, key, key) for key in ("levels", "products"))
    asked.done()
    return When(**months, **amounts, levels=levels, products=products)  # type: ignore[arg-type]


def _amount(table: Fields, key: str) -> Fraction:
    """Money of the programme's currency, in whole minor units."""
    value = table.price(key, above=True)
    decimals = CURRENCY_SCALE.get(table.sheet.currency, 6)
    if (value * 10**decimals).denominator != 1:
        table.report(key, f"an amount of {table.sheet.currency} with {decimals} decimals")
    return value


def _stacking(table: Fields, kind: str) -> dict[str, Any]:
    """How the rule stands beside others; a rule that says nothing is plain."""
    found: dict[str, Any] = {}
    if kind == "multiplier":
        found["stacking"] = table.choice("stacking", ("multiply",), default="multiply")
    elif table.has("stacking"):
        found["stacking"] = table.choice("stacking", STACKINGS)
        if found["stacking"] == "multiply":
            table.report("stacking", 'kind = "multiplier" where it multiplies', "best_of")
    expected = f"an integer from 1 to {PRIORITY_MAX}; the smaller comes first"
    if "stacking" in found or table.has("priority"):
        found["priority"] = table.integer("priority", 1, PRIORITY_MAX, expected)
    else:
        found["priority"] = PLAIN_PRIORITY
    if found.get("stacking") == "best_of":
        found["group"] = table.name("group")
    elif table.has("group"):
        table.report("group", 'no group unless stacking is "best_of"')
    return found


def _limits(table: Fields) -> dict[str, Any]:
    """Caps and the budget."""
    found: dict[str, Any] = {}
    if (asked := table.table("caps")) is not None:
        caps = {
            key: asked.integer(key, 1, POINTS_MAX, POINTS)
            for key in Caps.__slots__
            if asked.has(key)
        }
        asked.done()
        found["caps"] = Caps(**caps)
    if (asked := table.table("budget")) is not None:
        found["budget"] = asked.integer("points", 1, POINTS_MAX, POINTS)
        found["budget_policy"] = asked.choice("policy", BUDGET_POLICIES)
        asked.done()
    return found


def _words(table: Fields, key: str, expected: str) -> tuple[str, ...]:
    return tuple(table.texts(key, _word, expected=expected))


def _word(text: str) -> str:
    cleaned = text.strip().lower()
    if not WORD.match(cleaned):
        raise ValueError("a word of letters, digits and . _ : / # -")
    return cleaned


def read_validity(table: Fields) -> tuple[int, int]:
    """From when on, and until before when, something holds."""
    start, end = table.moment("valid_from"), table.moment("valid_until", default=END_OF_TIME)
    if end <= start and "valid_from" in table.values:
        table.report("valid_until", "a date after valid_from")
    return start, end


def report_stacking(sheet: Sheet, accruals: Sequence[Accrual]) -> None:
    """A multiplier with nothing to multiply is a mistake that only the whole partner shows."""
    for number, accrual in enumerate(accruals):
        others = [a for a in accruals if not a.multiplies]
        if accrual.multiplies and not any(_meets(accrual, other) for other in others):
            sheet.report(
                ("accrual", number, "kind"),
                '"multiplier"',
                f"another rule for {accrual.action} at the same time, which it multiplies",
            )


def _meets(one: Accrual, other: Accrual) -> bool:
    same = "any" in (one.action, other.action) or one.action == other.action
    begins, ends = other.valid_from_ns, other.valid_until_ns
    return same and one.valid_from_ns < ends and begins < one.valid_until_ns


def read_accrual_example(table: Fields) -> AccrualExample:
    """An `[[example]]` of what a conversion is worth."""
    action = table.choice("action", [a for a in ACTIONS if a != "any"])
    amount = table.amount("amount")
    points = table.integer("points", 0, POINTS_MAX, "points in smallest units, 0 or more")
    at_ns = table.moment("at", default=-1)
    tenure = table.integer("tenure_months", 0, MONTHS_MAX) if table.has("tenure_months") else -1
    level = _word_of(table, "level")
    products = _words(table, "products", "products")
    items = tuple(_item(one) for one in table.tables("items"))
    place = table.sheet.location(table.path)
    table.done()
    at = None if at_ns < 0 else at_ns
    return AccrualExample(amount, action, points, at, place, tenure, level, products, items)


def _word_of(table: Fields, key: str) -> str:
    value = table.text(key, default="")
    try:
        return _word(value) if value else ""
    except ValueError as error:
        table.report(key, str(error))
        return ""


def _item(table: Fields) -> tuple[str, str, str, str, str]:
    category = _word_of(table, "category")
    amounts = [table.amount(key) if table.has(key) else "" for key in ITEM_KEYS]
    table.done()
    amount, tax, shipping, discount = amounts
    return category, amount, tax, shipping, discount
