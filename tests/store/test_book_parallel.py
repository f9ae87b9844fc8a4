"""Many at once: the last points are spent once, however many ask, and however often."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.model.words import Result
from pipeline.store.book import Book
from tests.ledger.stories import EVENT_NS, KEYS, booking, name_id, order_batch, rulebook, target
from tests.ledger.stories import target_batch as batch_of

pytestmark = pytest.mark.slow

POINTS, ASKED, OPENINGS, AT_ONCE = 1000, 100, 10, 100
WORTHS = [n % 13 + 14 for n in range(ASKED)]  # together more than there is
AFTER_NS = EVENT_NS + 86_400_000_000_000


@pytest.fixture
def books(url: str) -> list[Book]:
    """One book opened by several programs; Ann has points from four conversions."""
    made = [Book(url, KEYS, rulebook()) for _ in range(OPENINGS)]
    parts = [target(f"c{n}", POINTS // 4, "available") for n in range(4)]
    made[0].post_targets(batch_of(parts), **booking(1))
    yield made
    for book in made:
        book.close()


def ask(book: Book, number: int) -> Result:
    batch = order_batch([(f"o{number}", "ann", WORTHS[number])], AFTER_NS)
    return Result(int(book.post_commands(batch, **booking(2))[0]))


def all_at_once(books: list[Book], numbers: list[int]) -> list[tuple[int, Result]]:
    """Every request in a thread of its own, through this opening or that; all begin together."""
    ready = threading.Barrier(AT_ONCE)

    def one(place: int) -> list[tuple[int, Result]]:
        ready.wait(60)
        mine = numbers[place::AT_ONCE]
        return [(number, ask(books[place % len(books)], number)) for number in mine]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [answer for answers in pool.map(one, range(AT_ONCE)) for answer in answers]


def spent(books: list[Book]) -> int:
    return books[0].balances().get(("programme:redeemed:service", "PTS"), 0)


def check(books: list[Book], accepted: set[int]) -> None:
    total = sum(WORTHS[number] for number in accepted)
    assert -spent(books) == total <= POINTS
    left = books[0].member(name_id("member", "ann"))
    assert (left.available, left.reserved, left.debt) == (POINTS - total, 0, 0)
    refused = set(range(ASKED)) - accepted
    assert all(WORTHS[number] > left.available for number in refused), "nobody was refused early"
    assert books[0].audit() == []


def test_the_last_points_are_spent_once(books: list[Book]) -> None:
    answers = all_at_once(books, list(range(ASKED)))
    assert {result for _, result in answers} == {Result.OK, Result.INSUFFICIENT_POINTS}
    check(books, {number for number, result in answers if result == Result.OK})


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_retries_changes_nothing(books: list[Book], seed: int) -> None:
    chance = random.Random(seed)
    numbers = [n for n in range(ASKED) for _ in range(chance.randint(1, 5))]
    chance.shuffle(numbers)
    answers = all_at_once(books, numbers)
    times = Counter(number for number, result in answers if result == Result.OK)
    assert set(times.values()) == {1}, "the first answer is OK, all after it EXISTS"
    known = {number for number, result in answers if result == Result.EXISTS}
    assert known <= times.keys()
    check(books, set(times))
    before = books[0].ledger_hash(), len(books[0].entries(0))
    again = {result for _, result in all_at_once(books, numbers)}
    assert again == {Result.EXISTS, Result.INSUFFICIENT_POINTS}
    assert (books[0].ledger_hash(), len(books[0].entries(0))) == before
