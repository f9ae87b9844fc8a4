"""The ledger of coins by itself: the worked examples of loyalty, told to it and to nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.identifiers import id_text
from pipeline.model.words import Result
from pipeline.run.simulation.coins import NaiveRules
from pipeline.run.simulation.commands import Asked
from pipeline.run.simulation.maker import make_story
from pipeline.run.simulation.model import NaiveLedger
from pipeline.run.simulation.story import Step, Twin, tell
from tests.ledger.stories import name_id, ns, target

ANN, BOB = name_id("member", "ann"), name_id("member", "bob")


class Desk:
    """Asks in short, in an order of its own."""

    def __init__(self, **rules: Any) -> None:
        self.coins = NaiveLedger(NaiveRules(**rules))
        self.fold = 0

    def earn(self, what: str, points: int, at: str = "2026-03-01", state: str = "available") -> str:
        self.fold += 1
        made = target(what, points, state, fold=self.fold, event_ns=ns(at))
        return self.coins.target(made).name.lower()

    def ask(self, kind: str, name: str, points: int, at: str, who: bytes = ANN, **said: Any) -> str:
        ids = {"order": "command", "request": "command", "to": "member"}
        said = {n: id_text(name_id(ids[n], v)) if n in ids else v for n, v in said.items()}
        actor = said.pop("actor", "ann")
        asked = Asked(name_id("command", name), kind, who, points, ns(at), actor, "admin", said)
        return self.coins.command(asked, ns(at)).name.lower()

    def has(self, who: bytes = ANN) -> tuple[int, int, int, int]:
        assert not self.coins.problems()
        return self.coins.points(who)


def test_expiry_and_the_refund_after_it() -> None:
    """Lot A 100 of 2024, lot B 50 of 2025; 120 are spent in 2026 and come back in 2027."""
    after = {"grace(30d)": 100, "original": 0, "fresh": 100}
    for policy, left in after.items():
        desk = Desk(refund=policy)
        desk.earn("A", 100, "2024-03-05")
        desk.earn("B", 50, "2025-02-01")
        assert desk.ask("order", "o", 120, "2026-06-01") == "ok"
        assert desk.coins.lots(ANN) == {name_id("conversion", "B"): 30}
        desk.coins.due(ns("2027-01-01"))
        assert desk.has() == (0, 30, 0, 0)
        assert desk.ask("refund", "f", 0, "2027-02-01", order="o") == "ok"
        assert desk.has() == (0, 150, 0, 0)
        desk.coins.due(ns("2027-02-02"))
        assert desk.has() == (0, 50 + left, 0, 0), policy
        desk.coins.due(ns("2027-03-04") - 1)
        assert desk.has() == (0, 50 + left, 0, 0), policy
        desk.coins.due(ns("2027-03-04"))
        assert desk.has() == (0, 150 if policy == "fresh" else 50, 0, 0), policy


def test_a_partial_refund_fills_the_last_lot_first() -> None:
    desk = Desk()
    desk.earn("A", 100, "2024-03-05")
    desk.earn("B", 50, "2025-02-01")
    desk.ask("order", "o", 120, "2026-06-01")
    assert desk.ask("refund", "f1", 25, "2026-06-02", order="o") == "ok"
    a, b = (name_id("conversion", name) for name in "AB")
    assert desk.coins.lots(ANN) == {a: 5, b: 50}
    assert desk.ask("refund", "f2", 96, "2026-06-02", order="o") == "insufficient_points"
    assert desk.ask("refund", "f3", 0, "2026-06-02", order="o") == "ok"
    assert desk.coins.lots(ANN) == {a: 100, b: 50}
    assert desk.ask("refund", "f4", 0, "2026-06-02", order="o") == "insufficient_points"


def test_partial_correction_debt_and_its_recovery() -> None:
    """40 points, of which 10 are left when the sale is amended to 24: 6 are owed."""
    desk = Desk()
    desk.earn("a", 40)
    desk.ask("order", "o", 30, "2026-03-02")
    desk.earn("a", 24)
    assert desk.has() == (0, 0, 0, 6)
    desk.earn("b", 10)
    assert desk.has() == (0, 4, 0, 0)
    desk.earn("a", 40)
    assert desk.has() == (0, 20, 0, 0)
    assert desk.coins.issued() == desk.coins.granted() == 50


def test_a_reset_clears_what_is_owed_first() -> None:
    desk = Desk()
    desk.earn("a", 40)
    desk.ask("order", "o", 30, "2026-03-02")
    desk.earn("a", 24)
    desk.earn("a", 40)
    assert desk.has() == (0, 10, 0, 0)


def test_what_waits_is_confirmed_in_part() -> None:
    desk = Desk()
    desk.earn("a", 40, state="pending")
    desk.earn("a", 24, state="pending")
    assert desk.has() == (24, 0, 0, 0)
    desk.earn("a", 20)
    assert desk.has() == (0, 20, 0, 0)
    desk.earn("a", 0, state="none")
    assert desk.has() == (0, 0, 0, 0)
    assert desk.coins.issued() == 0


def test_points_that_lapsed_unused_are_owed_by_nobody() -> None:
    desk = Desk()
    desk.earn("a", 40, "2024-03-01")
    assert desk.coins.due(ns("2027-01-01")) == (0, 1)
    desk.earn("a", 0, state="none", at="2024-03-01")
    assert desk.has() == (0, 0, 0, 0)
    assert not desk.coins.balances("PTS")


def test_held_points_stay_held() -> None:
    """Through the lapse of their lot and through the loss of its conversion."""
    desk = Desk()
    desk.earn("a", 40, "2024-03-01")
    desk.ask("reserve", "r", 30, "2026-12-31T23:50", hold_seconds=86400)
    assert desk.coins.due(ns("2027-01-01")) == (0, 1)
    assert desk.has() == (0, 0, 30, 0)
    desk.earn("a", 0, "2024-03-01", state="none")
    assert desk.has() == (0, 0, 30, 30)
    assert desk.ask("commit", "c", 20, "2027-01-01", order="r") == "ok"
    assert desk.has() == (0, 0, 0, 20)
    assert desk.ask("refund", "f", 0, "2027-01-02", order="r") == "ok"
    assert desk.has() == (0, 0, 0, 0)
    assert not desk.coins.balances("PTS")


def test_time_outs_are_decided_by_event_time() -> None:
    desk = Desk()
    desk.earn("a", 40)
    desk.ask("reserve", "r", 40, "2026-03-02T10:00")
    assert desk.ask("order", "o", 1, "2026-03-02T10:14:59") == "insufficient_points"
    assert desk.ask("commit", "c", 0, "2026-03-02T10:15", order="r") == "closed_order"
    assert desk.ask("refund", "f", 0, "2026-03-02T10:16", order="r") == "not_committed"
    assert desk.has() == (0, 40, 0, 0)


def test_transfers_keep_dates_and_pay_debts() -> None:
    desk = Desk()
    desk.earn("a", 40, "2024-03-01")
    assert desk.ask("transfer", "t", 15, "2026-03-02", to="bob") == "ok"
    assert desk.has(BOB) == (0, 15, 0, 0)
    assert desk.ask("transfer", "u", 15, "2026-03-02", to="ann") == "unknown_member"
    assert desk.coins.due(ns("2027-01-01")) == (0, 2)
    assert desk.coins.balances("PTS") == {
        ("programme:lapsed", "PTS"): -40, ("programme:issued", "PTS"): 40,
    }  # fmt: skip


def test_two_persons() -> None:
    desk = Desk(manual_limit=10)
    assert desk.ask("adjust", "a", 10, "2026-03-01", actor="pia") == "no_reason"
    said: dict[str, Any] = {"reason": "goodwill", "actor": "pia"}
    assert desk.ask("adjust", "b", 11, "2026-03-01", **said) == "awaiting_approval"
    assert desk.ask("approve", "c", 0, "2026-03-01", request="b", actor="pia") == "same_person"
    assert desk.has() == (0, 0, 0, 0)
    assert desk.ask("approve", "d", 0, "2026-03-01", request="b", actor="quinn") == "ok"
    assert desk.has() == (0, 11, 0, 0)
    assert desk.ask("reject", "e", 0, "2026-03-01", request="b", actor="quinn") == "closed_order"
    assert desk.ask("adjust", "b", 11, "2026-03-01", **said) == "exists"


@pytest.mark.parametrize("seed", range(40))
def test_coins_are_never_lost_nor_made(seed: int) -> None:
    """Whatever is asked, coins are where they belong, and as many as were granted."""

    def sound(twin: Twin, step: Step) -> None:
        assert not twin.ledger.problems(), step
        assert sum(twin.ledger.balances("PTS").values()) == 0, step

    twin = tell(make_story(seed, 80), sound)
    assert twin.ledger.taken


def test_an_answer_is_final() -> None:
    desk = Desk()
    desk.earn("a", 5)
    assert desk.coins.order(b"o" * 16, ANN, 9, ns("2026-03-02")) == Result.INSUFFICIENT_POINTS
    desk.earn("b", 5)
    assert desk.coins.order(b"o" * 16, ANN, 9, ns("2026-03-02")) == Result.INSUFFICIENT_POINTS
    other = desk.coins.order(b"o" * 16, ANN, 8, ns("2026-03-02"))
    assert other == Result.EXISTS_WITH_DIFFERENT_POINTS
