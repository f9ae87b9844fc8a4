"""What people ask of the book: balances, what waits, the trail; and the heads of its chains."""

from __future__ import annotations

import json

import pytest

from pipeline.model.identifiers import id_text
from pipeline.model.times import show_time
from pipeline.run.admission import denial
from pipeline.run.failures import RequestError
from pipeline.run.permissions import Denied
from pipeline.run.requests import answer
from tests.run.test_book_commands import ANN, BOB, EVE, Desk
from tests.score.making import DAY_NS, NOON, an_id

CUT_NS = NOON + int(0.01 * DAY_NS)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Ann has points in three lots; some are reserved, and two things wait for a second person."""
    found = Desk(tmp_path_factory.mktemp("questions"))
    found.ask("migrate", "old", {"member": ANN, "points": 300, "expires": "2026-03-05T00:00:00Z"})
    found.ask("migrate", "new", {"member": ANN, "points": 500, "expires": "2026-09-01T00:00:00Z"})
    found.ask("reserve", "held", {"member": ANN, "points": 120, "hold-seconds": 86_400})
    gift = {"member": ANN, "points": 700, "reason": "a parcel that was lost on its way, twice"}
    found.ask("adjust", "gift", gift, actor="anna", role="call_centre")
    found.ask("adjust", "other", {"member": BOB, "points": 9, "reason": "x"})
    found.ask("freeze", "f", {"member": BOB, "reason": "a stolen phone"}, role="programme_manager")
    denied = Denied("no", "eve", "liability")
    answer(found.state, denial(denied))
    found.cut(0.01)
    yield found
    assert found.state.book.audit() == []
    found.state.close()


def told(desk, name: str, **more) -> str:
    request = {"do": "book", "name": name, "actor": "dan", "role": "admin", **more}
    return answer(desk.state, request).decode()


def test_a_balance_is_told_with_its_lots_and_what_waits(desk):
    found = json.loads(told(desk, "balance", member=ANN, json=True))
    sums = {name: found[name] for name in ("pending", "available", "reserved", "debt")}
    assert sums == {"pending": 0, "available": 680, "reserved": 120, "debt": 0}
    assert (found["member"], found["as_of"]) == (ANN, "cut 1")
    lots = [(lot["remaining"], lot["held"], lot["expires"][:10]) for lot in found["lots"]]
    assert lots == [(180, 120, "2026-03-05"), (500, 0, "2026-09-01")]
    assert [item["ref"] for item in found["waiting"]] == ["gift"]
    text = told(desk, "balance", member=ANN)
    assert "  available             680 PTS\n" in text
    assert "180 PTS, 120 reserved, until 2026-03-05T00:00:00Z" in text
    assert "reason     a parcel that was lost on its way, twice" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("days", "sums"),
    [
        (-1, (0, 0, 0, 0)),  # before it happened
        (0.1, (0, 680, 120, 0)),
        (1.5, (0, 800, 0, 0)),  # the reservation ends
        (10, (0, 500, 0, 0)),  # the first lot has lapsed
        (300, (0, 0, 0, 0)),
    ],
)
def test_a_balance_as_of_another_time(desk, days, sums):
    at = show_time(NOON + int(days * DAY_NS))
    found = json.loads(told(desk, "balance", member=ANN, at=at, json=True))
    assert tuple(found[name] for name in ("pending", "available", "reserved", "debt")) == sums
    assert found["as_of"] == at
    assert "lots" not in found
    assert f"as of {at}" in told(desk, "balance", member=ANN, at=at)


def test_a_balance_of_nobody(desk):
    with pytest.raises(RequestError, match="nobody in the circle"):
        told(desk, "balance", member=EVE)
    for member in ("ann", "", None):
        with pytest.raises(RequestError, match="--member"):
            told(desk, "balance", member=member)
    with pytest.raises(RequestError, match="--at"):
        told(desk, "balance", member=ANN, at="tomorrow")


def test_what_waits_is_told_with_who_asked(desk):
    found = json.loads(told(desk, "waiting", json=True))
    assert {(item["ref"], item["actor"], item["role"], item["points"]) for item in found} == {
        ("gift", "anna", "call_centre", 700), ("other", "dan", "admin", 9),
    }  # fmt: skip
    assert all(item["since"] == "2026-03-01T12:00:00Z" for item in found)
    text = told(desk, "waiting")
    assert "adjust: 700 PTS since 2026-03-01T12:00:00Z" in text
    assert "  by         anna (call_centre)" in text
    assert max(map(len, text.splitlines())) <= 80


def test_where_nothing_waits_that_is_said(tmp_path):
    fresh = Desk(tmp_path)
    fresh.state.deliver()
    assert told(fresh, "waiting") == "nothing waits for a second person\n"
    assert told(fresh, "trail", limit=5) == "no rows\n"
    found = json.loads(told(fresh, "balance", member=ANN, json=True))
    assert (found["available"], found["lots"], found["as_of"]) == (0, [], "")
    assert "as of" not in told(fresh, "balance", member=ANN)
    fresh.state.close()


def test_the_trail_says_who_did_what_and_what_was_denied(desk):
    found = json.loads(told(desk, "trail", limit=100, json=True))
    assert [row["number"] for row in found] == list(range(1, len(found) + 1))
    by = {(row["action"], row["actor"]): row for row in found}
    gift = by["adjust", "anna"]
    assert (gift["role"], gift["result"]) == ("call_centre", "awaiting_approval")
    assert gift["reason"] == "a parcel that was lost on its way, twice"
    assert gift["object"] == f"member {ANN}"
    denied = by["denied", "eve"]
    assert (denied["role"], denied["object"], denied["result"]) == (
        "", "liability", "not_allowed",
    )  # fmt: skip
    assert by["freeze", "dan"]["reason"] == "a stolen phone"
    part = json.loads(told(desk, "trail", after=2, limit=2, json=True))
    assert part == found[2:4]
    text = told(desk, "trail", limit=100)
    assert "denied: not_allowed" in text
    assert "by         eve (no role)" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "wrong", [{}, {"limit": 0}, {"limit": 10**9}, {"limit": 5, "after": -1}, {"limit": "5"}]
)
def test_a_trail_without_end_is_refused(desk, wrong):
    with pytest.raises(RequestError, match="--limit"):
        told(desk, "trail", **wrong)


def audit(desk, **more) -> str:
    request = {"do": "job", "name": "audit", "actor": "dan", "role": "auditor", **more}
    return answer(desk.state, request).decode()


def kept(desk) -> list[dict]:
    return [json.loads(line) for line in audit(desk, head=True).splitlines()]


def test_heads_are_told_and_hold_later(tmp_path):
    desk = Desk(tmp_path)
    first = kept(desk)
    assert [(head["chain"], head["number"]) for head in first] == [
        ("postings", 0), ("requests", 0), ("trail", 0),
    ]  # fmt: skip
    for number in range(3):
        desk.ask("migrate", f"m{number}", {"member": ANN, "points": 5})
        desk.cut(number)
    second = kept(desk)
    assert [head["number"] for head in second] == [3, 3, 3]
    desk.ask("migrate", "last", {"member": ANN, "points": 5})
    desk.cut(5)
    text = audit(desk, against=[*first, *second])
    assert text.splitlines() == [
        "ok    postings 0", "ok    requests 0", "ok    trail 0",
        "ok    postings 3", "ok    requests 3", "ok    trail 3",
    ]  # fmt: skip
    told_all = json.loads(audit(desk, against=second, json=True))
    assert [row["holds"] for row in told_all] == [True] * 3
    whole = audit(desk)
    assert whole.splitlines()[-3:] == [
        f"  {head['chain']} {head['number']} {head['link']}" for head in kept(desk)
    ]
    assert max(map(len, whole.splitlines())) <= 80
    changed = [second[0] | {"number": 2}, *second[1:]]
    with pytest.raises(RequestError, match="FAIL  postings 2") as raised:
        audit(desk, against=changed)
    assert raised.value.code == 1
    assert "ok    trail 3" in str(raised.value)
    assert max(map(len, str(raised.value).splitlines())) <= 80
    with pytest.raises(RequestError) as raised:
        audit(desk, against=changed, json=True)
    assert [row["holds"] for row in json.loads(str(raised.value))] == [False, True, True]
    for wrong in ([], "x", [{}], [3], [{"chain": "trail", "number": "x", "link": ""}]):
        with pytest.raises(RequestError) as raised:
            audit(desk, against=wrong)
        assert raised.value.code == 2
    desk.state.close()


def test_a_chain_whose_rows_were_changed_and_linked_again_does_not_hold(tmp_path):
    """Whoever has the keys can link a book anew; what was kept elsewhere tells."""
    desk = Desk(tmp_path / "one")
    other = Desk(tmp_path / "two")
    for each, points in ((desk, 5), (other, 50)):
        each.ask("migrate", "m", {"member": ANN, "points": points})
        each.cut(1)
    assert other.state.book.audit() == []
    with pytest.raises(RequestError, match="FAIL  postings 1"):
        audit(other, against=kept(desk))
    assert id_text(an_id("ann")) == ANN
    desk.state.close()
    other.state.close()
