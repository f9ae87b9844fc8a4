"""Rules come into force by two persons: asked for, tested, approved, and not before their time."""

from __future__ import annotations

import json

import pytest

from pipeline.model.identifiers import Keys, id_text, parse_id
from pipeline.model.times import parse_time
from pipeline.rulebook.model import RulebookError
from pipeline.rulebook.read import from_texts, load
from pipeline.run.accrue import compare_with_book
from pipeline.run.failures import RequestError
from pipeline.run.publish import changes
from pipeline.run.requests import answer
from pipeline.run.state import State
from pipeline.store.book import BookError

KEYS = Keys.from_seed("publishing")
FIRST = load().files
SHOP = "partners/acme-shop.toml"
REASON = "the contract of the new year"


def noted(text: str) -> dict[str, str]:
    """The shipped rules with a line more."""
    return {**FIRST, SHOP: f"{FIRST[SHOP]}\n# {text}\n"}


class Office:
    """A state in memory, whose people publish rules; time is what the test says."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.open()
        self.state.use_rulebook(from_texts(FIRST), 0)

    def open(self) -> None:
        self.state = State(
            self.folder, KEYS, from_texts(FIRST), clickhouse_url="chdb://:memory:", database="office",
            book_url=f"sqlite:///{self.folder / 'book.sqlite'}",
        )  # fmt: skip
        self.state.use_last_rulebook()

    def again(self) -> None:
        """Stop and start."""
        self.state.close()
        self.open()

    def ask(self, name: str, actor: str = "anna", **request):
        said = {"do": "job", "name": name, "json": True, "actor": actor, **request}
        return json.loads(answer(self.state, said | {"role": request.get("role", "admin")}))

    def publish(self, files: dict[str, str], **request) -> dict:
        return self.ask("publish", files=files, reason=REASON, **request)

    def decide(self, kind: str, request: str, actor: str, at: str, role: str = "approver") -> None:
        self.state.command(
            kind, f"{kind} of {request} by {actor}", {"request": request}, actor, ns(at), role=role
        )

    def cut(self, at: str) -> dict:
        return self.ask("accrue", now=at)["orders"]

    @property
    def in_force(self) -> bytes:
        return self.state.rulebook.hash

    def pending(self, **request) -> list[dict]:
        return self.ask("pending", **request)


def ns(text: str) -> int:
    return parse_time(text)


def hash_of(files: dict[str, str]) -> bytes:
    return from_texts(files).hash


@pytest.fixture
def office(tmp_path):
    found = Office(tmp_path)
    yield found
    assert compare_with_book(found.state.clickhouse, found.state.book) == []
    assert found.state.book.audit() == []
    found.state.clickhouse.execute("DROP DATABASE office")
    found.state.close()


def test_other_rules_come_into_force_when_another_person_has_approved_them(office):
    asked = office.publish(noted("1"))
    assert asked["files"] == {"changed": [SHOP]}
    assert office.cut("2030-01-01T00:00:00Z") == {"awaiting_approval": 1}
    office.decide("approve", asked["request"], "anna", "2030-01-01T01:00:00Z")
    assert office.cut("2030-01-02T00:00:00Z") == {"same_person": 1}
    office.decide("approve", asked["request"], "bob", "2030-01-02T01:00:00Z")
    assert office.in_force == hash_of(FIRST)
    assert office.cut("2030-01-03T00:00:00Z") == {"ok": 1}
    assert office.in_force == hash_of(FIRST), "the cut that hears of it is of the rules before"
    office.cut("2030-01-04T00:00:00Z")
    assert office.in_force == hash_of(noted("1"))
    cuts = [bytes(cut.rulebook_hash[0]) for cut in office.state.cuts()]
    assert cuts == [hash_of(FIRST)] * 3 + [hash_of(noted("1"))]
    (first,) = office.pending()
    assert (first["state"], first["asked_by"], first["decided_by"]) == ("in force", "anna", "bob")


def test_they_wait_for_their_time_and_the_state_may_stop_meanwhile(office):
    asked = office.publish(noted("1"), **{"from": "2031-06-01T00:00:00Z"})
    office.decide("approve", asked["request"], "bob", "2030-01-01T00:00:00Z")
    office.cut("2030-01-02T00:00:00Z")
    office.again()
    assert office.in_force == hash_of(FIRST)
    assert [row["state"] for row in office.pending()] == ["in force", "approved"]
    office.cut("2031-05-31T00:00:00Z")
    assert office.in_force == hash_of(FIRST)
    office.again()
    office.cut("2031-06-01T00:00:00Z")
    assert office.in_force == hash_of(noted("1"))
    office.again()
    assert office.in_force == hash_of(noted("1")), "the journal says so"


def test_of_two_the_one_that_comes_later_stays_in_force(office):
    later = office.publish(noted("later"), **{"from": "2031-02-01T00:00:00Z"})
    sooner = office.publish(noted("sooner"))
    office.decide("approve", later["request"], "bob", "2030-01-01T00:00:00Z")
    office.decide("approve", sooner["request"], "bob", "2031-01-10T00:00:00Z")
    office.cut("2031-01-10T00:00:00Z")
    office.cut("2031-01-11T00:00:00Z")
    assert office.in_force == hash_of(noted("sooner"))
    back = office.publish(noted("sooner"))  # what is in force, to stay so when its time has come
    office.cut("2031-02-02T00:00:00Z")
    assert office.in_force == hash_of(noted("later"))
    office.decide("approve", back["request"], "bob", "2031-02-03T00:00:00Z")
    office.cut("2031-02-03T00:00:00Z")
    office.cut("2031-02-04T00:00:00Z")
    assert office.in_force == hash_of(noted("sooner"))
    states = [row["state"] for row in office.pending(all=True)]
    assert states == ["in force", "was in force", "was in force"]


def test_what_is_rejected_never_comes(office):
    asked = office.publish(noted("1"))
    office.decide("reject", asked["request"], "bob", "2030-01-01T00:00:00Z")
    office.cut("2030-01-01T00:00:00Z")
    office.cut("2030-01-02T00:00:00Z")
    assert office.in_force == hash_of(FIRST)
    assert [row["state"] for row in office.pending()] == ["in force"]
    assert [row["state"] for row in office.pending(all=True)] == ["in force", "rejected"]


def test_who_may_not_publish_is_refused_by_the_book(office):
    asked = office.publish(noted("1"), role="call_centre")
    assert office.cut("2030-01-01T00:00:00Z") == {"not_allowed": 1}
    office.decide("approve", asked["request"], "bob", "2030-01-01T00:00:00Z")
    assert office.cut("2030-01-02T00:00:00Z") == {"unknown_request": 1}
    assert [row["state"] for row in office.pending(all=True)] == ["in force"]


def test_rules_are_published_when_they_are_right_and_their_examples_pass(office):
    with pytest.raises(RulebookError):
        office.publish({**FIRST, SHOP: "partner = 7"})
    wrong = '\n[[example]]\naction = "sale"\namount = "100.00"\npoints = 1\n'
    with pytest.raises(RequestError, match=r"found \d+, expected 1"):
        office.publish({**FIRST, SHOP: FIRST[SHOP] + wrong})
    with pytest.raises(RequestError, match="in force already"):
        office.publish(dict(FIRST))
    with pytest.raises(RequestError, match="missing"):
        office.ask("publish", reason=REASON)
    with pytest.raises(RequestError, match="--reason"):
        office.ask("publish", files=noted("1"), reason="")
    other = {**FIRST, "programme.toml": FIRST["programme.toml"].replace('"PTS"', '"STARS"')}
    with pytest.raises(BookError, match="points 'PTS', the rulebook has 'STARS'"):
        office.publish(other)
    assert office.state.journal.rows("rulebooks") == 1
    assert office.state.journal.rows("commands") == 0


def test_what_changes_is_told_by_files(office):
    more = {**noted("1"), "partners/another.toml": "x"}
    del more["programme.toml"]
    old, new = from_texts(FIRST), from_texts(FIRST)
    object.__setattr__(new, "files", more)
    assert changes(old, new) == {
        "changed": [SHOP], "added": ["partners/another.toml"], "removed": ["programme.toml"],
    }  # fmt: skip
    assert changes(old, old) == {}


def test_the_text_for_people_names_who_and_what(office):
    asked = office.publish(noted("1"), **{"from": "2031-06-01T00:00:00Z"})
    office.cut("2030-01-01T00:00:00Z")
    said = {"do": "job", "name": "pending", "actor": "bob", "role": "approver"}
    text = answer(office.state, said).decode()
    assert f"request {asked['request']}" in text
    assert "asked by anna" in text
    assert REASON in text
    assert f"changed {SHOP}" in text
    assert "2031-06-01" in text
    assert max(map(len, text.splitlines())) <= 80
    waiting = office.state.book.request(parse_id(asked["request"]))
    assert waiting.name == "AWAITING_APPROVAL"
    assert id_text(hash_of(noted("1"))).startswith(text.split("waits: rules ")[1][:8])
