"""Re-rating: the difference is shown, approved by another, booked as approved, and explained."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pipeline.ledger.targets import Target
from pipeline.model.identifiers import NO_ID, id_text, parse_id
from pipeline.model.times import show_time
from pipeline.model.words import Status, TargetState
from pipeline.run.accrue import compare_with_book
from pipeline.run.explain import explain_id
from pipeline.run.failures import RequestError
from pipeline.run.requests import answer
from pipeline.run.rerate import Choice, Worths
from pipeline.run.rerate_job import compared
from pipeline.run.state import State
from pipeline.store.crash import Crash, crashing
from tests.run.accruing import HOLD_DAYS, RULES, told_at
from tests.score.making import DAY_NS, KEYS, NOON, a_partner, a_rulebook, an_accrual, an_id
from tests.store.store_rows import SECOND, batch_of_rows

HELD = HOLD_DAYS + 1
DOUBLE = a_rulebook(a_partner(accruals=(an_accrual(rate=Fraction(10, 100)),)))
HALF = a_rulebook(a_partner(accruals=(an_accrual(rate=Fraction(5, 200)),)))


class Office:
    """A state whose rules were changed after purchases; ann and bob are members, eve asks."""

    def __init__(self, folder, rulebook=RULES) -> None:
        self.state = State(folder, KEYS, rulebook, clickhouse_url="chdb://:memory:",
                           database=f"office_{folder.name}".replace("-", "_").lower()[:60])  # fmt: skip
        self.state.use_rulebook(rulebook, NOON)
        self.add("visits", {"last_ns": NOON - 60 * SECOND})

    def add(self, stream: str, *rows: dict) -> None:
        self.state.journal.append(stream, batch_of_rows(stream, list(rows)))

    def buy(self, key: str = "C-1", minutes: int = 1, who: str = "ann", **changes) -> None:
        click = f"click of {key}"
        if "again" not in changes:
            self.add("clicks", {"click_id": click, "subscriber_id": who})
        changes.pop("again", None)
        row = {"conversion_key": key, "conversion_id": key, "click_id": click, **told_at(minutes)}
        self.add("purchases", {**row, "message_id": f"{key} {minutes}", **changes})

    def use(self, rulebook) -> None:
        self.state.use_rulebook(rulebook, NOON)

    def cut(self, days: float):
        number = len(self.state.cuts()) + 1
        return self.state.accrue(
            self.state.make_cut(number, f"cut-{number}", NOON + int(days * DAY_NS), None), "tests"
        )

    def ask(self, **request) -> dict[str, Any]:
        said = {"do": "job", "name": "rerate", "json": True, "actor": "eve", "role": "admin"}
        return json.loads(answer(self.state, said | {"reason": "agreed with the shop"} | request))

    def decide(self, request: str, kind: str = "approve", actor: str = "mia") -> None:
        body = {"request": request}
        self.state.command(kind, f"{kind} {request} {actor}", body, actor, NOON, role="approver")

    def points(self, who: str = "ann") -> tuple[int, int]:
        found = self.state.book.member(an_id(who))
        return found.pending, found.available

    def kinds(self, key: str) -> list[str]:
        return self.state.book.entries_of(an_id(key)).kind.to_list()

    def pins(self, *keys: str) -> list[bytes]:
        pinned = self.state.book.pinned([an_id(key) for key in keys])
        return [pinned[an_id(key)].rulebook_hash for key in keys]


@pytest.fixture
def office(tmp_path):
    found = Office(tmp_path)
    yield found
    assert compare_with_book(found.state.clickhouse, found.state.book) == []
    assert found.state.book.audit() == []
    found.state.close()


def sold(office: Office) -> None:
    """C-1 of ann is there, C-2 of bob waits, C-3 of ann was declined; then the rules change."""
    office.buy()
    office.buy("C-3", 2, status=Status.DECLINED)
    office.buy("C-2", 3, who="bob", status=Status.PENDING)
    office.cut(HELD)
    office.use(DOUBLE)
    office.cut(HELD + 1)
    assert (office.points(), office.points("bob")) == ((0, 50), (50, 0))


def test_the_difference_is_shown_per_member_and_in_sum(office):
    sold(office)
    told = office.ask(dry_run=True)
    assert (told["conversions"], told["changed"]) == (3, 2)
    assert (told["points"], told["more"], told["less"]) == (100, 100, 0)
    each = {(id_text(an_id("ann")), 50), (id_text(an_id("bob")), 50)}
    assert {tuple(row) for row in told["members"]} == each
    assert told["money"] == [["acme-shop", "EUR", 50, -50]], "of what has left the hold"
    assert "trial" in told["said"]
    assert office.state.journal.rows("commands") == 0


def test_what_another_person_approved_is_booked(office):
    sold(office)
    told = office.ask()
    assert office.cut(HELD + 2).orders == {"awaiting_approval": 1}
    (waits,) = office.state.book.awaiting()
    assert (waits.kind, waits.points, waits.actor) == ("rerate", 100, "eve")
    office.decide(told["request"], actor="eve")
    assert office.cut(HELD + 3).orders == {"same_person": 1}
    assert office.points() == (0, 50)
    office.decide(told["request"])
    report = office.cut(HELD + 4)
    assert report.reratings == [{"request": told["request"], "booked": 3, "left_out": 0}]
    assert (office.points(), office.points("bob")) == ((0, 100), (100, 0))
    assert office.kinds("C-1")[-6:] == ["re_rate"] * 2 + ["settle"] * 4
    assert office.pins("C-1", "C-2", "C-3") == [DOUBLE.hash] * 3
    office.buy("C-2", 9, who="bob", again=True)
    assert office.cut(HELD + 5).results == {"ok": 1}
    assert office.points("bob") == (0, 100), "it stays with the rules it was rated again by"
    office.decide(told["request"], actor="zoe")
    assert office.cut(HELD + 6).orders == {"closed_order": 1}


def test_points_are_taken_back_too(office):
    office.buy()
    office.cut(HELD)
    office.use(HALF)
    told = office.ask()
    assert (told["more"], told["less"]) == (0, -25)
    office.decide(told["request"])
    office.cut(HELD + 1)
    assert office.points() == (0, 25)


def test_what_has_changed_meanwhile_is_left_out_and_told(office):
    sold(office)
    told = office.ask()
    office.buy("C-1", 9, again=True, amount_minor=2000)
    office.decide(told["request"])
    report = office.cut(HELD + 2)
    assert report.reratings == [{"request": told["request"], "booked": 2, "left_out": 1}]
    assert office.points() == (0, 100), "twenty euros by the rules of the first time"
    assert office.points("bob") == (100, 0)
    assert office.pins("C-1", "C-2") == [RULES.hash, DOUBLE.hash]
    assert set(office.kinds("C-1")) & {"re_rate"} == set()


def test_a_partner_and_a_time_may_be_chosen(office):
    office.buy(event_ns=NOON)
    office.buy("C-2", 2, event_ns=NOON + 3600 * SECOND)
    office.buy("C-3", 3, event_ns=NOON + 7200 * SECOND)
    office.cut(HELD)
    office.use(DOUBLE)
    bounds = {"since": show_time(NOON + SECOND), "until": show_time(NOON + 7200 * SECOND)}
    told = office.ask(partner="acme-shop", **bounds)
    assert told["conversions"] == 1
    office.decide(told["request"])
    office.cut(HELD + 1)
    assert office.pins("C-1", "C-2", "C-3") == [RULES.hash, DOUBLE.hash, RULES.hash]
    assert office.points() == (0, 200)


def test_a_re_rating_is_refused_by_its_approver(office):
    sold(office)
    told = office.ask()
    office.decide(told["request"], "reject")
    report = office.cut(HELD + 2)
    assert report.reratings == []
    assert office.pins("C-1") == [RULES.hash]


def test_what_reads_otherwise_than_when_it_was_proposed_is_not_booked(office):
    """A body that somebody made, not the job: the digest is not of these rows."""
    sold(office)
    body = {"rulebook": id_text(DOUBLE.hash), "cut": 2, "partner": "", "since": 0, "until": 0}
    for ref, digest in (("a", "00" * 16), ("b", None)):
        said = {**body, "digest": digest, "reason": "x"} if digest else {"reason": "x"}
        office.state.command("rerate", ref, said, "eve", NOON, role="admin")
    office.cut(HELD + 2)
    for waits in office.state.book.awaiting():
        office.decide(id_text(waits.request_id))
    report = office.cut(HELD + 3)
    assert [each["refused"] for each in report.reratings] == [
        "it reads otherwise than when it was proposed"
    ] * 2
    assert (office.points(), office.pins("C-1")) == ((0, 50), [RULES.hash])


@pytest.mark.parametrize("point", ["accrue.before_post", "book.after_commit", "accrue.before_done"])
def test_a_job_that_dies_on_the_way_is_run_again(office, point):
    sold(office)
    told = office.ask()
    office.decide(told["request"])
    cut = office.state.make_cut(3, "cut-3", NOON + (HELD + 2) * DAY_NS, None)
    nth = {"accrue.before_post": 1, "book.after_commit": 3, "accrue.before_done": 1}[point]
    with pytest.raises(Crash), crashing(point, nth):
        office.state.accrue(cut, "tests")
    report = office.state.accrue(cut, "tests")
    assert report.reratings == [{"request": told["request"], "booked": 3, "left_out": 0}]
    assert (office.points(), office.points("bob")) == ((0, 100), (100, 0))
    before = office.state.book.ledger_hash()
    again = office.state.make_cut(4, "cut-4", 0, cut)
    assert office.state.accrue(again, "tests").reratings == []
    assert office.state.book.ledger_hash() == before


def test_caps_count_what_is_not_chosen(tmp_path):
    """Of a budget of 80, C-1 holds 50 whatever is chosen; C-2 gets what is left."""
    first = a_rulebook(a_partner(accruals=(an_accrual(budget=80, budget_policy="truncate"),)))
    more = an_accrual(budget=80, budget_policy="truncate", rate=Fraction(10, 100))
    office = Office(tmp_path, first)
    office.buy(event_ns=NOON)
    office.buy("C-2", 2, event_ns=NOON + 3600 * SECOND)
    office.cut(HELD)
    assert office.points() == (0, 80)
    office.use(a_rulebook(a_partner(accruals=(more,))))
    told = office.ask(since=show_time(NOON + SECOND))
    assert (told["conversions"], told["points"]) == (1, 0)
    told = office.ask(until=show_time(NOON + SECOND))
    assert (told["conversions"], told["points"]) == (1, 0), "C-2 holds 30 of 80"
    told = office.ask()
    assert (told["conversions"], told["points"]) == (2, 0)
    assert told["members"] == []
    office.state.close()


def test_what_cannot_be_asked(office):
    with pytest.raises(RequestError, match="no `job accrue`"):
        office.ask()
    office.buy()
    office.cut(HELD)
    assert "already" in office.ask()["said"]
    office.use(DOUBLE)
    for wrong, words in (
        ({"partner": "nobody"}, "no partner 'nobody'"),
        ({"since": "2026-03-02T00:00:00Z", "until": "2026-03-01T00:00:00Z"}, "--since has to"),
        ({"since": "yesterday"}, "--since 'yesterday' is not a time"),
        ({"reason": ""}, "--reason TEXT"),
    ):
        with pytest.raises(RequestError, match=words):
            office.ask(**wrong)
    assert office.state.journal.rows("commands") == 0


def test_people_read_it_in_eighty_columns_and_each_entry_is_explained(office):
    sold(office)
    text = office_text(office)
    assert max(map(len, text.splitlines())) <= 80
    assert "+100 PTS in sum" in text
    assert f"{id_text(an_id('ann'))}  +50 PTS" in text
    told = office.ask()
    office.decide(told["request"])
    office.cut(HELD + 2)
    entries = office.state.book.entries_of(an_id("C-1"))
    number = entries.kind.to_list().index("re_rate")
    assert entries.actor.to_list()[number] == "mia"
    assert entries.role.to_list()[number] == "approver"
    chain = explain_id(office.state, id_text(bytes(entries.entry_id[number])))
    words = "\n".join(link.text for link in chain)
    assert "The rules for the purchase at acme-shop" in words
    assert "50 points more" in words
    assert "asked for by eve: agreed with the shop" in words
    assert "approved by mia" in words
    assert parse_id(told["request"])


def office_text(office: Office) -> str:
    said = {"do": "job", "name": "rerate", "actor": "eve", "role": "admin", "dry_run": True}
    return answer(office.state, said).decode()


def test_differences_are_of_members_and_money():
    """C-1 goes from ann to bob with more points, C-2 only changes its money, C-3 is unknown."""

    def row(key: str, who: str, points: int, cost: int) -> Target:
        values = dict.fromkeys(Target._fields, 0) | dict.fromkeys(
            ("partner", "conversion_id", "currency", "rule_id", "contract_version", "explanation"),
            "",
        )
        ids_of = dict.fromkeys(("click_id", "visit_id", "rule_version", "rulebook_hash", "terms_hash"), NO_ID)  # fmt: skip
        values |= ids_of | {"conversion_key": an_id(key), "subscriber_id": an_id(who)}
        return Target(**values | {"points": points, "cost_minor": cost, "currency": "EUR"})

    held = {an_id("C-1"): row("C-1", "ann", 10, 10), an_id("C-2"): row("C-2", "ann", 7, 7)}
    keys = ("C-1", "C-2", "C-3")
    rows = Worths(
        np.array([an_id(key) for key in keys], "V16"),
        np.zeros(3, np.uint64),
        np.array([an_id(who) for who in ("bob", "ann", "ann")], "V16"),
        np.array([12, 7, 9]),
        ["acme-shop"] * 3,
        ["EUR"] * 3,
        np.zeros(3, np.int64),
        np.array([12, 6, 9]),
        np.zeros(3, np.int64),
        np.full(3, TargetState.AVAILABLE, np.uint8),
    )
    found = compared(rows, held)
    assert (found.conversions, found.changed, found.points) == (2, 2, 2)
    assert found.members == {an_id("ann"): -10, an_id("bob"): 12}
    assert found.money == {("acme-shop", "EUR"): (1, 0)}
    assert compared(rows, {}).conversions == 0


def test_the_digest_is_of_every_row_and_of_the_choice():
    def worths(**changes: Any) -> Worths:
        columns: dict[str, Any] = {
            "conversion_key": np.array([an_id("a"), an_id("b")], "V16"),
            "facts_hash": np.array([1, 2], np.uint64),
            "subscriber_id": np.array([an_id("ann"), an_id("bob")], "V16"),
            "points": np.array([1, 2]),
            "partner": ["x", "y"],
            "currency": ["EUR", ""],
            **{
                n: np.zeros(2, np.int64) for n in ("receivable_minor", "cost_minor", "margin_minor")
            },
            "state": np.zeros(2, np.uint8),
        }
        return Worths(**columns | changes)

    choice = Choice(3, an_id("rules"), "", 0, 0)
    first = worths().digest(choice)
    others = [
        worths(conversion_key=np.array([an_id("a"), an_id("c")], "V16")),
        worths(facts_hash=np.array([1, 3], np.uint64)),
        worths(subscriber_id=np.array([an_id("ann"), an_id("ann")], "V16")),
        worths(points=np.array([1, 3])),
        worths(partner=["x", "z"]),
        worths(currency=["EUR", "USD"]),
        *(worths(**{n: np.array([0, 1])}) for n in ("receivable_minor", "cost_minor")),
        worths(margin_minor=np.array([0, 1])),
        worths(state=np.array([0, 1], np.uint8)),
    ]
    found = {each.digest(choice) for each in others}
    found |= {worths().digest(choice._replace(**{name: value})) for name, value in (
        ("cut", 4), ("rulebook_hash", NO_ID), ("partner", "x"), ("since_ns", 1), ("until_ns", 1),
    )}  # fmt: skip
    assert len(found | {first}) == len(others) + 6
