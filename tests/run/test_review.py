"""The queue: what waits for a person, what a person decides, and what accrual makes of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.model.identifiers import NO_ID_TEXT, id_text
from pipeline.model.words import Status
from pipeline.run.accrue import compare_with_book
from pipeline.run.explain import explain_id
from pipeline.run.failures import RequestError
from pipeline.run.missing import WORDS
from pipeline.run.requests import answer
from pipeline.run.review import DECIDED, QUEUED, queue, shown
from pipeline.run.state import State
from tests.run.accruing import HOLD_DAYS, RULES, told_at
from tests.score.knowing import a_policy, with_fraud
from tests.score.making import DAY_NS, KEYS, NOON, an_id
from tests.store.store_rows import SECOND, batch_of_rows

HELD = HOLD_DAYS + 1
FAST = {"clicked_ns": NOON - SECOND}
STRICT = with_fraud(RULES, a_policy(NO_SESSION=None))


class Desk:
    """A state whose store is in memory, filled by dicts, at which somebody reviews."""

    def __init__(self, folder, rulebook) -> None:
        self.state = State(folder, KEYS, rulebook, clickhouse_url="chdb://:memory:",
                           database=f"desk_{folder.name}".replace("-", "_").lower()[:60])  # fmt: skip
        self.state.use_rulebook(rulebook, NOON)

    def add(self, stream: str, *rows: dict) -> None:
        self.state.journal.append(stream, batch_of_rows(stream, list(rows)))

    def buy(self, key: str = "C-1", click: dict | None = None, **changes) -> None:
        name = f"click of {key}"
        self.add("clicks", {"click_id": name, **(click or {})})
        row = {"conversion_key": key, "conversion_id": key, "click_id": name, **told_at(1)}
        self.add("purchases", {**row, "message_id": f"first of {key}", **changes})

    def cut(self, days: float):
        number = len(self.state.cuts()) + 1
        cut = self.state.make_cut(number, f"cut-{number}", NOON + int(days * DAY_NS), None)
        return self.state.accrue(cut, "tests")

    def ask(self, **request) -> str:
        said = {"do": "job", "name": "review", "actor": "eve", **request}
        return answer(self.state, said).decode()

    def decide(self, verdict: str, key: str = "C-1", reason: str = "I called them") -> str:
        return self.ask(verdict=verdict, conversion=id_text(an_id(key)), reason=reason)

    def points(self) -> tuple[int, int]:
        found = self.state.book.member(an_id("ann"))
        return found.pending, found.available


@pytest.fixture
def desk(tmp_path):
    found = Desk(tmp_path, STRICT)
    found.add("visits", {"last_ns": NOON - 60 * SECOND})
    yield found
    assert compare_with_book(found.state.clickhouse, found.state.book) == []
    assert found.state.book.audit() == []
    found.state.close()


def test_what_is_left_to_a_person_waits_with_its_codes(desk):
    desk.buy(click=FAST)
    desk.buy("honest")
    assert desk.ask() == "nothing waits for a person\n"
    assert desk.cut(HELD).reasons == {"fraud_review": 1, "awarded": 1}
    assert desk.points() == (50, 50)
    (item,) = json.loads(desk.ask(json=True))
    assert item["conversion"] == id_text(an_id("C-1"))
    assert item["codes"] == [["FAST", "ordered 1.000 s after the click, under 5.000 s", 100]]
    assert (item["points"], item["why"], item["decision"]) == (50, "fraud_review", "")
    assert desk.cut(HELD + 300).conversions == 0, "it does not come due by itself"
    assert desk.points() == (50, 50)
    since = json.loads(desk.ask(json=True))[0]["since"]
    assert since == "2026-03-16T12:00:00Z", "the cut that put it there"
    text = desk.ask()
    assert "FAST (100): ordered 1.000 s after the click" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_what_is_released_is_rated_as_any_other(desk):
    desk.buy(click=FAST)
    desk.cut(1)
    assert desk.decide("release").startswith("release of ")
    assert "release by eve, as of the next cut" in desk.ask()
    assert desk.cut(2).reasons == {"held": 1}
    assert desk.ask() == "nothing waits for a person\n"
    assert desk.cut(HELD).reasons == {"awarded": 1}
    assert desk.points() == (0, 50)
    (link,) = [
        link for link in explain_id(desk.state, id_text(an_id("C-1"))) if link.what == "conversion"
    ]
    assert any(line.startswith("release by eve ") for line in link.details)


def test_what_is_declined_is_worth_nothing_until_somebody_thinks_again(desk):
    desk.buy(click=FAST)
    desk.cut(HELD)
    desk.decide("decline", reason="it was a machine")
    assert desk.cut(HELD + 1).reasons == {"fraud_declined": 1}
    assert desk.points() == (0, 0)
    assert desk.ask() == "nothing waits for a person\n"
    desk.decide("release")
    assert desk.cut(HELD + 2).reasons == {"awarded": 1}
    assert desk.points() == (0, 50)


def test_what_the_partner_declines_leaves_the_queue(desk):
    desk.buy(click=FAST)
    desk.cut(HELD)
    desk.add("purchases", {"conversion_key": "C-1", "conversion_id": "C-1",
                           "status": Status.DECLINED, **told_at(5)})  # fmt: skip
    assert desk.cut(HELD + 1).reasons == {"declined": 1}
    assert desk.ask() == "nothing waits for a person\n"


def test_who_decided_and_why_is_in_the_journal(desk):
    desk.buy(click=FAST)
    desk.cut(1)
    desk.decide("release")
    (row,) = desk.state.clickhouse.dicts("SELECT * FROM commands_log WHERE kind = 'review'")
    assert row["actor"] == "eve"
    assert row["subscriber_id"] == id_text(an_id("ann"))
    assert json.loads(row["body"]) == {
        "conversion_key": id_text(an_id("C-1")), "verdict": "release", "reason": "I called them",
    }  # fmt: skip


REFUSED = {
    "no id": ({"conversion": "C-1"}, "is not the id of a conversion"),
    "no conversion": ({"conversion": id_text(an_id("another"))}, "no conversion has the id"),
    "no reason": ({"reason": " "}, "--reason TEXT is needed"),
    "a reason of lines": ({"reason": "a\nb"}, "one line"),
    "a long reason": ({"reason": "a" * 201}, "one line of at most 200"),
    "a mail address": ({"reason": "called ann@shop.example"}, "say why, not who"),
    "an address": ({"reason": "from 198.51.100.7"}, "say why, not who"),
    "nothing to decide": ({"conversion": id_text(an_id("honest"))}, "does not wait for a person"),
}


def test_a_decision_that_says_too_little_or_too_much_is_refused(desk):
    desk.buy(click=FAST)
    desk.buy("honest")
    desk.cut(HELD)
    usual = {"verdict": "release", "conversion": id_text(an_id("C-1")), "reason": "I called"}
    for change, said in REFUSED.values():
        with pytest.raises(RequestError, match=said):
            desk.ask(**(usual | change))
    with pytest.raises(RequestError, match="put on record"):
        answer(desk.state, {"do": "job", "name": "review", "actor": "eve", **usual}, True)
    assert desk.state.journal.rows("commands") == 0


@pytest.mark.slow
def test_a_late_visit_clears_what_the_mirror_had_not_seen(tmp_path):
    desk = Desk(tmp_path, with_fraud(RULES))
    desk.buy()
    assert desk.cut(HELD).reasons == {"fraud_review": 1}
    desk.add("visits", {"last_ns": NOON - 60 * SECOND})
    assert desk.cut(HELD + 1).reasons == {"awarded": 1}
    assert desk.points() == (0, 50)
    desk.state.close()


@pytest.mark.slow
def test_a_returner_waits_longer(desk):
    for n in range(5):
        declined = {"status": Status.DECLINED, "status_ns": NOON - DAY_NS + n}
        desk.buy(f"before {n}", event_ns=NOON - 2 * DAY_NS, click={"clicked_ns": NOON - 3 * DAY_NS},
                 **(declined if n < 2 else {}))  # fmt: skip
    desk.buy()
    assert desk.cut(HELD).reasons == {"awarded": 3, "declined": 2, "fraud_hold": 1}
    (item,) = queue(desk.state)
    assert item["until"] == "2026-04-14T12:00:00Z"
    assert "until 2026-04-14T12:00:00Z" in shown([item])
    assert desk.cut(HELD + 30).reasons == {"awarded": 1}
    assert queue(desk.state) == []


def test_of_two_members_who_claim_one_order_the_later_waits(desk):
    bob = {"subscriber_id": "bob", "clicked_ns": NOON - 600 * SECOND}
    desk.add("visits", {"visit_id": "bobs", "subscriber_id": "bob", "last_ns": NOON})
    desk.buy("second", click=bob, order_ref="o-1", event_ns=NOON + 1)
    assert desk.cut(1).reasons == {"held": 1}
    desk.buy("first", order_ref="o-1")
    assert desk.cut(2).reasons == {"held": 1, "fraud_review": 1}
    (item,) = queue(desk.state)
    assert (item["conversion_id"], item["member"]) == ("second", id_text(an_id("bob")))


def told(desk: Desk, minutes: int, status: Status, **changes) -> None:
    row = {"conversion_key": "C-1", "conversion_id": "C-1", "status": status}
    received = NOON + minutes * 60 * SECOND
    desk.add("purchases", {**row, **told_at(minutes), "received_ns": received, **changes})


def test_a_change_after_locked_waits_for_a_person(desk):
    desk.buy()
    told(desk, 2, Status.LOCKED)
    told(desk, 3, Status.PAID)
    assert desk.cut(HELD).reasons == {"awarded": 1}
    assert desk.ask() == "nothing waits for a person\n"
    told(desk, 4, Status.DECLINED)
    told(desk, 5, Status.PAID, amount_minor=600)
    assert desk.cut(HELD + 1).results == {"exists": 1}
    assert desk.points() == (0, 50)
    (item,) = json.loads(desk.ask(json=True))
    assert [code for code, _, _ in item["codes"]] == ["LOCKED", "LOCKED"]
    assert "LOCKED: a message says declined, received 2026-03-01T12:04:00Z" in desk.ask()
    assert all(len(line) <= 80 for line in desk.ask().splitlines())
    assert "a change after locked" in desk.decide("decline")
    assert desk.ask() == "nothing waits for a person\n"
    assert desk.cut(HELD + 2).results == {"exists": 1}
    assert desk.points() == (0, 50), "a change that was refused refuses nothing else"


def test_a_change_that_is_released_counts_and_later_ones_wait_again(desk):
    desk.buy()
    told(desk, 2, Status.LOCKED)
    told(desk, 4, Status.DECLINED)
    desk.cut(HELD)
    assert desk.points() == (0, 50)
    desk.decide("release")
    assert desk.cut(HELD + 1).reasons == {"declined": 1}
    assert desk.points() == (0, 0)
    # Received after the decision, by the clock of whoever decides.
    told(desk, 6, Status.APPROVED, received_ns=2**62)
    assert desk.cut(HELD + 2).reasons == {"declined": 1}
    (item,) = queue(desk.state)
    assert item["kind"] == "change"


def test_every_reason_of_the_queue_is_told_to_who_asks(desk):
    assert {*QUEUED, DECIDED} <= WORDS.keys()
    assert NO_ID_TEXT not in shown([])
    assert np.all(np.array(QUEUED) != DECIDED)
