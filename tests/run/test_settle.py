"""`job settle` and `job liability`: what a person of finance reads, on a state."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.model.words import Status
from pipeline.run.columns import aligned, grouped
from pipeline.run.failures import RequestError
from pipeline.run.requests import answer
from pipeline.run.state import State
from tests.commands import FIRST_DAY, done, mirrorpoint, replayed
from tests.run.accruing import RULES, told_at
from tests.score.making import DAY_NS, KEYS, NOON
from tests.store.store_rows import batch_of_rows


class Office:
    """A state whose store is in memory, and somebody who asks for reports."""

    def __init__(self, folder, rulebook=RULES) -> None:
        name = f"office_{folder.name}".replace("-", "_").lower()[:60]
        self.state = State(folder, KEYS, rulebook, clickhouse_url="chdb://:memory:", database=name)
        self.state.use_rulebook(rulebook, NOON)

    def add(self, stream: str, *rows: dict) -> None:
        self.state.journal.append(stream, batch_of_rows(stream, list(rows)))

    def buy(self, key: str, **changes: Any) -> None:
        name = f"click of {key}"
        self.add("clicks", {"click_id": name})
        row = {"conversion_key": key, "conversion_id": key, "click_id": name, **told_at(1)}
        self.add("purchases", {**row, "message_id": f"{key} {len(changes)}", **changes})

    def again(self, key: str, minutes: int, **changes: Any) -> None:
        row = {"conversion_key": key, "conversion_id": key, "click_id": f"click of {key}"}
        self.add("purchases", {**row, **told_at(minutes), "message_id": f"{key} {minutes}",
                               **changes})  # fmt: skip

    def cut(self, days: float):
        number = len(self.state.cuts()) + 1
        cut = self.state.make_cut(number, f"cut-{number}", NOON + int(days * DAY_NS), None)
        return self.state.accrue(cut, "tests")

    def ask(self, name: str, **request: Any) -> str:
        said = {"do": "job", "name": name, "actor": "eve", **request}
        return answer(self.state, said).decode()

    def json(self, name: str, **request: Any) -> dict:
        return json.loads(self.ask(name, json=True, **request))


@pytest.fixture
def office(tmp_path):
    found = Office(tmp_path)
    yield found
    assert found.state.book.audit() == []
    assert found.state.book.money.problems() == []
    found.state.close()


def test_commissions_less_reversals_less_points(office):
    """100.00 of commissions, 8.00 reversed: 92.00; points given worth 46.00: margin 46.00."""
    office.buy("big", commission_minor=9200, amount_minor=92000)
    office.buy("small", commission_minor=800, amount_minor=8000)
    office.cut(15)
    office.again("small", 30, status=Status.DECLINED)
    office.buy("waits", status=Status.PENDING, amount_minor=1000, commission_minor=333)
    office.cut(16)
    (row,) = office.json("settle")["statements"]
    assert row["confirmed"] == {"conversions": 2, "amount": "100.00"}
    assert row["reversed"] == {"conversions": 1, "amount": "-8.00"}
    assert row["carried_in"] == "0.00"
    assert row["carried_out"] == row["commissions"] == "92.00"
    given = int(row["points_given"])
    assert row["cost_of_points"] == f"{given / 100:.2f}"
    assert float(row["margin"]) == pytest.approx(92 - given / 100)
    assert row["expected"] == {"conversions": 1, "amount": "3.33", "contract_unknown": 0}
    text = office.ask("settle")
    assert "acme-shop, in EUR" in text
    assert "  confirmed       2  100.00" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_expected_by_contract(office):
    """The contract owes a share of the amount, rounded down for each conversion."""
    contract = RULES.partners[0].contracts[0]
    amounts = (1001, 1999, 12345)
    for number, amount in enumerate(amounts):
        office.buy(f"c{number}", status=Status.PENDING, amount_minor=amount)
    office.cut(1)
    (row,) = office.json("settle", period="2026-03")["statements"]
    wanted = sum(int(amount * contract.commission) for amount in amounts)
    wanted += 3 * int(contract.commission_fixed * 100)
    assert row["expected"]["amount"] == f"{wanted // 100}.{wanted % 100:02d}"
    assert row["expected"]["conversions"] == 3
    office.cut(40)  # they wait for the partner, however long
    assert office.json("settle", period="2026-03")["statements"] == [row]


def test_a_statement_of_a_period_that_is_over_stays(office):
    office.buy("early")
    office.cut(15)
    before = office.json("settle", period="2026-03")
    office.again("early", 30, status=Status.DECLINED)
    office.buy("late")
    office.cut(40)
    assert office.json("settle", period="2026-03") == before
    (row,) = office.json("settle")["statements"]
    assert row["carried_in"] == before["statements"][0]["carried_out"] != "0.00"
    assert row["late"]["conversions"] == row["reversed"]["conversions"] == 1


def test_totals_are_by_currency(office):
    office.buy("one", commission_minor=100)
    office.cut(15)
    told = office.json("settle")
    assert set(told["totals"]) == {"EUR"}
    assert told["totals"]["EUR"]["carried_out"] == "1.00"
    assert "partner" not in told["totals"]["EUR"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"period": "2026-13"}, "is not a month"),
        ({"period": "2026-03", "from": "2026-03-01"}, "give --period"),
        ({"from": "yesterday"}, "--from 'yesterday' is not a time"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "--to is not after --from"),
        ({"partner": "nobody", "period": "2026-03"}, "--partner 'nobody' is none of ours"),
    ],
)
def test_what_cannot_be_asked(office, request_, said):
    office.buy("one")
    office.cut(15)
    with pytest.raises(RequestError, match=said):
        office.ask("settle", **request_)


def test_before_anything_was_booked(office):
    with pytest.raises(RequestError, match="nothing has been booked"):
        office.ask("settle")
    with pytest.raises(RequestError, match="nothing has been booked"):
        office.ask("liability")


def test_a_partner_of_ours_may_have_nothing(office):
    office.buy("one")
    office.cut(15)
    assert "nothing was booked" in office.ask("settle", partner="corner-books")
    assert "acme-shop" in office.ask("settle", partner="acme-shop")


def test_times_instead_of_a_period(office):
    office.buy("one")
    office.cut(15)
    told = office.json("settle", **{"from": "2026-01-01", "to": "2027-01-01"})
    assert told["period"] == ""
    assert len(told["statements"]) == 1
    assert "booked from 2026-01-01T00:00:00Z" in office.ask("settle", **{"from": "2026-01-01"})
    assert office.json("settle", to="2026-01-01")["statements"] == []


def test_the_worth_of_points(office):
    office.buy("one", amount_minor=200_000)
    office.cut(15)
    points = office.state.book.liability_at(*[NOON + 15 * DAY_NS] * 2).available
    assert points
    told = office.json("liability")
    assert told["total"]["close"] == told["total"]["issued"] == str(points)
    assert told["value"] == f"{points / 100:.2f}"
    less = office.json("liability", lapse="20%")
    assert less["value"] == f"{points * 8 / 1000:.2f}"
    assert (less["expected_lapse"], less["cohorts"][0]["earned"]) == ("20%", "2026-03")
    text = office.ask("liability")
    assert f"worth {told['value']} EUR" in text
    assert max(map(len, text.splitlines())) <= 80


def test_periods_of_the_liability_meet(office):
    office.buy("one")
    office.cut(15)
    office.again("one", 30, status=Status.DECLINED)
    office.cut(40)
    march, april = (office.json("liability", period=f"2026-0{month}") for month in (3, 4))
    assert march["total"]["close"] == april["total"]["open"] != "0"
    assert april["total"]["close"] == "0"
    as_of = office.json("liability", at="2026-04-01T00:00:00Z")
    assert as_of["total"]["close"] == march["total"]["close"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"lapse": "120%"}, "--lapse '120%' is not a share"),
        ({"lapse": "some"}, "--lapse 'some' is not a share"),
        ({"at": "2026-03-20", "period": "2026-03"}, "give --at, or"),
        ({"from": "2026-03-20"}, "give --to with --from"),
        ({"at": "noon"}, "--at 'noon' is not a time"),
    ],
)
def test_what_cannot_be_asked_of_the_liability(office, request_, said):
    office.buy("one")
    office.cut(15)
    with pytest.raises(RequestError, match=said):
        office.ask("liability", **request_)


def test_columns():
    assert aligned([("a", "1", "22"), ("bcd", "333", "4")]) == ["a      1  22", "bcd  333   4"]
    assert aligned([]) == []
    assert [grouped(n, 2) for n in (0, -5, 123456789)] == ["0.00", "-0.05", "1,234,567.89"]
    assert grouped(-1234, 0) == "-1,234"


@pytest.mark.slow
def test_the_commands_print_it(tmp_path):
    """In processes of their own, over the bundled day."""
    replayed(FIRST_DAY, state=tmp_path / "state")
    where = ("--state", tmp_path / "state")
    told = json.loads(done("job", "settle", *where, "--partner", "acme-shop", "--json"))
    (row,) = told["statements"]
    assert (row["carried_in"], row["commissions"], row["carried_out"]) == ("13.27", "1.60", "14.87")
    assert (row["cost_of_points"], row["margin"]) == ("1.00", "0.60")
    march = done("job", "settle", *where, "--period", "2026-03")
    assert "statement of period 2026-03, not closed" in march
    worth = json.loads(done("job", "liability", *where, "--lapse", "20%", "--json"))
    assert (worth["total"]["close"], worth["value"]) == ("1348", "10.78")
    assert "ok    book: statements and liability as its balances" in done("job", "audit", *where)
    wrong = mirrorpoint("job", "settle", *where, "--period", "March")
    assert (wrong.returncode, wrong.stdout) == (2, "")
