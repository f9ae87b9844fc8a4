"""What people did is in the trail, once; three chains run through what was kept of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.model.columns import TextColumn, concat
from pipeline.model.identifiers import id_text
from pipeline.store.book import Book
from pipeline.store.book_trail import Head
from tests.ledger.asking import ask
from tests.ledger.stories import KEYS, booking, name_id, rulebook, target, target_batch

ANN = f"member {id_text(name_id('member', 'ann'))}"


@pytest.fixture
def book(url: str) -> Iterator[Book]:
    """Ann has 100 points."""
    made = Book(url, KEYS, rulebook(manual_limit=50))
    made.post_targets(target_batch([target("a", 100, "available")]), **booking(1))
    yield made
    made.close()


ASKED = [
    ask("order", "o", "ann", 10, role="member"),
    ask("order", "p", "ann", 10, role="analyst", actor="eve"),
    ask("adjust", "j", "ann", 70, role="call_centre", actor="dan", reason="lost"),
    ask("approve", "k", role="approver", actor="eve", request="j"),
]


def test_who_did_what_with_the_points_before_and_after(book: Book) -> None:
    book.post_commands(concat(ASKED), places=np.arange(4) + 7, **booking(2))
    rows = [
        (deed.place, deed.actor, deed.role, deed.action, deed.object, deed.result)
        for deed in book.trail()
    ]
    assert rows == [
        (8, "eve", "analyst", "order", ANN, "not_allowed"),
        (9, "dan", "call_centre", "adjust", ANN, "awaiting_approval"),
        (10, "eve", "approver", "approve", f"request {id_text(name_id('order', 'j'))}", "ok"),
    ]
    denied, adjusted, approved = book.trail()
    assert adjusted.reason == "lost"
    assert denied.before == denied.after == ("pending 0 available 90 reserved 0 debt 0")
    assert approved.before == "pending 0 available 90 reserved 0 debt 0"
    assert approved.after == "pending 0 available 160 reserved 0 debt 0"
    assert book.trail(after=2) == [approved]
    assert book.audit() == []


def test_a_cut_that_is_done_again_adds_nothing(book: Book) -> None:
    for _ in range(2):
        book.post_commands(concat(ASKED), places=np.arange(4), **booking(2))
    assert len(book.trail()) == 3
    again = ASKED[2]
    book.post_commands(again, places=np.array([99]), **booking(3))
    (deed,) = book.trail(after=3)
    assert (deed.place, deed.result) == (99, "exists"), "asked once more, which is told"
    assert book.audit() == []


def test_what_moves_nothing_is_put_on_record_too(book: Book) -> None:
    said = ask("order", "v", actor="eve", role="call_centre", reason="asked", conversion_key="c")
    review = said.with_columns(kind=TextColumn.of(["review"]))
    for _ in range(2):
        book.put_on_record(review, np.array([4]), **booking(2))
    (deed,) = book.trail()
    assert (deed.action, deed.object, deed.result) == ("review", "conversion c", "on_record")
    named = ask("order", "w", actor="eve", object="settle", result="not_allowed")
    denied = named.with_columns(kind=TextColumn.of(["denied"]))
    book.put_on_record(denied, np.array([6]), **booking(2))
    assert [(row.object, row.result) for row in book.trail(after=1)] == [("settle", "not_allowed")]
    assert book.audit() == []
    with pytest.raises(ValueError, match="does not know the command order"):
        book.put_on_record(said, np.array([5]), **booking(2))


def test_heads_are_kept_elsewhere_and_found_again(book: Book) -> None:
    empty = book.heads()
    book.post_commands(concat(ASKED), places=np.arange(4), **booking(2))
    kept = book.heads()
    assert [(head.chain, head.number) for head in kept] == [
        ("postings", 3), ("requests", 4), ("trail", 3),
    ]  # fmt: skip
    book.post_commands(ask("adjust", "z", "ann", 5, reason="x"), **booking(3))
    assert all(book.is_at(head) for head in (*empty, *kept, *book.heads()))
    for head in kept:
        assert not book.is_at(head._replace(number=head.number + 1))
        assert not book.is_at(head._replace(link="00" * 32))
        assert not book.is_at(head._replace(number=99))
    assert not book.is_at(Head("elsewhere", 1, "00"))
