"""Balances as of any moment: by a naive fold, and by what a due run at that moment really does.

A story is told to a book, a day a step, and the book is copied after each. What is known at a step
is what that copy holds, so the copy answers for it: of a moment to come, by a due run; of one that
is past, by a fold over its entries and lots in plain Python.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from pipeline.ledger.terms import INACTIVITY, inactive_ns
from pipeline.model.batches import CommandBatch
from pipeline.model.identifiers import id_text
from pipeline.model.stage import END_OF_TIME
from pipeline.model.words import Result
from pipeline.store.book import Book
from pipeline.store.book_entries import MemberPoints
from tests.ledger.asking import ask
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    KEYS,
    RUN,
    name_id,
    ns,
    rulebook,
    target,
    target_batch,
)

MEMBERS = ("ann", "bob")
ZONE = "Europe/Berlin"


def now(step: int) -> int:
    """When a step is booked."""
    return EVENT_NS + step * DAY_NS


class Told:
    """A book that a story is told to, step by step, and a copy of it after each."""

    def __init__(self, folder: Path, **programme: Any) -> None:
        self.rules, self.folder = rulebook(manual_limit=10**6, **programme), folder
        self.path = folder / "book.sqlite"
        self.book = Book(f"sqlite:///{self.path}", KEYS, self.rules)
        self.step = 0

    def where(self) -> dict[str, Any]:
        """The next step's booking."""
        self.step += 1
        return {"cut": self.step, "now_ns": now(self.step), "run_id": RUN, "actor": "tests"}

    def targets(self, *targets: Any) -> list[Result]:
        results = self.book.post_targets(target_batch(targets), **self.where())
        return self._kept([Result(int(result)) for result in results])

    def command(self, batch: CommandBatch) -> list[Result]:
        results = self.book.post_commands(batch, **self.where())
        return self._kept([Result(int(result)) for result in results])

    def due(self) -> None:
        self.book.post_due(**self.where())
        self._kept(None)

    def _kept(self, answer: Any) -> Any:
        with sqlite3.connect(self.path) as whole, sqlite3.connect(self.copy(self.step)) as copy:
            whole.backup(copy)
        return answer

    def copy(self, step: int) -> Path:
        """The file of the book as it was after a step."""
        return self.folder / f"{step}.sqlite"

    def after(self, step: int) -> Book:
        """A book of one's own as it was after a step, to do with as one likes."""
        mine = self.folder / "mine.sqlite"
        for left in self.folder.glob("mine.sqlite*"):
            left.unlink()
        shutil.copy(self.copy(step), mine)
        return Book(f"sqlite:///{mine}", KEYS, self.rules)

    def after_due(self, step: int, at_ns: int) -> dict[str, MemberPoints]:
        """What members have when a due run comes at a time, and nothing else after a step."""
        book = self.after(step)
        book.post_due(cut=99, now_ns=max(at_ns, now(step)), run_id=RUN, actor="tests")
        assert book.audit() == []
        found = {who: book.member(name_id("member", who)) for who in MEMBERS}
        book.close()
        return found

    def close(self) -> None:
        self.book.close()


# By a fold


def rows_of(path: Path, query: str) -> list[tuple]:
    with sqlite3.connect(path) as connection:
        return connection.execute(query).fetchall()


def folded(told: Told, step: int, at_ns: int) -> dict[str, list[int]]:
    """Pending, available, reserved and owed of each member, by entries and lots of a copy.

    A reservation that is over at that time and not ended yet is left as it is; see `unended`.
    """
    book, path = told.after(step), told.copy(step)
    entries = book.entries(0, 1 << 30)
    book.close()
    found = {who: [0] * 4 for who in MEMBERS}
    places = {
        f"member:{id_text(name_id('member', who))}:{bucket}": (who, at)
        for who in MEMBERS
        for at, bucket in enumerate(("pending", "available", "reserved", "debt"))
    }
    for account, amount, effective in zip(
        entries.account.to_list(), entries.amount.tolist(), entries.effective_ns.tolist(),
        strict=True,
    ):  # fmt: skip
        if effective <= at_ns and account in places:
            who, bucket = places[account]
            found[who][bucket] += amount if bucket == 3 else -amount
    left: dict[bytes, int] = defaultdict(int)
    moves = "SELECT lot_id, remaining_change, effective_ns FROM lot_moves JOIN transfers USING"
    for lot, change, effective in rows_of(
        path, f"{moves} (transfer_number) JOIN postings USING (posting_number)"
    ):
        left[lot] += change if effective <= at_ns else 0
    active = last_activity(path, at_ns)
    lots = "SELECT lot_id, subscriber_id, earned_ns, expires_ns, expiry_policy FROM lots JOIN terms"
    members = {name_id("member", who): who for who in MEMBERS}
    for lot, who, earned, until, policy in rows_of(path, f"{lots} USING (terms_id)"):
        if until == END_OF_TIME and policy.startswith(INACTIVITY):
            until = inactive_ns(policy, max(active[who], earned), ZONE)
        if until <= at_ns:
            found[members[who]][1] -= left[lot]
    return found


def last_activity(path: Path, at_ns: int) -> dict[bytes, int]:
    """The last time that each member earned or spent (see `Changes` 4 of the ledger's kinds)."""
    active: dict[bytes, int] = defaultdict(int)
    query = "SELECT subscriber_id, effective_ns, kind, debit FROM transfers JOIN postings USING"
    for who, effective, kind, debit in rows_of(path, f"{query} (posting_number)"):
        gave = kind in (2, 4, 8, 15, 16) or (kind == 14 and debit > 0)
        if gave and effective <= at_ns:
            active[who] = max(active[who], effective)
    return active


def unended(told: Told, step: int, at_ns: int) -> bool:
    """Is there a reservation whose time is over, and whose end a later step brought, or none?"""
    query = (
        "SELECT sum(CASE kind WHEN 8 THEN amount ELSE -amount END) FROM transfers"
        " JOIN postings USING (posting_number) JOIN orders ON order_id = cause_id"
        f" WHERE kind IN (8, 9, 10) AND hold_until_ns <= {at_ns} AND effective_ns <= {at_ns}"
        " GROUP BY order_id"
    )
    return any(total for (total,) in rows_of(told.copy(step), query))


# Stories

# Somebody earned before; then things are earned and spent about now, some known late, some at times
# to come; reservations last for days. Half days from the first of March.
EARLIER, ABOUT_NOW = st.integers(-70, 10), st.integers(-10, 30)
STEPS = st.one_of(
    st.tuples(st.just("earn"), st.sampled_from("abc"), st.integers(0, 20), EARLIER),
    st.tuples(st.just("pend"), st.sampled_from("bc"), st.integers(1, 20), EARLIER),
    st.tuples(st.just("order"), st.sampled_from(MEMBERS), st.integers(1, 9), ABOUT_NOW),
    st.tuples(st.just("reserve"), st.sampled_from(MEMBERS), st.integers(1, 9), ABOUT_NOW),
    st.tuples(st.just("commit"), st.integers(2, 9), st.integers(0, 6), ABOUT_NOW),
    st.tuples(st.just("refund"), st.integers(2, 9), st.integers(0, 6), st.integers(0, 70)),
    st.tuples(st.just("transfer"), st.sampled_from(MEMBERS), st.integers(1, 9), ABOUT_NOW),
    st.tuples(st.just("adjust"), st.sampled_from(MEMBERS), st.integers(-5, 9), ABOUT_NOW),
    st.tuples(st.just("due"), st.just(""), st.just(0), st.just(0)),
)
BEGINNING = [("earn", "a", 20, -20), ("earn", "c", 15, -15)]
PROGRAMMES = st.sampled_from(
    [
        {"expiry": "rolling_months(1)"},
        {"expiry": "rolling_months(1)", "refund": "fresh"},
        {"expiry": "rolling_months(0)", "refund": "grace(3d)"},
        {"expiry": "inactivity(1)"},
        {"expiry": "inactivity(0)", "refund": "original"},
        {"expiry": "inactivity(0)", "refund": "grace(2d)"},
    ]
)
OWNERS = {"a": "ann", "b": "ann", "c": "bob"}


def tell(told: Told, steps: list[tuple]) -> None:
    """One request a step; orders are named after their step."""
    for number, (do, what, points, day) in enumerate(steps):
        at_ns = EVENT_NS + day * DAY_NS // 2 + number
        if do in ("earn", "pend"):
            state = "none" if not points else "pending" if do == "pend" else "available"
            told.targets(
                target(what, points, state, fold=number + 1, member=OWNERS[what], event_ns=at_ns)
            )
        elif do in ("commit", "refund"):
            told.command(ask(do, f"s{number}", points=points, at=at_ns, order=f"s{what}"))
        elif do == "transfer":
            to = "bob" if what == "ann" else "ann"
            told.command(ask(do, f"s{number}", what, points, at_ns, to=to))
        elif do == "due":
            told.due()
        else:
            body = {"hold_seconds": 86_400 * (1 + number % 9), "reason": "x"}
            told.command(ask(do, f"s{number}", what, points, at_ns, **body))


@pytest.fixture(scope="module")
def folders() -> Iterator[Path]:
    """In memory where there is such a folder, so that a commit costs no disk."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as made:
        folder = Path(made)
        Book(f"sqlite:///{folder / 'empty.sqlite'}", KEYS, rulebook(manual_limit=10**6)).close()
        yield folder


def a_told(folders: Path, programme: dict[str, Any]) -> Told:
    """A story's beginning, in an empty book that need not be made again."""
    folder = folders / "story"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(folders / "empty.sqlite", folder / "book.sqlite")
    return Told(folder, **programme)


def last_ns(told: Told, step: int) -> int:
    """The latest time that anything was effective."""
    ((found,),) = rows_of(told.copy(step), "SELECT max(effective_ns) FROM postings")
    return found or 0


def total(each: Any) -> list[int]:
    return [sum(values) for values in zip(*each, strict=True)]


def as_numbers(points: MemberPoints) -> list[int]:
    return [points.pending, points.available, points.reserved, points.debt]


def check(told: Told, step: int, at_ns: int) -> None:
    """What the whole book says of a time by what was known at a step, by two other ways."""
    known_ns = now(step)
    said = {
        who: as_numbers(told.book.balance_at(name_id("member", who), at_ns, known_ns))
        for who in MEMBERS
    }
    assert as_numbers(told.book.liability_at(at_ns, known_ns)) == total(said.values())
    forward = told.book.money.liability(known_ns, max(at_ns, known_ns))
    now_there = told.book.liability_at(forward.to_ns, forward.to_ns)
    assert forward.close == now_there.available + now_there.reserved
    assert forward.open == told.book.money.liability(known_ns, known_ns).close
    if at_ns >= max(last_ns(told, step), known_ns):
        real = told.after_due(step, at_ns)
        assert said == {who: as_numbers(points) for who, points in real.items()}
    if not unended(told, step, at_ns):
        assert said == folded(told, step, at_ns)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(PROGRAMMES, st.lists(STEPS, min_size=6, max_size=12), st.data())
def test_any_moment_by_whatever_was_known(
    folders: Path, programme: dict[str, Any], steps: list[tuple], data: st.DataObject
) -> None:
    told = a_told(folders, programme)
    try:
        tell(told, BEGINNING + steps)
        assert told.book.audit() == []
        assert told.book.money.problems() == []
        count = len(BEGINNING) + len(steps)
        for step in (count, data.draw(st.integers(2, count), label="known at step")):
            for moment in data.draw(st.lists(st.integers(-45, 100), min_size=3, max_size=3)):
                check(told, step, EVENT_NS + moment * DAY_NS // 2)
            later = data.draw(st.integers(0, 40), label="days after the last")
            check(told, step, max(last_ns(told, step), now(step)) + later * DAY_NS)
    finally:
        told.close()


# Told by hand


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    yield made
    made.close()


def balance(told: Told, at: str, known: int, who: str = "ann") -> tuple[int, int, int, int]:
    found = told.book.balance_at(name_id("member", who), ns(at), now(known))
    return tuple(as_numbers(found))  # type: ignore[return-value]


def test_the_two_times_of_the_worked_example(told: Told) -> None:
    """Lots A 100 earned 2024-03-05 and B 50 earned 2025-02-01; 120 spent on 2026-06-01."""
    told.targets(target("A", 100, "available", event_ns=ns("2024-03-05")))
    told.targets(target("B", 50, "available", event_ns=ns("2025-02-01")))
    told.command(ask("order", "o", "ann", 120, "2026-06-01"))
    assert balance(told, "2025-01-01", 1) == (0, 100, 0, 0)
    assert balance(told, "2025-02-01", 1) == (0, 100, 0, 0), "B is not known yet"
    assert balance(told, "2025-02-01", 2) == (0, 150, 0, 0)
    assert balance(told, "2026-05-31", 3) == (0, 150, 0, 0)
    assert balance(told, "2026-06-01", 3) == (0, 30, 0, 0)
    assert balance(told, "2027-12-31T22:59:59", 3) == (0, 30, 0, 0)
    assert balance(told, "2027-12-31T23:00:00", 3) == (0, 0, 0, 0), "B is over in Berlin"
    assert balance(told, "2026-12-31T23:00:00", 2) == (0, 50, 0, 0), "the order is not known"
    assert balance(told, "2030-01-01", 0) == (0, 0, 0, 0)
    assert balance(told, "2026-06-01", 3, "bob") == (0, 0, 0, 0)


def test_a_reservation_ends_at_a_time_to_come(told: Told) -> None:
    told.targets(target("a", 40, "available", event_ns=ns("2024-03-05")))
    told.command(ask("reserve", "r", "ann", 30, "2026-12-31T12:00", hold_seconds=86_400))
    assert balance(told, "2026-12-31T22:59:59", 2) == (0, 10, 30, 0)
    assert balance(told, "2026-12-31T23:00:00", 2) == (0, 0, 30, 0), "what is held does not lapse"
    assert balance(told, "2027-01-01T11:59:59", 2) == (0, 0, 30, 0)
    assert balance(told, "2027-01-01T12:00:00", 2) == (0, 0, 0, 0), "it comes back and lapses"
    assert as_numbers(told.book.liability_at(ns("2027-01-02"), now(2))) == [0, 0, 0, 0]


def test_what_a_reservation_gives_back_pays_what_is_owed(told: Told) -> None:
    told.targets(target("a", 40, "available"), target("b", 5, "available", member="bob"))
    told.command(ask("reserve", "r", "ann", 30, EVENT_NS, hold_seconds=86_400))
    told.targets(target("a", 24, "available", fold=2))
    told.targets(target("a", 4, "available", fold=3))
    assert balance(told, "2026-03-01T12:00", 4) == (0, 0, 30, 26)
    assert balance(told, "2026-03-02", 4) == (0, 4, 0, 0)
    assert as_numbers(told.book.liability_at(ns("2026-03-02"), now(4))) == [0, 9, 0, 0]


def test_a_refund_with_grace_is_so_from_when_it_was_known(told: Told) -> None:
    told.targets(target("a", 40, "available", event_ns=ns("2024-03-05")))
    told.command(ask("order", "o", "ann", 40, "2026-06-01"))
    told.command(ask("refund", "f", at="2027-02-01", order="o"))
    assert balance(told, "2027-02-01", 2) == (0, 0, 0, 0)
    assert balance(told, "2027-02-01", 3) == (0, 40, 0, 0)
    assert balance(told, "2027-03-03T22:59:59", 3) == (0, 40, 0, 0)
    assert balance(told, "2027-03-03T23:00:00", 3) == (0, 0, 0, 0)


def test_an_event_that_was_at_another_time(told: Told) -> None:
    """Both the points and their date follow, as soon as it is known."""
    told.targets(target("a", 40, "available", event_ns=ns("2024-12-30")))
    told.targets(target("a", 50, "available", fold=2, event_ns=ns("2025-01-02")))
    assert balance(told, "2025-01-01", 1) == balance(told, "2025-01-01", 2) == (0, 40, 0, 0)
    assert balance(told, "2027-01-01", 1) == (0, 0, 0, 0)
    assert balance(told, "2027-01-01", 2) == (0, 50, 0, 0)


def test_what_lapsed_by_mistake_was_there_all_the_time(tmp_path: Path) -> None:
    """An activity of before the lapse is known after it: nobody ever had the points twice."""
    told = Told(tmp_path, expiry="inactivity(1)")
    told.targets(target("a", 10, "available", event_ns=ns("2026-01-10")))
    told.due()
    assert balance(told, "2026-03-01", 2) == (0, 0, 0, 0)
    told.targets(target("b", 5, "available", event_ns=ns("2026-02-05")))
    assert balance(told, "2026-02-06", 2) == (0, 10, 0, 0)
    for at in ("2026-02-06", "2026-02-11", "2026-03-01", "2026-03-05T22:59:59"):
        assert balance(told, at, 3) == (0, 15, 0, 0), at
    assert balance(told, "2026-03-05T23:00:00", 3) == (0, 0, 0, 0)
    kinds = told.book.entries(0)
    reinstated = [k == "reinstate" for k in kinds.kind.to_list()]
    assert kinds.effective_ns[reinstated].tolist() == [ns("2026-02-10T23:00")] * 2
    assert told.book.audit() == []
    told.close()


# Closed periods


def test_nothing_is_booked_into_a_closed_period(tmp_path: Path) -> None:
    """Not by a clock that goes back, nor by what happened then; its own time stays with it."""
    book = Book(f"sqlite:///{tmp_path / 'book.sqlite'}", KEYS, rulebook())
    where = {"cut": 1, "run_id": RUN, "actor": "tests"}
    march, may = ns("2026-03-20"), ns("2026-05-02")
    book.post_targets(target_batch([target("a", 10, "available")]), now_ns=march, **where)
    for number, period in enumerate(("2026-03", "2026-04")):
        close = ask("close_period", f"p{number}", at=may, period=period)
        assert book.post_commands(close, now_ns=may, **where).tolist() == [Result.OK]
    before = book.heads()
    old = target("b", 7, "available", event_ns=ns("2026-03-05"))
    book.post_targets(target_batch([old]), now_ns=may, **where)
    found = book.entries(2)
    assert found.period.to_list() == ["2026-05"] * 2
    assert found.effective_ns.tolist() == [ns("2026-03-05")] * 2
    assert book.balance_at(old.subscriber_id, ns("2026-03-31"), may).available == 17
    assert book.audit() == []
    with book._read() as connection:
        closed = connection.execute(text("SELECT period, postings, closed_ns FROM periods")).all()
    assert sorted(map(tuple, closed)) == [("2026-03", 1, may), ("2026-04", 1, may)]
    assert before[0].number == 1
    book.close()


def test_what_is_booked_late_goes_to_the_next_open_period(tmp_path: Path) -> None:
    book = Book(f"sqlite:///{tmp_path / 'book.sqlite'}", KEYS, rulebook())
    where = {"cut": 1, "run_id": RUN, "actor": "tests"}
    may, june = ns("2026-05-02"), ns("2026-06-02")
    for number, period in enumerate(("2026-03", "2026-04", "2026-05")):
        close = ask("close_period", f"p{number}", at=june, period=period)
        assert book.post_commands(close, now_ns=june, **where).tolist() == [Result.OK]
    # A program whose clock is behind.
    book.post_targets(target_batch([target("a", 10, "available")]), now_ns=may, **where)
    order = ask("order", "o", "ann", 4)
    book.post_commands(order, now_ns=may, **where)
    book.post_due(now_ns=may, **where)
    assert set(book.entries(0).period.to_list()) == {"2026-06"}
    assert [s for s in book.audit() if "period" in s] == []
    again = ask("close_period", "again", at=june, period="2026-06")
    assert book.post_commands(again, now_ns=june, **where).tolist() == [Result.PERIOD_OPEN]
    book.close()


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 5)), max_size=12))
def test_periods_close_in_any_order(steps: list[tuple[int, bool, int]]) -> None:
    """Whatever is closed when: a posting's period was open when it was booked."""
    book = Book("sqlite://", KEYS, rulebook())
    months = [ns(f"2026-0{month}-15") for month in range(2, 8)]
    closed: set[str] = set()
    at = 0
    for number, (later, closes, month) in enumerate(steps):
        at = max(at, later)
        where = {"cut": 1, "now_ns": months[at], "run_id": RUN, "actor": "tests"}
        period = f"2026-0{month + 2}"
        if closes:
            (result,) = book.post_commands(
                ask("close_period", f"p{number}", at=months[at], period=period), **where
            ).tolist()
            expected = Result.OK if month < at else Result.PERIOD_OPEN
            assert result == (Result.EXISTS if period in closed else expected)
            closed |= {period} if result == Result.OK else set()
        else:
            event_ns = months[month]
            made = target(f"c{number}", 3, "available", event_ns=event_ns)
            before = len(book.entries(0))
            book.post_targets(target_batch([made]), **where)
            entries = book.entries(before)
            assert set(entries.period.to_list()).isdisjoint(closed)
            assert set(entries.effective_ns.tolist()) == {event_ns}
    assert book.audit() == []
    book.close()
