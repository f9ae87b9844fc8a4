"""Rules for all, end to end: published and rated again by two people, audited, explained, replayed."""

from __future__ import annotations

import json

import pytest

from pipeline.rulebook.read import from_texts, load
from pipeline.store.book import Book
from pipeline.store.keys import load_keys
from tests.commands import asked, done, mirrorpoint
from tests.run.test_door import APPROVER, DESK, as_user, office, told
from tests.run.test_watch import old_rules, purchase, running, until

pytestmark = pytest.mark.slow  # a process for each question
__all__ = ["office"]  # a fixture
WHY = ("--reason", "the contract of the new year")
SHOP = "partners/acme-shop.toml"


def newer_rules(folder):
    """Ten per cent in place of five, with an example that says so."""
    for name, text in old_rules().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == SHOP:
            text = text.replace('"5%"', '"10%"').replace("points = 130", "points = 260")
        path.write_text(text)
    return folder


def approve(office, request: str) -> None:
    at_door = ("--state", office.door, "--request", request)
    told(as_user(APPROVER, "book", "approve", *at_door, "--as", "approver", "--json"))


def cut(office) -> dict:
    return json.loads(done("job", "accrue", "--state", office.state, "--json"))


def test_rules_for_all_take_two_people(office, tmp_path):
    (click,) = asked(office.state, "SELECT click_id FROM clicks")
    purchase(office.drop, "bought.tsv", click["click_id"], 1)
    office.start()
    at_door = ("--state", office.door)
    until(lambda: asked(office.state, "SELECT count() AS n FROM purchases_log") == [{"n": 1}])
    cut(office)
    points = "SELECT conversion_key, points, rulebook_hash FROM conversions"
    (first,) = asked(office.state, points)
    assert first["points"] == 250

    newer = load_free(newer_rules(office.door.parent / "newer"))
    denied = as_user(DESK, "rules", "publish", newer, *at_door, *WHY)
    assert "publish is denied to" in denied.stderr
    asked_for = json.loads(done("rules", "publish", newer, *at_door, *WHY, "--json"))
    assert asked_for["files"] == {"changed": [SHOP]}
    cut(office)
    waits = told(as_user(APPROVER, "book", "waiting", *at_door, "--json"))
    assert [(row["kind"], row["actor"]) for row in waits] == [("publish", "root")]
    alone = done("book", "approve", *at_door, "--request", asked_for["request"])
    assert "next cut" in alone
    assert cut(office)["orders"] == {"same_person": 1}
    approve(office, asked_for["request"])
    assert cut(office)["orders"] == {"ok": 1}
    assert cut(office)["results"] == {"exists": 1}, "what was bought keeps its rules"
    shown = told(as_user(APPROVER, "rules", "pending", *at_door, "--json"))
    assert [(row["state"], row["decided_by"]) for row in shown] == [("in force", APPROVER)]
    assert asked(office.state, points) == [first]

    trial = json.loads(done("job", "rerate", *at_door, "--dry-run", "--json"))
    assert (trial["changed"], trial["points"], trial["members"]) == (1, 250, [[office.member, 250]])
    again = json.loads(done("job", "rerate", *at_door, *WHY, "--json"))
    approve(office, again["request"])
    told_at = cut(office)
    assert told_at["reratings"] == [{"request": again["request"], "booked": 1, "left_out": 0}]
    (now,) = asked(office.state, points)
    assert now["points"] == 500
    assert now["rulebook_hash"] != first["rulebook_hash"]
    done("job", "audit", *at_door)
    (entry,) = asked(
        office.state,
        "SELECT entry_id FROM entries WHERE kind = 're_rate' AND leg = 0 AND commodity = 'PTS'",
    )
    words = done("explain", *at_door, entry["entry_id"])
    assert "were changed for all: 250 points more" in " ".join(words.split())
    assert f"approved by {APPROVER}" in " ".join(words.split())
    assert office.stop() == ""

    refused = mirrorpoint(*running(office.drop, office.state), "--once")
    assert refused.returncode == 2
    assert "has other rules than those in force" in refused.stderr
    other = tmp_path / "other"
    report = json.loads(done("replay", office.state, "--state", other, "--json"))
    keys = load_keys(office.state, False)
    book = Book(f"sqlite:///{office.state / 'book.sqlite'}", keys, from_texts(old_rules()))
    try:
        assert report["ledger_hash"] == book.ledger_hash()
        (publication,) = book.publications()
        assert publication.rulebook_hash == load(newer).hash
    finally:
        book.close()


def load_free(folder):
    """The folder, where people who do not own it may read it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder
