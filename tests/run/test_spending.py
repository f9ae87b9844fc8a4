"""Spending that waits, members who owe, credits by hand: from the journal to `job review`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from pipeline.ledger.commands import SPENDING
from pipeline.model.identifiers import id_text
from pipeline.model.words import FraudOutcome, Status
from pipeline.rulebook.fraud import INSIDER
from pipeline.rulebook.policies import FraudCode
from pipeline.run.explain import explain_id
from pipeline.run.spending import burns, credits_by_hand, debts
from tests.commands import FIRST_DAY, HASHES, done, replayed
from tests.run.accruing import RULES
from tests.run.test_settle import Office
from tests.score.knowing import a_policy, with_fraud
from tests.score.making import DAY_NS, NOON, an_id

HOUR_NS = 3600 * 10**9
VELOCITY = FraudCode("VELOCITY", 100, FraudOutcome.HOLD, {"hour": 1, "day": 9})
LATER = NOON + 20 * DAY_NS  # a Saturday


def strict(**changes):
    policy = a_policy(NO_SESSION=None)
    return with_fraud(RULES, replace(policy, spending=(VELOCITY,), **changes))


@pytest.fixture
def office(tmp_path):
    found = Office(tmp_path, strict())
    found.buy("C-1")
    found.cut(15)
    yield found
    assert found.state.book.audit() == []
    assert found.state.book.money.problems() == []
    found.state.close()


def command(office, kind: str, ref: str, points: int = 0, at: int = LATER, **more) -> None:
    role = "member" if kind in SPENDING else "admin"
    row = {"command_id": ref, "ref": ref, "kind": kind, "points": points, "event_ns": at}
    row |= {"role": role}
    office.add("commands", {**row, **more})


def approve(office, ref: str, kind: str = "approve", actor: str = "eve") -> None:
    body = json.dumps({"request": id_text(an_id(ref))})
    command(office, kind, f"{kind} {ref}", body=body, actor=actor, subscriber_id="")


def available(office) -> int:
    return office.state.book.member(an_id("ann")).available


def test_the_second_order_within_the_hour_waits_and_says_why(office):
    had = available(office)
    command(office, "order", "o1", 5)
    command(office, "order", "o2", 7, LATER + HOUR_NS)
    command(office, "order", "o3", 9, LATER + 3 * HOUR_NS)
    assert office.cut(21).orders == {"ok": 2, "awaiting_approval": 1}
    assert available(office) == had - 14
    (waits,) = burns(office.state)
    said = "2 requests to spend within an hour, over 1"
    assert (waits["ref"], waits["points"], waits["command"]) == ("o2", 7, "order")
    assert waits["codes"] == [["VELOCITY", said, 100]]
    assert waits["member"] == id_text(an_id("ann"))
    text = office.ask("review")
    assert "spending that waits:" in text
    assert f"VELOCITY (100): {said}" in text
    assert max(map(len, text.splitlines())) <= 80
    chain = explain_id(office.state, waits["request"])
    assert any(f"waits for a second person (VELOCITY (100): {said})" in x.text for x in chain)
    assert [x for x in json.loads(office.ask("review", json=True)) if x["kind"] == "burn"] == [
        waits
    ]


def test_an_approval_books_it_at_the_next_cut(office):
    had = available(office)
    command(office, "order", "o1", 5)
    command(office, "order", "o2", 7, LATER + 1)
    office.cut(21)
    approve(office, "o2")
    assert office.cut(22).orders == {"ok": 1}
    assert available(office) == had - 12
    assert burns(office.state) == []
    assert "spending that waits" not in office.ask("review")


def test_a_rejection_refuses_it(office):
    had = available(office)
    command(office, "order", "o1", 5)
    command(office, "order", "o2", 7, LATER + 1)
    office.cut(21)
    approve(office, "o2", "reject", "dan")
    office.cut(22)
    assert (available(office), burns(office.state)) == (had - 5, [])


def test_the_same_cut_again_says_the_same(office):
    command(office, "order", "o1", 5)
    command(office, "order", "o2", 7, LATER + 1)
    office.cut(21)
    before = office.state.book.ledger_hash(), burns(office.state)
    office.state.accrue(office.state.cuts()[-1], "tests")
    number = len(office.state.cuts()) + 1
    repeat = office.state.make_cut(number, "again", 0, office.state.cuts()[-1])
    office.state.accrue(repeat, "tests")
    assert (office.state.book.ledger_hash(), burns(office.state)) == before


def test_the_store_is_told_again_why(office):
    command(office, "order", "o1", 5)
    command(office, "order", "o2", 7, LATER + 1)
    office.cut(21)
    asked = "SELECT command_id, result, doubt FROM answers_log ORDER BY place"
    before = office.state.clickhouse.rows(asked)
    assert [row[2] != "" for row in before] == [False, True]
    for name in ("answers_log", "rulebooks_log"):
        office.state.clickhouse.execute(f"TRUNCATE TABLE {name}")
    office.state._deliver_answers()
    assert office.state.clickhouse.rows(asked) == before


def test_without_a_fraud_table_nothing_waits(tmp_path):
    office = Office(tmp_path)
    office.buy("C-1")
    office.cut(15)
    for number in range(9):
        command(office, "order", f"o{number}", 1, LATER + number)
    assert office.cut(21).orders == {"ok": 9}
    office.state.close()


def test_who_owes_is_listed_with_what_was_taken_back(office):
    had = available(office)
    command(office, "order", "o1", had - 1)
    office.cut(21)
    assert debts(office.state) == []
    office.again("C-1", 30, status=Status.DECLINED)
    command(office, "order", "cash", 1, LATER + 5 * DAY_NS, body='{"redemption": "cash"}')
    office.cut(26)  # commands come before targets
    office.cut(27)
    (row,) = debts(office.state)
    assert (row["member"], row["points"]) == (id_text(an_id("ann")), had)
    assert row["codes"][0][0] == "LATE_REFUND"
    (cause,) = row["conversions"]
    assert (cause["conversion"], cause["points"]) == (id_text(an_id("C-1")), had)
    assert (cause["partner"], cause["conversion_id"]) == ("acme-shop", "C-1")
    text = office.ask("review")
    assert f"owes {had} PTS" in text
    assert "acme-shop C-1" in text
    for number, kind in enumerate(("order", "reserve", "convert_out")):
        command(office, kind, f"late {number}", 1, LATER + (8 + number) * DAY_NS,
                body='{"redemption": "cash", "programme": "miles"}')  # fmt: skip
    refused = office.cut(40).orders
    assert refused == {"insufficient_points": 2, "unknown_exchange": 1}


def adjust(office, ref: str, at: int, actor: str = "dan", points: int = 5, who: str = "ann"):
    command(office, "adjust", ref, points, at, actor=actor, subscriber_id=who,
            body='{"reason": "late"}')  # fmt: skip


def by_hand(tmp_path, **bounds) -> Office:
    code = replace(INSIDER, bounds={**INSIDER.bounds, **bounds})
    programme = replace(RULES.programme, manual_limit=1000)
    rules = replace(strict(insider=code), programme=programme)
    office = Office(tmp_path, rules)
    office.buy("C-1")
    office.cut(15)
    return office


MONDAY = NOON + 22 * DAY_NS


@pytest.mark.parametrize(("count", "told"), [(3, False), (4, True)])
def test_many_credits_to_one_member_are_reported(tmp_path, count, told):
    office = by_hand(tmp_path)
    for number in range(count):
        adjust(office, f"a{number}", MONDAY + number)
    adjust(office, "other", MONDAY, who="bob")
    adjust(office, "less", MONDAY, points=-1)
    adjust(office, "hers", MONDAY, actor="eve")
    office.cut(23)
    found = credits_by_hand(office.state)
    assert [(row["actor"], row["points"]) for row in found] == ([("dan", 20)] if told else [])
    if told:
        assert found[0]["codes"] == [
            ["INSIDER", "4 credits to one member within 30 days, over 3", 0]
        ]
        assert len(found[0]["commands"]) == 4
        assert "credits by hand:" in office.ask("review")
    assert office.cut(24).conversions == 0, "it blocks nothing"
    office.state.close()


@pytest.mark.parametrize(
    ("hour", "days", "odd"),
    [(7, 22, False), (6, 22, True), (19, 22, False), (20, 22, True), (12, 20, True)],
)
def test_credits_outside_working_hours_are_reported(tmp_path, hour, days, odd):
    office = by_hand(tmp_path)
    adjust(office, "a", NOON + (hour - 12) * HOUR_NS + days * DAY_NS)
    office.cut(23)
    found = credits_by_hand(office.state)
    said = [["INSIDER", "1 of 1 credits outside working hours", 0]]
    assert [row["codes"] for row in found] == ([said] if odd else [])
    office.state.close()


def test_credits_are_forgotten_and_refused_ones_never_told(tmp_path):
    office = by_hand(tmp_path, credits=0)
    adjust(office, "a", MONDAY)
    adjust(office, "waits", MONDAY, points=5000)
    adjust(office, "no", MONDAY, who="")
    office.cut(23)
    (row,) = credits_by_hand(office.state)
    assert row["commands"] == [str(an_id("a").hex())] or len(row["commands"]) == 1
    office.cut(22 + 31)
    assert credits_by_hand(office.state) == []
    office.state.close()


def test_weight_zero_reports_nothing(tmp_path):
    office = by_hand(tmp_path)
    off = replace(INSIDER, weight=0)
    adjust(office, "a", MONDAY + 12 * HOUR_NS)
    office.cut(23)
    assert credits_by_hand(office.state)
    policy = replace(office.state.rulebook.policy, fraud=a_policy())
    policy = replace(policy, fraud=replace(policy.fraud, insider=off))
    office.state.rulebook = replace(office.state.rulebook, policy=policy)
    assert credits_by_hand(office.state) == []
    office.state.close()


@pytest.mark.slow
def test_a_replay_of_the_journal_leaves_the_same_waiting(tmp_path):
    """Seven orders within an hour under the shipped rules, whichever way they are told again."""
    case = tmp_path / "case"
    shutil.copytree(FIRST_DAY, case)
    with (case / "orders.tsv").open("a") as orders:
        for minute in range(7):
            at = f"2026-04-20T10:{minute:02d}:00Z"
            orders.write(f"{at}\t{at}\tann@isp.example\tmany-{minute}\t1\n")
    text = (case / "case.toml").read_text()
    head, _, rest = text.partition("[expect]")
    (case / "case.toml").write_text(head + "[[cut]]" + rest.partition("[[cut]]")[2])
    first = replayed(case, state=tmp_path / "one")
    again = replayed(tmp_path / "one", state=tmp_path / "two")
    assert {name: first[name] for name in HASHES} == {name: again[name] for name in HASHES}
    assert first["orders"] == again["orders"]
    assert first["orders"]["awaiting_approval"] == 2
    waiting = []
    for state in ("one", "two"):
        told = json.loads(done("job", "review", "--state", tmp_path / state, "--json"))
        waiting.append([item for item in told if item["kind"] == "burn"])
    assert waiting[0] == waiting[1]
    assert [item["ref"] for item in waiting[0]] == ["many-5", "many-6"]
    assert "ok    book: every" in done("job", "audit", "--state", tmp_path / "one")
