"""Many at once: the last points, and the last gifts, are given once, however many ask, and however
often; and whatever is asked once more, of any kind, changes nothing.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest

from pipeline.model.batches import CommandBatch
from pipeline.model.words import BOOK_COMMANDS, Result
from pipeline.rulebook.model import Exchange, Location
from pipeline.store.book import Book
from tests.ledger.asking import ask
from tests.ledger.stories import EVENT_NS, KEYS, booking, name_id, order_batch, rulebook, target
from tests.ledger.stories import target_batch as batch_of

pytestmark = pytest.mark.slow

POINTS, ASKED, OPENINGS, AT_ONCE = 1000, 100, 10, 100
WORTHS = [n % 13 + 14 for n in range(ASKED)]  # together more than there is
AFTER_NS = EVENT_NS + 86_400_000_000_000
Ask = Callable[[Book, int], Result]


@pytest.fixture
def books(url: str) -> list[Book]:
    """One book opened by several programs; Ann has points from four conversions."""
    made = [Book(url, KEYS, rulebook()) for _ in range(OPENINGS)]
    parts = [target(f"c{n}", POINTS // 4, "available") for n in range(4)]
    made[0].post_targets(batch_of(parts), **booking(1))
    yield made
    for book in made:
        book.close()


def post(book: Book, batch: CommandBatch) -> Result:
    return Result(int(book.post_commands(batch, **booking(2))[0]))


def ask_order(book: Book, number: int) -> Result:
    return post(book, order_batch([(f"o{number}", "ann", WORTHS[number])], AFTER_NS))


def all_at_once(
    books: list[Book], numbers: list[int], ask: Ask = ask_order
) -> list[tuple[int, Result]]:
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


# Gifts

CUPS = 37


@pytest.mark.parametrize("kind", ["order", "reserve"])
def test_no_gift_is_given_twice(books: list[Book], kind: str) -> None:
    """A hundred ask at once for one or two of thirty-seven; points are not what is lacking."""
    batch = ask("stock", "s", points=CUPS, item="cup")
    assert post(books[0], batch) == Result.OK

    def for_a_cup(book: Book, number: int) -> Result:
        return post(
            book, ask(kind, f"g{number}", "ann", 1, AFTER_NS, item="cup", quantity=number % 2 + 1)
        )

    answers = all_at_once(books, list(range(ASKED)), for_a_cup)
    assert {result for _, result in answers} == {Result.OK, Result.OUT_OF_STOCK}
    given = sum(number % 2 + 1 for number, result in answers if result == Result.OK)
    assert given == CUPS, "who wants one gets the last one"
    there = {at: n for (at, _), n in books[0].balances().items() if at.startswith("stock")}
    where = "stock:cup:gone" if kind == "order" else "stock:cup:held"
    assert there == {where: CUPS, "stock:cup:supplied": -CUPS}
    assert books[0].audit() == []


def test_what_is_given_back_is_given_once_more(books: list[Book]) -> None:
    """Reservations are committed and let go while others ask: never more than there is."""
    assert post(books[0], ask("stock", "s", points=CUPS, item="cup")) == Result.OK

    def come_and_go(book: Book, number: int) -> Result:
        first = ask("reserve", f"g{number}", "ann", 1, AFTER_NS, item="cup")
        if post(book, first) != Result.OK:
            return Result.OUT_OF_STOCK
        then = "commit" if number % 2 else "release"
        return post(book, ask(then, f"t{number}", at=AFTER_NS, order=f"g{number}"))

    answers = all_at_once(books, list(range(ASKED)), come_and_go)
    assert {result for _, result in answers} <= {Result.OK, Result.OUT_OF_STOCK}
    gone = sum(result == Result.OK and number % 2 for number, result in answers)
    balances = books[0].balances()
    assert balances.get(("stock:cup:gone", "stock:cup"), 0) == gone <= CUPS
    assert balances.get(("stock:cup:free", "stock:cup"), 0) == CUPS - gone
    assert books[0].audit() == []


# Two people

WAITING = 40


def test_one_of_two_approvals_counts(books: list[Book]) -> None:
    """Of each command that waits: points are given once, or not, and one is told that it did so."""
    amount = 10**6
    for number in range(WAITING):
        asked = ask("adjust", f"j{number}", f"m{number}", amount, AFTER_NS, reason="x")
        assert post(books[0], asked) == Result.AWAITING_APPROVAL

    def decide(book: Book, place: int) -> Result:
        """Two approve each, and of some a third rejects it."""
        number, who = place % WAITING, place // WAITING
        kind = "reject" if who == 2 else "approve"
        name = f"d{number}.{who}"
        return post(book, ask(kind, name, at=AFTER_NS, actor=f"p{who}", request=f"j{number}"))

    answers = all_at_once(books, list(range(ASKED)), decide)
    assert {result for _, result in answers} == {Result.OK, Result.CLOSED_ORDER}
    for number in range(WAITING):
        first = [p for p, result in answers if p % WAITING == number and result == Result.OK]
        assert len(first) == 1, "one of them decided"
        there = books[0].member(name_id("member", f"m{number}")).available
        assert there == (0 if first[0] // WAITING == 2 else amount)
    assert books[0].awaiting() == []
    assert books[0].audit() == []


# Everything, again and again

RATE = Exchange("miles", "MILES", Fraction(1, 2), Fraction(3), Location("programme.toml", 1, "x"))
RULES = rulebook(manual_limit=100, exchanges=(RATE,))
MANY = 6  # lives that are led side by side


def life(n: int) -> list[CommandBatch]:
    """Commands of all kinds, each of which needs those before it."""
    me, you, at = f"m{n}", f"m{(n + 1) % MANY}", AFTER_NS
    return [
        ask("migrate", f"a{n}", me, 400, at),
        ask("adjust", f"b{n}", me, 900, at, reason="x"),
        ask("approve", f"c{n}", at=at, actor="bob", request=f"b{n}"),
        ask("adjust", f"d{n}", me, 900, at, reason="y"),
        ask("reject", f"e{n}", at=at, actor="bob", request=f"d{n}"),
        ask("stock", f"f{n}", points=2, at=at, item=f"cup{n}"),
        ask("reserve", f"g{n}", me, 50, at, item=f"cup{n}"),
        ask("commit", f"h{n}", points=40, at=at, order=f"g{n}"),
        ask("refund", f"i{n}", points=15, at=at, order=f"g{n}"),
        ask("reserve", f"j{n}", me, 50, at, item=f"cup{n}"),
        ask("release", f"k{n}", at=at, order=f"j{n}"),
        ask("order", f"l{n}", me, 30, at, item=f"cup{n}"),
        ask("order", f"m{n}", me, 10**6, at),
        ask("transfer", f"n{n}", me, 25, at, to=you),
        ask("convert_out", f"o{n}", me, 21, at, programme="miles"),
        ask("convert_in", f"p{n}", me, 7, at, programme="miles"),
        ask("freeze", f"q{n}", me, at=at + 1),
        ask("order", f"r{n}", me, 1, at + 2),
        ask("unfreeze", f"s{n}", me, at=at + 3),
        ask("forfeit", f"t{n}", me, 5, at + 4, reason="z"),
        ask("close_period", f"u{n}", at=at, period=f"2025-{n + 1:02d}"),
        ask("publish", f"v{n}", at=at, reason="x"),
        ask("approve", f"w{n}", at=at, actor="bob", request=f"v{n}"),
        ask("rerate", f"x{n}", at=at, reason="x"),
        ask("reject", f"y{n}", at=at, actor="bob", request=f"x{n}"),
    ]


LIVES = [life(n) for n in range(MANY)]
STEPS = len(LIVES[0])


@pytest.fixture
def others(url: str) -> Iterator[list[Book]]:
    """One book opened by several programs."""
    made = [Book(url, KEYS, RULES) for _ in range(OPENINGS)]
    yield made
    for book in made:
        book.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_retries_of_every_kind_changes_nothing(others: list[Book], seed: int) -> None:
    """Each command comes one to five times, through any program, at once with those of others; a
    first time follows the first time of what it needs, and the others come whenever.
    """
    assert {batch.kind.text(0) for each in LIVES for batch in each} == set(BOOK_COMMANDS)
    chance = random.Random(seed)
    first: list[dict[int, Result]] = [{} for _ in LIVES]
    more: list[tuple[int, int, int, Result]] = []
    ready = threading.Barrier(MANY)

    def live(n: int, draw: random.Random) -> None:
        ready.wait(60)
        for step, batch in enumerate(LIVES[n]):
            first[n][step] = post(draw.choice(others), batch)
            for _ in range(draw.randint(0, 4)):
                past = draw.randint(0, step)
                again = post(draw.choice(others), LIVES[n][past])
                more.append((n, step, past, again))

    with ThreadPoolExecutor(MANY) as pool:
        draws = [random.Random(chance.random()) for _ in LIVES]
        list(pool.map(live, range(MANY), draws))
    for n, step, past, again in more:
        assert again == repeated(first[n], past, step), (n, step, past)
    assert others[0].audit() == []
    alone = Book("sqlite://", KEYS, RULES)
    undisturbed = [
        {step: post(alone, batch) for step, batch in enumerate(batches)} for batches in LIVES
    ]
    assert undisturbed == first, "answers do not depend on who came in between"
    assert alone.balances() == others[0].balances()
    before = others[0].ledger_hash(), others[0].heads()
    storm = [(n, step) for n in range(MANY) for step in range(STEPS)] * chance.randint(1, 2)
    chance.shuffle(storm)

    def once_more(place: int) -> list[tuple[int, int, Result]]:
        return [
            (n, step, post(others[place % OPENINGS], LIVES[n][step]))
            for n, step in storm[place::20]
        ]

    with ThreadPoolExecutor(20) as pool:
        for answers in pool.map(once_more, range(20)):
            assert all(again == repeated(first[n], step, STEPS) for n, step, again in answers)
    assert (others[0].ledger_hash(), others[0].heads()) == before
    alone.close()


def repeated(first: dict[int, Result], step: int, after: int) -> Result:
    """What a command is answered when it comes once more, when the life is as far as `after`."""
    answer = first[step]
    if answer == Result.AWAITING_APPROVAL and step < after:  # the next step decides it
        approved = LIVES[0][step + 1].kind.text(0) == "approve"
        return Result.EXISTS if approved else Result.CLOSED_ORDER
    return Result.EXISTS if answer == Result.OK else answer
