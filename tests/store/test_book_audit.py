"""Audit: a sound book has nothing to say, and every kind of damage is named with its ids.

Each damage is done by raw SQL, as somebody with the file and without the keys could.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from pipeline.ledger import transfers
from pipeline.model.columns import concat
from pipeline.model.identifiers import id_text
from pipeline.model.words import Result
from pipeline.rulebook.read import load
from pipeline.store.book import Book
from pipeline.store.book_register import Run
from pipeline.store.book_schema import metadata
from tests.ledger.asking import ask
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    KEYS,
    RUN,
    BookDesk,
    name_id,
    ns,
    rulebook,
    target,
)
from tests.store.damage import BOOKED, POINTS
from tests.store.damage_asked import ASKED_FOR, OPEN
from tests.store.test_book_register import a_cut

ANN, BOB, CID = (name_id("member", name) for name in ("ann", "bob", "cid"))
LAST_CUT = 6
LATE_NS = ns("2026-03-10")
# What people and members ask, and its answer.
ASKED = [
    (ask("order", "o1", "ann", 40, LATE_NS, redemption="gift", region="north"), Result.OK),
    (ask("order", "o2", "bob", 40, LATE_NS), Result.INSUFFICIENT_POINTS),
    (ask("stock", "s", points=9, at=LATE_NS, item="cup"), Result.OK),
    (ask("migrate", "m", "cid", 60, LATE_NS, earned=EVENT_NS, expires=ns("2027-03-01")), Result.OK),
    (ask("reserve", "r1", "cid", 20, LATE_NS, item="cup", quantity=2, hold_seconds=600), Result.OK),
    (ask("commit", "k", points=15, at=LATE_NS, order="r1"), Result.OK),
    (ask("refund", "f", points=6, at=ns("2027-04-01"), order="r1"), Result.OK),
    (ask("reserve", "r2", "dan", 5, LATE_NS, hold_seconds=10**7), Result.UNKNOWN_MEMBER),
    (ask("adjust", "j1", "dan", 50, LATE_NS, reason="x"), Result.OK),
    (ask("reserve", "r3", "dan", 5, LATE_NS, hold_seconds=10**7), Result.OK),
    (ask("transfer", "t", "dan", 12, LATE_NS, to="eve"), Result.OK),
    (ask("adjust", "j2", "eve", 1, LATE_NS, actor="cat"), Result.NO_REASON),
    (ask("adjust", "j3", "eve", 500, LATE_NS, reason="y"), OPEN),
    (ask("adjust", "j4", "eve", 600, LATE_NS, reason="y"), OPEN),
    (ask("approve", "a3", at=LATE_NS, actor="bob", request="j3"), Result.OK),
    (ask("reject", "x4", at=LATE_NS, actor="bob", request="j4"), Result.OK),
    (ask("adjust", "j5", "eve", 700, LATE_NS, reason="y"), OPEN),
    (ask("freeze", "z", "eve", at=LATE_NS), Result.OK),
    (ask("forfeit", "q", "eve", 3, LATE_NS, reason="z"), Result.OK),
    (ask("close_period", "p", at=LATE_NS, period="2026-02"), Result.OK),
    (ask("close_period", "p2", at=LATE_NS, period="2026-03"), Result.PERIOD_OPEN),
    (ask("publish", "v1", at=LATE_NS, reason="z"), OPEN),
    (ask("publish", "v2", at=LATE_NS, reason="z"), OPEN),
    (ask("approve", "a5", at=LATE_NS, actor="bob", request="v1"), Result.OK),
]


@pytest.fixture
def book() -> Iterator[Book]:
    """All a book can hold: waiting, confirmed in part, spent, owed, declined, approved again; held,
    refunded, passed on, given by hand, lapsed, frozen.
    """
    desk = BookDesk(book=rulebook(manual_limit=100))
    desk.post([target("a", 40, "pending"), target("b", 20, "pending", member="bob")])
    desk.post([target("a", 24, "available", fold=2, money="60/24/36")], 2)
    desk.post([target("c", 30, "available", fold=2, event_ns=EVENT_NS - DAY_NS)], 2)
    batches, answers = zip(*ASKED, strict=True)
    assert tuple(desk.command(concat(list(batches)), 3)) == answers
    desk.post([target("a", 4, "available", fold=4, money="60/4/56")], 4)
    desk.post([target("d", 0, "none", fold=4), target("e", 9, "pending", fold=4)], 4)
    desk.post([target("e", 0, "none", fold=5)], 5)
    desk.post([target("e", 9, "pending", fold=LAST_CUT)], LAST_CUT)
    desk.post([target("g", 70, "available", fold=6, member="fay", event_ns=ns("2023-05-01"))], 6)
    assert desk.due(EVENT_NS + 7 * DAY_NS, 7) == (0, 1), "what was earned in 2023"
    desk.book.mark_delivered(6)
    yield desk.book
    desk.book.close()


def test_a_sound_book_has_nothing_to_say(book: Book) -> None:
    assert book.audit() == []
    assert BookDesk().book.audit() == []


DAMAGE = BOOKED | POINTS | ASKED_FOR
MEMBERS = ("ann", "bob", "cid", "dan", "eve")
COMMANDS = (
    "o1", "o2", "r1", "r3", "m", "f", "t", "j1", "j3", "j5", "a3", "x4", "z", "p", "v1", "v2", "a5",
)  # fmt: skip


def names() -> dict[str, str]:
    """What stands for ids, by the names of the story."""
    made = {}
    for kind, words in (("member", MEMBERS), ("conversion", "abceg"), ("order", COMMANDS)):
        for word in words:
            made[word] = id_text(name_id(kind, word))
            made[f"{word}_hex"] = name_id(kind, word).hex()
            made[f"of_{word}"] = (
                "conversion_number = (SELECT conversion_number FROM conversions"
                f" WHERE conversion_key = x'{name_id(kind, word).hex()}')"
            )
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(book: Book, damage: str, said: list[str]) -> None:
    with book._write() as connection:
        done = connection.exec_driver_sql(damage.format(**names()))
        assert done.rowcount, "the damage was not done"
    found = book.audit()
    for words in said:
        wanted = words.format(**names())
        assert any(wanted in sentence for sentence in found), (wanted, found)


def test_every_table_can_be_damaged() -> None:
    """Those of rules, runs and logins have their damage below."""
    named = {
        name
        for name in metadata.tables
        for damage, _ in DAMAGE.values()
        if f" {name} " in damage + " "
    }
    others = {"meta", "identities", "runs", "rulebooks", "rule_versions", "cuts"}
    assert named | others == set(metadata.tables)


def test_a_rewritten_chain_needs_the_key(book: Book) -> None:
    """Postings with links made under another key break the chain from the first one on."""
    with book._write() as connection:
        numbers = connection.execute(
            text("SELECT posting_number FROM postings ORDER BY posting_number")
        ).all()
        forged = transfers.FIRST_LINK
        for (number,) in numbers:
            forged = transfers.link_of(KEYS.visit, forged, b"", [], {}, [])
            connection.execute(
                text("UPDATE postings SET link = :link WHERE posting_number = :at"),
                {"link": forged, "at": number},
            )
        connection.execute(text("UPDATE heads SET link = :link"), {"link": forged})
    assert sum("breaks the hash chain" in sentence for sentence in book.audit()) == len(numbers)


def test_rules_must_have_been_imported(book: Book) -> None:
    """Once a rulebook is there, nothing may have been booked under a rule that is in none."""
    book.import_rulebook(rulebook(manual_limit=100))
    *found, last = book.audit()
    rule = name_id("rule", "r1").hex()
    assert found
    assert all(f"rule version {rule}, never imported" in sentence for sentence in found)
    assert last.startswith(f"rulebook {id_text(name_id('rulebook', 'r1'))}, which ")
    assert last.endswith("postings name, was never imported")


@pytest.fixture
def rated() -> Iterator[Book]:
    """A book as a job leaves it: rules imported, its run and its cut written down."""
    rules = load(None)
    desk = BookDesk(book=rules)
    desk.book.import_rulebook(rules)
    desk.book.put_run(Run(RUN, "accrue", "tests", rules.hash, 1, 2, "done"))
    rule = rules.partners[0].accruals[0].version
    words = {"rule_version": rule, "rulebook_hash": rules.hash}
    targets = [target("a", 40, "pending"), target("c", 30, "available")]
    desk.post([found._replace(**words) for found in targets])
    desk.order("o2", "bob", 40, EVENT_NS, 1)
    desk.book.finish_cut(a_cut(1), RUN)
    yield desk.book
    desk.book.close()


RATED_DAMAGE = {
    "prices": (
        "UPDATE terms SET issue_price = '1/7', settlement_price = '1/9'",
        ["terms number 1 are not those of rulebook {rules}: issue_price '1/7', not '1/100', "
         "settlement_price '1/9', not '1/"],
    ),
    "terms of nobody": (
        "INSERT INTO terms SELECT 2, programme, commodity, source, campaign, region, 'x',"
        " issue_price, settlement_price, expiry_policy FROM terms",
        ["terms number 2 are those of no rulebook"],
    ),
    "terms are gone": (
        "DELETE FROM terms",
        ["rulebook {rules} has terms number 1, which are none", "has no terms"],
    ),
    "a lot's terms": (
        "UPDATE lots SET terms_id = 2",
        ["has terms number 2, its rulebook has number 1"],
    ),
    "a pending item's terms": (
        "UPDATE pending_items SET terms_id = 2",
        ["pending item 1 of conversion {a} has terms number 2, its rulebook has number 1"],
    ),
    "runs": (
        "DELETE FROM runs",
        ["run {run} is gone, it made 2 postings", "run {run} is gone, it made 1 commands",
         "run {run} is gone, it made 1 cuts"],
    ),
    "a run's rulebook": (
        "UPDATE runs SET rulebook_hash = x'{a_hex}'",
        ["rulebook {a}, which run {run} names, was never imported"],
    ),
    "rule versions": (
        "DELETE FROM rule_versions",
        ["(programme ", "(accrual ", "of rulebook {rules} is gone", "never imported"],
    ),
    "a rule version's place": (
        "UPDATE rule_versions SET line = line + 1 WHERE kind = 'policy'",
        ["(policy default) is not as rulebook {rules} has it"],
    ),
    "rulebooks": (
        "DELETE FROM rulebooks",
        ["rulebook {rules}, which 2 postings name, was never imported",
         "rulebook {rules}, which run {run} names, was never imported"],
    ),
    "a rulebook's text": (
        "UPDATE rulebooks SET text = '{{}}'",
        ["the text of rulebook {rules} is not the one of that hash"],
    ),
    "a rulebook's text is no text": (
        "UPDATE rulebooks SET text = '7'",
        ["the text of rulebook {rules} is not the one of that hash"],
    ),
}  # fmt: skip


def test_a_book_that_was_told_its_rules_is_sound(rated: Book) -> None:
    assert rated.audit() == []


@pytest.mark.parametrize(("damage", "said"), RATED_DAMAGE.values(), ids=RATED_DAMAGE)
def test_what_differs_from_its_rules_and_runs_is_named(
    rated: Book, damage: str, said: list[str]
) -> None:
    words = names() | {"run": id_text(RUN), "rules": id_text(load(None).hash)}
    with rated._write() as connection:
        assert connection.exec_driver_sql(damage.format(**words)).rowcount
    found = rated.audit()
    for wanted in (sentence.format(**words) for sentence in said):
        assert any(wanted in sentence for sentence in found), (wanted, found)


def test_a_login_that_does_not_open_is_named(book: Book) -> None:
    book.put_identity(ANN, "ann@access.example")
    assert book.audit() == []
    with book._write() as connection:
        connection.execute(text("UPDATE identities SET sealed = zeroblob(40)"))
    assert book.audit() == [
        f"the login of subscriber {id_text(ANN)} does not open: it was sealed with another"
        " identity key, or its row was changed"
    ]
