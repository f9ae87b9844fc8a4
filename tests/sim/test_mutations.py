"""The simulation can fail: a book with a mistake built in is caught within a few seeds.

Each mistake is one that somebody could make. The book it is built into is the real one; stories are
those that `mirrorpoint simulate` tells. A mistake that no story shows would say that stories are
too tame, or that the comparison does not look.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.ledger import due, moving, orders, posting, requests
from pipeline.ledger.accounts import LAPSED, RESERVED, EntryKind
from pipeline.ledger.state import LedgerState
from pipeline.run.simulation.drive import Shelf
from pipeline.run.simulation.maker import make_story
from pipeline.store import book_commands

pytestmark = pytest.mark.slow
SEEDS = 30
STEPS = 80
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    made.close()


def forgets_what_is_owed(patch: Patch) -> None:
    for module in (moving, requests):
        patch.setattr(module, "recover", lambda *_: None)


def books_a_retry_twice(patch: Patch) -> None:
    post = book_commands.post_command

    def careless(state: Any, command: Any, doubtful: bool) -> Any:
        if command.kind in ("order", "stock", "adjust"):
            state.requests.pop(command.command_id, None)
        return post(state, command, doubtful)

    patch.setattr(book_commands, "post_command", careless)


def lets_held_points_lapse(patch: Patch) -> None:
    lapse = moving.lapse

    def greedy(state: Any, member: Any, lot: Any, at_ns: int) -> Any:
        if lot.held:
            source, target = member.account(RESERVED), state.account(LAPSED)
            state.move(EntryKind.EXPIRE, target, source, lot.held)
            state.touch(lot, held=-lot.held, lapsed=lot.held)
        return lapse(state, member, lot, at_ns)

    patch.setattr(due, "lapse", greedy)


def refunds_into_one_lot(patch: Patch) -> None:
    bring_back = orders.bring_back

    def lazy(state: Any, member: Any, kind: int, source: int, parts: list) -> Any:
        if kind == EntryKind.REFUND and len(parts) > 1:
            parts = [(parts[0][0], sum(points for _, points in parts))]
        return bring_back(state, member, kind, source, parts)

    patch.setattr(orders, "bring_back", lazy)


def lets_one_person_approve(patch: Patch) -> None:
    decide = requests.POSTED["approve"]
    patch.setitem(
        requests.POSTED, "approve", lambda state, c: decide(state, c._replace(actor="another"))
    )


def ends_reservations_at_cuts_only(patch: Patch) -> None:
    patch.setattr(requests, "_release_due", lambda *_: [])


def spends_the_oldest_first(patch: Patch) -> None:
    def by_age(_: LedgerState, lots: list) -> list:
        return sorted(lots, key=lambda lot: (lot.earned_ns, lot.lot_id))

    patch.setattr(LedgerState, "in_spending_order", by_age)


def gives_a_day_of_grace_too_few(patch: Patch) -> None:
    grace = orders.grace_ns
    patch.setattr(orders, "grace_ns", lambda at, days, zone: grace(at, max(days - 1, 0), zone))


def takes_lapsed_points_for_owed(patch: Patch) -> None:
    def hard(state: Any, member: Any, own: Any, kind: Any, target: int, points: int) -> None:
        lapsed, own.lapsed = own.lapsed, 0
        moving.take_back(state, member, own, kind, target, points)
        own.lapsed = min(lapsed, own.amount - own.remaining)

    patch.setattr(posting, "take_back", hard)


def forgets_the_waiting_period(patch: Patch) -> None:
    may_spend = orders.may_spend

    def impatient(state: Any, command: Any) -> Any:
        rules = state.rules
        state.rules = rules._replace(waiting_ns=0)
        try:
            return may_spend(state, command)
        finally:
            state.rules = rules

    patch.setattr(orders, "may_spend", impatient)


MISTAKES = (
    forgets_what_is_owed, books_a_retry_twice, lets_held_points_lapse, refunds_into_one_lot,
    lets_one_person_approve, ends_reservations_at_cuts_only, spends_the_oldest_first,
    gives_a_day_of_grace_too_few, takes_lapsed_points_for_owed, forgets_the_waiting_period,
)  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_caught(shelf: Shelf, monkeypatch: Patch, mistake: Any) -> None:
    mistake(monkeypatch)
    for seed in range(SEEDS):
        if shelf.run(make_story(seed, STEPS)) is not None:
            return
    pytest.fail(f"a book that {mistake.__name__} agrees with the coins in {SEEDS} stories")


def test_a_book_without_one_is_not(shelf: Shelf) -> None:
    assert [seed for seed in range(5) if shelf.run(make_story(seed, STEPS)) is not None] == []
