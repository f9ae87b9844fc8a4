"""Audit: a sound book has nothing to say, and every kind of damage is named with its ids.

Each damage is done by raw SQL, as somebody with the file and without the keys could.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from pipeline.model.identifiers import id_text
from pipeline.rulebook.read import load
from pipeline.store.book import Book
from pipeline.store.book_register import Run
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
from tests.store.test_book_register import a_cut

ANN, BOB = name_id("member", "ann"), name_id("member", "bob")
LAST_CUT = 6


@pytest.fixture
def book() -> Iterator[Book]:
    """All a book can hold: waiting, confirmed in part, spent, owed, declined, approved again."""
    desk = BookDesk()
    desk.post([target("a", 40, "pending"), target("b", 20, "pending", member="bob")])
    desk.post([target("a", 24, "available", fold=2, money="60/24/36")], 2)
    desk.post([target("c", 30, "available", fold=2, event_ns=EVENT_NS - DAY_NS)], 2)
    desk.order("o1", "ann", 40, ns("2026-03-10"), 3)
    desk.order("o2", "bob", 40, ns("2026-03-10"), 3)
    desk.post([target("a", 4, "available", fold=4, money="60/4/56")], 4)
    desk.post([target("d", 0, "none", fold=4), target("e", 9, "pending", fold=4)], 4)
    desk.post([target("e", 0, "none", fold=5)], 5)
    desk.post([target("e", 9, "pending", fold=LAST_CUT)], LAST_CUT)
    desk.book.mark_delivered(3)
    yield desk.book
    desk.book.close()


def test_a_sound_book_has_nothing_to_say(book: Book) -> None:
    assert book.audit() == []
    assert BookDesk().book.audit() == []


# What is done, and words of the sentence that must be said; {a} stands for a conversion's id.
DAMAGE = {
    "an amount": (
        "UPDATE entries SET amount = amount + 1 WHERE sequence = 2",
        ["entry 2 of transfer number 1 breaks the hash chain", "does not balance: 1 PTS are left"],
    ),
    "both legs of a transfer": (
        "UPDATE entries SET amount = amount * 2 WHERE transfer_number = 1",
        ["entry 1 of transfer number 1 breaks", "more on programme:issued", "its entries sum to"],
    ),
    "an account of a leg": (
        "UPDATE entries SET account_id = 1 WHERE sequence = 2",
        ["entry 2 of transfer number 1 breaks"],
    ),
    "an account that is none": (
        "UPDATE entries SET account_id = 999 WHERE sequence = 2",
        ["entry 2 is of account number 999, which is none"],
    ),
    "an account's name": (
        "UPDATE accounts SET account = 'programme:lost' WHERE account = 'programme:issued'",
        ["breaks the hash chain", "more on programme:lost"],
    ),
    "an entry is gone": ("DELETE FROM entries WHERE sequence = 4", ["entries 4 to 4 are missing"]),
    "the last entries are gone": (
        "DELETE FROM entries WHERE transfer_number = (SELECT max(transfer_number) FROM transfers)",
        ["its head says entry", "the head of the hash chain"],
    ),
    "a header": (
        "UPDATE transfers SET actor = 'x' WHERE transfer_number = 1",
        ["breaks the hash chain"],
    ),
    "a header's cause": (
        "UPDATE transfers SET cause_id = x'00000000000000000000000000000000'"
        " WHERE transfer_number = 1",
        ["has no cause", "does not have the id of its cause", "breaks the hash chain"],
    ),
    "a header's rule": (
        "UPDATE transfers SET rule_version = x'00000000000000000000000000000000'"
        " WHERE transfer_number = 1",
        ["has no rule version"],
    ),
    "a header's period": (
        "UPDATE transfers SET period = '1999-12' WHERE transfer_number = 1",
        ["is in period 1999-12, but was booked in another"],
    ),
    "a time of booking": (
        "UPDATE transfers SET booked_ns = booked_ns / 2 WHERE transfer_number = 5",
        ["was booked at an earlier time"],
    ),
    "a transfer is gone": (
        "DELETE FROM transfers WHERE transfer_number = 1",
        ["entry 1 is of transfer number 1, which is none"],
    ),
    "a link": (
        "UPDATE entries SET link = zeroblob(32) WHERE sequence = 3",
        ["entry 3 of", "entry 4 of"],
    ),
    "the head": ("UPDATE heads SET link = zeroblob(32)", ["the head of the hash chain"]),
    "a balance": (
        "UPDATE accounts SET balance = balance - 5 WHERE account LIKE 'member:%:available'",
        ["available has -", "more points available and reserved than", "all points together"],
    ),
    "a balance below zero": (
        "UPDATE accounts SET balance = 7 WHERE account = 'member:{bob}:pending'",
        ["account member:{bob}:pending is below zero: -7"],
    ),
    "a debt below zero": (
        "UPDATE accounts SET balance = -1 WHERE account = 'member:{ann}:debt'",
        ["account member:{ann}:debt is below zero: -1"],
    ),
    "whose account it is": (
        "UPDATE accounts SET subscriber_id = x'01010101010101010101010101010101'"
        " WHERE account = 'member:{bob}:pending'",
        ["account member:{bob}:pending is filed under subscriber 01010101-"],
    ),
    "points on a lot": (
        "UPDATE lots SET remaining = remaining + 1, amount = amount + 1"
        " WHERE conversion_key = x'{c_hex}'",
        ["its moves say", "subscriber {ann} has -1 more points", "conversion {c} should be"],
    ),
    "more left than granted": (
        "UPDATE lots SET remaining = amount + 1 WHERE conversion_key = x'{c_hex}'",
        ["has 31 of 30 points"],
    ),
    "a lot's expiry": (
        "UPDATE lots SET expires_ns = expires_ns + 1 WHERE conversion_key = x'{c_hex}'",
        ["does not expire as calendar_year_plus(2) says"],
    ),
    "a lot's member": (
        "UPDATE lots SET subscriber_id = x'{bob_hex}' WHERE conversion_key = x'{c_hex}'",
        ["is not the lot of its conversion and member", "conversion {c} should be available"],
    ),
    "a lot's terms": (
        "UPDATE lots SET terms_id = 77 WHERE conversion_key = x'{c_hex}'",
        ["has no terms"],
    ),
    "when a lot may be spent": (
        "UPDATE lots SET spendable_from_ns = 1 WHERE conversion_key = x'{c_hex}'",
        ["may be spent from another time than it was earned at"],
    ),
    "a lot's rule": (
        "UPDATE lots SET rule_version = zeroblob(16) WHERE conversion_key = x'{c_hex}'",
        ["has another rule_version than conversion {c}"],
    ),
    "a lot's contract and time": (
        "UPDATE lots SET contract_version = 'x', earned_ns = earned_ns + 1,"
        " spendable_from_ns = earned_ns + 1 WHERE conversion_key = x'{c_hex}'",
        ["has another contract_version and earned_ns than conversion {c}"],
    ),
    "a lot is gone": (
        "DELETE FROM lots WHERE conversion_key = x'{c_hex}'",
        ["has moves but does not exist", "conversion {c} should be available with 30 points"],
    ),
    "which lots a debit took": (
        "DELETE FROM lot_moves WHERE amount_change = 0",
        ["points but 0 in lots", "its moves say"],
    ),
    "a pending amount": (
        "UPDATE pending_items SET amount = 21 WHERE conversion_key = x'{b_hex}'",
        ["subscriber {bob} has -1 more points pending", "conversion {b} should be pending with 20"],
    ),
    "a pending item's rule": (
        "UPDATE pending_items SET rule_version = zeroblob(16) WHERE conversion_key = x'{a_hex}'",
        ["pending item 1 of conversion {a} has another rule_version than the transfer"],
    ),
    "a pending item's contract and time": (
        "UPDATE pending_items SET contract_version = 'x', event_ns = 1"
        " WHERE conversion_key = x'{e_hex}' AND generation = 2",
        ["pending item 2 of conversion {e} has another contract_version and event_ns than"],
    ),
    "a pending item of no transfer": (
        "UPDATE pending_items SET generation = 3"
        " WHERE conversion_key = x'{e_hex}' AND generation = 2",
        ["pending item 3 of conversion {e} was opened by no transfer"],
    ),
    "confirmed more than pending": (
        "UPDATE pending_items SET confirmed = 41 WHERE conversion_key = x'{a_hex}'",
        ["pending item 1 of conversion {a} was 40 points"],
    ),
    "resolved in part": (
        "UPDATE pending_items SET returned = 0 WHERE conversion_key = x'{a_hex}'",
        ["pending item 1 of conversion {a} is resolved, but only 24 of 40 points"],
    ),
    "open and resolved": (
        "UPDATE pending_items SET confirmed = 1 WHERE conversion_key = x'{b_hex}'",
        ["pending item 1 of conversion {b} is open, but 1 of its points are resolved"],
    ),
    "open twice": (
        "UPDATE pending_items SET resolved = 0, returned = 0 WHERE conversion_key = x'{e_hex}'",
        ["pending item 2 of conversion {e} is open beside another one"],
    ),
    "a conversion's points": (
        "UPDATE conversions SET points = 31 WHERE conversion_key = x'{c_hex}'",
        ["conversion {c} should be available with 31 points", "conversion {c} has -1 PTS more",
         "points are issued, conversions come to"],
    ),
    "a conversion's state": (
        "UPDATE conversions SET state = 1 WHERE conversion_key = x'{c_hex}'",
        ["conversion {c} should be pending with 30 points of {ann}; pending: none; in lots: 30"],
    ),
    "a conversion's money": (
        "UPDATE conversions SET receivable_minor = 61, margin_minor = 57"
        " WHERE conversion_key = x'{a_hex}'",
        ["conversion {a} has -1 EUR more on partner:acme-shop:receivable"],
    ),
    "a conversion's rule": (
        "UPDATE conversions SET pinned_rule_version = x'00000000000000000000000000000000'"
        " WHERE conversion_key = x'{c_hex}'",
        ["conversion {c} has points but no rule"],
    ),
    "a conversion is gone": (
        "DELETE FROM conversions WHERE conversion_key = x'{c_hex}'",
        ["conversion {c} has points but does not exist", "conversion {c} has 30 PTS more"],
    ),
    "an order's points": (
        "UPDATE orders SET points = 41 WHERE order_id = x'{o1_hex}'",
        ["order {o1} should have spent 41 points, its entries say 40"],
    ),
    "an order's answer": (
        "UPDATE orders SET result = 0 WHERE order_id = x'{o2_hex}'",
        ["order {o2} should have spent 40 points, its entries say 0"],
    ),
    "an order is gone": (
        "DELETE FROM orders WHERE order_id = x'{o1_hex}'",
        ["order {o1} spent 40 points but does not exist"],
    ),
    "the outbox begins late": (
        "DELETE FROM outbox WHERE first_sequence = (SELECT max(first_sequence) FROM outbox)",
        ["the outbox ends before entry"],
    ),
    "the outbox has a hole": (
        "UPDATE outbox SET last_sequence = last_sequence - 1 WHERE first_sequence ="
        " (SELECT min(first_sequence) FROM outbox)",
        ["out of line"],
    ),
}  # fmt: skip


def names() -> dict[str, str]:
    made = {"ann": id_text(ANN), "bob": id_text(BOB), "ann_hex": ANN.hex(), "bob_hex": BOB.hex()}
    for kind, words in (("conversion", "abcde"), ("order", ("o1", "o2"))):
        for word in words:
            made[word] = id_text(name_id(kind, word))
            made[f"{word}_hex"] = name_id(kind, word).hex()
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


def test_a_rewritten_chain_needs_the_key(book: Book) -> None:
    """Entries with links made under another key break the chain from the first one on."""
    from pipeline.ledger import transfers

    with book._write() as connection:
        rows = connection.execute(
            text("SELECT sequence, link FROM entries ORDER BY sequence")
        ).all()
        forged = transfers.FIRST_LINK
        for sequence, _ in rows:
            leg = transfers.Leg("programme:issued", "PTS", 1)
            forged = transfers.entry_link(KEYS.visit, forged, b"", sequence, 0, leg)
            connection.execute(
                text("UPDATE entries SET link = :link WHERE sequence = :at"),
                {"link": forged, "at": sequence},
            )
        connection.execute(text("UPDATE heads SET link = :link"), {"link": forged})
    assert sum("breaks the hash chain" in sentence for sentence in book.audit()) == len(rows)


def test_rules_must_have_been_imported(book: Book) -> None:
    """Once a rulebook is there, nothing may have been booked under a rule that is in none."""
    book.import_rulebook(rulebook())
    *found, last = book.audit()
    rule = name_id("rule", "r1").hex()
    assert found
    assert all(f"rule version {rule}, never imported" in sentence for sentence in found)
    assert last.startswith(f"rulebook {id_text(name_id('rulebook', 'r1'))}, which ")
    assert last.endswith("transfers name, was never imported")


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
        ["run {run} is gone, it made 2 transfers", "run {run} is gone, it made 1 orders",
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
        ["rulebook {rules}, which 2 transfers name, was never imported",
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
