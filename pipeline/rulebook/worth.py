"""What one purchase is worth under a partner's rules, one rule after the other.

This is how a rule owner would work it out on paper; examples in rule files are run by it, and
`score/` does the same for whole columns. Rules are asked in the order of `Partner.candidates_at`:

1. A rule whose conditions hold is worth its points, rounded down once, at most `max_points`.
2. The first `exclusive` one that is worth anything silences all that come after it.
3. Of the rules of a `best_of` group the one worth most counts; of equals the first.
4. What is left adds up. The first of it is the base rule: each multiplier adds `factor - 1` times
   the base rule's points, rounded down once.

Each rule's part is rounded down once, so a total is a sum of whole parts and every part can be
booked and explained by itself. Caps and budgets are not looked at here: they depend on others.

**What counts of the amount.** Where the sender gives line items, each with an amount, `net` is
their amounts without tax, shipping and discount, `gross` their amounts; categories may be left out
(`exclude`) or alone count (`only`). It is never more than the amount they came with. Where the
amount was changed later without new items, the same share of it counts. Without items, and with
`base = "sent"`, it is the amount as sent. It is whole minor units, rounded down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.model.money import CURRENCY_SCALE, AmountError, floor_share, parse_amount
from pipeline.rulebook.model import Accrual

ITEM_KEYS = ("amount", "tax", "shipping", "discount")
ITEM_SCALE = 6
# Two hundred items of this size, four numbers each, still fit int64.
ITEM_MAX = 10**16
Item = tuple[str, str, str, str, str]  # category, amount, tax, shipping, discount


@dataclass(frozen=True, slots=True)
class Purchase:
    """A purchase and its member. `items_minor` is the amount that the items came with.

    Tenure -1, an empty level and no products: not known, or none.
    """

    amount_minor: int
    currency: str
    items: tuple[Item, ...] = ()
    items_minor: int = 0
    tenure_months: int = -1
    level: str = ""
    products: tuple[str, ...] = ()


def parts_of(
    rules: Sequence[Accrual], purchase: Purchase, points_scale: int
) -> list[tuple[Accrual, int]]:
    """The rules that count, in their order, and the points (above 0) of each."""
    fits = {a.id: holds(a, purchase) for a in rules}
    worth: list[tuple[Accrual, int]] = []
    silenced = False
    for rule in rules:
        if not silenced and fits[rule.id]:
            amount = counted_minor(rule, purchase)
            points = rule.points_for(amount, purchase.currency, points_scale)
            if points > 0 or rule.multiplies:
                worth.append((rule, points))
            silenced = rule.stacking == "exclusive" and points > 0
    best: dict[str, tuple[Accrual, int]] = {}
    for rule, points in worth:
        if rule.stacking == "best_of" and points > best.get(rule.group, (rule, 0))[1]:
            best[rule.group] = rule, points
    worth = [(r, p) for r, p in worth if r.stacking != "best_of" or best[r.group][0] is r]
    base = next((points for rule, points in worth if not rule.multiplies), 0)
    worth = [(r, multiplied(r, base) if r.multiplies else p) for r, p in worth]
    return [(rule, points) for rule, points in worth if points > 0]


def multiplied(rule: Accrual, base: int) -> int:
    """What a multiplier adds to the points of the base rule."""
    points = floor_share(base, rule.factor - 1)
    return min(points, rule.max_points) if rule.max_points else points


def holds(rule: Accrual, purchase: Purchase) -> bool:
    """Do all conditions of the rule hold? What is not known of a member holds nothing."""
    when = rule.when
    amount = Fraction(counted_minor(rule, purchase), 10 ** CURRENCY_SCALE[purchase.currency])
    months = purchase.tenure_months
    return all(
        (
            not when.tenure_months_min or months >= when.tenure_months_min,
            not when.tenure_months_below or 0 <= months < when.tenure_months_below,
            not when.levels or purchase.level in when.levels,
            not when.products or bool({*purchase.products} & {*when.products}),
            not when.amount_min or amount >= when.amount_min,
            not when.amount_below or amount < when.amount_below,
        )
    )


def counted_minor(rule: Accrual, purchase: Purchase) -> int:
    """What of the purchase's amount the rule counts, in minor units."""
    came_with = purchase.items_minor
    sums = None if rule.base == "sent" or came_with <= 0 else item_sum(rule, purchase.items)
    if sums is None:
        return purchase.amount_minor
    unit: int = 10 ** (ITEM_SCALE - CURRENCY_SCALE[purchase.currency])
    return min(sums, came_with * unit) * purchase.amount_minor // (came_with * unit)


def item_sum(rule: Accrual, items: Sequence[Item]) -> int | None:
    """What of the items counts, in millionths; None where they do not tell."""
    total, told = 0, bool(items)
    for category, *texts in items:
        numbers = [item_number(text) for text in texts]
        amount, tax, shipping, discount = (number or 0 for number in numbers)
        told = told and bool(texts[0]) and None not in numbers
        if counts(rule, category):
            total += amount - (tax + shipping + discount if rule.base == "net" else 0)
    return total if told else None


def counts(rule: Accrual, category: str) -> bool:
    """Does the rule count items of this category (lower case)?"""
    return category in rule.only if rule.only else category not in rule.exclude


def item_number(text: str) -> int | None:
    """A number of an item in millionths, 0 where there is none; None where it cannot be used."""
    if not text:
        return 0
    try:
        found = parse_amount(text, ITEM_SCALE)
    except AmountError:
        return None
    return found if abs(found) <= ITEM_MAX else None
