"""How fast changed conversions are rated, and how much memory that takes.

    python -m tests.bench.accrual [--rows N] [--only NAME] [--json]

N folds of as many conversions, in the order of purchase, made block by block from a seed and rated
in blocks of 65,536; only rating is timed. Three rulebooks:

    plain     one percentage or fixed rule per partner, as in the shipped rules
    stacked   a percentage that leaves out a category, a ladder, a group of two, multipliers by
              tenure, level and product; half of the conversions have line items
    limited   the same, with caps by member, day and month, and a budget; each block is told what
              those before it were given

Beside each: the naive twin in Python, on a part. Memory is what the process holds at its highest
after a block, first and last; where it is bounded the two are alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline.model.batches import FoldBatch, MemberBatch, UsageBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, concat, ids
from pipeline.rulebook.model import Caps, Rulebook, Step, When
from pipeline.score.rate import rated
from tests.bench.figures import machine
from tests.naive.rate import rate as naive
from tests.score.making import DAY_NS, NOON, a_partner, a_rulebook, an_accrual, folds
from tests.store.store_rows import SECOND, dicts

BLOCK_ROWS = 1 << 16
NAIVE_ROWS = 2_000
MEMBERS = 50_000
DAYS = 90
PLAIN, STACKED, LIMITED = "plain", "stacked", "limited"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one rulebook came to: rows, seconds of the clock and of the processor, bytes held."""

    rows: int
    seconds: float
    cpu_seconds: float
    naive_rate: float
    points: int
    first_bytes: int
    most_bytes: int

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


def rulebook(name: str) -> Rulebook:
    """The rules of one figure."""
    lead = an_accrual(id="lead", kind="fixed", action="lead", points=500)
    books = an_accrual(id="books", rate=Fraction(4, 100))
    base = an_accrual(exclude=("cards",)) if name != PLAIN else an_accrual()
    if name == PLAIN:
        return a_rulebook(_shop(base), _bolt(lead), _books(books))
    more = {"stacking": "add", "priority": 200}
    group = {"stacking": "best_of", "group": "spring", "kind": "fixed", "priority": 210}
    times = {"kind": "multiplier", "stacking": "multiply", "priority": 300}
    steps = (Step(Fraction(50), Fraction(1, 100), 0), Step(Fraction(200), Fraction(2, 100), 0))
    rules = [
        base,
        an_accrual(id="ladder", kind="ladder", ladder="slices", steps=steps, **more),
        an_accrual(id="small", points=5, **group),
        an_accrual(id="large", points=20, when=When(amount_min=Fraction(100)), **group),
        an_accrual(id="tenure", factor=Fraction(6, 5), when=When(tenure_months_min=24), **times),
        an_accrual(id="gold", factor=Fraction(3, 2), when=When(levels=("gold",)), **times),
        an_accrual(id="bundle", factor=Fraction(2), when=When(products=("bundle",)), **times),
    ]
    if name == LIMITED:
        caps = Caps(member_day=2_000, member_month=20_000)
        rules[0] = replace(rules[0], caps=caps)
        rules[1] = replace(rules[1], caps=Caps(day=2_000_000))
        rules[3] = replace(rules[3], budget=3_000_000, budget_policy="truncate")
    return a_rulebook(_shop(*rules), _bolt(lead), _books(books))


def _shop(*rules):
    return a_partner("acme-shop", accruals=rules)


def _bolt(*rules):
    return a_partner("bolt", accruals=rules)


def _books(*rules):
    return a_partner("books", accruals=rules, click_delivery="match")


def members() -> MemberBatch:
    """What is known of all members."""
    drawn = np.random.default_rng(3)
    levels, products = ["", "silver", "gold"], ["", "phone", "phone bundle"]
    return MemberBatch(
        subscriber_id=_member_ids(np.arange(MEMBERS)),
        since_ns=np.zeros(MEMBERS, np.int64),
        joined_ns=NOON - drawn.integers(0, 2_000, MEMBERS) * DAY_NS,
        level=TextColumn.of(levels[n] for n in drawn.integers(0, 3, MEMBERS)),
        products=TextColumn.of(products[n] for n in drawn.integers(0, 3, MEMBERS)),
    )


def _member_ids(numbers: np.ndarray) -> np.ndarray:
    words = np.stack([numbers + 1, numbers * 7 + 1], axis=1).astype(np.uint64)
    return np.ascontiguousarray(words).view(ID_DTYPE).reshape(-1)


def made(rows: int, items: bool) -> Iterator[FoldBatch]:
    """Blocks of folds, by purchase time: two thirds with a click, the rest of an own shop."""
    match = {"click_id": "", "match_subscriber": "x", "match_visit": "v", "match_basis": 2}
    kinds = folds(
        {},
        {"partner": "bolt", "kind": "", "click_partner": "bolt", "amount_minor": 0},
        {"partner": "books", **match, "match_visit_ns": NOON},
    )
    baskets = TextColumn.of(["", *(_basket(n) for n in range(200))])
    span_ns = DAYS * DAY_NS // max(rows, 1)
    for start in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - start)
        drawn = np.random.default_rng([11, start])
        sort = drawn.integers(0, 3, count)
        batch = kinds.take(sort)
        event_ns = NOON + (start + np.arange(count)) * span_ns // SECOND * SECOND
        who = _member_ids(drawn.integers(0, MEMBERS, count))
        amount = np.where(sort == 1, 0, drawn.integers(100, 50_000, count))
        basket = np.where(drawn.random(count) < 0.5, drawn.integers(1, 201, count), 0)
        new_ids = np.frombuffer(drawn.bytes(32 * count), ID_DTYPE)
        yield batch.with_columns(
            conversion_key=new_ids[:count].copy(),
            click_id=np.where(sort == 2, ids([bytes(16)]), new_ids[count:]),
            click_subscriber=who,
            match_subscriber=who,
            status=drawn.integers(1, 8, count).astype(np.uint8),
            amount_minor=amount,
            event_ns=event_ns,
            clicked_ns=event_ns - drawn.integers(0, 40 * 86_400, count) * 10**9,
            match_visit_ns=event_ns - drawn.integers(0, 40 * 86_400, count) * 10**9,
            items=baskets.take(basket) if items else batch.items,
            items_minor=np.where(basket > 0, amount, 0) if items else batch.items_minor,
        )


def _basket(number: int) -> str:
    lines = [
        {"category": "shoes", "sku": f"S-{number}", "amount": f"{number + 20}.00", "tax": "3.19"},
        {"category": "cards", "sku": "C-1", "amount": "50.00"},
    ]
    return json.dumps(lines, separators=(",", ":"))


def measure(name: str, rows: int) -> Measured:
    """Rate so many rows under one rulebook."""
    rules, known, now_ns = rulebook(name), members(), NOON + 60 * DAY_NS
    used = UsageBatch.empty()
    held, points, wall, cpu = [], 0, 0.0, 0.0
    rated(next(made(64, items=True)), rules, now_ns, members=known)  # kernels compile once
    for batch in made(rows, items=name != PLAIN):
        begun, spent = time.perf_counter(), time.process_time()
        found = rated(batch, rules, now_ns, members=known, used=used)
        used = concat([used, found.given])
        wall, cpu = wall + time.perf_counter() - begun, cpu + time.process_time() - spent
        points += int(found.targets.points.sum())
        held.append(_held_bytes())
    few = next(made(min(rows, NAIVE_ROWS), items=name != PLAIN))
    own = dicts(known.slice(0, 1_000))
    begun = time.process_time()
    naive(few, rules, now_ns, own)
    naive_rate = len(few) / (time.process_time() - begun)
    return Measured(rows, wall, cpu, naive_rate, points, held[0], max(held))


def _held_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def show(measured: dict[str, Measured]) -> str:
    """The table for people."""
    head = f"{'':10}{'rows':>10}{'rows/s':>10}{'a CPU s':>10}{'us a row':>10}"
    lines = [f"{head}{'x naive':>9}{'MB first':>10}{'MB most':>9}"]
    for name, one in measured.items():
        by_cpu = one.rows / one.cpu_seconds
        lines.append(
            f"{name:10}{one.rows:>10,}{one.rate:>10,.0f}{by_cpu:>10,.0f}"
            f"{one.cpu_seconds / one.rows * 1e6:>10.1f}{by_cpu / one.naive_rate:>9.1f}"
            f"{one.first_bytes / 1e6:>10,.0f}{one.most_bytes / 1e6:>9,.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=(PLAIN, STACKED, LIMITED))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    names = [asked.only] if asked.only else [PLAIN, STACKED, LIMITED]
    found = {name: measure(name, asked.rows) for name in names}
    if asked.json:
        told = {name: asdict(one) for name, one in found.items()}
        sys.stdout.write(json.dumps({"machine": machine(), **told}, indent=2) + "\n")
        return
    sys.stdout.write(f"{machine()}\n{show(found)}\n")


if __name__ == "__main__":
    main()
