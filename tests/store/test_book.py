"""The book: whatever is sent twice counts once, and the end does not depend on the way."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from pipeline.ledger.posting import post_target
from pipeline.ledger.targets import Target
from pipeline.model.batches import EntryBatch
from pipeline.model.columns import columns_of, ids
from pipeline.model.identifiers import NO_ID, Keys
from pipeline.model.words import Result, TargetState
from pipeline.store import book as book_module
from pipeline.store.book import Book, BookError
from tests.ledger.asking import ask
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    KEYS,
    RUN,
    BookDesk,
    booking,
    name_id,
    ns,
    order_batch,
    rulebook,
    target,
    target_batch,
)


@pytest.fixture
def book(url: str) -> Iterator[Book]:
    made = Book(url, KEYS, rulebook())
    yield made
    made.close()


def busy_day() -> list[list[Target]]:
    """Three cuts over forty conversions of ten members: waiting, confirmed, corrected."""
    names = [(f"c{n}", f"m{n % 10}") for n in range(40)]
    return [
        [target(c, 10 + n, "pending", fold=1, member=m) for n, (c, m) in enumerate(names)],
        [
            target(c, 5 + n, "available", fold=2, member=m, money=f"{n + 9}/{n}/9")
            for n, (c, m) in enumerate(names)
        ],
        [
            target(c, n if n % 3 else 0, "available" if n % 3 else "none", fold=3, member=m)
            for n, (c, m) in enumerate(names)
        ],
    ]


def rows_of(entries: EntryBatch) -> list[tuple]:
    columns = []
    for column in columns_of(EntryBatch):
        values = getattr(entries, column.name)
        columns.append(values.to_list() if column.dtype is None else values.tolist())
    return list(zip(*columns, strict=True))


def whole_book(book: Book) -> tuple:
    return book.ledger_hash(), rows_of(book.entries(0)), book.balances()


def test_posting_twice_is_posting_once(book: Book) -> None:
    for cut, targets in enumerate(busy_day(), 1):
        first = book.post_targets(target_batch(targets), **booking(cut))
        assert set(first.tolist()) == {Result.OK}
        before = whole_book(book)
        again = book.post_targets(target_batch(targets), **booking(cut))
        assert set(again.tolist()) == {Result.EXISTS}
        assert whole_book(book) == before
    earlier = book.post_targets(target_batch(busy_day()[0]), **booking(1))
    assert set(earlier.tolist()) == {Result.STALE}
    assert book.audit() == []


def test_one_batch_may_hold_a_whole_history(book: Book) -> None:
    """The same conversion several times in one batch: each target sees the one before."""
    history = [t for targets in busy_day() for t in targets]
    results = book.post_targets(target_batch([*history, history[-1]]), **booking(1))
    assert results.tolist() == [Result.OK] * 120 + [Result.EXISTS]
    apart = BookDesk().book
    for targets in busy_day():
        apart.post_targets(target_batch(targets), **booking(1))
    assert apart.ledger_hash() == book.ledger_hash()
    assert book.audit() == []


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_where_a_batch_is_cut_leaves_no_trace(
    book: Book, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "TRANSACTION_ROWS", rows)
    whole = BookDesk().book
    for cut, targets in enumerate(busy_day(), 1):
        whole.post_targets(target_batch(targets), **booking(cut))
        orders = order_batch([(f"o{cut}.{n}", f"m{n % 10}", 3 * n) for n in range(20)])
        whole.post_commands(orders, **booking(cut))
    monkeypatch.undo()
    for cut, targets in enumerate(busy_day(), 1):
        book.post_targets(target_batch(targets), **booking(cut))
        orders = order_batch([(f"o{cut}.{n}", f"m{n % 10}", 3 * n) for n in range(20)])
        book.post_commands(orders, **booking(cut))
    assert whole_book(whole) == whole_book(book)


def test_an_entry_carries_everything(book: Book) -> None:
    waiting = target("a", 40, "pending")
    book.post_targets(target_batch([waiting]), **booking(1))
    entries = book.entries(0)
    assert len(entries) == 2
    assert entries.sequence.tolist() == [1, 2]
    assert entries.leg.tolist() == [0, 1]
    assert entries.kind.to_list() == ["earn_pending"] * 2
    assert entries.amount.tolist() == [40, -40]
    assert entries.commodity.to_list() == ["PTS"] * 2
    assert entries.account.to_list()[0] == "programme:issued"
    assert entries.account.to_list()[1].endswith(":pending")
    assert entries.period.to_list() == ["2026-03"] * 2
    assert entries.effective_ns.tolist() == [EVENT_NS] * 2
    assert entries.booked_ns.tolist() == [EVENT_NS + DAY_NS] * 2
    assert entries.cut.tolist() == [1, 1]
    assert entries.cause_kind.to_list() == ["conversion"] * 2
    assert entries.cause_version.tolist() == [1, 1]
    assert entries.actor.to_list() == ["tests"] * 2
    for name, value in (
        ("cause_id", waiting.conversion_key), ("conversion_key", waiting.conversion_key),
        ("subscriber_id", waiting.subscriber_id), ("click_id", waiting.click_id),
        ("visit_id", waiting.visit_id), ("rule_version", waiting.rule_version),
        ("rulebook_hash", waiting.rulebook_hash), ("run_id", RUN),
    ):  # fmt: skip
        assert [bytes(v) for v in getattr(entries, name)] == [value] * 2, name
    assert entries.partner.to_list() == ["acme-shop"] * 2
    assert entries.rule_id.to_list() == ["acme-shop/percent"] * 2
    assert entries.contract_version.to_list() == ["2026-01"] * 2
    assert len({bytes(v) for v in (*entries.entry_id, *entries.transfer_id)}) == 3


def test_a_late_fact_is_booked_in_the_open_period(book: Book) -> None:
    """Effective long ago, booked when it became known; midnight is the programme's."""
    old = target("a", 40, "available", event_ns=ns("2025-11-05"))
    where = {**booking(1), "now_ns": ns("2026-03-31T22:30")}
    book.post_targets(target_batch([old]), **where)
    entries = book.entries(0)
    assert set(entries.period.to_list()) == {"2026-04"}
    assert set(entries.effective_ns.tolist()) == {ns("2025-11-05")}
    assert book.lots(name_id("member", "ann"))[0].expires_ns == ns("2027-12-31T23:00")


def test_an_order_names_its_programmes_rules(book: Book) -> None:
    book.post_targets(target_batch([target("a", 40, "available")]), **booking(1))
    book.post_commands(order_batch([("o", "ann", 30)]), **booking(2))
    entries = book.entries_of(name_id("order", "o"))
    assert entries.kind.to_list() == ["reserve", "reserve", "commit", "commit"]
    assert {bytes(v) for v in entries.rule_version} == {rulebook().programme.version}
    assert entries.actor.to_list() == ["ann"] * 4


def test_entries_are_found_by_id_and_cause(book: Book) -> None:
    for cut, targets in enumerate(busy_day(), 1):
        book.post_targets(target_batch(targets), **booking(cut))
    everything = book.entries(0)
    for row in (0, 5, len(everything) - 1):
        found = book.entry(bytes(everything.entry_id[row]))
        assert rows_of(found) == rows_of(everything.slice(row, row + 1))
    of_one = book.entries_of(name_id("conversion", "c7"))
    keys = np.array([bytes(k) == name_id("conversion", "c7") for k in everything.conversion_key])
    assert rows_of(of_one) == rows_of(everything.take(keys))
    assert len(of_one) > 4
    assert len(book.entry(bytes(everything.transfer_id[0]))) == 0
    assert len(book.entries_of(b"nobody knows it!")) == 0


def test_a_debit_tells_which_lots_it_took(book: Book) -> None:
    """The worked example of the spending order: A 100, B 50, spend 120."""
    lots = [target("B", 50, "available", event_ns=ns("2025-02-01"))]
    lots.append(target("A", 100, "available", event_ns=ns("2024-03-05")))
    book.post_targets(target_batch(lots), **booking(1))
    book.post_commands(order_batch([("o", "ann", 120)], ns("2026-06-01")), **booking(2))
    entries = book.entries_of(name_id("order", "o"))
    taken = {
        kind: [
            (lot.conversion_key, move.remaining, move.held) for lot, move in book.moves(transfer)
        ]
        for kind, transfer in zip(entries.kind.to_list(), entries.transfer_id, strict=True)
    }
    a, b = name_id("conversion", "A"), name_id("conversion", "B")
    assert taken == {
        "reserve": [(a, -100, 100), (b, -20, 20)],
        "commit": [(a, 0, -100), (b, 0, -20)],
    }
    granted = book.moves(bytes(book.entries_of(a).transfer_id[0]))
    assert [(lot.remaining, move.amount) for lot, move in granted] == [(0, 100)]


def test_a_conversion_tells_its_story(book: Book) -> None:
    for fold, (points, state) in enumerate(
        [(40, "pending"), (0, "none"), (30, "pending"), (24, "available")], 1
    ):
        book.post_targets(target_batch([target("a", points, state, fold=fold)]), **booking(fold))
    standing = book.conversion(name_id("conversion", "a"))
    assert standing is not None
    assert standing.conversion.number == 4
    assert standing.conversion.target.points == 24
    items = [(i.generation, i.amount, i.confirmed, i.returned) for i in standing.pending]
    assert items == [(1, 40, 0, 40), (2, 30, 24, 6)]
    assert [(lot.amount, lot.remaining) for lot in standing.lots] == [(24, 24)]
    assert standing.lots[0].terms.issue_price == "1/100"
    assert standing.lots[0].earned_ns == standing.lots[0].spendable_from_ns == EVENT_NS
    assert book.conversion(b"nobody knows it!") is None


def test_the_outbox_holds_what_is_not_delivered(url: str, book: Book) -> None:
    assert book.undelivered() is None
    for cut, targets in enumerate(busy_day(), 1):
        book.post_targets(target_batch(targets), **booking(cut))
    count = len(book.entries(0))
    assert book.undelivered() == (1, count)
    book.mark_delivered(25)
    book.close()
    again = Book(url, KEYS, rulebook())
    assert again.undelivered() == (25, count), "a transfer is delivered whole, or not yet"
    page = again.entries(24, 10)
    assert page.sequence.tolist() == list(range(25, 35))
    assert again.entries(24, 9).sequence.tolist() == list(range(25, 33))
    assert again.entries(24, 1).sequence.tolist() == [25, 26], "never nothing"
    again.mark_delivered(count)
    assert again.undelivered() is None
    again.mark_delivered(count)
    again.post_targets(target_batch([target("late", 1, "pending")]), **booking(9))
    assert again.undelivered() == (count + 1, count + 2)
    assert again.audit() == []


def test_rules_are_pinned_with_what_is_needed_to_rate_again(book: Book) -> None:
    book.post_targets(
        target_batch([target("a", 4, "pending"), target("b", rule="-")]), **booking(1)
    )
    keys = [name_id("conversion", name) for name in ("a", "b", "c")]
    found = book.pinned(ids(keys))
    assert list(found) == keys[:1]
    assert found[keys[0]].rule_version == name_id("rule", "r1")
    assert found[keys[0]].rulebook_hash == name_id("rulebook", "r1")
    refused = book.post_targets(
        target_batch([target("a", 9, "pending", fold=2, rule="r2")]), **booking(2)
    )
    assert refused.tolist() == [Result.RULE_VERSION_PINNED]
    assert book.pinned([]) == {}


def test_mistakes_of_the_caller_book_nothing(book: Book) -> None:
    wrong = target("b", 40, "available", money="100/40/61")
    with pytest.raises(ValueError, match="cost and margin"):
        book.post_targets(target_batch([target("a", 1, "pending"), wrong]), **booking(1))
    assert len(book.entries(0)) == 0
    assert book.post_targets(target_batch([]), **booking(1)).tolist() == []


def test_a_book_that_is_not_opened_gives_its_connections_back(
    url: str, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    disposed = []
    was = Engine.dispose
    monkeypatch.setattr(Engine, "dispose", lambda engine: (disposed.append(engine), was(engine)))
    with pytest.raises(BookError, match="another keys"):
        Book(url, Keys.from_seed("others"), rulebook())
    assert len(disposed) == 1


def test_a_book_knows_who_ever_had_an_account(book: Book) -> None:
    ann, bob = (name_id("member", name) for name in ("ann", "bob"))
    assert not book.knows(ann)
    book.post_targets(target_batch([target("a", 40, "pending")]), **booking(1))
    assert book.knows(ann)
    assert not book.knows(bob)


def test_a_book_is_opened_by_its_own(url: str, book: Book) -> None:
    book.post_targets(target_batch([target("a", 40, "pending")]), **booking(1))
    assert book.test
    same = Book(url, KEYS, rulebook(title="Another title"))
    assert same.ledger_hash() == book.ledger_hash()
    same.close()
    with pytest.raises(BookError, match="another keys"):
        Book(url, Keys.from_seed("others"), rulebook())
    with pytest.raises(BookError, match="another programme: it has 'club', not 'other'"):
        Book(url, KEYS, rulebook(id="other"))
    with pytest.raises(BookError, match="points"):
        Book(url, KEYS, rulebook(points="MILES"))
    with pytest.raises(BookError, match="test"):
        Book(url, dataclasses.replace(KEYS, test=False), rulebook())
    with pytest.raises(BookError, match="another timezone"):
        Book(url, KEYS, rulebook(timezone="UTC"))
    with pytest.raises(BookError, match="another points scale: it has '0', not '2'"):
        Book(url, KEYS, rulebook(points_scale=2))
    for changed in (
        {"points": "MILES"}, {"id": "other"}, {"timezone": "UTC"}, {"points_scale": 2},
        {"currency": "USD"},
    ):  # fmt: skip
        with pytest.raises(BookError, match=next(iter(changed))):
            book.import_rulebook(rulebook(**changed))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_points_are_issued_on_the_terms_they_were_rated_under(book: Book, order: tuple) -> None:
    """Whatever was imported last; and a lot keeps the terms it was born with."""
    books = [rulebook(), rulebook(expiry="never", funder="partner")]
    for number in order:
        book.import_rulebook(books[number])
    old, new = (each.hash for each in books)
    first = [target("a", 10, "available")._replace(rulebook_hash=old)]
    first.append(target("b", 10, "pending")._replace(rulebook_hash=new))
    book.post_targets(target_batch(first), **booking(1))
    second = [target("a", 12, "available", fold=2)._replace(rulebook_hash=new)]
    second.append(target("b", 10, "available", fold=2)._replace(rulebook_hash=new))
    book.post_targets(target_batch(second), **booking(2))
    a, b = book.lots(name_id("member", "ann"))
    assert (a.amount, a.terms.expiry_policy, a.terms.funder) == (
        12, "calendar_year_plus(2)", "operator",
    )  # fmt: skip
    assert (b.terms.expiry_policy, b.terms.funder) == ("never", "partner")
    waited = book.conversion(name_id("conversion", "b"))
    assert waited is not None
    assert waited.pending[0].terms == b.terms
    assert all("never imported" in sentence for sentence in book.audit())


def test_two_openings_of_one_book_go_on_where_the_other_was(url: str, book: Book) -> None:
    other = Book(url, KEYS, rulebook())
    for cut, targets in enumerate(busy_day(), 1):
        (book if cut % 2 else other).post_targets(target_batch(targets), **booking(cut))
    assert whole_book(book) == whole_book(other)
    assert book.audit() == other.audit() == []
    other.close()


def test_others_read_while_it_writes(book: Book) -> None:
    stop, seen, failures = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            try:
                entries = book.entries(0)
                seen.append(len(entries))
                assert sum(entries.amount.tolist()) == 0, "half a transaction was seen"
                assert book.member(name_id("member", "m1")).debt == 0
            except Exception as error:
                failures.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for cut, targets in enumerate(busy_day(), 1):
        book.post_targets(target_batch(targets), **booking(cut))
    everything, deadline = len(book.entries(0)), time.monotonic() + 60
    while not failures and seen[-1:] != [everything] and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    reader.join()
    assert not failures
    assert seen[-1] == everything > 0
    assert seen == sorted(seen)


DURABLE = {
    "sqlite": ("PRAGMA", {"journal_mode": "wal", "synchronous": 2}),
    "postgresql": ("SHOW", {"fsync": "on", "synchronous_commit": "on"}),
}


def test_a_commit_is_on_the_disk(book: Book) -> None:
    ask, expected = DURABLE[book._engine.dialect.name]
    with book._write() as connection:
        settings = {name: connection.execute(text(f"{ask} {name}")).scalar() for name in expected}
    assert settings == expected


def test_a_second_writer_waits_for_the_first(url: str, book: Book) -> None:
    """Two programs on one book: what the second reads first is what the first wrote."""
    other, began = Book(url, KEYS, rulebook()), threading.Event()

    def post() -> None:
        began.set()
        other.post_targets(target_batch([target("b", 7, "available")]), **booking(1))

    with book._pages(EVENT_NS) as pages:
        waiting = threading.Thread(target=post)
        waiting.start()
        began.wait()
        time.sleep(0.2)
        chunk = [target("a", 40, "available")]
        pages.read_for_targets(chunk)
        booked = book._booking(pages, **booking(1))
        pages.write(post_target(pages.state, chunk[0]).postings, booked)
    waiting.join(30)
    assert not waiting.is_alive()
    assert len(book.entries(0)) == 4
    assert book.member(name_id("member", "ann")).available == 47
    assert book.audit() == other.audit() == []
    other.close()


def test_hash_of_a_book_is_not_of_runs_and_times(book: Book) -> None:
    book.post_targets(target_batch([target("a", 40, "available")]), **booking(1))
    other = BookDesk().book
    where = {"cut": 8, "now_ns": EVENT_NS + 9 * DAY_NS, "run_id": NO_ID, "actor": "somebody"}
    other.post_targets(target_batch([target("a", 40, "available")]), **where)
    assert other.ledger_hash() == book.ledger_hash()
    other.post_targets(target_batch([target("b", 1, "pending")]), **where)
    assert other.ledger_hash() != book.ledger_hash()


@pytest.mark.parametrize(
    "changed",
    [{"points": 41}, {"member": "bob"}, {"event_ns": EVENT_NS + DAY_NS}, {"money": "1/1/0"},
     {"partner": "bolt-mobile", "money": "5/1/4"}, {"contract": "2026-02"}, {"what": "b"}],
)  # fmt: skip
def test_hash_of_a_book_is_of_everything_that_counts(changed: dict) -> None:
    plain = {"what": "a", "points": 40, "state": "available", "money": "5/1/4"}
    hashes = set()
    for values in (plain, {**plain, **changed}):
        desk = BookDesk()
        desk.post([target(**values)])
        hashes.add(desk.book.ledger_hash())
    assert len(hashes) == 2


# The end does not depend on the way there

STATES = ("none", "pending", "available")


@st.composite
def ways(draw: st.DrawFn) -> tuple[list[Target], list[list[Target]]]:
    """Final targets of some conversions, and batches that reach them by many turns."""
    last = 20
    finals, sequences = [], []
    for n in range(draw(st.integers(1, 4))):
        turns = [
            draw(a_target(f"c{n}", fold))
            for fold in sorted(draw(st.sets(st.integers(1, last - 1), max_size=5)))
        ]
        final = draw(a_target(f"c{n}", last))
        finals.append(final)
        # Repeats and stale ones do no harm either.
        sequences.append([*turns, final, *draw(st.lists(st.sampled_from([*turns, final])))])
    order = draw(st.permutations([n for n, s in enumerate(sequences) for _ in s]))
    queues = [iter(s) for s in sequences]
    flat = [next(queues[n]) for n in order]
    bounds = sorted(draw(st.sets(st.integers(0, len(flat)), max_size=6)) | {0, len(flat)})
    batches = [flat[a:b] for a, b in itertools.pairwise(bounds)]
    return draw(st.permutations(finals)), batches


@st.composite
def a_target(draw: st.DrawFn, what: str, fold: int) -> Target:
    state = draw(st.sampled_from(STATES))
    points = 0 if state == "none" else draw(st.integers(0, 50))
    priced = state == "available" and draw(st.booleans())
    made = target(
        what,
        points,
        state,
        fold=fold,
        member=draw(st.sampled_from(("ann", "ann", "bob"))),
        money=f"{points + 5}/{points}/5" if priced else "",
        currency=draw(st.sampled_from(("EUR", "EUR", "USD"))),
        event_ns=EVENT_NS + draw(st.integers(-400, 400)) * DAY_NS,
        contract=draw(st.sampled_from(("2026-01", "2026-02"))),
    )
    return made if points or priced or draw(st.booleans()) else made._replace(rule_version=NO_ID)


@pytest.mark.slow
@given(ways())
def test_the_end_does_not_depend_on_the_way(way: tuple[list[Target], list[list[Target]]]) -> None:
    finals, batches = way
    straight, winding = BookDesk(), BookDesk()
    straight.post(finals)
    for cut, batch in enumerate(batches, 1):
        winding.post(batch, cut)
    assert winding.book.ledger_hash() == straight.book.ledger_hash()
    assert winding.balances() == straight.balances()
    assert winding.book.audit() == straight.book.audit() == []
    for final in finals:
        held = winding.book.conversion(final.conversion_key)
        assert held is not None
        assert held.conversion.target.worth == final.worth
        assert (final.standing == TargetState.AVAILABLE) == bool(held.lots)
    straight.book.close()
    winding.book.close()


def test_money_before_points_is_about_no_member_yet(url: str) -> None:
    """Nor is it where the member was known already, by something that moved nothing."""
    book = Book(url, KEYS, rulebook())
    book.post_commands(ask("freeze", "z", "cid"), **booking(1))
    for fold, who in enumerate(("ann", "cid"), 1):
        paid = target(who, 0, "available", money="5/0/5", member=who, fold=fold)
        book.post_targets(target_batch([paid]), **booking(fold))
        earned = target(f"{who}2", 7, "available", member=who, fold=fold)
        book.post_targets(target_batch([earned]), **booking(fold))
        assert book.member(name_id("member", who)).available == 7
    assert book.audit() == []
    book.close()
