"""What each message of an order came to, told from the store: the same as the book answered."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from pipeline.model.identifiers import id_text
from pipeline.run.accrue import AccrualReport
from pipeline.run.answers import answered, order_counts
from pipeline.run.explain import explain_id
from pipeline.run.requests import answer
from tests.run.accruing import HOLD_DAYS
from tests.score.making import KEYS, an_id

HELD = HOLD_DAYS + 1


def asked(world):
    return SimpleNamespace(keys=KEYS, clickhouse=world.store)


def spend(world):
    """Orders of every kind at two cuts; what the book answered at both."""
    world.arrive()
    world.buy()
    world.order("early", 20)
    told = Counter(world.cut(HELD).orders)
    for ref, points in (("a", 20), ("a", 20), ("a", 30), ("b", 31), ("b", 31), ("c", 0)):
        world.order(ref, points)
    world.order("early", 20)
    told.update(world.cut(60).orders)
    return told


def test_answers_told_from_the_store_are_those_of_the_book(world):
    told = spend(world)
    assert len(told) == 6
    assert order_counts(asked(world)) == told
    rows = answered(asked(world))
    assert [(row["ref"], row["answer"]) for row in rows] == [
        ("early", "unknown_member"),
        ("a", "ok"),
        ("a", "exists"),
        ("a", "exists_with_different_points"),
        ("b", "insufficient_points"),
        ("b", "insufficient_points"),
        ("c", "not_positive"),
        ("early", "unknown_member"),
    ]


@pytest.mark.slow
def test_an_order_after_the_last_cut_waits(world):
    spend(world)
    world.order("late", 1)
    world.make_cut(61)
    world.store.project(world.journal)
    assert answered(asked(world))[-1]["answer"] == "waiting"


@pytest.mark.slow
def test_a_job_run_again_changes_no_answer(world):
    told = spend(world)
    world.accrue(world.make_cut(61))
    world.journal.seal()
    assert order_counts(asked(world)) == told


@pytest.mark.slow
def test_explain_says_what_each_message_of_a_command_came_to(world):
    spend(world)
    chain = explain_id(asked(world), id_text(an_id("a")))
    assert [link.facts["answer"] for link in chain] == [
        "ok",
        "exists",
        "exists_with_different_points",
    ]
    assert "of 20 points" in chain[0].text
    assert chain[0].text.endswith("accepted")
    assert "of 30 points" in chain[2].text
    assert "refused: this was asked for before" in chain[2].text
    (refused,) = explain_id(asked(world), id_text(an_id("c")))
    assert refused.text.endswith("refused: points must be more than none")


def accrue_said(orders, **request):
    """What `job accrue` says of a cut at which nothing but orders came."""
    report = AccrualReport(2, "cut-2", 0, 0, False, orders=orders)
    cut = SimpleNamespace(number=[2], name=SimpleNamespace(text=lambda _: "cut-2"), now_ns=[0])
    state = SimpleNamespace(
        keys=SimpleNamespace(test=False),
        cuts=list,
        take_due_rulebook=lambda _: None,
        make_cut=lambda *_: cut,
        accrue=lambda *_: report,
    )
    return answer(state, {"do": "job", "name": "accrue", "actor": "tests", **request}).decode()


def test_job_accrue_tells_what_orders_came_to():
    orders = {"ok": 1, "not_positive": 3}
    assert accrue_said(orders).splitlines() == [
        "cut 2 (cut-2)",
        "          3  order: not_positive",
        "          1  order: ok",
    ]
    assert json.loads(accrue_said(orders, json=True))["orders"] == orders
    assert "nothing changed" in accrue_said({})
