"""Accrual at cuts: stories of one conversion, orders, rules, repeats, losses, kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.words import AmountMode, BindingKind, OrderBy, Status
from pipeline.run.accrue import accrue, compare_with_book, deliver_outbox
from pipeline.run.rating import AccrualError
from pipeline.store.sink import SinkError
from tests.need import REPOSITORY
from tests.run.accruing import HOLD_DAYS, RULES, World, told_at
from tests.score.making import DAY_NS, NOON, a_contract, a_partner, a_rulebook, an_accrual

FEW = settings(max_examples=min(10, settings.default.max_examples))
HELD = HOLD_DAYS + 1


# One conversion over its life


@pytest.mark.slow
def test_what_is_approved_is_held_and_comes_due_without_a_word(world):
    world.arrive()
    world.buy()
    report = world.cut(1)
    assert (report.results, report.reasons) == ({"ok": 1}, {"held": 1})
    assert world.points() == (50, 0, 0)
    assert world.cut(2).conversions == 0
    report = world.cut(HELD)
    assert (report.results, report.reasons) == ({"ok": 1}, {"awarded": 1})
    assert world.points() == (0, 50, 0)
    assert world.cut(HELD + 1).conversions == 0
    assert compare_with_book(world.store, world.book) == []


@pytest.mark.slow
def test_amended_declined_and_approved_again(world):
    world.arrive()
    world.buy()
    world.cut(HELD)
    steps = [
        ({"status": Status.ADJUSTED, "amount_minor": 600}, 30),
        ({"status": Status.ADJUSTED, "amount_minor": 1000}, 50),
        ({"status": Status.DECLINED, "amount_mode": AmountMode.DELTA, "amount_minor": 0}, 0),
        ({"status": Status.APPROVED, "amount_mode": AmountMode.DELTA, "amount_minor": 0}, 50),
    ]
    for minutes, (change, points) in enumerate(steps, start=2):
        world.buy(**change, **told_at(minutes))
        assert world.cut(HELD + minutes).results == {"ok": 1}
        assert world.points() == (0, points, 0)
    assert world.outcome() == ("ok", "awarded", 50)
    assert compare_with_book(world.store, world.book) == []


def test_a_late_pending_changes_nothing(world):
    world.arrive()
    world.buy(status_ns=NOON + 10, message_id="approved")
    world.cut(HELD)
    world.buy(status=Status.PENDING, status_ns=NOON + 5, message_id="late")
    assert world.cut(HELD + 1).results == {"exists": 1}
    assert world.points() == (0, 50, 0)


def test_an_orphan_finds_its_click_when_that_arrives(world):
    world.buy()
    assert world.cut(HELD).reasons == {"orphan": 1}
    world.add("visits", {})
    assert world.cut(HELD).conversions == 0
    world.add("clicks", {})
    assert world.cut(HELD).reasons == {"awarded": 1}
    assert world.points() == (0, 50, 0)


def test_a_binding_that_arrives_late_leads_an_own_shops_purchase_home(world):
    shop = {"partner": "corner-books"}
    world.add("visits", {**shop, "visit_id": "to the shop"})
    address = {"match_hash": "address", "match_ns": NOON, "click_id": ""}
    world.buy(**shop, **address)
    assert world.cut(HELD).reasons == {"orphan": 1}
    world.add("bindings", {"event_ns": NOON - 3600 * 10**9})
    assert world.cut(HELD).reasons == {"awarded": 1}
    world.add("bindings", {"event_ns": NOON - 1, "kind": BindingKind.END, "subscriber_id": ""})
    assert world.cut(HELD).reasons == {"orphan": 1}
    assert world.points() == (0, 0, 0)


def test_a_visit_that_turns_out_ambiguous_takes_the_award_back(world):
    world.arrive()
    world.buy()
    world.cut(HELD)
    world.add("visits", {"version": 2, "ambiguous": 1})
    assert world.cut(HELD).reasons == {"ambiguous": 1}
    assert world.points() == (0, 0, 0)


# Orders


def test_orders_come_before_the_targets_of_their_cut(world):
    world.arrive()
    world.buy()
    world.order("too early", 20)
    assert world.cut(HELD).orders == {"unknown_member": 1}
    world.order("in time", 20)
    world.order("too much", 31)
    report = world.cut(60)
    assert report.orders == {"ok": 1, "insufficient_points": 1}
    assert world.points() == (0, 30, 0)
    assert world.cut(61).orders == {}


@pytest.mark.slow
def test_points_spent_before_a_decline_become_debt_and_the_next_award_clears_it(world):
    world.arrive()
    world.buy()
    world.cut(HELD)
    world.order("o", 45)
    world.cut(60)
    world.buy(status=Status.DECLINED, **told_at(9))
    world.cut(61)
    assert world.points() == (0, 0, 45)
    world.buy("C-2", message_id="other")
    world.cut(62)
    assert world.points() == (0, 5, 0)
    assert compare_with_book(world.store, world.book) == []


# Again


def everything(world) -> tuple:
    return world.end(), world.store.rows("SELECT count() FROM conversions_log")


def test_a_finished_cut_may_be_run_again(world):
    world.arrive()
    world.buy()
    first = world.make_cut(1)
    world.accrue(first)
    world.buy("C-2", message_id="other")
    last = world.make_cut(HELD)
    done = world.accrue(last)
    before = everything(world)
    assert world.accrue(last).results == {"exists": done.conversions}
    assert world.accrue(first).results == {"stale": 1}
    assert everything(world) == before
    assert world.store.rows("SELECT count(), countIf(result = 'ok') FROM conversions") == [(2, 2)]


@pytest.mark.slow
def test_a_cut_delivered_once_more_is_stale_or_known(world):
    world.arrive()
    world.buy()
    first = world.make_cut(1)
    world.accrue(first)
    world.buy(status=Status.ADJUSTED, amount_minor=600, **told_at(2))
    world.buy("C-2", message_id="other")
    second = world.make_cut(HELD)
    world.accrue(second)
    before = world.points(), world.outcome()
    assert world.cut(repeat=second).results == {"exists": 2}
    assert world.cut(repeat=first).results == {"stale": 1}
    assert (world.points(), world.outcome()) == before
    world.buy(status=Status.DECLINED, **told_at(3))
    assert world.cut(HELD + 1).conversions == 1, "the cut before is the last that was no repeat"
    assert compare_with_book(world.store, world.book) == []


def test_what_the_store_lost_is_folded_whole(world):
    """Outcomes are not in the journal; what is held may not be forgotten with them."""
    world.arrive()
    world.buy()
    world.cut(1)
    world.store.execute("TRUNCATE TABLE conversions_log")
    report = world.cut(HELD)
    assert report.whole
    assert report.reasons == {"awarded": 1}
    world.buy("C-2", message_id="other")
    report = world.cut(HELD + 1)
    assert (report.whole, report.conversions) == (False, 1), "from a whole one on it is enough"


def test_a_store_that_was_lost_is_delivered_again(world):
    world.arrive()
    world.buy()
    world.cut(HELD)
    for log in ("entries", "conversions", "runs", "visits", "clicks", "purchases", "cuts"):
        world.store.execute(f"TRUNCATE TABLE {log}_log")
    world.store._complete.clear()
    report = world.cut(HELD + 1)
    assert (report.whole, report.results) == (True, {"exists": 1})
    assert compare_with_book(world.store, world.book) == []
    assert world.outcome() == ("exists", "awarded", 50)


# Rules


def other_rules(rate: Fraction):
    return a_rulebook(a_partner(accruals=(an_accrual(rate=rate),)))


def test_a_conversion_stays_with_its_first_rule(world):
    world.arrive()
    world.buy()
    world.cut(HELD)
    world.use(other_rules(Fraction(10, 100)))
    world.buy("C-2", message_id="other")
    report = world.cut(HELD + 1)
    assert (report.whole, report.rerated) == (True, 1)
    assert report.results == {"ok": 1, "exists": 1}
    assert world.outcome("C-1") == ("exists", "awarded", 50)
    assert world.outcome("C-2") == ("ok", "awarded", 100)
    world.buy(amount_minor=600, **told_at(5))
    report = world.cut(HELD + 2)
    assert (report.results, report.rerated) == ({"ok": 1}, 1)
    assert world.points() == (0, 130, 0)
    assert compare_with_book(world.store, world.book) == []


GONE = {
    "the partner": a_rulebook(a_partner("corner-books", click_delivery="match")),
    "its accrual": a_rulebook(a_partner(accruals=())),
    "the accrual's time": a_rulebook(a_partner(accruals=(an_accrual(valid_until_ns=NOON),))),
    "the contract's time": a_rulebook(a_partner(valid_until_ns=NOON)),
}


@pytest.mark.slow
@pytest.mark.parametrize("later", GONE.values(), ids=GONE)
def test_what_was_granted_stays_when_its_rule_is_gone(world, later):
    world.arrive()
    world.buy()
    world.buy("C-2", status=Status.PENDING, message_id="other")
    world.cut(HELD)
    before = world.book.balances()
    world.use(later)
    report = world.cut(HELD + 1)
    assert (report.results, report.rerated) == ({"exists": 2}, 2)
    assert world.book.balances() == before
    world.buy("C-2", **told_at(9))
    world.buy(status=Status.DECLINED, **told_at(9))
    world.cut(HELD + 2)
    assert world.outcome("C-1") == ("ok", "declined", 0)
    assert world.outcome("C-2") == ("ok", "awarded", 50)
    assert compare_with_book(world.store, world.book) == []


EDITED = {
    "a longer return window": a_rulebook(a_partner(return_window_ns=60 * DAY_NS)),
    "a lower commission": a_rulebook(a_partner(commission=Fraction(6, 100))),
    "a shorter attribution window": a_rulebook(a_partner(attribution_window_ns=10**9)),
    "a dearer point": a_rulebook(issue_price=Fraction(2, 100)),
}


@pytest.mark.slow
@pytest.mark.parametrize("later", EDITED.values(), ids=EDITED)
def test_other_terms_are_for_later_conversions(world, later):
    world.arrive()
    world.buy()
    world.cut(HELD)
    before = world.book.balances()
    world.use(later)
    report = world.cut(HELD + 1)
    assert (report.results, report.rerated) == ({"exists": 1}, 1)
    assert world.book.balances() == before
    world.buy("C-2", message_id="other")
    world.cut(HELD + 2)
    first, second = world.worth("C-1"), world.worth("C-2")
    assert first == (50, 80, 50)
    assert second != first


def test_a_rulebook_that_changes_nothing_here_rates_nothing_again(world):
    world.arrive()
    world.buy()
    world.cut(HELD)
    ends = a_contract(valid_until_ns=NOON + 400 * DAY_NS, terms="terms-2")
    world.use(a_rulebook(a_partner(contracts=(ends,)), a_partner("new-shop")))
    report = world.cut(HELD + 1)
    assert (report.whole, report.rerated, report.results) == (True, 0, {"exists": 1})


def test_within_the_first_rulebook_the_rule_follows_the_facts(world):
    old = an_accrual(id="old", rate=Fraction(10, 100), valid_until_ns=NOON)
    world.use(a_rulebook(a_partner(accruals=(old, an_accrual(valid_from_ns=NOON)))))
    world.arrive()
    world.buy()
    world.cut(HELD)
    assert world.points() == (0, 50, 0)
    world.buy(event_ns=NOON - 10**9, **told_at(0))
    world.cut(HELD + 1)
    assert world.points() == (0, 100, 0)
    assert world.book.audit() == []


@pytest.mark.slow
@pytest.mark.parametrize("cut_between", [True, False])
def test_a_message_that_is_silent_about_the_action_leaves_it(world, cut_between):
    lead = an_accrual(id="lead", kind="fixed", action="lead", points=7)
    world.use(a_rulebook(a_partner(accruals=(an_accrual(), lead))))
    world.arrive()
    world.buy(kind="lead", status=Status.PENDING)
    if cut_between:
        world.cut(1)
    world.buy(kind="", **told_at(2))
    world.cut(HELD)
    assert world.points() == (0, 7, 0)
    world.buy(kind="", status=Status.DECLINED, **told_at(3))
    world.cut(HELD + 1)
    assert world.points() == (0, 0, 0)


def test_what_was_done_is_told_where_no_message_says_it(world):
    world.use(a_rulebook(a_partner(accruals=(an_accrual(action="sale"),))))
    world.arrive()
    world.buy(kind="")
    world.cut(HELD)
    assert world.store.rows("SELECT kind FROM conversions") == [("sale",)]


def test_a_rulebook_that_is_not_known_is_named(world):
    world.arrive()
    world.buy()
    world.cut(HELD)
    world.use(other_rules(Fraction(10, 100)))
    cut = world.make_cut(HELD + 1)
    del world.rulebooks[RULES.hash]
    with pytest.raises(AccrualError, match="of 1 conversions is not known"):
        world.accrue(cut)
    world.rulebooks.clear()
    with pytest.raises(AccrualError, match="of cut 2 is not known"):
        world.accrue(cut)


# Nothing is paid on doubtful ground


def test_nothing_is_posted_where_store_and_journal_disagree(world):
    world.arrive()
    world.buy()
    cut = world.make_cut(HELD)
    world.store.project(world.journal)
    world.store.execute(
        "ALTER TABLE purchases_log UPDATE row_hash = 1 WHERE 1 SETTINGS mutations_sync = 2"
    )
    with pytest.raises(SinkError, match=r"purchases: segment 0 \(rows 0 to 0\)"):
        world.accrue(cut)
    assert world.book.balances() == {}
    assert not world.book.cut_done(1)


def test_a_cut_ahead_of_the_journal_is_refused(world):
    world.arrive()
    cut = world.make_cut(1)
    ahead = cut.with_columns(position=type(cut.position).of(['{"visits": 2}']))
    with pytest.raises(AccrualError, match="ahead of the journal"):
        world.accrue(ahead)


def test_what_came_after_the_cut_does_not_count(world):
    world.arrive()
    world.buy()
    cut = world.make_cut(HELD)
    world.buy(status=Status.DECLINED, **told_at(9))
    world.add("visits", {"version": 2, "ambiguous": 1})
    assert world.accrue(cut).reasons == {"awarded": 1}
    assert world.cut(HELD).reasons == {"ambiguous": 1}


# What is written down


def test_a_run_is_written_down_with_its_counts(world):
    world.arrive()
    world.buy()
    report = world.cut(1)
    ((state, actor, cut, conversions, counts),) = world.store.rows(
        "SELECT state, actor, cut, conversions, counts FROM runs"
    )
    assert (state, actor, cut, conversions) == ("done", "tests", 1, 1)
    assert json.loads(counts)["results"] == report.results
    (run,) = world.book.runs()
    assert (run.kind, run.outcome) == ("accrue", "done")
    assert world.book.cut_done(1)


def test_an_outcome_tells_what_was_known_and_by_which_rule(world):
    world.arrive()
    world.buy(commission_minor=90)
    world.cut(HELD)
    (row,) = world.store.dicts("SELECT * FROM conversions")
    (accrual,) = RULES.partner("acme-shop").accruals
    assert bytes.fromhex(row["rule_version"].replace("-", "")) == accrual.version
    assert (row["rule_id"], row["contract_version"]) == ("sale", "c-1")
    assert (row["amount_minor"], row["commission_minor"]) == (1000, 90)
    assert (row["receivable_minor"], row["cost_minor"], row["margin_minor"]) == (90, 50, 40)
    assert row["click_id"] == row["cause_id"]
    assert json.loads(row["explanation"])


def test_progress_is_told_and_nothing_is_printed(world, capfd):
    world.arrive()
    world.buy()
    cut, told = world.make_cut(1), []
    accrue(
        world.journal, world.store, world.book, world.rulebooks, cut,
        run_id=bytes(16), actor="tests", progress=told.append,
    )  # fmt: skip
    assert told[0] == "delivering the journal"
    assert told[-2:] == ["booking 1 of 1 conversions", "ending what is due"]
    assert capfd.readouterr() == ("", "")


# The store and the book


def test_entries_go_out_once(world):
    world.arrive()
    world.buy()
    assert world.cut(HELD).entries == len(world.book.entries(0)) > 0
    assert world.book.undelivered() is None
    assert deliver_outbox(world.store, world.book) == 0
    world.store.execute("TRUNCATE TABLE entries_log")
    assert deliver_outbox(world.store, world.book) == len(world.book.entries(0))
    assert compare_with_book(world.store, world.book) == []


SPOILED = [
    ("entries_log UPDATE amount = amount + 1 WHERE sequence = 1", "balance of"),
    ("entries_log UPDATE actor = 'eve' WHERE sequence = 2", "another entry 2 than the book"),
    ("entries_log DELETE WHERE sequence = 1", "in the book, "),
    ("conversions_log UPDATE points = 7 WHERE 1", "accrual sent 7 points"),
    ("conversions_log DELETE WHERE 1", "its entries come to 50"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "said"), SPOILED)
def test_a_store_that_is_not_as_the_book_is_noticed(world, change, said):
    world.arrive()
    world.buy()
    world.cut(HELD)
    assert compare_with_book(world.store, world.book) == []
    world.store.execute(f"ALTER TABLE {change} SETTINGS mutations_sync = 2")
    found = compare_with_book(world.store, world.book)
    assert any(said in line for line in found), found


# Any order, anywhere killed

amounts = st.integers(0, 3).map(lambda n: n * 500)
messages = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(Status), amounts, st.integers(1, 4)),
    min_size=1,
    max_size=7,
)


def sent(world: World, number: int, message) -> None:
    key, status, amount, minutes = message
    told = {"status_ns": told_at(minutes)["status_ns"], "message_id": f"line {number}"}
    world.buy(key, status=status, amount_minor=amount, **told)


@pytest.mark.slow
@FEW
@given(messages, st.data())
def test_in_any_order_over_any_cuts_the_ledger_ends_the_same(
    new_store, tmp_path_factory, told, data
):
    shuffled = data.draw(st.permutations(list(enumerate(told))))
    cut_after = data.draw(st.integers(0, len(told)))
    ends = []
    for order, half in ((list(enumerate(told)), len(told)), (shuffled, cut_after)):
        world = World(tmp_path_factory.mktemp("order"), new_store())
        world.arrive()
        for place, (number, message) in enumerate(order):
            if place == half:
                world.cut(HELD)
            sent(world, number, message)
        world.cut(HELD)
        assert compare_with_book(world.store, world.book) == []
        assert world.book.audit() == []
        ends.append((world.book.ledger_hash(), world.points()))
        world.close()
    assert ends[0] == ends[1]


def test_messages_without_sender_time_are_folded_as_they_arrive(world):
    world.arrive()
    by_arrival = {"order_by": OrderBy.ARRIVAL, "status_ns": 0}
    for n, amount in enumerate((1000, 600, 1000)):
        world.buy(amount_minor=amount, message_id=f"line {n}", **by_arrival)
    world.cut(HELD)
    assert world.points() == (0, 50, 0)


def killed(folder: Path, crash: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.run.accruing", str(folder)],
        env=os.environ | {"MIRRORPOINT_CRASH": crash, "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[list, dict[str, int]]:
    """How the story ends when nobody disturbs it, and how often each crash point is passed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert killed(folder, f"count:{folder / 'passes'}") == 0
    return json.loads((folder / "end.json").read_text()), json.loads(
        (folder / "passes").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("accrue.before_post", 2),
        ("accrue.before_done", 2),
        ("book.before_commit", 3),
        ("book.after_commit", 2),
        ("project.half_insert", 9),
        ("project.after_insert", 6),
        ("outbox.before_insert", 2),
        ("outbox.after_insert", 1),
    ],
)
def test_killed_anywhere_the_story_ends_the_same(undisturbed, tmp_path, point, nth):
    end, passes = undisturbed
    assert passes[point] >= nth
    assert killed(tmp_path, f"{point}:{nth}") == -signal.SIGKILL
    assert killed(tmp_path, "") == 0
    assert json.loads((tmp_path / "end.json").read_text()) == end
